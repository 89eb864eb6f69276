//! Logs of image builds: complete output, in files that outlive the builds.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use banger_api::ApiError;
use banger_engine::drivers::BuildLog;

use crate::failure::on_path;
use crate::layout::shown;

/// Maximum size of a log in bytes.
const MAX_BYTES: u64 = 64 << 20;
/// Maximum number of logs; the oldest are removed.
const MAX_FILES: usize = 20;

/// A file with a limit: what follows the limit is dropped.
struct Limited {
    file: File,
    left: u64,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let kept = bytes.get(..room).unwrap_or_default();
        self.file.write_all(kept)?;
        self.left -= kept.len() as u64;
        if self.left == 0 && !kept.is_empty() {
            writeln!(self.file, "\n--- the log ends here: it has {MAX_BYTES} bytes")?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Creates `folder/NAME-NUMBER.log`.
///
/// # Errors
/// The folder or the file cannot be made.
pub fn create(folder: &Path, name: &str) -> Result<BuildLog, ApiError> {
    let failed = |error: io::Error| on_path("make a log in", folder, &error);
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let last = make_room(folder).map_err(failed)?;
    for number in last + 1.. {
        let path = folder.join(format!("{name}-{number}.log"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                let file = Box::new(Limited { file, left: MAX_BYTES });
                return Ok(BuildLog { path: shown(&path), file });
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(on_path("create", &path, &error)),
        }
    }
    Err(failed(io::ErrorKind::AlreadyExists.into()))
}

/// Removes the oldest logs until there is room for one more; returns the highest number.
fn make_room(folder: &Path) -> io::Result<u64> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let number = stem.and_then(|stem| stem.rsplit('-').next()?.parse::<u64>().ok());
        logs.extend(number.map(|number| (number, path)));
    }
    logs.sort();
    let excess = (logs.len() + 1).saturating_sub(MAX_FILES);
    logs.iter().take(excess).try_for_each(|(_, path)| fs::remove_file(path))?;
    Ok(logs.last().map_or(0, |(number, _)| *number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_numbered_limited_and_the_oldest_go() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("log/builds");
        for number in 1..MAX_FILES + 5 {
            let mut log = create(&folder, "dev").unwrap();
            assert_eq!(log.path, shown(&folder.join(format!("dev-{number}.log"))));
            log.file.write_all(b"hello\n").unwrap();
            assert_eq!(fs::read(&log.path).unwrap(), b"hello\n");
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), MAX_FILES);
        assert!(!folder.join("dev-1.log").exists());
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut limited = Limited { file: file.reopen().unwrap(), left: 3 };
        limited.write_all(b"abcdef").unwrap();
        limited.write_all(b"ghi").unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        assert!(text.starts_with("abc\n--- the log ends here") && !text.contains("ghi"), "{text}");
    }
}
