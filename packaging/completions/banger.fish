# Completion of banger for fish. `banger __complete` prints what to offer: on the first line words,
# files or folders, then one value on each line with a description behind a tab.
function __banger_complete
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l current (commandline --current-token --cut-at-cursor)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    set -l lines (command $program __complete -- $words[2..] "$current" 2>/dev/null)
    set -l option (string match -r '^--[^=]*=' -- "$current")
    set -l value (string replace -r '^--[^=]*=' '' -- "$current")
    set -l offers
    switch "$lines[1]"
        case files
            set offers "$option"(__fish_complete_path $value)
        case folders
            set offers "$option"(__fish_complete_directories $value)
        case words
            set offers $lines[2..]
    end
    set -q offers[1]; and printf '%s\n' $offers
end
complete --command banger --no-files --keep-order --arguments '(__banger_complete)'
