//! Choice of drivers: a pure function of probe results, abilities of drivers, and configuration.
//!
//! VMMs are tried best first; for each, the first storage and network that work with it are chosen.
//! A VMM that does not work on this host, or without a storage or network that works with it, is
//! skipped.

use crate::devices::{
    Need, NetworkAbilities, NicKind, RootContent, SourceKind, StorageAbilities, VmmAbilities,
};
use crate::plan::{Chosen, DriverPlan};

/// A driver, its abilities, and its probe result on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<A> {
    /// Its name.
    pub name: &'static str,
    /// Its abilities.
    pub abilities: A,
    /// `Ok(reason to choose it)`, or `Err(why it cannot be used)`.
    pub verdict: Result<String, String>,
}

/// A VMM, and whether it can use KVM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmmCandidate {
    /// The driver.
    pub driver: Candidate<VmmAbilities>,
    /// Whether KVM works for the user of this VMM; otherwise why not.
    pub kvm: Result<(), String>,
}

/// Probe results of the host, and its drivers, best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offers {
    /// Whether root privileges are available; otherwise why not.
    pub root: Result<(), String>,
    /// VMMs.
    pub vmms: Vec<VmmCandidate>,
    /// Storage.
    pub storage: Vec<Candidate<StorageAbilities>>,
    /// Networks.
    pub networks: Vec<Candidate<NetworkAbilities>>,
}

/// Drivers requested by name in the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// VMM.
    pub vmm: Option<&'a str>,
    /// Storage.
    pub storage: Option<&'a str>,
    /// Network.
    pub network: Option<&'a str>,
    /// Least content of the file of the root disk. Where that is the whole root file system, a
    /// requested storage that keeps only changes is not taken.
    pub root: RootContent,
}

/// No driver can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {what} can be used here: {}", .reasons.join("; "))]
pub struct NoDriver {
    what: &'static str,
    reasons: Vec<String>,
}

/// Chooses the first usable driver, or the requested one.
fn first(
    what: &'static str,
    wanted: Option<&str>,
    candidates: &[(&'static str, Result<String, String>)],
) -> Result<Chosen, NoDriver> {
    let mut skipped = Vec::new();
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
                if !skipped.is_empty() {
                    why = format!("{why} ({})", skipped.join("; "));
                }
                return Ok(Chosen { name: (*name).into(), why });
            }
            Err(bad) => skipped.push(format!("not {name}: {bad}")),
        }
    }
    if skipped.is_empty() {
        let known: Vec<&str> = candidates.iter().map(|(name, _)| *name).collect();
        let wanted = wanted.unwrap_or("auto");
        skipped.push(format!("`{wanted}` is not one of {}", known.join(", ")));
    }
    Err(NoDriver { what, reasons: skipped })
}

impl Offers {
    /// The best drivers that work together here.
    ///
    /// # Errors
    /// No usable combination, or an unusable requested driver; with the reason for each.
    pub fn choose(&self, wanted: Wanted<'_>) -> Result<DriverPlan, NoDriver> {
        let mut verdicts = Vec::new();
        let mut lacking = Vec::new();
        for candidate in &self.vmms {
            let driver = &candidate.driver;
            let requested = wanted.vmm.is_none_or(|name| name == driver.name);
            let verdict = self.vmm(candidate);
            if !requested || verdict.is_err() {
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
        // If only one VMM works on this host, the error is about its storage or network.
        match <[NoDriver; 1]>::try_from(lacking) {
            Ok([one]) => Err(one),
            Err(_) => first("VMM", wanted.vmm, &verdicts)
                .and_then(|chosen| Err(NoDriver { what: "VMM", reasons: vec![chosen.why] })),
        }
    }

    /// The VMM that new VMs get. If no combination works here: the requested one, or the best one
    /// for this CPU, of which some part is missing.
    pub fn preferred(&self, wanted: Wanted<'_>) -> Option<&'static str> {
        let chosen = self.choose(wanted).ok().map(|plan| plan.vmm.name);
        let fits = |one: &&VmmCandidate| match chosen.as_deref().or(wanted.vmm) {
            Some(name) => one.driver.name == name,
            None => one.driver.abilities.kvm == Need::None || one.kvm.is_ok(),
        };
        self.vmms.iter().find(fits).map(|one| one.driver.name)
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
        let has_root = |of: &StorageAbilities| {
            wanted.root == RootContent::Changes || of.content == RootContent::Whole
        };
        let storage = self.storage.iter().map(|storage| {
            let verdict = match storage.abilities.root_disk {
                _ if !has_root(&storage.abilities) => {
                    Err("an image is built on a whole root disk".into())
                }
                kind if takes.sources.contains(&kind) => {
                    self.root_for(storage.abilities.root).and_then(|()| storage.verdict.clone())
                }
                SourceKind::File => Err(format!("{name} takes no files as disks")),
                SourceKind::Device => Err(format!("{name} takes no block devices as disks")),
            };
            (storage.name, verdict)
        });
        let networks = self.networks.iter().map(|network| {
            let requested = wanted.network == Some(network.name);
            let verdict = match network.abilities.nic {
                kind if takes.nics.contains(&kind) => self.network(vmm, network, requested),
                NicKind::Tap => Err(format!("{name} takes no TAP")),
                NicKind::User => Err(format!("{name} has no network of its own")),
            };
            (network.name, verdict)
        });
        let requested = wanted.storage.filter(|name| {
            let has_changes = |one: &Candidate<StorageAbilities>| {
                one.name == *name && one.abilities.content == RootContent::Changes
            };
            !(wanted.root == RootContent::Whole && self.storage.iter().any(has_changes))
        });
        let storage = first("storage", requested, &storage.collect::<Vec<_>>())?;
        let network = first("network", wanted.network, &networks.collect::<Vec<_>>())?;
        Ok((storage, network))
    }

    /// Without KVM, a network that needs root is chosen only if requested: such hosts are used for
    /// trials and tests, and their network is not changed.
    fn network(
        &self,
        vmm: &VmmCandidate,
        network: &Candidate<NetworkAbilities>,
        requested: bool,
    ) -> Result<String, String> {
        self.root_for(network.abilities.root)?;
        if network.abilities.root == Need::Required && vmm.kvm.is_err() && !requested {
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
            abilities: StorageAbilities { root, root_disk, content: content(name) },
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

    const AUTO: Wanted<'_> =
        Wanted { vmm: None, storage: None, network: None, root: RootContent::Changes };

    /// `devices` keeps the changes only.
    fn content(storage: &str) -> RootContent {
        if storage == "devices" { RootContent::Changes } else { RootContent::Whole }
    }

    #[test]
    fn a_build_gets_a_storage_with_the_whole_root_file_system() {
        let build = Wanted { root: RootContent::Whole, ..AUTO };
        let plan = host().choose(build).unwrap();
        assert_eq!(names(&plan), ["jailed", "files", "taps"]);
        assert!(plan.storage.why.contains("whole root disk"), "{}", plan.storage.why);
        let plan = host().choose(Wanted { storage: Some("devices"), ..build }).unwrap();
        assert_eq!(names(&plan), ["jailed", "files", "taps"], "the requested one cannot do it");
        let plan = host().choose(Wanted { storage: Some("files"), ..build }).unwrap();
        assert_eq!(plan.storage.why, "asked for in the configuration");
    }

    fn names(plan: &DriverPlan) -> [&str; 3] {
        [&plan.vmm, &plan.storage, &plan.network].map(|chosen| chosen.name.as_str())
    }

    #[test]
    fn the_first_of_each_kind_is_chosen_on_a_complete_host() {
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
    fn without_root_no_driver_that_needs_it_is_chosen() {
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
    fn without_kvm_a_network_that_needs_root_must_be_requested() {
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
    fn a_requested_driver_leads_to_a_vmm_that_supports_it() {
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
    fn the_preferred_vmm_is_the_chosen_one_or_lacks_the_least() {
        let no = || Err(String::from("no"));
        let preferred = |host: &Offers, vmm| host.preferred(Wanted { vmm, ..AUTO });
        let mut host = host();
        assert_eq!(preferred(&host, None), Some("jailed"));
        assert_eq!(preferred(&host, Some("free")), Some("free"));
        assert_eq!(preferred(&host, Some("xen")), None);
        host.vmms[0].driver.verdict = no();
        assert_eq!(preferred(&host, None), Some("free"));
        assert_eq!(preferred(&host, Some("jailed")), Some("jailed"), "refused, and asked for");
        // Neither works: with KVM the better one, without KVM the one that does not need it.
        host.vmms[1].driver.verdict = no();
        assert_eq!(preferred(&host, None), Some("jailed"));
        assert_eq!(preferred(&host, Some("free")), Some("free"));
        host.vmms.iter_mut().for_each(|vmm| vmm.kvm = Err("no flag".into()));
        assert_eq!(preferred(&host, None), Some("free"));
        // Without a storage for it, a working VMM is not chosen.
        let mut host = super::tests::host();
        host.storage.iter_mut().for_each(|storage| storage.verdict = no());
        assert_eq!(preferred(&host, None), Some("jailed"));
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

    /// For every combination of facts, the chosen drivers work together and on the host.
    #[test]
    fn the_choice_fits_the_host() {
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
