//! `vm stats`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use banger_testkit::kill;
use serde_json::Value;

use crate::support::{expect, home, run};

/// Words with numbers replaced by `N`; padding of columns evened.
fn shape(text: &str) -> Vec<String> {
    let word = |word: &str| match word.trim_end_matches('%').parse::<f64>() {
        Ok(_) => word.replace(|c: char| c.is_ascii_digit() || c == '.', "") + "N",
        Err(_) => word.to_owned(),
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect()
}

#[test]
fn running_vms_are_measured_over_an_interval() {
    let home = home();
    let none = "no running VMs: `banger vm stats --all` shows all\n";
    let header = "NAME  CPU  MEMORY  AVAILABLE  NET I/O  DISK I/O  DISK  UPTIME\n";
    expect(&run(&home, "vm stats"), 0, header, none);
    run(&home, "create --name web --memory 512M");
    run(&home, "create --name db --no-start");
    let all = run(&home, "stats -n 100ms");
    let web = "web %N N MiB / N MiB N MiB N KiB / N KiB N MiB / N MiB N MiB / N GiB N seconds";
    assert_eq!(shape(&all.out), [shape(header)[0].as_str(), web], "{}", all.out);
    let both = run(&home, "vm stats db web -n 100ms");
    let rows = shape(&both.out);
    assert!(rows[0].starts_with("NAME STATE CPU MEMORY "), "{}", both.out);
    assert_eq!(rows[1], "db stopped - - - - - N MiB / N GiB -");
    assert!(rows[2].starts_with("web running %N N MiB / N MiB "), "{}", both.out);
    assert_eq!(shape(&run(&home, "top -a -n 100ms").out), rows);

    let missing = "error: there is no VM `nope`\nhint: `banger vm list` lists all VMs\n";
    expect(&run(&home, "vm stats nope"), 3, "", missing);
    expect(&run(&home, "vm stats nope --watch"), 3, "", missing);
    let json = run(&home, "stats web nope db -n 100ms --json");
    assert_eq!((json.code, json.err.as_str()), (1, ""));
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&json[0]["name"], &json[1]["name"]), (&"web".into(), &"db".into()));
    assert!(json[0]["cpu_percent"].as_f64().is_some_and(|percent| percent > 0.0), "{json}");
    let used = &json[0]["run"];
    assert_eq!(used["memory"]["limit_bytes"], 512 << 20);
    assert_eq!((&used["network"]["source"], &used["cpu"]["vcpus"]), (&"host".into(), &2.into()));
    assert!(used["memory"]["guest"]["available_bytes"].as_u64().is_some(), "{json}");
    assert!(json[1]["run"].is_null() && json[1]["cpu_percent"].is_null());
    assert_eq!(
        (&json[2]["reference"], &json[2]["error"]["code"]),
        (&"nope".into(), &"not_found".into())
    );
    run(&home, "rm -f web db");
    home.finish();
}

#[test]
fn a_watch_ends_at_ctrl_c_and_when_its_reader_is_gone() {
    let home = home();
    run(&home, "create --name web");
    run(&home, "create --name db");
    let args = ["vm", "stats", "--watch", "--json", "--interval", "100ms"];
    let start = |more: &[&str]| {
        let args = [&args[..], more].concat();
        let mut child = home.command(&args).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    };
    let (mut child, mut lines) = start(&[]);
    let mut seen = Vec::new();
    for line in lines.by_ref().take(6) {
        let object: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert!(object["cpu_percent"].as_f64().is_some(), "the first line too: {object}");
        assert!(object["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{object}");
        seen.push(object["name"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen, ["db", "web", "db", "web", "db", "web"]);
    kill(child.id(), "INT");
    assert_eq!(child.wait().unwrap().code(), Some(0), "Ctrl-C is its usual end");

    // A reader that leaves within an interval of one hour.
    let (mut child, lines) = start(&[]);
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(141), "as by SIGPIPE");
    let slow = ["vm", "stats", "--watch", "-n", "1h"];
    let mut child = home.command(&slow).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(141));

    // New VMs are shown; a watch of named VMs ends with the last of them.
    let (mut all, mut lines) = start(&[]);
    let (mut named, named_lines) = start(&["web", "db"]);
    run(&home, "create --name later");
    while !lines.next().unwrap().unwrap().contains("\"name\":\"later\"") {}
    run(&home, "stop later");
    run(&home, "rm -f web db");
    let last = named_lines.map(|line| line.unwrap()).last().unwrap();
    assert!(last.contains("\"name\":\"web\"") || last.contains("\"name\":\"db\""), "{last}");
    assert_eq!(named.wait().unwrap().code(), Some(0));
    kill(all.id(), "INT");
    assert_eq!(all.wait().unwrap().code(), Some(0));
    run(&home, "rm -f later");
    home.finish();
}
