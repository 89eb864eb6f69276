//! The host's capacity, and what the VMs reserve and use of it.

use std::fs;

use askama::Template;
use banger_api::paths::Paths;
use banger_api::size::{MIB, human_size};
use banger_api::vm::{VmState, VmSummary};

/// Capacity of the host; 0 for an unknown value.
#[derive(Debug, Clone, Copy, Default)]
pub struct Capacity {
    /// CPUs.
    pub cpus: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Free bytes on the disk of the state folder.
    pub free_bytes: u64,
}

/// A card: a quantity, and its part of a whole.
struct Card {
    label: &'static str,
    value: String,
    of: String,
    /// Part of the whole in steps of 5 percent, at most 100; none without a whole.
    percent: Option<u64>,
    /// Whether more is reserved than there is.
    over: bool,
}

#[derive(Template)]
#[template(path = "cards.html")]
struct Cards {
    cards: Vec<Card>,
}

impl Capacity {
    /// Reads the capacity of this host.
    pub fn read(paths: &Paths) -> Self {
        let cpus = std::thread::available_parallelism().map_or(0, |count| count.get() as u64);
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let free = rustix::fs::statvfs(&paths.state);
        let free_bytes = free.map_or(0, |free| free.f_bavail.saturating_mul(free.f_frsize));
        Self { cpus, memory_bytes: total_memory(&memory), free_bytes }
    }

    /// The cards about these VMs.
    pub fn cards(&self, vms: &[VmSummary]) -> String {
        let holds = |vm: &&VmSummary| !matches!(vm.state, VmState::Stopped | VmState::Deleting);
        let live = || vms.iter().filter(holds);
        let running = vms.iter().filter(|vm| vm.state == VmState::Running).count() as u64;
        let vcpus: u64 = live().filter_map(|vm| vm.vcpus).map(u64::from).sum();
        let memory: u64 = live().filter_map(|vm| vm.memory_mib).map(|mib| mib * MIB).sum();
        let disks = vms.iter().filter_map(|vm| vm.disk);
        let used: u64 = disks.map(|disk| disk.root_used_bytes + disk.work_used_bytes).sum();
        let cards = vec![
            card("Running", running, vms.len() as u64, |count| count.to_string(), "VMs"),
            card("vCPUs reserved", vcpus, self.cpus, |count| count.to_string(), "CPUs"),
            card("Memory reserved", memory, self.memory_bytes, human_size, ""),
            card("Disk used", used, used + self.free_bytes, human_size, ""),
        ];
        (Cards { cards }).render().unwrap_or_default()
    }
}

fn card(
    label: &'static str,
    value: u64,
    whole: u64,
    words: fn(u64) -> String,
    unit: &'static str,
) -> Card {
    let of = match whole {
        0 if unit.is_empty() => String::new(),
        whole => format!("of {} {unit}", words(whole)),
    };
    let percent = (value * 100).checked_div(whole);
    Card {
        label,
        value: words(value),
        of,
        percent: percent.map(|percent| percent.div_ceil(5).min(20) * 5),
        over: percent.is_some_and(|percent| percent > 100),
    }
}

/// `MemTotal` of proc_meminfo(5) in bytes; 0 if it is not there.
fn total_memory(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or_default().saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read() {
        assert_eq!(total_memory("MemTotal:        2048 kB\nMemFree: 1 kB\n"), 2 * MIB);
        assert_eq!(total_memory("MemFree: 1 kB\n"), 0);
    }

    #[test]
    fn cards_say_what_is_reserved() {
        let vm: VmSummary = serde_json::from_value(serde_json::json!({
            "id": "0123456789ab", "name": "web", "state": "running", "image": "debian",
            "vcpus": 3, "memory_mib": 512, "ip": null, "created_at": "", "disk": null,
        }))
        .unwrap();
        let stopped = VmSummary { state: VmState::Stopped, ..vm.clone() };
        let capacity = Capacity { cpus: 2, memory_bytes: 1024 * MIB, free_bytes: MIB };
        let cards = capacity.cards(&[vm, stopped]);
        for text in ["of 2 VMs", ">3<", "of 2 CPUs", "512 MiB", "of 1 GiB"] {
            assert!(cards.contains(text), "{text}: {cards}");
        }
        assert_eq!(cards.matches("over").count(), 1, "{cards}");
        assert!(Capacity::default().cards(&[]).contains("Running"));
    }
}
