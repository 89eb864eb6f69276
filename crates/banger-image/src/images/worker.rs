//! Converts archives in a separate process.
//!
//! A tree of 300 000 files takes several hundred MiB. The exit of the process releases all of it,
//! and a fault in parsing an untrusted archive ends only the worker.
//!
//! ```text
//! <daemon> image-worker <object folder> <plain|debian|machine|inspect|seed> <search path> <source>
//! ```
//!
//! The source is `file FILE`, `whole DISK`, `layer LAYER IMAGE` or `snapshot CHANGES IMAGE BYTES`.
//!
//! The worker writes one JSON [`Message`] a line to its standard output, the last being `done` or
//! `failed`. It is killed with the daemon, is the preferred victim of the OOM killer, and is
//! confined ([`confine`]) before it reads the archive.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use banger_api::ApiError;
use serde::{Deserialize, Serialize};

use super::confine::{self, View};
use super::convert::{self, Converted, Input};
use super::sources::vm_disk::VmDisk;
use super::{ImageError, clean, recipe};
use crate::advice;
use crate::fetch::{FetchError, PathContext, Progress, Tool, Tools};

/// First argument that makes the program a worker.
pub const ARGUMENT: &str = "image-worker";
/// Maximum length of a line of a worker.
const LINE_BYTES: u64 = 1 << 20;

/// The process of a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conversion {
    /// In a confined thread of this process; for tests.
    InProcess,
    /// In a child process of this program, whose main function calls [`main`] for [`ARGUMENT`].
    Worker,
}

/// Changes to the tree of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amendments {
    /// Removal of the machine's identity only.
    Plain,
    /// Also the changes of the Debian recipe.
    Debian,
    /// Also the removal of caches, logs and histories of a machine.
    Machine,
    /// Nothing is written: the facts only.
    Inspect,
    /// Only the work seed is written.
    Seed,
}

impl Amendments {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Debian => "debian",
            Self::Machine => "machine",
            Self::Inspect => "inspect",
            Self::Seed => "seed",
        }
    }
}

/// The source as arguments of a worker.
fn to_arguments(input: Input<'_>) -> Vec<OsString> {
    let words: Vec<&std::ffi::OsStr> = match input {
        Input::File(path) => vec!["file".as_ref(), path.as_os_str()],
        Input::Vm(VmDisk::Whole { disk }) => vec!["whole".as_ref(), disk.as_os_str()],
        Input::Vm(VmDisk::Layer { layer, image }) => {
            vec!["layer".as_ref(), layer.as_os_str(), image.as_os_str()]
        }
        Input::Vm(VmDisk::Snapshot { changes, image, bytes }) => {
            let words = ["snapshot".as_ref(), changes.as_os_str(), image.as_os_str()];
            let mut words: Vec<OsString> = words.map(OsString::from).into();
            words.push(bytes.to_string().into());
            return words;
        }
    };
    words.into_iter().map(OsString::from).collect()
}

/// A source that a worker was given.
enum Given {
    File(PathBuf),
    Vm(VmDisk),
}

/// The opposite of [`to_arguments`].
fn from_arguments(arguments: &[OsString]) -> Option<Given> {
    let (kind, rest) = arguments.split_first()?;
    Some(match (kind.to_str()?, rest) {
        ("file", [path]) => Given::File(path.into()),
        ("whole", [disk]) => Given::Vm(VmDisk::Whole { disk: disk.into() }),
        ("layer", [layer, image]) => {
            Given::Vm(VmDisk::Layer { layer: layer.into(), image: image.into() })
        }
        ("snapshot", [changes, image, bytes]) => Given::Vm(VmDisk::Snapshot {
            changes: changes.into(),
            image: image.into(),
            bytes: bytes.to_str()?.parse().ok()?,
        }),
        _ => return None,
    })
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    Stage(String),
    Bytes { done: u64, total: Option<u64> },
    Log(String),
    Warning(String),
    Done(Converted),
    Failed(ApiError),
}

/// A conversion.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The source.
    pub input: Input<'a>,
    /// Folder of the new image.
    pub object: &'a Path,
    /// Changes to the tree.
    pub amendments: Amendments,
    /// External programs.
    pub tools: &'a Tools,
    /// Receives stages, bytes and warnings.
    pub progress: &'a dyn Progress,
}

/// Converts an archive.
///
/// # Errors
/// Those of [`convert::convert`]; a worker that ended without a result.
pub fn run(conversion: Conversion, job: Job<'_>) -> Result<Converted, ImageError> {
    match conversion {
        Conversion::InProcess => std::thread::scope(|scope| {
            let thread = scope.spawn(|| confined(job, || ()));
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        }),
        Conversion::Worker => in_worker(job),
    }
}

/// Converts after confining this thread; `then` is called in between.
fn confined(job: Job<'_>, then: impl FnOnce()) -> Result<Converted, ImageError> {
    let Job { input, object, amendments, tools, progress } = job;
    let scratch = convert::scratch(object);
    std::fs::create_dir_all(&scratch).at("make the folder", &scratch)?;
    confine::confine(View { sources: &input.paths(), targets: [object, &scratch], tools })
        .at("confine", Path::new(ARGUMENT))?;
    then();
    let amend: convert::Amend<'_> = match amendments {
        Amendments::Plain => &|_| Ok(()),
        Amendments::Debian => &recipe::amend,
        Amendments::Machine => &|tree| Ok(clean::clean(tree)?),
        Amendments::Inspect => return convert::inspect(input, object, tools, progress),
        Amendments::Seed => return convert::seed(input, object, tools, progress),
    };
    convert::convert(input, object, amend, tools, progress)
}

fn in_worker(job: Job<'_>) -> Result<Converted, ImageError> {
    let Job { input, object, amendments, tools, progress } = job;
    // This program, even if its file has been replaced.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("bangerd").arg(ARGUMENT).arg(object).arg(amendments.name());
    // Without the daemon's environment, which may have passwords of proxies.
    command.arg(tools.search_path()).args(to_arguments(input)).env_clear();
    let mut running = Tool::of("image-worker", command).start(progress)?;
    let program = PathBuf::from(ARGUMENT);
    let (mut result, mut lines) = (None, BufReader::new(&mut running));
    loop {
        let mut line = Vec::new();
        let count = (&mut lines).take(LINE_BYTES).read_until(b'\n', &mut line);
        if count.at("read from", &program)? == 0 {
            break;
        }
        match serde_json::from_slice(&line) {
            Ok(Message::Stage(name)) => progress.stage(&name),
            Ok(Message::Bytes { done, total }) => progress.bytes(done, total),
            Ok(Message::Log(line)) => progress.log(&line),
            Ok(Message::Warning(line)) => progress.warning(&line),
            Ok(Message::Done(converted)) => result = Some(Ok(converted)),
            Ok(Message::Failed(error)) => result = Some(Err(ImageError::Worker(Box::new(error)))),
            Err(_) => progress.log(&String::from_utf8_lossy(&line)),
        }
    }
    drop(lines);
    let ended = running.finish();
    match (result, ended) {
        (Some(result), Ok(())) => result,
        (_, Err(error)) => Err(error.into()),
        (None, Ok(())) => Err(FetchError::ToolFailed {
            tool: ARGUMENT,
            status: "exit code 0".into(),
            output: vec!["it ended without a result".into()],
        }
        .into()),
    }
}

/// Sends messages to the daemon; ends the worker if the daemon is gone.
struct MessageWriter;

impl MessageWriter {
    fn send(&self, message: &Message) {
        let mut out = std::io::stdout().lock();
        let written = serde_json::to_string(message).map_err(std::io::Error::other);
        let written = written.and_then(|text| writeln!(out, "{text}")).and_then(|()| out.flush());
        if written.is_err() {
            std::process::exit(1);
        }
    }
}

impl Progress for MessageWriter {
    fn stage(&self, name: &str) {
        self.send(&Message::Stage(name.into()));
    }

    fn bytes(&self, done: u64, total: Option<u64>) {
        self.send(&Message::Bytes { done, total });
    }

    fn log(&self, line: &str) {
        self.send(&Message::Log(line.into()));
    }

    fn warning(&self, line: &str) {
        self.send(&Message::Warning(line.into()));
    }

    fn cancelled(&self) -> bool {
        false
    }
}

/// Runs a worker; `arguments` are those after [`ARGUMENT`].
pub fn main(arguments: &[OsString]) -> ExitCode {
    main_with(arguments, || ())
}

/// As [`main`]; calls `then` once the worker is confined. For tests of the confinement.
pub fn main_with(arguments: &[OsString], then: impl FnOnce()) -> ExitCode {
    let given = match arguments {
        [object, amendments, search_path, source @ ..] => {
            from_arguments(source).map(|source| (object, amendments, search_path, source))
        }
        _ => None,
    };
    let Some((object, amendments, search_path, source)) = given else {
        eprintln!("error: `{ARGUMENT}` is called by the daemon only");
        return ExitCode::from(banger_api::exit::USAGE);
    };
    let all = [
        Amendments::Plain,
        Amendments::Debian,
        Amendments::Machine,
        Amendments::Inspect,
        Amendments::Seed,
    ];
    let amendments = all.into_iter().find(|one| amendments == one.name());
    let amendments = amendments.unwrap_or(Amendments::Plain);
    // Without its daemon it would write into a folder that the next daemon removes.
    let with_parent =
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    if with_parent.is_err() {
        return ExitCode::FAILURE;
    }
    // Best effort.
    let _ = std::fs::write("/proc/self/oom_score_adj", "800");
    let tools = Tools::only(search_path);
    let job = Job {
        input: match &source {
            Given::File(path) => Input::File(path),
            Given::Vm(disk) => Input::Vm(disk),
        },
        object: object.as_ref(),
        amendments,
        tools: &tools,
        progress: &MessageWriter,
    };
    let limited = confine::limit_resources().at("limit", Path::new(ARGUMENT));
    let converted = limited.map_err(ImageError::from).and_then(|()| confined(job, then));
    MessageWriter.send(&match converted {
        Ok(converted) => Message::Done(converted),
        Err(error) => Message::Failed(advice::image(&error)),
    });
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_their_arguments() {
        use std::os::unix::ffi::OsStringExt;
        let odd = PathBuf::from(OsString::from_vec(b"/a \xff\n".to_vec()));
        let disks = [
            VmDisk::Whole { disk: odd.clone() },
            VmDisk::Layer { layer: odd.clone(), image: "/i".into() },
            VmDisk::Snapshot { changes: odd.clone(), image: "/i".into(), bytes: u64::MAX },
        ];
        for disk in disks {
            let Some(Given::Vm(again)) = from_arguments(&to_arguments(Input::Vm(&disk))) else {
                panic!("{disk:?}");
            };
            assert_eq!(again, disk);
        }
        let given = from_arguments(&to_arguments(Input::File(&odd)));
        assert!(matches!(given, Some(Given::File(path)) if path == odd));
        for bad in [&["file"][..], &["what", "/x"], &["snapshot", "/a", "/b", "-1"], &[]] {
            let bad: Vec<OsString> = bad.iter().map(OsString::from).collect();
            assert!(from_arguments(&bad).is_none(), "{bad:?}");
        }
    }
}
