//! The cards about the host: what the VMs reserve and use of it.

use askama::Template;
use banger_api::host::HostView;
use banger_api::size::{MIB, human_size};
use banger_api::vm::{VmState, VmSummary};

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

/// The cards about these VMs, on a host whose resources may not be known yet.
///
/// What is reserved is counted here, so that it agrees with the list: the view of the host is some
/// seconds old.
pub fn cards(host: Option<&HostView>, vms: &[VmSummary]) -> String {
    let live = || vms.iter().filter(|vm| vm.state.has_vmm());
    let running = vms.iter().filter(|vm| vm.state == VmState::Running).count() as u64;
    let vcpus: u64 = live().filter_map(|vm| vm.vcpus).map(u64::from).sum();
    let memory: u64 = live().filter_map(|vm| vm.memory_mib).map(|mib| mib * MIB).sum();
    let (cpus, memory_bytes) = host.map_or((0, 0), |host| (host.cpus.into(), host.memory_bytes));
    let disk = host.map_or((0, 0), |host| (host.disk_used_bytes, host.disk_free_bytes));
    let cards = vec![
        card("Running", running, vms.len() as u64, |count| count.to_string(), "VMs"),
        card("vCPUs reserved", vcpus, cpus, |count| count.to_string(), "CPUs"),
        card("Memory reserved", memory, memory_bytes, human_size, ""),
        card("Disk used", disk.0, disk.0.saturating_add(disk.1), human_size, ""),
    ];
    (Cards { cards }).render().unwrap_or_default()
}

fn card(
    label: &'static str,
    value: u64,
    whole: u64,
    words: fn(u64) -> String,
    unit: &'static str,
) -> Card {
    let of = match whole {
        0 => String::new(),
        whole => format!("of {} {unit}", words(whole)),
    };
    let percent = value.saturating_mul(100).checked_div(whole);
    Card {
        label,
        value: words(value),
        of,
        percent: percent.map(|percent| percent.div_ceil(5).min(20) * 5),
        over: percent.is_some_and(|percent| percent > 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_say_what_is_reserved_and_used() {
        let vm: VmSummary = serde_json::from_value(serde_json::json!({
            "id": "0123456789ab", "name": "web", "state": "running", "image": "debian",
            "vcpus": 3, "memory_mib": 512, "ip": null, "created_at": "", "disk": null,
        }))
        .unwrap();
        let of = |state| VmSummary { state, ..vm.clone() };
        // One that is broken has no VMM, and one that is stopping still has its own.
        let vms = [of(VmState::Running), of(VmState::Broken), of(VmState::Stopping)];
        let host = HostView {
            cpus: 4,
            memory_bytes: 2048 * MIB,
            reserved_vcpus: 0,
            reserved_memory_bytes: 0,
            disk_used_bytes: 3 * MIB,
            disk_free_bytes: 5 * MIB,
        };
        let shown = cards(Some(&host), &vms);
        for text in ["of 3 VMs", ">6<", "of 4 CPUs", "1 GiB", "of 2 GiB", "3 MiB", "of 8 MiB"] {
            assert!(shown.contains(text), "{text}: {shown}");
        }
        assert_eq!(shown.matches("over").count(), 1, "{shown}");
        assert!(cards(None, &[]).contains("Running"));
        assert!(!cards(None, &vms).contains("CPUs<"), "no capacity is known");
    }
}
