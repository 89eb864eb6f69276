//! Programs of a simulated guest about its files: `cat`, `dd`, `find`, `mkdir`, `mv`, `rm` and
//! `stat`, in the forms that faces of the API use. Nothing leads out of the guest's folder.

use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use banger_archive::beneath::{Folder, Links, Owner, split_last};
use rustix::fs::OFlags;

use super::archive::Files;

/// Most bytes of a file.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// Runs a program: its output, or its error message without the program's name. `None`: it is not
/// known in this form.
pub fn run(files: &Files, argv: &[&str]) -> Option<Result<Vec<u8>, String>> {
    let (program, words) = argv.split_first()?;
    let root = match files.open() {
        Ok(root) => root,
        Err(failure) => return Some(Err(failure.chain())),
    };
    let done = match (*program, words) {
        ("cat", [path]) => cat(&root, path).map_err(|error| (error, *path)),
        ("stat", ["-c", format, path]) => {
            let found = place(&root, path).and_then(|at| at.0.join(&at.1).symlink_metadata());
            described(found, format, path, &root)
        }
        ("stat", ["-L", "-c", format, path]) => {
            let opened = root.open_beneath(path.as_bytes(), OFlags::PATH, Links::Inside);
            let link = |fd: &std::os::fd::OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
            let found = opened.and_then(|fd| std::fs::metadata(link(&fd)));
            described(found, format, path, &root)
        }
        (
            "find",
            ["-H", path, "-mindepth", "1", "-maxdepth", depth, "-exec", "stat", "-c", format, ..],
        ) => {
            let mut out = Vec::new();
            let depth = depth.parse().unwrap_or(1);
            find(&root, path, format, depth, &mut out).map(|()| out).map_err(|error| (error, *path))
        }
        ("mkdir", ["-p", path]) => {
            let made = root.make_folders(path.as_bytes(), me(), 0o755);
            made.map(|_| Vec::new()).map_err(|error| (error, *path))
        }
        ("rm", ["-rf", path]) => remove(&root, path).map_err(|error| (error, *path)),
        ("mv", ["-f", from, to]) => rename(&root, from, to).map_err(|error| (error, *from)),
        _ => return None,
    };
    Some(done.map_err(|(error, path)| format!("'{path}': {}", words_of(&error))))
}

/// `dd of=PATH`: writes a file with this content.
///
/// # Errors
/// The message of the program.
pub fn write(files: &Files, path: &str, content: &[u8]) -> Result<(), String> {
    let root = files.open().map_err(|failure| failure.chain())?;
    let (folder, name) = place_of(&root, path).map_err(|error| words_of(&error))?;
    let put = folder.put(&name, content, me(), 0o644);
    put.map_err(|error| format!("failed to open '{path}': {}", words_of(&error)))
}

/// Who the files belong to on the host.
fn me() -> Owner {
    Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
}

/// As strerror(3) words it.
fn words_of(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// The folder that a path is in, and its last name.
fn place_of(root: &Folder, path: &str) -> io::Result<(Folder, Vec<u8>)> {
    let (folder, name) = split_last(path.as_bytes()).ok_or(io::ErrorKind::IsADirectory)?;
    Ok((root.folder(folder, Links::Inside)?, name.to_vec()))
}

/// The same as paths of this process, for as long as the folder is kept.
fn place(root: &Folder, path: &str) -> io::Result<(Kept, PathBuf)> {
    let (folder, name) = match split_last(path.as_bytes()) {
        Some((folder, name)) => (root.folder(folder, Links::Inside)?, name.to_vec()),
        None => (root.folder(b"", Links::Inside)?, b".".to_vec()),
    };
    Ok((Kept(folder), PathBuf::from(std::ffi::OsStr::from_bytes(&name))))
}

struct Kept(Folder);

impl Kept {
    fn path(&self) -> PathBuf {
        use std::os::fd::AsFd as _;
        format!("/proc/self/fd/{}", self.0.as_fd().as_raw_fd()).into()
    }

    fn join(&self, name: &Path) -> PathBuf {
        self.path().join(name)
    }
}

fn cat(root: &Folder, path: &str) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = std::fs::File::from(root.open_beneath(path.as_bytes(), flags, Links::Inside)?);
    let mut content = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut content)?;
    Ok(content)
}

fn described<'a>(
    found: io::Result<std::fs::Metadata>,
    format: &str,
    path: &'a str,
    root: &Folder,
) -> Result<Vec<u8>, (io::Error, &'a str)> {
    let found = found.map_err(|error| (error, path))?;
    Ok(describe(&found, format, path, root))
}

/// A line of `stat -c`.
fn describe(found: &std::fs::Metadata, format: &str, path: &str, root: &Folder) -> Vec<u8> {
    let target = || {
        let (folder, name) = place(root, path).ok()?;
        std::fs::read_link(folder.join(&name)).ok()
    };
    let mut line = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            line.push(character);
            continue;
        }
        match characters.next() {
            Some('f') => line.push_str(&format!("{:x}", found.mode())),
            Some('s') => line.push_str(&found.len().to_string()),
            Some('Y') => line.push_str(&found.mtime().to_string()),
            // The only user.
            Some('U' | 'G') => line.push_str("root"),
            Some('n') => line.push_str(path),
            Some('N') => match target().filter(|_| found.is_symlink()) {
                Some(target) => line.push_str(&format!("{path} -> {}", target.display())),
                None => line.push_str(path),
            },
            _ => line.push('?'),
        }
    }
    line.push('\n');
    line.into_bytes()
}

fn find(root: &Folder, path: &str, format: &str, depth: u32, out: &mut Vec<u8>) -> io::Result<()> {
    let folder = Kept(root.folder(path.as_bytes(), Links::Inside)?);
    for entry in std::fs::read_dir(folder.path())? {
        let entry = entry?;
        let name = entry.file_name();
        let below = format!("{}/{}", path.trim_end_matches('/'), name.to_string_lossy());
        let found = entry.metadata()?;
        out.extend(describe(&found, format, &below, root));
        if depth > 1 && found.is_dir() {
            find(root, &below, format, depth - 1, out)?;
        }
    }
    Ok(())
}

fn remove(root: &Folder, path: &str) -> io::Result<Vec<u8>> {
    let Ok((folder, name)) = place(root, path) else { return Ok(Vec::new()) };
    let at = folder.join(&name);
    let removed = match at.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(at),
        Ok(_) => std::fs::remove_file(at),
    };
    removed.map(|()| Vec::new())
}

fn rename(root: &Folder, from: &str, to: &str) -> io::Result<Vec<u8>> {
    let ((from_folder, from), (to_folder, to)) = (place(root, from)?, place(root, to)?);
    std::fs::rename(from_folder.join(&from), to_folder.join(&to))?;
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_stay_inside_the_guest() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path().join("guest"));
        let ok = |argv: &[&str]| String::from_utf8(run(&files, argv).unwrap().unwrap()).unwrap();
        ok(&["mkdir", "-p", "/srv/a/b"]);
        write(&files, "/srv/a/f", b"content").unwrap();
        assert_eq!(ok(&["cat", "/srv/a/f"]), "content");
        ok(&["mv", "-f", "/srv/a/f", "/srv/a/b/g"]);
        let found = ok(&[
            "find",
            "-H",
            "/srv",
            "-mindepth",
            "1",
            "-maxdepth",
            "2",
            "-exec",
            "stat",
            "-c",
            "%n",
            "{}",
            "+",
        ]);
        assert_eq!(found, "/srv/a\n/srv/a/b\n");
        std::fs::write(folder.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink("../../secret", folder.path().join("guest/srv/l")).unwrap();
        assert_eq!(ok(&["stat", "-c", "%N", "/srv/l"]), "/srv/l -> ../../secret\n");
        for path in ["/srv/l", "/../secret", "/srv/nothing"] {
            let error = run(&files, &["cat", path]).unwrap().unwrap_err();
            assert!(error.ends_with("No such file or directory"), "{path}: {error}");
        }
        ok(&["rm", "-rf", "/srv/l"]);
        ok(&["rm", "-rf", "/srv/a"]);
        assert_eq!(std::fs::read_dir(folder.path().join("guest/srv")).unwrap().count(), 0);
        assert!(run(&files, &["cat", "-n", "/srv/l"]).is_none());
    }
}
