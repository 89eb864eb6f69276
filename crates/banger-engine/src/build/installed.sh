# Lists installed packages, one a line: name and version.
export LC_ALL=C
has() { command -v "$1" >/dev/null 2>&1; }
exec 2>/dev/null
if has dpkg-query; then
    dpkg-query -W -f '${binary:Package} ${Version}\n'
elif has apk; then
    apk info -v
elif has xbps-query; then
    xbps-query -l
elif has rpm; then
    rpm -qa --qf '%{NAME} %{VERSION}-%{RELEASE}.%{ARCH}\n'
fi
# Not a package of a distribution; VMs of the image start its server.
if has opencode; then
    program=$(readlink -f "$(command -v opencode)")
    version=$(sed -n 's/^ *"version": *"\([^"]*\)".*/\1/p' "${program%/bin/*}/package.json" | head -n1)
    echo "opencode-ai ${version:-unknown}"
fi
exit 0
