//! The Debian recipe.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use banger_api::images::Rebuild;
use banger_image::fetch::{FetchError, NoProgress};
use banger_image::images::{ImageError, ImageStore, Init, debian_provenance};

use crate::support::{Watch, ask, cache, content, fsck, half_made, listing, tools, tools_without};

#[test]
fn debian_is_a_system_to_work_in_without_an_identity() {
    let (folder, _lock) = cache();
    let store = ImageStore::new(folder.join("data/images"), tools());
    let kept = store.resolve("debian").ok();
    let kept = kept.filter(|image| image.record.provenance == debian_provenance());
    let image =
        kept.unwrap_or_else(|| store.pull("debian", Rebuild::IfOutdated, &NoProgress).unwrap());
    image.check().unwrap();
    image.verify().unwrap();
    fsck(&image.root_disk());
    assert_eq!(image.record.init, Some(Init::Systemd));
    assert_eq!(image.record.system.as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
    assert!(image.record.packages.unwrap() > 100);

    let disk = image.root_disk();
    let listing = listing(&disk);
    for program in [
        "git",
        "curl",
        "sudo",
        "ps",
        "less",
        "ip",
        "ssh",
        "modprobe",
        "ping",
        "nano",
        "man",
        "rsync",
        "python3",
        "vim.basic",
        "apparmor_parser",
        "xz",
    ] {
        let found = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
            .into_iter()
            .any(|folder| listing.contains_key(&format!("{folder}/{program}")));
        assert!(found, "no {program}");
    }
    assert!(listing.contains_key("/usr/sbin/sshd"));
    assert_eq!(listing["/usr/bin/sudo"].mode, "104755");
    assert!(ask(&disk, "ea_list /usr/bin/ping").contains("security.capability"));
    assert_eq!(content(&disk, "/etc/machine-id"), "");
    let host_keys: Vec<_> =
        listing.keys().filter(|path| path.starts_with("/etc/ssh/ssh_host_")).collect();
    assert!(host_keys.is_empty(), "{host_keys:?}");
    let shadow = content(&disk, "/etc/shadow");
    assert!(shadow.lines().any(|line| line.starts_with("root:*:")), "root has a password");
    for path in ["/etc/hostname", "/etc/resolv.conf", "/etc/dpkg/dpkg.cfg.d/99mmdebstrap"] {
        assert!(!listing.contains_key(path), "{path} is there");
    }
    for unit in ["sysinit.target.wants/apparmor.service", "timers.target.wants/man-db.timer"] {
        assert!(!listing.contains_key(&format!("/etc/systemd/system/{unit}")), "{unit} starts");
    }
    assert!(content(&disk, "/etc/sysctl.d/50-banger.conf").contains("max_user_watches = 1048576"));
    assert!(content(&disk, "/root/.bashrc").contains("--color=auto"));
    assert!(listing.contains_key("/usr/share/man/man1/ls.1.gz"), "no manual pages");
    assert!(!listing.contains_key("/usr/share/man/de"), "translated manual pages");
    let lists = listing.keys().filter(|path| path.starts_with("/var/lib/apt/lists/")).count();
    assert!(lists <= 2, "package lists are there");
}

#[test]
fn a_cancelled_pull_ends_everything_it_started() {
    let temp = tempfile::tempdir().unwrap();
    let plain = temp.path().join("images");
    // apt refuses quotes in paths; and a path need not be UTF-8.
    let odd = temp.path().join(OsStr::from_bytes(b"\xff\"images\","));
    for (root, stage) in [
        (&plain, "prepare"),
        (&plain, "running apt-get update"),
        (&odd, "installing essential packages"),
    ] {
        let store = ImageStore::new(root.clone(), tools());
        let watch = Watch::cancelling_at(stage);
        let error = store.pull("debian", Rebuild::IfOutdated, &watch).unwrap_err();
        let cancelled = matches!(error, ImageError::Fetch(FetchError::Cancelled));
        assert!(cancelled, "at `{stage}`: {error:?}");
        assert!(half_made(root).is_empty(), "at `{stage}`");
        assert!(store.list().objects.is_empty());
        let Some(root) = root.to_str() else { continue };
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(root), "at `{stage}`: {mounts}");
        let left = processes_of(root);
        assert!(left.is_empty(), "at `{stage}`: {left:?}");
    }
}

/// Command lines of processes whose temporary folder is below `folder`.
fn processes_of(folder: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let text = String::from_utf8_lossy(&environment);
            text.split('\0').any(|line| {
                line.strip_prefix("TMPDIR=").is_some_and(|value| value.starts_with(folder))
            })
        })
        .map(|entry| fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default())
        .collect()
}

#[test]
fn a_missing_program_or_recipe_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let without = tools_without("mmdebstrap", &temp.path().join("bin"));
    let store = ImageStore::new(temp.path().join("images"), without);
    let error = store.pull("debian", Rebuild::IfOutdated, &NoProgress).unwrap_err();
    assert_eq!(error.to_string(), "the program `mmdebstrap` was not found");
    let error = store.pull("Gentoo", Rebuild::IfOutdated, &NoProgress).unwrap_err();
    assert_eq!(error.to_string(), "there is no recipe for an image `Gentoo`, only `debian`");
}
