//! Daemon and helper die at every point; then host and store agree exactly.

use banger_testkit::Home;
use tests_vm::crash::{After, through_all_points_with_few_boots};

use crate::support::{finish, has_all_parts, home, host, id, inside, is_stopped, shell, show};
use crate::users::User;

#[test]
fn kill_the_daemon_at_every_point() {
    let before = host();
    let home = home("");
    through_all_points_with_few_boots(&home, |point, after| match after {
        After::Gone => assert_eq!(host(), before, "{point}"),
        After::Stopped => is_stopped(&id(&home, "web")),
        After::Running => has_all_parts(&id(&home, "web")),
    });
    finish(home, &before);
}

/// Whether the host has exactly the objects of the VM's state, whatever the result of the request.
fn host_and_store_agree(home: &Home, before: &str, point: &str) {
    match home.state("web").as_str() {
        "gone" => assert_eq!(host(), before, "{point}"),
        "stopped" => is_stopped(&id(home, "web")),
        "running" => {
            has_all_parts(&id(home, "web"));
            assert_eq!(inside(home, "web", "echo here"), "here", "{point}");
        }
        other => panic!("{point}: {other}"),
    }
}

#[test]
fn kill_the_helper_at_every_request() {
    let user = User::new();
    let before = host();
    let home = user.home();
    let up = [
        "make",
        "snapshot_attach",
        "net_attach",
        "jail_make",
        "spawn",
        "launch",
        "connect",
        "close_hello",
    ];
    let points = |names: &[&str]| -> Vec<String> {
        names
            .iter()
            .flat_map(|name| ["before", "after"].map(|when| format!("{name}.{when}")))
            .collect()
    };
    // An abort before a request differs from one after the previous request only at a gate.
    let before_too = ["spawn.before", "launch.before"];
    let tried = |point: &String| point.ends_with(".after") || before_too.contains(&point.as_str());
    for point in points(&up).into_iter().filter(tried) {
        println!("{point}");
        user.abort_helper_at(&point);
        home.run(&["vm", "create", "--name", "web"]);
        assert!(user.helper_aborted(), "{point}");
        host_and_store_agree(&home, &before, &point);
        if home.state("web") != "gone" {
            home.ok(&["vm", "delete", "-f", "web"]);
        }
        assert_eq!(host(), before, "{point}");
    }
    home.ok(&["vm", "create", "--name", "web", "--no-start"]);
    home.ok(&["vm", "create", "--name", "other"]);
    let other = show(&home, "other")["boot_id"].clone();
    let down = points(&["end", "jail_clear", "net_detach", "snapshot_detach"]);
    for point in down.into_iter().filter(tried) {
        println!("{point}");
        home.ok(&["vm", "start", "web"]);
        user.abort_helper_at(&point);
        home.run(&["vm", "kill", "web"]);
        assert!(user.helper_aborted(), "{point}");
        if home.state("web") == "broken" {
            home.ok(&["vm", "repair", "web"]);
        }
        assert_eq!(home.state("web"), "stopped", "{point}");
        is_stopped(&id(&home, "web"));
        // The VM beside it runs on.
        assert_eq!(show(&home, "other")["boot_id"], other, "{point}");
        assert_eq!(inside(&home, "other", "echo here"), "here", "{point}");
    }
    for point in points(&["remove"]) {
        user.abort_helper_at(&point);
        home.run(&["vm", "delete", "-f", "web"]);
        assert!(user.helper_aborted(), "{point}");
        if home.state("web") != "gone" {
            home.ok(&["vm", "delete", "-f", "web"]);
        }
        home.ok(&["vm", "create", "--name", "web", "--no-start"]);
    }
    // Killed between requests, and restarted as a service.
    shell(
        "systemctl kill --kill-who=main -s KILL banger-root.service || true
         systemctl restart banger-root.socket",
    );
    assert_eq!(inside(&home, "other", "echo here"), "here");
    assert_eq!(show(&home, "other")["boot_id"], other);
    home.ok(&["vm", "delete", "-f", "web", "other"]);
    finish(home, &before);
    drop(user);
}
