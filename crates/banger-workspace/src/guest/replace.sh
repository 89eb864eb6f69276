[ -d .git ] && [ ! -L .git ] || exit 75
# Below the work tree's own folder, most likely on its file system: the files are renamed then.
t=$PWD/.git/banger.$$
# Those of pushes that were killed.
for old in "$PWD"/.git/banger.*; do
  [ -d "/proc/${old##*.}" ] || rm -rf -- "$old"
done
trap 'rm -rf -- "$t"' EXIT
trap 'exit 129' HUP INT PIPE TERM
mkdir -- "$t" "$t/objects" "$t/objects/info" "$t/objects/pack"
printf '%s\n' "$PWD/.git/objects" >"$t/objects/info/alternates"
export GIT_OBJECT_DIRECTORY="$t/objects"
g unpack-objects -q
umask "$m"
expected=$2
facts=$3
shift 3
make() {
  n=0
  while read -r was now id; do
    n=$((n + 1))
    g cat-file --filters --path="$1" "$id" >"$t/$n" </dev/null
    [ "$now" = 100644 ] || chmod +x -- "$t/$n"
    shift
  done <<EOF
$facts
EOF
}
look() {
  while read -r was now id; do
    [ -f "$1" ] && [ ! -L "$1" ] || exit 75
    mode=100644
    [ ! -x "$1" ] || mode=100755
    [ "$mode" = "$was" ] || exit 75
    p=$1
    while :; do
      case $p in */*) p=${p%/*} ;; *) break ;; esac
      [ ! -L "$p" ] || exit 75
    done
    shift
  done <<EOF
$facts
EOF
}
# What a change of a file changes.
stamp() {
  stat -c '%i %s %y %z' -- "$1"
}
make "$@"
look "$@"
n=0
for p; do
  n=$((n + 1))
  [ $# = 1 ] || stamp "$p" >"$t/$n.was" || exit 75
done
[ "$(g hash-object -- "$@")" = "$expected" ] || exit 75
n=0
for p; do
  n=$((n + 1))
  # The machine may have answered to the file before by a change of this one.
  if [ "$n" -gt 1 ]; then
    read -r was <"$t/$n.was"
    [ "$(stamp "$p")" = "$was" ] || exit 75
  fi
  mv -f -- "$t/$n" "$p"
done
