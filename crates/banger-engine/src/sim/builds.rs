//! Simulated image builds. Of scripts, a simulated guest understands the lines `exit N` and
//! `sleep infinity`, and prints what `echo` does.

use std::sync::Arc;

use async_trait::async_trait;
use banger_api::build::{BuildCopy, BuildInputs, CopiedInput, ImageBuildRequest};
use banger_api::{ApiError, ErrorCode};

use super::Sim;
use super::image_names::COMMITTED;
use super::images::id_of;
use super::world::When;
use crate::builds::{BuildLog, Builds, Capture, Commit, GuestCommand, GuestExit, GuestOutput};
use crate::drivers::Progress;
use crate::interrupt::Interrupt;
use crate::plan::{BootSet, VmPlan};

/// Prefix of the keys of images by their inputs.
const BUILT: &str = "built:";

fn key_of(inputs: &BuildInputs) -> String {
    format!("{BUILT}{}", id_of(&format!("{inputs:?}")))
}

#[async_trait]
impl Builds for Sim {
    async fn inputs(
        &self,
        request: &ImageBuildRequest,
        base: &BootSet,
        root_bytes: u64,
    ) -> Result<BuildInputs, ApiError> {
        self.try_effect("build inputs", When::Before)?;
        let digest = |text: &str| id_of(text).repeat(4);
        let copies = request.copies.iter().map(|copy| CopiedInput {
            target: copy.target.clone(),
            sha256: digest(&copy.source.to_string_lossy()),
        });
        let mut packages = request.packages.clone();
        packages.sort();
        Ok(BuildInputs {
            base: base.image.clone(),
            base_name: base.image_name.clone(),
            copies: copies.collect(),
            packages,
            script_sha256: request.script.as_deref().map(digest),
            root_bytes,
        })
    }

    async fn built(&self, inputs: &BuildInputs) -> Result<Option<String>, ApiError> {
        let inner = self.inner();
        let fetched = &inner.world.fetched;
        let id = fetched.get(&key_of(inputs)).cloned();
        let exists = |id: &String| {
            fetched.iter().any(|(key, known)| key.starts_with("image:") && known == id)
        };
        Ok(id.filter(exists))
    }

    fn log(&self, name: &str) -> Result<BuildLog, ApiError> {
        self.try_effect("build log", When::Before)?;
        let path = format!("/nonexistent/{name}.log");
        Ok(BuildLog { path, file: Box::new(std::io::sink()) })
    }

    async fn copy(
        &self,
        vm: &VmPlan,
        _copy: &BuildCopy,
        _sha256: &str,
        _interrupt: &Interrupt,
    ) -> Result<(), ApiError> {
        self.boot_id(vm)?;
        self.try_effect("guest copy", When::Before)
    }

    async fn run(
        &self,
        vm: &VmPlan,
        command: &GuestCommand,
        output: GuestOutput<'_>,
        interrupt: &Interrupt,
    ) -> Result<GuestExit, ApiError> {
        self.boot_id(vm)?;
        self.try_effect(command.purpose, When::Before)?;
        for package in command.argv.iter().skip(4) {
            output(format!("Setting up {package} (1.0) ...\n").as_bytes());
        }
        let script = String::from_utf8_lossy(&command.stdin);
        for line in script.lines() {
            if let Some(text) = line.strip_prefix("echo ") {
                output(format!("{text}\n").as_bytes());
            }
            if let Some(code) = line.strip_prefix("exit ").and_then(|code| code.parse().ok()) {
                return Ok(GuestExit { code, message: None });
            }
            if line == "sleep infinity" {
                interrupt.raised().await;
                return Err(ApiError::new(ErrorCode::Cancelled, "the command was cancelled"));
            }
        }
        self.try_effect(command.purpose, When::After)?;
        Ok(GuestExit { code: 0, message: None })
    }

    async fn capture(
        &self,
        capture: &Capture,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError> {
        self.try_effect("capture", When::Before)?;
        let number = {
            let mut inner = self.inner();
            inner.world.spawned += 1;
            inner.world.spawned
        };
        let (key, built) = (format!("image:{}", capture.name), key_of(&capture.inputs));
        let id = id_of(&format!("{built} {number}"));
        let file = self.begin(&key);
        let received = self.receive(&key, progress.as_ref()).await;
        let published = received.and_then(|()| {
            self.try_effect("capture", When::After)?;
            self.inner().world.fetched.insert(built, id.clone());
            self.publish(&key, &id);
            Ok(id)
        });
        self.finished(&file);
        published
    }

    async fn commit(
        &self,
        commit: &Commit,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError> {
        self.try_effect("commit", When::Before)?;
        if self.inner().world.get("root", &commit.from.vm.id).is_none() {
            return Err(ApiError::new(ErrorCode::Internal, "a commit without a root disk"));
        }
        let number = {
            let mut inner = self.inner();
            inner.world.spawned += 1;
            inner.world.spawned
        };
        let key = format!("image:{}", commit.name);
        let id = id_of(&format!("commit {} {number}", commit.from.vm.id));
        let file = self.begin(&key);
        let received = self.receive(&key, progress.as_ref()).await;
        let published = received.and_then(|()| {
            self.try_effect("commit", When::After)?;
            let origin = serde_json::to_string(&commit.from).unwrap_or_default();
            self.inner().world.fetched.insert(format!("{COMMITTED}{id}"), origin);
            self.publish(&key, &id);
            Ok(id)
        });
        self.finished(&file);
        published
    }
}
