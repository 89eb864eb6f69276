//! One marked `Include` in the user's own ssh configuration.
//!
//! The block comes first: further down it could be inside of a `Host` block, and would be valid for
//! the hosts of that block only (ssh_config(5)).

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use banger_api::{ApiError, ErrorCode, Hint};

/// Maximum size of the user's file in bytes.
const MAX_SIZE: u64 = 1 << 20;
/// Maximum number of symlinks to the user's file, as for the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;

const BEGIN: &str = "# >>> banger >>>";
const END: &str = "# <<< banger <<<";
/// Marks the block in a file that did not exist before.
const NEW_FILE: &str = "in a new file";

/// A block of ours that has no end, and the number of its first line.
#[derive(Debug, PartialEq, Eq)]
struct Damaged(usize);

/// The file without our blocks.
#[derive(Debug, PartialEq, Eq)]
struct Others {
    text: Vec<u8>,
    found: bool,
    new_file: bool,
}

/// Separates our blocks from the rest, whose bytes stay as they are.
fn others(text: &[u8]) -> Result<Others, Damaged> {
    let mut others = Others { text: Vec::new(), found: false, new_file: false };
    let mut begin = None;
    for (number, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let marker = line.trim_ascii();
        match begin {
            None if marker.starts_with(BEGIN.as_bytes()) => {
                begin = Some(number + 1);
                others.found = true;
                others.new_file |= marker.ends_with(NEW_FILE.as_bytes());
            }
            None => others.text.extend_from_slice(line),
            Some(first) if marker.starts_with(BEGIN.as_bytes()) => return Err(Damaged(first)),
            Some(_) if marker.starts_with(END.as_bytes()) => begin = None,
            Some(_) => {}
        }
    }
    begin.map_or(Ok(others), |first| Err(Damaged(first)))
}

/// The file with our block first, which has the line `include`; absent stands for no file.
fn installed(text: Option<&[u8]>, include: &OsStr) -> Result<Vec<u8>, Damaged> {
    let Others { text: rest, new_file, .. } = others(text.unwrap_or_default())?;
    let end = if rest.windows(2).any(|pair| pair == b"\r\n") { "\r\n" } else { "\n" };
    let mark = if text.is_none() || new_file { NEW_FILE } else { "" };
    let begin = format!("{BEGIN} `banger ssh-config --uninstall` removes these lines {mark}");
    let lines = [begin.trim_end().as_bytes(), include.as_bytes(), END.as_bytes(), b""];
    Ok([lines.join(end.as_bytes()), rest].concat())
}

/// Result of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The file was changed.
    Done,
    /// The file was so already.
    Already,
}

/// Adds the block to the file at `path`, which is created if missing.
///
/// # Errors
/// A file that cannot be read or written, or with a damaged block.
pub fn install(path: &Path, include: &OsStr) -> Result<Change, ApiError> {
    change(path, |text| installed(text, include).map(Some)).map_err(|error| {
        let line = include.display();
        error.with_hint(Hint::text(format!("or add this as its first line yourself: {line}")))
    })
}

/// Removes the block from the file at `path`, and the file if it was made for the block.
///
/// # Errors
/// As [`install`].
pub fn uninstall(path: &Path) -> Result<Change, ApiError> {
    change(path, |text| {
        let Some(text) = text else { return Ok(None) };
        let others = others(text)?;
        Ok(Some(others.text).filter(|text| !(text.is_empty() && others.new_file)))
    })
}

/// Replaces the content of a file by what `edit` makes of it; absent stands for no file.
fn change(
    path: &Path,
    edit: impl Fn(Option<&[u8]>) -> Result<Option<Vec<u8>>, Damaged>,
) -> Result<Change, ApiError> {
    let failed = |error: io::Error| {
        let text = format!("cannot change `{}`", path.display());
        ApiError::new(ErrorCode::Internal, text).caused_by(&error)
    };
    let target = target(path).map_err(failed)?;
    let before = read(&target).map_err(failed)?;
    let text = before.as_ref().map(|(text, _)| text.as_slice());
    let new = edit(text).map_err(|Damaged(line)| {
        let text = format!("`{}` line {line}: the block of banger has no end", path.display());
        ApiError::new(ErrorCode::BadRequest, text).with_hint(Hint::text(format!(
            "remove the lines of that block, which ends with `{END}`"
        )))
    })?;
    if new.as_deref() == text {
        return Ok(Change::Already);
    }
    match (new, before) {
        (Some(new), before) => write(&target, &new, before.as_ref()).map_err(failed)?,
        (None, _) => fs::remove_file(&target).map_err(failed)?,
    }
    Ok(Change::Done)
}

/// The file behind symlinks, which may be missing.
fn target(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&target) {
            Ok(link) => target = target.parent().unwrap_or(Path::new("/")).join(link),
            // EINVAL: not a link.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(target),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(target),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "too many symlinks"))
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// The content of a file that can be changed; `None` if it does not exist.
fn read(path: &Path) -> io::Result<Option<(Vec<u8>, Metadata)>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_file() => return Err(invalid("it is not a file")),
        Ok(_) => {}
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    // A rename replaces a read-only file too.
    if metadata.permissions().mode() & 0o200 == 0 {
        return Err(invalid("it is read-only"));
    }
    let mut text = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(invalid("it is larger than 1 MiB"));
    }
    Ok(Some((text, metadata)))
}

/// Writes the file under another name beside it, and renames it.
fn write(path: &Path, text: &[u8], before: Option<&(Vec<u8>, Metadata)>) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    if before.is_none() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".banger-{}", std::process::id()));
    let temporary = folder.join(name);
    let written = write_new(&temporary, text, before).and_then(|()| {
        // An editor may have saved the file meanwhile.
        match (read(path)?, before) {
            (None, None) => {}
            (Some((now, _)), Some((before, _))) if now == *before => {}
            _ => return Err(invalid("another program changed it meanwhile")),
        }
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        // The first error counts.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_new(path: &Path, text: &[u8], before: Option<&(Vec<u8>, Metadata)>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    if let Some((_, before)) = before {
        let ours = file.metadata()?;
        if (ours.uid(), ours.gid()) != (before.uid(), before.gid()) {
            std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
        file.set_permissions(before.permissions())?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const LINE: &str = "Include \"/state/ssh/config\"";

    fn include() -> &'static OsStr {
        OsStr::new(LINE)
    }

    #[test]
    fn the_block_comes_first_once_and_leaves_no_trace() {
        let block = |text: &[u8]| installed(Some(text), include()).unwrap();
        for text in [
            &b""[..],
            b"\n",
            b"Host a\n  User b\n",
            b"Host a\n  User b",
            b"Host a\r\n  User b\r\n",
            b"Host a\r\n  User b",
            b"  # comment\n\nInclude other\nMatch all\n\tUser x\n\n\n",
            b"\xef\xbb\xbfHost a\n",
            b"Host \xff\xfe\n",
            b"# banger\nInclude \"/state/ssh/config\"\n",
        ] {
            let once = block(text);
            let shown = String::from_utf8_lossy(&once);
            let lines: Vec<&str> = shown.lines().collect();
            assert!(lines[0].starts_with(BEGIN) && lines[2] == END, "{shown}");
            assert_eq!(lines[1], LINE);
            assert_eq!(shown.contains("\r\n"), text.contains(&b'\r'), "{shown:?}");
            assert_eq!(block(&once), once, "{shown:?}");
            let elsewhere = installed(Some(&once), "Include /other".as_ref()).unwrap();
            assert_eq!(block(&elsewhere), once);
            let moved = [text, b"\n", &once[..once.len() - text.len()]].concat();
            assert_eq!(block(&moved), [&once[..], b"\n"].concat(), "a block that was moved");
            let removed = others(&once).unwrap();
            assert_eq!((removed.text.as_slice(), removed.new_file), (text, false));
        }
        let new = installed(None, include()).unwrap();
        assert_eq!(block(&new), new, "a new file stays marked");
        assert!(others(&new).unwrap().new_file);
    }

    #[test]
    fn a_block_without_end_is_refused() {
        let open = format!("Host a\n{BEGIN}\nInclude x\n");
        assert_eq!(others(open.as_bytes()), Err(Damaged(2)));
        let twice = format!("{BEGIN}\n{BEGIN}\n{END}\n");
        assert_eq!(others(twice.as_bytes()), Err(Damaged(1)));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        fs::write(&path, &open).unwrap();
        for error in [install(&path, include()).unwrap_err(), uninstall(&path).unwrap_err()] {
            assert!(error.message.ends_with("line 2: the block of banger has no end"), "{error:?}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), open);
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_missing_file_is_created_and_removed_again() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(".ssh/config");
        assert_eq!(uninstall(&path), Ok(Change::Already));
        assert_eq!(install(&path, include()), Ok(Change::Done));
        assert_eq!(install(&path, include()), Ok(Change::Already));
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(uninstall(&path), Ok(Change::Done));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
        // What the user adds meanwhile stays.
        install(&path, include()).unwrap();
        let text = [fs::read(&path).unwrap(), b"Host a".to_vec()].concat();
        fs::write(&path, text).unwrap();
        assert_eq!(uninstall(&path), Ok(Change::Done));
        assert_eq!(fs::read(&path).unwrap(), b"Host a");
    }

    #[test]
    fn links_and_modes_are_kept() {
        let home = tempfile::tempdir().unwrap();
        let real = home.path().join("dotfiles/ssh");
        let path = home.path().join(".ssh/config");
        fs::create_dir_all(real.parent().unwrap()).unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink("../dotfiles/link", &path).unwrap();
        symlink("ssh", home.path().join("dotfiles/link")).unwrap();
        // A link to a file that does not exist yet.
        install(&path, include()).unwrap();
        assert!(path.is_symlink() && real.is_file());
        uninstall(&path).unwrap();
        assert!(path.is_symlink() && !real.exists());
        fs::write(&real, "Host a\n").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        install(&path, include()).unwrap();
        assert!(path.is_symlink() && mode(&real) == 0o640);
        uninstall(&path).unwrap();
        assert_eq!((fs::read(&real).unwrap(), mode(&real)), (b"Host a\n".to_vec(), 0o640));
        assert_eq!(fs::read_dir(real.parent().unwrap()).unwrap().count(), 2, "nothing is left");
    }

    #[test]
    fn files_that_cannot_be_changed_are_named() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config");
        let refused = |expected: &str| {
            let error = install(&path, include()).unwrap_err();
            assert_eq!(error.message, format!("cannot change `{}`", path.display()));
            assert!(error.causes[0].contains(expected), "{error:?}");
        };
        fs::create_dir(&path).unwrap();
        refused("it is not a file");
        fs::remove_dir(&path).unwrap();
        symlink("config", &path).unwrap();
        refused("too many symlinks");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "Host a\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        refused("it is read-only");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, vec![b'#'; 2 << 20]).unwrap();
        refused("larger than 1 MiB");
    }
}
