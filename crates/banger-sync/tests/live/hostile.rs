//! A guest whose side answers as it likes, and one that plants symlinks on the host.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;

use banger_sync::End;
use banger_sync_side::{Digest, Entry, Frames, Kind, Reply, Request, Stamp};
use sha1::{Digest as _, Sha1};

use crate::world::{World, content};

fn stamp(kind: Kind, size: u64) -> Stamp {
    Stamp { kind, size, inode: size + 2, mtime_ns: 1, ctime_ns: 1 }
}

fn entry(name: &[u8], kind: Kind, target: &[u8]) -> Entry {
    Entry { name: name.to_vec(), stamp: stamp(kind, 4), target: target.to_vec() }
}

/// Serves made-up folders; every file contains `evil`.
fn serve(folders: BTreeMap<Vec<u8>, Vec<Entry>>) -> UnixStream {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let (mut frames, mut piece) = (Frames::default(), vec![0; 65536]);
        let mut left = 0;
        loop {
            let mut out = Vec::new();
            while let Some(frame) = frames.next_frame().unwrap() {
                let file = stamp(Kind::File, 4);
                let digest = Digest::from(Sha1::digest(b"evil"));
                let hashed = Reply::Hashed { stamp: file, digest, now_ns: u64::MAX };
                let done = Reply::Done { stamp: Some(file), now_ns: 5 };
                match Request::decode(frame).unwrap() {
                    Request::List { path } => {
                        if let Some(entries) = folders.get(&path) {
                            Reply::Entries(entries.clone()).encode(&mut out);
                        }
                        Reply::Listed { now_ns: 5, watched: true }.encode(&mut out);
                    }
                    Request::Hash { .. } => hashed.encode(&mut out),
                    Request::Read { .. } => {
                        Reply::Data(b"evil".to_vec()).encode(&mut out);
                        hashed.encode(&mut out);
                    }
                    Request::Write { size: 0, .. } => done.encode(&mut out),
                    Request::Write { size, .. } => left = size,
                    Request::Data(bytes) => {
                        left -= bytes.len() as u64;
                        if left == 0 {
                            done.encode(&mut out);
                        }
                    }
                    _ => done.encode(&mut out),
                }
            }
            if theirs.write_all(&out).is_err() {
                return;
            }
            match theirs.read(&mut piece) {
                Ok(0) | Err(_) => return,
                Ok(length) => frames.push(&piece[..length]),
            }
        }
    });
    ours
}

#[test]
fn no_name_or_symlink_of_a_guest_leads_out_of_the_folder() {
    let outside = tempfile::tempdir().unwrap();
    let world = World::new();
    // What a guest could have planted earlier, or a user made.
    symlink(outside.path(), world.host.path().join("link")).unwrap();
    let target = outside.path().as_os_str().as_encoded_bytes();
    let root = vec![
        entry(b"..", Kind::Folder, b""),
        entry(b"../up", Kind::File, b""),
        entry(b"a/b", Kind::File, b""),
        entry(b"", Kind::File, b""),
        entry(b".git", Kind::Folder, b""),
        entry(b".GIT", Kind::Folder, b""),
        entry(b"link", Kind::Folder, b""),
        entry(b"absolute", Kind::Link, target),
        entry(b"relative", Kind::Link, b"../../etc"),
        entry(b"twice", Kind::Link, b"here/.."),
        entry(b"here", Kind::Link, b"."),
        entry(b"device", Kind::Other, b""),
        entry(b"good", Kind::File, b""),
        entry(b"zzz", Kind::Folder, b""),
    ];
    let inner = vec![entry(b"planted", Kind::File, b""), entry(b"config", Kind::File, b"")];
    let mut folders = BTreeMap::from([(Vec::new(), root)]);
    for name in ["..", ".git", ".GIT", "link", "zzz"] {
        folders.insert(name.as_bytes().to_vec(), inner.clone());
    }
    let live = world.start_with(serve(folders));
    live.until("the good file arrives", || {
        content(&world.host, "zzz/planted").as_deref() == Some("evil")
    });
    assert_eq!(content(&world.host, "good").as_deref(), Some("evil"));
    let mut names: Vec<_> = fs::read_dir(world.host.path()).unwrap().flatten().collect();
    names.sort_by_key(fs::DirEntry::file_name);
    let names: Vec<_> = names.iter().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["good", "here", "link", "zzz"]);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    live.stop();
}

#[test]
fn answers_that_do_not_fit_end_the_session() {
    for bytes in [b"\xff\xff\xff\xff".to_vec(), b"\x01\x00\x00\x00\x63".to_vec(), {
        let mut out = Vec::new();
        // For the folder's identity, and where a list belongs.
        for _ in 0..2 {
            Reply::Done { stamp: None, now_ns: 1 }.encode(&mut out);
        }
        out
    }] {
        let world = World::new();
        world.host("a", "1");
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&bytes).unwrap();
        let end = world.start_with(ours).end();
        assert!(matches!(end, End::Failed(_)), "{end:?}");
        assert_eq!(content(&world.host, "a").as_deref(), Some("1"));
    }
}

/// The folder of a file is exchanged for a symlink again and again while the guest writes to it.
#[test]
fn a_folder_that_becomes_a_symlink_is_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let world = World::new();
    world.guest("d/file", "0");
    let live = world.start();
    live.alike();
    let (folder, aside) = (world.host.path().join("d"), world.host.path().join("real"));
    for round in 0..50 {
        // The session makes folders of its own meanwhile, so each of these may fail.
        let _ = fs::rename(&folder, &aside);
        let _ = symlink(outside.path(), &folder);
        world.guest("d/file", &format!("{round}"));
        world.guest(&format!("d/new-{round}"), "new");
        std::thread::yield_now();
        let _ = fs::remove_file(&folder);
        let _ = fs::rename(&aside, &folder);
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    live.stop();
}
