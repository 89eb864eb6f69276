//! What is in the way of the host's changes in the guest's work tree stays there.

use std::fs;
use std::process::Command;

use banger_workspace::push::PushOptions;

use crate::local::Pair;
use crate::pull::tree;
use crate::world::git;

#[test]
fn ignored_files_of_the_guest_are_not_replaced() {
    // A file, a file where a folder comes, a file in a folder where a file comes.
    for (there, here) in [("tool.o", "tool.o"), ("x.o", "x.o/inner"), ("dir/built.o", "dir")] {
        let pair = Pair::new();
        pair.guest(there, "built there\n");
        if here == "dir" {
            fs::remove_dir_all(pair.world.host.join("dir")).unwrap();
        }
        pair.world.write(here, "from here\n");
        pair.world.write("b", "beside it\n");
        pair.world.git(&["add", "-f", "--all", here]);
        let error = pair.push(&PushOptions::default()).unwrap_err();
        assert!(error.message.contains("is in the way"), "{here}: {error:?}");
        let named = if here == "dir" { "`dir`" } else { &format!("`{there}`") };
        assert!(error.message.starts_with(named) && error.causes.is_empty(), "{error:?}");
        assert_eq!(pair.in_guest(there).unwrap(), "built there\n");
        assert_eq!(pair.in_guest("b").unwrap(), "b\nline 2\nline 3\n");
    }
}

#[test]
fn what_is_in_the_way_of_a_forced_file_is_replaced_only_by_name() {
    let force = |paths: &[&str]| PushOptions {
        force: paths.iter().map(|path| path.as_bytes().to_vec()).collect(),
        ..PushOptions::default()
    };
    // A file in the place of its folder, a folder in its place, a link in the place of its folder.
    for (makes, named) in [
        ("rm -r dir; echo precious >dir", ["dir/e", "dir"]),
        ("rm b; mkdir b; echo precious >b/in", ["b", "b/in"]),
        ("rm -r dir; mkdir other; echo precious >other/e; ln -s other dir", ["dir/e", "dir"]),
    ] {
        let pair = Pair::new();
        let [file, other] = named;
        let mut made = Command::new("sh");
        made.args(["-euc", makes]);
        assert!(made.current_dir(&pair.world.guest).status().unwrap().success());
        pair.world.write(file, "host\n");
        let before = tree(&pair.world.guest);
        for options in [PushOptions::default(), force(&[file])] {
            let error = pair.push(&options).unwrap_err();
            assert!(error.causes.contains(&other.to_owned()), "{makes}: {error:?}");
            assert_eq!(tree(&pair.world.guest), before, "{makes}");
        }
        assert_eq!(pair.push(&force(&named)).unwrap(), 2, "{makes}");
        assert_eq!(pair.in_guest(file).as_deref(), Some("host\n"), "{makes}");
        let kept = pair.in_guest("other/e");
        assert!(kept.is_none_or(|kept| kept == "precious\n"), "{makes}");
    }
}

#[test]
fn a_file_that_would_be_in_another_repository_of_the_guest_stays_here() {
    let pair = Pair::new();
    pair.guest("nest/own", "x");
    git(&pair.world.guest.join("nest"), &["init", "-q"]);
    pair.world.write("nest/z", "host\n");
    pair.world.git(&["add", "-A"]);
    let error = pair.push(&PushOptions::default()).unwrap_err();
    assert!(error.message.starts_with("`nest` in"), "{error:?}");
    assert!(error.message.contains("a repository of its own"), "{error:?}");
    assert_eq!(pair.in_guest("nest/z"), None);
    // A file in the place of a folder with one.
    let pair = Pair::new();
    pair.guest("dir/in/own", "x");
    git(&pair.world.guest.join("dir/in"), &["init", "-q"]);
    fs::remove_dir_all(pair.world.host.join("dir")).unwrap();
    pair.world.write("dir", "host\n");
    pair.world.git(&["add", "-A"]);
    let error = pair.push(&PushOptions::default()).unwrap_err();
    assert!(error.message.starts_with("`dir/in` in"), "{error:?}");
    assert!(error.message.contains("a repository of its own"), "{error:?}");
    assert_eq!(pair.in_guest("dir/in/own").as_deref(), Some("x"));
}
