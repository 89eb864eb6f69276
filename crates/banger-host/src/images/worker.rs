//! Converts archives in a process of its own.
//!
//! A tree of 300 000 files takes some hundred MiB while it is written. A process gives all of it
//! back when it ends, a daemon does not; and what an archive can do to its reader ends with it.
//!
//! ```text
//! <daemon> image-worker <archive> <object folder> <plain|debian> <search path>
//! ```
//!
//! The worker writes one JSON [`Message`] a line to its standard output, the last being `done` or
//! `failed`. It dies with the daemon and is the first that the kernel kills for want of memory.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use banger_api::ApiError;
use serde::{Deserialize, Serialize};

use super::convert::{self, Converted};
use super::{ImageError, recipe};
use crate::advice;
use crate::fetch::{FetchError, PathContext, Progress, Source, Tool, Tools};

/// First argument of the program that makes it a worker.
pub const ARGUMENT: &str = "image-worker";
/// Longest line of a worker in bytes.
const LINE_BYTES: u64 = 1 << 16;

/// Where conversions run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conversion {
    /// In this process; for tests.
    InProcess,
    /// In a process of this program, whose main function calls [`main`] for [`ARGUMENT`].
    Worker,
}

/// What is changed in the tree of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amendments {
    /// Nothing but the identity of the machine.
    Plain,
    /// Those of the Debian recipe.
    Debian,
}

impl Amendments {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Debian => "debian",
        }
    }
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

/// What is converted, and how.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The archive.
    pub archive: &'a Path,
    /// Folder of the image that is made.
    pub object: &'a Path,
    /// What is changed in the tree.
    pub amendments: Amendments,
    /// Programs that may be run.
    pub tools: &'a Tools,
    /// Told of stages, bytes and remarks.
    pub progress: &'a dyn Progress,
}

/// Converts an archive.
///
/// # Errors
/// Those of [`convert::convert`]; a worker that ended without an answer.
pub fn run(conversion: Conversion, job: Job<'_>) -> Result<Converted, ImageError> {
    match conversion {
        Conversion::InProcess => in_process(job),
        Conversion::Worker => in_worker(job),
    }
}

fn in_process(job: Job<'_>) -> Result<Converted, ImageError> {
    let Job { archive, object, amendments, tools, progress } = job;
    let source = Source::open(archive)?;
    let amend: convert::Amend<'_> = match amendments {
        Amendments::Plain => &|_| Ok(()),
        Amendments::Debian => &recipe::amend,
    };
    convert::convert(&source, object, amend, tools, progress)
}

fn in_worker(job: Job<'_>) -> Result<Converted, ImageError> {
    let Job { archive, object, amendments, tools, progress } = job;
    // This program, even where its file was replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("bangerd").arg(ARGUMENT).arg(archive).arg(object).arg(amendments.name());
    command.arg(tools.search_path());
    let mut running = Tool::of("image-worker", command).start(progress)?;
    let program = PathBuf::from(ARGUMENT);
    let (mut answer, mut lines) = (None, BufReader::new(&mut running));
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
            Ok(Message::Done(converted)) => answer = Some(Ok(converted)),
            Ok(Message::Failed(error)) => answer = Some(Err(ImageError::Worker(Box::new(error)))),
            Err(_) => progress.log(&String::from_utf8_lossy(&line)),
        }
    }
    drop(lines);
    let ended = running.finish();
    match (answer, ended) {
        (Some(answer), Ok(())) => answer,
        (_, Err(error)) => Err(error.into()),
        (None, Ok(())) => Err(FetchError::ToolFailed {
            tool: ARGUMENT,
            status: "exit code 0".into(),
            output: vec!["it gave no answer".into()],
        }
        .into()),
    }
}

/// Tells the daemon; a worker that nobody listens to ends.
struct Tell;

impl Tell {
    fn say(&self, message: &Message) {
        let mut out = std::io::stdout().lock();
        let said = serde_json::to_string(message).map_err(std::io::Error::other);
        let said = said.and_then(|text| writeln!(out, "{text}")).and_then(|()| out.flush());
        if said.is_err() {
            std::process::exit(1);
        }
    }
}

impl Progress for Tell {
    fn stage(&self, name: &str) {
        self.say(&Message::Stage(name.into()));
    }

    fn bytes(&self, done: u64, total: Option<u64>) {
        self.say(&Message::Bytes { done, total });
    }

    fn log(&self, line: &str) {
        self.say(&Message::Log(line.into()));
    }

    fn warning(&self, line: &str) {
        self.say(&Message::Warning(line.into()));
    }

    fn cancelled(&self) -> bool {
        false
    }
}

/// Runs a worker; `arguments` are those after [`ARGUMENT`].
pub fn main(arguments: &[OsString]) -> ExitCode {
    let [archive, object, amendments, search_path] = arguments else {
        eprintln!("error: `{ARGUMENT}` is called by the daemon only");
        return ExitCode::from(banger_api::exit::USAGE);
    };
    let amendments = match amendments.to_str() {
        Some("debian") => Amendments::Debian,
        _ => Amendments::Plain,
    };
    // A worker without its daemon would write into a folder that the next daemon removes.
    let with_parent =
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    if with_parent.is_err() {
        return ExitCode::FAILURE;
    }
    // Only a preference.
    let _ = std::fs::write("/proc/self/oom_score_adj", "800");
    let tools = Tools::only(&search_path.to_string_lossy());
    let job = Job {
        archive: archive.as_ref(),
        object: object.as_ref(),
        amendments,
        tools: &tools,
        progress: &Tell,
    };
    let converted = in_process(job);
    Tell.say(&match converted {
        Ok(converted) => Message::Done(converted),
        Err(error) => Message::Failed(advice::image(&error)),
    });
    ExitCode::SUCCESS
}
