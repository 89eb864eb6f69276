//! Folders that vanish, and others in their places: no side loses a file.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use banger_sync::base::Base;
use banger_sync::reconcile::Place;
use banger_sync::{End, Phase};
use tempfile::TempDir;

use crate::world::{World, content};

/// Files, each with its name as its content.
const NAMES: [&str; 3] = ["f1", "f2", "f3"];

/// Puts another folder with this file, which has its name as its content, in the place of one.
/// Returns where that is now.
fn replace(root: &TempDir, name: &str) -> PathBuf {
    let moved = root.path().with_extension("moved");
    fs::rename(root.path(), &moved).unwrap();
    fs::create_dir(root.path()).unwrap();
    fs::write(root.path().join(name), name).unwrap();
    moved
}

/// Number of files in the base on the disk.
fn saved(world: &World) -> usize {
    Base::open(&world.folders().base).unwrap().root().count()
}

#[test]
fn a_root_that_vanishes_ends_the_session() {
    let world = World::new();
    world.host("a", "1");
    for root in [&world.guest, &world.host] {
        let live = world.start();
        live.alike();
        let moved = root.path().with_extension("moved");
        fs::rename(root.path(), &moved).unwrap();
        let end = live.end();
        assert!(matches!(end, End::RootGone(_) | End::HostFolder(_)), "{end:?}");
        fs::rename(moved, root.path()).unwrap();
        assert_eq!(content(&world.host, "a").as_deref(), Some("1"));
        assert_eq!(content(&world.guest, "a").as_deref(), Some("1"));
    }
    let empty = World::new();
    let live = empty.start();
    live.until("it watches", || live.status().phase == Phase::Watching);
    fs::remove_dir(empty.guest.path()).unwrap();
    live.look();
    let end = live.end();
    assert!(matches!(end, End::RootGone(Place::Guest)), "{end:?}");
}

/// No file of either is lost: not by a folder in its place, and not when the first one is back.
#[test]
fn another_folder_in_the_place_of_one_is_joined() {
    for side in [Place::Host, Place::Guest] {
        let world = World::new();
        let [root, other] = world.from(side);
        NAMES.iter().for_each(|name| world.host(name, name));
        let live = world.start();
        live.alike();
        live.until("the base is saved", || saved(&world) == 3);
        let moved = replace(root, "keep");
        let end = live.end();
        assert!(matches!(end, End::RootGone(at) if at == side), "{end:?}");
        let live = world.start();
        live.alike();
        for name in NAMES {
            assert_eq!(content(other, name).as_deref(), Some(name), "{side:?}");
        }
        fs::remove_file(other.path().join("f2")).unwrap();
        live.until("it is removed", || !root.path().join("f2").exists());
        live.until("the base is saved", || saved(&world) == 3);
        fs::remove_dir_all(root.path()).unwrap();
        fs::rename(&moved, root.path()).unwrap();
        live.end();
        let live = world.start();
        live.alike();
        for name in ["f1", "f2", "f3", "keep"] {
            assert!(root.path().join(name).exists(), "{side:?}: {name} is lost");
        }
        assert!(live.status().conflicts.is_empty());
    }
}

/// Also one that has files of the same names.
#[test]
fn another_folder_between_two_sessions_is_joined() {
    for side in [Place::Host, Place::Guest] {
        let world = World::new();
        let [root, other] = world.from(side);
        NAMES.iter().for_each(|name| world.host(name, name));
        let live = world.start();
        live.alike();
        live.stop();
        let moved = replace(root, "f1");
        fs::write(other.path().join("f4"), "f4").unwrap();
        let live = world.start();
        live.alike();
        live.stop();
        for name in ["f1", "f2", "f3", "f4"] {
            assert_eq!(content(other, name).as_deref(), Some(name), "{side:?}");
        }
        fs::remove_dir_all(moved).unwrap();
    }
}

/// A watch of the folder itself does not tell of that.
#[test]
fn a_folder_of_the_guest_whose_parent_is_replaced_is_joined() {
    let mut world = World::new();
    let parent = world.guest.path().join("parent");
    world.at = Some(parent.join("app"));
    let app = world.at.clone().unwrap();
    fs::create_dir_all(&app).unwrap();
    NAMES.iter().for_each(|name| world.host(name, name));
    let live = world.start();
    live.until("they arrive", || NAMES.iter().all(|name| app.join(name).exists()));
    fs::rename(&parent, parent.with_extension("old")).unwrap();
    fs::create_dir_all(&app).unwrap();
    fs::write(app.join("f1"), "f1").unwrap();
    let end = live.end();
    assert!(matches!(end, End::RootGone(Place::Guest)), "{end:?}");
    let live = world.start();
    live.until("they arrive again", || NAMES.iter().all(|name| app.join(name).exists()));
    assert_eq!(content(&world.host, "f2").as_deref(), Some("f2"));
    live.stop();
}

/// As of a guest whose folder is in memory: it is another one after its start.
#[test]
fn a_side_that_has_nothing_of_the_base_at_the_begin_removes_nothing() {
    let world = World::new();
    world.host("f1", "1");
    world.host("f2", "2");
    let live = world.start();
    live.alike();
    live.stop();
    for name in ["f1", "f2"] {
        fs::remove_file(world.guest.path().join(name)).unwrap();
    }
    let live = world.start();
    live.until("it halts", || live.status().phase == Phase::Halted(Place::Guest));
    world.guest("own", "made at boot");
    live.alike();
    assert_eq!(content(&world.host, "f1").as_deref(), Some("1"));
    assert_eq!(content(&world.guest, "f1").as_deref(), Some("1"));
    assert_eq!(content(&world.host, "own").as_deref(), Some("made at boot"));
}

#[test]
fn a_folder_of_the_host_that_became_a_symlink_is_not_followed() {
    let world = World::new();
    world.host("a", "1");
    let live = world.start();
    live.alike();
    let moved = world.host.path().with_extension("moved");
    fs::rename(world.host.path(), &moved).unwrap();
    symlink(&moved, world.host.path()).unwrap();
    world.guest("attack", "x");
    let end = live.end();
    assert!(matches!(end, End::RootGone(Place::Host) | End::HostFolder(_)), "{end:?}");
    let _ = fs::remove_file(moved.join("attack"));
    let end = world.start().end();
    assert!(matches!(end, End::HostFolder(_)), "{end:?}");
    assert!(!moved.join("attack").exists());
    fs::remove_file(world.host.path()).unwrap();
    fs::rename(&moved, world.host.path()).unwrap();
}
