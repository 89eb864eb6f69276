//! Choosing drivers: a pure function of what was probed, what each driver needs and takes, and what
//! was asked for.
//!
//! VMMs are tried best first; for each, the first storage and network that work with it are taken.
//! A VMM that nothing works with is passed over, as one is that does not work here.

use crate::devices::{Need, NetworkAbilities, NicKind, SourceKind, StorageAbilities, VmmAbilities};
use crate::plan::{Chosen, DriverPlan};

/// A driver of this daemon: what it needs and takes, and what was found out about it here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<A> {
    /// Its name.
    pub name: &'static str,
    /// What it needs and takes.
    pub abilities: A,
    /// `Ok(why it is good)`, or `Err(why it cannot be used)` for a reason of its own.
    pub verdict: Result<String, String>,
}

/// What a VMM could use of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmmCandidate {
    /// The driver.
    pub driver: Candidate<VmmAbilities>,
    /// Whether KVM works for the user that this VMM runs as, and if not why.
    pub kvm: Result<(), String>,
}

/// What was found out about the host, and what it has drivers for, best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offers {
    /// Whether somebody does what needs root, and if not why.
    pub root: Result<(), String>,
    /// VMMs.
    pub vmms: Vec<VmmCandidate>,
    /// Storage.
    pub storage: Vec<Candidate<StorageAbilities>>,
    /// Networks.
    pub networks: Vec<Candidate<NetworkAbilities>>,
}

/// Drivers that were asked for by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// VMM.
    pub vmm: Option<&'a str>,
    /// Storage.
    pub storage: Option<&'a str>,
    /// Network.
    pub network: Option<&'a str>,
}

/// No driver can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {what} can be used here: {}", .reasons.join("; "))]
pub struct NoDriver {
    what: &'static str,
    reasons: Vec<String>,
}

/// Takes the first driver that is usable, or the one that was asked for by name.
fn first(
    what: &'static str,
    wanted: Option<&str>,
    candidates: &[(&'static str, Result<String, String>)],
) -> Result<Chosen, NoDriver> {
    let mut passed_over = Vec::new();
    for (name, verdict) in candidates {
        if wanted.is_some_and(|wanted| wanted != *name) {
            continue;
        }
        match verdict {
            Ok(good) => {
                let mut why = match wanted {
                    Some(_) => String::from("asked for in the configuration"),
                    None => good.clone(),
                };
                if !passed_over.is_empty() {
                    why = format!("{why} ({})", passed_over.join("; "));
                }
                return Ok(Chosen { name: (*name).into(), why });
            }
            Err(bad) => passed_over.push(format!("not {name}: {bad}")),
        }
    }
    if passed_over.is_empty() {
        let known: Vec<&str> = candidates.iter().map(|(name, _)| *name).collect();
        let wanted = wanted.unwrap_or("auto");
        passed_over.push(format!("`{wanted}` is not one of {}", known.join(", ")));
    }
    Err(NoDriver { what, reasons: passed_over })
}

impl Offers {
    /// The best drivers that work together here.
    ///
    /// # Errors
    /// Nothing usable, or what was asked for is not; with the reason for each.
    pub fn choose(&self, wanted: Wanted<'_>) -> Result<DriverPlan, NoDriver> {
        let mut verdicts = Vec::new();
        let mut lacking = Vec::new();
        for candidate in &self.vmms {
            let driver = &candidate.driver;
            let asked = wanted.vmm.is_none_or(|name| name == driver.name);
            let verdict = self.vmm(candidate);
            if !asked || verdict.is_err() {
                verdicts.push((driver.name, verdict));
                continue;
            }
            match self.with(candidate, wanted) {
                Ok((storage, network)) => {
                    verdicts.push((driver.name, verdict));
                    let vmm = first("VMM", wanted.vmm, &verdicts)?;
                    return Ok(DriverPlan { vmm, storage, network });
                }
                Err(none) => {
                    verdicts.push((driver.name, Err(none.to_string())));
                    lacking.push(none);
                }
            }
        }
        // Where one VMM works, what is missing is what it lacks.
        match <[NoDriver; 1]>::try_from(lacking) {
            Ok([one]) => Err(one),
            Err(_) => first("VMM", wanted.vmm, &verdicts)
                .and_then(|chosen| Err(NoDriver { what: "VMM", reasons: vec![chosen.why] })),
        }
    }

    fn root_for(&self, need: Need) -> Result<(), String> {
        match (need, &self.root) {
            (Need::Required, Err(why)) => Err(format!("it needs root: {why}")),
            _ => Ok(()),
        }
    }

    fn vmm(&self, candidate: &VmmCandidate) -> Result<String, String> {
        let driver = &candidate.driver;
        if let (Need::Required, Err(why)) = (driver.abilities.kvm, &candidate.kvm) {
            return Err(format!("KVM does not work here: {why}"));
        }
        self.root_for(driver.abilities.root)?;
        driver.verdict.clone()
    }

    /// Storage and network for a VMM.
    fn with(&self, vmm: &VmmCandidate, wanted: Wanted<'_>) -> Result<(Chosen, Chosen), NoDriver> {
        let (name, takes) = (vmm.driver.name, vmm.driver.abilities);
        let storage = self.storage.iter().map(|storage| {
            let verdict = match storage.abilities.root_disk {
                kind if takes.sources.contains(&kind) => {
                    self.root_for(storage.abilities.root).and_then(|()| storage.verdict.clone())
                }
                SourceKind::File => Err(format!("{name} takes no files as disks")),
                SourceKind::Device => Err(format!("{name} takes no block devices as disks")),
            };
            (storage.name, verdict)
        });
        let networks = self.networks.iter().map(|network| {
            let asked = wanted.network == Some(network.name);
            let verdict = match network.abilities.nic {
                kind if takes.nics.contains(&kind) => self.network(vmm, network, asked),
                NicKind::Tap => Err(format!("{name} takes no TAP")),
                NicKind::User => Err(format!("{name} has no network of its own")),
            };
            (network.name, verdict)
        });
        let storage = first("storage", wanted.storage, &storage.collect::<Vec<_>>())?;
        let network = first("network", wanted.network, &networks.collect::<Vec<_>>())?;
        Ok((storage, network))
    }

    /// Under software emulation a network that needs root is taken only where it is asked for: such
    /// hosts are for trials and tests, and are left as they are.
    fn network(
        &self,
        vmm: &VmmCandidate,
        network: &Candidate<NetworkAbilities>,
        asked: bool,
    ) -> Result<String, String> {
        self.root_for(network.abilities.root)?;
        if network.abilities.root == Need::Required && vmm.kvm.is_err() && !asked {
            let set = format!("[network] driver = \"{}\"", network.name);
            return Err(format!("without KVM it is taken only where `{set}` asks for it"));
        }
        network.verdict.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::DriveKey;

    fn good(name: &'static str) -> Result<String, String> {
        Ok(format!("{name} is good"))
    }

    fn vmm(name: &'static str, abilities: VmmAbilities) -> VmmCandidate {
        let driver = Candidate { name, abilities, verdict: good(name) };
        VmmCandidate { driver, kvm: Ok(()) }
    }

    /// A host with everything.
    fn host() -> Offers {
        let jailed = VmmAbilities {
            root: Need::Required,
            kvm: Need::Required,
            nics: &[NicKind::Tap],
            sources: &[SourceKind::File, SourceKind::Device],
            drive_key: DriveKey::Order,
        };
        let free = VmmAbilities {
            root: Need::None,
            kvm: Need::None,
            nics: &[NicKind::Tap, NicKind::User],
            drive_key: DriveKey::Serial,
            ..jailed
        };
        let storage = |name, root, root_disk| Candidate {
            name,
            abilities: StorageAbilities { root, root_disk },
            verdict: good(name),
        };
        let network = |name, root, nic| Candidate {
            name,
            abilities: NetworkAbilities { root, nic },
            verdict: good(name),
        };
        Offers {
            root: Ok(()),
            vmms: vec![vmm("jailed", jailed), vmm("free", free)],
            storage: vec![
                storage("devices", Need::Required, SourceKind::Device),
                storage("files", Need::None, SourceKind::File),
            ],
            networks: vec![
                network("taps", Need::Required, NicKind::Tap),
                network("own", Need::None, NicKind::User),
            ],
        }
    }

    const AUTO: Wanted<'_> = Wanted { vmm: None, storage: None, network: None };

    fn names(plan: &DriverPlan) -> [&str; 3] {
        [&plan.vmm, &plan.storage, &plan.network].map(|chosen| chosen.name.as_str())
    }

    #[test]
    fn the_first_of_each_kind_is_taken_where_everything_is_there() {
        let plan = host().choose(AUTO).unwrap();
        assert_eq!(names(&plan), ["jailed", "devices", "taps"]);
        assert_eq!(plan.vmm.why, "jailed is good");
    }

    #[test]
    fn with_kvm_and_root_the_second_vmm_has_devices_and_taps_too() {
        let mut host = host();
        host.vmms[0].driver.verdict = Err("it is not installed".into());
        let plan = host.choose(AUTO).unwrap();
        assert_eq!(names(&plan), ["free", "devices", "taps"]);
        assert_eq!(plan.vmm.why, "free is good (not jailed: it is not installed)");
    }

    #[test]
    fn without_root_nothing_is_taken_that_needs_it() {
        let host = Offers { root: Err("no helper".into()), ..host() };
        let plan = host.choose(AUTO).unwrap();
        assert_eq!(names(&plan), ["free", "files", "own"]);
        assert_eq!(plan.vmm.why, "free is good (not jailed: it needs root: no helper)");
        assert_eq!(plan.network.why, "own is good (not taps: it needs root: no helper)");
        let wanted = Wanted { network: Some("taps"), ..AUTO };
        assert_eq!(
            host.choose(wanted).unwrap_err().to_string(),
            "no network can be used here: not taps: it needs root: no helper"
        );
    }

    #[test]
    fn without_kvm_a_network_that_needs_root_must_be_asked_for() {
        let mut host = host();
        for vmm in &mut host.vmms {
            vmm.kvm = Err("no flag".into());
        }
        let plan = host.choose(AUTO).unwrap();
        assert_eq!(names(&plan), ["free", "devices", "own"]);
        assert_eq!(plan.vmm.why, "free is good (not jailed: KVM does not work here: no flag)");
        assert!(plan.network.why.contains("`[network] driver = \"taps\"`"), "{plan:?}");
        let wanted = Wanted { network: Some("taps"), ..AUTO };
        let plan = host.choose(wanted).unwrap();
        assert_eq!(names(&plan), ["free", "devices", "taps"]);
        assert_eq!(plan.network.why, "asked for in the configuration");
    }

    #[test]
    fn what_was_asked_for_leads_to_a_vmm_that_takes_it() {
        let wanted = Wanted { network: Some("own"), ..AUTO };
        let plan = host().choose(wanted).unwrap();
        assert_eq!(names(&plan), ["free", "devices", "own"]);
        assert_eq!(
            plan.vmm.why,
            "free is good (not jailed: no network can be used here: not own: jailed has no network \
             of its own)"
        );
        let wanted = Wanted { vmm: Some("jailed"), ..wanted };
        assert_eq!(
            host().choose(wanted).unwrap_err().to_string(),
            "no network can be used here: not own: jailed has no network of its own"
        );
        let wanted = Wanted { vmm: Some("xen"), ..AUTO };
        assert_eq!(
            host().choose(wanted).unwrap_err().to_string(),
            "no VMM can be used here: `xen` is not one of jailed, free"
        );
        let wanted = Wanted { storage: Some("tape"), ..AUTO };
        let error = host().choose(wanted).unwrap_err().to_string();
        assert!(error.contains("`tape` is not one of devices, files"), "{error}");
    }

    #[test]
    fn a_vmm_that_takes_only_files_gets_files() {
        let mut host = host();
        host.vmms.remove(0);
        host.vmms[0].driver.abilities.sources = &[SourceKind::File];
        let plan = host.choose(AUTO).unwrap();
        assert_eq!(names(&plan), ["free", "files", "taps"]);
        assert_eq!(
            plan.storage.why,
            "files is good (not devices: free takes no block devices as disks)"
        );
    }

    /// Over every combination of facts: what is chosen works together and with what there is.
    #[test]
    fn whatever_is_chosen_fits() {
        for bits in 0..(1u32 << 9) {
            let on = |bit: u32| bits & (1 << bit) != 0;
            let no = |bad: bool| if bad { Err(String::from("no")) } else { Ok(String::new()) };
            let mut host = host();
            host.root = no(on(0)).map(|_| ());
            host.vmms[0].kvm = no(on(1)).map(|_| ());
            host.vmms[1].kvm = no(on(2)).map(|_| ());
            host.vmms[0].driver.verdict = no(on(3));
            host.vmms[1].driver.verdict = no(on(4));
            host.storage[0].verdict = no(on(5));
            host.storage[1].verdict = no(on(6));
            host.networks[0].verdict = no(on(7));
            host.networks[1].verdict = no(on(8));
            let Ok(plan) = host.choose(AUTO) else { continue };
            let [vmm, storage, network] = names(&plan);
            let vmm = host.vmms.iter().find(|one| one.driver.name == vmm).unwrap();
            let storage = host.storage.iter().find(|one| one.name == storage).unwrap();
            let network = host.networks.iter().find(|one| one.name == network).unwrap();
            assert!(vmm.driver.verdict.is_ok() && storage.verdict.is_ok());
            assert!(network.verdict.is_ok(), "{plan:?}");
            assert!(vmm.driver.abilities.sources.contains(&storage.abilities.root_disk));
            assert!(vmm.driver.abilities.nics.contains(&network.abilities.nic));
            assert!(vmm.driver.abilities.kvm == Need::None || vmm.kvm.is_ok());
            let needs = [vmm.driver.abilities.root, storage.abilities.root, network.abilities.root];
            assert!(!needs.contains(&Need::Required) || host.root.is_ok(), "{plan:?}");
        }
    }
}
