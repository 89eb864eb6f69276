//! Logs of VMs that did not start and were not to stay: their ends, in files of their own.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use banger_api::vm::VmPaths;

/// Most bytes kept of each log.
const TAIL: u64 = 256 * 1024;
/// Most files kept; the oldest are removed.
const MAX_FILES: usize = 20;

/// Copies the ends of the console log and the VMM log to `folder/name.log`; none where both are
/// empty or missing.
///
/// # Errors
/// Those of the file system.
pub fn keep(folder: &Path, name: &str, logs: &VmPaths) -> io::Result<Option<PathBuf>> {
    let console = tail(logs.console_log.as_path())?;
    let vmm = tail(logs.vmm_log.as_path())?;
    if console.is_empty() && vmm.is_empty() {
        return Ok(None);
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    make_room(folder)?;
    let path = folder.join(format!("{name}.log"));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    for (title, bytes) in [("guest console", console), ("VMM", vmm)] {
        writeln!(file, "--- {title}")?;
        file.write_all(&bytes)?;
        writeln!(file)?;
    }
    Ok(Some(path))
}

fn tail(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Removes the oldest files until there is room for one more.
fn make_room(folder: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files.push((entry.metadata()?.modified()?, entry.path()));
    }
    files.sort();
    let excess = (files.len() + 1).saturating_sub(MAX_FILES);
    files.iter().take(excess).try_for_each(|(_, path)| fs::remove_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_logs_are_kept_and_the_oldest_files_go() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name).into();
        let logs = VmPaths {
            console_log: path("console.log"),
            vmm_log: path("vmm.log"),
            shim_log: path("shim.log"),
        };
        let folder = home.path().join("log/failed-starts");
        assert_eq!(keep(&folder, "web", &logs).unwrap(), None, "nothing was written");
        let mut console = vec![b'x'; usize::try_from(TAIL).unwrap()];
        console.extend(b"last words");
        fs::write(logs.console_log.as_path(), &console).unwrap();
        for number in 0..MAX_FILES + 5 {
            let kept = keep(&folder, &format!("web-{number}"), &logs).unwrap().unwrap();
            let text = fs::read_to_string(&kept).unwrap();
            assert!(text.starts_with("--- guest console\nxx") && text.contains("xlast words\n"));
            assert!(text.len() < console.len() + 100);
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), MAX_FILES);
        assert!(folder.join(format!("web-{}.log", MAX_FILES + 4)).exists());
    }
}
