//! The live smoke: create, agent, names, NAT, stop and start, delete, nothing left; with evidence.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use banger_testkit::Home;
use serde_json::{Value, json};

use crate::jail::check_jail;
use crate::support::{Outside, finish, host, id, inside, out, shell, show, whole};

fn json_of(script: &str) -> Value {
    let text = shell(script);
    serde_json::from_str(&text).unwrap_or(json!(text))
}

fn done(stage: &str) {
    println!("[verify] {stage}");
}

fn unix_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// A pause outlives the daemon, and a resume sets the guest's clock.
fn pause_and_resume(home: &Home) {
    home.ok(&["vm", "pause", "web"]);
    assert_eq!(home.state("web"), "paused");
    let refused = home.run(&["exec", "web", "--", "true"]);
    assert!(refused.code == 125 && refused.err.contains("is paused"), "{}", refused.err);
    home.kill_daemon();
    assert_eq!(home.state("web"), "paused");
    // Longer than a command takes here, so that a clock that was not set is before its start.
    std::thread::sleep(Duration::from_secs(10));
    home.ok(&["vm", "resume", "web"]);
    let earliest = unix_ms();
    let guest: u128 = inside(home, "web", "date +%s%3N").parse().unwrap();
    assert!((earliest - 50..=unix_ms() + 50).contains(&guest), "{guest} after {earliest}");
}

#[test]
fn verify_from_create_to_nothing_left() {
    let before = host();
    let home = whole("");
    let outside = Outside::new();
    home.ok(&["vm", "create", "--name", "web"]);
    done("create");
    let health = home.json(&["vm", "health", "web"]);
    assert_eq!(health[0]["agent"], "ok", "{health}");
    done("agent");
    let ip = show(&home, "web")["ip"].as_str().unwrap().to_owned();
    let resolved = shell("resolvectl query web.vm");
    assert!(resolved.contains(&ip), "{resolved}");
    done("names");
    assert_eq!(inside(&home, "web", "curl -s http://198.51.100.1/"), "outside");
    done("nat");
    pause_and_resume(&home);
    done("pause and resume");
    inside(&home, "web", "echo kept >/root/kept");
    home.wait_booted("web");
    home.ok(&["vm", "stop", "--timeout", "120", "web"]);
    let because = show(&home, "web")["stopped_because"].clone();
    assert_eq!(because["how"], "graceful", "{because}");
    home.ok(&["vm", "start", "web"]);
    assert_eq!(inside(&home, "web", "cat /root/kept"), "kept");
    done("stop and start");
    let (_, proc) = check_jail(&home, "web");
    let vm = id(&home, "web");
    let root = format!("banger-{vm}-root");
    let evidence = json!({
        "vm": show(&home, "web"),
        "proc": proc,
        "dmsetup": shell(&format!("dmsetup table {root}; dmsetup status {root}")),
        "losetup": json_of("losetup -J"),
        "nft": json_of("nft -j list ruleset"),
        "resolvectl": {
            "query": resolved,
            "dns": shell("resolvectl dns br-fc"),
            "domain": shell("resolvectl domain br-fc"),
        },
        "links": json_of("ip -j -d link"),
    });
    std::fs::write(out("evidence.json"), format!("{evidence:#}\n")).unwrap();
    done("evidence");
    home.ok(&["vm", "delete", "-f", "web"]);
    drop(outside);
    finish(home, &before);
    done("delete, nothing left");
}
