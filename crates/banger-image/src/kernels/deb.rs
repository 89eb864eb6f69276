//! Extracts kernel and modules from a kernel package.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::KernelError;
use super::bzimage::BZIMAGE_BYTES_MAX;
use crate::ext4::tar::{Entry, EntryKind, Reader};
use crate::ext4::{Content, Kind};
use crate::fetch::{Counted, FetchError, PathContext, Progress, Tools};

/// Maximum number of files, and of their bytes, taken from a package.
pub const FILES_MAX: u64 = 50_000;
pub const BYTES_MAX: u64 = 4 << 30;

/// Maximum size of the output with a version.
const VERSION_BYTES: u64 = 64 << 10;

/// Content of a package.
#[derive(Debug)]
pub struct Unpacked {
    /// The kernel image: a bzImage.
    pub kernel: PathBuf,
    /// `uname -r` of the kernel.
    pub release: String,
    /// Build time in seconds since 1970.
    pub built_s: i64,
    /// Folder that contains `lib/modules/<release>`.
    pub root: PathBuf,
}

impl Unpacked {
    /// Folder of the modules.
    pub fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }
}

/// A wanted file of the package.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Kernel { release: &'a str },
    Module { path: &'a str },
}

/// Classifies a path; accepts normal components only, so the path can be joined to a folder.
fn part(path: &str) -> Option<Part<'_>> {
    let path = path.strip_prefix("./").unwrap_or(path);
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    if !path.split('/').all(plain) {
        return None;
    }
    if let Some(release) = path.strip_prefix("boot/vmlinuz-").filter(|r| !r.contains('/')) {
        return Some(Part::Kernel { release });
    }
    let path = path.strip_prefix("usr/").unwrap_or(path);
    path.strip_prefix("lib/modules/").map(|path| Part::Module { path })
}

/// Extracts the kernel and its modules below `folder`.
///
/// # Errors
/// The package has no kernel or no modules; errors of dpkg-deb and of writing.
pub fn unpack(
    deb: &Path,
    folder: &Path,
    tools: &Tools,
    progress: &dyn Progress,
) -> Result<Unpacked, KernelError> {
    progress.stage("unpack the package");
    let tool =
        tools.command("dpkg-deb", "dpkg")?.args(["--fsys-tarfile".as_ref(), deb.as_os_str()]);
    let mut stream = tool.start(progress)?;
    let mut reader = Reader::new(Counted::new(&mut stream, None, progress));
    let bad = |why: String| KernelError::BadPackage { path: deb.to_owned(), why };
    let (mut files, mut bytes, mut kernel) = (0, 0, None);
    loop {
        progress.go_on()?;
        // For a damaged package, dpkg-deb's message is clearer than the truncated output.
        let entry = match reader.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) => {
                stream.finish()?;
                return Err(bad(error.to_string()));
            }
        };
        let EntryKind::Node(Kind::File(Content::Source { bytes: length, .. })) = entry.kind else {
            continue;
        };
        files += 1;
        bytes += length;
        if files > FILES_MAX || bytes > BYTES_MAX {
            return Err(bad("it has more files than a kernel".into()));
        }
        if !take(&entry, length, &mut reader.content(), folder, &mut kernel)? {
            stream.finish()?;
            return Err(bad(format!("it ends within `{}`", entry.text_path())));
        }
    }
    stream.finish()?;
    let (release, built_s) = kernel.ok_or_else(|| bad("it has no kernel".into()))?;
    let (kernel, root) = (folder.join("vmlinuz"), folder.to_owned());
    let unpacked = Unpacked { kernel, release, built_s, root };
    if !unpacked.modules().is_dir() {
        return Err(bad(format!("it has no modules for `{}`", unpacked.release)));
    }
    Ok(unpacked)
}

/// The version of a package, as dpkg-deb(1) reads it.
///
/// # Errors
/// Errors of dpkg-deb.
pub fn version(deb: &Path, tools: &Tools, progress: &dyn Progress) -> Result<String, KernelError> {
    let tool = tools.command("dpkg-deb", "dpkg")?;
    let tool = tool.args(["--field".as_ref(), deb.as_os_str(), "Version".as_ref()]);
    let text = tool.output(VERSION_BYTES, progress)?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.trim().chars().filter(|c| !c.is_control()).take(100).collect())
}

/// Writes a file of the package if it is wanted; returns whether the file was complete.
fn take(
    entry: &Entry,
    length: u64,
    content: &mut dyn Read,
    folder: &Path,
    kernel: &mut Option<(String, i64)>,
) -> Result<bool, FetchError> {
    let target = match part(&entry.text_path()) {
        None => return Ok(true),
        Some(Part::Kernel { release: found }) if length <= BZIMAGE_BYTES_MAX => {
            *kernel = Some((found.to_owned(), entry.meta.mtime_s));
            folder.join("vmlinuz")
        }
        Some(Part::Kernel { .. }) => return Ok(true),
        Some(Part::Module { path }) => folder.join("lib/modules").join(path),
    };
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).at("make the folder", parent)?;
    }
    // Follows no link and overwrites nothing: the folder was empty.
    let mut options = File::options();
    let mut file =
        options.write(true).create_new(true).mode(0o644).open(&target).at("create", &target)?;
    Ok(io::copy(content, &mut file).at("write", &target)? == length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_of_kernel_and_modules_are_extracted() {
        assert_eq!(part("./boot/vmlinuz-6.1.0-x"), Some(Part::Kernel { release: "6.1.0-x" }));
        for path in ["./lib/modules/6.1/kernel/a.ko", "usr/lib/modules/6.1/kernel/a.ko"] {
            assert_eq!(part(path), Some(Part::Module { path: "6.1/kernel/a.ko" }));
        }
        for path in [
            "/boot/vmlinuz-x",
            "boot/vmlinuz-a/b",
            "lib/modules/../../etc/passwd",
            "lib/modules//x",
            "etc/passwd",
            "boot/System.map-6.1",
        ] {
            assert_eq!(part(path), None, "{path}");
        }
    }
}
