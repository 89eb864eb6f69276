//! A home with a simulated host, and text compared without what differs from run to run.

use banger_testkit::{Home, Options, Run, program};

/// A home whose daemon works on a simulated host.
pub fn home() -> Home {
    home_with("")
}

/// The same with this in its path.
pub fn home_with(deep: &str) -> Home {
    Home::bare(Options {
        env: vec![("BANGERD".into(), program("bangerd-sim").display().to_string())],
        deep: (!deep.is_empty()).then(|| deep.into()),
        ..Options::default()
    })
}

/// Runs the CLI with the words of one line.
pub fn run(home: &Home, line: &str) -> Run {
    home.run(&line.split(' ').collect::<Vec<_>>())
}

/// Expects exactly this.
#[track_caller]
pub fn expect(run: &Run, code: i32, out: &str, err: &str) {
    let shown = (run.code, plain(&run.out), plain(&run.err));
    assert_eq!(shown, (code, out.to_owned(), err.to_owned()), "\n{}\n{}", run.out, run.err);
}

/// Durations, times, ids and operations replaced by placeholders; padding of columns evened.
pub fn plain(text: &str) -> String {
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(|l| line(l) + "\n").collect()
}

fn word(word: &str) -> String {
    let core = word.trim_matches(|c: char| "`(),:".contains(c));
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let placeholder = if core.len() == 12 && hex(core) {
        "ID"
    } else if core.len() == 16 && hex(core) {
        "FINGERPRINT"
    } else if core.len() == 32 && hex(core) {
        "TRACE"
    } else if core.len() == 9 && core.starts_with("op-") {
        "OP"
    } else if core.len() > 3 && core.parse::<f64>().is_ok() && core.contains('.') {
        "N"
    } else {
        return word.to_owned();
    };
    word.replace(core, placeholder)
}
