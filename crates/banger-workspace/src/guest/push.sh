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
  blocked() { printf "%s\n" "$2" >"$0.$1"; exit 255; }
  for p; do
    q= rest=$p/
    while [ -n "$rest" ]; do
      q=$q${q:+/}${rest%%/*} rest=${rest#*/}
      # What is behind it goes with it.
      if [ -L "$q" ] || { [ -e "$q" ] && [ ! -d "$q" ]; }; then
        known -- "$q" || blocked 76 "$q"
        break
      fi
      [ ! -e "$q/.git" ] || blocked 77 "$q"
    done
    if [ -z "$rest" ] && [ -d "$p" ] && [ ! -L "$p" ] && known -o -- "$p"; then
      q=$(git -c safe.directory="*" ls-files -o -- "$p" | grep -m 1 "/\$" || true)
      q=${q%/}
      [ -z "$q" ] || [ ! -e "$q/.git" ] || blocked 77 "$q"
      blocked 76 "$p"
    fi
  done' "$t/blocked" <"$t/paths" 2>"$t/said" || {
  for code in 76 77; do
    [ ! -e "$t/blocked.$code" ] || { cat -- "$t/blocked.$code" >&2; exit "$code"; }
  done
  # xargs adds that a command has failed.
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
