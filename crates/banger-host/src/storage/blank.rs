//! Blank ext4 file systems, created once for each size by mke2fs(8), then copied.
//!
//! A copy takes 1 ms and starts no process; mke2fs takes 12 ms.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use banger_api::{ApiError, ErrorCode, Hint};

use crate::failure::on_path;
use banger_image::fetch::Staging;

/// Purpose of a blank disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Private layer of a root disk.
    Layer,
    /// Work disk.
    Work,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Work => "work",
        }
    }
}

/// Version of a blank disk, part of its name; increase it when the options of mke2fs change.
const RECIPE: u32 = 2;

/// Smallest disk with the larger journal.
const LARGE: u64 = 1 << 30;

/// Size of the journal in MiB.
///
/// A transaction may have a quarter of its blocks. Growing a mounted file system needs as many as
/// there are blocks reserved for group descriptors, 1023 on large disks (ext4_flex_group_add in the
/// kernel's fs/ext4/resize.c), and fails with ENOSPC where a transaction is smaller.
fn journal_mib(size: u64) -> u32 {
    if size < LARGE { 16 } else { 32 }
}

/// Creates blank disks, each of them once, also on concurrent threads.
#[derive(Clone)]
pub struct Blanks {
    cache: PathBuf,
    mke2fs: Option<PathBuf>,
    making: Arc<Mutex<HashMap<PathBuf, Arc<Mutex<()>>>>>,
}

impl Blanks {
    /// Blank disks in this folder, created by this program.
    pub fn new(cache: PathBuf, mke2fs: Option<PathBuf>) -> Self {
        Self { cache, mke2fs, making: Arc::default() }
    }

    /// Path of a blank ext4 of `size` bytes.
    ///
    /// # Errors
    /// mke2fs is not installed or fails; no space.
    pub fn get(&self, size: u64, profile: Profile) -> Result<PathBuf, ApiError> {
        let path = self.cache.join(format!("{}-{size}-{RECIPE}.ext4", profile.name()));
        if path.exists() {
            return Ok(path);
        }
        let turn = {
            let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
            making.entry(path.clone()).or_default().clone()
        };
        let _mine = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if !path.exists() {
            self.make(&path, size, profile)?;
        }
        Ok(path)
    }

    fn make(&self, path: &Path, size: u64, profile: Profile) -> Result<(), ApiError> {
        // Daemons with different state folders may share a cache, so the name is unique.
        let folder = Staging::new(&self.cache.join("staging"));
        let folder = folder.map_err(|error| banger_image::advice::fetch(&error))?;
        let staged = folder.join(profile.name());
        let write = |error: io::Error| on_path("make the blank disk", path, &error);
        let file = std::fs::File::create(&staged).map_err(write)?;
        file.set_len(size).map_err(write)?;
        drop(file);
        self.run(&staged, size, profile)?;
        std::fs::rename(&staged, path).map_err(write)
    }

    fn run(&self, staged: &Path, size: u64, profile: Profile) -> Result<(), ApiError> {
        let missing = || {
            ApiError::new(ErrorCode::HostNotReady, "the program mke2fs was not found")
                .with_hint(Hint::install("e2fsprogs"))
        };
        let program = self.mke2fs.as_ref().ok_or_else(missing)?;
        // A sparse file reads as zeros, so neither mke2fs nor the guest's kernel need to write any.
        let extended = "assume_storage_prezeroed=1,lazy_itable_init=0,lazy_journal_init=0";
        let output = Command::new(program)
            .args(["-q", "-F", "-t", "ext4", "-m", "0", "-b", "4096"])
            .args(["-J", &format!("size={}", journal_mib(size))])
            .args(["-E", extended, "-L", profile.name()])
            .arg(staged)
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .map_err(|error| on_path("run", program, &error))?;
        if output.status.success() {
            return Ok(());
        }
        let printed = String::from_utf8_lossy(&output.stderr);
        let code = if printed.contains("No space left") {
            ErrorCode::NoSpace
        } else {
            ErrorCode::Internal
        };
        let mut error = ApiError::new(code, format!("mke2fs failed on `{}`", staged.display()));
        error.causes.extend(printed.lines().take(3).map(str::to_owned));
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_blank_disk_is_small_whole_and_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = "/usr/sbin:/sbin:/usr/bin:/bin";
        let mke2fs = crate::probe::find_program("mke2fs".as_ref(), path);
        let blanks = Blanks::new(folder.path().join("blank"), mke2fs);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let blanks = blanks.clone();
                std::thread::spawn(move || blanks.get(8 << 30, Profile::Layer).unwrap())
            })
            .collect();
        let paths: Vec<PathBuf> =
            threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(paths.iter().all(|path| path == &paths[0]));
        let meta = std::fs::metadata(&paths[0]).unwrap();
        assert_eq!(meta.len(), 8 << 30);
        assert!(meta.blocks() * 512 < 24 << 20, "{} bytes on disk", meta.blocks() * 512);
        let fsck = crate::probe::find_program("e2fsck".as_ref(), path).unwrap();
        let checked = Command::new(fsck).arg("-fn").arg(&paths[0]).output().unwrap();
        assert!(checked.status.success(), "{checked:?}");
    }

    #[test]
    fn without_mke2fs_the_hint_names_the_package() {
        let folder = tempfile::tempdir().unwrap();
        let blanks = Blanks::new(folder.path().to_owned(), None);
        let error = blanks.get(64 << 20, Profile::Work).unwrap_err();
        assert_eq!(error.code, ErrorCode::HostNotReady);
        assert_eq!(error.hints, [Hint::install("e2fsprogs")]);
    }
}
