//! Files of `--env-file`, in the format of Docker: one NAME=VALUE or NAME per line.
//!
//! White space before the name, blank lines, lines that start with `#`, a byte order mark and CR
//! before LF are skipped. A value is everything after the first `=`: quotes and spaces in it are
//! kept, and a name has no white space.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;

use banger_api::{ApiError, ErrorCode, Hint};

use crate::command_options::Variable;

/// Maximum size of a file, in bytes: about what execve(2) takes for a whole environment.
const MAX_FILE: u64 = 1024 * 1024;
/// Maximum length of NAME=VALUE, in bytes: `MAX_ARG_STRLEN` of execve(2) without the final NUL.
const MAX_LINE: usize = 128 * 1024 - 1;
/// Length of a name in an error, in bytes.
const SHOWN_NAME: usize = 60;

/// Reads the variables of a file, which may also be a pipe.
///
/// # Errors
/// The file cannot be read, is too large, or has a line without a valid name; with file and line.
pub fn read(path: &OsStr) -> Result<Vec<Variable>, ApiError> {
    let shown = path.display();
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)).map_err(
        |error: io::Error| {
            let text = format!("cannot read the environment file `{shown}`");
            ApiError::new(ErrorCode::BadRequest, text).caused_by(&error)
        },
    )?;
    if bytes.len() as u64 > MAX_FILE {
        let text = format!("the environment file `{shown}` has more than 1 MiB");
        return Err(ApiError::new(ErrorCode::BadRequest, text)
            .with_hint(Hint::text("copy it into the VM as a file, and read it there")));
    }
    parse(&bytes).map_err(|Bad { line, problem, hint }| {
        let text = format!("`{shown}`, line {line}: {problem}");
        ApiError::new(ErrorCode::BadRequest, text).with_hint(Hint::text(hint))
    })
}

/// A line that is neither NAME=VALUE nor NAME.
#[derive(Debug, PartialEq, Eq)]
struct Bad {
    /// The first line is 1.
    line: usize,
    problem: String,
    hint: &'static str,
}

const FORMAT: &str = "write NAME=VALUE, or NAME for a variable that is set here";

fn parse(bytes: &[u8]) -> Result<Vec<Variable>, Bad> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut variables = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let variable = variable(line);
        variables.push(variable.map_err(|(problem, hint)| Bad {
            line: index + 1,
            problem,
            hint,
        })?);
    }
    Ok(variables)
}

fn variable(line: &[u8]) -> Result<Variable, (String, &'static str)> {
    if line.contains(&0) {
        return Err(("it contains a NUL byte".into(), "no environment variable can have one"));
    }
    if line.len() > MAX_LINE {
        let problem = format!("it has more than {MAX_LINE} bytes");
        return Err((problem, "Linux passes no longer variable to a program"));
    }
    let (name, value) = match line.iter().position(|byte| *byte == b'=') {
        Some(at) => (line.get(..at), line.get(at + 1..)),
        None => (Some(line.trim_ascii_end()), None),
    };
    let name = name.unwrap_or_default();
    if name.is_empty() {
        return Err(("there is no name before `=`".into(), FORMAT));
    }
    if name.iter().any(u8::is_ascii_whitespace) {
        let shown = String::from_utf8_lossy(name.get(..SHOWN_NAME).unwrap_or(name));
        let hint = if name.starts_with(b"export") { "leave out `export`" } else { FORMAT };
        return Err((format!("the name `{shown}` contains white space"), hint));
    }
    let owned = |bytes: &[u8]| -> OsString { OsStr::from_bytes(bytes).to_owned() };
    Ok(Variable { name: owned(name), value: value.map(owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(bytes: &[u8]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let bytes_of = |text: &OsString| text.as_bytes().to_vec();
        let variables = parse(bytes).unwrap();
        variables.iter().map(|v| (bytes_of(&v.name), v.value.as_ref().map(bytes_of))).collect()
    }

    #[test]
    fn lines_are_those_of_docker() {
        let text =
            b"\xef\xbb\xbfFIRST=1\n# comment\n\n   \n\t# indented\n  A= x \nB=\"q\" # kept\n\
            C=a=b\r\nD=\nE\nF  \nG=\xff\xfe\x1b[2J\nLAST=no newline";
        let set = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), Some(value.to_vec()));
        let here = |name: &str| (name.as_bytes().to_vec(), None);
        let expected = vec![
            set("FIRST", b"1"),
            set("A", b" x "),
            set("B", b"\"q\" # kept"),
            set("C", b"a=b"),
            set("D", b""),
            here("E"),
            here("F"),
            set("G", b"\xff\xfe\x1b[2J"),
            set("LAST", b"no newline"),
        ];
        assert_eq!(pairs(text), expected);
        assert_eq!(pairs(b""), vec![]);
        assert_eq!(pairs(b"\n\r\n#"), vec![]);
    }

    #[test]
    fn wrong_lines_are_named() {
        let bad = |bytes: &[u8]| {
            let bad = parse(bytes).unwrap_err();
            (bad.line, bad.problem)
        };
        assert_eq!(bad(b"A=1\n\n=x"), (3, "there is no name before `=`".into()));
        assert_eq!(bad(b"=\n"), (1, "there is no name before `=`".into()));
        assert_eq!(bad(b"A B=1"), (1, "the name `A B` contains white space".into()));
        assert_eq!(bad(b"A =1"), (1, "the name `A ` contains white space".into()));
        assert_eq!(bad(b"two words"), (1, "the name `two words` contains white space".into()));
        assert_eq!(bad(b"# c\nA=1\0"), (2, "it contains a NUL byte".into()));
        assert_eq!(parse(b"export A=1").unwrap_err().hint, "leave out `export`");
        let mut long = b"A=".to_vec();
        long.resize(MAX_LINE, b'x');
        assert_eq!(pairs(&long).len(), 1);
        long.push(b'x');
        assert_eq!(bad(&long), (1, "it has more than 131071 bytes".into()));
    }
}
