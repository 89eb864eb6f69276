# Makes a machine of the base system: services of runit, logins by ssh, bash for root. The network,
# the host name and the clock are those that banger's agent sets.
set -eu

services=/etc/runit/runsvdir/default
mkdir -p "$services"
for service in sshd udevd; do
    if [ -d "/etc/sv/$service" ]; then ln -sfn "/etc/sv/$service" "$services/$service"; fi
done
# There is a serial console only.
rm -f "$services"/agetty-tty[0-9]* "$services/dhcpcd" "$services/wpa_supplicant"

# Logins by key: the account has no password, and is not locked.
sed -i 's/^root:[!*]*:/root:*:/' /etc/shadow
mkdir -p /etc/ssh/sshd_config.d
printf '%s\n' 'HostKey /etc/ssh/ssh_host_ed25519_key' 'PermitRootLogin prohibit-password' \
    'UseDNS no' >/etc/ssh/sshd_config.d/10-banger.conf
grep -q '^Include /etc/ssh/sshd_config.d/' /etc/ssh/sshd_config ||
    sed -i '1i Include /etc/ssh/sshd_config.d/*.conf' /etc/ssh/sshd_config

# bash for root.
sed -i 's|^\(root:.*\):[^:]*$|\1:/bin/bash|' /etc/passwd
cat >/root/.bashrc <<'END'
case $- in *i*) ;; *) return ;; esac
HISTCONTROL=ignoreboth
shopt -s histappend checkwinsize
PS1='\u@\h:\w\$ '
alias ls='ls --color=auto' grep='grep --color=auto' ll='ls -l' la='ls -A'
END
mkdir -p /etc/sysctl.d
printf '%s\n' 'fs.inotify.max_user_watches = 1048576' 'fs.inotify.max_user_instances = 1024' \
    >/etc/sysctl.d/10-banger.conf

# The image boots the kernel of its distribution.
release=$(ls /usr/lib/modules | sort -V | tail -n1)
test -e "/boot/vmlinuz-$release" && test -x /bin/bash && test -d "$services/sshd/"
