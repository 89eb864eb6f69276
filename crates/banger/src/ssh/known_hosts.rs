//! The host keys of VMs, in a file of ours in the format of sshd(8).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use banger_api::{ApiError, ErrorCode};

/// Maximum number of lines of other hosts; the oldest are removed first. Each connection adds the
/// lines of its host again.
const MAX_OTHERS: usize = 4000;

/// The name of a host as ssh looks for it: with the port if it is not the usual one.
pub fn pattern(host: &str, port: u16) -> String {
    if port == super::PORT { host.to_owned() } else { format!("[{host}]:{port}") }
}

/// Replaces the lines of one host.
fn with_keys(text: &str, pattern: &str, keys: &[String]) -> String {
    let is_other = |line: &&str| {
        let name = line.split(' ').next().unwrap_or_default();
        name != pattern && !line.trim().is_empty()
    };
    let others: Vec<&str> = text.lines().filter(is_other).collect();
    let kept = others.get(others.len().saturating_sub(MAX_OTHERS)..).unwrap_or_default();
    let new = keys.iter().map(|key| format!("{pattern} {key}\n"));
    kept.iter().map(|line| format!("{line}\n")).chain(new).collect()
}

/// Records the keys of a host; does not write if the file has them.
///
/// # Errors
/// The file cannot be read or written.
pub fn record(path: &Path, pattern: &str, keys: &[String]) -> Result<(), ApiError> {
    record_at(path, pattern, keys).map_err(|error| {
        let text = format!("cannot record host keys in `{}`", path.display());
        ApiError::new(ErrorCode::Internal, text).caused_by(&error)
    })
}

fn record_at(path: &Path, pattern: &str, keys: &[String]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let private = |options: &mut OpenOptions, path: &Path| -> io::Result<File> {
        options.write(true).mode(0o600).open(path)
    };
    // Two connections at once must not drop each other's lines.
    let lock = private(OpenOptions::new().create(true), &path.with_extension("lock"))?;
    lock.lock()?;
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    let new = with_keys(&text, pattern, keys);
    let sorted = |text: &str| -> Vec<String> {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    if sorted(&new) == sorted(&text) {
        return Ok(());
    }
    // The lock makes this process the only writer of the temporary file.
    let temporary = path.with_extension("new");
    let mut options = OpenOptions::new();
    private(options.create(true).truncate(true), &temporary)?.write_all(new.as_bytes())?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| format!("ssh-ed25519 {name}")).collect()
    }

    #[test]
    fn a_host_has_its_present_keys_only() {
        let text = with_keys("", "web.vm", &keys(&["A", "B"]));
        assert_eq!(text, "web.vm ssh-ed25519 A\nweb.vm ssh-ed25519 B\n");
        let text = with_keys(&text, "[web.vm]:2222", &keys(&["A"]));
        let text = with_keys(&text, "web.vm", &keys(&["C"]));
        assert_eq!(text, "[web.vm]:2222 ssh-ed25519 A\nweb.vm ssh-ed25519 C\n");
        assert_eq!(with_keys(&text, "b.vm", &[]), text);
        let many: String = (0..5000).map(|n| format!("{n}.vm ssh-ed25519 A\n")).collect();
        let text = with_keys(&many, "web.vm", &keys(&["A"]));
        assert_eq!(text.lines().count(), MAX_OTHERS + 1);
        assert!(text.ends_with("4999.vm ssh-ed25519 A\nweb.vm ssh-ed25519 A\n"));
    }

    #[test]
    fn connections_at_once_keep_each_others_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ssh/known_hosts");
        let threads: Vec<_> = (0..16)
            .map(|n| {
                let path = path.clone();
                std::thread::spawn(move || record(&path, &format!("{n}.vm"), &keys(&["A"])))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 16);
        record(&path, "3.vm", &keys(&["B"])).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let lines = |host: &str| text.lines().filter(|l| l.starts_with(host)).count();
        assert_eq!((text.lines().count(), lines("3.vm ")), (16, 1), "{text}");
        assert!(text.ends_with("\n3.vm ssh-ed25519 B\n"), "{text}");
    }
}
