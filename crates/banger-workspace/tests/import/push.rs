//! The host's changes go into the guest's work tree, where it has not changed the same files.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use banger_api::{ApiError, ErrorCode};
use banger_workspace::Options;
use banger_workspace::guest::{Guest, Talk};
use banger_workspace::push::PushOptions;

use crate::local::{Local, Pair, settled};
use crate::world::{World, chmod, git};

impl Pair {
    pub fn push(&self, options: &PushOptions) -> Result<usize, ApiError> {
        let before = settled(&self.world.guest);
        let here = settled(&self.world.host);
        let pushed = self.open().push(&Local, options);
        assert_eq!(settled(&self.world.guest), before, "the guest's repository was changed");
        assert_eq!(settled(&self.world.host), here, "the host's repository was changed");
        pushed.map(|changes| changes.len())
    }

    pub fn in_guest(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.world.guest.join(path)).ok()
    }
}

#[test]
fn changes_of_the_host_arrive_beside_those_of_the_guest() {
    let pair = Pair::new();
    let host = pair.world.host.clone();
    pair.guest("a", "guest\n");
    pair.guest("built.o", "ignored\n");
    pair.world.write("b", "host\n");
    fs::remove_file(host.join("c")).unwrap();
    fs::remove_dir_all(host.join("dir")).unwrap();
    pair.world.write("dir", "a file now\n");
    fs::remove_file(host.join("d")).unwrap();
    pair.world.write("d/inner", b"\0binary\xff");
    pair.world.chmod("run", 0o644);
    pair.world.git(&["add", "-A"]);
    pair.world.write("notes", "not tracked\n");
    assert_eq!(pair.push(&PushOptions::default()).unwrap(), 8);
    assert_eq!(pair.in_guest("a").unwrap(), "guest\n");
    assert_eq!(pair.in_guest("b").unwrap(), "host\n");
    assert_eq!(pair.in_guest("c"), None);
    assert_eq!(pair.in_guest("dir").unwrap(), "a file now\n");
    assert_eq!(fs::read(pair.world.guest.join("d/inner")).unwrap(), b"\0binary\xff");
    assert_eq!(pair.in_guest("built.o").unwrap(), "ignored\n");
    assert_eq!(pair.in_guest("notes"), None);
    let mode = |path: &str| {
        fs::metadata(pair.world.guest.join(path)).unwrap().permissions().mode() & 0o7777
    };
    // As git makes files with the user's mask.
    assert_eq!((mode("run"), mode("b")), (0o644, 0o644));
    assert_eq!(pair.status(), ["gM a"]);
    assert_eq!(pair.push(&PushOptions::default()).unwrap(), 0);
    let options = PushOptions { include_untracked: true, ..PushOptions::default() };
    assert_eq!(pair.push(&options).unwrap(), 1);
    assert_eq!(pair.in_guest("notes").unwrap(), "not tracked\n");
    // They belong to it from now on.
    fs::remove_file(host.join("notes")).unwrap();
    assert_eq!(pair.status(), ["gM a", "hD notes"]);
}

#[test]
fn changes_of_the_guest_are_replaced_only_by_name() {
    let pair = Pair::new();
    for (path, content) in [("a", "guest\n"), ("dir/e", "guest\n")] {
        pair.guest(path, content);
        pair.world.write(path, "host\n");
    }
    pair.world.write("b", "host\n");
    let error = pair.push(&PushOptions::default()).unwrap_err();
    assert_eq!((error.code, error.causes.len()), (ErrorCode::WrongState, 2));
    assert_eq!(pair.in_guest("b").unwrap(), "b\nline 2\nline 3\n", "half of it was sent");
    let force = |paths: &[&str]| PushOptions {
        force: paths.iter().map(|path| path.as_bytes().to_vec()).collect(),
        ..PushOptions::default()
    };
    let error = pair.push(&force(&["a"])).unwrap_err();
    assert_eq!(error.causes, ["dir/e"]);
    let error = pair.push(&force(&["a", "dir/e", "b"])).unwrap_err();
    assert!(error.message.contains("`b` was not changed on both sides"), "{error:?}");
    let whole = pair.world.host.join("dir/e").display().to_string();
    let error = pair.push(&force(&["./a", "/dir/e"])).unwrap_err();
    assert!(error.message.contains("`/dir/e` was not changed"), "{error:?}");
    assert_eq!(pair.push(&force(&["./a", &whole])).unwrap(), 3);
    assert_eq!(pair.in_guest("a").unwrap(), "host\n");
    assert_eq!(pair.status(), Vec::<String>::new());
}

/// Counts the commands in the guest.
struct Counted(Cell<usize>);

impl Guest for Counted {
    fn start(&self, command: &[OsString]) -> Result<Talk, ApiError> {
        self.0.set(self.0.get() + 1);
        Local.start(command)
    }
}

#[test]
fn a_push_needs_one_command_unless_the_guest_changed_the_same_files() {
    let pair = Pair::new();
    let push = || {
        let guest = Counted(Cell::new(0));
        let pushed = pair.open().push(&guest, &PushOptions::default());
        (pushed.map_or(99, |changes| changes.len()), guest.0.get())
    };
    assert_eq!(push(), (0, 0));
    pair.guest("a", "guest\n");
    pair.guest("new of the guest", "guest\n");
    pair.world.write("b", "host\n");
    fs::remove_file(pair.world.host.join("c")).unwrap();
    pair.world.write("new/of/the host", "host\n");
    pair.world.git(&["add", "-A"]);
    assert_eq!(push(), (3, 1));
    assert_eq!((pair.in_guest("c"), pair.in_guest("b").as_deref()), (None, Some("host\n")));
    assert_eq!(pair.in_guest("new/of/the host").as_deref(), Some("host\n"));
    assert_eq!(pair.status(), ["gM a", "gA new of the guest"]);
    // The same change on both sides, beside one of the host.
    pair.guest("d", "both\n");
    pair.world.write("d", "both\n");
    pair.world.write("b", "host again\n");
    assert_eq!(push(), (1, 3));
    // Different ones: named by the second look.
    pair.guest("b", "guest\n");
    pair.world.write("b", "host at last\n");
    assert_eq!(push(), (99, 2));
    assert_eq!(pair.in_guest("b").as_deref(), Some("guest\n"));
}

/// Keeps the record as it is when a command in the guest begins.
struct Kept<'a>(&'a Path);

impl Guest for Kept<'_> {
    fn start(&self, command: &[OsString]) -> Result<Talk, ApiError> {
        for name in ["record", "sending"] {
            let from = self.0.join(name);
            if from.exists() {
                fs::copy(&from, self.0.join(format!("{name}.then"))).unwrap();
            }
        }
        Local.start(command)
    }
}

#[test]
fn what_a_killed_push_has_sent_is_no_change_of_the_guest() {
    let pair = Pair::new();
    // A small push, and one with a new file, which goes through an index.
    for paths in [&["a", "b"][..], &["c", "new"]] {
        paths.iter().for_each(|path| pair.world.write(path, "sent\n"));
        pair.world.git(&["add", "-A"]);
        let guest = Kept(pair.store());
        pair.open().push(&guest, &PushOptions::default()).unwrap();
        assert!(!pair.store().join("sending").exists());
        // As if the client had been killed then: the guest's command comes to its end.
        for name in ["record", "sending"] {
            fs::rename(pair.store().join(format!("{name}.then")), pair.store().join(name)).unwrap();
        }
        pair.world.write(paths[0], "again\n");
        pair.guest("d", "guest\n");
        if paths[0] == "a" {
            assert_eq!(pair.status(), ["gM d", "hM a"]);
        }
        assert_eq!(pair.open().push(&Local, &PushOptions::default()).unwrap().len(), 1);
        assert_eq!(pair.in_guest(paths[0]).unwrap(), "again\n");
    }
}

#[test]
fn a_push_removes_what_killed_ones_have_left() {
    let pair = Pair::new();
    // No process has the first number (PID_MAX_LIMIT of Linux is 4,194,304).
    let left = [".git/banger.4194305/objects/x".to_owned(), ".git/banger.0/x".to_owned()];
    let running = format!(".git/banger.{}/x", std::process::id());
    for path in left.iter().chain([&running]) {
        pair.guest(path, "x");
    }
    pair.world.write("a", "host\n");
    let pushed = pair.open().push(&Local, &PushOptions::default()).unwrap();
    assert_eq!(pushed.len(), 1);
    assert_eq!(left.map(|path| pair.in_guest(&path)), [None, None]);
    assert!(pair.in_guest(&running).is_some(), "another push may be at work");
}

#[test]
fn files_are_replaced_where_the_guest_has_them_as_they_were() {
    let pair = Pair::new();
    let there = |path: &str| pair.world.guest.join(path);
    let mode = |path: &str| fs::metadata(there(path)).unwrap().permissions().mode() & 0o7777;
    // Content, mode, both, and a name that is no word.
    pair.world.write("-odd\n name", "one\n");
    pair.world.git(&["add", "-A"]);
    assert_eq!(pair.push(&PushOptions::default()).unwrap(), 1);
    pair.world.write("-odd\n name", "two\n");
    pair.world.write("dir/e", "");
    pair.world.chmod("dir/f", 0o755);
    pair.world.write("run", "#!/bin/false\n");
    pair.world.chmod("run", 0o644);
    assert_eq!(pair.push(&PushOptions::default()).unwrap(), 4);
    assert_eq!(pair.in_guest("-odd\n name").as_deref(), Some("two\n"));
    assert_eq!(pair.in_guest("dir/e").as_deref(), Some(""));
    assert_eq!(pair.in_guest("run").as_deref(), Some("#!/bin/false\n"));
    assert_eq!((mode("dir/f"), mode("run"), mode("dir/e")), (0o755, 0o644, 0o644));
    assert_eq!(pair.status(), [""; 0]);
    let left = fs::read_dir(there(".git")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.filter(|name| name.as_bytes().starts_with(b"banger")).count(), 0);
    // What the guest did to the file, its mode or its folder stays.
    type Way = fn(&Path);
    let ways: [(&str, Way); 4] = [
        ("a", |guest| fs::remove_file(guest.join("a")).unwrap()),
        ("b", |guest| chmod(&guest.join("b"), 0o755)),
        ("c", |guest| becomes_link(&guest.join("c"))),
        ("dir/e", |guest| becomes_link(&guest.join("dir"))),
    ];
    for (path, change) in ways {
        let pair = Pair::new();
        change(&pair.world.guest);
        pair.world.write(path, "host\n");
        let error = pair.push(&PushOptions::default()).unwrap_err();
        assert_eq!(error.code, ErrorCode::WrongState, "{path}: {error:?}");
        let here = pair.in_guest(path);
        assert_ne!(here.as_deref(), Some("host\n"), "{path}");
    }
}

fn becomes_link(path: &Path) {
    let moved = path.with_extension("moved");
    fs::rename(path, &moved).unwrap();
    symlink(moved, path).unwrap();
}

#[test]
fn any_names_and_any_number_of_them_arrive() {
    let pair = Pair::new();
    let odd: [&[u8]; 6] = [b"=%s", b"-n", b"a\\0101\nb", b"\xff\xfe", b"with 'quotes\" $x", b"0 1"];
    let path = |name: &[u8]| pair.world.host.join(OsStr::from_bytes(name));
    for name in odd {
        fs::write(path(name), "odd\n").unwrap();
    }
    pair.world.git(&["add", "-A"]);
    assert_eq!(pair.push(&PushOptions::default()).unwrap(), odd.len());
    for name in odd {
        let there = pair.world.guest.join(OsStr::from_bytes(name));
        assert_eq!(fs::read_to_string(there).unwrap(), "odd\n");
    }
    // More than arguments of a command hold.
    for number in 0..500 {
        pair.world.write(format!("many/{number:0100}"), "many\n");
    }
    fs::remove_file(path(b"-n")).unwrap();
    pair.world.git(&["add", "-A"]);
    assert_eq!(pair.push(&PushOptions::default()).unwrap(), 501);
    assert_eq!(fs::read_dir(pair.world.guest.join("many")).unwrap().count(), 500);
    assert!(!pair.world.guest.join("-n").exists());
    assert_eq!(pair.status(), [""; 0]);
}

#[test]
fn the_guests_own_settings_decide_about_its_files() {
    let pair = Pair::new();
    git(&pair.world.guest, &["config", "core.autocrlf", "true"]);
    git(&pair.world.guest, &["config", "core.splitIndex", "true"]);
    pair.world.write("b", "host\n");
    assert_eq!(pair.push(&PushOptions::default()).unwrap(), 1);
    assert_eq!(pair.in_guest("b").unwrap(), "host\r\n");
    assert_eq!(pair.status(), Vec::<String>::new());
}

#[test]
fn what_was_sent_without_a_merge_comes_back_as_one() {
    // Run, edit inside, commit inside, edit outside, push, pull.
    let world = World::new();
    world.write("src/main.c", "int main(void) { return 0; }\n");
    world.write("Makefile", "all:\n\ttrue\n");
    world.commit("first");
    world.write("Makefile", "all:\n\tfalse\n");
    let pair = Pair::of(world, Options::default());
    pair.guest("src/main.c", "int main(void) { return 1; }\n");
    git(&pair.world.guest, &["commit", "-q", "-a", "-m", "work"]);
    pair.world.write("Makefile", "all:\n\techo\n");
    chmod(&pair.world.host.join("Makefile"), 0o755);
    assert_eq!(pair.status(), ["gM src/main.c", "hM Makefile"]);
    assert_eq!(pair.push(&PushOptions::default()).unwrap(), 1);
    assert_eq!(pair.in_guest("Makefile").unwrap(), "all:\n\techo\n");
    let limits = banger_workspace::fetch::Limits::default();
    let mut workspace = pair.open();
    let fetched = workspace.fetch(&Local, &limits, banger_workspace::pull::Which::Own).unwrap();
    workspace.pull(&fetched, &|| {}).unwrap();
    drop(workspace);
    assert_eq!(pair.host("src/main.c").unwrap(), "int main(void) { return 1; }\n");
    assert_eq!(pair.status(), Vec::<String>::new());
}

#[test]
fn an_edit_of_the_guest_at_the_same_time_is_kept() {
    let pair = Pair::new();
    let names: Vec<String> = (10..26).map(|number| format!("f{number}")).collect();
    names.iter().for_each(|name| pair.world.write(name, "one\n"));
    pair.world.git(&["add", "-A"]);
    assert_eq!(pair.push(&PushOptions::default()).unwrap(), 16);
    // Far from the first one: the watcher has written long before their turn on a busy host too.
    for (round, edited) in ["f25", "f24", "f23"].into_iter().enumerate() {
        let host = format!("host {round}\n");
        names.iter().for_each(|name| pair.world.write(name, &host));
        // A watcher: when the first file is new, it writes another.
        let (first, path) = (pair.world.guest.join("f10"), pair.world.guest.join(edited));
        let (expected, edit) = (host.clone(), format!("edit {round}\n"));
        let text = edit.clone();
        let watcher = std::thread::spawn(move || {
            while fs::read_to_string(&first).unwrap_or_default() != expected {}
            let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        });
        let pushed = pair.open().push(&Local, &PushOptions::default());
        watcher.join().unwrap();
        let there = pair.in_guest(edited).unwrap();
        assert!(there.ends_with(&edit), "{there:?}, {pushed:?}");
        // All is sent, or that file is a conflict; what was sent before is no change of the guest.
        let status = pair.status();
        let conflict = [format!("C {edited}")];
        let left: Vec<_> = status.iter().filter(|line| line.starts_with(['g', 'C'])).collect();
        assert!(
            left.is_empty() || left == [&conflict[0]] || left == [&format!("gM {edited}")],
            "{status:?}"
        );
        let force = PushOptions { force: vec![edited.into()], ..PushOptions::default() };
        let forced = if left == [&conflict[0]] { force } else { PushOptions::default() };
        pair.open().push(&Local, &forced).unwrap();
        pair.guest(edited, &host);
        assert_eq!(pair.status(), Vec::<String>::new());
    }
}
