//! A VM's life under Firecracker, as root: every way up and down, and what is left.

use std::time::{Duration, Instant};

use banger_testkit::{Home, kill, wait_gone};

use crate::jail::check_jail;
use crate::support::{
    Outside, ROOT_TYPE, finish, has_all_parts, home, host, id, import_small_image, inside,
    is_stopped, pid, shell, show,
};

#[test]
fn life_one_command_in_a_new_vm() {
    let before = host();
    let home = home("");
    let _outside = Outside::new();
    let script = format!(
        "id -u; ip -4 addr; cat /proc/cmdline; wget -qO- http://198.51.100.1/; {ROOT_TYPE}; exit 7"
    );
    let run = home.run(&["run", "--rm", "--wait", "ready", "--nat", "--", "sh", "-c", &script]);
    assert_eq!(run.code, 7, "{}\n{}", run.out, run.err);
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(lines[0], "0");
    assert!(run.out.contains("172.16.0."), "{}", run.out);
    assert!(!run.out.contains(" ip="), "{}", run.out);
    assert!(run.out.contains("outside"), "{}", run.out);
    // A root disk of its own, not a layer.
    assert_eq!(*lines.last().unwrap(), "ext4");
    drop(_outside);
    finish(home, &before);
}

#[test]
fn life_the_same_with_every_storage() {
    let before = host();
    import_small_image();
    shell(
        "truncate -s 3G /var/tmp/xfs.img; mkfs.xfs -q -m reflink=1 /var/tmp/xfs.img
         mkdir -p /mnt/xfs; mount -o loop /var/tmp/xfs.img /mnt/xfs
         mkdir -p /mnt/xfs/state; chmod 700 /mnt/xfs/state
         cp -a --sparse=always /cache/data /mnt/xfs/data",
    );
    for storage in ["reflink", "overlay", "copy"] {
        let home = home(&format!("storage = \"{storage}\"\n"));
        let (data, state) = (home.path().join("data"), home.path().join("state"));
        if storage == "reflink" {
            std::fs::remove_file(&data).unwrap();
            std::os::unix::fs::symlink("/mnt/xfs/data", &data).unwrap();
            std::os::unix::fs::symlink("/mnt/xfs/state", &state).unwrap();
        }
        home.ok(&["vm", "create", "--name", "web"]);
        let drivers = show(&home, "web")["drivers"].clone();
        assert_eq!(drivers["storage"], storage);
        assert_eq!(drivers["vmm"], "firecracker");
        let root = inside(&home, "web", &format!("{ROOT_TYPE}; touch /etc/x /root/y; id -u"));
        let expected = if storage == "overlay" { "overlay\n0" } else { "ext4\n0" };
        assert_eq!(root, expected, "{storage}");
        assert!(!inside(&home, "web", "cat /proc/cmdline").contains(" ip="), "{storage}");
        check_jail(&home, "web");
        home.ok(&["vm", "delete", "-f", "web"]);
        home.finish();
    }
    shell("umount /mnt/xfs; rm /var/tmp/xfs.img");
    assert_eq!(host(), before);
}

#[test]
fn life_written_data_survives_every_shutdown() {
    let before = host();
    let home = home("");
    home.ok(&["vm", "create", "--name", "web"]);
    let drivers = show(&home, "web")["drivers"].clone();
    assert_eq!(drivers["vmm"], "firecracker");
    assert_eq!(drivers["storage"], "dm-snapshot");
    assert_eq!(drivers["network"], "bridge");
    let vm = id(&home, "web");
    has_all_parts(&vm);
    inside(&home, "web", "echo work >/root/kept; echo root >/etc/kept");
    home.ok(&["vm", "stop", "--timeout", "120", "web"]);
    let because = show(&home, "web")["stopped_because"].clone();
    assert_eq!(because["how"], "graceful", "{because}");
    is_stopped(&vm);
    home.ok(&["vm", "start", "web"]);
    assert_eq!(inside(&home, "web", "cat /root/kept /etc/kept"), "work\nroot");

    // At once; the orderly end of a whole Debian is what `verify` does.
    home.run(&[
        "exec",
        "--wait",
        "ready",
        "web",
        "--",
        "sh",
        "-c",
        "echo more >>/root/kept; sync; poweroff -f",
    ]);
    home.wait_long("web to be stopped", || home.state("web") == "stopped");
    let because = show(&home, "web")["stopped_because"].clone();
    assert_eq!(because["reason"], "guest_powered_off", "{because}");
    is_stopped(&vm);
    home.ok(&["vm", "start", "web"]);
    assert_eq!(inside(&home, "web", "cat /root/kept"), "work\nmore");

    let boot = show(&home, "web")["boot_id"].clone();
    home.run(&[
        "exec",
        "--wait",
        "ready",
        "web",
        "--",
        "sh",
        "-c",
        "echo again >>/root/kept; sync; reboot -f",
    ]);
    home.wait_long("another boot", || {
        let now = show(&home, "web");
        now["state"] == "running" && now["boot_id"] != boot
    });
    assert_eq!(inside(&home, "web", "cat /root/kept"), "work\nmore\nagain");
    home.ok(&["vm", "delete", "-f", "web"]);
    finish(home, &before);
}

#[test]
fn life_a_vm_whose_vmm_or_shim_is_killed_is_stopped_with_its_story() {
    let before = host();
    let home = home("");
    home.ok(&["vm", "create", "--name", "web"]);
    let vm = id(&home, "web");
    let shim = || {
        shell(&format!(
            "cut -d: -f2 /var/lib/banger-root/vms/{vm}/shim/spawned.json | tr -dc 0-9,| cut -d, -f1"
        ))
    };
    for (victim, word) in [("vmm", "killed by signal 9"), ("shim", "shim")] {
        let victim_pid = match victim {
            "vmm" => pid(&home, "web"),
            _ => shim().parse().unwrap(),
        };
        kill(victim_pid, "KILL");
        home.wait_long("web to be stopped", || home.state("web") == "stopped");
        let because = show(&home, "web")["stopped_because"].clone();
        assert_eq!(because["reason"], "vmm_died", "{because:#}");
        assert!(because["story"].as_str().unwrap().contains(word), "{victim}: {because:#}");
        is_stopped(&vm);
        home.ok(&["vm", "start", "web"]);
    }
    // The same without a daemon.
    let vmm = pid(&home, "web");
    home.kill_daemon();
    kill(vmm, "KILL");
    home.wait_long("web to be stopped", || home.state("web") == "stopped");
    let because = show(&home, "web")["stopped_because"].clone();
    assert!(because["story"].as_str().unwrap().contains("signal 9"), "{because:#}");
    vmms_without_a_record(&home, &before);
    finish(home, &before);
}

/// A database from a backup says that the stopped VM `web` is stopped while its VMM runs: doctor
/// names it, a start replaces it, a delete ends it.
fn vmms_without_a_record(home: &Home, before: &str) {
    let state = home.path().join("state").display().to_string();
    home.ok(&["daemon", "stop"]);
    shell(&format!("mkdir /var/tmp/backup; cp -a {state}/banger.db* /var/tmp/backup/"));
    let restore = || {
        let running = pid(home, "web");
        home.kill_daemon();
        shell(&format!("rm {state}/banger.db*; cp -a /var/tmp/backup/* {state}/"));
        assert_eq!(home.state("web"), "stopped");
        shell(&format!("kill -0 {running}"));
        running
    };
    home.ok(&["vm", "start", "web"]);
    inside(home, "web", "echo kept >/root/kept; sync");
    let id = id(home, "web");
    has_all_parts(&id);
    let stray = restore();
    let doctor = home.run(&["doctor", "--json"]).out;
    let finding = format!("`web` is stopped on record, and its VMM runs as process {stray}");
    assert!(doctor.contains(&finding), "{doctor}");
    let start = home.run(&["vm", "start", "web"]);
    assert_eq!(start.code, 0, "{}", start.err);
    let warning = format!("its VMM was alive as process {stray}: ending it");
    assert!(start.err.contains(&warning), "{}", start.err);
    assert_ne!(pid(home, "web"), stray);
    wait_gone(stray);
    has_all_parts(&id);
    assert_eq!(inside(home, "web", "cat /root/kept"), "kept");

    let stray = restore();
    home.ok(&["vm", "delete", "web"]);
    wait_gone(stray);
    assert_eq!(host(), before);
    shell("rm -r /var/tmp/backup");
}

#[test]
fn life_a_guest_that_ignores_everything_is_stopped_in_time() {
    let before = host();
    let home = home("");
    home.ok(&["vm", "create", "--name", "web"]);
    let vm = id(&home, "web");
    // Neither VMM nor guest do anything any more.
    kill(pid(&home, "web"), "STOP");
    let began = Instant::now();
    let run = home.run(&["vm", "stop", "--timeout", "3", "web"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.err.contains("did not shut down"), "{}", run.err);
    // Far from the default of 90 s, however busy the host is.
    assert!(began.elapsed() < Duration::from_secs(60), "the timeout was not used");
    is_stopped(&vm);

    // Somebody holds its disk for three seconds.
    home.ok(&["vm", "start", "web"]);
    let number = shell(&format!("dmsetup info -c --noheadings -o minor banger-{vm}-root"));
    let mut holder = std::process::Command::new("bash")
        .args(["-c", &format!("exec 3<$(readlink -f /dev/dm-{number}); echo held; exec sleep 3")])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut word = String::new();
    let stdout = holder.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut word).unwrap();
    assert_eq!(word, "held\n");
    home.ok(&["vm", "kill", "web"]);
    assert_eq!(home.state("web"), "stopped");
    is_stopped(&vm);
    holder.wait().unwrap();
    home.ok(&["vm", "delete", "web"]);
    finish(home, &before);
}
