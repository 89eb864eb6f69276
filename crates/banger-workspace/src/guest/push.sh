[ "$6" != all ] || look
list() {
  case $1 in
  =*) printf %b "${1#=}" ;;
  *) g cat-file blob "$1" ;;
  esac
}
g index-pack --stdin --strict >/dev/null
list "$2" >"$t/paths"
[ "$6" = all ] || g update-index -z --add --remove --stdin <"$t/paths"
list "$3" >"$t/expected"
xargs -0 git -c safe.directory='*' ls-files --stage -z -- <"$t/paths" >"$t/found"
cmp -s "$t/found" "$t/expected" || exit 75
list "$5" >"$t/paths"
[ ! -s "$t/paths" ] || xargs -0 sh -c '
  known() { [ -n "$(git -c safe.directory="*" ls-files "$@" | head -c 1)" ]; }
  blocked() { printf "%s\n" "$1" >"$0"; exit 255; }
  for p; do
    [ ! -d "$p" ] || [ -L "$p" ] || ! known -o -- "$p" || blocked "$p"
    while :; do
      if [ -L "$p" ] || { [ -e "$p" ] && [ ! -d "$p" ]; }; then known -- "$p" || blocked "$p"; fi
      case $p in */*) p=${p%/*} ;; *) break ;; esac
    done
  done' "$t/blocked" <"$t/paths" 2>"$t/said" || {
  # xargs says that a command has failed, which helps nobody.
  [ ! -e "$t/blocked" ] || { cat -- "$t/blocked" >&2; exit 76; }
  cat -- "$t/said" >&2
  exit 1
}
was=$(g write-tree)
cp -p -- "$t/index" "$t/new"
now=$(
  export GIT_INDEX_FILE="$t/new"
  list "$4" | g update-index -z --index-info
  g write-tree
)
umask "$m"
g read-tree -m -u "$was" "$now"
