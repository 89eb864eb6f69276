//! Usage of VMs over the last hour.
//!
//! The daemon keeps no samples, so that nothing is measured while no client asks. While the page
//! runs, it samples the running VMs and keeps an hour of rates in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use banger_api::VmId;
use banger_api::stats::{VmStats, cpu_percent};
use serde::Serialize;

/// Interval between two samples.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// Maximum number of points of a VM: one hour.
const MAX_POINTS: usize = 720;
/// Maximum number of VMs with a history.
const MAX_VMS: usize = 4096;

/// Usage between two samples. Rates are bytes for each second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Seconds since 1970.
    pub at: u32,
    /// Percent of one host CPU.
    pub cpu: f32,
    /// Memory of the VMM on the host in bytes.
    pub memory: f32,
    /// Bytes read from disks.
    pub read: Option<f32>,
    /// Bytes written to disks.
    pub written: Option<f32>,
    /// Bytes received from the network.
    pub received: Option<f32>,
    /// Bytes sent to the network.
    pub sent: Option<f32>,
}

/// The points of a VM, a column each, as charts take them.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Columns {
    at: Vec<u32>,
    cpu: Vec<f32>,
    memory: Vec<f32>,
    read: Vec<Option<f32>>,
    written: Vec<Option<f32>>,
    received: Vec<Option<f32>>,
    sent: Vec<Option<f32>>,
}

/// The newest values of a VM.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latest {
    /// Percent of one host CPU.
    pub cpu_percent: f64,
    /// Memory of the VMM on the host in bytes.
    pub memory_bytes: u64,
}

#[derive(Default)]
struct Series {
    last: Option<VmStats>,
    points: VecDeque<Point>,
}

/// Histories of all VMs.
#[derive(Default)]
pub struct History(Mutex<HashMap<VmId, Series>>);

impl History {
    fn with<T>(&self, read: impl FnOnce(&mut HashMap<VmId, Series>) -> T) -> T {
        read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a sample of the running VMs, taken at this time (seconds since 1970).
    pub fn add(&self, samples: Vec<VmStats>, at: u32) {
        self.with(|all| {
            for sample in samples {
                if !all.contains_key(&sample.id) && all.len() >= MAX_VMS {
                    continue;
                }
                let series = all.entry(sample.id.clone()).or_default();
                if let Some(point) =
                    series.last.as_ref().and_then(|last| between(last, &sample, at))
                {
                    if series.points.len() == MAX_POINTS {
                        series.points.pop_front();
                    }
                    series.points.push_back(point);
                }
                series.last = Some(sample);
            }
        });
    }

    /// Forgets VMs that are gone.
    pub fn keep(&self, exists: impl Fn(&VmId) -> bool) {
        self.with(|all| all.retain(|id, _| exists(id)));
    }

    /// The newest values of a VM; none before its second sample.
    pub fn latest(&self, vm: &VmId) -> Option<Latest> {
        self.with(|all| {
            let point = all.get(vm)?.points.back()?;
            let (cpu_percent, memory_bytes) = (f64::from(point.cpu), point.memory as u64);
            Some(Latest { cpu_percent, memory_bytes })
        })
    }

    /// All points of a VM.
    pub fn columns(&self, vm: &VmId) -> Columns {
        self.with(|all| {
            let mut columns = Columns::default();
            for point in all.get(vm).iter().flat_map(|series| &series.points) {
                columns.at.push(point.at);
                columns.cpu.push(point.cpu);
                columns.memory.push(point.memory);
                columns.read.push(point.read);
                columns.written.push(point.written);
                columns.received.push(point.received);
                columns.sent.push(point.sent);
            }
            columns
        })
    }
}

/// The usage between two samples; none if they are not of one run.
fn between(before: &VmStats, after: &VmStats, at: u32) -> Option<Point> {
    let cpu = cpu_percent(before, after)? as f32;
    let (first, second) = (before.run.as_ref()?, after.run.as_ref()?);
    let seconds = second.sampled_us.checked_sub(first.sampled_us)? as f32 / 1e6;
    let rate = |before: Option<u64>, after: Option<u64>| {
        Some(after?.checked_sub(before?)? as f32 / seconds)
    };
    let disk = |pick: fn(&banger_api::stats::DiskIo) -> u64| {
        rate(first.disk_io.as_ref().map(pick), second.disk_io.as_ref().map(pick))
    };
    let network = |pick: fn(&banger_api::stats::NetworkIo) -> u64| {
        rate(first.network.as_ref().map(pick), second.network.as_ref().map(pick))
    };
    Some(Point {
        at,
        cpu,
        memory: second.memory.resident_bytes as f32,
        read: disk(|io| io.read_bytes),
        written: disk(|io| io.written_bytes),
        received: network(|io| io.received_bytes),
        sent: network(|io| io.sent_bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::stats::{CpuStats, DiskIo, MemoryStats, RunStats, Source};
    use banger_api::vm::VmState;

    fn sample(seconds: u64, busy_ms: u64, read: Option<u64>) -> VmStats {
        let io = |read_bytes| DiskIo { read_bytes, written_bytes: 0, source: Source::Host };
        VmStats {
            id: "0123456789ab".parse().unwrap(),
            name: "web".parse().unwrap(),
            state: VmState::Running,
            disk: None,
            run: Some(RunStats {
                sampled_us: seconds * 1_000_000,
                uptime_ms: seconds * 1000,
                cpu: CpuStats { vcpus: 1, time_us: busy_ms * 1000 },
                memory: MemoryStats { limit_bytes: 9, resident_bytes: 5, guest: None },
                disk_io: read.map(io),
                network: None,
            }),
        }
    }

    #[test]
    fn two_samples_of_a_run_make_a_point() {
        let (history, id) = (History::default(), "0123456789ab".parse().unwrap());
        history.add(vec![sample(10, 0, Some(0))], 100);
        assert_eq!(history.latest(&id), None);
        history.add(vec![sample(20, 5_000, Some(1000))], 110);
        let expected = Latest { cpu_percent: 50.0, memory_bytes: 5 };
        assert_eq!(history.latest(&id), Some(expected));
        let columns = history.columns(&id);
        assert_eq!((columns.at, columns.read), (vec![110], vec![Some(100.0)]));
        assert_eq!((columns.written, columns.sent), (vec![Some(0.0)], vec![None]));
        // Another run: its counters begin again.
        history.add(vec![sample(5, 10, Some(1))], 120);
        assert_eq!(history.columns(&id).at, [110]);
        history.keep(|_| false);
        assert_eq!(history.columns(&id), Columns::default());
    }

    #[test]
    fn an_hour_is_kept() {
        let (history, id) = (History::default(), "0123456789ab".parse().unwrap());
        for second in 0..=MAX_POINTS as u64 + 10 {
            history.add(vec![sample(second + 1, 0, None)], second as u32);
        }
        let at = history.columns(&id).at;
        assert_eq!((at.len(), at.last()), (MAX_POINTS, Some(&(MAX_POINTS as u32 + 10))));
    }
}
