//! What a lost VM leaves on the host, and its removal by `doctor --fix`.

use std::fs;
use std::net::TcpStream;

use banger_testkit::{kill, wait_gone};
use serde_json::Value;

use crate::{World, id, in_namespace};

/// The database is lost with a running VM; a VM of another home runs meanwhile.
#[test]
fn doctor_removes_what_a_lost_vm_has_left_and_nothing_else() {
    in_namespace("leftovers::doctor_removes_what_a_lost_vm_has_left_and_nothing_else", || {
        let world = World::new("good");
        let (home, other) = (&world.home, world.another_home());
        home.ok(&["vm", "create", "--name", "web", "-p", "18443:443"]);
        other.ok(&["vm", "create", "--name", "db"]);
        let (web, db) = (world.show("web"), other.json(&["vm", "show", "db"]));
        let pid = u32::try_from(web["pid"].as_u64().unwrap()).unwrap();
        let (web, db) = (id(&web), id(&db));
        world.has_all_parts(&db);
        home.ok(&["daemon", "stop"]);
        let state = home.path().join("state");
        for name in ["banger.db", "banger.db-wal", "banger.db-shm"] {
            let _ = fs::remove_file(state.join(name));
        }
        let findings = || {
            let checks: Value = serde_json::from_str(&home.run(&["doctor", "--json"]).out).unwrap();
            let found = checks.as_array().unwrap().iter();
            let found = found.filter(|check| check["code"] == "leftover.vm");
            found.map(|check| check["seen"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let fix = || home.run(&["doctor", "--fix", "--force"]);

        let listens = || TcpStream::connect(("127.0.0.1", 18443)).is_ok();

        // It runs: nothing is removed.
        let seen = findings();
        assert!(seen.len() == 1 && seen[0].contains("it runs as process"), "{seen:?}");
        fix();
        world.has_all_parts(&web);

        // It has disks: nothing is removed.
        kill(pid, "KILL");
        wait_gone(pid);
        home.wait("the shim of the lost VM", || !findings().concat().contains("it runs"));
        fix();
        world.has_all_parts(&web);

        let folder = state.join("vms").join(&web);
        for disk in ["root.ext4", "work.ext4"] {
            let _ = fs::remove_file(folder.join(disk));
        }
        assert!(listens(), "the forwarding process does not outlive the database");
        let fixed = fix();
        assert!(fixed.out.contains("that forwards published ports"), "{}", fixed.out);
        assert!(!listens(), "{}", fixed.out);
        assert!(fixed.out.contains(&format!("TAP `fc-{web}`")), "{}\n{}", fixed.out, fixed.err);
        assert_eq!(findings(), Vec::<String>::new(), "{}", fixed.out);
        assert_eq!(world.parts(&web), Vec::<String>::new());
        assert!(!folder.exists() && !world.root.path().join("state/vms").join(&web).exists());
        let again = fix();
        assert!(again.err.contains("no leftovers"), "{}", again.err);

        world.has_all_parts(&db);
        other.ok(&["vm", "health", "db"]);
        other.ok(&["vm", "delete", "-f", "db"]);
        other.finish();
        world.finish(&[web, db]);
    });
}
