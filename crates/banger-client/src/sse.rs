//! Reading a stream of server-sent events (WHATWG HTML, section 9.2) piece by piece.

/// Longest line accepted, in bytes.
const MAX_LINE: usize = 1024 * 1024;

/// Turns bytes into the `data` of events.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    data: Option<String>,
}

/// A line or an event that is longer than any of ours.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

impl Parser {
    /// Takes the next bytes and gives the events that they complete.
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
        // `id` repeats what the data says, `event` and `retry` are not used, and a line that begins
        // with a colon only keeps the connection warm.
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
    fn events_come_out_however_the_bytes_are_cut() {
        for cut in 1..STREAM.len() {
            let mut parser = Parser::default();
            let events: Vec<String> =
                STREAM.as_bytes().chunks(cut).flat_map(|c| parser.push(c).unwrap()).collect();
            assert_eq!(events, ["{\"a\":1}", "x\ny"], "cut {cut}");
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
