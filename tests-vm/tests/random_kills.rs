//! Commands run at the same time while random processes are killed: the daemon, a client, a shim, a
//! VMM or a companion. Afterwards no VM is broken, no process is left, and no synced write is lost.
//!
//! A run prints its seed; `BANGER_SEED=N` repeats it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

use banger_testkit::{Home, Options, fake_guest, kill};
use serde_json::Value;

/// Rounds with a guest that answers at once.
const ROUNDS: usize = 150;
/// Rounds with a real guest, each with a boot.
const REAL_ROUNDS: usize = 6;
const NAMES: [&str; 3] = ["red", "green", "blue"];
/// Longest time a client may take after a kill.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Xorshift, after Marsaglia, "Xorshift RNGs" (2003).
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::env::var("BANGER_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros();
        let seed = seed.unwrap_or_else(|| u64::try_from(clock()).unwrap()).max(1);
        println!("BANGER_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        let index = self.below(from.len() as u64);
        from[usize::try_from(index).unwrap()]
    }
}

fn command<'a>(random: &mut Random, name: &'a str) -> Vec<&'a str> {
    match random.below(7) {
        0 | 1 => vec!["vm", "create", "--name", name],
        2 => vec!["vm", "start", name],
        3 => vec!["vm", "stop", name],
        4 => vec!["vm", "restart", name],
        5 => vec!["vm", "kill", name],
        _ => vec!["vm", "delete", "-f", name],
    }
}

/// Kills one random process of the home whose command line contains `pattern`.
fn kill_one(home: &Home, random: &mut Random, pattern: &str) {
    let lines: Vec<String> =
        home.processes().into_iter().filter(|line| line.contains(pattern)).collect();
    if lines.is_empty() {
        return;
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let pid = random.pick(&lines).split(' ').nth(1).unwrap().parse().unwrap();
    // The process may have ended since the listing.
    kill(pid, "KILL");
}

fn wait_for_client(client: &mut Child) {
    let deadline = Instant::now() + CLIENT_TIMEOUT;
    while client.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "client {} does not end", client.id());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Every VM is stopped or running, and exactly the running ones have a shim.
fn settled(home: &Home) -> bool {
    let vms = home.json(&["vm", "list"]);
    let vms: &Vec<Value> = vms.as_array().unwrap();
    let broken: Vec<&Value> = vms.iter().filter(|vm| vm["state"] == "broken").collect();
    assert!(broken.is_empty(), "broken: {broken:#?}");
    let running = vms.iter().filter(|vm| vm["state"] == "running").count();
    let stable = vms.iter().all(|vm| {
        (vm["state"] == "running" || vm["state"] == "stopped") && vm["operation"].is_null()
    });
    let shims = home.processes().iter().filter(|line| line.contains("banger-shim")).count();
    stable && shims == running
}

#[test]
fn random_kills_break_nothing_and_leave_nothing() {
    let program = fake_guest("good").display().to_string();
    let config = format!("qemu_bin = \"{program}\"\nvhost_device_vsock_bin = \"{program}\"\n");
    let home = Home::with(Options { config, ..Options::default() });
    let mut random = Random::new();
    for round in 0..ROUNDS {
        let mut clients: Vec<Child> =
            NAMES.iter().map(|name| home.spawn(&command(&mut random, name))).collect();
        for _ in 0..=random.below(2) {
            std::thread::sleep(Duration::from_millis(random.below(120)));
            match random.pick(&["bangerd", "banger-shim", "fake-guest", "--uds-path", "client"]) {
                "client" => clients[usize::try_from(random.below(3)).unwrap()].kill().unwrap(),
                pattern => kill_one(&home, &mut random, pattern),
            }
        }
        clients.iter_mut().for_each(wait_for_client);
        home.wait(&format!("round {round} to settle"), || settled(&home));
    }
    for name in NAMES.into_iter().filter(|name| home.state(name) != "gone") {
        home.ok(&["vm", "delete", "-f", name]);
    }
    home.finish();
}

#[test]
fn random_kills_lose_no_synced_write() {
    let home = Home::new();
    let mut random = Random::new();
    home.ok(&["vm", "create", "--name", "web", "--memory", "256M"]);
    let mut written = Vec::new();
    for round in 0..REAL_ROUNDS {
        let script = format!("echo {round} >>/root/log && sync /root/log");
        assert_eq!(
            home.run(&["exec", "--wait", "ready", "web", "--", "sh", "-c", &script]).code,
            0
        );
        written.push(round.to_string());
        let mut client = home.spawn(&[
            "exec",
            "--wait",
            "ready",
            "web",
            "--",
            "sh",
            "-c",
            "cat /dev/zero | wc -c",
        ]);
        let programs = ["bangerd", "banger-shim", "qemu-system", "vhost-device-vsock"];
        for pattern in [random.pick(&programs), random.pick(&programs)] {
            std::thread::sleep(Duration::from_millis(random.below(200)));
            kill_one(&home, &mut random, pattern);
        }
        client.kill().unwrap();
        wait_for_client(&mut client);
        // The shim may not have noticed the death of its VMM or companion yet.
        home.wait(&format!("`web` to be reached in round {round}"), || {
            home.ok(&["vm", "start", "web"]);
            home.run(&["exec", "--wait", "ready", "web", "--", "true"]).code == 0
        });
        assert!(settled(&home));
        let log = home.ok(&["exec", "--wait", "ready", "web", "--", "cat", "/root/log"]);
        assert_eq!(log.lines().collect::<Vec<_>>(), written, "round {round}");
    }
    home.ok(&["vm", "delete", "-f", "web"]);
    home.finish();
}
