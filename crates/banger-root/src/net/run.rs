//! Runs a program of the host to its end: a text in, a text out, no shell, bounded time.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_sys::proc::{Waited, wait};
use banger_sys::spawn::Spawn;
use rustix::fs::MemfdFlags;

use crate::error::{Kind, RootError};

/// Folders of system programs. `PATH` is ignored.
const FOLDERS: &[&str] = &["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin"];
/// Timeout of a program.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum output in bytes; larger than any list of rules.
const MAX_OUTPUT: u64 = 16 << 20;
/// Maximum length of a program's error output in bytes.
const MAX_STDERR: u64 = 2000;
/// Descriptor number of the input text in the program: `/proc/self/fd/3`.
const TEXT: i32 = 3;
/// Path of the input text in the program.
pub const TEXT_PATH: &str = "/proc/self/fd/3";

/// The path of a program, if it is installed.
pub fn find(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// Result of a program.
#[derive(Debug)]
pub struct Ended {
    /// Whether the exit code was 0.
    pub success: bool,
    /// Standard output.
    pub output: Vec<u8>,
    /// Start of standard error.
    pub stderr: String,
}

impl Ended {
    /// The output; an error with the program's standard error as cause if it failed.
    ///
    /// # Errors
    /// `Internal`: the exit code was not 0.
    pub fn into_output(self, doing: &str) -> Result<Vec<u8>, RootError> {
        if self.success {
            return Ok(self.output);
        }
        let mut failure = RootError::new(Kind::Internal, format!("cannot {doing}"));
        failure.causes.extend((!self.stderr.is_empty()).then_some(self.stderr));
        Err(failure)
    }
}

/// Runs a program. The program reads `text` at [`TEXT_PATH`]; it inherits `kept` and holds it open.
///
/// # Errors
/// memfd_create(2), fork(2), execve(2), wait(2); `Busy`: the program was killed at the timeout.
pub fn run(
    program: &Path,
    args: &[&str],
    text: &str,
    kept: Option<BorrowedFd<'_>>,
) -> Result<Ended, RootError> {
    let failed = |error: io::Error| RootError::on_path("run", program, &error);
    let memory = |name| {
        rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).map(File::from).map_err(io::Error::from)
    };
    let mut input = memory("input").map_err(failed)?;
    input.write_all(text.as_bytes()).map_err(failed)?;
    let (mut output, mut stderr) =
        (memory("output").map_err(failed)?, memory("stderr").map_err(failed)?);
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let mut descriptors = vec![(input.as_fd(), TEXT)];
    descriptors.extend(kept.map(|fd| (fd, TEXT + 1)));
    let spawn = Spawn {
        program,
        args: &args,
        env: &[("LC_ALL".to_owned(), "C".to_owned())],
        run_as: None,
        stdout: output.as_fd(),
        stderr: stderr.as_fd(),
        descriptors: &descriptors,
        ruleset: None,
    };
    let mut spawned = spawn.start().map_err(|error| {
        failed(io::Error::new(error.source.kind(), format!("{error}: {}", error.source)))
    })?;
    let waited = wait(&spawned.pidfd, TIMEOUT).map_err(failed)?;
    if waited == Waited::Alive {
        spawned.child.kill().map_err(failed)?;
    }
    let status = spawned.child.wait().map_err(failed)?;
    if waited == Waited::Alive {
        let message = format!("`{}` took more than {TIMEOUT:?}", program.display());
        return Err(RootError::new(Kind::Busy, message));
    }
    Ok(Ended {
        success: status.success(),
        output: written(&mut output, MAX_OUTPUT).map_err(failed)?,
        stderr: String::from_utf8_lossy(&written(&mut stderr, MAX_STDERR).map_err(failed)?)
            .trim()
            .to_owned(),
    })
}

fn written(file: &mut File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_passes_text_and_returns_output() {
        let cat = find("cat").unwrap();
        let ended = run(&cat, &[TEXT_PATH], "hello", None).unwrap();
        assert_eq!(ended.into_output("copy").unwrap(), b"hello");
        let ended = run(&cat, &["/nowhere"], "", None).unwrap();
        let failure = ended.into_output("copy").unwrap_err();
        assert_eq!(failure.message, "cannot copy");
        assert!(failure.causes[0].contains("No such file"), "{failure:?}");
        assert!(run(Path::new("/nowhere/cat"), &[], "", None).is_err());
        assert_eq!(find("no-such-program"), None);
    }
}
