//! Loop devices of the real kernel.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use banger_root::disks::{Access, loop_attach, loop_detach, loop_find};
use banger_root::{Did, Kind};

/// A tag that is unique to a test.
fn tag(what: &str) -> String {
    format!("banger-test-{}-{what}", std::process::id())
}

fn loop_devices_usable() -> bool {
    let loop_devices_usable = rustix::process::geteuid().is_root()
        && OpenOptions::new().read(true).write(true).open("/dev/loop-control").is_ok();
    if !loop_devices_usable {
        eprintln!("SKIPPED: loop devices need root and /dev/loop-control");
    }
    loop_devices_usable
}

fn file() -> File {
    // Beside the sources, on a disk that may support direct I/O.
    let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    file.set_len(8 << 20).unwrap();
    file.write_all_at(b"image", 4096).unwrap();
    file
}

#[test]
fn a_loop_device_is_bound_found_and_unbound() {
    if !loop_devices_usable() {
        return;
    }
    let (tag, file) = (tag("once"), file());
    assert_eq!(loop_detach(&tag).unwrap(), Did::WasAbsent);
    assert_eq!(loop_find(&tag).unwrap(), None);
    let (did, device) = loop_attach(&tag, file.as_fd(), Access::ReadWrite).unwrap();
    assert_eq!((did, device.major), (Did::Made, 7));
    let again = loop_attach(&tag, file.as_fd(), Access::ReadWrite).unwrap();
    assert_eq!(again, (Did::WasThere, device.clone()));
    assert_eq!(loop_find(&tag).unwrap(), Some(device.clone()));
    let other = self::file();
    let refused = loop_attach(&tag, other.as_fd(), Access::ReadWrite).unwrap_err();
    assert!(refused.message.contains("bound to another file"), "{refused}");

    let disk = OpenOptions::new().read(true).write(true).open(&device.path).unwrap();
    let mut read = [0; 5];
    disk.read_exact_at(&mut read, 4096).unwrap();
    assert_eq!(&read, b"image");
    disk.write_all_at(b"guest", 1 << 20).unwrap();
    disk.sync_all().unwrap();
    drop(disk);
    assert_eq!(loop_detach(&tag).unwrap(), Did::Removed);
    assert_eq!(loop_detach(&tag).unwrap(), Did::WasAbsent);
    file.read_exact_at(&mut read, 1 << 20).unwrap();
    assert_eq!(&read, b"guest");
    assert!(banger_sys::sparse::allocated_bytes(&file).unwrap() < 1 << 20, "stays sparse");
}

#[test]
fn a_read_only_device_cannot_be_written() {
    if !loop_devices_usable() {
        return;
    }
    let (tag, file) = (tag("read"), file());
    let (_, device) = loop_attach(&tag, file.as_fd(), Access::Read).unwrap();
    let opened = OpenOptions::new().write(true).open(&device.path);
    let written = opened.and_then(|disk| disk.write_all_at(b"x", 0).and_then(|()| disk.sync_all()));
    loop_detach(&tag).unwrap();
    assert!(written.is_err());
    let mut read = [9];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(read, [0]);
}

#[test]
fn detach_waits_for_an_open_device() {
    if !loop_devices_usable() {
        return;
    }
    let (tag, file) = (tag("held"), file());
    let (_, device) = loop_attach(&tag, file.as_fd(), Access::ReadWrite).unwrap();
    let held = File::open(&device.path).unwrap();
    let released = Arc::new(AtomicBool::new(false));
    let release = released.clone();
    let holder = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        release.store(true, Ordering::SeqCst);
        drop(held);
    });
    assert_eq!(loop_detach(&tag).unwrap(), Did::Removed);
    assert!(released.load(Ordering::SeqCst), "the device was detached while it was open");
    holder.join().unwrap();
    assert_eq!(loop_find(&tag).unwrap(), None);
}

#[test]
fn a_device_that_stays_open_is_busy_and_ends_with_its_holder() {
    if !loop_devices_usable() {
        return;
    }
    let (tag, file) = (tag("busy"), file());
    let (_, device) = loop_attach(&tag, file.as_fd(), Access::ReadWrite).unwrap();
    let held = File::open(&device.path).unwrap();
    let error = loop_detach(&tag).unwrap_err();
    assert_eq!(error.kind, Kind::Busy);
    drop(held);
    assert_eq!(loop_detach(&tag).unwrap(), Did::WasAbsent);
}

#[test]
fn concurrent_attaches_get_different_devices() {
    if !loop_devices_usable() {
        return;
    }
    let tags: Vec<String> = (0..12).map(|n| tag(&format!("many-{n}"))).collect();
    let attached: Vec<_> = std::thread::scope(|scope| {
        let run = |tag| move || loop_attach(tag, file().as_fd(), Access::ReadWrite);
        let threads: Vec<_> = tags.iter().map(|tag| scope.spawn(run(tag))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for tag in &tags {
        assert_eq!(loop_detach(tag).unwrap(), Did::Removed);
    }
    let mut minors: Vec<u32> = attached.into_iter().map(|one| one.unwrap().1.minor).collect();
    minors.sort_unstable();
    minors.dedup();
    assert_eq!(minors.len(), tags.len());
}
