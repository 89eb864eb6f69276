//! What the disks of a VM keep, and copies of files.

use std::io::Read as _;
use std::process::Command;

use banger_testkit::tree::{self, listing};
use banger_testkit::{Home, Run};

/// The root disk of a stopped VM becomes an image: a layer over its image where the file system
/// does not share blocks. The test of builds commits a whole disk.
fn a_commit_has_the_root_disk_only(home: &Home) {
    let made = home.run(&["image", "commit", "web", "test-committed-layer", "--replace"]);
    assert_eq!(made.code, 0, "{}", made.err);
    let disk = home.path().join("data/images").join(made.out.trim()).join("root.ext4");
    let ask = |request: &str| {
        let shown = Command::new("debugfs").args(["-R", request]).arg(&disk).output().unwrap();
        String::from_utf8_lossy(&shown.stdout).into_owned()
    };
    assert_eq!(ask("cat /gone"), "gone\n");
    assert_eq!(ask("cat /etc/machine-id"), "");
    assert!(ask("ls /opt").contains("renamed") && !ask("ls /usr").contains("games"));
    assert!(!ask("ls /etc").contains(" issue ") && !ask("ls -l /root").contains(".typed"));
    home.ok(&["image", "delete", "test-committed-layer"]);
}

/// The work disk survives a reset, the root disk and the identity do not; `web` is `shop` then.
pub fn a_reset_keeps_the_work_disk_only(home: &Home) {
    let exec = |args: &[&str]| home.run(&[&["exec", "web", "--"], args].concat());
    let system = |vm: &str| {
        let read = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub";
        let run = home.run(&["exec", vm, "--", "sh", "-c", read]);
        assert_eq!((run.code, run.out.lines().count()), (0, 2), "{}", run.err);
        run.out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = system("web");
    let script = "echo kept >/root/kept; echo gone >/gone; mv /usr/games /opt/renamed; \
        rm /etc/issue; echo typed >/root/.typed";
    assert_eq!(exec(&["sh", "-c", script]).code, 0);
    let stop = home.run(&["vm", "stop", "web"]);
    assert_eq!(stop.code, 0, "{}", stop.err);
    a_commit_has_the_root_disk_only(home);
    assert_eq!(home.ok(&["vm", "reset", "-f", "web"]), "web has a fresh root disk\n");
    assert_eq!(home.ok(&["vm", "rename", "web", "shop"]), "web is `shop` now\n");
    home.ok(&["vm", "start", "shop"]);
    let there = home.run(&["exec", "shop", "--", "sh", "-c", "hostname; cat /root/kept; ls /gone"]);
    assert_eq!(there.out, "shop\nkept\n", "{}", there.err);
    assert!(there.err.contains("/gone"), "{}", there.err);
    let after = system("shop");
    assert!(before.iter().all(|line| !after.contains(line)), "{before:?}, {after:?}");
}

/// Copies into VM `one`, from there into `two`, and out of it.
pub fn copies_are_equal(home: &Home, exec: &dyn Fn(&str, &str) -> String) {
    let at = home.path().join("copies");
    std::fs::create_dir(&at).unwrap();
    tree::make(&at.join("tree"));
    let cp = |args: &[&str]| -> Run {
        let mut command = home.command(&[&["cp"], args].concat());
        command.current_dir(&at).output().unwrap().into()
    };
    for args in [["tree", "one:/srv"], ["one:/srv/tree", "two:moved"], ["two:moved", "back"]] {
        let run = cp(&args);
        assert_eq!(run.code, 0, "{args:?}: {}", run.err);
    }
    assert_eq!(listing(&at.join("back")), listing(&at.join("tree")));
    assert_eq!(exec("two", "stat -c '%s %U' /root/moved/sparse"), "41943040 root\n");
    assert_eq!(
        exec("two", "[ $(stat -c %b /root/moved/sparse) -lt 100 ] && echo sparse"),
        "sparse\n"
    );

    // The user's permissions, on both sides of a refusal.
    std::fs::write(at.join("file"), vec![b'x'; 30 << 20]).unwrap();
    for (args, text) in [
        (["-u", "nobody", "file", "one:/root/x"], "`/root/x`: Permission denied"),
        (["-u", "nobody", "one:/etc/shadow", "shadow"], "`/etc/shadow`: Permission denied"),
    ] {
        let denied = cp(&args);
        assert_eq!(denied.code, if args[2] == "file" { 2 } else { 1 }, "{}", denied.err);
        assert!(denied.err.contains(text) && denied.err.contains("as user `nobody`"), "{denied:?}");
    }
    assert!(!at.join("shadow").exists());
    assert_eq!(cp(&["-u", "nobody", "file", "one:/tmp/x"]).code, 0);
    assert_eq!(exec("one", "stat -c '%U %G' /tmp/x"), "nobody nogroup\n");

    // A full disk, and a link that a program of the guest has planted.
    exec("one", "mount -t tmpfs -o size=10m none /mnt; echo old >/mnt/old; ln -s /mnt/old /tmp/l");
    let full = cp(&["file", "one:/mnt"]);
    assert!(full.code == 1 && full.err.contains("No space left"), "{full:?}");
    assert_eq!(exec("one", "ls -A /mnt"), "old\n");
    assert_eq!(cp(&["tree/-", "one:/tmp/l"]).code, 0);
    assert_eq!(exec("one", "cat /mnt/old /tmp/l; umount /mnt"), "old\n-");

    // The guest ends while it sends.
    let mut child = home.spawn(&["cp", "one:/tmp", "-"]);
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 512]).unwrap();
    home.ok(&["vm", "kill", "one"]);
    let ended: Run = child.wait_with_output().unwrap().into();
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(ended.err.contains("the connection to `one` ended during the copy"), "{}", ended.err);
}
