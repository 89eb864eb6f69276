# Adds opencode to the packages of the recipe. Its server is not a service of the init: banger's
# agent starts it in each VM, with the password of that VM.
set -eu

version=1.18.33
case $(uname -m) in
# Of the programs for this architecture the one that needs no AVX2: VMs of the image may run on
# another CPU than this one.
x86_64) platform=opencode-linux-x64-baseline ;;
aarch64) platform=opencode-linux-arm64 ;;
*)
    echo "opencode has no program for $(uname -m)" >&2
    exit 1
    ;;
esac
# Without its script, which would choose by this CPU.
npm install --global --ignore-scripts --omit=optional --no-audit --no-fund \
    "opencode-ai@$version" "$platform@$version"
modules=$(npm root --global)
test -x "$modules/$platform/bin/opencode"
# One file, where the package's own script puts it.
ln -f "$modules/$platform/bin/opencode" "$modules/opencode-ai/bin/opencode.exe"
rm -rf "${modules:?}/$platform"
ln -sfn "$modules/opencode-ai/bin/opencode.exe" /usr/local/bin/opencode
test "$(opencode --version)" = "$version"
# What this run of it left.
rm -rf /root/.local/share/opencode /root/.local/state/opencode /root/.cache/opencode \
    /root/.config/opencode /root/.npm
python3 --version
printf '%s\n' 'fs.inotify.max_user_watches = 1048576' 'fs.inotify.max_user_instances = 1024' \
    >/etc/sysctl.d/10-banger.conf
