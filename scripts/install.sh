#!/usr/bin/env bash
# Installs banger from a finished build, or removes it.
#
#   scripts/install.sh [install|uninstall|list]
#
# PREFIX (default /usr/local) is where the programs will run from, DESTDIR (default empty) a folder
# in front of it for packages, BUILD (default target/release) the build. Programs are replaced by a
# rename, so that running ones go on; VMs are never touched.
set -euo pipefail
cd "$(dirname "$0")/.."
prefix=${PREFIX:-/usr/local} destdir=${DESTDIR:-} build=${BUILD:-target/release}
case $prefix in
  /*) ;;
  *) echo "install: PREFIX must be an absolute path, it is \`$prefix\`" >&2; exit 2 ;;
esac
own=$prefix/lib/banger
share=$prefix/share
# Where zsh looks: Debian reserves `site-functions` for the administrator.
zsh=$share/zsh/site-functions
[ "$prefix" != /usr ] || zsh=$share/zsh/vendor-completions

# Path from the build, path of the installed file, mode.
files=(
  "$build/banger:$own/banger:755"
  "$build/bangerd:$own/bangerd:755"
  "$build/banger-shim:$own/banger-shim:755"
  "$build/banger-forward:$own/banger-forward:755"
  "$build/banger-root:$own/banger-root:755"
  "$build/vhost-device-vsock:$own/vhost-device-vsock:755"
  "$build/guest/banger-agent:$own/guest/banger-agent:755"
  "packaging/bangerd.service:$prefix/lib/systemd/user/bangerd.service:644"
  "packaging/completions/banger.bash:$share/bash-completion/completions/banger:644"
  "packaging/completions/_banger:$zsh/_banger:644"
  "packaging/completions/banger.fish:$share/fish/vendor_completions.d/banger.fish:644"
)
# Commands, as links to the programs: each program finds its parts beside itself.
commands=(banger bangerd banger-root)
# Folders of ours, the innermost first.
folders=("$own/guest" "$own")

# Manual pages are made by the installed program, from its help.
man=$share/man/man1
# The first line of each.
man_mark='.\" A manual page of banger, made from its help.'

installed() {
  local entry
  for entry in "${files[@]}"; do cut -d: -f2 <<<"$entry"; done
  for entry in "${commands[@]}"; do echo "$prefix/bin/$entry"; done
  "$build/banger" __man | sed "s|^|$man/|"
}

install_file() {
  local from=$1 to=$destdir$2 mode=$3
  mkdir -p "$(dirname "$to")"
  if [[ $from == *.service ]]; then
    sed "s|@LIBEXEC@|$own|g" "$from" >"$to.new"
  else
    cp --dereference -- "$from" "$to.new"
  fi
  chmod "$mode" "$to.new"
  mv -f -- "$to.new" "$to"
}

remove_pages() {
  local page
  for page in "$destdir$man"/banger.1 "$destdir$man"/banger-*.1; do
    [ ! -f "$page" ] || [ "$(head -n1 "$page")" != "$man_mark" ] || rm -f -- "$page"
  done
}

case ${1:-install} in
  install)
    for entry in "${files[@]}"; do
      from=${entry%%:*}
      [ -f "$from" ] || { echo "install: \`$from\` is missing: run \`make build\` first" >&2; exit 1; }
    done
    for entry in "${files[@]}"; do
      IFS=: read -r from to mode <<<"$entry"
      install_file "$from" "$to" "$mode"
    done
    mkdir -p "$destdir$prefix/bin"
    for name in "${commands[@]}"; do
      ln -sfn "../lib/banger/$name" "$destdir$prefix/bin/$name"
    done
    pages=$(mktemp -d)
    trap 'rm -rf -- "$pages"' EXIT
    "$build/banger" __man "$pages"
    # Commands may have been removed since the installed version.
    remove_pages
    for page in "$pages"/*; do install_file "$page" "$man/${page##*/}" 644; done
    ;;
  uninstall)
    # Without a build too: the pages are found by their first line.
    for entry in "${files[@]}"; do rm -f -- "$destdir$(cut -d: -f2 <<<"$entry")"; done
    for entry in "${commands[@]}"; do rm -f -- "$destdir$prefix/bin/$entry"; done
    remove_pages
    for folder in "${folders[@]}"; do
      [ ! -d "$destdir$folder" ] || rmdir -- "$destdir$folder"
    done
    # Shared with other packages.
    for folder in "$prefix/lib/systemd/user" "$prefix/lib/systemd" \
      "$share/bash-completion/completions" "$share/bash-completion" "$zsh" "$share/zsh" \
      "$share/fish/vendor_completions.d" "$share/fish" "$man" "$share/man"; do
      rmdir --ignore-fail-on-non-empty -- "$destdir$folder" 2>/dev/null || true
    done
    ;;
  list) installed ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
