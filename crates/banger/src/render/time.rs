//! Times and durations as text.

pub use banger_client::text::duration;

use jiff::Timestamp;

/// Age of a time of the API (RFC 3339): `3 minutes ago`.
pub fn ago(rfc3339: &str) -> String {
    match rfc3339.parse::<Timestamp>() {
        Ok(then) => format!("{} ago", span(Timestamp::now().as_second() - then.as_second())),
        Err(_) => rfc3339.to_owned(),
    }
}

/// A number of seconds in the largest unit.
pub fn span(seconds: i64) -> String {
    let (count, unit) = match seconds {
        ..60 => (seconds.max(0), "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

/// A configured duration: `90 s`, `1500 ms`.
pub fn duration_whole(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("{} s", ms / 1000) } else { format!("{ms} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_readable_units() {
        for (seconds, text) in [
            (-5, "0 seconds"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "1 minute"),
            (7200, "2 hours"),
            (86_400, "1 day"),
        ] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(duration(420), "0.42 s");
        assert_eq!(duration(12_340), "12.3 s");
        assert_eq!(duration(65_000), "1 min 5 s");
        assert_eq!(duration_whole(90_000), "90 s");
        assert_eq!(duration_whole(1500), "1500 ms");
        assert_eq!(ago("nonsense"), "nonsense");
        assert!(ago("2000-01-01T00:00:00Z").ends_with(" days ago"));
    }
}
