//! VMs that a new daemon starts by itself.

use std::fs::File;
use std::io::Write;

use banger_testkit::Home;
use serde_json::{Map, Value, json};

use crate::support::{expect, home, run};

/// Ends all shims and VMMs of the simulated host while no daemon runs: a change in the host's file.
fn end_processes(home: &Home, vms: &[&str]) {
    let mut objects = Map::new();
    for id in vms {
        objects.insert(format!("shim:{id}"), Value::Null);
        objects.insert(format!("vmm:{id}"), Value::Null);
    }
    let change = json!({"spawned": 100, "objects": objects});
    let world = home.path().join("state/sim-world.json");
    writeln!(File::options().append(true).open(world).unwrap(), "{change}").unwrap();
}

fn id(home: &Home, vm: &str) -> String {
    home.json(&["vm", "show", vm])["id"].as_str().unwrap().to_owned()
}

/// Kinds of the operations on record.
fn kinds(home: &Home) -> Vec<String> {
    let list = home.json(&["operation", "list"]);
    let kinds = list.as_array().unwrap().iter().map(|op| op["kind"].as_str().unwrap().to_owned());
    kinds.collect()
}

#[test]
fn vms_come_back_after_all_processes_were_killed() {
    let home = home();
    for line in [
        "vm create --name web --autostart",
        "vm create --name later",
        "vm create --name without",
        "vm create --name halted --autostart",
        "vm create --name never --autostart --no-start",
    ] {
        assert_eq!(run(&home, line).code, 0, "{line}");
    }
    let set = "later: `later` changed while it runs: autostart on (was off)\n";
    expect(&run(&home, "vm set later --autostart on"), 0, "later changed\n", set);
    run(&home, "vm stop halted");
    let ids = ["web", "later", "without"].map(|vm| id(&home, vm));
    home.kill_daemon();
    end_processes(&home, &ids.each_ref().map(String::as_str));
    // This command starts the daemon.
    home.wait_state("web", "running");
    home.wait_state("later", "running");
    for vm in ["without", "halted", "never"] {
        assert_eq!(home.state(vm), "stopped", "{vm}");
    }
    assert_eq!(kinds(&home).iter().filter(|kind| *kind == "autostart").count(), 2);
    let show = run(&home, "vm show web").out;
    assert!(show.contains("autostart   on\n"), "{show}");
    expect(&run(&home, "vm set web --autostart off"), 0, "web changed\n", &set_off("web"));
    assert_eq!(home.json(&["vm", "show", "web"])["autostart"], false);
    assert!(!run(&home, "vm show web").out.contains("autostart"));
    run(&home, "vm delete -f web later without halted never");
    home.finish();
}

fn set_off(vm: &str) -> String {
    format!("{vm}: `{vm}` changed while it runs: autostart off (was on)\n")
}

#[test]
fn a_failed_automatic_start_is_reported() {
    let home = home();
    run(&home, "vm create --name web --autostart");
    let web = id(&home, "web");
    home.kill_daemon();
    end_processes(&home, &[&web]);
    let mut next = home.command(&["daemon", "start"]);
    assert!(next.env("BANGER_SIM_FAULTS", "vmm:before:9").status().unwrap().success());
    let warning = "autostart.vm: the automatic start of `web` failed: simulated failure before \
                   `vmm` (";
    home.wait("the failed start", || run(&home, "doctor").out.contains(warning));
    let doctor = run(&home, "doctor").out;
    assert!(doctor.contains("hint: `banger vm start web` starts it"), "{doctor}");
    let show = run(&home, "vm show web").out;
    assert!(show.contains("notice      the automatic start of `web` failed: "), "{show}");
    let log = run(&home, "daemon logs").out;
    assert!(log.contains("autostart"), "{log}");
    // With the next daemon, which has no fault, it is started.
    run(&home, "daemon stop");
    home.wait_state("web", "running");
    assert!(!run(&home, "doctor").out.contains("autostart"));
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn contradictory_requests_are_refused() {
    let home = home();
    let both = run(&home, "run --rm --autostart true");
    assert_eq!(both.code, 125);
    assert!(both.err.contains("--autostart"), "{}", both.err);
    assert_eq!(run(&home, "vm set web --autostart maybe").code, 2);
    assert_eq!(run(&home, "vm create --autostart=on").code, 2);
    run(&home, "run -d --rm --name web");
    let set = run(&home, "vm set web --autostart on");
    let refused = "cannot set `web`: it is deleted when it stops, so it cannot be started \
                   automatically";
    assert!(set.code == 4 && set.err.contains(refused), "{} {}", set.code, set.err);
    run(&home, "vm kill web");
    home.wait_state("web", "gone");
    home.finish();
}
