//! The daemon aborts before and after every recorded step of create, start, stop and delete. The
//! next one brings host and store together again, and the VM works.

#![expect(clippy::unwrap_used, reason = "for tests only")]

mod few_boots;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;

use banger_engine::lists::{self, ListName};
use banger_testkit::Home;

pub use few_boots::through_all_points_with_few_boots;

/// A published port, below those that the kernel gives away, of this process only: two of these
/// tests run at once.
fn publish() -> String {
    format!("{}:80", 20_000 + std::process::id() % 10_000)
}

/// Makes the VM: with everything that takes part in its lists.
fn create(publish: &str) -> [&str; 6] {
    ["vm", "create", "--name", "web", "-p", publish]
}

/// What is true when the daemon has aborted there and another has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The VM never existed, or does not any more.
    Gone,
    /// It exists and does not run.
    Stopped,
    /// It runs.
    Running,
}

/// Steps of images with opencode, which the image of these VMs has not. The loops on the simulated
/// host have them.
const OF_OPENCODE: [&str; 2] = ["opencode_password", "opencode"];

impl After {
    fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Stopped => "stopped",
            Self::Running => "running",
        }
    }
}

fn points(list: ListName, whens: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for step in lists::all(list) {
        if OF_OPENCODE.contains(&step.id.as_str()) {
            continue;
        }
        let step = format!("{}.{}", list.as_str(), step.id.as_str());
        all.extend(whens.iter().map(|when| format!("{step}.{when}")));
    }
    all
}

/// Crash points of a forward list, with what each leads to.
fn forward() -> Vec<(String, After)> {
    let mut all: Vec<(String, After)> = points(ListName::Create, &["before", "applied"])
        .into_iter()
        .map(|point| (point, After::Gone))
        .collect();
    all.push(("create.commit.before".into(), After::Gone));
    all.push(("create.commit.after".into(), After::Stopped));
    let start = points(ListName::Start, &["before", "applied"]);
    all.extend(start.into_iter().map(|point| (point, After::Stopped)));
    all.push(("start.commit.before".into(), After::Stopped));
    all.push(("start.commit.after".into(), After::Running));
    all
}

fn stop_points() -> Vec<String> {
    let mut all = points(ListName::Start, &["undo_before", "undone"]);
    all.extend(["start.undo_commit.before".into(), "start.undo_commit.after".into()]);
    all
}

fn delete_points() -> Vec<String> {
    let mut all = vec!["create.delete_commit.before".into(), "create.delete_commit.after".into()];
    all.extend(points(ListName::Create, &["undo_before", "undone"]));
    all.extend(["create.removed_commit.before".into(), "create.removed_commit.after".into()]);
    all
}

/// Nothing but the daemon is left of a home's processes.
///
/// # Panics
/// Something is.
pub fn no_vm_processes(home: &Home, point: &str) {
    let others: Vec<String> =
        home.processes().into_iter().filter(|line| !line.contains("bangerd")).collect();
    assert!(others.is_empty(), "{point}: {others:#?}");
}

/// Runs a command against a daemon that aborts at `point`, and sees that it did.
fn crash(home: &Home, point: &str, args: &[&str]) {
    home.run(&["daemon", "stop"]);
    let mut daemon = home.start_daemon_that_aborts_at(point);
    home.run(args);
    has_aborted(home, &mut daemon, point);
}

/// Waits until a daemon has aborted.
fn has_aborted(home: &Home, daemon: &mut Child, point: &str) {
    let mut ended = None;
    home.wait(&format!("an abort at {point}"), || {
        ended = daemon.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.and_then(|status| status.signal()), Some(6), "{point} was not reached");
}

/// The request meets a daemon that aborts at the point, and the next daemon brings all to the state
/// that is expected.
fn crash_and_recover(
    home: &Home,
    point: &str,
    after: After,
    request: &[&str],
    check: &impl Fn(&str, After),
) {
    println!("{point}: {after:?}");
    crash(home, point, request);
    home.wait(&format!("{point}: {after:?}"), || home.state("web") == after.as_str());
    if after != After::Running {
        no_vm_processes(home, point);
    }
    check(point, after);
}

/// Waits until the VM is stopped; nothing of its run is left.
fn is_stopped(home: &Home, point: &str) {
    home.wait(&format!("{point}: stopped"), || home.state("web") == "stopped");
    no_vm_processes(home, point);
    let vms = home.path().join("state/vms");
    let vm = fs::read_dir(vms).unwrap().next().unwrap().unwrap().path();
    assert!(!vm.join("run").exists(), "{point}: the run folder is left");
}

/// Kills the daemon at every point of create, start, stop and delete; `check` looks at the host
/// afterwards, beside what is looked at here. About a hundred boots.
///
/// # Panics
/// Host and store do not agree.
pub fn through_all_points(home: &Home, check: impl Fn(&str, After)) {
    let publish = publish();
    let create = create(&publish);
    for (point, after) in forward() {
        crash_and_recover(home, &point, after, &create, &check);
        if after != After::Gone {
            home.ok(&["vm", "start", "web"]);
            home.ok(&["vm", "delete", "-f", "web"]);
        }
        assert_eq!(fs::read_dir(home.path().join("state/vms")).unwrap().count(), 0, "{point}");
    }
    home.ok(&[&create[..], &["--no-start"]].concat());
    for point in stop_points() {
        println!("{point}");
        home.ok(&["vm", "start", "web"]);
        crash(home, &point, &["vm", "kill", "web"]);
        is_stopped(home, &point);
        check(&point, After::Stopped);
    }
    home.ok(&["vm", "delete", "web"]);
    delete(home, &create, delete_points(), &check);
}

/// Makes the VM and deletes it, with a daemon that aborts, for each point.
fn delete(home: &Home, create: &[&str], points: Vec<String>, check: &impl Fn(&str, After)) {
    for point in points {
        home.ok(&[create, &["--no-start"]].concat());
        crash(home, &point, &["vm", "delete", "web"]);
        // Before the commit nothing has happened, unless the CLI lost its request with the daemon
        // and asked the next one; after it the delete is finished.
        if point == "create.delete_commit.before" && home.state("web") != "gone" {
            assert_eq!(home.state("web"), "stopped");
            home.ok(&["vm", "delete", "web"]);
        }
        home.wait(&format!("{point}: gone"), || home.state("web") == "gone");
        check(&point, After::Gone);
        assert_eq!(fs::read_dir(home.path().join("state/vms")).unwrap().count(), 0, "{point}");
    }
}
