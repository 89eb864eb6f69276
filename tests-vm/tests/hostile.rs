//! Guests that behave badly, hosts that lack something: the real daemon and shim, a fake QEMU.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use banger_testkit::{Home, Options, fake_guest};

fn with_guest(behavior: &str) -> Home {
    let program = fake_guest(behavior).display().to_string();
    let config = format!(
        "qemu_bin = \"{program}\"\nvhost_device_vsock_bin = \"{program}\"\nboot_timeout_s = 3\n"
    );
    Home::with(Options { config, ..Options::default() })
}

#[test]
fn a_good_guest_that_answers_at_once() {
    let home = with_guest("good");
    home.ok(&["vm", "create", "--name", "web"]);
    assert_eq!(home.state("web"), "running");
    home.ok(&["vm", "stop", "web"]);
    let show = home.json(&["vm", "show", "web"]);
    assert_eq!(show["stopped_because"]["how"], "graceful");
    home.ok(&["vm", "delete", "web"]);
    home.finish();
}

#[test]
fn bad_guests_are_stopped_with_their_story_and_nothing_is_left() {
    for (behavior, word) in [
        ("silent", "no hello"),
        ("garbage", "not a boot message"),
        ("flood", "more than 65536 bytes"),
        ("old", "another version"),
        ("dies", "exited with code 1"),
        ("mute", "no answer of the agent"),
    ] {
        let home = with_guest(behavior);
        let run = home.run(&["vm", "create", "--name", "web"]);
        assert_eq!(run.code, 1, "{behavior}: {}", run.err);
        assert!(run.err.contains(word), "{behavior}: {}", run.err);
        assert_eq!(home.state("web"), "stopped");
        let others: Vec<String> =
            home.processes().into_iter().filter(|line| !line.contains("bangerd")).collect();
        assert!(others.is_empty(), "{behavior}: {others:#?}");
        home.ok(&["vm", "delete", "web"]);
        home.finish();
    }
}

#[test]
fn a_guest_that_ignores_a_stop_is_killed_after_the_grace_period() {
    let home = with_guest("stuck");
    home.ok(&["vm", "create", "--name", "web"]);
    let run = home.run(&["vm", "stop", "--timeout", "1", "web"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.err.contains("did not shut down"), "{}", run.err);
    let show = home.json(&["vm", "show", "web"]);
    assert_eq!(show["stopped_because"]["how"], "killed_after_grace");
    home.ok(&["vm", "delete", "web"]);
    home.finish();
}

#[test]
fn without_qemu_the_hint_names_the_package() {
    let config = "qemu_bin = \"/nonexistent/qemu\"\n".to_owned();
    let home = Home::with(Options { config, ..Options::default() });
    let run = home.run(&["vm", "create", "--name", "web"]);
    assert_eq!(run.code, 5, "{}", run.err);
    assert!(run.err.contains("qemu-system-x86_64"), "{}", run.err);
    assert!(run.err.contains("hint: "), "{}", run.err);
    assert_eq!(home.state("web"), "gone");
    home.finish();
}

#[test]
fn a_home_of_any_length_works() {
    let deep = Some("d".repeat(200).into());
    let program = fake_guest("good").display().to_string();
    let config = format!("qemu_bin = \"{program}\"\nvhost_device_vsock_bin = \"{program}\"\n");
    let home = Home::with(Options { config, deep, ..Options::default() });
    home.ok(&["vm", "create", "--name", "web"]);
    home.ok(&["vm", "delete", "-f", "web"]);
    home.finish();
}

/// A home whose kernels and images are its own, to be damaged.
fn with_own_images() -> Home {
    let home = with_guest("good");
    let data = home.path().join("data");
    let shared = fs::read_link(&data).unwrap();
    fs::remove_file(&data).unwrap();
    let copied =
        Command::new("cp").args(["-a", "--sparse=always"]).arg(&shared).arg(&data).status();
    assert!(copied.unwrap().success());
    home
}

/// File of the default object of VMs.
fn object(home: &Home, noun: &str, name: &str, file: &str) -> PathBuf {
    let listed = home.json(&[noun, "list"]);
    let objects = listed.as_array().unwrap();
    let named =
        objects.iter().find(|object| object["names"].as_array().unwrap().contains(&name.into()));
    let id = named.unwrap()["id"].as_str().unwrap();
    let path = home.path().join("data").join(format!("{noun}s")).join(id).join(file);
    assert!(path.exists(), "{}", path.display());
    path
}

#[test]
fn damaged_kernels_and_images_have_a_hint() {
    for (noun, name, file) in
        [("kernel", "debian-cloud", "vmlinux"), ("image", "debian", "root.ext4")]
    {
        let home = with_own_images();
        let path = object(&home, noun, name, file);
        let half = fs::metadata(&path).unwrap().len() / 2;
        fs::File::options().write(true).open(&path).unwrap().set_len(half).unwrap();
        let run = home.run(&["vm", "create", "--name", "web"]);
        assert_eq!(run.code, 1, "{noun}: {}", run.err);
        assert!(run.err.contains(noun) && run.err.contains("is damaged"), "{noun}: {}", run.err);
        for advice in ["hint: ", "`banger vm delete web`", &format!("`banger {noun} delete ")] {
            assert!(run.err.contains(advice), "{noun}: {}", run.err);
        }
        if home.state("web") != "gone" {
            home.ok(&["vm", "delete", "web"]);
        }
        home.finish();
    }
}

#[test]
fn a_full_disk_is_reported_and_nothing_is_left() {
    let id = Command::new("id").arg("-u").output().unwrap().stdout;
    if id != b"0\n" {
        eprintln!("SKIPPED: a full disk needs a small file system, and mounting one needs root");
        return;
    }
    let home = with_guest("good");
    let state = home.path().join("state");
    fs::create_dir_all(&state).unwrap();
    let mount = |args: &[&str]| {
        let done = Command::new(args[0]).args(&args[1..]).arg(&state).status().unwrap();
        assert!(done.success(), "{args:?}");
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs"]);
    let run = home.run(&["vm", "create", "--name", "web"]);
    let listed = home.state("web");
    let left = fs::read_dir(state.join("vms")).unwrap().count();
    home.run(&["daemon", "stop"]);
    mount(&["umount"]);
    assert_eq!(run.code, 5, "{}", run.err);
    let said = run.err.contains("needs 64 MiB on the disk") && run.err.contains("system prune");
    assert!(said, "{}", run.err);
    assert_eq!((listed.as_str(), left), ("gone", 0));
    home.finish();
}
