//! Following operations: Ctrl-C, lost connections, forgotten operations, malformed answers.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, mpsc};

use banger_testkit::{Run, kill};
use serde_json::json;

use crate::fake_daemon::{
    FakeDaemon, OPERATION, VM, accepted, begin_events, event, missing, reply,
};
use crate::support::expect;

/// A create that continues until it is cancelled, and then ends or not.
fn endless(ends: bool) -> (FakeDaemon, mpsc::Receiver<&'static str>) {
    let (events, received) = mpsc::channel();
    let cancelled = (Mutex::new(false), Condvar::new());
    let daemon = FakeDaemon::new(move |request, stream| match request.line.as_str() {
        "POST /v1/vms" => reply(stream, 202, &accepted()),
        "GET /v1/operations/op-abc123/events" => {
            begin_events(stream);
            event(stream, 1, 0, json!({"event": "stage_started", "stage": "boot"}));
            events.send("following").unwrap();
            // The CLI may reconnect after Ctrl-C, so the flag stays set.
            drop(cancelled.1.wait_while(cancelled.0.lock().unwrap(), |yes| !*yes).unwrap());
            if !ends {
                // The CLI shows it once it has the answer to its cancel request.
                event(stream, 2, 1, json!({"event": "note", "text": "undoing"}));
                std::thread::park();
            }
            let error = json!({"code": "cancelled", "message": "create of `web` was cancelled"});
            event(stream, 2, 5, json!({"event": "failed", "error": error}));
        }
        "POST /v1/operations/op-abc123/cancel" => {
            let answer =
                json!({"operation": OPERATION, "effect": "cancelling", "state": "running"});
            reply(stream, 202, &answer);
            *cancelled.0.lock().unwrap() = true;
            cancelled.1.notify_all();
        }
        "POST /v1/vms/aaaa00000001/actions" => {
            events.send("delete").unwrap();
            reply(stream, 404, &missing());
        }
        _ => reply(stream, 404, &missing()),
    });
    (daemon, received)
}

fn wait(received: &mpsc::Receiver<&'static str>, wanted: &str) {
    assert!(received.iter().any(|event| event == wanted));
}

#[test]
fn the_first_ctrl_c_cancels_and_waits() {
    for (line, code) in [("vm create", 1), ("run -- true", 130)] {
        let (daemon, received) = endless(true);
        let child = daemon.spawn(line);
        wait(&received, "following");
        kill(child.id(), "INT");
        let run: Run = child.wait_with_output().unwrap().into();
        let expected = "web: cancelling; press Ctrl-C again to stop waiting\n\
            error: create of `web` was cancelled\n(OP)\n";
        expect(&run, code, "", expected);
        wait(&received, "delete");
    }
}

#[test]
fn the_second_ctrl_c_ends_the_wait() {
    let (daemon, received) = endless(false);
    let mut child = daemon.spawn("vm create");
    wait(&received, "following");
    kill(child.id(), "INT");
    let cancelling = "web: cancelling; press Ctrl-C again to stop waiting\n";
    assert_eq!(next_line(&mut child), cancelling);
    assert_eq!(next_line(&mut child), "web: undoing\n");
    kill(child.id(), "INT");
    let run: Run = child.wait_with_output().unwrap().into();
    let expected = "web: stopped waiting; the daemon completes the cancellation\n";
    expect(&run, 130, "", expected);
    // The daemon deletes the VM without the client.
    wait(&received, "delete");
}

#[test]
fn ctrl_c_ends_the_wait_for_a_daemon_that_does_not_answer() {
    let (events, received) = mpsc::channel();
    let daemon = FakeDaemon::new(move |request, stream| match request.line.as_str() {
        "POST /v1/kernel-pulls" => reply(stream, 202, &json!({"operation": OPERATION})),
        line => {
            begin_events(stream);
            events.send(if line.ends_with("cancel") { "cancel" } else { "following" }).unwrap();
            std::thread::park();
        }
    });
    let child = daemon.spawn("kernel pull");
    for wanted in ["following", "cancel"] {
        wait(&received, wanted);
        kill(child.id(), "INT");
    }
    let run: Run = child.wait_with_output().unwrap().into();
    let expected = "debian-cloud: cancelling; press Ctrl-C again to stop waiting\n\
        debian-cloud: stopped waiting; the daemon does not answer the cancel request\n";
    expect(&run, 130, "", expected);
}

#[test]
fn a_cut_stream_is_resumed_behind_the_last_event() {
    let daemon = FakeDaemon::new(|request, stream| match request.line.as_str() {
        "POST /v1/image-pulls" => reply(stream, 202, &json!({"operation": OPERATION})),
        _ => {
            begin_events(stream);
            let seen = request.last_event.unwrap();
            // Repeats the last event and closes the connection.
            let stage = |n: u64| json!({"event": "stage_done", "stage": format!("s{n}"), "ms": n});
            event(stream, seen.max(1), 0, stage(seen.max(1)));
            event(stream, seen + 1, 0, stage(seen + 1));
            if seen == 4 {
                event(stream, 6, 0, json!({"event": "succeeded", "made": "x1"}));
            }
        }
    });
    let run = daemon.run("image pull -v debian");
    let lines: String = (1..=5).map(|n| format!("debian: s{n} N s\n")).collect();
    let lines = format!("debian: operation OP\n{lines}");
    expect(&run, 0, "x1\n", &lines);
}

#[test]
fn the_record_has_the_result_of_an_operation_without_stream() {
    let requests = AtomicU32::new(0);
    let daemon = FakeDaemon::new(move |request, stream| match request.line.as_str() {
        "POST /v1/kernel-pulls" => reply(stream, 202, &json!({"operation": OPERATION})),
        "GET /v1/operations/op-abc123" => {
            let error = json!({"code": "interrupted", "message": "the daemon was killed"});
            let view = json!({
                "id": OPERATION, "kind": "pull_kernel", "state": "failed",
                "subject": {"type": "kernel", "name": "k"},
                "started_at": "2026-11-24T00:00:00Z", "error": error,
            });
            reply(stream, 200, &view);
        }
        _ if requests.fetch_add(1, Ordering::Relaxed) == 0 => begin_events(stream),
        _ => reply(stream, 404, &missing()),
    });
    expect(&daemon.run("kernel pull"), 1, "", "error: the daemon was killed\n(OP)\n");
}

#[test]
fn a_silent_stream_times_out() {
    let daemon = FakeDaemon::new(|request, stream| match request.line.as_str() {
        "POST /v1/kernel-pulls" => reply(stream, 202, &json!({"operation": OPERATION})),
        _ => begin_events(stream),
    });
    let run = daemon.run("kernel pull");
    let expected = "error: the daemon sends no events of `OP`\n\
        hint: `banger daemon logs` shows its log\n(OP)\n";
    expect(&run, 1, "", expected);
}

#[test]
fn malformed_answers_are_reported() {
    for body in ["not http at all", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{]}"] {
        let daemon = FakeDaemon::new(move |_, stream| {
            use std::io::Write;
            let _ = stream.write_all(body.as_bytes());
        });
        let run = daemon.run("vm list");
        assert_eq!((run.code, run.out.as_str()), (1, ""), "{body}\n{}", run.err);
        assert!(run.err.starts_with("error: "), "{}", run.err);
    }
    let daemon = FakeDaemon::new(|request, stream| match request.line.as_str() {
        "POST /v1/kernel-pulls" => reply(stream, 202, &json!({"operation": OPERATION})),
        _ => {
            begin_events(stream);
            event(stream, 1, 0, json!({"event": "of another kind"}));
        }
    });
    let run = daemon.run("kernel pull");
    assert_eq!(run.code, 1);
    let expected = "error: the daemon sent malformed events\n";
    assert!(run.err.starts_with(expected), "{}", run.err);
}

#[test]
fn transfers_and_warnings_are_shown_in_plain_lines() {
    let daemon = FakeDaemon::new(|request, stream| match request.line.as_str() {
        "POST /v1/image-pulls" => {
            reply(stream, 202, &json!({"operation": OPERATION, "warnings": ["large"]}));
        }
        _ => {
            begin_events(stream);
            event(stream, 1, 0, json!({"event": "stage_started", "stage": "pull_image"}));
            for (seq, second) in [(2, 1), (3, 10), (4, 12), (5, 21)] {
                let done = second << 20;
                let total = 100 << 20;
                let what = json!({
                    "event": "progress", "stage": "pull_image", "done": done, "total": total,
                });
                event(stream, seq, second * 1000, what);
            }
            event(stream, 6, 22_000, json!({"event": "note", "text": "unpacking\u{1b}[2J"}));
            event(stream, 7, 22_000, json!({"event": "warning", "text": "odd"}));
            let done = json!({"event": "stage_done", "stage": "pull_image", "ms": 22_000});
            event(stream, 8, 22_000, done);
            event(stream, 9, 22_000, json!({"event": "succeeded", "made": "x1"}));
        }
    });
    let expected = "warning: debian: large\n\
        debian: pull_image 10 MiB of 100 MiB, 1 MiB/s\n\
        debian: pull_image 21 MiB of 100 MiB, 1 MiB/s\n\
        debian: unpacking\\u{1b}[2J\n\
        warning: debian: odd\n\
        debian: done in N s\n";
    expect(&daemon.run("image pull debian"), 0, "x1\n", expected);
    let quiet = "warning: debian: large\nwarning: debian: odd\n";
    expect(&daemon.run("image pull -q debian"), 0, "x1\n", quiet);
}

#[test]
fn a_machine_that_did_not_come_up_is_kept_and_named() {
    let daemon = FakeDaemon::new(|request, stream| match request.line.as_str() {
        "POST /v1/vms" => reply(stream, 202, &accepted()),
        "GET /v1/operations/op-abc123/events" => {
            begin_events(stream);
            let error = json!({
                "code": "guest_failed", "message": "`web` did not boot within 120 s",
                "causes": ["last line of the console"], "hint": "look at its console",
            });
            event(stream, 1, 5, json!({"event": "failed", "error": error}));
        }
        "GET /v1/vms/aaaa00000001" => reply(stream, 200, &details()),
        other => panic!("{other}"),
    });
    let kept = "`web` was kept: `banger vm show web` and `banger vm logs web` show why, \
        `banger vm delete web` removes it\n\
        error: `web` did not boot within 120 s\n  because last line of the console\n\
        hint: look at its console\n(OP)\n";
    expect(&daemon.run("vm create"), 1, "", kept);
    expect(&daemon.run("run -- true"), 125, "", kept);
}

#[test]
fn a_machine_that_is_not_to_stay_is_removed_when_it_does_not_come_up() {
    let (events, received) = mpsc::channel();
    let daemon = FakeDaemon::new(move |request, stream| match request.line.as_str() {
        "POST /v1/vms" => reply(stream, 202, &accepted()),
        "GET /v1/operations/op-abc123/events" => {
            begin_events(stream);
            let error = json!({"code": "host_not_ready", "message": "port 80 is taken"});
            event(stream, 1, 5, json!({"event": "failed", "error": error}));
        }
        "POST /v1/vms/aaaa00000001/actions" => {
            events.send("delete").unwrap();
            reply(stream, 404, &missing());
        }
        other => panic!("{other}"),
    });
    // The second command requests a lease of the VM, which has been deleted by then.
    daemon.refuse_sessions();
    for line in ["run -d --rm", "run --rm -- true"] {
        expect(&daemon.run(line), 125, "", "error: port 80 is taken\n(OP)\n");
        wait(&received, "delete");
    }
}

/// A stop that lasts until the test ends.
fn endless_stop() -> (FakeDaemon, mpsc::Receiver<&'static str>) {
    let (events, received) = mpsc::channel();
    let daemon = FakeDaemon::new(move |request, stream| match request.line.as_str() {
        "GET /v1/vms" => reply(stream, 200, &json!([details()])),
        "GET /v1/operations/op-abc123/events" => {
            begin_events(stream);
            event(stream, 1, 0, json!({"event": "stage_started", "stage": "shutdown"}));
            events.send("following").unwrap();
            std::thread::park();
        }
        line if line.ends_with("/actions") => reply(stream, 202, &accepted()),
        other => panic!("{other}"),
    });
    (daemon, received)
}

#[test]
fn ctrl_c_ends_the_wait_for_a_stop_and_not_the_stop() {
    for line in ["vm stop web", "vm restart web", "stop web"] {
        let (daemon, received) = endless_stop();
        let child = daemon.spawn(line);
        wait(&received, "following");
        kill(child.id(), "INT");
        let run: Run = child.wait_with_output().unwrap().into();
        let expected = "web: stopped waiting; the stop continues in the daemon, \
            `banger vm kill web` ends `web` at once\n";
        expect(&run, 130, "", expected);
    }
    let (daemon, received) = endless_stop();
    let child = daemon.spawn("vm stop web --json");
    wait(&received, "following");
    kill(child.id(), "INT");
    let run: Run = child.wait_with_output().unwrap().into();
    let json: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((run.code, json[0]["result"].as_str()), (130, Some("left")));
}

/// Everything about a VM that did not start.
fn details() -> serde_json::Value {
    let three = json!({"vmm": "qemu", "storage": "overlay", "network": "user"});
    json!({
        "id": VM, "name": "web", "state": "stopped", "image": "debian", "vcpus": 1,
        "memory_mib": 512, "ip": null, "created_at": "2026-11-24T00:00:00Z",
        "disk": {
            "root_bytes": 1, "root_used_bytes": 1, "work_bytes": 1, "work_used_bytes": 1,
        },
        "pid": null, "boot_id": null, "stopped_because": {
            "reason": "start_failed", "operation": OPERATION, "error": "it did not boot",
        },
        "drivers": three, "why": three, "start": null,
        "paths": {"console_log": "/nonexistent/console.log", "vmm_log": "/nonexistent/vmm.log"},
        "image_id": "0123456789abcdef", "kernel_id": "0123456789abcdef", "lifetime": "keep",
        "generation": 1,
    })
}

/// Reads the next line of standard error.
fn next_line(child: &mut std::process::Child) -> String {
    let stderr = child.stderr.as_mut().unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') && std::io::Read::read(stderr, &mut byte).unwrap() > 0 {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

const AWAITING: &str = "waiting for the daemon's answer; press Ctrl-C again to stop waiting\n";

#[test]
fn ctrl_c_before_the_answer_cancels_the_operation_after_it() {
    let (events, received) = mpsc::channel();
    let (answer, held) = mpsc::channel();
    let held = Mutex::new(held);
    let daemon = FakeDaemon::new(move |request, stream| match request.line.as_str() {
        "POST /v1/kernel-pulls" => {
            events.send("requested").unwrap();
            held.lock().unwrap().recv().unwrap();
            reply(stream, 202, &json!({"operation": OPERATION}));
        }
        "POST /v1/operations/op-abc123/cancel" => {
            events.send("cancel").unwrap();
            let answer =
                json!({"operation": OPERATION, "effect": "cancelling", "state": "running"});
            reply(stream, 202, &answer);
        }
        _ => {
            begin_events(stream);
            let error = json!({"code": "cancelled", "message": "pull was cancelled"});
            event(stream, 1, 5, json!({"event": "failed", "error": error}));
        }
    });
    let mut child = daemon.spawn("kernel pull");
    wait(&received, "requested");
    kill(child.id(), "INT");
    assert_eq!(next_line(&mut child), AWAITING);
    answer.send(()).unwrap();
    let run: Run = child.wait_with_output().unwrap().into();
    wait(&received, "cancel");
    let expected = "debian-cloud: cancelling; press Ctrl-C again to stop waiting\n\
        error: pull was cancelled\n(OP)\n";
    expect(&run, 1, "", expected);
}

#[test]
fn the_second_ctrl_c_ends_the_wait_for_an_answer() {
    for line in ["kernel pull", "vm create", "run -- true", "vm start web"] {
        let (events, received) = mpsc::channel();
        let daemon = FakeDaemon::new(move |request, stream| match request.line.as_str() {
            "GET /v1/vms" => reply(stream, 200, &json!([details()])),
            _ => {
                events.send("requested").unwrap();
                std::thread::park();
            }
        });
        let mut child = daemon.spawn(line);
        wait(&received, "requested");
        kill(child.id(), "INT");
        let prefix = if line == "vm start web" { "web: " } else { "" };
        assert_eq!(next_line(&mut child), format!("{prefix}{AWAITING}"), "{line}");
        kill(child.id(), "INT");
        let run: Run = child.wait_with_output().unwrap().into();
        let expected = format!(
            "{prefix}stopped waiting; nothing was cancelled, since the daemon has not answered: \
             `banger operation list` shows whether an operation has started\n"
        );
        expect(&run, 130, "", &expected);
    }
}
