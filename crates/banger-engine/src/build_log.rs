//! The log of an image build: complete in a file, and line by line as notes of the operation.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::builds::BuildLog;
use crate::progress::Progress;

/// Maximum number of lines passed on as notes; an operation keeps a limited number of events.
const MAX_LINES: usize = 5_000;
/// Maximum length of a line passed on, in characters.
const MAX_LINE: usize = 500;
/// Maximum number of bytes kept of an unfinished line.
const MAX_UNFINISHED: usize = 4_096;

/// The log of a build in progress.
pub struct LiveLog {
    path: String,
    inner: Mutex<Inner>,
    progress: Arc<dyn Progress>,
}

struct Inner {
    file: Box<dyn Write + Send>,
    unfinished: Vec<u8>,
    lines: usize,
}

impl LiveLog {
    /// A log that passes lines on to `progress`.
    pub fn new(log: BuildLog, progress: Arc<dyn Progress>) -> Self {
        let inner = Inner { file: log.file, unfinished: Vec::new(), lines: 0 };
        Self { path: log.path, inner: Mutex::new(inner), progress }
    }

    /// Path of the file.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a part of the log.
    pub fn title(&self, title: &str) {
        self.finish_line();
        // The build does not depend on its log.
        let _ = writeln!(self.inner().file, "--- {title}");
    }

    /// Adds output.
    pub fn add(&self, bytes: &[u8]) {
        let mut inner = self.inner();
        let _ = inner.file.write_all(bytes);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_UNFINISHED.saturating_sub(inner.unfinished.len());
            inner.unfinished.extend_from_slice(piece.get(..room).unwrap_or(piece));
            if piece.ends_with(b"\n") {
                self.pass_on(&mut inner);
            }
        }
    }

    /// Passes an unfinished line on.
    pub fn finish_line(&self) {
        let mut inner = self.inner();
        if !inner.unfinished.is_empty() {
            let _ = inner.file.write_all(b"\n");
            self.pass_on(&mut inner);
        }
    }

    fn pass_on(&self, inner: &mut Inner) {
        let line = std::mem::take(&mut inner.unfinished);
        let text = plain(&line);
        if text.is_empty() {
            return;
        }
        inner.lines += 1;
        if inner.lines < MAX_LINES {
            self.progress.note(&text);
        } else if inner.lines == MAX_LINES {
            self.progress.note(&format!("the rest of the output is in `{}`", self.path));
        }
    }
}

/// A line without control characters and escape sequences of terminals (ECMA-48); of a line that
/// overwrites itself, as those with a progress bar do, the last state.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\n', '\r']);
    let text = text.rsplit('\r').next().unwrap_or_default();
    let mut plain = String::new();
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if char == '\u{1b}' {
            if chars.next_if_eq(&'[').is_some() {
                // Parameters, then a final byte from `@` to `~`.
                while chars.next_if(|char| !('@'..='~').contains(char)).is_some() {}
            }
            chars.next();
        } else if char == '\t' {
            plain.push(' ');
        } else if !char.is_control() {
            plain.push(char);
        }
    }
    let text = plain.trim_end();
    let end = text.char_indices().nth(MAX_LINE).map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Progress for Notes {
        fn stage(&self, _name: &str) {}
        fn bytes(&self, _done: u64, _total: Option<u64>) {}
        fn items(&self, _unit: &str, _done: u64, _total: Option<u64>) {}
        fn note(&self, text: &str) {
            self.0.lock().unwrap().push(text.into());
        }
        fn warning(&self, _text: &str) {}
        fn cancelled(&self) -> bool {
            false
        }
    }

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_passed_on_and_the_bytes_are_kept() {
        let (notes, kept) = (Arc::new(Notes::default()), Kept::default());
        let log = BuildLog { path: "/log".into(), file: Box::new(kept.clone()) };
        let log = LiveLog::new(log, notes.clone());
        log.add(b"one\ntw");
        log.add(b"o\n\n 10%\r 50%\r100% \x1b[1;31mred\x1b[0m\x07 end\n\xff tail");
        log.finish_line();
        log.title("next");
        let wanted = ["one", "two", "100% red end", "\u{fffd} tail"];
        assert_eq!(*notes.0.lock().unwrap(), wanted);
        let bytes = kept.0.lock().unwrap().clone();
        assert!(bytes.starts_with(b"one\ntwo\n\n 10%\r"), "{bytes:?}");
        assert!(bytes.ends_with(b"\xff tail\n--- next\n"), "{bytes:?}");
    }

    #[test]
    fn lines_have_limits() {
        let notes = Arc::new(Notes::default());
        let log = BuildLog { path: "/log".into(), file: Box::new(std::io::sink()) };
        let log = LiveLog::new(log, notes.clone());
        log.add("ä".repeat(1 << 20).as_bytes());
        assert!(log.inner().unfinished.len() <= MAX_UNFINISHED);
        log.add(b"\n");
        assert_eq!(notes.0.lock().unwrap()[0].chars().count(), MAX_LINE);
        log.add("x\n".repeat(2 * MAX_LINES).as_bytes());
        let notes = notes.0.lock().unwrap();
        assert_eq!(notes.len(), MAX_LINES);
        assert!(notes[MAX_LINES - 1].contains("`/log`"));
    }
}
