# Completion of banger for bash 4.4 or later. `banger __complete` prints what to offer:
# on the first line words, files or folders, then one value on each line with a description
# behind a tab.
_banger() {
  local kind line
  local -a words
  COMPREPLY=()
  # At `--image=` bash passes `=` as the word; it is a separator, not a part of the value.
  words=("${COMP_WORDS[@]:1:COMP_CWORD-1}" "${2#=}")
  {
    read -r kind || return 0
    case $kind in
      files) compopt -o default 2>/dev/null ;;
      folders) compopt -o dirnames 2>/dev/null ;;
    esac
    while IFS=$'\t' read -r line _; do
      # `web:` is continued with a path, `label=` with a value.
      [[ $line != *[:=] ]] || compopt -o nospace 2>/dev/null
      COMPREPLY+=("$line")
    done
  } < <("$1" __complete -- "${words[@]}" 2>/dev/null)
  return 0
}
complete -o nosort -F _banger banger
