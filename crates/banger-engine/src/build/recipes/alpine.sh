# Makes a machine of the base system: services of OpenRC, logins by ssh, bash for root. The network,
# the host name and the clock are those that banger's agent sets.
set -eu

# Services of Alpine's installer that a virtual machine has a use for.
add() {
    level=$1
    shift
    for service in "$@"; do
        if [ -e "/etc/init.d/$service" ]; then rc-update -q add "$service" "$level"; fi
    done
}
add sysinit devfs dmesg mdev
add boot bootmisc modules sysctl syslog
add default crond local
add shutdown killprocs mount-ro savecache
for service in networking hwclock; do
    if [ -e "/etc/runlevels/boot/$service" ]; then rc-update -q del "$service" boot; fi
done
# A machine, not a container: file systems are made read-only at shutdown.
sed -i 's/^rc_sys=.*/rc_sys=""/' /etc/rc.conf
# There is a serial console only, and the network is up before sshd starts.
sed -i '/^tty[0-9]*::/d' /etc/inittab
rc-update -q add sshd default
printf '%s\n' 'rc_need="!net"' 'sshd_disable_keygen="yes"' >>/etc/conf.d/sshd

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
printf '%s\n' '[ -n "$BASH_VERSION" ] && . ~/.bashrc' >/root/.profile
printf '%s\n' 'fs.inotify.max_user_watches = 1048576' 'fs.inotify.max_user_instances = 1024' \
    >/etc/sysctl.d/10-banger.conf
test -x /bin/bash && test -x /usr/sbin/sshd && test -e /etc/runlevels/default/sshd
