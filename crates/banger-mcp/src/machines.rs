//! Tools about machines as a whole.

use std::time::Duration;

use banger_api::boot::{Wait, WaitFor};
use banger_api::labels::{self, Labels};
use banger_api::operation::{Accepted, VmTag};
use banger_api::publish::PortForward;
use banger_api::set::SetVm;
use banger_api::vm::{CreateVm, Lifetime, VmAction, VmDetails, VmSummary};
use banger_api::{ApiError, ErrorCode, Hint};
use banger_client::follow::OnInterrupt;
use banger_client::{LogPiece, VmLogQuery, VmLogSource};
use serde_json::{Value, json};

use crate::arguments::{Create, Delete, List, LogSource, Logs, Publish};
use crate::operation::follow;
use crate::server::{Call, SESSION_LABEL};
use crate::text;

/// Time limit for the init of a new machine; commands run after it too.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of a log that are returned.
const MAX_LOG_BYTES: usize = 256 * 1024;
/// Lines of a log without another number.
const DEFAULT_LINES: u32 = 100;

impl Call<'_> {
    /// All machines, or those of the session.
    pub async fn list(&mut self, wanted: List) -> Result<Value, ApiError> {
        let machines = self.client.vms().await?;
        let own = |vm: &&VmSummary| !wanted.own || self.session.contains(&vm.id);
        let machines: Vec<Value> = machines.iter().filter(own).map(|vm| self.summary(vm)).collect();
        Ok(json!({ "machines": machines }))
    }

    /// One machine.
    pub async fn show(&mut self, vm: &str) -> Result<Value, ApiError> {
        let details = self.client.vm(vm).await?;
        Ok(self.details(&details))
    }

    /// Creates a machine and waits for its boot.
    pub async fn create(&mut self, wanted: Create) -> Result<Value, ApiError> {
        let vm = self.make(wanted).await?;
        self.show(vm.id.as_str()).await
    }

    /// Creates a machine that ends with the session unless it is kept.
    pub async fn make(&mut self, wanted: Create) -> Result<VmTag, ApiError> {
        let request = self.request(wanted)?;
        let accepted = self.client.create(&request).await?;
        let vm = accepted.vm.clone().ok_or_else(|| {
            let text = "the daemon's answer does not name the machine";
            ApiError::new(ErrorCode::DaemonUnavailable, text)
        })?;
        // At once: the daemon waits only a while for the holder of a machine.
        if request.lifetime == Lifetime::Session {
            self.session.hold(self.client, &vm).await?;
        }
        match self.started(&vm, &accepted).await {
            Ok(()) => Ok(vm),
            Err(error) => {
                self.session.forget(&vm.id);
                Err(error)
            }
        }
    }

    fn request(&self, wanted: Create) -> Result<CreateVm, ApiError> {
        let bad =
            |error: &dyn std::error::Error| ApiError::new(ErrorCode::BadRequest, error.to_string());
        let mut pairs = Vec::new();
        for (key, value) in &wanted.labels {
            pairs.push(labels::parse(&format!("{key}={value}")).map_err(|error| bad(&error))?);
        }
        let own = format!("{SESSION_LABEL}={}", self.session_id);
        pairs.push(labels::parse(&own).map_err(|error| bad(&error))?);
        let publish = wanted.publish.iter().map(|text| text.parse::<PortForward>());
        let request = CreateVm {
            name: wanted.name,
            image: wanted.image,
            vcpus: wanted.vcpus,
            memory_mib: wanted.memory_mib,
            nat: wanted.nat,
            publish: publish.collect::<Result<_, _>>().map_err(|error| bad(&error))?,
            labels: Labels::of(pairs).map_err(|error| bad(&error))?,
            lifetime: if wanted.keep { Lifetime::Keep } else { Lifetime::Session },
            ..CreateVm::default()
        };
        request.check().map(|()| request)
    }

    /// Starts a machine.
    pub async fn start(&mut self, vm: &str) -> Result<Value, ApiError> {
        let accepted = self.client.act(vm, VmAction::Start {}).await?;
        let tag = self.tag(vm, &accepted).await?;
        self.started(&tag, &accepted).await?;
        self.show(tag.id.as_str()).await
    }

    /// Shuts a machine down.
    pub async fn stop(&mut self, vm: &str) -> Result<Value, ApiError> {
        let accepted = self.client.act(vm, VmAction::STOP).await?;
        let tag = self.tag(vm, &accepted).await?;
        let ended =
            follow(self.client, &accepted, OnInterrupt::Ignore, self.context, &mut self.progress);
        ended.await?;
        Ok(json!({ "name": tag.name, "id": tag.id, "stopped": true }))
    }

    /// Deletes a machine in any state.
    pub async fn delete(&mut self, wanted: Delete) -> Result<Value, ApiError> {
        let details = self.client.vm(&wanted.vm).await?;
        let (id, name) = (&details.summary.id, &details.summary.name);
        if !wanted.force && !self.session.contains(id) && !self.has_label(&details.summary) {
            let text = format!("this session did not create `{name}`");
            let hint = "set `force` if the user wants it deleted with its disks";
            return Err(ApiError::new(ErrorCode::WrongState, text).with_hint(Hint::text(hint)));
        }
        let accepted = self.client.act(id.as_str(), VmAction::Delete { force: true }).await?;
        let (on, progress) = (OnInterrupt::Ignore, &mut self.progress);
        match follow(self.client, &accepted, on, self.context, progress).await {
            Err(error) if error.code != ErrorCode::NotFound => return Err(error),
            _ => self.session.forget(id),
        }
        Ok(json!({ "name": name, "id": id, "deleted": true }))
    }

    /// Ports that the machine listens on, and published ones.
    pub async fn ports(&mut self, vm: &str) -> Result<Value, ApiError> {
        let details = self.client.vm(vm).await?;
        let listening = self.client.guest_ports(details.summary.id.as_str()).await?;
        let listening: Vec<Value> = listening
            .ports
            .iter()
            .map(|port| {
                json!({
                    "protocol": text::lines(port.protocol.as_bytes()),
                    "address": text::lines(port.address.as_bytes()),
                    "port": port.port,
                })
            })
            .collect();
        Ok(json!({
            "listening": listening,
            "published": published(&details.summary.publish),
        }))
    }

    /// Publishes a port.
    pub async fn publish(&mut self, wanted: Publish) -> Result<Value, ApiError> {
        let port: PortForward =
            wanted.port.parse().map_err(|error: banger_api::publish::BadPublish| {
                ApiError::new(ErrorCode::BadRequest, error.to_string())
            })?;
        let set = SetVm { publish: vec![port], ..SetVm::default() };
        let accepted = self.client.act(&wanted.vm, VmAction::Set(Box::new(set))).await?;
        let (on, progress) = (OnInterrupt::Ignore, &mut self.progress);
        follow(self.client, &accepted, on, self.context, progress).await?;
        let now = self.client.vm(&wanted.vm).await?.summary.publish;
        // Networks that are fixed while the machine runs take it from the next start on.
        let available = if now.contains(&port) { "now" } else { "after the next start" };
        Ok(json!({ "published": published(&now), "available": available }))
    }

    /// The end of a log.
    pub async fn logs(&mut self, wanted: Logs) -> Result<Value, ApiError> {
        let source = match wanted.source {
            LogSource::Console => VmLogSource::Console,
            LogSource::Agent => VmLogSource::Agent,
            LogSource::Vmm => VmLogSource::Vmm,
        };
        let tail = Some(wanted.lines.unwrap_or(DEFAULT_LINES));
        let mut log =
            self.client.vm_logs(&wanted.vm, VmLogQuery { source, tail, follow: false }).await?;
        let (mut kept, mut cut) = (Vec::new(), false);
        while let Some(LogPiece::Bytes(piece)) = log.next().await? {
            kept.extend_from_slice(&piece);
            if let Some(more) = kept.len().checked_sub(MAX_LOG_BYTES) {
                kept.drain(..more);
                cut |= more > 0;
            }
        }
        Ok(json!({ "log": text::lines(&kept), "truncated": cut }))
    }

    /// Follows a start and waits for the boot.
    async fn started(&mut self, vm: &VmTag, accepted: &Accepted) -> Result<(), ApiError> {
        let (on, progress) = (OnInterrupt::Cancel, &mut self.progress);
        follow(self.client, accepted, on, self.context, progress).await?;
        let timeout_ms = u64::try_from(BOOT_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        let wait = Wait { stage: WaitFor::Booted, timeout_ms };
        self.progress.tell(1, "waiting for the boot of the machine".into()).await;
        tokio::select! {
            booted = self.client.wait_boot(vm.id.as_str(), wait) => booted.map(drop),
            // The machine stays: it has started.
            () = self.context.ct.cancelled() => Ok(()),
        }
    }

    async fn tag(&self, vm: &str, accepted: &Accepted) -> Result<VmTag, ApiError> {
        match &accepted.vm {
            Some(tag) => Ok(tag.clone()),
            None => {
                let details = self.client.vm(vm).await?;
                Ok(VmTag { id: details.summary.id, name: details.summary.name })
            }
        }
    }

    fn has_label(&self, vm: &VmSummary) -> bool {
        vm.labels.get(SESSION_LABEL).is_some_and(|id| id == self.session_id)
    }

    fn summary(&self, vm: &VmSummary) -> Value {
        json!({
            "name": vm.name,
            "id": vm.id,
            "state": vm.state,
            "image": vm.image,
            "vcpus": vm.vcpus,
            "memory_mib": vm.memory_mib,
            "ip": vm.ip,
            "published": published(&vm.publish),
            "labels": vm.labels,
            "ends_with_session": self.session.contains(&vm.id),
        })
    }

    fn details(&self, vm: &VmDetails) -> Value {
        let mut value = self.summary(&vm.summary);
        if let Some(object) = value.as_object_mut() {
            object.insert("boot".into(), json!(vm.boot));
            object.insert("stopped_because".into(), json!(vm.stopped_because));
            object.insert("problems".into(), json!(vm.problems));
            object.insert("notices".into(), json!(vm.notices));
        }
        value
    }
}

fn published(ports: &[PortForward]) -> Vec<Value> {
    let port = |port: &PortForward| {
        let endpoint = port.listens_on();
        let url = format!("http://{endpoint}");
        json!({ "guest_port": port.guest_port, "endpoint": endpoint, "url": url })
    };
    ports.iter().map(port).collect()
}
