//! Replaces what differs between two runs: ids, times, paths, process ids. Ids keep their width, so
//! that tables stay aligned.

use std::path::Path;

/// Replaces them in a line.
pub fn mask(line: &str, home: &Path) -> String {
    let programs = banger_testkit::program("banger");
    let programs = programs.parent().unwrap().display().to_string();
    let line = line.replace(&home.display().to_string(), "/HOME").replace(&programs, "/PROGRAMS");
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.:+".contains(c);
    let mut masked = String::new();
    let mut rest = line.as_str();
    while let Some(first) = rest.chars().next() {
        let length = match is_word(first) {
            true => rest.find(|c: char| !is_word(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        let (word, after) = rest.split_at(length);
        let before = masked.trim_end_matches([' ', '"', ':']).to_owned();
        masked.push_str(&masked_word(word, &before, after));
        rest = after;
    }
    ages(masked)
}

fn masked_word(word: &str, before: &str, after: &str) -> String {
    let core = word.trim_end_matches(['.', ':']);
    let dots = &word[core.len()..];
    let hex = core.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let is_number = core.starts_with(|c: char| c.is_ascii_digit()) && core.parse::<f64>().is_ok();
    let is_time = core.len() >= 19 && core.as_bytes()[4] == b'-' && core.contains('T');
    let masked = match core.len() {
        12 if hex => "ID__________",
        16 if hex => "FINGERPRINT_____",
        32 if hex => "TRACE",
        64 if hex => "SHA256",
        9 if core.starts_with("op-") => "op-oooooo",
        36 if core.split('-').map(str::len).eq([8, 4, 4, 4, 12]) => "UUID",
        // The simulated host gives addresses of this length.
        12 if core.starts_with("172.16.0.") => "ADDRESS_____",
        _ if is_time => "TIME",
        10 if core.split('-').map(str::len).eq([4, 2, 2]) => "DATE",
        8 if core.split(':').map(str::len).eq([2, 2, 2]) => "TIME",
        _ if core.starts_with("127.0.0.1:")
            && ["dns", "listen"].iter().any(|e| before.ends_with(e)) =>
        {
            "127.0.0.1:PORT"
        }
        _ if is_number && core.contains('.') && after.starts_with(" s") => "N.NN",
        _ if is_number && before.ends_with("pid") => "0",
        _ if is_number
            && ["_ms", "\"ms", "uptime_s", "_at"].iter().any(|e| before.ends_with(e)) =>
        {
            "0"
        }
        _ => core,
    };
    format!("{masked}{dots}")
}

/// Replaces ages, such as `2 seconds ago` and `up 1 minute`.
fn ages(mut line: String) -> String {
    let units = ["second", "minute", "hour", "day"];
    for unit in units.iter().flat_map(|unit| [format!(" {unit}s"), format!(" {unit}")]) {
        let Some(at) = line.find(&unit) else { continue };
        let (start, end) = (&line[..at], &line[at + unit.len()..]);
        let before = start.trim_end_matches(|c: char| c.is_ascii_digit());
        line = match end.strip_prefix(" ago") {
            Some(end) => format!("{before}AGO{end}"),
            None if before.trim_end().ends_with("up") => format!("{before}AGE{end}"),
            None => continue,
        };
    }
    line
}

#[test]
fn ids_and_times_are_masked() {
    let masked = |line: &str| mask(line, Path::new("/tmp/x"));
    assert_eq!(masked("web   f64d9da1e7d6  running"), "web   ID__________  running");
    assert_eq!(masked("web: ready in 2.03 s (op-abc123)"), "web: ready in N.NN s (op-oooooo)");
    assert_eq!(masked("\"pid\": 123, at `/tmp/x/run`"), "\"pid\": 0, at `/HOME/run`");
    assert_eq!(masked("8080->80  8 seconds ago"), "8080->80  AGO");
    assert_eq!(masked("up  1 minute"), "up  AGE");
    assert_eq!(masked("127.0.0.1:8080 2.5 GiB"), "127.0.0.1:8080 2.5 GiB");
}
