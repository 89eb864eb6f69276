look
head=$(g rev-parse --verify --quiet HEAD || true)
branch=$(g symbolic-ref --quiet HEAD || true)
printf 'banger workspace 1\0%s\0%s\0' "$head" "$branch"
since=
[ -z "$2" ] || ! g cat-file -e "$2^{commit}" 2>/dev/null || since=^$2
[ -z "$head" ] || g log -z --max-count=101 --format='%H %s' "$head" $since --
printf '\0'
g ls-files --stage -z
# What git takes no files of, as records that are no files: repositories, and names like `.GIT`,
# which it said something about.
{ grep -z '/$' <"$t/list" || true; } | xargs -0 -r printf '160000 0 0\t%s\0'
if [ -s "$t/said" ]; then
  g ls-files -o --exclude-standard -z >"$t/list"
  { grep -zv '/$' <"$t/list" || true; } >"$t/files"
  zeros=0000000000000000000000000000000000000000
  xargs -0 -r printf "100644 $zeros 0\\t%s\\0" <"$t/files"
fi
printf '\0'
case $3 in
objects) g pack-objects -q --stdout --delta-base-offset ;;
commits) g pack-objects -q --stdout --delta-base-offset --revs ;;
esac
