//! What the daemon tells: lists, changes and samples, read again and again by tasks that send them
//! as messages.
//!
//! None of them starts a daemon: the user may have stopped it. Each continues with the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use banger_api::{ApiError, ErrorCode, VmId};
use banger_client::{Client, LogPiece, StatsSelection, VmLogQuery, VmLogSource};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{interval, sleep, timeout};

use crate::model::Tab;
use crate::update::{Data, Msg};

/// Interval between samples of usage, which show whether the daemon answers, too.
const SAMPLES: Duration = Duration::from_secs(2);
/// The same while it does not answer.
const ATTEMPTS: Duration = Duration::from_millis(500);
/// Interval between readings of the list of VMs without a change: the use of disks grows.
const VMS: Duration = Duration::from_secs(10);
/// Pause between two readings of the list of VMs.
const VMS_PAUSE: Duration = Duration::from_millis(200);
/// Interval between readings of operations, images and kernels while they are shown.
const LISTS: Duration = Duration::from_secs(2);
/// Interval between readings of the host's resources, counted in those of lists.
const HOST_EVERY: u32 = 5;
/// Time for which a VM must be selected before its details are read.
const REST: Duration = Duration::from_millis(60);
/// Interval between readings of details.
const DETAILS: Duration = Duration::from_secs(2);
/// Lines of the console that are read at first.
const CONSOLE_LINES: u32 = 500;

/// Sends messages to the main loop.
pub type Sender = mpsc::Sender<Msg>;

/// The tasks, and what they are told.
#[derive(Clone)]
pub struct Feed {
    /// Messages to the main loop.
    pub sender: Sender,
    /// The daemon.
    pub client: Client,
    reread: Arc<Notify>,
    refresh: Arc<Notify>,
    changed: Arc<Notify>,
    shown: watch::Sender<Tab>,
    watched: watch::Sender<Option<VmId>>,
    /// Whether a reading has found no daemon since the last sample.
    lost: Arc<AtomicBool>,
}

impl Feed {
    /// Starts the tasks. They end with the runtime.
    pub fn start(client: Client, sender: Sender) -> Self {
        let feed = Self {
            sender,
            client,
            reread: Arc::default(),
            refresh: Arc::default(),
            changed: Arc::default(),
            shown: watch::Sender::new(Tab::Vms),
            watched: watch::Sender::new(None),
            lost: Arc::default(),
        };
        tokio::spawn(feed.clone().events());
        tokio::spawn(feed.clone().vms());
        tokio::spawn(feed.clone().samples());
        tokio::spawn(feed.clone().lists());
        tokio::spawn(feed.clone().details());
        feed
    }

    /// Reads the list of VMs soon.
    pub fn reread(&self) {
        self.reread.notify_one();
        self.changed.notify_one();
    }

    /// Reads operations, images and kernels soon.
    pub fn refresh(&self) {
        self.refresh.notify_one();
    }

    /// Reads this list at once, and again while it is shown.
    pub fn show(&self, tab: Tab) {
        self.shown.send_replace(tab);
        self.refresh();
    }

    /// Reads details and console of this VM.
    pub fn watch(&self, vm: Option<VmId>) {
        self.watched.send_replace(vm);
    }

    /// Sends data to the main loop, which ends with the program.
    pub async fn send(&self, data: Data) {
        let _ = self.sender.send(Msg::Data(data)).await;
    }

    /// Sends the result of a reading; errors other than a lost daemon are the reader's.
    async fn read<T>(&self, read: Result<T, ApiError>, data: impl FnOnce(T) -> Data) {
        match read {
            Ok(value) => self.send(data(value)).await,
            Err(error) if error.code == ErrorCode::DaemonUnavailable => {
                self.send(Data::Lost(error)).await;
                // After the message: what takes this back is sent after it.
                self.lost.store(true, Ordering::SeqCst);
            }
            Err(_) => {}
        }
    }

    /// Changes of VMs and operations.
    async fn events(self) {
        loop {
            if let Ok(mut events) = self.client.events(None, None).await {
                while let Ok(event) = events.next().await {
                    self.send(Data::Event(event.what)).await;
                }
            }
            sleep(ATTEMPTS).await;
        }
    }

    /// The list of VMs: after changes, and from time to time.
    async fn vms(self) {
        loop {
            let read = self.client.vms().await;
            self.read(read, Data::Vms).await;
            sleep(VMS_PAUSE).await;
            let _ = timeout(VMS, self.reread.notified()).await;
        }
    }

    /// Samples of usage, and whether the daemon answers.
    async fn samples(self) {
        let mut up = false;
        loop {
            let read = self.client.stats_on_host(&StatsSelection::Running).await;
            let is_up = !matches!(&read, Err(error) if error.code == ErrorCode::DaemonUnavailable);
            // Another daemon may answer before a sample has found none.
            if is_up && (self.lost.swap(false, Ordering::SeqCst) || !up) {
                let status = self.client.ensure_daemon().await.ok().map(Box::new);
                self.send(Data::Up(status)).await;
                self.reread();
                self.refresh();
            }
            up = is_up;
            self.read(read, Data::Stats).await;
            sleep(if up { SAMPLES } else { ATTEMPTS }).await;
        }
    }

    /// Operations, images, kernels and the host's resources.
    async fn lists(self) {
        let mut shown = self.shown.subscribe();
        for number in 0_u32.. {
            let asked = number == 0 || shown.has_changed().unwrap_or_default();
            let tab = *shown.borrow_and_update();
            if asked || tab == Tab::Images || number.is_multiple_of(HOST_EVERY) {
                self.read(self.client.images().await, Data::Images).await;
            }
            if asked || tab == Tab::Kernels || number.is_multiple_of(HOST_EVERY) {
                self.read(self.client.kernels().await, Data::Kernels).await;
            }
            self.read(self.client.operations().await, Data::Operations).await;
            if asked || number.is_multiple_of(HOST_EVERY) {
                self.read(self.client.host().await, Data::Host).await;
            }
            sleep(VMS_PAUSE).await;
            let _ = timeout(LISTS, self.refresh.notified()).await;
        }
    }

    /// Details and console of the watched VM.
    async fn details(self) {
        let mut watched = self.watched.subscribe();
        loop {
            let vm = watched.borrow_and_update().clone();
            let Some(vm) = vm else {
                if watched.changed().await.is_err() {
                    return;
                }
                continue;
            };
            tokio::select! {
                changed = watched.changed() => if changed.is_err() { return },
                () = async { tokio::join!(self.details_of(&vm), self.console_of(&vm)); } => {}
            }
        }
    }

    /// Reads details and usage of a VM until this is dropped.
    async fn details_of(&self, vm: &VmId) {
        // The keys that lead through a list do not read each VM.
        sleep(REST).await;
        let mut often = interval(DETAILS);
        let ids = StatsSelection::Ids(vec![vm.clone()]);
        loop {
            tokio::select! {
                _ = often.tick() => {}
                () = self.changed.notified() => {}
            }
            if let Ok(details) = self.client.vm(vm.as_str()).await {
                let running = details.pid.is_some();
                self.send(Data::Details(Box::new(details))).await;
                // With the memory as the guest reports it.
                if running && let Ok(samples) = self.client.stats(&ids).await {
                    self.send(Data::Stats(samples)).await;
                }
            }
        }
    }

    /// Reads the console of a VM until this is dropped.
    async fn console_of(&self, vm: &VmId) {
        sleep(REST).await;
        let source = VmLogSource::Console;
        let mut tail = Some(CONSOLE_LINES);
        loop {
            let query = VmLogQuery { source, tail, follow: true };
            if let Ok(mut log) = self.client.vm_logs(vm.as_str(), query).await {
                while let Ok(Some(piece)) = log.next().await {
                    if let LogPiece::Bytes(bytes) = piece {
                        // What was read is not read again.
                        tail = Some(0);
                        self.send(Data::Console(vm.clone(), bytes.to_vec())).await;
                    }
                }
            }
            sleep(DETAILS).await;
        }
    }
}
