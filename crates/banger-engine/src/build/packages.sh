# Installs the packages in the arguments with the package manager of the image.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
has() { command -v "$1" >/dev/null 2>&1; }
if has apt-get; then
    apt-get -q update
    apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 install "$@"
elif has apk; then
    apk add --no-progress "$@"
elif has xbps-install; then
    xbps-install -S
    # It refuses everything else while it is out of date itself.
    xbps-install -y -u xbps
    xbps-install -y "$@"
elif has dnf; then
    dnf -y install "$@"
elif has microdnf; then
    microdnf -y install "$@"
elif has yum; then
    yum -y install "$@"
else
    echo "the image has none of apt-get, apk, xbps-install, dnf, microdnf, yum" >&2
    exit 127
fi
