//! The registry of capabilities. Steps of one slot are taken in this order and undone in reverse.

pub mod autostart;
pub mod ca;
pub mod dns_names;
pub mod file_sync;
pub mod git_identity;
pub mod labels;
pub mod live_folders;
pub mod logout;
pub mod nat;
pub mod opencode;
pub mod ports;
pub mod proxy;
pub mod ssh_identity;
pub mod work_disk;

use crate::capability::{Capability, Change};
use crate::plan::{RunPlan, VmSpec};

/// All capabilities.
pub const ALL: &[Capability] = &[
    work_disk::CAPABILITY,
    ssh_identity::CAPABILITY,
    nat::CAPABILITY,
    dns_names::CAPABILITY,
    ports::CAPABILITY,
    proxy::CAPABILITY,
    ca::CAPABILITY,
    git_identity::CAPABILITY,
    file_sync::CAPABILITY,
    autostart::CAPABILITY,
    logout::CAPABILITY,
    opencode::CAPABILITY,
    labels::CAPABILITY,
    live_folders::CAPABILITY,
];

/// When a change of the specification takes effect, for each capability that it concerns.
pub fn changes(old: &VmSpec, new: &VmSpec, run: Option<&RunPlan>) -> Vec<(&'static str, Change)> {
    let concerned = ALL.iter().filter_map(|capability| {
        let change = capability.change?(old, new, run);
        (change != Change::None).then_some((capability.name, change))
    });
    concerned.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::lists::{self, ListName};
    use crate::plan::tests::{plan, spec};

    #[test]
    fn names_and_steps_are_unique_and_every_step_is_in_a_list() {
        let names: BTreeSet<&str> = ALL.iter().map(|capability| capability.name).collect();
        assert_eq!(names.len(), ALL.len());
        let all = [ListName::Create, ListName::Start].map(lists::all).concat();
        let ids: BTreeSet<&str> = all.iter().map(|step| step.id.as_str()).collect();
        assert_eq!(ids.len(), all.len());
        for step in ALL.iter().flat_map(|capability| capability.steps) {
            assert!(ids.contains(step.id.as_str()), "{step:?} has no slot in a list");
        }
    }

    #[test]
    fn a_step_list_contains_used_capabilities_only() {
        let (vm, mut spec) = (plan("0123456789ab", "web"), spec());
        let words = |spec: &VmSpec| -> Vec<String> {
            let ids = lists::planned(ListName::Start, &vm, spec);
            ids.iter().map(|id| id.as_str().to_owned()).collect()
        };
        assert!(!words(&spec).contains(&"forwarder".into()));
        spec.publish = vec!["8080:80".parse().unwrap()];
        let with = words(&spec);
        let place = |id: &str| with.iter().position(|word| word == id).unwrap();
        assert!(place("network") < place("forwarder") && place("forwards") < place("run_folder"));
    }

    #[test]
    fn changes_report_when_they_take_effect() {
        let old = spec();
        assert_eq!(changes(&old, &old, None), []);
        let ports = VmSpec { publish: vec!["1:1".parse().unwrap()], ..spec() };
        let operation = banger_api::OpId::from_entropy(1);
        let mut run = RunPlan::new(operation, String::new(), spec(), Vec::new());
        let next_start = [("ports", Change::NextStart)];
        assert_eq!(changes(&old, &ports, None), next_start);
        assert_eq!(changes(&old, &ports, Some(&run)), next_start, "no address");
        let address = core::net::Ipv4Addr::new(172, 16, 0, 2);
        run.lease =
            Some(crate::plan::Lease { address, prefix: 24, gateway: address, dns: Vec::new() });
        assert_eq!(changes(&old, &ports, Some(&run)), [("ports", Change::Live)]);
        let autostart = VmSpec { autostart: true, ..spec() };
        assert_eq!(changes(&old, &autostart, Some(&run)), [("autostart", Change::Live)]);
        let label = banger_api::labels::parse("team=web").unwrap();
        let labels = banger_api::labels::Labels::of([label]).unwrap();
        let labelled = VmSpec { labels, ..spec() };
        assert_eq!(changes(&old, &labelled, Some(&run)), [("labels", Change::Live)]);
        assert_eq!(changes(&old, &labelled, None), [("labels", Change::NextStart)]);
        let nat = VmSpec { nat: false, ..spec() };
        assert_eq!(changes(&old, &nat, Some(&run)), [("nat", Change::NextStart)]);
        let grown = VmSpec { work_bytes: old.work_bytes * 2, ..spec() };
        assert_eq!(changes(&old, &grown, Some(&run)), [("work_disk", Change::NextStart)]);
        let [(_, Change::Refused(why))] = &changes(&grown, &old, None)[..] else { panic!() };
        assert_eq!(why, "a work disk only grows, and it has 16 GiB");
    }
}
