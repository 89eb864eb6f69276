set -eu
command -v git >/dev/null || { echo "git is not installed in the machine" >&2; exit 127; }
cd -- "$1" || exit 74
[ -e .git ] || { echo "$1 is not a git repository" >&2; exit 74; }
m=$(umask)
umask 077
unset GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_COMMON_DIR GIT_CONFIG GIT_CONFIG_COUNT \
  GIT_CONFIG_PARAMETERS GIT_DIR GIT_GRAFT_FILE GIT_IMPLICIT_WORK_TREE GIT_INDEX_FILE \
  GIT_INTERNAL_SUPER_PREFIX GIT_NO_REPLACE_OBJECTS GIT_OBJECT_DIRECTORY GIT_PREFIX \
  GIT_REPLACE_REF_BASE GIT_SHALLOW_FILE GIT_WORK_TREE
export GIT_OPTIONAL_LOCKS=0 GIT_NO_LAZY_FETCH=1 GIT_TERMINAL_PROMPT=0
export GIT_LITERAL_PATHSPECS=1 LC_ALL=C
g() {
  git -c safe.directory='*' -c core.hooksPath=/dev/null -c core.fsmonitor=false \
    -c core.untrackedCache=false -c core.splitIndex=false -c core.quotePath=false \
    -c gc.auto=0 -c maintenance.auto=false -c log.showSignature=false "$@"
}
