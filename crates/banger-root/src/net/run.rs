//! Runs one of the host's programs to its end: a text in, a text out, no shell, a limit in time.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_sys::proc::{Waited, wait};
use banger_sys::spawn::Spawn;
use rustix::fs::MemfdFlags;

use crate::error::{Kind, RootError};

/// Where root's programs are; nobody's `PATH` is asked.
const FOLDERS: &[&str] = &["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin"];
/// No run of ours takes longer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// More than the largest list of rules.
const MAX_OUTPUT: u64 = 16 << 20;
/// What is shown of a program's complaint, in bytes.
const MAX_COMPLAINT: u64 = 2000;
/// The descriptor at which a program finds its text: `/proc/self/fd/3`.
const TEXT: i32 = 3;
/// The path of it.
pub const TEXT_PATH: &str = "/proc/self/fd/3";

/// The program of this name, if the host has it.
pub fn find(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Whether with 0.
    pub well: bool,
    /// Its standard output.
    pub output: Vec<u8>,
    /// The beginning of what it complained of.
    pub complaint: String,
}

impl Ended {
    /// Its output, or its complaint as a failure to do something.
    ///
    /// # Errors
    /// `Internal`: it did not end well.
    pub fn good(self, doing: &str) -> Result<Vec<u8>, RootError> {
        if self.well {
            return Ok(self.output);
        }
        let mut failure = RootError::new(Kind::Internal, format!("cannot {doing}"));
        failure.causes.extend((!self.complaint.is_empty()).then_some(self.complaint));
        Err(failure)
    }
}

/// Runs it. `text` is at [`TEXT_PATH`] for it; `kept` is inherited and held open by it.
///
/// # Errors
/// memfd_create(2), fork(2), execve(2), wait(2); `Busy`: it took too long and was killed.
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
    let (mut output, mut complaint) =
        (memory("output").map_err(failed)?, memory("complaint").map_err(failed)?);
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let mut descriptors = vec![(input.as_fd(), TEXT)];
    descriptors.extend(kept.map(|fd| (fd, TEXT + 1)));
    let spawn = Spawn {
        program,
        args: &args,
        env: &[("LC_ALL".to_owned(), "C".to_owned())],
        run_as: None,
        stdout: output.as_fd(),
        stderr: complaint.as_fd(),
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
        well: status.success(),
        output: written(&mut output, MAX_OUTPUT).map_err(failed)?,
        complaint: String::from_utf8_lossy(
            &written(&mut complaint, MAX_COMPLAINT).map_err(failed)?,
        )
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
    fn a_text_goes_in_and_one_comes_out() {
        let cat = find("cat").unwrap();
        let ended = run(&cat, &[TEXT_PATH], "hello", None).unwrap();
        assert_eq!(ended.good("copy").unwrap(), b"hello");
        let ended = run(&cat, &["/nowhere"], "", None).unwrap();
        let failure = ended.good("copy").unwrap_err();
        assert_eq!(failure.message, "cannot copy");
        assert!(failure.causes[0].contains("No such file"), "{failure:?}");
        assert!(run(Path::new("/nowhere/cat"), &[], "", None).is_err());
        assert_eq!(find("no-such-program"), None);
    }
}
