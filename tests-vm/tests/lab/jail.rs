//! What of the host a VMM sees, from `/proc`.

use std::fs;
use std::path::Path;

use banger_testkit::Home;
use serde_json::{Value, json};

use crate::support::{finish, home, host, pid, shell, show};

fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let prefix = format!("{field}:");
    let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
    line.unwrap().trim().to_owned()
}

fn namespace(pid: u32, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string()
}

/// Checks the jail of a running VMM; returns its uid and what was seen.
pub fn check_jail(home: &Home, vm: &str) -> (u32, Value) {
    let pid = pid(home, vm);
    let own = std::process::id();
    let id = show(home, vm)["id"].as_str().unwrap().to_owned();
    let uids = status(pid, "Uid");
    let uid: u32 = uids.split_whitespace().next().unwrap().parse().unwrap();
    assert!(uids.split_whitespace().all(|one| one == uid.to_string()), "{uids}");
    assert_ne!(uid, 0);
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let text = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let filtered = text.lines().any(|line| line.replace('\t', " ") == "Seccomp: 2");
        assert!(filtered, "a thread without seccomp:\n{text}");
    }
    assert_eq!(status(pid, "CapEff"), "0000000000000000");
    let root = format!("/proc/{pid}/root");
    let (inside, outside) = (fs::metadata(&root).unwrap(), fs::metadata("/").unwrap());
    use std::os::unix::fs::MetadataExt;
    assert_ne!((inside.dev(), inside.ino()), (outside.dev(), outside.ino()));
    assert!(!Path::new(&root).join("etc").exists());
    let mut namespaces = serde_json::Map::new();
    for kind in ["pid", "mnt"] {
        let theirs = namespace(pid, kind);
        assert_ne!(theirs, namespace(own, kind), "{kind}");
        namespaces.insert(kind.to_owned(), json!(theirs));
    }
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(cgroup.trim(), format!("0::/banger/{id}"));
    let limit = |name: &str| {
        let text = fs::read_to_string(format!("/sys/fs/cgroup/banger/{id}/{name}")).unwrap();
        text.trim().parse::<u64>().unwrap()
    };
    let (memory, pids) = (limit("memory.max"), limit("pids.max"));
    assert!((256 << 20..1 << 30).contains(&memory) && pids < 64, "{memory} {pids}");
    let seen = json!({
        "pid": pid, "uid": uid, "seccomp": "in every thread", "cap_eff": 0,
        "root": fs::read_dir(&root).unwrap().flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>(),
        "namespaces": namespaces, "cgroup": cgroup.trim(),
        "memory_max": memory, "pids_max": pids,
    });
    (uid, seen)
}

#[test]
fn jail_every_vmm_has_one_of_its_own() {
    let before = host();
    let home = home("");
    home.ok(&["vm", "create", "--name", "one"]);
    home.ok(&["vm", "create", "--name", "two"]);
    let (first, _) = check_jail(&home, "one");
    let (second, _) = check_jail(&home, "two");
    assert_ne!(first, second);
    // What a VM was made from stays its owner's.
    let owners = shell("find /cache/data -printf '%u\\n' | sort -u");
    assert_eq!(owners, "root");
    home.ok(&["vm", "delete", "-f", "one", "two"]);
    finish(home, &before);
}
