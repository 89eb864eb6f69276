//! The kill loops once more for VMs that are to live no longer than a session or a run: whatever is
//! killed, daemon and client, nothing is left.

use banger_engine::create::HOLDER_GRACE;

use crate::kill::{End, aborted, creating, deleting, for_each, recovered, stopping};
use crate::session;
use crate::support::Home;

/// Most of them only wait for a session that nobody takes up.
const WORKERS: usize = 12;
const CREATE: &str = r#"{"name": "web", "lifetime": "session",
    "image": "localhost/debian-dev:1",
    "publish": [{"host_port": 8080, "guest_port": 80}]}"#;
const DETACHED: &str = r#"{"name": "web", "lifetime": "until_stopped",
    "image": "localhost/debian-dev:1",
    "publish": [{"host_port": 8080, "guest_port": 80}]}"#;

#[test]
fn client_and_daemon_are_killed_during_create() {
    for_each(&creating(), WORKERS, |point| {
        let home = Home::new();
        let daemon = home.start_doomed(point);
        daemon.post_to_doomed("/v1/vms", CREATE);
        aborted(daemon, point);
        recovered(&home, End::Gone, point);
    });
}

#[test]
fn client_and_daemon_are_killed_while_it_ends() {
    let template = Home::new();
    let daemon = template.start();
    daemon.done("/v1/vms", CREATE);
    let held = session::hold(&daemon, "web");
    daemon.kill();
    drop(held);
    let points = [stopping(), deleting()].concat();
    for_each(&points, WORKERS, |point| {
        let home = Home::like(template.path());
        let daemon = home.start_doomed(point);
        // Letting go begins the end; so does the daemon itself when nobody came.
        drop(session::hold(&daemon, "web"));
        aborted(daemon, point);
        recovered(&home, End::Gone, point);
    });
}

/// `--rm --detach`: nobody holds it, it goes when it stops.
#[test]
fn a_detached_one_is_killed_during_create() {
    for_each(&creating(), WORKERS, |point| {
        let home = Home::new();
        let daemon = home.start_doomed(point);
        daemon.post_to_doomed("/v1/vms", DETACHED);
        aborted(daemon, point);
        let end = match point.as_str() {
            "start.commit.after" => End::Running,
            _ => End::Gone,
        };
        recovered(&home, end, point);
    });
}

#[test]
fn a_detached_one_is_killed_while_it_ends() {
    let template = Home::new();
    let daemon = template.start();
    daemon.done("/v1/vms", DETACHED);
    daemon.stop();
    let points = [stopping(), deleting()].concat();
    for_each(&points, WORKERS, |point| {
        let home = Home::like(template.path());
        let daemon = home.start_doomed(point);
        daemon.post_to_doomed("/v1/vms/web/actions", r#"{"stop": {}}"#);
        aborted(daemon, point);
        let end = match point.as_str() {
            "start.end_commit.before" => End::Running,
            _ => End::Gone,
        };
        recovered(&home, end, point);
    });
}

#[test]
fn client_and_daemon_are_killed_while_it_runs() {
    let home = Home::new();
    let daemon = home.start();
    daemon.done("/v1/vms", CREATE);
    let held = session::hold(&daemon, "web");
    daemon.kill();
    drop(held);
    let begun = std::time::Instant::now();
    recovered(&home, End::Gone, "running");
    assert!(begun.elapsed() >= HOLDER_GRACE, "its session could have come back");
}

#[test]
fn the_client_is_killed() {
    let home = Home::new();
    let daemon = home.start();
    daemon.done("/v1/vms", CREATE);
    drop(session::hold(&daemon, "web"));
    daemon.wait_for("web", "gone");
    // Also one that never came back to hold it.
    daemon.done("/v1/vms", CREATE);
    daemon.wait_for("web", "gone");
    daemon.stop();
    crate::kill::compare(&home, End::Gone, "client");
}
