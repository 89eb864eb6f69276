//! The host's side of the guest agent.
//!
//! [`boot`] serves the one connection that the guest opens; [`channel`] opens connections to the
//! agent afterwards. All data of a guest has limits in size and time.

mod boot;
pub(crate) mod channel;
mod clock;
mod config;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use banger_agent_proto::boot::{BootMessage, BootProgress, BootState as GuestState};
use banger_agent_proto::events::PowerMode;
use banger_agent_proto::http::{
    ClockHistory as OffsetHistory, ClockOffset, ClockReading, Health, Shutdown, TransferUsage,
    Usage,
};
use banger_api::boot::{BootState, BootView};
use banger_api::stats::GuestMemory;
use banger_api::vm::Timing;
use banger_api::{ApiError, ErrorCode, VmId};
use banger_engine::devices::Devices;
use banger_engine::drivers::{ClockHistory, Guest, GuestClock, GuestHealth, GuestReady};
use banger_engine::interrupt::Interrupt;
use banger_engine::meter::{GuestUsage, Transfers};
use banger_engine::plan::{RunPlan, VmPlan};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;

use crate::capabilities::GuestPart;
use crate::failure::blocking;
use boot::Booting;
pub use boot::clean;
pub use channel::Failure;
pub use config::disk as disk_ref;

/// Time limit for an agent's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Listeners for the hello of starting VMs, created by the VMM driver before the VMM.
#[derive(Clone, Default)]
pub struct Listeners(Arc<Mutex<HashMap<VmId, UnixListener>>>);

impl Listeners {
    fn all(&self) -> MutexGuard<'_, HashMap<VmId, UnixListener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a listener.
    pub fn put(&self, vm: &VmId, listener: UnixListener) {
        self.all().insert(vm.clone(), listener);
    }

    /// Removes and returns a listener.
    pub fn take(&self, vm: &VmId) -> Option<UnixListener> {
        self.all().remove(vm)
    }
}

/// Time limit of one attempt to get the agent's first answer.
const FIRST_ANSWER_ATTEMPT: Duration = Duration::from_secs(15);

/// Maximum number of readings of a guest's clock in one comparison.
const CLOCK_READINGS: usize = 5;

/// A VMM's sockets between host and guest.
#[async_trait]
pub trait VmmSockets: Send + Sync {
    /// Connects to its vsock socket.
    async fn connect(&self, vm: &VmPlan) -> Result<UnixStream, ApiError>;
    /// Removes the socket of the hello, so that the guest cannot connect to the host any more.
    async fn close_hello(&self, vm: &VmPlan) -> Result<(), ApiError>;
}

/// Converts a connected socket for Tokio.
///
/// # Errors
/// fcntl(2).
pub fn stream(socket: OwnedFd, vm: &VmPlan) -> Result<UnixStream, ApiError> {
    let stream = std::os::unix::net::UnixStream::from(socket);
    let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
    stream.map_err(|error| channel::Failure::Io(error).about(vm))
}

/// VmmSockets by the name of the VMM driver.
pub type SocketsByDriver = BTreeMap<String, Arc<dyn VmmSockets>>;

/// Agents reached through the VMM's vsock socket.
pub struct VsockGuest {
    listeners: Listeners,
    booting: Mutex<HashMap<VmId, Booting>>,
    boot_timeout: Duration,
    sockets: SocketsByDriver,
    parts: Vec<GuestPart>,
}

impl VsockGuest {
    /// Guests that connect to `listeners` within `boot_timeout`; `parts` complete their
    /// configuration.
    pub fn new(
        listeners: Listeners,
        boot_timeout: Duration,
        sockets: SocketsByDriver,
        parts: Vec<GuestPart>,
    ) -> Self {
        Self { listeners, booting: Mutex::default(), boot_timeout, sockets, parts }
    }

    fn sockets(&self, vm: &VmPlan) -> Result<&dyn VmmSockets, ApiError> {
        let vmm = &vm.drivers.vmm.name;
        self.sockets.get(vmm).map(AsRef::as_ref).ok_or_else(|| {
            ApiError::new(ErrorCode::Internal, format!("no guest is reached through `{vmm}`"))
        })
    }

    fn booting(&self) -> MutexGuard<'_, HashMap<VmId, Booting>> {
        self.booting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_booting(&self, vm: &VmPlan) -> Result<Booting, ApiError> {
        self.booting().remove(&vm.id).ok_or_else(|| {
            ApiError::new(ErrorCode::Internal, format!("`{}` is not booting", vm.name))
        })
    }

    async fn read_clock(&self, vm: &VmPlan) -> Result<clock::Comparison, ApiError> {
        let stream = self.sockets(vm)?.connect(vm).await?;
        let read = channel::get_timed::<ClockReading>(stream, "/clock").await;
        let (reading, times) = read.map_err(|failure| failure.about(vm))?;
        Ok(clock::Comparison::new(&times, reading.unix_us))
    }

    async fn ask_health(&self, vm: &VmPlan) -> Result<(Health, Duration), ApiError> {
        let began = Instant::now();
        let stream = self.sockets(vm)?.connect(vm).await?;
        let health: Health = channel::get(stream, "/healthz").await.map_err(|e| e.about(vm))?;
        if health.boot_id.len() > 64 {
            return Err(channel::Failure::Malformed.about(vm));
        }
        Ok((health, began.elapsed()))
    }
}

/// Converts the agent's counters.
fn guest_usage(usage: &Usage) -> GuestUsage {
    let transfers = |moved: TransferUsage| Transfers {
        inward_bytes: moved.inward_bytes,
        outward_bytes: moved.outward_bytes,
    };
    GuestUsage {
        memory: usage.memory.map(|memory| GuestMemory {
            total_bytes: memory.total_bytes,
            available_bytes: memory.available_bytes,
        }),
        disk: usage.disk.map(transfers),
        network: usage.network.map(transfers),
    }
}

/// Maximum number of failed services reported by a guest.
const MAX_FAILED: usize = 20;

/// Converts the agent's report for the API, with sanitised text.
fn boot_view(progress: BootProgress) -> BootView {
    let state = match progress.state {
        GuestState::Booting => BootState::Booting,
        GuestState::Running => BootState::Running,
        GuestState::Degraded => BootState::Degraded,
        GuestState::Unknown => BootState::Unknown,
    };
    BootView {
        state,
        after_ms: progress.uptime_ms,
        source: boot::clean(&progress.source),
        failed: progress.failed.iter().take(MAX_FAILED).map(|name| boot::clean(name)).collect(),
    }
}

#[async_trait]
impl Guest for VsockGuest {
    async fn boot(
        &self,
        vm: &VmPlan,
        run: &RunPlan,
        devices: &Devices,
        interrupt: &Interrupt,
    ) -> Result<String, ApiError> {
        let listener = self.listeners.take(&vm.id).ok_or_else(|| {
            ApiError::new(ErrorCode::Internal, format!("nobody listens for `{}`", vm.name))
        })?;
        let deadline = Instant::now() + self.boot_timeout;
        let hello = boot::bounded(vm, "hello", deadline, interrupt, boot::accept(listener));
        let (mut booting, hello) = hello.await?;
        // There is only one hello: from here on the guest cannot connect to the host.
        self.sockets(vm)?.close_hello(vm).await?;
        let (parts, plan, devices) = (self.parts.clone(), vm.clone(), devices.clone());
        let start = config::program_start(run);
        let build = move || config::build((&plan, start), &devices, &hello, &parts);
        let config = blocking(build).await?;
        let boot_id = config.boot_id.clone();
        let sent = boot::bounded(vm, "configuration", deadline, interrupt, booting.send(&config));
        sent.await?;
        booting.handover = config.handover;
        self.booting().insert(vm.id.clone(), booting);
        Ok(boot_id)
    }

    async fn agent(&self, vm: &VmPlan, boot_id: &str, i: &Interrupt) -> Result<(), ApiError> {
        let mut booting = self.take_booting(vm)?;
        let deadline = Instant::now() + self.boot_timeout;
        let sockets = self.sockets(vm)?;
        let answered = boot::bounded(vm, "answer of the agent", deadline, i, async {
            let attempt = async || {
                let stream = sockets.connect(vm).await?;
                channel::get::<Health>(stream, "/healthz").await.map_err(|error| error.about(vm))
            };
            // The first answer waits for the agent's fork. An attempt that takes longer than a slow
            // boot is repeated on a connection of its own: the companion may have lost the first.
            let ask = async {
                loop {
                    match tokio::time::timeout(FIRST_ANSWER_ATTEMPT, attempt()).await {
                        Ok(answer) => return answer,
                        Err(_) => tracing::warn!(vm = %vm.id, "no answer of the agent yet"),
                    }
                }
            };
            // A guest that cannot boot reports that instead of answering, so this waits for both.
            tokio::select! {
                health = ask => health,
                failure = booting.wait_failure() => Err(failure.about(vm)),
            }
        });
        let health = answered.await?;
        self.booting().insert(vm.id.clone(), booting);
        if health.boot_id == boot_id {
            return Ok(());
        }
        let text = format!("another boot than the one that said hello answers in `{}`", vm.name);
        Err(ApiError::new(ErrorCode::GuestFailed, text))
    }

    async fn ready(&self, vm: &VmPlan, interrupt: &Interrupt) -> Result<GuestReady, ApiError> {
        let mut booting = self.take_booting(vm)?;
        let deadline = Instant::now() + self.boot_timeout;
        let message = boot::bounded(vm, "ready", deadline, interrupt, async {
            booting.next().await.map_err(|failure| failure.about(vm))
        });
        match message.await? {
            BootMessage::Ready(ready) => {
                let timeline = ready
                    .timeline
                    .into_iter()
                    .take(64)
                    .map(|entry| Timing { name: boot::clean(&entry.name), ms: entry.ms });
                let warnings = ready.warnings.iter().take(64).map(|text| boot::clean(text));
                let mut warnings: Vec<String> = warnings.collect();
                let mut handover = booting.handover;
                handover.correct(&warnings);
                warnings.extend(handover.warnings);
                let (timeline, handed_over) = (timeline.collect(), handover.reports);
                Ok(GuestReady { timeline, warnings, handed_over })
            }
            BootMessage::Failed(failure) => Err(boot::Failure::Reported(failure).about(vm)),
            BootMessage::Hello(_) => Err(boot::Failure::Malformed.about(vm)),
        }
    }

    async fn forget(&self, vm: &VmPlan) {
        self.listeners.take(&vm.id);
        self.booting().remove(&vm.id);
    }

    async fn health(&self, vm: &VmPlan) -> Result<GuestHealth, ApiError> {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.ask_health(vm));
        let (health, took) = answer.await.map_err(|_| channel::Failure::Slow.about(vm))??;
        Ok(GuestHealth {
            boot_id: health.boot_id,
            uptime_ms: health.uptime_ms,
            round_trip_us: took.as_micros() as u64,
            agent_restarts: health.agent_restarts,
        })
    }

    async fn usage(&self, vm: &VmPlan) -> Result<GuestUsage, ApiError> {
        let ask = async {
            let stream = self.sockets(vm)?.connect(vm).await?;
            match channel::get::<Usage>(stream, "/usage").await {
                Ok(usage) => Ok(guest_usage(&usage)),
                // An agent of an earlier version, from before an upgrade of the daemon.
                Err(channel::Failure::Status { status: 404, .. }) => Ok(GuestUsage::default()),
                Err(failure) => Err(failure.about(vm)),
            }
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, ask).await;
        answer.map_err(|_| channel::Failure::Slow.about(vm))?
    }

    async fn boot_progress(&self, vm: &VmPlan, wait: Duration) -> Result<BootView, ApiError> {
        let path = format!("/boot?wait_ms={}", wait.as_millis());
        let ask = async {
            let stream = self.sockets(vm)?.connect(vm).await?;
            match channel::get::<BootProgress>(stream, &path).await {
                Ok(progress) => Ok(boot_view(progress)),
                // An agent of an earlier version, from before an upgrade of the daemon.
                Err(channel::Failure::Status { status: 404, .. }) => Ok(BootView {
                    state: BootState::Unknown,
                    source: "the agent in the guest is of an older version".into(),
                    ..BootView::booting()
                }),
                Err(failure) => Err(failure.about(vm)),
            }
        };
        let answer = tokio::time::timeout(wait + ANSWER_TIMEOUT, ask).await;
        answer.map_err(|_| channel::Failure::Slow.about(vm))?
    }

    async fn correct_clock(
        &self,
        vm: &VmPlan,
        history: ClockHistory,
    ) -> Result<GuestClock, ApiError> {
        let compare = async {
            let mut best = self.read_clock(vm).await?;
            for _ in 1..CLOCK_READINGS {
                if best.is_exact() {
                    break;
                }
                best = best.nearer(self.read_clock(vm).await?);
            }
            let Some(offset_us) = best.offset_us() else { return Ok(GuestClock::Right) };
            let stream = self.sockets(vm)?.connect(vm).await?;
            let history = match history {
                ClockHistory::Continuous => OffsetHistory::Continuous,
                ClockHistory::Interrupted => OffsetHistory::Interrupted,
            };
            let offset = ClockOffset { offset_us, history };
            let sent = channel::post(stream, "/clock/offset", &offset).await;
            sent.map(|()| GuestClock::Corrected).map_err(|error| error.about(vm))
        };
        let compared = tokio::time::timeout(ANSWER_TIMEOUT, compare).await;
        compared.map_err(|_| channel::Failure::Slow.about(vm))?
    }

    async fn power_off(&self, vm: &VmPlan, grace: Duration) -> Result<(), ApiError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let body = Shutdown { mode: PowerMode::Poweroff, grace_ms: Some(grace_ms) };
        let ask = async {
            let stream = self.sockets(vm)?.connect(vm).await?;
            channel::post(stream, "/shutdown", &body).await.map_err(|error| error.about(vm))
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, ask).await;
        answer.map_err(|_| channel::Failure::Slow.about(vm))?
    }

    async fn connect(&self, vm: &VmPlan) -> Result<OwnedFd, ApiError> {
        let dial = async {
            let stream = self.sockets(vm)?.connect(vm).await?;
            channel::dial(stream).await.map_err(|error| error.about(vm))
        };
        let dialled = tokio::time::timeout(ANSWER_TIMEOUT, dial).await;
        let stream = dialled.map_err(|_| channel::Failure::Slow.about(vm))??;
        let stream = stream.into_std().map_err(|error| channel::Failure::Io(error).about(vm))?;
        Ok(OwnedFd::from(stream))
    }
}
