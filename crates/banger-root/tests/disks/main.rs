//! Block devices: failure and death at every call against a fake kernel; loop devices on the real
//! one.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod real;
mod world;

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use banger_base::{HostHint, VmId};
use banger_root::disks::{Access, Disks, Kernel as _};
use banger_root::{Did, Kind, RootError};

use world::{Fault, When, World};

const IMAGE: u64 = 1 << 20;
const ROOT: u64 = 4 << 20;

struct Files {
    image: File,
    cow: File,
}

fn files() -> Files {
    let [image, cow] = [(); 2].map(|()| tempfile::tempfile().unwrap());
    image.set_len(IMAGE).unwrap();
    cow.set_len(banger_root::disks::snapshot::cow_bytes(ROOT)).unwrap();
    Files { image, cow }
}

fn id() -> VmId {
    "0123456789ab".parse().unwrap()
}

fn attach(world: &World, files: &Files) -> Result<Did, RootError> {
    let (image, cow) = (files.image.as_fd(), files.cow.as_fd());
    Disks::new(world).attach(&id(), image, cow, ROOT).map(|(did, _)| did)
}

fn detach(world: &World) -> Result<Did, RootError> {
    Disks::new(world).detach(&id())
}

fn fault(call: &'static str, nth: u32, when: When) -> Fault {
    Fault { call, nth, when }
}

#[test]
fn attach_and_detach_are_idempotent() {
    let (world, files) = (World::default(), files());
    assert_eq!(detach(&world).unwrap(), Did::WasAbsent);
    assert_eq!(attach(&world, &files).unwrap(), Did::Made);
    assert_eq!(attach(&world, &files).unwrap(), Did::WasThere);
    let disks = Disks::new(&world);
    let names = ["base", "cow", "image", "root"].map(|what| id().object_name(what));
    assert_eq!(disks.all_of(&id()).unwrap(), names);
    let other: VmId = "00000000000f".parse().unwrap();
    assert!(disks.all_of(&other).unwrap().is_empty());
    let found = disks.find(&id()).unwrap().unwrap();
    assert_eq!((found.major, found.minor), (253, 1));
    assert_eq!(detach(&world).unwrap(), Did::Removed);
    assert_eq!(detach(&world).unwrap(), Did::WasAbsent);
    assert_eq!(disks.find(&id()).unwrap(), None);
    assert!(world.is_empty());
}

#[test]
fn a_failed_attach_leaves_nothing_and_can_be_repeated() {
    let files = files();
    let count = {
        let world = World::default();
        attach(&world, &files).unwrap();
        world.calls.get()
    };
    let calls = [
        ("file", 3),
        ("loops", 2),
        ("loop_free", 2),
        ("loop_configure", 2),
        ("dm_create", 2),
        ("dm_load", 2),
        ("dm_resume", 2),
        ("dm_status", 4),
    ];
    let mut tried = 0;
    for (call, times) in calls {
        for (nth, when) in (0..times).flat_map(|n| [(n, When::Before), (n, When::After)]) {
            let world = World::default();
            world.faults.borrow_mut().push(fault(call, nth, when));
            let error = attach(&world, &files).unwrap_err();
            let text = format!("{error} {:?}", error.causes);
            assert!(text.contains("injected"), "{call} {nth} {when:?}: {text}");
            assert!(world.is_empty(), "{call} {nth} {when:?} left something");
            world.heal();
            assert_eq!(attach(&world, &files).unwrap(), Did::Made, "{call} {nth} {when:?}");
            tried += 1;
        }
    }
    assert!(tried >= count, "calls without an injected failure: {count} made, {tried} tried");
}

#[test]
fn an_invalid_snapshot_is_loaded_again_under_its_users() {
    let (world, files) = (World::default(), files());
    let disks = Disks::new(&world);
    assert_eq!(disks.reload(&id()).unwrap_err().kind, Kind::NotFound);
    attach(&world, &files).unwrap();
    assert_eq!(disks.reload(&id()).unwrap(), Did::WasThere);
    let root = id().object_name("root");
    let device = disks.find(&id()).unwrap();
    let table = world.dm_table(&root).unwrap();
    world.hold("253:1", Duration::from_secs(3600));
    let calls =
        [("dm_status", 2), ("dm_states", 1), ("loops", 1), ("dm_load", 2), ("dm_resume", 2)];
    for (call, nth, when) in calls.into_iter().flat_map(|(call, times)| {
        (0..times).flat_map(move |n| [(call, n, When::Before), (call, n, When::After)])
    }) {
        world.give_up(&root);
        world.heal();
        world.faults.borrow_mut().push(fault(call, nth, when));
        disks.reload(&id()).unwrap_err();
        world.heal();
        // Whatever the failure left, the next request completes it, unless it was complete.
        let expected = match (call, nth, when) {
            ("dm_resume", 1, When::After) => Did::WasThere,
            _ => Did::Made,
        };
        assert_eq!(disks.reload(&id()).unwrap(), expected, "{call} {nth} {when:?}");
        assert_eq!(world.dm_table(&root).unwrap(), table, "{call} {nth} {when:?}");
        assert_eq!(disks.reload(&id()).unwrap(), Did::WasThere, "{call} {nth} {when:?}");
        assert_eq!(disks.find(&id()).unwrap(), device, "the same device");
    }
}

#[test]
fn a_failed_undo_keeps_both_errors() {
    let (world, files) = (World::default(), files());
    world.faults.borrow_mut().push(fault("dm_load", 1, When::Before));
    world.faults.borrow_mut().push(fault("dm_remove", 0, When::Before));
    let error = attach(&world, &files).unwrap_err();
    assert_eq!(error.message, "cannot load the table of `banger-0123456789ab-root`");
    let causes = error.causes.join("; ");
    assert!(causes.contains("injected into dm_load"), "{causes}");
    assert!(causes.contains("cannot remove `banger-0123456789ab-root`"), "{causes}");
    assert!(causes.contains("injected into dm_remove"), "{causes}");
    world.heal();
    assert_eq!(detach(&world).unwrap(), Did::Removed);
    assert!(world.is_empty());
}

#[test]
fn a_detach_continues_after_errors_and_can_be_repeated() {
    let files = files();
    let calls = [("dm_remove", 2), ("loop_clear", 2), ("dm_status", 2), ("loops", 2)];
    for (call, times) in calls {
        for (nth, when) in (0..times).flat_map(|n| [(n, When::Before), (n, When::After)]) {
            let world = World::default();
            attach(&world, &files).unwrap();
            world.heal();
            world.faults.borrow_mut().push(fault(call, nth, when));
            let error = detach(&world).unwrap_err();
            assert!(format!("{error:?}").contains("injected"), "{error:?}");
            let left = Disks::new(&world).all_of(&id()).unwrap();
            // The devices below the root device cannot be removed while it exists.
            let topmost = call.starts_with("dm_") && nth == 0;
            assert!(topmost || left.len() < 4, "{call} {nth} {when:?} stopped all: {left:?}");
            world.heal();
            detach(&world).unwrap();
            assert!(world.is_empty(), "{call} {nth} {when:?}");
        }
    }
    let world = World::default();
    attach(&world, &files).unwrap();
    world.heal();
    world.faults.borrow_mut().push(fault("loop_clear", 0, When::Before));
    world.faults.borrow_mut().push(fault("loop_clear", 1, When::Before));
    let error = detach(&world).unwrap_err();
    let text = format!("{} {}", error.message, error.causes.join(" "));
    assert!(text.contains("-cow") && text.contains("-image"), "both are named: {text}");
}

#[test]
fn a_process_killed_at_any_call_leaves_findable_devices() {
    let files = files();
    for kill_in_detach in [false, true] {
        for at in 0.. {
            let world = World::default();
            if kill_in_detach {
                attach(&world, &files).unwrap();
                world.heal();
            }
            world.dead_from.set(Some(at));
            let whole = match kill_in_detach {
                false => attach(&world, &files).is_ok(),
                true => detach(&world).is_ok(),
            };
            world.heal();
            // A new process continues with either operation.
            attach(&world, &files).unwrap();
            assert_eq!(Disks::new(&world).all_of(&id()).unwrap().len(), 4, "{at}");
            world.heal();
            assert_eq!(detach(&world).unwrap(), Did::Removed);
            assert!(world.is_empty(), "killed at {at}");
            if whole {
                assert!(at > 10, "only {at} calls");
                break;
            }
        }
    }
}

#[test]
fn detach_cleans_up_after_a_killed_attach() {
    let files = files();
    for at in 0..40 {
        let world = World::default();
        world.dead_from.set(Some(at));
        let _ = attach(&world, &files);
        world.heal();
        detach(&world).unwrap();
        assert!(world.is_empty(), "killed at {at}");
    }
}

#[test]
fn a_device_closed_within_the_limit_is_waited_for() {
    let files = files();
    for device in ["253:1", "253:0", "7:0", "7:1"] {
        let world = World::default();
        attach(&world, &files).unwrap();
        world.hold(device, Duration::from_secs(3));
        assert_eq!(detach(&world).unwrap(), Did::Removed, "{device}");
        assert!(world.is_empty(), "{device}");
    }
}

#[test]
fn a_device_that_stays_open_is_an_error_at_the_limit() {
    use banger_root::disks::Kernel;
    let files = files();
    for (device, name) in [("253:1", "-root"), ("253:0", "-base"), ("7:1", "-cow")] {
        let world = World::default();
        attach(&world, &files).unwrap();
        world.hold(device, Duration::from_secs(3600));
        let error = detach(&world).unwrap_err();
        assert_eq!(error.kind, Kind::Busy);
        assert!(error.message.contains(name), "{error:?}");
        assert!(matches!(error.hints.0[..], [HostHint::FindHolder { .. }]), "{error:?}");
        assert!(world.now() < Duration::from_secs(10), "{:?}", world.now());
        world.hold(device, Duration::ZERO);
        detach(&world).unwrap();
        assert!(world.is_empty());
    }
}

#[test]
fn loading_a_table_is_retried() {
    let (world, files) = (World::default(), files());
    world.scarce.set(3);
    assert_eq!(attach(&world, &files).unwrap(), Did::Made);
    assert_eq!(detach(&world).unwrap(), Did::Removed);
    world.scarce.set(u32::MAX);
    let error = attach(&world, &files).unwrap_err();
    assert!(error.causes.join("").contains("memory"), "{error:?}");
    assert!(world.is_empty());
}

#[test]
fn without_device_mapper_the_hint_is_modprobe() {
    let (world, files) = (World::default(), files());
    world.without_mapper.set(true);
    assert_eq!(detach(&world).unwrap(), Did::WasAbsent);
    let error = attach(&world, &files).unwrap_err();
    assert_eq!(error.kind, Kind::HostNotReady);
    assert_eq!(error.hints.0, [HostHint::load("dm_mod")]);
    assert!(world.is_empty());
    assert!(Disks::new(&world).list().unwrap().is_empty());
}

#[test]
fn missing_drivers_and_target_types_are_found_without_a_change() {
    let world = World::default();
    Disks::new(&world).check().unwrap();
    for target in ["zero", "snapshot"] {
        world.missing_target.set(target);
        let error = Disks::new(&world).check().unwrap_err();
        assert_eq!(error.kind, Kind::HostNotReady);
        assert_eq!(error.hints.0, [HostHint::load(&format!("dm_{target}"))]);
    }
    world.without_mapper.set(true);
    let error = Disks::new(&world).check().unwrap_err();
    assert_eq!(error.kind, Kind::HostNotReady);
    assert_eq!(error.hints.0, [HostHint::load("dm_mod")]);
    assert!(world.is_empty());
}

#[test]
fn unsuitable_files_and_sizes_are_refused_before_any_change() {
    let (world, files) = (World::default(), files());
    let disks = Disks::new(&world);
    let (image, cow) = (files.image.as_fd(), files.cow.as_fd());
    for (root, word) in [(IMAGE - 512, "too small"), (IMAGE + 1, "multiples")] {
        let error = disks.attach(&id(), image, cow, root).unwrap_err();
        assert_eq!(error.kind, Kind::BadRequest);
        assert!(error.message.contains(word), "{error}");
    }
    let readable = tempfile::NamedTempFile::new().unwrap();
    readable.as_file().set_len(IMAGE).unwrap();
    let reader = File::open(readable.path()).unwrap();
    let error = disks.attach(&id(), image, reader.as_fd(), ROOT).unwrap_err();
    assert!(error.message.contains("not opened for writing"), "{error}");
    let pipe = std::io::pipe().unwrap();
    let error = disks.loop_attach("banger-x", pipe.0.as_fd(), Access::Read).unwrap_err();
    assert_eq!(error.kind, Kind::BadRequest);
    assert!(world.is_empty());
    // Another file with the same tag is another disk.
    disks.attach(&id(), image, cow, ROOT).unwrap();
    let other = self::files();
    let error = attach(&world, &other).unwrap_err();
    assert!(error.message.contains("bound to another file"), "{error}");
}

#[test]
fn cow_bytes_covers_every_chunk_and_table() {
    use banger_root::disks::snapshot::cow_bytes;
    // One chunk of header; of every 257 that follow, one is a table.
    for chunks in [1_u64, 255, 256, 257, 512, 1 << 18, (1 << 18) + 1] {
        let bytes = cow_bytes(chunks * 4096);
        let need = 1 + chunks + chunks.div_ceil(256);
        assert!(bytes / 4096 >= need, "{chunks}");
        assert!(bytes / 4096 <= need + 4, "{chunks}");
    }
}
