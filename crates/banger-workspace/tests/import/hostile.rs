//! A guest that wants to run programs on the host, or to write where it must not.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use banger_workspace::fetch::Limits;
use banger_workspace::pull::{Form, Which};
use banger_workspace::push::PushOptions;

use crate::local::{Liar, Local, Pair};
use crate::world::{chmod, git};

/// All that a command may do with a guest; the results do not matter.
fn everything(pair: &Pair, guest: &dyn banger_workspace::guest::Guest) {
    let limits = Limits::default();
    let _ = pair.open().status(guest);
    let _ = pair.open().push(guest, &PushOptions::default());
    let _ = pair.open().branch(guest, &limits, "try", "web");
    let mut workspace = pair.open();
    if let Ok(fetched) = workspace.fetch(guest, &limits, Which::All) {
        let _ = workspace.write(&fetched, Form::Patch, std::io::sink());
        let _ = workspace.write(&fetched, Form::Stat, std::io::sink());
        let _ = workspace.pull(&fetched, &|| {});
    }
}

/// Bytes of an answer with these files.
pub fn answer(head: &str, files: &[(&str, &str, &[u8])], pack: &[u8]) -> Vec<u8> {
    let mut bytes = format!("banger workspace 1\0{head}\0refs/heads/main\0\0").into_bytes();
    for (mode, object, path) in files {
        bytes.extend(format!("{mode} {object} 0\t").bytes());
        bytes.extend_from_slice(path);
        bytes.push(0);
    }
    bytes.push(0);
    bytes.extend_from_slice(pack);
    bytes
}

/// A repository to make objects in.
fn workshop(pair: &Pair) -> PathBuf {
    let folder = pair.world.host.parent().unwrap().join("workshop");
    fs::create_dir(&folder).unwrap();
    git(&folder, &["init", "-q"]);
    folder
}

fn run(folder: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    output.stdout
}

fn object(folder: &Path, kind: &str, content: &[u8]) -> String {
    let made = run(folder, &["hash-object", "-w", "-t", kind, "--literally", "--stdin"], content);
    String::from_utf8(made).unwrap().trim().to_owned()
}

fn packed(folder: &Path, objects: &[&str]) -> Vec<u8> {
    let list: String = objects.iter().flat_map(|id| [*id, "\n"]).collect();
    run(folder, &["pack-objects", "--stdout", "-q"], list.as_bytes())
}

/// Everything beside the store and the guest: names and contents.
fn outside(pair: &Pair) -> Vec<(PathBuf, Vec<u8>)> {
    let top = pair.world.host.parent().unwrap();
    let (mut found, mut folders) = (Vec::new(), vec![top.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let data = path.symlink_metadata().unwrap();
            if path == top.join("store") || path == pair.world.guest {
                continue;
            } else if data.is_dir() {
                folders.push(path);
            } else if data.is_file() {
                found.push((path.clone(), fs::read(&path).unwrap()));
            } else {
                found.push((path, b"special".to_vec()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn nothing_of_the_guests_repository_runs_on_the_host() {
    let pair = Pair::new();
    let (guest, host) = (pair.world.guest.clone(), pair.world.host.clone());
    let traps = host.parent().unwrap().join("traps");
    fs::create_dir(&traps).unwrap();
    // The guest's own commands may run there: they all fail to write here, since the trap is only
    // sprung by a program whose folder is the host's or the store's.
    let trap = traps.join("trap");
    let script = format!(
        "#!/bin/sh\ncase $PWD in {}*) ;; *) echo $PWD >>{};; esac\ncat 2>/dev/null\n",
        guest.display(),
        traps.join("sprung").display()
    );
    fs::write(&trap, script).unwrap();
    chmod(&trap, 0o755);
    let trap = trap.to_str().unwrap();
    for name in ["post-index-change", "reference-transaction", "post-checkout", "pre-commit"] {
        let hook = guest.join(".git/hooks").join(name);
        fs::create_dir_all(hook.parent().unwrap()).unwrap();
        fs::copy(trap, &hook).unwrap();
        chmod(&hook, 0o755);
    }
    for (name, value) in [
        ("core.fsmonitor", trap),
        ("core.hooksPath", traps.to_str().unwrap()),
        ("filter.evil.clean", trap),
        ("filter.evil.smudge", trap),
        ("diff.evil.textconv", trap),
        ("diff.evil.command", trap),
        ("diff.external", trap),
        ("core.pager", trap),
        ("core.sshCommand", trap),
        ("uploadpack.packObjectsHook", trap),
        ("gpg.program", trap),
        ("log.showSignature", "true"),
    ] {
        git(&guest, &["config", name, value]);
    }
    pair.guest(".gitattributes", "* filter=evil diff=evil\n");
    pair.guest(".lfsconfig", format!("[lfs]\nurl = ext::{trap}\n"));
    pair.guest("a", "changed\n");
    pair.world.write("b", "changed\n");
    everything(&pair, &Local);
    assert_eq!(pair.host("a").unwrap(), "changed\n");
    // The attributes are the host's now, the programs are not.
    assert!(pair.host(".gitattributes").is_some());
    pair.guest("a", "again\n");
    everything(&pair, &Local);
    let sprung = fs::read_to_string(traps.join("sprung")).unwrap_or_default();
    assert_eq!(sprung, "", "a program ran on the host");
}

#[test]
fn paths_out_of_the_work_tree_are_never_written() {
    let pair = Pair::new();
    let shop = workshop(&pair);
    let evil = object(&shop, "blob", b"evil\n");
    let head = git(&pair.world.host, &["rev-parse", "HEAD"]).trim().to_owned();
    let top = pair.world.host.parent().unwrap().to_owned();
    let before = outside(&pair);
    let absolute = format!("{}/written", top.display());
    for path in [
        "../written",
        "/written",
        &absolute,
        "x/../../written",
        ".git/hooks/post-checkout",
        ".GIT/config",
        ".git/config",
        "x/.git/config",
        "git~1/config",
        ".git ",
        ".gitmodules",
        ".g\u{200c}it/config",
        "./x",
        "x//y",
        "..",
    ] {
        let pack = packed(&shop, &[&evil]);
        let liar = Liar(answer(&head, &[("100644", &evil, path.as_bytes())], &pack));
        everything(&pair, &liar);
        // The files that are missing in the answer were deleted in this guest: bring them back.
        pair.world.git(&["checkout", "-q", "-f", "main"]);
        let left = pair.open().status(&liar).unwrap().guest.left;
        assert_eq!(left.len(), 1, "{path}");
    }
    let now: Vec<_> = outside(&pair)
        .into_iter()
        .filter(|(path, _)| !path.starts_with(pair.world.host.join(".git")))
        .collect();
    let expected: Vec<_> = before
        .into_iter()
        .filter(|(path, _)| !path.starts_with(pair.world.host.join(".git")))
        .collect();
    assert_eq!(now, expected);
    assert!(!top.join("written").exists());
    assert!(!pair.world.host.join(".git/hooks/post-checkout").exists());
}

#[test]
fn a_link_is_no_way_out() {
    let pair = Pair::new();
    let outside = pair.world.host.parent().unwrap().join("outside");
    fs::create_dir(&outside).unwrap();
    // First a link, then a file behind it.
    fs::remove_dir_all(pair.world.guest.join("dir")).unwrap();
    symlink(&outside, pair.world.guest.join("dir")).unwrap();
    everything(&pair, &Local);
    assert!(pair.world.host.join("dir").is_symlink());
    fs::remove_file(pair.world.guest.join("dir")).unwrap();
    pair.guest("dir/e", "evil\n");
    everything(&pair, &Local);
    assert!(pair.world.host.join("dir").is_dir() && !pair.world.host.join("dir").is_symlink());
    // Both at once: git has no such tree, but a listing can say so.
    let shop = workshop(&pair);
    let link = object(&shop, "blob", outside.to_str().unwrap().as_bytes());
    let evil = object(&shop, "blob", b"evil\n");
    let head = git(&pair.world.host, &["rev-parse", "HEAD"]).trim().to_owned();
    let pack = packed(&shop, &[&link, &evil]);
    let files: [(&str, &str, &[u8]); 2] =
        [("120000", &link, b"way"), ("100644", &evil, b"way/out")];
    everything(&pair, &Liar(answer(&head, &files, &pack)));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn objects_that_are_not_what_they_say_are_refused() {
    let pair = Pair::new();
    let shop = workshop(&pair);
    let (one, other) = (object(&shop, "blob", b"one\n"), object(&shop, "blob", b"other\n"));
    let head = git(&pair.world.host, &["rev-parse", "HEAD"]).trim().to_owned();
    let fetch = |bytes: Vec<u8>, limits: &Limits| {
        let mut workspace = pair.open();
        workspace.fetch(&Liar(bytes), limits, Which::Own).map(drop).unwrap_err()
    };
    let limits = Limits::default();
    let file = |id: &str, pack: &[u8]| answer(&head, &[("100644", id, b"new")], pack);
    // Another object, none, no pack, half a pack.
    let error = fetch(file(&one, &packed(&shop, &[&other])), &limits);
    assert!(error.message.contains("lacks the content"), "{error:?}");
    for pack in
        [b"".to_vec(), b"PACK".to_vec(), vec![0; 100], packed(&shop, &[&one])[..30].to_vec()]
    {
        let error = fetch(file(&one, &pack), &limits);
        assert!(error.message.contains("git refuses the objects"), "{error:?}");
    }
    // A tree where a file should be.
    let tree = object(&shop, "tree", b"");
    let error = fetch(file(&tree, &packed(&shop, &[&tree])), &limits);
    assert!(error.message.contains("lacks the content"), "{error:?}");
    // More than the limits: of the pack, and of what it unpacks to.
    let mut noise = Vec::new();
    let mut state: u32 = 1;
    for _ in 0..100_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.push((state >> 24) as u8);
    }
    let large = object(&shop, "blob", &noise);
    let small = Limits { pack_bytes: 50_000, ..limits };
    let error = fetch(file(&large, &packed(&shop, &[&large])), &small);
    assert!(error.message.contains("git refuses") && error.hint().is_some(), "{error:?}");
    let zeros = object(&shop, "blob", &vec![0; 20 << 20]);
    let small = Limits { file_bytes: 10 << 20, ..limits };
    let error = fetch(file(&zeros, &packed(&shop, &[&zeros])), &small);
    assert!(error.message.contains("have 20 MiB"), "{error:?}");
}

#[test]
fn commits_with_other_repositories_or_bad_names_make_no_branch() {
    let pair = Pair::new();
    let guest = pair.world.guest.clone();
    let id = git(&guest, &["rev-parse", "HEAD"]).trim().to_owned();
    let limits = Limits::default();
    let branch = |name: &str| pair.open().branch(&Local, &limits, name, "web").unwrap_err();
    // In history only.
    git(&guest, &["update-index", "--add", "--cacheinfo", &format!("160000,{id},sub")]);
    git(&guest, &["commit", "-q", "-m", "a submodule"]);
    git(&guest, &["rm", "-q", "--cached", "sub"]);
    git(&guest, &["commit", "-q", "-m", "and away"]);
    let error = branch("one");
    assert!(error.message.contains("a commit has `sub`"), "{error:?}");
    git(&guest, &["reset", "-q", "--hard", &id]);
    pair.guest(".gitmodules", "[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c evil\n");
    git(&guest, &["add", "-A"]);
    git(&guest, &["commit", "-q", "-m", "an address"]);
    let error = branch("two");
    assert!(error.message.contains("is the list of submodules"), "{error:?}");
    git(&guest, &["reset", "-q", "--hard", &id]);
    // A tree that git itself would not make.
    let blob = object(&guest, "blob", b"evil\n");
    let raw: Vec<u8> =
        (0..20).map(|n| u8::from_str_radix(&blob[2 * n..2 * n + 2], 16).unwrap()).collect();
    for name in [".git", ".GIT", "..", "a/b"] {
        let tree = [format!("100644 {name}\0").as_bytes(), &raw].concat();
        let tree = object(&guest, "tree", &tree);
        let commit = git(&guest, &["commit-tree", "-p", &id, "-m", "x", &tree]).trim().to_owned();
        let back = git(&guest, &["commit-tree", "-p", &commit, "-m", "y", "HEAD^{tree}"]);
        git(&guest, &["update-ref", "refs/heads/main", back.trim()]);
        let error = branch("three");
        assert!(error.message.contains("git refuses the objects"), "{name}: {error:?}");
        git(&guest, &["update-ref", "refs/heads/main", &id]);
    }
    assert_eq!(pair.world.git(&["branch", "--list"]), "* main\n");
    // The host has none of all that.
    let found = Command::new("git")
        .args(["cat-file", "-e", &blob])
        .current_dir(&pair.world.host)
        .status()
        .unwrap();
    assert!(!found.success());
}

#[test]
fn an_alternate_of_the_guest_is_not_one_of_the_host() {
    let pair = Pair::new();
    let secret = pair.world.host.parent().unwrap().join("secret");
    fs::create_dir(&secret).unwrap();
    git(&secret, &["init", "-q"]);
    let id = object(&secret, "blob", b"of another repository of this host\n");
    let head = git(&pair.world.host, &["rev-parse", "HEAD"]).trim().to_owned();
    let empty = packed(&secret, &[]);
    let liar = Liar(answer(&head, &[("100644", &id, b"new")], &empty));
    let error = pair.open().fetch(&liar, &Limits::default(), Which::Own).map(drop).unwrap_err();
    assert!(error.message.contains("lacks the content"), "{error:?}");
}
