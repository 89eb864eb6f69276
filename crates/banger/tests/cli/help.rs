//! Help, short forms and the form of errors.

use crate::support::{expect, home, run};

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
    // An invalid configuration must not prevent the help.
    std::fs::write(config.join("config.toml"), "[vm_defaults]\nvcpus = 0\n").unwrap();
    let help = run(&home, "vm create --help");
    assert!(help.code == 0 && !help.out.contains("[default: 3]"), "{}", help.out);
}
