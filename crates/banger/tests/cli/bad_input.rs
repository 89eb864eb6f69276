//! Refused command lines: exit code and message; the daemon receives no request.

use crate::support::{expect, home, run};

/// Command line, exit code, part of the message.
const REFUSED: &[(&str, i32, &str)] = &[
    ("vm create --name Web", 2, "only a-z, 0-9 and hyphens are allowed"),
    ("vm create --name -a", 2, "it must not begin or end with a hyphen"),
    ("vm create --name=", 2, "it is empty"),
    ("vm create --name a.b", 2, "only a-z, 0-9 and hyphens are allowed"),
    ("vm create --vcpus 0", 2, "0 vCPUs: a VM has 1 to 32"),
    ("vm create --vcpus -1", 2, "-1 vCPUs: a VM has 1 to 32"),
    ("vm create --vcpus 33", 2, "33 vCPUs: a VM has 1 to 32"),
    ("vm create --vcpus 99999999999", 2, "a VM has 1 to 32"),
    ("vm create --vcpus two", 2, "it is not a whole number"),
    ("vm create --memory 0", 2, "`0` is not a size"),
    ("vm create --memory 0G", 2, "it must be more than zero"),
    ("vm create --memory -1G", 2, "`-1G` is not a size"),
    ("vm create --memory 1", 2, "write a number and a unit"),
    ("vm create --memory 64M", 2, "64 MiB of memory: a VM has 128 MiB to"),
    ("vm create --memory 131073K", 2, "memory is given in whole MiB"),
    ("vm create --memory 99999999999999999999G", 2, "it is too large"),
    ("vm create --disk-size 1M", 2, "a root disk of 1 MiB: a disk has 64 MiB to 16 TiB"),
    ("vm create --disk-size 17T", 2, "a root disk of 17 TiB"),
    ("vm create --work-size 0M", 2, "it must be more than zero"),
    ("vm create --work-size -8G", 2, "`-8G` is not a size"),
    ("vm create --nat maybe", 2, "[possible values: on, off]"),
    ("vm create -p 80", 2, "write HOST:GUEST, such as 8080:80"),
    ("vm create -p 0:80", 2, "a port is a number from 1 to 65535"),
    ("vm create -p -1:80", 2, "a port is a number from 1 to 65535"),
    ("vm create -p 65536:80", 2, "a port is a number from 1 to 65535"),
    ("vm create -p 53:53/udp", 2, "only TCP can be published"),
    ("vm create -p localhost:8080:80", 2, "the address is neither IPv4 nor IPv6"),
    ("vm create -p 8080:80 -p 8080:81", 2, "`127.0.0.1:8080` is published twice"),
    ("vm create --label =x", 2, "as a key, it is empty"),
    ("vm create --label -x", 2, "as a key, it must begin and end with a letter or digit"),
    ("vm create --label a:b=c", 2, "as a key, only letters, digits, dots"),
    ("vm create --label a=b\u{7f}", 2, "the value of label `a` has control characters"),
    ("vm create --image ../x", 2, "[HOST/]REPOSITORY"),
    ("vm create --image Debian", 2, "a name has a-z, 0-9"),
    ("vm create --kernel /boot/x", 2, "begins with a letter or digit"),
    ("vm create extra", 2, "unexpected argument `extra`"),
    ("vm stop", 2, "required arguments were not provided"),
    ("vm stop --timeout -1 web", 2, "it is not a whole number of seconds"),
    ("vm stop --timeout 1.5 web", 2, "it is not a whole number of seconds"),
    ("vm stop --timeout 86401 web", 2, "the maximum is 86400 seconds"),
    ("vm set", 2, "required arguments were not provided"),
    ("vm set web", 2, "no value to change is given"),
    ("vm set web --vcpus 0", 2, "0 vCPUs: a VM has 1 to 32"),
    ("vm set web --cpus 33", 2, "33 vCPUs: a VM has 1 to 32"),
    ("vm set web --memory 64M", 2, "64 MiB of memory: a VM has 128 MiB to"),
    ("vm set web --disk-size 17T", 2, "a root disk of 17 TiB"),
    ("vm set web --work-size -8G", 2, "`-8G` is not a size"),
    ("vm set web --nat maybe", 2, "[possible values: on, off]"),
    ("vm set web -p 80", 2, "write HOST:GUEST, such as 8080:80"),
    ("vm set web -p 8080:80 -p 8080:81", 2, "`127.0.0.1:8080` is published twice"),
    ("vm set web --label a_=b", 2, "as a key, it must begin and end with a letter or digit"),
    ("vm set web --unlabel a=b", 2, "as a key, only letters, digits, dots"),
    ("vm set web --unpublish 0", 2, "a port is a number from 1 to 65535"),
    ("vm set web --unpublish 8080:80", 2, "write the port of this host"),
    ("vm logs web --console --vmm", 2, "cannot be used with"),
    ("vm logs web --agent --shim", 2, "cannot be used with"),
    ("vm logs web --tail 100001", 2, "`100001`"),
    ("vm logs web --tail -1", 2, "`-1`"),
    ("vm logs web --tail x", 2, "invalid value `x` for `--tail <N>`"),
    ("vm stats --interval 1", 2, "write a number and a unit, such as 500ms, 2s or 1m"),
    ("vm stats --interval 0s", 2, "it must be 100ms to 1h"),
    ("vm stats --interval -1s", 2, "write a number and a unit"),
    ("vm stats -n 2h", 2, "it must be 100ms to 1h"),
    ("vm stats --all web", 2, "cannot be used with"),
    ("vm stats --no-stream", 2, "unexpected argument `--no-stream`"),
    ("vm ports --frobnicate", 2, "unexpected argument `--frobnicate`"),
    ("vm events --since soon", 2, "write an age, such as 10m, or a time"),
    ("vm events --since -1m", 2, "write an age, such as 10m, or a time"),
    ("vm prune extra", 2, "unexpected argument `extra`"),
    ("vm prune --older 7", 2, "write a number and a unit, such as 30m, 24h or 7d"),
    ("vm prune --older -7d", 2, "write a number and a unit"),
    ("vm prune --older 99999999999999999999d", 2, "it is too large"),
    ("vm prune --filter label", 2, "write label=KEY[=VALUE], name=NAME, image=IMAGE or until=AGE"),
    ("vm prune --filter state=running", 2, "write label=KEY[=VALUE], name=NAME"),
    ("vm prune --filter label=-a", 2, "it must begin and end with a letter or digit"),
    ("vm prune --filter until=soon", 2, "write a number and a unit"),
    ("vm prune", 2, "`vm prune` asks on a terminal before it deletes, and there is none"),
    ("vm prune --json", 2, "`vm prune` asks on a terminal before it deletes"),
    ("vm rename web", 2, "required arguments were not provided"),
    ("vm rename web Shop", 2, "`Shop` is not a VM name: only a-z, 0-9 and hyphens are allowed"),
    ("vm rename web -a", 2, "it must not begin or end with a hyphen"),
    ("vm rename web a b", 2, "unexpected argument `b`"),
    ("vm reset", 2, "required arguments were not provided"),
    ("vm list -q -v", 2, "cannot be used with"),
    ("vm list --filter team=web", 2, "the keys are label, name, image or state"),
    ("ps -f status=exited", 2, "`status` is not a filter: the keys are label, name"),
    ("ps --filter state", 2, "write KEY=VALUE with the key label, name, image or state"),
    ("ls --filter state=up", 2, "the states are stopped, starting, running"),
    ("vm list --filter name=A", 2, "`A` is not a name"),
    ("vm list --filter label=a_", 2, "it must begin and end with a letter or digit"),
    ("vm list --filter", 2, "a value is required"),
    ("vm frobnicate", 2, "unrecognized subcommand `frobnicate`"),
    ("image pull ../etc", 2, "[HOST/]REPOSITORY"),
    ("image import --name A file.tar", 2, "a name has a-z, 0-9"),
    ("kernel pull UPPER", 2, "a name has a-z, 0-9"),
    ("kernel delete", 2, "required arguments were not provided"),
    ("frobnicate", 2, "unrecognized subcommand `frobnicate`"),
    ("run --vcpus 0 -- true", 125, "0 vCPUs: a VM has 1 to 32"),
    ("run --memory 0G -- true", 125, "it must be more than zero"),
    ("run -p 80 -- true", 125, "write HOST:GUEST, such as 8080:80"),
    ("run -p 1:2 -p 0.0.0.0:1:3 -- true", 125, "`0.0.0.0:1` is published twice"),
    ("run --nope", 125, "unexpected argument `--nope`"),
    ("vm run --nope", 125, "unexpected argument `--nope`"),
    ("run --rm /usr", 125, "`/usr` is not in a git repository"),
    ("run -d -t", 125, "cannot be used with"),
    ("run -d -i", 125, "cannot be used with"),
    ("run", 125, "a shell needs a terminal or input, and this is neither"),
    ("run --rm", 125, "a shell needs a terminal or input, and this is neither"),
    ("run -t -- true", 125, "`-t` needs a terminal"),
    ("run --json", 125, "a shell cannot be shown as JSON"),
    ("run -t --json -- true", 125, "a terminal cannot be shown as JSON"),
    ("exec", 125, "required arguments were not provided"),
    ("exec web", 125, "required arguments were not provided"),
    ("exec web -e =x -- env", 125, "write NAME=VALUE"),
    ("run -e = -- env", 125, "write NAME=VALUE"),
    ("exec web -t -- true", 125, "`-t` needs a terminal"),
    ("vm exec web -t -- true", 125, "`-t` needs a terminal"),
    ("vm shell", 125, "required arguments were not provided"),
    ("vm shell web", 125, "a shell needs a terminal, and standard input is not one"),
    ("shell web", 125, "a shell needs a terminal, and standard input is not one"),
    ("shell", 125, "usage: `banger shell <VM>`; `banger shell --help` tells more"),
    ("vm create web", 2, "hint: use `--name web` to name the machine"),
    ("create web", 2, "hint: use `--name web` to name the machine"),
    ("vm create --nmae web", 2, "a similar argument exists: `--name`"),
    ("vm crate", 2, "some similar subcommands exist: `rename`, `create`"),
    ("vm lsit", 2, "some similar subcommands exist: `set`, `ls`, `list`"),
    ("satrt web", 2, "some similar subcommands exist: `stats`, `restart`, `start`"),
    ("imgae list", 2, "`image`"),
    ("ssh", 125, "required arguments were not provided"),
    ("vm ssh", 125, "required arguments were not provided"),
    ("ssh --json web", 125, "a session of ssh cannot be shown as JSON"),
    ("up", 2, "hint: `banger run` makes a machine with a shell in it"),
    ("vm stop --force web", 2, "usage: `banger vm stop [OPTIONS] <VM>...`"),
    ("stop", 2, "usage: `banger stop <VM>...`; `banger stop --help` tells more"),
    ("rm", 2, "required arguments were not provided: <VM>..."),
    ("logs", 2, "required arguments were not provided: <VM>"),
    ("help frobnicate", 2, "unrecognized subcommand `frobnicate`"),
    ("vm create extra --json", 2, "\"hint\":\"use `--name extra` to name the machine\""),
    ("--json frobnicate", 2, "unrecognized subcommand `frobnicate`"),
    ("vm stop --json", 2, "required arguments were not provided"),
    ("vm --json", 2, "a command is missing"),
    ("--json", 2, "a command is missing"),
    ("run --json --vcpus 0 true", 125, "0 vCPUs: a VM has 1 to 32"),
    ("exec --json web -X", 125, "unexpected argument `-X`"),
];

#[test]
fn bad_input_is_refused_before_a_daemon_is_started() {
    let home = home();
    for (line, code, words) in REFUSED {
        let refused = run(&home, line);
        assert_eq!((refused.code, refused.out.as_str()), (*code, ""), "{line}\n{}", refused.err);
        let begins = if line.contains("--json") { "{\"error\":" } else { "error: " };
        assert!(refused.err.starts_with(begins), "{line}\n{}", refused.err);
        assert!(refused.err.contains(words), "{line}\n{}", refused.err);
    }
    assert!(!home.path().join("run/bangerd.sock").exists(), "a daemon was started");
}

#[test]
fn usage_errors_are_errors_like_any_other() {
    let home = home();
    let text = "error: unexpected argument `web` found\n\
        hint: use `--name web` to name the machine\n";
    expect(&run(&home, "vm create web"), 2, "", text);
    let refused = run(&home, "--json vm create web");
    let json: serde_json::Value = serde_json::from_str(&refused.err).unwrap();
    let expected = serde_json::json!({ "error": {
        "code": "bad_request", "message": "unexpected argument `web` found",
        "hint": "use `--name web` to name the machine",
        "hints": [{"hint": "text", "text": "use `--name web` to name the machine"}],
    }});
    assert_eq!((refused.code, json), (2, expected));
    let odd = home.run(&["vm", "sh\u{1b}[8m\u{7}\u{9b}8mow"]);
    assert!(odd.err.starts_with("error: unrecognized subcommand `"), "{}", odd.err);
    assert!(!odd.err.contains(|c: char| c.is_control() && c != '\n'), "{:?}", odd.err);
}

#[test]
fn errors_of_the_daemon_have_exit_codes() {
    let home = home();
    run(&home, "vm create --name web");
    for (line, code, words) in [
        ("vm create --name web", 4, "there is a VM `web` already"),
        ("vm create --image nope", 3, "nope"),
        ("vm create --kernel nope", 3, "nope"),
        ("image show nope", 3, "there is no image `nope`"),
        ("image pull nope", 3, "nope"),
        ("kernel pull nope", 3, "nope"),
        ("vm show nope", 3, "there is no VM `nope`"),
        ("vm show ..", 3, "there is no VM `..`"),
        ("vm logs nope", 3, "there is no VM `nope`"),
        ("vm delete web", 4, "web"),
        ("exec nope -- true", 125, "there is no VM `nope`"),
        ("run --name web -- true", 125, "there is a VM `web` already"),
        ("run --image nope -- true", 125, "nope"),
    ] {
        let refused = run(&home, line);
        assert_eq!((refused.code, refused.out.as_str()), (code, ""), "{line}\n{}", refused.err);
        assert!(refused.err.contains(words), "{line}\n{}", refused.err);
    }
    let empty = home.run(&["vm", "show", ""]);
    assert_eq!(empty.code, 3, "{}", empty.err);
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn a_home_that_is_not_absolute_is_refused() {
    let home = home();
    let refused = home.command(&["vm", "list"]).env("BANGER_HOME", "here").output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.starts_with("error: `BANGER_HOME` is `here`, which is not absolute\nhint: "));
}
