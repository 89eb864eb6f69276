//! The host's part of an image build: its inputs, commands in its guest, and the new image.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use banger_api::ApiError;
use banger_api::build::{BuildCopy, BuildInputs, ImageBuildRequest};
use banger_api::images::{CommittedFrom, TakenName};

use crate::drivers::RootFiles;
use crate::interrupt::Interrupt;
use crate::plan::{BootSet, VmPlan};
use crate::progress::Progress;

/// A command in a guest, run as its superuser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestCommand {
    /// What it is for, for messages: `the script`.
    pub purpose: &'static str,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Its standard input.
    pub stdin: Vec<u8>,
}

/// How a command in a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestExit {
    /// Its exit code, as a shell reports it: 126 or 127 if it could not be started, 128 + n after
    /// signal n.
    pub code: u8,
    /// Why it could not be started.
    pub message: Option<String>,
}

/// Receives the output of a command in a guest, both streams.
pub type GuestOutput<'a> = &'a (dyn Fn(&[u8]) + Send + Sync);

/// The log of a build.
pub struct BuildLog {
    /// Its path.
    pub path: String,
    /// Receives the output; errors after its limit, or on a full disk, are not reported.
    pub file: Box<dyn Write + Send>,
}

/// An image to be made from a stopped VM.
#[derive(Debug, Clone)]
pub struct Capture {
    /// Name of the image.
    pub name: String,
    /// Whether the name moves from another image.
    pub taken: TakenName,
    /// The file with the root file system.
    pub disk: PathBuf,
    /// What it was made from.
    pub inputs: BuildInputs,
    /// Installed packages with their versions, as the guest listed them.
    pub installed: Vec<String>,
    /// Whether VMs boot the kernel that the image contains.
    pub own_kernel: bool,
}

/// An image to be made of the root disk of a VM that does not run.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Name of the image.
    pub name: String,
    /// Whether the name moves from another image.
    pub taken: TakenName,
    /// The root disk.
    pub disk: RootFiles,
    /// The VM, and its image.
    pub from: CommittedFrom,
}

/// Image builds.
#[async_trait]
pub trait Builds: Send + Sync {
    /// The inputs of a build, with digests of the files to copy.
    async fn inputs(
        &self,
        request: &ImageBuildRequest,
        base: &BootSet,
        root_bytes: u64,
    ) -> Result<BuildInputs, ApiError>;
    /// The id of an intact image with the same inputs.
    async fn built(&self, inputs: &BuildInputs) -> Result<Option<String>, ApiError>;
    /// A new log for a build of an image with this name; the oldest logs are removed.
    fn log(&self, name: &str) -> Result<BuildLog, ApiError>;
    /// Copies a file or folder into a guest. Fails if it is not what the inputs describe.
    async fn copy(
        &self,
        vm: &VmPlan,
        copy: &BuildCopy,
        sha256: &str,
        interrupt: &Interrupt,
    ) -> Result<(), ApiError>;
    /// Runs a command in a guest to its end.
    async fn run(
        &self,
        vm: &VmPlan,
        command: &GuestCommand,
        output: GuestOutput<'_>,
        interrupt: &Interrupt,
    ) -> Result<GuestExit, ApiError>;
    /// Makes an image of a root disk that no VM writes to; returns its id.
    async fn capture(
        &self,
        capture: &Capture,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError>;
    /// Makes an image of a root disk without what belongs to its machine; returns its id. The disk
    /// may have been in use when the VM was killed.
    async fn commit(
        &self,
        commit: &Commit,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError>;
}
