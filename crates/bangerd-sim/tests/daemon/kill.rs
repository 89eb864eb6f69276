//! Kill loops: at every crash point of create, start, stop and delete the real program aborts, is
//! started again, and host and store are compared exactly.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use banger_api::vm::VmState;
use banger_engine::lists::{self, ListName};
use banger_engine::record::{Existence, VmRecord};
use serde_json::json;

use crate::support::{Daemon, Home};

/// SIGABRT.
const ABORTED: i32 = 6;
/// What a whole VM has on the simulated host.
const LASTING: [&str; 6] =
    ["folder", "identity", "opencode_password", "root", "vmm_home", "work_disk"];
/// What a running one has besides.
const RUNNING: [&str; 14] = [
    "agent",
    "attach",
    "dns_names",
    "forwarder",
    "forwards",
    "hello",
    "network",
    "opencode",
    "ready",
    "run",
    "scope",
    "shim",
    "vmm",
    "work_disk_size",
];
/// A VM that uses every capability.
const WEB: &str = r#"{"name": "web", "image": "localhost/debian-dev:1",
    "publish": [{"host_port": 8080, "guest_port": 80}]}"#;
/// The same, not started.
const STOPPED: &str = r#"{"name": "web", "image": "localhost/debian-dev:1",
    "publish": [{"host_port": 8080, "guest_port": 80}], "no_start": true}"#;
/// Longest wait for a crash point.
const REACHED: Duration = Duration::from_secs(20);
/// Daemons at the same time.
const WORKERS: usize = 4;

/// What a VM has come to in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Gone,
    Stopped,
    Running,
}

/// Points `list.step.when` of a whole list.
pub fn steps(list: ListName, when: &[&str]) -> Vec<String> {
    let point = |step: &lists::Step| {
        let step = format!("{}.{}", list.as_str(), step.id.as_str());
        when.iter().map(|when| format!("{step}.{when}")).collect::<Vec<String>>()
    };
    lists::all(list).iter().flat_map(point).collect()
}

/// Both points around a commit.
pub fn commit(name: &str) -> Vec<String> {
    vec![format!("{name}.before"), format!("{name}.after")]
}

/// Points of a create that starts, in order.
pub fn creating() -> Vec<String> {
    let mut points = steps(ListName::Create, &["before", "applied"]);
    points.extend(commit("create.commit"));
    points.extend(starting());
    points
}

/// Points of a start.
pub fn starting() -> Vec<String> {
    let mut points = commit("start.accept_commit");
    points.extend(steps(ListName::Start, &["before", "applied"]));
    points.extend(commit("start.commit"));
    points
}

/// Points of ending a run.
pub fn stopping() -> Vec<String> {
    let mut points = commit("start.end_commit");
    points.extend(tearing_down());
    points
}

/// Points of the one teardown.
pub fn tearing_down() -> Vec<String> {
    let mut points = steps(ListName::Start, &["undo_before", "undone"]);
    points.extend(commit("start.undo_commit"));
    points
}

/// Points of removing what a create made.
pub fn removing() -> Vec<String> {
    let mut points = steps(ListName::Create, &["undo_before", "undone"]);
    points.extend(commit("create.removed_commit"));
    points
}

/// Points of a delete of a stopped VM.
pub fn deleting() -> Vec<String> {
    let mut points = commit("create.delete_commit");
    points.extend(removing());
    points
}

/// Runs cases in parallel; reports every failure, not only the first.
pub fn for_each<T: Sync>(cases: &[T], workers: usize, check: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let run = std::panic::AssertUnwindSafe(|| check(case));
                    if let Err(panic) = std::panic::catch_unwind(run) {
                        let text = panic
                            .downcast_ref::<String>()
                            .cloned()
                            .or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
                        failures.lock().unwrap().push(text.unwrap_or_default());
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

/// Waits until the daemon has aborted at its point.
pub fn aborted(mut daemon: Daemon, point: &str) {
    let status = daemon.ended_within(REACHED).unwrap_or_else(|| panic!("`{point}` not reached"));
    assert_eq!(status.signal(), Some(ABORTED), "`{point}`: {status}");
}

/// Starts a daemon again, waits for the end of the VM, and compares everything.
pub fn recovered(home: &Home, end: End, case: &str) {
    let daemon = home.start();
    let state = match end {
        End::Gone => "gone",
        End::Stopped => "stopped",
        End::Running => "running",
    };
    daemon.wait_for("web", state);
    // The daemon completes begun operations before it exits, so the remaining objects are final.
    daemon.stop();
    compare(home, end, case);
    // And final it is: one more daemon finds nothing to do.
    let before = (home.world(), home.stored().vms);
    home.start().stop();
    assert_eq!((home.world(), home.stored().vms), before, "{case}: a third daemon changed it");
}

/// Host and store say the same, and exactly what they should.
pub fn compare(home: &Home, end: End, case: &str) {
    let world = home.world();
    let stored = home.stored();
    assert!(stored.open_ops.is_empty(), "{case}: {:?}", stored.open_ops);
    assert!(stored.unreadable.is_empty(), "{case}: {:?}", stored.unreadable);
    if end == End::Gone {
        assert_eq!(world.objects.keys().collect::<Vec<_>>(), Vec::<&String>::new(), "{case}");
        assert_eq!(stored.vms, Vec::<VmRecord>::new(), "{case}");
        return;
    }
    let [vm] = stored.vms.as_slice() else { panic!("{case}: {:?}", stored.vms) };
    assert_eq!(vm.existence, Existence::Created, "{case}");
    let mut expected: BTreeSet<&str> = LASTING.into();
    match (end, &vm.run) {
        (End::Running, Some(run)) => {
            assert_eq!(vm.state, VmState::Running, "{case}");
            expected.extend(RUNNING);
            let shim = run.shim.map(|shim| shim.start_time.to_string());
            assert_eq!(world.get("shim", &vm.plan.id), shim.as_deref(), "{case}");
            assert!(run.vmm_pid.is_some() && run.boot_id.is_some(), "{case}: {run:?}");
        }
        (End::Stopped, None) => assert_eq!(vm.state, VmState::Stopped, "{case}"),
        (_, run) => panic!("{case}: {:?} with {run:?}", vm.state),
    }
    let found: BTreeSet<&str> = world.of(&vm.plan.id).into_iter().collect();
    assert_eq!(found, expected, "{case}");
    assert_eq!(world.objects.len(), expected.len(), "{case}: something of nobody's");
}

/// A home with a VM in it, to be copied.
fn template(prepare: impl Fn(&Daemon)) -> Home {
    let home = Home::new();
    let daemon = home.start();
    prepare(&daemon);
    daemon.stop();
    home
}

/// The request of a test.
struct Request {
    path: &'static str,
    body: &'static str,
}

/// Aborts at every point while a request is carried out on copies of `home`.
fn kill_loop(
    home: PathBuf,
    request: &Request,
    points: &[String],
    end: impl Fn(&str) -> End + Sync,
) {
    for_each(points, WORKERS, |point| {
        let home = Home::like(&home);
        let daemon = home.start_doomed(point);
        daemon.post_to_doomed(request.path, request.body);
        aborted(daemon, point);
        recovered(&home, end(point), point);
    });
}

#[test]
fn create() {
    let request = Request { path: "/v1/vms", body: WEB };
    let home = template(|_| ());
    kill_loop(home.path().into(), &request, &creating(), |point| match point {
        "create.commit.after" => End::Stopped,
        "start.commit.after" => End::Running,
        point if point.starts_with("create.") => End::Gone,
        _ => End::Stopped,
    });
}

#[test]
fn start() {
    let request = Request { path: "/v1/vms/web/actions", body: r#"{"start": {}}"# };
    let home = template(|daemon| {
        daemon.done("/v1/vms", STOPPED);
    });
    kill_loop(home.path().into(), &request, &starting(), |point| match point {
        "start.commit.after" => End::Running,
        _ => End::Stopped,
    });
}

#[test]
fn stop_and_kill() {
    let home = template(|daemon| {
        daemon.done("/v1/vms", WEB);
    });
    for body in [r#"{"stop": {}}"#, r#"{"kill": {}}"#] {
        let request = Request { path: "/v1/vms/web/actions", body };
        kill_loop(home.path().into(), &request, &stopping(), |point| match point {
            "start.end_commit.before" => End::Running,
            _ => End::Stopped,
        });
    }
}

#[test]
fn restart() {
    let request = Request { path: "/v1/vms/web/actions", body: r#"{"restart": {}}"# };
    let home = template(|daemon| {
        daemon.done("/v1/vms", WEB);
    });
    let mut points = stopping();
    points.extend(starting());
    kill_loop(home.path().into(), &request, &points, |point| match point {
        "start.end_commit.before" | "start.commit.after" => End::Running,
        _ => End::Stopped,
    });
}

#[test]
fn delete() {
    let request = Request { path: "/v1/vms/web/actions", body: r#"{"delete": {}}"# };
    let home = template(|daemon| {
        daemon.done("/v1/vms", STOPPED);
    });
    kill_loop(home.path().into(), &request, &deleting(), |point| match point {
        "create.delete_commit.before" => End::Stopped,
        _ => End::Gone,
    });
}

#[test]
fn delete_of_a_running_vm() {
    let request = Request { path: "/v1/vms/web/actions", body: r#"{"delete": {"force": true}}"# };
    let home = template(|daemon| {
        daemon.done("/v1/vms", WEB);
    });
    let mut points = stopping();
    points.extend(deleting());
    // Until the delete is on record only the stop is, and only that is finished.
    kill_loop(home.path().into(), &request, &points, |point| match point {
        "start.end_commit.before" => End::Running,
        "create.delete_commit.before" => End::Stopped,
        point if point.starts_with("start.") => End::Stopped,
        _ => End::Gone,
    });
}

/// The daemon that undoes what the first one left is killed too.
fn kill_twice(first: &str, second: &[String], end: impl Fn(&str) -> End + Sync) {
    let home = template(|_| ());
    let daemon = home.start_doomed(first);
    daemon.post_to_doomed("/v1/vms", WEB);
    aborted(daemon, first);
    for_each(second, WORKERS, |point| {
        let home = Home::like(home.path());
        aborted(home.start_doomed(point), point);
        recovered(&home, end(point), &format!("{first}, then {point}"));
    });
}

#[test]
fn while_a_create_is_undone() {
    kill_twice("create.identity.applied", &removing(), |_| End::Gone);
}

#[test]
fn while_a_start_is_undone() {
    kill_twice("start.ready.applied", &tearing_down(), |_| End::Stopped);
}

/// Undoing within the daemon that failed, not by the next one.
#[test]
fn while_a_failed_create_is_undone() {
    let home = template(|_| ());
    let cases = [
        ("opencode_password:after:1", removing(), End::Gone),
        ("opencode:after:1", tearing_down(), End::Stopped),
    ];
    for (fault, points, end) in cases {
        for_each(&points, WORKERS, |point| {
            let home = Home::like(home.path());
            let daemon = home.start_doomed_with(point, &[("BANGER_SIM_FAULTS", fault)]);
            daemon.post_to_doomed("/v1/vms", WEB);
            aborted(daemon, point);
            recovered(&home, end, &format!("{fault}, then {point}"));
        });
    }
}

#[test]
fn while_it_is_repaired_or_deleted_broken() {
    let home = Home::new();
    let daemon = home.start_with(&[("BANGER_SIM_FAULTS", "ready:after:1,undo run:before:1")]);
    daemon.post("/v1/vms", WEB).ok();
    daemon.wait_for("web", "broken");
    daemon.stop();
    let path = "/v1/vms/web/actions";
    let body = r#"{"repair": {}}"#;
    for_each(&tearing_down(), WORKERS, |point| {
        let home = Home::like(home.path());
        let daemon = home.start_doomed(point);
        daemon.post_to_doomed(path, body);
        aborted(daemon, point);
        // A broken VM changes only by request, so the request is repeated.
        let daemon = home.start();
        daemon.done(path, body);
        daemon.stop();
        compare(&home, End::Stopped, point);
    });
    let body = r#"{"delete": {"force": true}}"#;
    let points = [steps(ListName::Start, &["undo_before", "undone"]), deleting()].concat();
    for_each(&points, WORKERS, |point| {
        let home = Home::like(home.path());
        let daemon = home.start_doomed(point);
        daemon.post_to_doomed(path, body);
        aborted(daemon, point);
        let daemon = home.start();
        let again = daemon.post(path, body);
        assert!(again.status < 300 || again.status == 404, "{point}: {again:?}");
        daemon.wait_for("web", "gone");
        daemon.stop();
        compare(&home, End::Gone, point);
    });
}

#[test]
fn the_loops_cover_the_crash_points_of_a_whole_life() {
    let home = Home::new();
    let log = home.file("points");
    let logged = [("BANGER_POINTS_LOG", log.to_str().unwrap())];
    let daemon = home.start_doomed_with("none", &logged);
    daemon.done("/v1/vms", WEB);
    for action in ["stop", "start", "kill", "delete"] {
        daemon.done("/v1/vms/web/actions", &json!({ action: {} }).to_string());
    }
    daemon.stop();
    let log = std::fs::read_to_string(log).unwrap();
    let reached: BTreeSet<&str> = log.lines().collect();
    let known = [creating(), stopping(), deleting()].concat();
    let known: BTreeSet<&str> = known.iter().map(String::as_str).collect();
    assert_eq!(reached, known);
}
