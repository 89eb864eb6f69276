//! `vm events`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use banger_testkit::Home;
use serde_json::Value;

use crate::support::{expect, home, run};

/// Follows events from now on; returns the reader of its lines.
fn follow(home: &Home, args: &[&str]) -> (std::process::Child, impl BufRead + use<>) {
    let mut child = home.command(args).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

fn line(lines: &mut impl BufRead) -> String {
    let mut line = String::new();
    assert!(lines.read_line(&mut line).unwrap() > 0, "the feed ended");
    line
}

#[test]
fn changes_are_followed_and_earlier_ones_are_shown() {
    let home = home();
    run(&home, "create --name web --no-start");
    let id = home.json(&["show", "web"])["id"].as_str().unwrap().to_owned();
    let (mut child, mut objects) = follow(&home, &["vm", "events", "--json", "web"]);
    let all: Value = serde_json::from_str(&line(&mut objects)).unwrap();
    assert_eq!(all["event"], "all");
    // The feed merges changes of some milliseconds, so the VM may come after.
    if all["vms"] == serde_json::json!([]) {
        let event: Value = serde_json::from_str(&line(&mut objects)).unwrap();
        assert_eq!(event["vm"]["state"], "stopped");
    }
    // Changes of other VMs are not shown.
    run(&home, "create --name other --no-start");
    run(&home, "rm -f other web");
    loop {
        let event: Value = serde_json::from_str(&line(&mut objects)).unwrap();
        assert!(event["at_unix_ms"].as_u64().is_some_and(|at| at > 0), "{event}");
        if event["event"] == "gone" {
            assert_eq!(event["vm"], id.as_str());
            break;
        }
        assert_eq!(event["vm"]["name"], "web");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let (mut child, mut lines) = follow(&home, &["events", "--since", "1h"]);
    let mut shown = Vec::new();
    while shown.last().is_none_or(|last: &String| !last.ends_with("deleted   web\n")) {
        shown.push(line(&mut lines));
        assert!(shown.last().is_some_and(|line| line.len() <= 80), "{shown:?}");
    }
    assert!(
        shown.iter().any(|line| line.ends_with(&format!("  {id}  stopped   web\n"))),
        "{shown:?}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let missing = "error: there is no VM `nope`\nhint: `banger vm list` lists all VMs\n";
    expect(&run(&home, "vm events nope"), 3, "", missing);
    home.finish();
}
