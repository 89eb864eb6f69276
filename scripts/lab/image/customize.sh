# Runs in the lab's tree while it is made.
set -e
adduser --quiet --disabled-password --gecos '' --uid 1000 --shell /bin/bash dev
echo 'dev ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/dev
echo lab >/etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 lab\n::1 localhost\n' >/etc/hosts
ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
: >/etc/machine-id
systemctl -q enable systemd-networkd systemd-resolved ssh lab.service
systemctl -q mask getty-static.service serial-getty@ttyS0.service serial-getty@hvc0.service \
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
  e2scrub_reap.service getty@tty1.service systemd-networkd-wait-online.service fstrim.timer
