//! The list of VMs: sorted, filtered, with marks.

use std::collections::{BTreeMap, BTreeSet};

use banger_api::VmId;
use banger_api::events::VmNow;
use banger_api::operation::VmTag;
use banger_api::stats::{VmStats, cpu_percent};
use banger_api::vm::{DiskView, VmState, VmSummary};

use super::cursor::{Place, matches};
pub use super::order::SortBy;
use super::order::compare;

/// Number of CPU values that are kept for each VM.
pub const HISTORY: usize = 60;

/// A VM with its measured usage.
#[derive(Debug, Clone, PartialEq)]
pub struct Vm {
    /// The summary.
    pub summary: VmSummary,
    /// The last sample.
    pub stats: Option<VmStats>,
    /// CPU usage in percent of one CPU, oldest first.
    pub cpu: Vec<f64>,
    /// Milliseconds since 1970 of its creation.
    pub created_ms: Option<u64>,
}

impl Vm {
    fn new(summary: VmSummary) -> Self {
        let created_ms = crate::text::unix_ms(&summary.created_at);
        Self { summary, stats: None, cpu: Vec::new(), created_ms }
    }

    /// Forgets the usage, unless it is running.
    fn settle(&mut self) {
        if !matches!(self.summary.state, VmState::Running | VmState::Paused) {
            self.stats = None;
            self.cpu.clear();
        }
    }

    /// Present CPU usage, while it is running.
    pub fn cpu_now(&self) -> Option<f64> {
        self.cpu.last().copied()
    }

    /// Bytes of memory that the guest uses, or, if that is unknown, its VMM.
    pub fn memory_used(&self) -> Option<u64> {
        let memory = &self.stats.as_ref()?.run.as_ref()?.memory;
        let of_guest =
            memory.guest.map(|guest| guest.total_bytes.saturating_sub(guest.available_bytes));
        Some(of_guest.unwrap_or(memory.resident_bytes))
    }

    /// Allocated bytes of its disks.
    pub fn disk_used(&self) -> Option<u64> {
        let used = |disk: DiskView| disk.root_used_bytes.saturating_add(disk.work_used_bytes);
        self.summary.disk.map(used)
    }

    /// Id and name.
    pub fn tag(&self) -> VmTag {
        VmTag { id: self.summary.id.clone(), name: self.summary.name.clone() }
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        let vm = &self.summary;
        let labels = vm.labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
        [vm.name.as_str(), vm.id.as_str(), vm.state.as_str(), vm.image.as_str()]
            .into_iter()
            .chain(vm.ip.as_deref())
            .chain(labels)
    }
}

/// The list.
#[derive(Debug, Clone)]
pub struct Vms {
    all: BTreeMap<VmId, Vm>,
    /// Those that match the filter, sorted.
    order: Vec<VmId>,
    marks: BTreeSet<VmId>,
    filter: String,
    /// Column.
    pub sort: SortBy,
    /// Whether the largest or last is first.
    pub reverse: bool,
    place: Place,
    /// A VM that is selected as soon as it is listed.
    pub(crate) wanted: Option<VmId>,
    /// Whether the daemon has answered.
    pub known: bool,
}

impl Default for Vms {
    fn default() -> Self {
        Self {
            all: BTreeMap::new(),
            order: Vec::new(),
            marks: BTreeSet::new(),
            filter: String::new(),
            sort: SortBy::Name,
            reverse: false,
            place: Place::default(),
            wanted: None,
            known: false,
        }
    }
}

impl Vms {
    /// Replaces the list; usage and marks of the VMs that are still there stay.
    pub fn replace(&mut self, list: Vec<VmSummary>) {
        let mut before = std::mem::take(&mut self.all);
        for summary in list {
            let id = summary.id.clone();
            let vm = match before.remove(&id) {
                Some(mut vm) => {
                    vm.summary = summary;
                    vm.settle();
                    vm
                }
                None => Vm::new(summary),
            };
            self.all.insert(id, vm);
        }
        self.known = true;
        self.arrange();
    }

    /// Removes a VM.
    pub fn remove(&mut self, id: &VmId) {
        if self.all.remove(id).is_some() {
            self.arrange();
        }
    }

    /// Applies a change.
    pub fn change(&mut self, now: &VmNow) {
        let Some(vm) = self.all.get_mut(&now.id) else { return };
        let is_renamed = vm.summary.name != now.name;
        let is_other = vm.summary.state != now.state;
        vm.summary.state = now.state;
        vm.summary.name = now.name.clone();
        vm.summary.operation = now.operation.clone();
        vm.settle();
        // Not the whole list for each of some hundred changes a second.
        let by_state = matches!(self.sort, SortBy::State | SortBy::Cpu | SortBy::Memory);
        if is_renamed || (is_other && (by_state || !self.filter.is_empty())) {
            self.arrange();
        }
    }

    /// Adds samples.
    pub fn sample(&mut self, samples: Vec<VmStats>) {
        for mut sample in samples {
            let Some(vm) = self.all.get_mut(&sample.id) else { continue };
            if let Some(percent) = vm.stats.as_ref().and_then(|before| cpu_percent(before, &sample))
            {
                vm.cpu.push(percent);
                let excess = vm.cpu.len().saturating_sub(HISTORY);
                vm.cpu.drain(..excess);
            }
            if sample.disk.is_some() {
                vm.summary.disk = sample.disk;
            }
            keep_guest(vm.stats.as_ref(), &mut sample);
            vm.stats = Some(sample);
        }
        if matches!(self.sort, SortBy::Cpu | SortBy::Memory | SortBy::Disk) {
            self.arrange();
        }
    }

    /// Sorts by a column, or, if it is sorted by it already, in the other direction.
    pub fn sort_by(&mut self, column: SortBy) {
        if self.sort == column {
            self.reverse = !self.reverse;
        } else {
            self.sort = column;
            // The largest is what is looked for.
            self.reverse = matches!(column, SortBy::Cpu | SortBy::Memory | SortBy::Disk);
        }
        self.arrange();
    }

    /// Sorts in the other direction.
    pub fn turn(&mut self) {
        self.reverse = !self.reverse;
        self.arrange();
    }

    /// Sets the filter.
    pub fn set_filter(&mut self, filter: String) {
        self.filter = filter;
        self.arrange();
    }

    /// The filter.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// Filters and sorts; the selection stays on the same VM.
    fn arrange(&mut self) {
        let selected = self.selected_id().cloned();
        let fits = |vm: &&Vm| matches(&self.filter, vm.texts());
        let mut shown: Vec<&Vm> = self.all.values().filter(fits).collect();
        let (sort, reverse) = (self.sort, self.reverse);
        shown.sort_by(|a, b| {
            let by = compare(sort, a, b);
            let by = if reverse { by.reverse() } else { by };
            by.then_with(|| a.summary.name.cmp(&b.summary.name))
        });
        self.order = shown.into_iter().map(|vm| vm.summary.id.clone()).collect();
        self.marks.retain(|id| self.all.contains_key(id));
        let position = |id: &VmId| self.order.iter().position(|one| one == id);
        let wanted = self.wanted.as_ref().and_then(position);
        let again = wanted.or_else(|| selected.as_ref().and_then(position));
        if wanted.is_some() {
            self.wanted = None;
        }
        let row = again.unwrap_or(self.place.row);
        self.place = Place { row, ..self.place }.moved(0, self.order.len());
    }

    /// The VMs that match the filter, in order.
    pub fn shown(&self) -> impl Iterator<Item = &Vm> {
        self.order.iter().filter_map(|id| self.all.get(id))
    }

    /// Those of these rows.
    pub fn rows(&self, from: usize, count: usize) -> impl Iterator<Item = &Vm> {
        self.order.iter().skip(from).take(count).filter_map(|id| self.all.get(id))
    }

    /// Number of VMs that match the filter.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no VM matches the filter.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Number of all VMs.
    pub fn total(&self) -> usize {
        self.all.len()
    }

    /// All VMs.
    pub fn all(&self) -> impl Iterator<Item = &Vm> {
        self.all.values()
    }

    /// One VM.
    pub fn get(&self, id: &VmId) -> Option<&Vm> {
        self.all.get(id)
    }

    /// The selected VM.
    pub fn selected(&self) -> Option<&Vm> {
        self.all.get(self.selected_id()?)
    }

    /// Its id.
    pub fn selected_id(&self) -> Option<&VmId> {
        self.order.get(self.place.row)
    }

    /// Selects a VM, at once or when it is listed.
    pub fn select(&mut self, id: &VmId) {
        match self.order.iter().position(|one| one == id) {
            Some(row) => self.place.row = row,
            None => self.wanted = Some(id.clone()),
        }
    }

    /// The VMs that a key acts on: the marked ones, or else the selected one.
    pub fn targets(&self) -> Vec<&Vm> {
        let marked: Vec<&Vm> = self.shown().filter(|vm| self.is_marked(&vm.summary.id)).collect();
        if marked.is_empty() { self.selected().into_iter().collect() } else { marked }
    }

    /// Whether a VM is marked.
    pub fn is_marked(&self, id: &VmId) -> bool {
        self.marks.contains(id)
    }

    /// Number of marked VMs that are shown.
    pub fn marked(&self) -> usize {
        if self.marks.is_empty() {
            return 0;
        }
        self.order.iter().filter(|id| self.marks.contains(id)).count()
    }

    /// Marks the selected VM, or removes its mark, and selects the next one.
    pub fn mark(&mut self) {
        let Some(id) = self.selected_id().cloned() else { return };
        if !self.marks.remove(&id) {
            self.marks.insert(id);
        }
        self.go(1);
    }

    /// Marks all shown VMs; removes all marks if all are marked.
    pub fn mark_all(&mut self) {
        if self.marked() == self.order.len() {
            self.marks.clear();
        } else {
            self.marks.extend(self.order.iter().cloned());
        }
    }

    /// Removes all marks; returns whether there were some.
    pub fn unmark(&mut self) -> bool {
        let marked = !self.marks.is_empty();
        self.marks.clear();
        marked
    }

    /// The selected row and the first visible one.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Moves the selection.
    pub fn go(&mut self, by: isize) {
        self.place = self.place.moved(by, self.order.len());
    }

    /// Keeps the selected row visible.
    pub fn scroll(&mut self, height: usize) {
        self.place = self.place.scrolled(height, self.order.len());
    }
}

/// A sample without the memory as the guest reports it keeps that of the sample before it, of the
/// same run.
fn keep_guest(before: Option<&VmStats>, after: &mut VmStats) {
    let before = before.and_then(|before| before.run.as_ref());
    if let (Some(before), Some(after)) = (before, &mut after.run)
        && before.uptime_ms <= after.uptime_ms
    {
        after.memory.guest = after.memory.guest.or(before.memory.guest);
    }
}
