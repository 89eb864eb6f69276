//! What each command says.

use crate::support::{expect, home, plain, run};

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
    assert!(run(&home, "vm show web").out.contains("because     it was asked to\n"));
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
fn images_and_kernels() {
    let home = home();
    let pulled = run(&home, "image pull debian");
    assert_eq!(pulled.code, 0, "{}", pulled.err);
    assert_eq!(plain(&pulled.out), "FINGERPRINT\n");
    let id = pulled.out.trim();
    assert_eq!(home.json(&["image", "show", "debian"])["id"], id);
    assert!(run(&home, "image show debian").out.starts_with("names        debian\n"));
    assert!(run(&home, "image list").out.starts_with("NAME    ID                "));
    expect(&run(&home, "image list -q"), 0, "FINGERPRINT\n", "");
    let kernel = home.json(&["kernel", "pull"]);
    assert_eq!(kernel["names"][0], "debian-cloud");
    assert_eq!(home.json(&["kernel", "list"])[0]["id"], kernel["id"]);
    run(&home, "vm create --name web --no-start");
    expect(
        &run(&home, "image delete debian"),
        4,
        "",
        "error: image `debian` is used by web\nhint: delete these VMs first\n",
    );
    run(&home, "vm delete web");
    let deleted = run(&home, "image delete debian");
    assert!(deleted.out.starts_with("debian deleted, "), "{}", deleted.out);
    expect(
        &run(&home, "image delete debian"),
        3,
        "",
        "error: there is no image `debian`\nhint: `banger image list` shows what there is\n",
    );
    assert_eq!(run(&home, "kernel delete debian-cloud nope").code, 1);
    home.finish();
}

#[test]
fn moving_an_image_name_requires_replace() {
    let home = home();
    let id = run(&home, "image pull debian").out;
    let again = run(&home, "image pull debian");
    assert_eq!((again.code, &again.out), (0, &id));
    run(&home, "vm create --name web --no-start");
    let tar = home.path().join("debian.tar");
    std::fs::write(&tar, b"x").unwrap();
    let tar = tar.to_str().unwrap();
    let refused = home.run(&["image", "import", tar]);
    assert_eq!(refused.code, 4, "{}", refused.err);
    let told = format!(
        "error: the name `debian` refers to the image {}, which is used by web\n\
         hint: choose another name, or move this one with `--replace`\n",
        id.trim()
    );
    assert_eq!(refused.err, told);
    assert_eq!(home.json(&["image", "show", "debian"])["id"], id.trim());
    let replaced = home.run(&["image", "import", "--replace", tar]);
    assert_eq!(replaced.code, 0, "{}", replaced.err);
    let own = format!("debian-{}", &id[..8]);
    let told = format!("the image before it, used by web, is `{own}` now");
    assert!(replaced.err.contains(&told), "{}", replaced.err);
    assert_eq!(home.json(&["image", "show", &own])["id"], id.trim());
    assert_ne!(home.json(&["image", "show", "debian"])["id"], id.trim());
    run(&home, "vm delete web");
    home.finish();
}

#[test]
fn one_of_several_names_is_removed_alone() {
    let home = home();
    let id = run(&home, "image pull debian").out;
    let id = id.trim();
    let tagged = run(&home, "image tag debian base");
    assert_eq!(tagged.out, format!("base is a name of the image {id}\n"), "{}", tagged.err);
    assert_eq!(home.json(&["image", "tag", "base", "third"])["names"][2], "third");
    let text = "third removed; the image is still base, debian\n";
    expect(&run(&home, "image untag third"), 0, text, "");
    run(&home, "vm create --name web --no-start");
    let text = "debian removed; the image is still base\n";
    expect(&run(&home, "image delete debian"), 0, text, "");
    assert_eq!(home.json(&["image", "show", "base"])["id"], id);
    let last = run(&home, "image untag base");
    assert_eq!(last.code, 4, "{}", last.err);
    assert!(last.err.contains("`base` is the only name of the image"), "{}", last.err);
    assert_eq!(run(&home, "image untag nope").code, 3);
    assert_eq!(run(&home, "image delete base").code, 4);
    run(&home, "image pull debian");
    // The simulated recipe gives the same image again.
    assert_eq!(run(&home, "image tag nope x").code, 3);
    let home_json = home.json(&["image", "show", "base"]);
    assert_eq!(home_json["names"].as_array().unwrap().len(), 2);
    run(&home, "vm delete web");
    home.finish();
}

#[test]
fn an_archive_comes_from_standard_input() {
    use std::io::Write;
    use std::process::Stdio;
    let home = home();
    let nameless = run(&home, "image import -");
    assert_eq!(nameless.code, 2);
    assert!(nameless.err.contains("standard input has no name"), "{}", nameless.err);
    let mut command = home.command(&["image", "import", "--name", "piped", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&vec![7; 3 << 20]).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let image = home.json(&["image", "show", "piped"]);
    assert_eq!(image["names"][0], "piped");
    // A name that is taken is told before the archive is read to its end.
    let mut command = home.command(&["image", "import", "--name", "piped", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let piece = vec![7; 1 << 20];
    let mut pieces = 0;
    while input.write_all(&piece).is_ok() && pieces < 100_000 {
        pieces += 1;
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("the name `piped` refers to the image"), "{said}");
    home.finish();
}

#[test]
fn ctrl_c_breaks_an_upload_off() {
    use std::io::Write;
    use std::process::Stdio;

    let home = home();
    run(&home, "vm list");
    let mut command = home.command(&["image", "import", "--name", "piped", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Its input neither ends nor goes on: the program waits in a read.
    let mut input = child.stdin.take().unwrap();
    input.write_all(&vec![7; 3 << 20]).unwrap();
    banger_testkit::kill(child.id(), "INT");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: the upload was cancelled\n"), "{said}");
    drop(input);
    assert_eq!(home.json(&["image", "list"]), serde_json::json!([]));
    let uploads = home.path().join("data");
    let left = |folder: &std::path::Path| -> usize {
        let mut count = 0;
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(data) if data.is_dir() => folders.push(entry.path()),
                    Ok(data) => count += usize::from(data.len() > 1 << 20),
                    Err(_) => {}
                }
            }
        }
        count
    };
    home.wait("the half-sent archive to be removed", || left(&uploads) == 0);
    home.finish();
}

#[test]
fn an_image_is_imported_from_a_file_that_is_there() {
    let home = home();
    let tar = home.path().join("Tiny.tar");
    let missing = home.run(&["image", "import", tar.to_str().unwrap()]);
    assert_eq!(missing.code, 3);
    assert!(missing.err.contains("Tiny.tar` cannot be read\n"), "{}", missing.err);
    std::fs::write(&tar, b"x").unwrap();
    let made = home.command(&["image", "import", "Tiny.tar"]).current_dir(home.path()).output();
    assert!(made.unwrap().status.success());
    assert_eq!(home.json(&["image", "show", "tiny"])["names"][0], "tiny");
    let folder = home.run(&["image", "import", "--name", "x", home.path().to_str().unwrap()]);
    assert_eq!(folder.code, 2);
    assert!(folder.err.contains("is a folder\nhint: pack it first"), "{}", folder.err);
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
        "error: no daemon runs at `{}`\nhint: any command that needs it starts it; so does \
         `banger daemon start`\n",
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
    let folder = path("vmm_log");
    std::fs::remove_file(&folder).unwrap();
    std::fs::create_dir(&folder).unwrap();
    let said = run(&home, "vm logs web --vmm");
    let expected = format!("error: cannot read the log `{}`\n", folder.display());
    assert!(said.code == 1 && said.err.starts_with(&expected), "{}", said.err);
    run(&home, "vm delete web");
    home.finish();
}

#[test]
fn errors_as_json_go_to_stderr() {
    let home = home();
    let run = run(&home, "vm show nope --json");
    assert_eq!((run.code, run.out.as_str()), (3, ""));
    let error: serde_json::Value = serde_json::from_str(&run.err).unwrap();
    assert_eq!(error["error"]["code"], "not_found");
    assert_eq!(error["error"]["message"], "there is no VM `nope`");
    home.ok(&["daemon", "stop"]);
    home.finish();
}

#[test]
fn help_shows_the_defaults_of_this_host() {
    let home = home();
    for line in ["run --help", "vm run --help", "vm create --help"] {
        let help = run(&home, line);
        assert_eq!(help.code, 0);
        for argument in ["vcpus", "memory", "disk-size", "work-size", "image"] {
            let at = help
                .out
                .find(&format!("--{argument} <"))
                .unwrap_or_else(|| panic!("{line} {argument}"));
            let next = help.out[at..].split("\n\n").next().unwrap_or_default();
            assert!(next.contains("[default: "), "{line}\n{next}");
        }
    }
    assert!(!home.path().join("run/bangerd.sock").exists(), "help started a daemon");
}

#[test]
fn a_failure_shows_no_backtrace() {
    let home = home();
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let daemon = banger_testkit::program("bangerd");
    for value in ["1", "full"] {
        let mut failing = Vec::new();
        for line in ["vm show nope", "run --vcpus 0", "frobnicate", "doctor -x"] {
            failing.push(home.command(&line.split(' ').collect::<Vec<_>>()));
        }
        let mut unwritable = home.command(&["vm", "list"]);
        unwritable.env("BANGER_HOME", &file);
        let mut refused = std::process::Command::new(&daemon);
        refused.arg("--frobnicate");
        let mut homeless = std::process::Command::new(&daemon);
        homeless.env("BANGER_HOME", &file);
        failing.extend([unwritable, refused, homeless]);
        for mut command in failing {
            let shown = format!("{command:?}");
            let output = command.env("RUST_BACKTRACE", value).output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && !text.is_empty(), "{shown}\n{text}");
            assert!(!text.contains("backtrace") && !text.contains("panicked"), "{shown}\n{text}");
        }
    }
    home.ok(&["daemon", "stop"]);
    home.finish();
}

#[test]
fn short_forms_are_the_long_ones() {
    let home = home();
    expect(&run(&home, "create --name web"), 0, "web\n", "web: ready in N s\n");
    expect(&run(&home, "stop web"), 0, "web stopped in N s\n", "");
    expect(&run(&home, "start web"), 0, "web started in N s\n", "");
    expect(&run(&home, "reboot web"), 0, "web restarted in N s\n", "");
    for (short, long) in [
        ("ls", "vm list"),
        ("list", "vm list"),
        ("vm ps", "vm list"),
        ("show web --json", "vm show web --json"),
        ("inspect web --json", "vm show web --json"),
        ("images", "image list"),
        ("help vm create", "vm create --help"),
        ("help", "--help"),
    ] {
        let (short, long) = (run(&home, short), run(&home, long));
        assert_eq!((short.code, &short.out), (long.code, &long.out), "{}", short.err);
    }
    expect(&run(&home, "kill web"), 0, "web killed\n", "");
    expect(&run(&home, "rm web"), 0, "web deleted\n", "");
    home.finish();
}

#[test]
fn help_shows_the_configured_defaults() {
    let home = home();
    let config = home.path().join("config");
    std::fs::create_dir_all(&config).unwrap();
    let text = "default_image = \"mine\"\n[network]\nnat = false\n\
        [vm_defaults]\nvcpus = 3\nmemory = \"768M\"\nwork_size = \"3G\"\n";
    std::fs::write(config.join("config.toml"), text).unwrap();
    let help = run(&home, "vm create --help").out;
    let help = &help[help.find("Machine:").unwrap_or_default()..];
    for (argument, default) in [
        ("vcpus", "3"),
        ("memory", "768 MiB"),
        ("disk-size", "8 GiB"),
        ("work-size", "3 GiB"),
        ("image", "mine"),
        ("nat", "off"),
    ] {
        let at = help.find(&format!("--{argument} ")).unwrap();
        let next = help[at..].split("\n\n").next().unwrap_or_default();
        assert!(next.contains(&format!("[default: {default}]")), "{argument}: {next}");
    }
    // A configuration that is refused must not keep anybody from reading the help.
    std::fs::write(config.join("config.toml"), "[vm_defaults]\nvcpus = 0\n").unwrap();
    let help = run(&home, "vm create --help");
    assert!(help.code == 0 && !help.out.contains("[default: 3]"), "{}", help.out);
}
