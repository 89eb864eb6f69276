//! Commands without a client, for `POST /detach`: no input, output into a file of the guest.
//!
//! The file is the command's own stdout and stderr, so the command needs nothing of the agent once
//! it runs, and output is not lost when the agent ends.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use banger_agent_proto::exec::{Detached, ExecRequest, ExitStatus};
use rustix::process::{WaitOptions, waitpid};

use super::Slot;
use super::exec::{self, Defaults, Prepared};
use super::http::Refusal;
use crate::boot::wall_clock_ms;
use crate::sys::process::{ChildSetup, Launch, spawn};

/// Folder of the output files.
const LOG_FOLDER: &str = "/var/log/banger";

/// Most commands that run detached at once.
const MAX_COMMANDS: usize = 1024;

/// Names tried for an output file: one for each millisecond from now.
const NAME_TRIES: u64 = 100;

/// Stack of the thread that waits for a command, in bytes.
const STACK: usize = 64 * 1024;

/// The commands that run detached.
#[derive(Default)]
pub struct Commands(Arc<AtomicUsize>);

impl Commands {
    /// Starts one.
    ///
    /// # Errors
    /// A request that is wrong in itself, or too many commands.
    pub fn start(&self, request: &ExecRequest, defaults: &Defaults) -> Result<Detached, Refusal> {
        if request.tty.is_some() || request.stdin {
            return Err(Refusal::bad("a detached command has neither a terminal nor input"));
        }
        let Some(slot) = Slot::take(&self.0, MAX_COMMANDS) else {
            let text = format!("{MAX_COMMANDS} detached commands run already");
            return Err(Refusal::new(409, text));
        };
        let Prepared { program, setup, group, .. } = exec::prepare(request, defaults)?;
        // A guest whose disk is full or read-only still runs commands.
        let log = make_log(Path::new(LOG_FOLDER), &setup).ok();
        let stdio = stdio(log.as_ref().map(|(_, file)| file)).map_err(|error| {
            Refusal::new(500, format!("cannot set up the command's output: {error}"))
        })?;
        let log = log.map(|(path, _)| path);
        let cgroup = group.as_ref().map(AsFd::as_fd);
        match spawn(Launch { program, stdio, setup, cgroup }) {
            Ok(process) => {
                let pid = process.pid.as_raw_pid().unsigned_abs();
                let wait = move || {
                    // Reaps the process; its exit status is not reported.
                    let _ = waitpid(Some(process.pid), WaitOptions::empty());
                    drop((group, slot));
                };
                // Without a thread the command still runs, and stays a zombie at its end.
                let _ = thread::Builder::new().stack_size(STACK).spawn(wait);
                Ok(Detached::Running { pid, log: log.map(|path| path.display().to_string()) })
            }
            Err((stage, error)) => {
                if let Some(path) = log {
                    // Empty and of no use; if it stays that does no harm.
                    let _ = fs::remove_file(path);
                }
                match exec::not_started(stage, &error, request) {
                    ExitStatus::NotStarted { code, message } => {
                        Ok(Detached::NotStarted { code, message })
                    }
                    _ => Err(Refusal::new(500, "the command did not start")),
                }
            }
        }
    }
}

/// No input; output into the file, or nowhere.
fn stdio(log: Option<&File>) -> io::Result<[OwnedFd; 3]> {
    let null = || File::options().read(true).write(true).open("/dev/null");
    let output = || log.map_or_else(null, File::try_clone).map(OwnedFd::from);
    Ok([null()?.into(), output()?, output()?])
}

/// Makes the output file, which belongs to the command's user: programs reopen `/dev/stdout`.
fn make_log(folder: &Path, setup: &ChildSetup) -> io::Result<(PathBuf, File)> {
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    let now = wall_clock_ms();
    let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
    for name in now..now.saturating_add(NAME_TRIES) {
        let path = folder.join(format!("{name}.log"));
        match File::options().create_new(true).append(true).mode(0o640).open(&path) {
            Ok(file) => {
                fchown(&file, Some(setup.uid.as_raw()), Some(setup.gid.as_raw()))?;
                return Ok((path, file));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::cgroup;

    fn defaults() -> Defaults {
        Defaults { env: std::collections::BTreeMap::new(), groups: cgroup::Sessions::new(None) }
    }

    fn request(script: &str) -> ExecRequest {
        ExecRequest {
            argv: ["/bin/sh", "-c", script].map(Into::into).to_vec(),
            cwd: Some("/".into()),
            ..ExecRequest::default()
        }
    }

    #[test]
    fn output_files_have_names_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("var/log");
        let setup = exec::prepare(&request("true"), &defaults()).unwrap().setup;
        let made: std::collections::BTreeSet<_> =
            (0..20).map(|_| make_log(&log, &setup).unwrap().0).collect();
        assert_eq!(made.len(), 20);
        let full = Path::new("/proc/no/folder");
        assert!(make_log(full, &setup).is_err());
    }

    #[test]
    fn a_detached_command_has_no_client() {
        let commands = Commands::default();
        for wrong in [
            ExecRequest { stdin: true, ..request("true") },
            ExecRequest {
                tty: Some(banger_agent_proto::exec::WindowSize { rows: 1, cols: 1 }),
                ..request("true")
            },
        ] {
            assert_eq!(commands.start(&wrong, &defaults()).unwrap_err().status, 400);
        }
    }

    #[test]
    fn it_runs_and_gives_its_place_back() {
        let folder = tempfile::tempdir().unwrap();
        let (go, done) = (folder.path().join("go"), folder.path().join("done"));
        let script =
            format!("until [ -e {} ]; do sleep 0.01; done; : >{}", go.display(), done.display());
        let commands = Commands::default();
        let started = commands.start(&request(&script), &defaults()).unwrap();
        let Detached::Running { log, .. } = started else { panic!("{started:?}") };
        assert_eq!(commands.0.load(std::sync::atomic::Ordering::Acquire), 1);
        std::fs::write(go, "").unwrap();
        while commands.0.load(std::sync::atomic::Ordering::Acquire) > 0 {
            thread::yield_now();
        }
        assert!(done.exists());
        if let Some(log) = log {
            fs::remove_file(log).unwrap();
        }
    }

    #[test]
    fn a_missing_program_leaves_no_file() {
        let mut wrong = request("");
        wrong.argv = vec!["no-such-program".into()];
        let started = Commands::default().start(&wrong, &defaults()).unwrap();
        let Detached::NotStarted { code, message } = started else { panic!("{started:?}") };
        assert_eq!(code, 127, "{message}");
    }
}
