//! Live folders of simulated guests, whose files are a folder of the daemon's state.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use banger_testkit::Home;

use crate::support::{home, run};

/// How long a test waits for a file.
const DEADLINE: Duration = Duration::from_secs(60);

fn project(home: &Home) -> PathBuf {
    let project = home.path().join("project");
    fs::create_dir_all(&project).unwrap();
    project
}

/// The file of the only guest.
fn in_guest(home: &Home, path: &str) -> Option<String> {
    let guests = fs::read_dir(home.path().join("state/sim-files")).ok()?;
    let guest = guests.flatten().next()?.path();
    fs::read_to_string(guest.join(path.trim_start_matches('/'))).ok()
}

/// Expects success.
#[track_caller]
fn done(home: &Home, line: &str) -> String {
    let run = run(home, line);
    assert_eq!(run.code, 0, "{line}: {}", run.err);
    run.out
}

#[track_caller]
fn refused(home: &Home, line: &str, code: i32, error: &str) {
    let run = run(home, line);
    assert!(run.code == code && run.err.contains(error), "{line}: {} {}", run.code, run.err);
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_folder_is_kept_alike_across_restarts_of_daemon_and_vm() {
    let home = home();
    let project = project(&home);
    fs::write(project.join("a.txt"), "one").unwrap();
    fs::write(project.join("skip.o"), "object").unwrap();
    let folder = format!("{}:/srv/app", project.display());
    done(&home, &format!("vm create --name web --sync {folder} --sync-ignore *.o"));
    done(&home, "vm sync web --wait");
    assert_eq!(in_guest(&home, "/srv/app/a.txt").as_deref(), Some("one"));
    assert_eq!(in_guest(&home, "/srv/app/skip.o"), None);
    // The guest's change arrives without a command.
    fs::write(home.path().join("new"), "of the guest").unwrap();
    done(&home, &format!("cp {}/new web:/srv/app/b.txt", home.path().display()));
    until("the guest's file arrives", || {
        fs::read_to_string(project.join("b.txt")).is_ok_and(|text| text == "of the guest")
    });
    let shown = done(&home, "vm show web");
    assert!(shown.contains("/srv/app: watching, 2 files"), "{shown}");
    done(&home, "daemon stop");
    fs::remove_file(project.join("b.txt")).unwrap();
    fs::write(project.join("a.txt"), "two").unwrap();
    done(&home, "vm sync web --wait");
    assert_eq!(in_guest(&home, "/srv/app/a.txt").as_deref(), Some("two"));
    assert_eq!(in_guest(&home, "/srv/app/b.txt"), None, "a removal is no new file");
    done(&home, "vm stop web");
    until("the reason is told", || {
        let stopped = done(&home, "vm sync web");
        stopped.contains("waiting") && stopped.contains("not running")
    });
    fs::write(project.join("c.txt"), "while it was stopped").unwrap();
    done(&home, "vm start web");
    done(&home, "vm sync web --wait");
    assert!(in_guest(&home, "/srv/app/c.txt").is_some());
    done(&home, "vm delete -f web");
    assert!(project.join("c.txt").exists());
    until("the state is removed", || {
        fs::read_dir(home.path().join("state/live-folders")).is_ok_and(|all| all.count() == 0)
    });
    home.finish();
}

#[test]
fn live_folders_come_and_go_while_the_vm_runs() {
    let home = home();
    let project = project(&home);
    fs::write(project.join("a"), "1").unwrap();
    done(&home, "vm create --name web");
    let path = project.display().to_string();
    done(&home, &format!("vm set web --sync {path}"));
    done(&home, "vm sync web --wait");
    assert!(in_guest(&home, "/root/project/a").is_some());
    let overlap = format!("vm set web --sync {path}:/root/project/inner");
    refused(&home, &overlap, 2, "overlap");
    refused(&home, "vm set web --unsync /nowhere", 2, "no live folder `/nowhere`");
    done(&home, &format!("vm set web --unsync {path}"));
    fs::write(project.join("b"), "2").unwrap();
    assert_eq!(done(&home, "vm sync web --json").trim(), "[]");
    assert_eq!(in_guest(&home, "/root/project/b"), None);
    assert!(in_guest(&home, "/root/project/a").is_some(), "all files stay");
    done(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn a_folder_that_vanished_removes_nothing() {
    let home = home();
    let project = project(&home);
    for name in ["a", "b"] {
        fs::write(project.join(name), name).unwrap();
    }
    done(&home, &format!("vm create --name web --sync {}", project.display()));
    done(&home, "vm sync web --wait");
    // Without a saved state nothing is known to be removed: the files would come back.
    let states = || fs::read_dir(home.path().join("state/live-folders")).into_iter().flatten();
    let has_file = |folder: fs::DirEntry| {
        fs::read_dir(folder.path()).is_ok_and(|all| {
            all.flatten().any(|file| file.path().extension().is_some_and(|end| end == "base"))
        })
    };
    until("the state is saved", || states().flatten().any(has_file));
    let aside = home.path().join("aside");
    fs::rename(&project, &aside).unwrap();
    refused(&home, "vm sync web --wait", 4, "halted");
    assert!(in_guest(&home, "/root/project/a").is_some());
    fs::create_dir(&project).unwrap();
    until("an empty folder halts", || {
        done(&home, "vm sync web").contains("lost its whole content")
    });
    assert!(in_guest(&home, "/root/project/b").is_some());
    fs::remove_dir(&project).unwrap();
    fs::rename(&aside, &project).unwrap();
    until("it goes on", || done(&home, "vm sync web").contains("watching"));
    done(&home, "vm delete -f web");
    home.finish();
}
