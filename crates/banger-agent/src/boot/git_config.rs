//! Changes single variables of a configuration file of git, git-config(1), without git: it may be
//! missing in the image, and its lock file needs a folder that the caller can write to.

/// A part of a file: the header of the section, one of its variables, or anything else.
#[derive(Clone, Copy)]
struct Piece<'a> {
    text: &'a [u8],
    /// The variable, or [`HEADER`], or empty.
    name: &'a [u8],
}

/// Name of the pieces that begin the section.
const HEADER: &[u8] = b"[";

/// The file `old` with the variables of `new`: a section header, then one variable in each line.
/// The last value of a variable counts for git, so that one is replaced; everything else stays.
pub fn with_variables(old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut lines = new.split_inclusive(|byte| *byte == b'\n');
    let section = lines.next().unwrap_or_default();
    let mut content = old.to_vec();
    for line in lines {
        content = with_variable(&content, section, line);
    }
    content
}

fn with_variable(old: &[u8], section: &[u8], line: &[u8]) -> Vec<u8> {
    let pieces = pieces(old, section.trim_ascii());
    let name = name_of(line.trim_ascii_start());
    let replaced = pieces.iter().rposition(|piece| piece.name.eq_ignore_ascii_case(name));
    let in_section = pieces.iter().rposition(|piece| !piece.name.is_empty());
    let (place, kept) = match (replaced, in_section) {
        (Some(place), _) => (place, 1),
        (None, Some(last)) => (last + 1, 0),
        (None, None) => {
            let gap: &[u8] = if matches!(old.last(), None | Some(b'\n')) { b"" } else { b"\n" };
            return [old, gap, section, line].concat();
        }
    };
    let text = |pieces: Option<&[Piece]>| -> Vec<u8> {
        pieces.unwrap_or_default().iter().flat_map(|piece| piece.text).copied().collect()
    };
    let mut content = text(pieces.get(..place));
    let mut rest = text(pieces.get(place + kept..));
    // A header shares its line with what follows it.
    if content.last().is_some_and(|byte| *byte != b'\n') {
        content.push(b'\n');
        if rest.first() == Some(&b'\n') {
            rest.remove(0);
        }
    }
    [content.as_slice(), line, &rest].concat()
}

/// The pieces of a file, which together are the file.
fn pieces<'a>(file: &'a [u8], section: &[u8]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let mut is_inside = false;
    let mut rest = file;
    while !rest.is_empty() {
        let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let begin = rest.get(blank..).unwrap_or_default();
        let (length, name) = match begin.first() {
            Some(b'[') => {
                let header = begin.get(..header_length(begin)).unwrap_or(begin);
                is_inside = header.eq_ignore_ascii_case(section);
                (blank + header.len(), if is_inside { HEADER } else { b"" })
            }
            Some(b'#' | b';') => (blank + line_length(begin, false), b"".as_slice()),
            _ if is_inside => (blank + line_length(begin, true), name_of(begin)),
            _ => (blank + line_length(begin, true), b"".as_slice()),
        };
        let (text, after) = rest.split_at_checked(length).unwrap_or((rest, b""));
        pieces.push(Piece { text, name });
        rest = after;
    }
    pieces
}

/// A header ends with `]` outside of quotes.
fn header_length(text: &[u8]) -> usize {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (place, byte) in text.iter().enumerate() {
        match byte {
            b'\n' => return place,
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_quoted,
            b'"' => is_quoted = !is_quoted,
            b']' if !is_quoted => return place + 1,
            _ => {}
        }
    }
    text.len()
}

/// A value goes on in the next line after a backslash; a comment does not.
fn line_length(text: &[u8], has_value: bool) -> usize {
    let mut is_escaped = false;
    for (place, byte) in text.iter().enumerate() {
        match byte {
            b'\n' if !is_escaped => return place + 1,
            // Before a line break of another system.
            b'\r' if is_escaped => {}
            b'\\' => is_escaped = has_value && !is_escaped,
            _ => is_escaped = false,
        }
    }
    text.len()
}

fn name_of(line: &[u8]) -> &[u8] {
    let length =
        line.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
    line.get(..length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const NEW: &str = "[user]\n\tname = New Name\n\temail = new@x.org\n";

    fn changed(old: &str) -> String {
        String::from_utf8(with_variables(old.as_bytes(), NEW.as_bytes())).unwrap()
    }

    #[test]
    fn variables_are_replaced_in_place_or_added() {
        for (old, new) in [
            ("", NEW.to_owned()),
            ("[core]\n\tpager = cat", format!("[core]\n\tpager = cat\n{NEW}")),
            ("[user]\n", NEW.to_owned()),
            (
                "[user]\n\tname = A\n\tsigningkey = K\n[x]\n\temail = keep\n",
                "[user]\n\tname = New Name\n\tsigningkey = K\n\temail = new@x.org\n\
                 [x]\n\temail = keep\n"
                    .into(),
            ),
            ("[USER] NAME = A\n", NEW.replace("user", "USER")),
            (NEW, NEW.to_owned()),
        ] {
            assert_eq!(changed(old), new, "{old:?}");
            assert_eq!(changed(&changed(old)), changed(old), "{old:?} again");
        }
    }

    /// What git reads of the changed files: the new values, and all others as they were.
    #[test]
    fn git_reads_the_new_values_and_the_others_as_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let list = |content: &str| {
            std::fs::write(&path, content).unwrap();
            let mut git = Command::new("git");
            git.args(["config", "--list", "-z", "-f"]).arg(&path);
            let output = git.output().unwrap();
            assert!(output.status.success(), "{content:?}: {output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            text.split_terminator('\0').map(str::to_owned).collect::<Vec<_>>()
        };
        let is_other = |line: &&String| {
            !["user.name", "user.email"].contains(&line.lines().next().unwrap_or_default())
        };
        for old in [
            "",
            "[user]name=a\n",
            "[user] name = a \\\n b\n\temail = x # c\n",
            "[user]\n\tname = \"a ; \\\" b\" \\\n  [user]\n[user]\n\temail = 1\n\temail = 2\n",
            "[user \"name\"]\n\tname = sub\n[user \"a]b\"]\n\temail = sub\n[core]\n\tname = c\n",
            "# [user]\n; name = x \\\n[user]\n# email = x \\\n\tsigningKey = k\n\n[alias]\n\tl = log\n",
            "[user]\r\n\tname = crlf\r\n[include]\r\n\tpath = /none\r\n",
            "[user] # mine\n[a] b = c\n[user] [d] e = f\n",
            "[user]\n\tname\n\tnames = n\n\temail-x = n\n",
            "[a]\n\tx = 1 \\\\\n[user]\n\tname = z",
        ] {
            let (before, after) = (list(old), list(&changed(old)));
            let others = |all: &[String]| all.iter().filter(is_other).cloned().collect::<Vec<_>>();
            assert_eq!(others(&after), others(&before), "{old:?} became {:?}", changed(old));
            for wanted in ["user.name\nNew Name", "user.email\nnew@x.org"] {
                let key = wanted.split_inclusive('\n').next().unwrap();
                let last = after.iter().rfind(|line| line.starts_with(key));
                assert_eq!(last.map(String::as_str), Some(wanted), "{old:?}");
            }
        }
    }
}
