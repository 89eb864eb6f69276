//! Terminal types: the client's where the guest has an entry for it in its terminfo(5) database,
//! else one that the guest has.

use std::path::{Path, PathBuf};

/// What today's terminals understand, and most images have an entry for.
pub const COMMON: &str = "xterm-256color";

/// Tried in this order after the type itself and its shorter forms: colours first, then what every
/// terminal emulator understands.
const FALLBACKS: [&str; 6] = [COMMON, "xterm", "vt220", "vt100", "linux", "ansi"];

/// Where databases are: term(5), and NixOS' and Guix' place.
const FOLDERS: [&str; 7] = [
    "/etc/terminfo",
    "/lib/terminfo",
    "/usr/lib/terminfo",
    "/usr/local/share/terminfo",
    "/usr/share/terminfo",
    "/run/current-system/sw/share/terminfo",
    "/run/current-system/profile/share/terminfo",
];

/// Longest type that is looked for, in bytes.
const LONGEST: usize = 64;

/// The databases that a user's programs look into.
pub fn folders(home: &str) -> Vec<PathBuf> {
    let own = Path::new(home).join(".terminfo");
    let folders = std::iter::once(own).chain(FOLDERS.map(PathBuf::from));
    folders.filter(|folder| folder.is_dir()).collect()
}

/// The type that a command gets: `wanted`, or a replacement that one of the databases has. Without
/// any database nothing can be checked; programs that know terminals by themselves know
/// [`COMMON`].
pub fn known(wanted: &str, databases: &[PathBuf]) -> String {
    let has = |name: &str| databases.iter().any(|folder| has_entry(folder, name));
    // A terminal without abilities has none to replace.
    if wanted == "dumb" || has(wanted) {
        return wanted.to_owned();
    }
    if databases.is_empty() {
        let is_plain = ["xterm", "linux", "ansi"].contains(&wanted) || wanted.starts_with("vt");
        return if is_plain { wanted } else { COMMON }.to_owned();
    }
    let candidates = shorter(wanted).into_iter().chain(FALLBACKS.map(str::to_owned));
    candidates.into_iter().find(|name| has(name)).unwrap_or_else(|| COMMON.to_owned())
}

/// `foot-direct` is a `foot`, and `tmux-256color` a `tmux`, which is a `screen`. But
/// `xterm-ghostty` is more than an `xterm`, which has no colours.
fn shorter(wanted: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = wanted;
    while let Some((shorter, _)) = rest.rsplit_once(['-', '+', '.']) {
        if shorter != "xterm" {
            names.push(shorter.to_owned());
        }
        rest = shorter;
    }
    if ["tmux", "screen"].contains(&rest) {
        names.extend(["screen-256color".to_owned(), "screen".to_owned()]);
    }
    names
}

/// Entries lie in a folder named after their first character, or after its code in hexadecimal
/// (file systems that do not tell `N` from `n`).
fn has_entry(database: &Path, name: &str) -> bool {
    let is_name = name.len() <= LONGEST
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
        && !name.starts_with('.');
    let Some(first) = name.chars().next().filter(|_| is_name) else { return false };
    [first.to_string(), format!("{:02x}", u32::from(first))]
        .iter()
        .any(|folder| database.join(folder).join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let letter = folder.path().join(&name[..1]);
            std::fs::create_dir_all(&letter).unwrap();
            std::fs::write(letter.join(name), "").unwrap();
        }
        folder
    }

    #[test]
    fn an_unknown_terminal_is_replaced_by_one_the_guest_has() {
        // What Debian's ncurses-base has.
        let debian = database(&[
            "ansi",
            "dumb",
            "linux",
            "rxvt",
            "screen",
            "screen-256color",
            "tmux",
            "vt100",
            "vt220",
            "xterm",
            "xterm-256color",
        ]);
        for (wanted, given) in [
            ("xterm-256color", "xterm-256color"),
            ("xterm-ghostty", "xterm-256color"),
            ("xterm-kitty", "xterm-256color"),
            ("alacritty", "xterm-256color"),
            ("alacritty-direct", "xterm-256color"),
            ("foot", "xterm-256color"),
            ("foot-extra", "xterm-256color"),
            ("wezterm", "xterm-256color"),
            ("tmux-256color", "tmux"),
            ("screen.xterm-256color", "screen"),
            ("rxvt-unicode-256color", "rxvt"),
            ("linux", "linux"),
            ("dumb", "dumb"),
            ("", "xterm-256color"),
            ("../../etc/passwd", "xterm-256color"),
            ("x/xterm", "xterm-256color"),
        ] {
            assert_eq!(known(wanted, &[debian.path().into()]), given, "{wanted}");
        }
    }

    #[test]
    fn a_small_database_still_has_something() {
        let small = database(&["vt100", "linux"]);
        assert_eq!(known("xterm-kitty", &[small.path().into()]), "vt100");
        let odd = database(&["wy50"]);
        assert_eq!(known("xterm-kitty", &[odd.path().into()]), COMMON);
    }

    #[test]
    fn databases_are_searched_together_and_by_code() {
        let (first, second) = (database(&["xterm"]), tempfile::tempdir().unwrap());
        std::fs::create_dir(second.path().join("66")).unwrap();
        std::fs::write(second.path().join("66/foot"), "").unwrap();
        assert_eq!(known("foot", &[first.path().into(), second.path().into()]), "foot");
    }

    #[test]
    fn without_a_database_only_plain_types_stay() {
        for (wanted, given) in [("vt100", "vt100"), ("linux", "linux"), ("xterm-kitty", COMMON)] {
            assert_eq!(known(wanted, &[]), given);
        }
    }
}
