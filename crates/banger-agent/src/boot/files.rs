//! The files the host wants in the guest: keys, git identity, whatever it syncs.

use std::io;

use banger_agent_proto::boot::{GuestFile, WriteWhen};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::fs::FileType;

use super::identity;
use super::log::BootLog;
use crate::beneath::{Folder, Owner, components, split_last};
use crate::fault::{Context, Fault};
use crate::inside::Inside as _;

/// Maximum size of a file that a line is added to, in bytes.
const MAX_LINES: u64 = 1 << 20;

/// Writes each file; one that cannot be written is noted and does not keep the others from it.
pub fn write(root: &Folder, files: &[GuestFile], log: &mut BootLog) {
    for file in files {
        log.note(write_one(root, file));
    }
}

fn write_one(root: &Folder, file: &GuestFile) -> Result<(), Fault> {
    let what = || format!("cannot write `{}`", file.path);
    components(file.path.as_bytes()).context(what)?;
    let (parent, name) = split_last(file.path.as_bytes())
        .filter(|_| file.path.starts_with('/'))
        .ok_or_else(|| Fault::new(format!("`{}` is no absolute path of a file", file.path)))?;
    let content = BASE64
        .decode(&file.content)
        .map_err(|_| Fault::new(format!("the content for `{}` is not base64", file.path)))?;
    if matches!(file.when, WriteWhen::Block | WriteWhen::BlockInFile | WriteWhen::GitVariables) {
        return identity::put_part(root, file, &content);
    }
    let owner = Owner { uid: file.uid, gid: file.gid };
    let folder = root.make_inside(parent, owner, folder_mode(file.mode))?;
    if file.when == WriteWhen::Absent && folder.kind_of(name).is_some() {
        return Ok(());
    }
    let content = match file.when {
        WriteWhen::Line => match with_line(&folder, name, &content).context(what)? {
            Some(content) => content,
            None => return Ok(()),
        },
        _ => content,
    };
    folder.put(name, &content, owner, file.mode).context(what)
}

/// The content of a file with `line` appended; `None` if the file has it.
fn with_line(folder: &Folder, name: &[u8], line: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let line = line.trim_ascii_end();
    let mut content = match folder.kind_of(name) {
        None => Vec::new(),
        Some(FileType::RegularFile) => folder.read(name, MAX_LINES)?,
        // The new file would replace a symlink, and hide the lines of its target.
        Some(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file")),
    };
    if content.split(|byte| *byte == b'\n').any(|present| present.trim_ascii_end() == line) {
        return Ok(None);
    }
    if content.last().is_some_and(|byte| *byte != b'\n') {
        content.push(b'\n');
    }
    content.extend_from_slice(line);
    content.push(b'\n');
    Ok(Some(content))
}

/// Folders created for a private file are private too: sshd requires that of `.ssh`.
fn folder_mode(file_mode: u32) -> u32 {
    if file_mode & 0o077 == 0 { 0o700 } else { 0o755 }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn file(path: &str, content: &str, when: WriteWhen) -> GuestFile {
        GuestFile {
            path: path.into(),
            mode: 0o600,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            content: BASE64.encode(content),
            when,
        }
    }

    fn root() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().to_str().unwrap()).unwrap();
        (dir, folder)
    }

    #[test]
    fn folders_are_made_as_closed_as_the_file() {
        let (dir, root) = root();
        write_one(&root, &file("/root/.ssh/authorized_keys", "key", WriteWhen::Always)).unwrap();
        let ssh = dir.path().join("root/.ssh");
        assert_eq!(ssh.metadata().unwrap().mode() & 0o7777, 0o700);
        let keys = ssh.join("authorized_keys");
        assert_eq!(keys.metadata().unwrap().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read(keys).unwrap(), b"key");
    }

    #[test]
    fn an_absent_value_keeps_the_present_one() {
        let (dir, root) = root();
        std::fs::write(dir.path().join("f"), "old").unwrap();
        write_one(&root, &file("/f", "new", WriteWhen::Absent)).unwrap();
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"old");
        write_one(&root, &file("/f", "new", WriteWhen::Always)).unwrap();
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"new");
    }

    #[test]
    fn a_line_is_added_once_and_the_file_kept() {
        let (dir, root) = root();
        let path = "/root/.ssh/authorized_keys";
        let add = |line: &str| write_one(&root, &file(path, line, WriteWhen::Line));
        let content = || std::fs::read_to_string(dir.path().join(&path[1..])).unwrap();
        add("key one\n").unwrap();
        assert_eq!(content(), "key one\n");
        std::fs::write(dir.path().join(&path[1..]), "# mine\nkey two").unwrap();
        add("key one\n").unwrap();
        add("key one").unwrap();
        assert_eq!(content(), "# mine\nkey two\nkey one\n");
        std::fs::write(dir.path().join(&path[1..]), "key one\r\nkey two\r\n").unwrap();
        add("key two\n").unwrap();
        assert_eq!(content(), "key one\r\nkey two\r\n");
        // A symlink is not replaced.
        std::fs::remove_file(dir.path().join(&path[1..])).unwrap();
        std::os::unix::fs::symlink("../keys", dir.path().join(&path[1..])).unwrap();
        assert!(add("key one\n").is_err());
        assert!(dir.path().join(&path[1..]).is_symlink());
    }

    #[test]
    fn a_block_shares_a_file_with_its_user() {
        let (dir, root) = root();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir(at("etc")).unwrap();
        let put = |path: &str, content: &str, when| write_one(&root, &file(path, content, when));
        let (one, none) = ("# b\na=1\n# e\n", "# b\n# e\n");
        let read = |path: &str| std::fs::read_to_string(at(path)).ok();
        put("/etc/rc.conf", one, WriteWhen::BlockInFile).unwrap();
        put("/etc/environment", none, WriteWhen::Block).unwrap();
        assert_eq!((read("etc/rc.conf"), read("etc/environment")), (None, None));
        // A file of its own goes with the block, one of the user stays, and links are kept.
        std::fs::write(at("rc"), "x=1\n").unwrap();
        std::os::unix::fs::symlink("../rc", at("etc/rc.conf")).unwrap();
        put("/etc/rc.conf", one, WriteWhen::BlockInFile).unwrap();
        assert_eq!(read("rc").unwrap(), format!("x=1\n{one}"));
        put("/etc/rc.conf", none, WriteWhen::BlockInFile).unwrap();
        assert_eq!(read("rc").unwrap(), "x=1\n");
        assert!(at("etc/rc.conf").is_symlink());
        // Files of the superuser can only be made by the superuser.
        if rustix::process::geteuid().is_root() {
            put("/etc/profile.d/x.sh", one, WriteWhen::Block).unwrap();
            assert_eq!(read("etc/profile.d/x.sh").as_deref(), Some(one));
            put("/etc/profile.d/x.sh", none, WriteWhen::Block).unwrap();
            assert!(!at("etc/profile.d/x.sh").exists());
        }
    }

    #[test]
    fn one_bad_file_does_not_stop_the_others() {
        let (dir, root) = root();
        let outside = tempfile::tempdir().unwrap();
        let leaving = format!("../../../../../..{}", outside.path().display());
        std::os::unix::fs::symlink(leaving, dir.path().join("home")).unwrap();
        std::os::unix::fs::symlink("turn", dir.path().join("turn")).unwrap();
        let mut log = BootLog::start();
        let broken = GuestFile { content: "%".into(), ..file("/b", "", WriteWhen::Always) };
        let files = [
            file("/home/x", "1", WriteWhen::Always),
            file("/turn/x", "1", WriteWhen::Always),
            file("relative", "2", WriteWhen::Always),
            file("/a/../b", "3", WriteWhen::Always),
            broken,
            file("/good", "4", WriteWhen::Always),
        ];
        write(&root, &files, &mut log);
        assert_eq!(log.finish().1.len(), 4);
        assert_eq!(std::fs::read(dir.path().join("good")).unwrap(), b"4");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
