# Removes what belongs to this machine or can be fetched again. Whatever is not there is skipped.
export LC_ALL=C
has() { command -v "$1" >/dev/null 2>&1; }
cd /

# Package caches.
if has apt-get; then
    apt-get clean
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
fi
has dnf && dnf -q clean all
has yum && yum -q clean all
rm -rf /var/cache/apk/* /var/cache/xbps/* /var/cache/dnf/* /var/cache/yum/*

# Services that write at shutdown what is removed here: the seed is saved once more now, and the
# journal continues in memory.
if has systemctl; then
    systemctl stop systemd-random-seed.service 2>/dev/null
    has journalctl && journalctl --relinquish-var 2>/dev/null
elif has rc-service; then
    for service in seedrng urandom savecache syslog; do
        rc-service --ifexists --ifstarted "$service" stop >/dev/null 2>&1
    done
fi
rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret
rm -rf /var/lib/seedrng /var/lib/misc/random-seed /var/lib/urandom/random-seed

# Identity. An empty machine-id stays: without the file, systemd takes the boot for the first one.
[ -f /etc/machine-id ] && : >/etc/machine-id
[ -f /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ] &&
    rm -f /var/lib/dbus/machine-id
rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
rm -rf /var/lib/dhcp/*.leases /var/lib/dhcpcd/*.lease /var/lib/NetworkManager/*lease*
if [ -f /etc/hosts ]; then
    name=$(cat /proc/sys/kernel/hostname)
    # Written over itself, since the file may have more names or be a mount point.
    lines=$(grep -v "^127\.0\.1\.1[[:space:]][[:space:]]*$name\$" /etc/hosts) &&
        printf '%s\n' "$lines" >/etc/hosts
fi

# Logs: those in use become empty, old ones are removed.
rm -rf /var/log/journal/* /var/log/banger /run/banger-build-script
find /var/log -xdev -type f \( -name '*.gz' -o -name '*.xz' -o -name '*.[0-9]' -o -name '*.old' \) \
    -exec rm -f {} + 2>/dev/null
find /var/log -xdev -type f -exec sh -c 'for f; do : >"$f"; done' sh {} + 2>/dev/null

# Histories and temporary files.
for home in /root /home/*; do
    rm -f "$home"/.bash_history "$home"/.ash_history "$home"/.sh_history "$home"/.zsh_history \
        "$home"/.python_history "$home"/.lesshst "$home"/.viminfo "$home"/.wget-hsts
done
find /tmp /var/tmp -xdev -mindepth 1 -maxdepth 1 -exec rm -rf {} + 2>/dev/null
sync
exit 0
