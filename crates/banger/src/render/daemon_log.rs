//! Lines of the daemon's log as text: time, VM, verb, message and duration.

use banger_api::hint;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::plain;

/// Fields with a column of their own, and fields that are not shown.
const PLACED: [&str; 13] = [
    "timestamp",
    "level",
    "target",
    "message",
    "vm",
    "vm_name",
    "kind",
    "op",
    "trace",
    "stage",
    "ms",
    "causes",
    "hints",
];

/// One line of the log as text, with its newline; a line that is not a JSON object is only escaped.
pub fn text(line: &str, zone: &TimeZone) -> String {
    match serde_json::from_str(line) {
        Ok(Value::Object(object)) => object_text(&object, zone) + "\n",
        _ => plain::line(line) + "\n",
    }
}

fn object_text(object: &Map<String, Value>, zone: &TimeZone) -> String {
    let field = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let time = match field("timestamp").parse::<Timestamp>() {
        Ok(time) => time.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => " ".repeat(19),
    };
    let vm = if field("vm_name").is_empty() { field("vm") } else { field("vm_name") };
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let mut text = format!("{time}  {:<12}  {:<7}  ", or_dash(vm), or_dash(field("kind")));
    let level = field("level").to_lowercase();
    if ["warn", "error"].contains(&level.as_str()) {
        text.push_str(&format!("{level}: "));
    }
    text.push_str(match field("stage") {
        "" => field("message"),
        stage => stage,
    });
    if let Some(ms) = object.get("ms").and_then(Value::as_u64) {
        text.push_str(&format!("  {}.{:02} s", ms / 1000, ms % 1000 / 10));
    }
    for (key, value) in object.iter().filter(|(key, _)| !PLACED.contains(&key.as_str())) {
        match value {
            Value::String(value) if key == "error" => text.push_str(&format!(": {value}")),
            Value::String(value) => text.push_str(&format!("  {key}={value}")),
            value => text.push_str(&format!("  {key}={value}")),
        }
    }
    let causes = object.get("causes").map(|causes| match causes {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    if let Some(causes) = causes.filter(|causes| causes != "[]") {
        text.push_str(&format!("  because {causes}"));
    }
    if let Some(hint) = hint_text(field("hints")) {
        text.push_str(&format!("  hint: {hint}"));
    }
    if !field("op").is_empty() {
        text.push_str(&format!("  ({})", field("op")));
    }
    plain::line(&text)
}

/// The words of the hints in a field of the log, a JSON list.
fn hint_text(hints: &str) -> Option<String> {
    let mut list = serde_json::Deserializer::from_str(hints);
    hint::words(&hint::read(&mut list).ok()?)
}

#[cfg(test)]
mod tests {
    use banger_api::Hint;

    use super::*;

    fn shown(line: &str) -> String {
        text(line, &TimeZone::UTC)
    }

    #[test]
    fn a_stage_shows_vm_verb_and_duration() {
        let line = r#"{"timestamp":"2026-11-28T10:10:12.548859Z","level":"INFO",
            "message":"stage done","op":"op-2gtqg8","stage":"boot","ms":1239,
            "target":"banger_engine::ops","kind":"start","vm":"0123456789ab","vm_name":"web"}"#;
        let expected = "2026-11-28 10:10:12  web           start    boot  1.23 s  (op-2gtqg8)\n";
        assert_eq!(shown(&line.replace('\n', "")), expected);
    }

    #[test]
    fn warnings_and_errors_say_so_and_keep_their_fields() {
        let line = r#"{"timestamp":"2026-11-28T10:10:12Z","level":"ERROR","message":"store",
            "error":"disk full","causes":"[\"no room\"]","path":"/s"}"#;
        let text = shown(&line.replace('\n', ""));
        assert!(text.contains("-             -        error: store: disk full  path=/s"), "{text}");
        assert!(text.ends_with("because [\"no room\"]\n"), "{text}");

        let hints =
            hint::to_json(&[Hint::show("web"), Hint::FreeSpace { path: Some("/s".into()) }]);
        let failed = serde_json::json!({"message": "failed", "level": "WARN", "hints": hints});
        let text = shown(&failed.to_string());
        let words = "`banger vm show web` says why; free some space on the disk that holds `/s`";
        assert!(text.ends_with(&format!("warn: failed  hint: {words}\n")), "{text}");
        for none in ["[]", "", "{", "[1]"] {
            let failed = serde_json::json!({"message": "failed", "hints": none});
            assert!(shown(&failed.to_string()).ends_with("  failed\n"), "{none}");
        }
        assert_eq!(shown("thread panicked \u{1b}[31m"), "thread panicked \\u{1b}[31m\n");
    }
}
