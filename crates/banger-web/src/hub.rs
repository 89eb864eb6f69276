//! The list of VMs, kept current for all open pages.
//!
//! One task follows the daemon's feed of changes. A change, however many of them there are, leads
//! to one listing of all VMs, at most some times a second; rows whose HTML differs get a new
//! number, and each open page receives the rows with numbers above its last one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use banger_api::events::EventKind;
use banger_api::host::HostView;
use banger_api::vm::{VmState, VmSummary};
use banger_api::{ApiError, VmId};
use banger_client::{Client, Events, StatsSelection};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::history::{self, History};
use crate::host;
use crate::row::Row;
use crate::site::Site;

/// Minimum interval between two listings.
const LISTING_INTERVAL: Duration = Duration::from_millis(200);
/// Delay of a listing after the first change, for further changes.
const GATHERING: Duration = Duration::from_millis(20);
/// Interval between readings of the host's resources: the use of disks needs a look at all files.
const HOST_INTERVAL: Duration = Duration::from_secs(10);
/// Pause after a failure of the daemon.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of removed rows that are kept for pages that were not told yet.
const MAX_GONE: usize = 4096;

/// The list, and its number of the last change.
pub struct Hub {
    list: Mutex<List>,
    /// The number of the last change.
    changed: watch::Sender<u64>,
    /// The number of events of operations.
    operations: watch::Sender<u64>,
    /// Held during a listing, so that an older one does not replace a newer one.
    listing: tokio::sync::Mutex<()>,
    /// Whether the list may be older than the last request of a page.
    is_stale: AtomicBool,
    /// Number of this list: a page of an earlier one must load again.
    epoch: u64,
}

#[derive(Default)]
struct List {
    number: u64,
    rows: HashMap<VmId, Shown>,
    /// Ids by name.
    order: BTreeMap<String, VmId>,
    /// Removed rows with the numbers of their removal.
    gone: VecDeque<(u64, VmId)>,
    /// Removals up to this number are forgotten.
    forgotten: u64,
    host: Option<HostView>,
    cards: String,
    cards_number: u64,
    /// Whether the daemon answered the last listing.
    problem: Option<String>,
}

struct Shown {
    html: String,
    number: u64,
}

/// What changed, for a page.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Rows that are new or different.
    pub rows: Vec<ChangedRow>,
    /// Ids of removed rows.
    pub gone: Vec<VmId>,
    /// The cards of the host, if they are different.
    pub cards: Option<String>,
    /// Why the list is not current.
    pub problem: Option<String>,
}

/// A new or different row.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ChangedRow {
    id: VmId,
    name: String,
    html: String,
}

/// The whole list, for a page.
pub struct Whole {
    /// All rows, by name.
    pub rows: String,
    /// The number of rows.
    pub count: usize,
    /// The cards of the host.
    pub cards: String,
    /// Where the page continues: for [`Hub::since`].
    pub place: String,
}

impl Default for Hub {
    fn default() -> Self {
        let epoch = getrandom::u64().unwrap_or_default() >> 11;
        let (changed, operations) = (watch::channel(0).0, watch::channel(0).0);
        let listing = tokio::sync::Mutex::default();
        let is_stale = AtomicBool::new(true);
        Self { list: Mutex::default(), changed, operations, listing, is_stale, epoch }
    }
}

impl Hub {
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports the number of the last change.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Reports events of operations.
    pub fn watch_operations(&self) -> watch::Receiver<u64> {
        self.operations.subscribe()
    }

    /// The whole list.
    pub fn whole(&self) -> Whole {
        let list = self.list();
        let rows = list.order.values().filter_map(|id| list.rows.get(id));
        let rows: String = rows.map(|row| row.html.as_str()).collect();
        let place = self.place(list.number);
        Whole { rows, count: list.rows.len(), cards: list.cards.clone(), place }
    }

    fn place(&self, number: u64) -> String {
        format!("{}-{number}", self.epoch)
    }

    /// What changed since a place, and the new place; none if that is not known any more.
    pub fn since(&self, place: &str) -> Option<(Changes, String)> {
        let (epoch, number) = place.split_once('-')?;
        let number: u64 = number.parse().ok()?;
        let list = self.list();
        if epoch.parse() != Ok(self.epoch) || number < list.forgotten || number > list.number {
            return None;
        }
        let changed = list.order.iter().filter_map(|(name, id)| {
            let row = list.rows.get(id).filter(|row| row.number > number)?;
            Some(ChangedRow { id: id.clone(), name: name.clone(), html: row.html.clone() })
        });
        let gone = list.gone.iter().filter(|(at, _)| *at > number).map(|(_, id)| id.clone());
        let changes = Changes {
            rows: changed.collect(),
            gone: gone.collect(),
            cards: (list.cards_number > number).then(|| list.cards.clone()),
            problem: list.problem.clone(),
        };
        Some((changes, self.place(list.number)))
    }

    /// A page has requested a change, whose event may be on its way.
    pub fn expect_change(&self) {
        self.is_stale.store(true, Ordering::Relaxed);
    }

    /// Brings the list up to date, if it follows the daemon's events no longer or a page has
    /// requested a change since the last listing.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn refresh_if_stale(&self, site: &Site) -> Result<(), ApiError> {
        match self.is_stale.load(Ordering::Relaxed) {
            true => self.refresh(site, &site.client).await,
            false => Ok(()),
        }
    }

    /// Brings the list up to date.
    ///
    /// # Errors
    /// The daemon's.
    async fn refresh(&self, site: &Site, client: &Client) -> Result<(), ApiError> {
        let _listing = self.listing.lock().await;
        self.is_stale.store(false, Ordering::Relaxed);
        let vms = client.vms().await?;
        let number = self.list().update(&vms, &site.history);
        self.changed.send_if_modified(|last| std::mem::replace(last, number) != number);
        Ok(())
    }

    fn failed(&self, error: &ApiError) {
        self.expect_change();
        let mut list = self.list();
        if list.problem.as_ref() != Some(&error.message) {
            list.problem = Some(error.message.clone());
            list.number += 1;
            self.changed.send_replace(list.number);
        }
    }
}

impl List {
    /// Replaces the list; returns the number of its last change.
    fn update(&mut self, vms: &[VmSummary], history: &History) -> u64 {
        let next = self.number + 1;
        let mut is_changed = self.problem.take().is_some();
        let mut before = std::mem::take(&mut self.rows);
        self.order.clear();
        for vm in vms {
            let html = Row::new(vm, history.latest(&vm.id)).html();
            let (name, id) = (vm.name.to_string(), vm.id.clone());
            let same = before.remove(&id).filter(|row| row.html == html);
            let number = same.map_or(next, |row| row.number);
            is_changed |= number == next;
            self.order.insert(name, id.clone());
            self.rows.insert(id, Shown { html, number });
        }
        for (id, _) in before {
            is_changed = true;
            self.gone.push_back((next, id));
        }
        while self.gone.len() > MAX_GONE {
            self.forgotten = self.gone.pop_front().map_or(self.forgotten, |(number, _)| number);
        }
        let cards = host::cards(self.host.as_ref(), vms);
        if cards != self.cards {
            is_changed = true;
            (self.cards, self.cards_number) = (cards, next);
        }
        if is_changed {
            self.number = next;
        }
        self.number
    }
}

/// Keeps the list and the histories current until it is dropped.
pub async fn run(site: Arc<Site>) {
    tokio::join!(follow(&site), sample(&site), read_host(&site));
}

async fn follow(site: &Site) {
    loop {
        let error = match site.watcher.events(None, None).await {
            Ok(mut events) => match follow_events(site, &mut events).await {
                Ok(never) => match never {},
                Err(error) => error,
            },
            Err(error) => error,
        };
        site.hub.failed(&error);
        sleep(RETRY_INTERVAL).await;
    }
}

async fn follow_events(site: &Site, events: &mut Events) -> Result<Infallible, ApiError> {
    // When the list is due; events that arrive until then are part of the same listing.
    let mut due: Option<Instant> = None;
    let mut earliest = Instant::now();
    loop {
        let at = due.unwrap_or(earliest);
        tokio::select! {
            event = events.next() => match event?.what {
                EventKind::Operation { .. } => site.hub.operations.send_modify(|count| *count += 1),
                EventKind::All { .. } | EventKind::Changed { .. } | EventKind::Gone { .. } => {
                    due.get_or_insert(earliest.max(Instant::now() + GATHERING));
                }
            },
            () = sleep_until(at), if due.is_some() => {
                site.hub.refresh(site, &site.watcher).await?;
                (due, earliest) = (None, Instant::now() + LISTING_INTERVAL);
            }
        }
    }
}

/// Reads the host's resources, which the next listing shows.
async fn read_host(site: &Site) {
    let mut ticks = interval(HOST_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Without an open page, the first answer is enough.
        let is_watched = site.hub.changed.receiver_count() > 0;
        if !is_watched && site.hub.list().host.is_some() {
            continue;
        }
        // Without an answer the last one stays; the listing reports the daemon's failure.
        let Ok(host) = site.watcher.host().await else { continue };
        let before = site.hub.list().host.replace(host);
        if before != Some(host) {
            // An error is reported by the task that follows the events.
            let _ = site.hub.refresh(site, &site.watcher).await;
        }
    }
}

async fn sample(site: &Site) {
    let mut ticks = interval(history::INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let known: Vec<VmId> = site.hub.list().rows.keys().cloned().collect();
        site.history.keep(|id| known.contains(id));
        let samples = match site.watcher.stats(&StatsSelection::Running).await {
            Ok(samples) => samples,
            Err(error) => {
                site.hub.failed(&error);
                continue;
            }
        };
        if samples.is_empty() {
            continue;
        }
        let now = u32::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
        site.history.add(samples, now);
        if let Err(error) = site.hub.refresh(site, &site.watcher).await {
            site.hub.failed(&error);
        }
    }
}

/// Whether a VM has a VMM in this state.
pub fn is_live(state: VmState) -> bool {
    matches!(state, VmState::Running | VmState::Paused)
}
