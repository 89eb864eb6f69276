//! Image builds on this host: inputs, copies and commands through the agent, capture.

pub(crate) mod command;
mod digest;
mod log;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use banger_api::build::{BuildCopy, BuildInputs, CopiedInput, ImageBuildRequest};
use banger_api::{ApiError, ErrorCode};
use banger_engine::drivers::{
    BuildLog, Builds, Capture, Commit, Guest, GuestCommand, GuestExit, GuestOutput, Progress,
    RootFiles,
};
use banger_engine::interrupt::{Interrupt, Reason};
use banger_engine::plan::{BootSet, VmPlan};
use banger_image::fetch::digest_of_file;
use banger_image::images::{Captured, Committed, ImageStore, VmDisk};
use tokio::net::UnixStream;

use crate::failure::blocking;
use crate::layout::Layout;
use crate::relay::Relay;

/// Time limit for the start of a command in a guest.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Image builds with agents and stores of this host.
pub struct HostBuilds {
    layout: Layout,
    images: Arc<ImageStore>,
    guest: Arc<dyn Guest>,
}

impl HostBuilds {
    /// Builds that reach their guests through `guest`.
    pub fn new(layout: Layout, images: Arc<ImageStore>, guest: Arc<dyn Guest>) -> Self {
        Self { layout, images, guest }
    }

    /// A connection to the agent.
    async fn connect(&self, vm: &VmPlan) -> Result<UnixStream, ApiError> {
        crate::guest::stream(self.guest.connect(vm).await?, vm)
    }
}

/// The error of work in a guest that was interrupted.
fn interrupted(reason: &Reason) -> ApiError {
    match reason {
        Reason::Cancelled => ApiError::new(ErrorCode::Cancelled, "the build was cancelled"),
        Reason::VmmExited(story) => ApiError::new(ErrorCode::GuestFailed, story.summary()),
    }
}

/// The error of a connection to the agent of a VM.
fn lost(vm: &VmPlan, error: &dyn std::error::Error) -> ApiError {
    let text = format!("the connection to the agent of `{}` ended", vm.name);
    ApiError::new(ErrorCode::GuestFailed, text).caused_by(error)
}

#[async_trait]
impl Builds for HostBuilds {
    async fn inputs(
        &self,
        request: &ImageBuildRequest,
        base: &BootSet,
        root_bytes: u64,
    ) -> Result<BuildInputs, ApiError> {
        let (request, base) = (request.clone(), base.clone());
        blocking(move || {
            let mut copies = Vec::new();
            for copy in &request.copies {
                let sha256 = digest::of(copy.source.as_path())?;
                copies.push(CopiedInput { target: copy.target.clone(), sha256 });
            }
            let script = request.script.as_deref().map(|text| digest_of_file(text.as_bytes()));
            let script_sha256 =
                script.transpose().map_err(|error| crate::failure::of("the script", &error))?;
            let mut packages = request.packages;
            packages.sort();
            packages.dedup();
            Ok(BuildInputs {
                base: base.image,
                base_name: base.image_name,
                copies,
                packages,
                script_sha256,
                root_bytes,
            })
        })
        .await
    }

    async fn built(&self, inputs: &BuildInputs) -> Result<Option<String>, ApiError> {
        let (images, inputs) = (self.images.clone(), inputs.clone());
        blocking(move || {
            let built = images.built(&inputs);
            let built = built.map_err(|error| banger_image::advice::image(&error))?;
            Ok(built.map(|image| image.record.id))
        })
        .await
    }

    fn log(&self, name: &str) -> Result<BuildLog, ApiError> {
        log::create(&self.layout.builds(), name)
    }

    async fn copy(
        &self,
        vm: &VmPlan,
        copy: &BuildCopy,
        sha256: &str,
        interrupt: &Interrupt,
    ) -> Result<(), ApiError> {
        let agent = self.connect(vm).await?;
        tokio::select! {
            sent = upload::send(agent, vm, copy) => sent?,
            reason = interrupt.raised() => return Err(interrupted(&reason)),
        }
        let (source, sha256) = (copy.source.clone(), sha256.to_owned());
        blocking(move || {
            if digest::of(source.as_path())? == sha256 {
                return Ok(());
            }
            let text = format!("`{source}` changed while it was copied");
            Err(ApiError::new(ErrorCode::Busy, text))
        })
        .await
    }

    async fn run(
        &self,
        vm: &VmPlan,
        command: &GuestCommand,
        output: GuestOutput<'_>,
        interrupt: &Interrupt,
    ) -> Result<GuestExit, ApiError> {
        let start = async {
            let agent = self.connect(vm).await?;
            command::Session::start(agent, vm, command).await
        };
        let started = tokio::select! {
            started = tokio::time::timeout(START_TIMEOUT, start) => started,
            reason = interrupt.raised() => return Err(interrupted(&reason)),
        };
        let mut session = started.map_err(|_| {
            let text = format!("{} did not start in `{}`", command.purpose, vm.name);
            ApiError::new(ErrorCode::Timeout, text)
        })??;
        // The agent ends a command whose connection ends.
        tokio::select! {
            exit = session.finish(vm, &command.stdin, output) => exit,
            reason = interrupt.raised() => Err(interrupted(&reason)),
        }
    }

    async fn capture(
        &self,
        capture: &Capture,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError> {
        let (images, capture) = (self.images.clone(), capture.clone());
        blocking(move || {
            let captured = Captured {
                name: &capture.name,
                taken: capture.taken,
                disk: &capture.disk,
                inputs: &capture.inputs,
                installed: &capture.installed,
                own_kernel: capture.own_kernel,
            };
            let made = images.capture(captured, &Relay { progress });
            made.map(|image| image.record.id).map_err(|error| banger_image::advice::image(&error))
        })
        .await
    }

    async fn commit(
        &self,
        commit: &Commit,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError> {
        let (images, commit) = (self.images.clone(), commit.clone());
        blocking(move || {
            let disk = vm_disk(commit.disk);
            let (name, taken, from) = (&commit.name, commit.taken, &commit.from);
            let committed = Committed { name, taken, disk: &disk, from };
            let made = images.commit(committed, &Relay { progress });
            made.map(|image| image.record.id).map_err(|error| banger_image::advice::image(&error))
        })
        .await
    }
}

fn vm_disk(files: RootFiles) -> VmDisk {
    match files {
        RootFiles::Whole { disk } => VmDisk::Whole { disk },
        RootFiles::Layer { layer, image } => VmDisk::Layer { layer, image },
        RootFiles::Snapshot { changes, image, bytes } => VmDisk::Snapshot { changes, image, bytes },
    }
}
