//! Incremental parser of server-sent events (WHATWG HTML, section 9.2).

/// Maximum length of a line, and of the data of an event, in bytes.
const MAX_LINE: usize = 1024 * 1024;

/// Extracts the `data` of events from bytes.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    data: Option<String>,
}

/// A line or an event is longer than [`MAX_LINE`].
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

impl Parser {
    /// Parses the next bytes and returns the events that they complete.
    ///
    /// # Errors
    /// A line or an event that is too long.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, TooLong> {
        let mut events = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = rest.split_at(end);
            self.line.extend_from_slice(head);
            rest = tail.get(1..).unwrap_or_default();
            let line = std::mem::take(&mut self.line);
            events.extend(self.end_of_line(&line)?);
        }
        self.line.extend_from_slice(rest);
        if self.line.len() > MAX_LINE { Err(TooLong) } else { Ok(events) }
    }

    fn end_of_line(&mut self, line: &[u8]) -> Result<Option<String>, TooLong> {
        if line.len() > MAX_LINE {
            return Err(TooLong);
        }
        let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        if line.is_empty() {
            return Ok(self.data.take());
        }
        // The data contains the `id`, the daemon sends no `event` and `retry`, and a line that
        // starts with a colon is a keep-alive comment.
        let Some(value) = line.strip_prefix("data:") else { return Ok(None) };
        let value = value.strip_prefix(' ').unwrap_or(value);
        match &mut self.data {
            Some(data) if data.len() + value.len() > MAX_LINE => return Err(TooLong),
            Some(data) => {
                data.push('\n');
                data.push_str(value);
            }
            None => self.data = Some(value.to_owned()),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "id: 1\ndata: {\"a\":1}\n\n: warm\n\nid: 2\r\ndata:x\r\ndata: y\r\n\r\n";

    #[test]
    fn events_do_not_depend_on_how_the_bytes_are_split() {
        for size in 1..STREAM.len() {
            let mut parser = Parser::default();
            let events: Vec<String> =
                STREAM.as_bytes().chunks(size).flat_map(|c| parser.push(c).unwrap()).collect();
            assert_eq!(events, ["{\"a\":1}", "x\ny"], "pieces of {size}");
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 64 * 1024];
        assert!((0..20).any(|_| parser.push(&piece).is_err()));
        let mut parser = Parser::default();
        let line = [b"data:".as_slice(), &piece, b"\n"].concat();
        assert!((0..20).any(|_| parser.push(&line).is_err()));
    }
}
