t=$(mktemp -d /var/tmp/banger.XXXXXX 2>/dev/null || mktemp -d /tmp/banger.XXXXXX)
trap 'rm -rf -- "$t"' EXIT
trap 'exit 129' HUP INT PIPE TERM
if [ -d .git ]; then
  i=.git/index
  o=$PWD/.git/objects
else
  i=$(g rev-parse --git-path index)
  o=$(cd -- "$(g rev-parse --git-path objects)" && pwd)
fi
mkdir -p "$t/objects/info" "$t/objects/pack"
printf '%s\n' "$o" >"$t/objects/info/alternates"
[ ! -e "$i" ] || cp -p -- "$i" "$t/index"
export GIT_OBJECT_DIRECTORY="$t/objects" GIT_INDEX_FILE="$t/index"
look() {
  g add -u
  g ls-files -o --exclude-standard -z >"$t/list"
  { grep -zv '/$' <"$t/list" || true; } >"$t/files"
  g update-index -z --add --replace --stdin <"$t/files" 2>"$t/said" || {
    cat -- "$t/said" >&2
    exit 1
  }
}
