//! Output of the commands on VMs, logs and the daemon.

use crate::support::{expect, home, run};

const STAGES: &str = "\
web: operation OP
web: prepare_disks N s
web: preflight N s
web: prepare_disks N s
web: attach_network N s
web: launch_vmm N s
web: boot N s
web: wait_vsock_agent N s
web: wait_guest_ready N s
web: ready N s
web: ready in N s
";

#[test]
fn the_life_of_a_vm() {
    let home = home();
    expect(&run(&home, "vm create --name web"), 0, "web\n", "web: ready in N s\n");
    run(&home, "vm delete -f web");
    expect(&run(&home, "vm create -v --name web"), 0, "web\n", STAGES);
    let list = run(&home, "vm list");
    assert!(
        list.out.starts_with("NAME  ID            STATE    IMAGE   VCPUS  MEMORY   DISK  IP"),
        "{}",
        list.out
    );
    let row = list.out.lines().nth(1).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!((cells[0], cells[2], cells[3]), ("web", "running", "debian"));
    expect(&run(&home, "vm start web"), 0, "web runs already\n", "");
    expect(&run(&home, "vm stop web"), 0, "web stopped in N s\n", "");
    expect(&run(&home, "vm stop web"), 0, "web was stopped already\n", "");
    expect(&run(&home, "vm start web"), 0, "web started in N s\n", "");
    expect(&run(&home, "vm restart -q web"), 0, "", "");
    expect(&run(&home, "vm kill web"), 0, "web killed\n", "");
    expect(&run(&home, "vm repair web"), 0, "web is not broken\n", "");
    expect(&run(&home, "vm delete web"), 0, "web deleted\n", "");
    expect(&run(&home, "vm list -q"), 0, "", "");
    home.finish();
}

#[test]
fn set_reports_when_values_take_effect() {
    let home = home();
    run(
        &home,
        "vm create --name web -p 8080:80 --vcpus 1 --memory 1G --disk-size 8G --work-size 8G",
    );
    let both = "vm set web --vcpus 2 --disk-size 9G -p 9090:90 --unpublish 8080";
    let notes = "\
web: `web` changed while it runs: published ports 127.0.0.1:9090:90 (was 127.0.0.1:8080:80)
web: `web` changes at its next start: vcpus 2 (was 1), root disk 9 GiB (was 8 GiB)
";
    expect(&run(&home, both), 0, "web changed\n", notes);
    let next = "next start  vcpus 2, memory 1 GiB, root disk 9 GiB, work disk 8 GiB, nat on\n";
    let show = run(&home, "vm show web").out;
    assert!(show.contains(next) && show.contains("127.0.0.1:9090 leads to 90\n"), "{show}");
    assert_eq!(home.json(&["vm", "show", "web"])["next_start"]["vcpus"], 2);
    run(&home, "vm restart web");
    assert!(!run(&home, "vm show web").out.contains("next start"));

    let smaller = "error: cannot set `web`: a root disk only grows, and it has 9 GiB\n(OP)\n";
    expect(&run(&home, "vm set web --disk-size 8G --vcpus 3"), 4, "", smaller);
    assert_eq!(home.json(&["vm", "show", "web"])["vcpus"], 2);
    let unknown = "error: `web` does not publish port `8080`\n\
                   hint: it publishes 127.0.0.1:9090:90\n(OP)\n";
    expect(&run(&home, "vm set web --unpublish 8080"), 3, "", unknown);
    let both = run(&home, "vm set web --unpublish 8080 --autostart off --label a");
    assert!(both.code == 0 && both.err.contains("does not publish port `8080`"), "{}", both.err);
    assert_eq!(run(&home, "vm set nope --vcpus 1").code, 3);
    run(&home, "vm kill web");
    expect(&run(&home, "vm set web --nat off"), 0, "web changed\n", "");
    run(&home, "vm delete web");
    home.finish();
}

#[test]
fn lists_show_running_vms_and_ports() {
    let home = home();
    run(&home, "vm create --name idle --no-start");
    run(&home, "vm create --name busy -p 8080:80 -p 0.0.0.0:9:9");
    let shown = run(&home, "ps").out;
    assert!(shown.contains("  PORTS  ") && shown.contains("  8080->80, 0.0.0.0:9->9  "), "{shown}");
    assert_eq!(home.json(&["ps"])[0]["publish"][0]["guest_port"], 80);
    let names = |line: &str| {
        let list: serde_json::Value = serde_json::from_str(&run(&home, line).out).unwrap();
        let names = list.as_array().unwrap().iter().map(|vm| vm["name"].as_str().unwrap());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names("vm list --json"), ["busy", "idle"]);
    assert_eq!(names("vm list --running --json"), ["busy"]);
    assert_eq!(names("ps --json"), ["busy"]);
    assert_eq!(names("ps -a --json"), ["busy", "idle"]);
    assert_eq!(names("ls --json"), ["busy", "idle"]);
    expect(&run(&home, "ps -q"), 0, "ID\n", "");
    run(&home, "vm delete -f busy idle");
    home.finish();
}

#[test]
fn labels_are_shown_and_select_vms() {
    let home = home();
    run(&home, "create --name web --label team=a --label urgent --label team=b");
    run(&home, "create --name db --no-start -l team=c");
    let show = run(&home, "show web").out;
    assert!(show.contains("label       team=b\nlabel       urgent\n"), "{show}");
    let both = serde_json::json!({"team": "b", "urgent": ""});
    assert_eq!(home.json(&["show", "web"])["labels"], both);
    assert_eq!(home.json(&["ps"])[0]["labels"], both);
    let names = |line: &str| {
        let list = home.json(&line.split(' ').collect::<Vec<_>>());
        let names = list.as_array().unwrap().iter().map(|vm| vm["name"].as_str().unwrap());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    for (line, expected) in [
        ("vm list --filter label=team", &["db", "web"][..]),
        ("vm list --filter label=team=b", &["web"]),
        ("vm list --filter label=team --filter label=urgent", &["web"]),
        ("vm list --filter label=nope", &[]),
        ("vm list --filter name=w*", &["web"]),
        ("vm list --filter name=web --filter name=db", &["db", "web"]),
        ("vm list --filter image=debian --filter state=stopped", &["db"]),
        ("ps --filter label=team", &["web"]),
        ("ps --filter state=stopped", &["db"]),
        ("vm list --running --filter state=stopped", &[]),
    ] {
        assert_eq!(names(line), expected, "{line}");
    }
    let changed = "web: `web` changed while it runs: labels note=x, urgent (was team=b, urgent)\n";
    let set = run(&home, "vm set web --label note=x --unlabel team");
    expect(&set, 0, "web changed\n", changed);
    let missing = "warning: db: `db` has no label `nope`\n";
    expect(&run(&home, "vm set db --unlabel nope --label team=c"), 0, "db changed\n", missing);
    let many: Vec<String> = (0..65).map(|n| format!("--label k{n}")).collect();
    let refused = run(&home, &format!("vm set web {}", many.join(" ")));
    assert_eq!(
        (refused.code, refused.err.as_str()),
        (2, "error: 65 labels: a VM has at most 64\n")
    );
    let refused = run(&home, &format!("vm set web {}", many[1..].join(" ")));
    assert_eq!(refused.code, 2);
    assert!(refused.err.starts_with("error: cannot set `web`: 66 labels: a VM has at most 64\n"));
    run(&home, "stop web");
    expect(&run(&home, "prune -f --filter label=team"), 0, "db deleted\n", "freed 8 MiB\n");
    run(&home, "rm -f web");
    home.finish();
}

#[test]
fn a_vm_is_renamed() {
    let home = home();
    run(&home, "create --name web");
    run(&home, "create --name db --no-start");
    let id = home.json(&["show", "web"])["id"].clone();
    let note = "web: the host name in the guest changes at the next start of `shop`\n";
    expect(&run(&home, "vm rename web shop"), 0, "web is `shop` now\n", note);
    assert_eq!(home.json(&["show", "shop"])["id"], id);
    expect(&run(&home, "rename db web"), 0, "db is `web` now\n", "");
    expect(&run(&home, "rename web web"), 0, "web has this name already\n", "");
    let taken = "error: there is a VM `shop` already\n\
        hint: choose another name, or `banger vm delete shop` first\n";
    let refused = run(&home, "vm rename web shop");
    assert_eq!((refused.out.as_str(), refused.err.as_str()), ("", taken));
    assert_eq!(run(&home, "vm rename nope a").code, 3);
    let renamed = home.json(&["rename", id.as_str().unwrap(), "front"]);
    assert_eq!((&renamed[0]["id"], &renamed[0]["result"]), (&id, &"done".into()));
    run(&home, "rm -f front web");
    home.finish();
}

#[test]
fn a_stopped_vm_is_reset() {
    let home = home();
    run(&home, "create --name web --label team=a -p 8080:80");
    let running = "error: cannot reset `web`: it is running\n\
        hint: `banger vm stop web` stops it\n";
    expect(&run(&home, "vm reset -f web"), 4, "", running);
    run(&home, "stop web");
    expect(&run(&home, "vm reset web"), 0, "web has a fresh root disk\n", "");
    let web = home.json(&["show", "web"]);
    assert_eq!((&web["state"], &web["labels"]["team"]), (&"stopped".into(), &"a".into()));
    assert_eq!(web["publish"][0]["host_port"], 8080);
    let reset = home.json(&["reset", "web"]);
    assert_eq!((&reset[0]["name"], &reset[0]["result"]), (&"web".into(), &"done".into()));
    assert_eq!(run(&home, "vm reset nope").code, 3);
    expect(&run(&home, "start web"), 0, "web started in N s\n", "");
    run(&home, "rm -f web");
    home.finish();
}

#[test]
fn show_contains_all_fields() {
    let home = home();
    run(&home, "vm create --name web --vcpus 2 --memory 1G --disk-size 9G --work-size 10G");
    let shown = run(&home, "vm show web");
    let line = |name: &str| {
        let found = shown.out.lines().find(|line| line.starts_with(name));
        found.unwrap_or_else(|| panic!("{name}\n{}", shown.out))[12..].trim().to_owned()
    };
    assert_eq!(line("name"), "web");
    assert_eq!(line("state"), "running");
    assert_eq!(line("vcpus"), "2");
    assert_eq!(line("memory"), "1 GiB");
    assert!(line("root disk").ends_with("of 9 GiB"));
    assert!(line("work disk").ends_with("of 10 GiB"));
    assert_eq!(line("storage"), "sim");
    assert!(run(&home, "vm show web --why").out.contains("storage     sim: "));
    let json = home.json(&["vm", "show", "web"]);
    for field in [
        "id",
        "name",
        "state",
        "image",
        "vcpus",
        "memory_mib",
        "ip",
        "created_at",
        "disk",
        "pid",
        "boot_id",
        "stopped_because",
        "drivers",
        "start",
        "paths",
    ] {
        assert!(json.get(field).is_some(), "{field}");
    }
    let prefix = &json["id"].as_str().unwrap()[..5];
    assert_eq!(home.json(&["vm", "show", prefix]), json);
    run(&home, "vm stop web");
    assert!(run(&home, "vm show web").out.contains("because     a stop was requested\n"));
    run(&home, "vm delete web");
    home.finish();
}

#[test]
fn health_has_a_code_for_scripts() {
    let home = home();
    run(&home, "vm create --name up");
    run(&home, "vm create --name down --no-start");
    let up = run(&home, "vm health up");
    assert_eq!(up.code, 0);
    assert!(up.out.starts_with("up: ok, up "), "{}", up.out);
    expect(&run(&home, "vm health down"), 4, "down: stopped\n", "");
    let both = run(&home, "vm health down up nope --json");
    assert_eq!(both.code, 1);
    let json: serde_json::Value = serde_json::from_str(&both.out).unwrap();
    assert_eq!(json[0]["agent"], "not_running");
    assert_eq!(json[1]["agent"], "ok");
    assert_eq!(json[2]["error"]["code"], "not_found");
    run(&home, "vm delete -f up down");
    home.finish();
}

#[test]
fn version_and_daemon() {
    let home = home();
    let version = home.json(&["version"]);
    let text = run(&home, "version").out;
    assert_eq!(
        text,
        format!(
            "banger {} (build {})\n",
            version["version"].as_str().unwrap(),
            version["build_id"].as_str().unwrap()
        )
    );
    let socket = home.path().join("run/bangerd.sock");
    let absent = format!(
        "error: no daemon runs at `{}`\nhint: `banger daemon start` and all commands that need the \
         daemon start it\n",
        socket.display()
    );
    expect(&run(&home, "daemon status"), 1, "", &absent);
    expect(&run(&home, "daemon stop"), 0, "no daemon was running\n", "");
    let started = home.json(&["daemon", "start"]);
    let status = home.json(&["daemon", "status"]);
    for field in ["pid", "version", "build_id", "socket", "log", "uptime_s", "vms"] {
        assert!(status.get(field).is_some(), "{field}");
    }
    assert_eq!(started["pid"], status["pid"]);
    assert_eq!(status["socket"], socket.to_str().unwrap());
    let logs = run(&home, "daemon logs --json").out;
    assert!(logs.lines().all(|line| line.starts_with('{')) && !logs.is_empty(), "{logs}");
    let doctor = run(&home, "doctor --json");
    let checks: serde_json::Value = serde_json::from_str(&doctor.out).unwrap();
    assert!(checks.as_array().unwrap().iter().all(|check| check["code"].is_string()));
    assert!(run(&home, "doctor -v").out.contains("host.simulated: "));
    home.finish();
}

#[test]
fn each_log_of_a_vm_is_shown_through_the_daemon() {
    let home = home();
    run(&home, "vm create --name web --no-start");
    expect(&run(&home, "vm logs web"), 0, "", "");
    let paths = home.json(&["vm", "show", "web"])["paths"].clone();
    let path = |name: &str| std::path::PathBuf::from(paths[name].as_str().unwrap());
    std::fs::create_dir_all(path("console_log").parent().unwrap()).unwrap();
    std::fs::write(path("console_log"), "one\nbanger: two\nthree\n").unwrap();
    std::fs::write(path("vmm_log"), "vmm\n").unwrap();
    std::fs::write(path("shim_log"), "shim\n").unwrap();
    for (flags, expected) in [
        ("web", "one\nbanger: two\nthree\n"),
        ("web --console --tail 1", "three\n"),
        ("web --tail 0", ""),
        ("web --agent", "banger: two\n"),
        ("web --vmm", "vmm\n"),
        ("web --shim", "shim\n"),
        ("web --vmm --json", "{\"line\":\"vmm\"}\n"),
    ] {
        expect(&run(&home, &format!("vm logs {flags}")), 0, expected, "");
    }
    let timed = "2026-01-01T00:00:00.000000001 [vm:main] a\n2026-01-02T00:00:00 [vm:main] b\n";
    std::fs::write(path("vmm_log"), timed).unwrap();
    let since = run(&home, "vm logs web --vmm --since 2026-01-01T12:00:00Z");
    expect(&since, 0, "2026-01-02T00:00:00 [vm:main] b\n", "");
    let untimed = run(&home, "vm logs web --since 10m");
    let text = "error: the lines of this log of `web` have no times\n";
    assert!(untimed.code == 2 && untimed.err.starts_with(text), "{}", untimed.err);
    let folder = path("vmm_log");
    std::fs::remove_file(&folder).unwrap();
    std::fs::create_dir(&folder).unwrap();
    let output = run(&home, "vm logs web --vmm");
    let expected = format!("error: cannot read the log `{}`\n", folder.display());
    assert!(output.code == 1 && output.err.starts_with(&expected), "{}", output.err);
    run(&home, "vm delete web");
    home.finish();
}

#[test]
fn a_trial_reports_every_check_and_leaves_no_vm() {
    let home = home();
    let tried = run(&home, "doctor --try");
    let shown: Vec<_> = tried.out.lines().filter(|line| line.contains(" try.")).collect();
    let all = shown.join("\n");
    for (line, expected) in shown.iter().zip([
        "ok       try.boot: `",
        // A simulated guest has no real shell and no network, which a trial must notice.
        "missing  try.command: a command returned ",
        "warning  try.name: this host does not resolve ",
        "warning  try.internet: not tried: this host does not resolve example.com itself",
        "missing  try.port: 127.0.0.1:",
        "ok       try.delete: deleted `",
    ]) {
        assert!(line.starts_with(expected), "{all}");
    }
    assert_eq!((shown.len(), tried.code), (6, 5), "{all}");
    assert_eq!(home.json(&["vm", "list"]), serde_json::json!([]));

    // A machine that cannot be created is the finding.
    let config = home.path().join("config/config.toml");
    std::fs::write(config, "default_image = \"nope\"\n").unwrap();
    run(&home, "daemon stop");
    let tried = run(&home, "doctor --try");
    let missing = "missing  try.boot: there is no image `nope`\n         hint: ";
    assert!(tried.out.contains(missing) && tried.code == 5, "{}", tried.out);
    home.finish();
}

#[test]
fn the_daemons_log_has_no_lines_about_what_never_was() {
    let home = home();
    run(&home, "vm create --name web --no-start");
    run(&home, "vm delete web");
    // A deleted VM has lines.
    assert!(run(&home, "daemon logs --vm web").out.contains("  web  "));
    let error =
        "error: the log has no line about a VM `nope`\nhint: `banger vm list` lists all VMs\n";
    expect(&run(&home, "daemon logs --vm nope"), 3, "", error);
    let unknown = run(&home, "daemon logs --op op-zzzzzz");
    assert!(unknown.code == 3 && unknown.err.contains("`op-zzzzzz`"), "{}", unknown.err);
    assert_eq!(run(&home, "daemon logs --op x").code, 2);
    assert_eq!(run(&home, "daemon logs --vm web --tail 0").code, 0);
    assert_eq!(run(&home, "daemon logs --vm web --since 2126-01-01T00:00:00Z").out, "");
    assert!(run(&home, "daemon logs --vm web --since 1h").out.contains("  web  "));
    home.finish();
}
