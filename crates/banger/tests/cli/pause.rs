//! `vm pause` and `vm resume`, and the other commands on a paused VM.

use crate::support::{expect, home, run};

const PAUSED: &str = "error: `web` is paused\nhint: `banger vm resume web` resumes it\n";

#[test]
fn a_vm_is_paused_and_resumed() {
    let home = home();
    run(&home, "vm create --name web");
    expect(&run(&home, "vm pause web"), 0, "web paused\n", "");
    expect(&run(&home, "vm pause web"), 0, "web is paused already\n", "");
    let list = run(&home, "vm list --running");
    let row: Vec<&str> = list.out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[2]), ("web", "paused"));
    assert_eq!(home.json(&["vm", "show", "web"])["state"], "paused");
    expect(&run(&home, "vm resume web"), 0, "web resumed\n", "");
    expect(&run(&home, "vm resume web"), 0, "web runs already\n", "");
    expect(&run(&home, "exec web -- echo back"), 0, "back\n", "");
    let events = run(&home, "operation list");
    for kind in ["pause", "resume"] {
        let ended = |line: &str| line.contains(kind) && line.contains("succeeded");
        assert!(events.out.lines().any(ended), "{kind}\n{}", events.out);
    }
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn commands_that_need_the_guest_fail_at_once() {
    let home = home();
    run(&home, "vm create --name web -p 18088:80");
    run(&home, "vm pause web");
    for command in ["exec web -- true", "ssh web -- true", "cp Cargo.toml web:/"] {
        let failed = run(&home, command);
        assert!(failed.code != 0 && failed.err.ends_with(PAUSED), "{command}: {}", failed.err);
    }
    let ports = run(&home, "vm ports web");
    assert!(ports.code == 0 && ports.out.contains("18088"), "{} {}", ports.out, ports.err);
    expect(&run(&home, "vm health web"), 4, "web: paused; `banger vm resume web` resumes it\n", "");
    expect(
        &run(&home, "vm start web"),
        4,
        "",
        "error: cannot start `web`: it is paused\nhint: `banger vm resume web` resumes it\n",
    );
    expect(
        &run(&home, "vm delete web"),
        4,
        "",
        "error: cannot delete `web`: it is paused\n\
         hint: stop it first, or use `banger vm delete -f web`\n",
    );
    let set = run(&home, "vm set web --vcpus 3");
    assert_eq!((set.code, set.out.as_str()), (0, "web changed\n"), "{}", set.err);
    assert!(set.err.contains("at its next start"), "{}", set.err);
    expect(&run(&home, "vm stop web"), 0, "web stopped in N s\n", "");
    expect(
        &run(&home, "vm pause web"),
        4,
        "",
        "error: cannot pause `web`: it is stopped\nhint: `banger vm start web` starts it\n",
    );
    expect(
        &run(&home, "vm resume web nope"),
        1,
        "",
        "error: cannot resume `web`: it is stopped\nhint: `banger vm start web` starts it\n\
         error: there is no VM `nope`\nhint: `banger vm list` lists all VMs\n",
    );
    run(&home, "vm start web");
    run(&home, "vm pause web");
    expect(&run(&home, "vm kill web"), 0, "web killed\n", "");
    run(&home, "vm start web");
    run(&home, "vm pause web");
    expect(&run(&home, "vm restart web"), 0, "web restarted in N s\n", "");
    run(&home, "vm pause web");
    expect(&run(&home, "vm delete -f web"), 0, "web deleted\n", "");
    home.finish();
}

#[test]
fn a_paused_vm_stays_paused_when_its_daemon_is_killed() {
    let home = home();
    run(&home, "vm create --name web");
    run(&home, "vm pause web");
    home.kill_daemon();
    assert_eq!(home.json(&["vm", "show", "web"])["state"], "paused");
    expect(&run(&home, "vm resume web"), 0, "web resumed\n", "");
    let events = run(&home, "exec web -- echo back");
    expect(&events, 0, "back\n", "");
    run(&home, "vm delete -f web");
    home.finish();
}
