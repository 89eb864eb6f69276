//! Image builds: a temporary VM is created from an image, provisioned through its agent, stopped,
//! and its root disk becomes the new image.
//!
//! The VM is on record like any other, with the build as its purpose ([`BuildPlan`]). The build
//! deletes it at its end; if the daemon ends before, the next daemon does. The image appears with
//! one rename, complete or not at all.

use std::sync::{Arc, Mutex, PoisonError};

use banger_api::boot::{BootState, Wait, WaitFor};
use banger_api::build::{BuildInputs, ImageBuildRequest};
use banger_api::hint::VmLog;
use banger_api::images::TakenName;
use banger_api::operation::{Accepted, Subject, stage};
use banger_api::vm::{CreateVm, StopKind, StoppedBecause, VmAction};
use banger_api::{ApiError, ErrorCode, Hint, OpId, VmId};

use crate::build_log::LiveLog;
use crate::builds::{Capture, GuestCommand};
use crate::cancel;
use crate::drivers::{Progress, RootFiles, WantedKernel};
use crate::engine::Engine;
use crate::image_ops::{check_name, check_pulled};
use crate::interrupt::Interrupt;
use crate::ops::{Op, OpProgress};
use crate::plan::{BootSet, BuildPlan, VmPlan};
use crate::recipes::{Keep, Making, RecipeKernel};
use crate::record::VmRecord;

const PACKAGES: &str = include_str!("build/packages.sh");
const SCRIPT: &str = include_str!("build/script.sh");
const INSTALLED: &str = include_str!("build/installed.sh");
const CLEAN: &str = include_str!("build/clean.sh");

/// Time for the shutdown of the guest. A guest that takes longer leaves a file system in use.
const STOP_GRACE_MS: u64 = 180_000;
/// Time for the boot of the init, after which the build begins anyway.
const BOOT_WAIT_MS: u64 = 300_000;
/// Maximum size of the list of installed packages in bytes.
const MAX_INSTALLED: usize = 2 << 20;

/// A build in progress.
struct Build<'a> {
    op: &'a Arc<Op>,
    request: &'a ImageBuildRequest,
    base: &'a BootSet,
    inputs: &'a BuildInputs,
    progress: &'a Arc<OpProgress>,
    log: &'a LiveLog,
    interrupt: Interrupt,
    kernel_of_vms: RecipeKernel,
}

impl Engine {
    /// Builds an image in a temporary VM.
    ///
    /// # Errors
    /// A bad value, an unknown image, or an error of the store.
    pub async fn build_image(&self, request: ImageBuildRequest) -> Result<Accepted, ApiError> {
        request.check()?;
        check_name(&request.name)?;
        check_pulled(&request.from)?;
        let kernel = WantedKernel::Default(&self.defaults.kernel);
        self.shared.drivers.images.check(&request.from, kernel)?;
        let subject = Subject::Image { name: request.name.clone(), id: None };
        let keep = if request.keep { Keep::AfterFailure } else { Keep::No };
        let work = move |engine: Arc<Self>, op: Arc<Op>| async move {
            engine.built(&op, keep, Making::Request(request)).await
        };
        self.in_background("build_image", subject, work).await
    }

    /// Builds an image as a request has it.
    pub(crate) async fn build(
        &self,
        op: &Arc<Op>,
        request: &ImageBuildRequest,
        kernel_of_vms: RecipeKernel,
    ) -> Result<String, ApiError> {
        let drivers = &self.shared.drivers;
        let progress = Arc::new(OpProgress::new(op.clone(), stage::PULL_IMAGE));
        let kernel = WantedKernel::Default(&self.defaults.kernel);
        let base = drivers.images.boot_set(&request.from, kernel, progress.clone()).await?;
        let least = self.defaults.root_bytes.max(base.image_bytes);
        let root_bytes = request.root_bytes.unwrap_or(least);
        progress.stage(stage::BUILD_INPUTS);
        let inputs = drivers.builds.inputs(request, &base, root_bytes).await?;
        let taken = TakenName::replacing(request.replace);
        if !request.no_cache
            && let Some(id) = drivers.builds.built(&inputs).await?
        {
            progress.note(&format!("already built: image {id} has the same inputs"));
            return self.name_built(&id, &request.name, taken, progress.as_ref()).await;
        }
        self.check_name_available(&request.name, taken).await?;
        let log = LiveLog::new(drivers.builds.log(&request.name)?, progress.clone());
        let build = Build {
            op,
            request,
            base: &base,
            inputs: &inputs,
            progress: &progress,
            log: &log,
            interrupt: Interrupt::new(op.cancelled(), tokio::sync::watch::channel(None).1),
            kernel_of_vms,
        };
        let made = self.build_in_vm(&build).await;
        log.finish_line();
        let made = made.map_err(|error| match error.code {
            ErrorCode::Cancelled => error,
            _ => error.with_hint(Hint::ReadFile { path: log.path().to_owned() }),
        })?;
        self.settle_replaced(progress.as_ref()).await;
        Ok(made)
    }

    /// Gives the name of a build to an image that has the same inputs.
    async fn name_built(
        &self,
        id: &str,
        name: &str,
        taken: TakenName,
        progress: &OpProgress,
    ) -> Result<String, ApiError> {
        {
            let _exclusive = self.images_in_use.write().await;
            let image = self.image(id).await?;
            let owner = self.image_named(name).await?.filter(|owner| owner.id != image.id);
            if let Some(owner) = owner.filter(|_| taken == TakenName::Refuse) {
                return Err(owner.name_taken(name));
            }
            if !image.names.iter().any(|known| known == name) {
                self.shared.drivers.images.tag_image(&image, name).await?;
            }
        }
        self.settle_replaced(progress).await;
        Ok(id.to_owned())
    }

    async fn build_in_vm(&self, build: &Build<'_>) -> Result<String, ApiError> {
        let vm = self.start_build_vm(build).await?;
        let installed = tokio::select! {
            installed = self.provision(build, &vm) => installed?,
            error = self.paused_for_long(&vm) => return Err(error),
        };
        build.progress.stage(stage::SHUTDOWN);
        self.stop_build_vm(build, &vm).await?;
        build.progress.stage(stage::CAPTURE_IMAGE);
        let spec = self.handle(vm.id.as_str())?.published.borrow().record.spec.clone();
        let RootFiles::Whole { disk } = self.shared.drivers.storage(&vm)?.root_files(&vm, &spec)
        else {
            let text = format!("the root disk of `{}` is not whole", vm.name);
            return Err(ApiError::new(ErrorCode::Internal, text));
        };
        let capture = Capture {
            name: build.request.name.clone(),
            taken: TakenName::replacing(build.request.replace),
            disk,
            inputs: build.inputs.clone(),
            installed,
            own_kernel: build.kernel_of_vms == RecipeKernel::Own,
        };
        let builds = &self.shared.drivers.builds;
        self.shared.crash_point(&build.op.kind, "stopped");
        let made = builds.capture(&capture, build.progress.clone()).await?;
        self.shared.crash_point(&build.op.kind, "captured");
        Ok(made)
    }

    /// Creates and starts the VM, and waits until its init has booted.
    async fn start_build_vm(&self, build: &Build<'_>) -> Result<VmPlan, ApiError> {
        build.progress.stage(stage::START_VM);
        let id = build.op.id.as_str();
        let request = CreateVm {
            name: Some(format!("build-{}", id.strip_prefix("op-").unwrap_or(id))),
            image: Some(build.base.image.to_string()),
            root_bytes: Some(build.inputs.root_bytes),
            ..CreateVm::default()
        };
        let plan = BuildPlan { operation: build.op.id.clone(), keep: build.request.keep };
        let accepted = self.create_for(request, Some(plan), None).await?;
        let (Some(tag), Some(create)) = (accepted.vm, accepted.operation) else {
            return Err(ApiError::new(ErrorCode::Internal, "a create without an operation"));
        };
        self.finish(build, &create).await?;
        // An init that boots still changes the file system: systemd empties /tmp.
        let wait = Wait { stage: WaitFor::Booted, timeout_ms: BOOT_WAIT_MS };
        let (vm, boot) = tokio::select! {
            reached = self.wait_boot(tag.id.as_str(), wait) => reached?,
            _ = build.interrupt.raised() => return Err(cancel::cancelled(build.op)),
        };
        if boot.state == BootState::Booting {
            let seconds = BOOT_WAIT_MS / 1000;
            let text = format!("the init is still booting after {seconds} s");
            build.progress.warning(&text);
        }
        Ok(vm)
    }

    /// Waits for an operation on the VM; a cancel of the build cancels it.
    async fn finish(&self, build: &Build<'_>, operation: &OpId) -> Result<(), ApiError> {
        let Some(op) = self.follow(operation) else { return Ok(()) };
        let done = tokio::select! {
            done = op.wait() => done,
            _ = build.interrupt.raised() => {
                // A stop cannot be cancelled; the delete that follows ends it.
                if self.cancel(operation).await.is_ok() {
                    let _ = op.wait().await;
                }
                return Err(cancel::cancelled(build.op));
            }
        };
        done.map(drop)
    }

    /// Copies, installs, runs the script and cleans; returns the list of installed packages.
    async fn provision(&self, build: &Build<'_>, vm: &VmPlan) -> Result<Vec<String>, ApiError> {
        let request = build.request;
        let builds = &self.shared.drivers.builds;
        if !request.copies.is_empty() {
            build.progress.stage(stage::COPY_FILES);
        }
        for (copy, input) in request.copies.iter().zip(&build.inputs.copies) {
            build.log.title(&format!("copy {} to {}", copy.source, copy.target));
            builds.copy(vm, copy, &input.sha256, &build.interrupt).await?;
        }
        if !request.packages.is_empty() {
            build.progress.stage(stage::INSTALL_PACKAGES);
            let mut command = shell("the installation of packages", PACKAGES);
            command.argv.extend(request.packages.iter().cloned());
            self.run_in(build, vm, &command).await?;
        }
        if let Some(script) = &request.script {
            build.progress.stage(stage::RUN_SCRIPT);
            let mut command = shell("the script", SCRIPT);
            command.stdin = script.clone().into_bytes();
            self.run_in(build, vm, &command).await?;
        }
        build.progress.stage(stage::CLEAN_IMAGE);
        let listed = Mutex::new(Vec::new());
        let list = |bytes: &[u8]| {
            let mut listed = listed.lock().unwrap_or_else(PoisonError::into_inner);
            let room = MAX_INSTALLED.saturating_sub(listed.len());
            listed.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        };
        let command = shell("the list of packages", INSTALLED);
        let exit = builds.run(vm, &command, &list, &build.interrupt).await?;
        // An image without a shell has no package manager, and nothing to clean.
        if exit.code == 127 {
            return Ok(Vec::new());
        }
        self.run_in(build, vm, &shell("the removal of caches and identity", CLEAN)).await?;
        let listed = listed.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(packages(&String::from_utf8_lossy(&listed)))
    }

    /// Runs a command that must succeed.
    async fn run_in(
        &self,
        build: &Build<'_>,
        vm: &VmPlan,
        command: &GuestCommand,
    ) -> Result<(), ApiError> {
        build.log.title(command.purpose);
        let add = |bytes: &[u8]| build.log.add(bytes);
        let ended = self.shared.drivers.builds.run(vm, command, &add, &build.interrupt).await;
        build.log.finish_line();
        let exit = ended?;
        if exit.code == 0 {
            return Ok(());
        }
        let text = format!("{} failed with exit code {}", command.purpose, exit.code);
        let mut error = ApiError::new(ErrorCode::GuestFailed, text);
        error.causes.extend(exit.message);
        Err(error)
    }

    /// Stops the VM. Its file systems are whole only if the guest shut down itself.
    async fn stop_build_vm(&self, build: &Build<'_>, vm: &VmPlan) -> Result<(), ApiError> {
        let stop = VmAction::Stop { grace_ms: STOP_GRACE_MS };
        let accepted = self.request(vm.id.as_str(), stop).await?;
        if let Some(operation) = accepted.operation {
            self.finish(build, &operation).await?;
        }
        let record = self.handle(vm.id.as_str())?.published.borrow().record.clone();
        match record.because {
            Some(StoppedBecause::Requested { how: StopKind::Graceful }) => Ok(()),
            _ => {
                let text = format!("`{}` did not shut down by itself", vm.name);
                Err(ApiError::new(ErrorCode::GuestFailed, text)
                    .with_hint(Hint::log(&vm.name, VmLog::Console)))
            }
        }
    }

    /// Deletes the VM of a build, or keeps it after a failure.
    pub(crate) async fn end_build(
        &self,
        operation: &OpId,
        keep: bool,
        built: Result<String, ApiError>,
    ) -> Result<String, ApiError> {
        let is_of = |vm: &VmRecord| {
            vm.plan.build.as_ref().is_some_and(|build| build.operation == *operation)
        };
        let vm = self.all().into_iter().find(|vm| is_of(&vm.record)).map(|vm| vm.record);
        let Some(vm) = vm else { return built };
        match built {
            Err(error) if keep => {
                let name = &vm.plan.name;
                Err(error
                    .with_hint(Hint::open_shell(name))
                    .with_hint(Hint::ask(name, VmAction::Delete { force: true })))
            }
            built => {
                if let Err(error) = self.delete_build_vm(&vm.plan.id).await {
                    tracing::error!(vm = %vm.plan.id, error = %error, "the VM of a build is left");
                }
                built
            }
        }
    }

    async fn delete_build_vm(&self, id: &VmId) -> Result<(), ApiError> {
        let accepted = self.request(id.as_str(), VmAction::Delete { force: true }).await?;
        match accepted.operation.and_then(|operation| self.follow(&operation)) {
            Some(op) => op.wait().await.map(drop),
            None => Ok(()),
        }
    }

    /// Deletes VMs of builds that an earlier daemon left, except those to be kept.
    pub(crate) fn delete_build_vms(&self) {
        let Some(engine) = self.arc() else { return };
        let is_left = |vm: &VmRecord| vm.plan.build.as_ref().is_some_and(|build| !build.keep);
        let left: Vec<VmId> = self
            .all()
            .into_iter()
            .filter(|vm| is_left(&vm.record))
            .map(|vm| vm.record.plan.id.clone())
            .collect();
        for id in left {
            let (engine, pending) = (engine.clone(), self.shared.ops.announce_pending());
            tokio::spawn(async move {
                match engine.delete_build_vm(&id).await {
                    Ok(()) => tracing::info!(vm = %id, "deleted the VM of an interrupted build"),
                    // Its own recovery may have removed it already.
                    Err(error) if error.code == ErrorCode::NotFound => {}
                    Err(error) => {
                        let causes = &error.causes;
                        tracing::error!(vm = %id, error = %error, ?causes, "VM of a build");
                    }
                }
                drop(pending);
            });
        }
    }
}

/// A script for the shell of the image.
fn shell(purpose: &'static str, script: &str) -> GuestCommand {
    let argv = ["/bin/sh", "-c", script, "sh"].map(str::to_owned).into();
    GuestCommand { purpose, argv, stdin: Vec::new() }
}

/// The lines of a list of packages, sorted.
fn packages(list: &str) -> Vec<String> {
    let lines = list.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut packages: Vec<String> = lines.map(|line| line.chars().take(300).collect()).collect();
    packages.sort();
    packages
}
