#!/usr/bin/env bash
# Installs what is missing to build, run and test banger. Says what it does; asks sudo only for
# Debian's own packages, and only when some are missing.
#
#   scripts/setup.sh build   what building needs
#   scripts/setup.sh run     … and what running VMs needs
#   scripts/setup.sh test    … and what the tests need
#   scripts/setup.sh clients what generating clients of the API needs
set -euo pipefail
cd "$(dirname "$0")/.."
need=${1:-run}
tools=$PWD/.cache/tools

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else say "sudo $*"; sudo "$@"; fi
}

# Programs, and the Debian package that has each.
wanted=(cc:gcc make:make)
if [ "$need" != build ]; then
  wanted+=(qemu-system-x86_64:qemu-system-x86 mke2fs:e2fsprogs mmdebstrap:mmdebstrap
    dpkg-deb:dpkg xz:xz-utils depmod:kmod patch:patch qemu-img:qemu-utils
    sqfs2tar:squashfs-tools-ng)
fi
if [ "$need" = test ]; then
  wanted+=(debugfs:e2fsprogs dig:bind9-dnsutils jq:jq socat:socat python3:python3 pip:python3-pip
    openssl:openssl groff:groff-base mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs nft:nftables iptables-nft:iptables
    ssh:openssh-client rsync:rsync mksquashfs:squashfs-tools sfdisk:fdisk
    bzip2:bzip2 lz4:lz4 zstd:zstd tar:tar zsh:zsh fish:fish git:git
    umoci:umoci skopeo:skopeo buildah:buildah docker-registry:docker-registry
    tmux:tmux busybox:busybox-static setcap:libcap2-bin minisign:minisign
    flex:flex bison:bison bc:bc perl:perl-base npm:npm unshare:util-linux ip:iproute2 curl:curl)
fi

# npm packages, kept by the content of their lock file. No script of a package runs.
npm_packages() {
  local sum name kept
  sum=$(sha256sum "scripts/$1/package-lock.json" | cut -c1-16)
  name=${1//\//-}
  kept=$tools/$name-$sum
  if [ ! -e "$kept/complete" ]; then
    say "fetching the npm packages of scripts/$1"
    rm -rf "$kept"
    mkdir -p "$kept"
    cp "scripts/$1/package.json" "scripts/$1/package-lock.json" "$kept"
    (cd "$kept" && npm ci --silent --ignore-scripts --no-audit --no-fund)
    touch "$kept/complete"
  fi
  ln -sfn "$kept" "$tools/$name"
}

# Python packages in an environment of their own, kept by the content of their requirements.
python_packages() {
  local sum name kept
  sum=$(sha256sum "scripts/$1/requirements.txt" | cut -c1-16)
  name=${1//\//-}
  kept=$tools/$name-$sum
  if [ ! -e "$kept/complete" ]; then
    say "installing the Python packages of scripts/$1"
    rm -rf "$kept"
    python3 -m venv "$kept"
    "$kept/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
      --no-deps --only-binary :all: --requirement "scripts/$1/requirements.txt"
    touch "$kept/complete"
  fi
  ln -sfn "$kept" "$tools/$name"
}

# Generators of clients for Python and TypeScript, from openapi/banger.json.
generators_of_clients() {
  python_packages api-clients/python
  npm_packages api-clients/typescript
}

if [ "$need" = clients ]; then
  mkdir -p "$tools"
  for program in python3 node npm; do
    command -v $program >/dev/null || { say "$program is needed and was not found"; exit 1; }
  done
  generators_of_clients
  exit
fi

# npm fetches the web page's front-end files, once; the programs need neither npm nor Node.js.
sum=$(sha256sum scripts/web/package-lock.json | cut -c1-16)
[ -e "$tools/web-$sum/complete" ] || wanted+=(npm:npm)
if [ "$need" = test ]; then
  wanted+=(npm:npm node:nodejs chromium:chromium)
fi

export PATH=$PATH:/usr/sbin:/sbin
packages=()
for pair in "${wanted[@]}"; do
  command -v "${pair%%:*}" >/dev/null 2>&1 || packages+=("${pair##*:}")
done

# Headers of libelf, for building kernels.
if [ "$need" = test ] && [ ! -e /usr/include/gelf.h ]; then
  packages+=(libelf-dev)
fi

# Debian has the module venv in a package of its own.
if [ "$need" = test ] && ! python3 -c 'import ensurepip' 2>/dev/null; then
  packages+=(python3-venv)
fi

# cargo: what is there if it is new enough, else rustup's, else Debian's.
cargo_is_new() {
  local have
  have=$(cargo --version 2>/dev/null | cut -d' ' -f2) || return 1
  [ -n "$have" ] && [ "$(printf '1.95.0\n%s\n' "$have" | sort -V | head -n1)" = 1.95.0 ]
}
if ! cargo_is_new; then
  if command -v rustup >/dev/null 2>&1; then
    say "rustup toolchain install stable"
    rustup toolchain install stable --profile minimal -c clippy -c rustfmt
  else
    packages+=(cargo-web rustc-web)
  fi
fi

if [ ${#packages[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null 2>&1; then
    say "please install these with your system's package manager: ${packages[*]}"
    exit 1
  fi
  say "installing Debian packages: ${packages[*]}"
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qy "$@" >>"$log" 2>&1 ||
      { cat "$log" >&2; exit 1; }
  }
  apt update
  # A package of another release may not fit beside the new ones, and apt removes it. What is needed
  # here comes back in a version that fits; nothing else is removed.
  again=()
  for name in $(apt-get -sqy install --no-install-recommends "${packages[@]}" |
    sed -n 's/^Remv \([^ ]*\).*/\1/p'); do
    case " ${wanted[*]} " in
      *":$name "*) again+=("$name") ;;
      *) say "apt would remove $name: please install these yourself: ${packages[*]}"; exit 1 ;;
    esac
  done
  apt install --no-install-recommends "${packages[@]}"
  [ ${#again[@]} = 0 ] || apt install --no-install-recommends "${again[@]}"
fi
cargo_is_new || { say "cargo 1.95 or newer is needed and was not found"; exit 1; }

# QEMU's companion for vsock: its source from the Rust registry, and that of a crate it uses, with
# patches of ours, kept by version. Cargo downloads and checks them as dependencies of an empty
# package.
build_companion() {
  local work
  work=$(mktemp -d)
  mkdir "$work/fetch"
  printf '%s\n' '[package]' 'name = "fetch"' 'version = "0.0.0"' 'edition = "2021"' '[lib]' \
    'path = "lib.rs"' '[dependencies]' "vhost-device-vsock = \"=$1\"" \
    "vhost-user-backend = \"=$3\"" >"$work/fetch/Cargo.toml"
  : >"$work/fetch/lib.rs"
  cargo vendor --quiet --versioned-dirs --manifest-path "$work/fetch/Cargo.toml" "$work/vendor" \
    >/dev/null
  patch --quiet --strip 1 --directory "$work/vendor/vhost-device-vsock-$1" \
    <scripts/vhost-device-vsock.patch
  patch --quiet --strip 1 --directory "$work/vendor/vhost-user-backend-$3" \
    <scripts/vhost-user-backend.patch
  # Warnings of crates that others wrote are not for the user of this script.
  CARGO_TARGET_DIR=$work/target RUSTFLAGS=--cap-lints=allow \
    cargo install --quiet --locked --root "$2" \
    --path "$work/vendor/vhost-device-vsock-$1"
  rm -rf "$work"
}

if [ "$need" != build ]; then
  version=0.3.0
  kept=$tools/vhost-device-vsock-$version+banger.2
  if [ ! -x "$kept/bin/vhost-device-vsock" ]; then
    say "building vhost-device-vsock $version"
    build_companion "$version" "$kept" 0.20.0
  fi
  for profile in debug release; do
    mkdir -p "target/$profile"
    ln -sfn "$kept/bin/vhost-device-vsock" "target/$profile/vhost-device-vsock"
  done
fi

if [ "$need" = test ] && ! cargo nextest --version >/dev/null 2>&1; then
  kept=$tools/cargo-nextest
  [ -x "$kept/bin/cargo-nextest" ] || {
    say "building cargo-nextest"
    cargo install --quiet --locked --root "$kept" cargo-nextest
  }
fi

npm_packages web
[ "$need" != test ] || npm_packages web-tests

# Python programs of the tests: schemathesis, clients of ssh, a disk image of Alpine Linux that others made, a client
# of the Model Context Protocol, and the SDK of E2B.
if [ "$need" = test ]; then
  for name in fuzz-api ssh-clients test-images mcp-clients e2b; do
    python_packages $name
  done
  generators_of_clients
fi

# opencode as npm has it, pinned by version and hash, kept by the content of its lock file.
if [ "$need" = test ]; then
  sum=$(cat scripts/opencode/package*.json | sha256sum | cut -c1-16)
  kept=$tools/opencode-$sum
  if [ ! -e "$kept/complete" ]; then
    say "installing the npm package of scripts/opencode"
    rm -rf "$kept"
    mkdir -p "$kept"
    cp scripts/opencode/package*.json "$kept"
    npm ci --prefix "$kept" --ignore-scripts --no-audit --no-fund --loglevel=error >&2
    touch "$kept/complete"
  fi
  ln -sfn "$kept" "$tools/opencode"
fi

# Programs of the tests from npm, kept by the content of their lock file: the inspector of the Model
# Context Protocol; Claude Code, Codex and the SDK of the Agent Client Protocol; E2B's SDK. No script
# of a package runs. `npm ci` refuses a lock file without optional packages of other systems.
if [ "$need" = test ]; then
  for name in mcp-inspector agents e2b-js; do
    sum=$(sha256sum scripts/$name/package-lock.json | cut -c1-16)
    kept=$tools/$name-$sum
    if [ ! -e "$kept/complete" ]; then
      say "fetching the npm packages of scripts/$name"
      rm -rf "$kept"
      mkdir -p "$kept"
      cp scripts/$name/package.json scripts/$name/package-lock.json "$kept"
      (cd "$kept" && npm install --silent --ignore-scripts --no-audit --no-fund)
      touch "$kept/complete"
    fi
    ln -sfn "$kept" "$tools/$name"
  done
fi
