//! Selects lines of a log from a time on.

use jiff::Timestamp;
use serde_json::Value;

/// Lines of one log. A line without a time belongs to the line before it.
pub struct Since {
    since: Timestamp,
    /// Whether the present line is shown.
    shown: bool,
    /// Whether any line had a time.
    pub timed: bool,
}

impl Since {
    /// Shows nothing before the first line of this time or later.
    pub fn new(since: Timestamp) -> Self {
        Self { since, shown: false, timed: false }
    }

    /// Those of these whole lines that are shown.
    pub fn select(&mut self, lines: &[u8]) -> Vec<u8> {
        let mut selected = Vec::new();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            if let Some(time) = time_of(line) {
                self.timed = true;
                self.shown = time >= self.since;
            }
            if self.shown {
                selected.extend_from_slice(line);
            }
        }
        selected
    }
}

/// The time of a line: the field `timestamp` of a JSON object, or the first word. Firecracker, in
/// its jail, writes the time of UTC without an offset.
fn time_of(line: &[u8]) -> Option<Timestamp> {
    if line.first() == Some(&b'{') {
        let object: Value = serde_json::from_slice(line).ok()?;
        return object.get("timestamp")?.as_str()?.parse().ok();
    }
    let word = line.split(|byte| byte.is_ascii_whitespace()).next()?;
    let word = std::str::from_utf8(word).ok().filter(|word| word.contains('T'))?;
    word.parse().or_else(|_| format!("{word}Z").parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_begin_at_a_time() {
        let log = "no time\n{\"timestamp\":\"2026-01-01T11:59:59.9Z\"}\npanic\n\
                   {\"timestamp\":\"2026-01-01T12:00:00Z\"}\n  at x\n{\"other\":1}\n\
                   2026-01-01T12:00:01.000000001 [vm:main] ran\n2026-01-01T11:00:00 [vm] set back\n";
        let select = |since: &str| {
            let mut lines = Since::new(since.parse().unwrap());
            let selected = lines.select(log.as_bytes());
            (String::from_utf8(selected).unwrap(), lines.timed)
        };
        let begin = log.find("{\"timestamp\":\"2026-01-01T12").unwrap();
        let end = log.find("2026-01-01T11:00").unwrap();
        assert_eq!(select("2026-01-01T12:00:00Z"), (log[begin..end].to_owned(), true));
        assert_eq!(select("2027-01-01T00:00:00Z"), (String::new(), true));
        let mut none = Since::new("2026-01-01T12:00:00Z".parse().unwrap());
        assert!(none.select(b"[    0.1] Linux\nTest\n").is_empty() && !none.timed);
    }
}
