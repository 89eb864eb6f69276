//! Guests that lose their agent or whose kernel panics.

use crate::support::{finish, home, host, id, inside, is_stopped, show, whole};

#[test]
fn guests_without_an_agent_are_asked_through_their_keyboard() {
    let before = host();
    let home = whole("");
    home.ok(&["vm", "create", "--name", "web"]);
    let vm = id(&home, "web");
    inside(&home, "web", "echo kept >/root/kept; sync");
    home.run(&[
        "exec",
        "--wait",
        "ready",
        "web",
        "--",
        "sh",
        "-c",
        "echo 1 >/sys/fs/cgroup/banger/agent/cgroup.kill",
    ]);
    let run = home.run(&["vm", "stop", "--timeout", "240", "web"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let because = show(&home, "web")["stopped_because"].clone();
    assert_eq!(because["how"], "graceful", "{because:#}\n{}", run.err);
    is_stopped(&vm);
    let console = home.ok(&["vm", "logs", "--console", "web"]);
    assert!(console.contains("reboot: Restarting system"), "{console}");
    home.ok(&["vm", "start", "web"]);
    assert_eq!(inside(&home, "web", "cat /root/kept"), "kept");
    home.ok(&["vm", "delete", "-f", "web"]);
    finish(home, &before);
}

#[test]
fn guests_whose_kernel_panics_are_stopped_with_their_story() {
    let before = host();
    let home = home("");
    home.ok(&["vm", "create", "--name", "web"]);
    let vm = id(&home, "web");
    // The connection ends with the kernel.
    home.run(&["exec", "--wait", "ready", "web", "--", "sh", "-c", "echo c >/proc/sysrq-trigger"]);
    home.wait_long("web to be stopped", || home.state("web") == "stopped");
    let because = show(&home, "web")["stopped_because"].clone();
    assert_eq!(because["reason"], "vmm_died", "{because:#}");
    assert!(because["story"].as_str().unwrap().contains("kernel panicked"), "{because:#}");
    is_stopped(&vm);
    home.ok(&["vm", "start", "web"]);
    home.ok(&["vm", "delete", "-f", "web"]);
    finish(home, &before);
}
