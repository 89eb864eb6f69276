//! The same crash points with as few boots as there can be, for guests whose boot is slow: one VM
//! for all points of its start, and one run of it for all points of its stop, where each daemon
//! aborts in the recovery from the abort before. That each recovery is complete by itself is seen
//! with guests that answer at once.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use banger_engine::lists::ListName;
use banger_testkit::Home;

use super::{
    After, crash_and_recover, create, delete, delete_points, forward, has_aborted, is_stopped,
    points, publish,
};

/// Kills the daemon after each step of create, start, stop and delete; `check` looks at the host
/// afterwards, beside what is looked at here.
///
/// # Panics
/// Host and store do not agree.
pub fn through_all_points_with_few_boots(home: &Home, check: impl Fn(&str, After)) {
    let publish = publish();
    let create = create(&publish);
    let stopped = [&create[..], &["--no-start"]].concat();
    let (of_create, of_start): (Vec<_>, Vec<_>) =
        forward().into_iter().partition(|(point, _)| point.starts_with("create."));
    for (point, after) in of_create {
        crash_and_recover(home, &point, after, &stopped, &check);
        if after == After::Stopped {
            home.ok(&["vm", "delete", "web"]);
        }
        assert_eq!(fs::read_dir(home.path().join("state/vms")).unwrap().count(), 0, "{point}");
    }
    home.ok(&stopped);
    // Before a step is after the one before it, but for the commit.
    let tried = |point: &str| point == "start.commit.before" || !point.ends_with(".before");
    for (point, after) in of_start.into_iter().filter(|(point, _)| tried(point)) {
        crash_and_recover(home, &point, after, &["vm", "start", "web"], &check);
    }
    // The last of them left it running.
    assert_eq!(home.run(&["exec", "web", "--", "true"]).code, 0);
    stop(home, &check);
    home.ok(&["vm", "delete", "web"]);
    delete(home, &create, delete_points(), &check);
}

/// Stops the VM that runs: the first daemon aborts in the stop, the next ones each at a later point
/// of its completion.
fn stop(home: &Home, check: &impl Fn(&str, After)) {
    home.run(&["daemon", "stop"]);
    let mut steps = points(ListName::Start, &["undone", "undo_before"]);
    steps.reverse();
    steps.extend(["start.undo_commit.before".into(), "start.undo_commit.after".into()]);
    for (index, point) in steps.iter().enumerate() {
        println!("{point}");
        let mut daemon = match index {
            0 => {
                let daemon = home.start_daemon_that_aborts_at(point);
                kill_the_vm(home);
                daemon
            }
            _ => home.start_daemon_that_aborts_in_recovery(point),
        };
        has_aborted(home, &mut daemon, point);
    }
    is_stopped(home, "stop");
    check("stop", After::Stopped);
}

/// Asks for the end of the VM over a connection of our own: a client of banger would start the next
/// daemon.
fn kill_the_vm(home: &Home) {
    let mut socket = UnixStream::connect(home.path().join("run/bangerd.sock")).unwrap();
    let body = r#"{"kill": {}}"#;
    let head = "POST /v1/vms/web/actions HTTP/1.1\r\nhost: banger\r\nconnection: close\r\n\
        content-type: application/json";
    write!(socket, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    // The daemon may be gone before its answer has left.
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 202 "), "{answer:?}");
}
