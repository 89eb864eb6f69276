//! The network of VMs: a bridge, a TAP and a lease for each, a filter.
//!
//! ```text
//! attach   lock → lease (file) → bridge → TAP (down) → forwarding → rules → TAP up
//! detach   lock → TAP → lease → rules from the leases that are left, or, after the last,
//!          rules, forwarding, idle TAPs and bridge gone
//! ```
//!
//! The leases are the truth, everything else is made from them, and each call brings all that is
//! shared to what they say: so whatever a killed one left half done, the next one finishes. A port
//! carries nothing before its rules are there: the TAP is taken up last, and what is not in the
//! filter's sets is dropped.

mod bridge;
mod docker;
mod findings;
mod forwarding;
mod in_use;
mod leases;
mod link;
mod lock;
mod netlink;
mod nft;
mod port;
mod resolved;
mod resolvers;
mod rules;
mod run;
mod state;
mod subnet;
mod sysctl;

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use banger_base::{Lease, VmId};
use ipnet::Ipv4Net;

use crate::error::RootError;
use crate::places::Places;
use crate::words::{Did, Nat};
pub use findings::{Finding, findings};
use forwarding::Docker;
use leases::{Held, Leases};
use link::{Link, Links};
use lock::Lock;
use nft::Nft;
pub use resolved::{route_dns, unroute_dns};
use state::{Look, Rules};
use subnet::GuestNetwork;

/// Everything at hand, the lock held.
struct Net {
    /// With the network that is in use.
    places: Places,
    subnet: Ipv4Net,
    lock: Lock,
    links: Links,
    nft: Nft,
    leases: Leases,
}

fn links() -> Result<Links, RootError> {
    Links::open().map_err(|error| RootError::system("talk to the kernel's routing", &error))
}

impl Net {
    fn lock(wanted: &Places) -> Result<Self, RootError> {
        let lock = Lock::take(&wanted.run)?;
        Self::under(lock, in_use::places(wanted))
    }

    fn under(lock: Lock, places: Places) -> Result<Self, RootError> {
        let subnet = subnet::checked(&places)?;
        bridge::name(&places)?;
        let leases = Leases::tidied(places.leases(), subnet)?;
        Ok(Self { places, subnet, lock, links: links()?, nft: Nft::open()?, leases })
    }

    /// With the wanted network, which no other is in the way of.
    fn lock_wanted(wanted: &Places) -> Result<Self, RootError> {
        let mut net = Self::lock(wanted)?;
        if !in_use::same(&net.places, wanted) {
            if !net.leases.is_empty() {
                return Err(in_use::refusal(&net.places, wanted));
            }
            // What was left behind of the one before.
            net.remove_shared()?;
            net = Self::under(net.lock, wanted.clone())?;
        }
        Ok(net)
    }

    fn rules(&self) -> Rules<'_> {
        Rules { places: &self.places, lock: &self.lock, links: &self.links, nft: &self.nft }
    }

    /// Brings what is shared to what the leases say.
    fn settle(&self, bridge: &Link, look: Look) -> Result<Did, RootError> {
        let forwarding = self.settle_forwarding()?;
        let rules = self.rules().settle(&self.leases, bridge, look)?;
        Ok(either(forwarding, rules))
    }

    /// The same for one who leaves: that the bridge is gone, or the rules were mended, is not what
    /// was asked.
    fn settle_if_there(&self) -> Result<Did, RootError> {
        if let Some(bridge) = bridge::ours(&self.places, &self.links)? {
            self.settle(&bridge, Look::Quickly)?;
        }
        Ok(Did::WasAbsent)
    }

    fn settle_forwarding(&self) -> Result<Did, RootError> {
        let docker = match self.rules().docker_exists() {
            Ok(true) => Docker::There,
            Ok(false) | Err(_) => Docker::Absent,
        };
        if self.leases.any_nat() {
            forwarding::on(&self.places, docker)
        } else {
            forwarding::back(&self.places, docker)
        }
    }

    /// Removes all that is shared, and goes on past what fails.
    fn remove_shared(&self) -> Result<Did, RootError> {
        let bridge = bridge::ours(&self.places, &self.links);
        let index = bridge.as_ref().ok().and_then(Option::as_ref).map(|link| link.index);
        // The bridge stays as long as a TAP does, to be found with it.
        let removed = all([
            port::remove_all(&self.links, index)
                .and_then(|ports| Ok(either(ports, bridge::remove(&self.places, &self.links)?))),
            self.rules().remove(),
            self.settle_forwarding(),
            resolved::forget(&self.places).map(|()| Did::WasAbsent),
        ])?;
        // Last: who comes back for what could not be removed has to know its name.
        in_use::forget(&self.places)?;
        Ok(removed)
    }

    fn answer(&self, address: Ipv4Addr, nat: Nat) -> Lease {
        answer(&self.links, self.subnet, address, nat)
    }
}

/// Removes a record; one that is gone is as good as removed.
fn forget(record: &Path) -> Result<(), RootError> {
    match fs::remove_file(record) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RootError::on_path("remove", record, &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What changed, if either did.
fn either(one: Did, other: Did) -> Did {
    match one {
        Did::Made | Did::Removed => one,
        Did::WasThere | Did::WasAbsent => other,
    }
}

/// All results in one: what changed if something did, and every failure.
fn all(results: impl IntoIterator<Item = Result<Did, RootError>>) -> Result<Did, RootError> {
    let (mut did, mut failure) = (Did::WasAbsent, None);
    for result in results {
        match result {
            Ok(one) => did = either(did, one),
            Err(error) => failure = Some(port::join(failure, error)),
        }
    }
    failure.map_or(Ok(did), Err)
}

fn answer(links: &Links, subnet: Ipv4Net, address: Ipv4Addr, nat: Nat) -> Lease {
    let routes = links.routes().unwrap_or_default();
    let local = |server| routes.iter().any(|route| route.is_own_address(server));
    Lease {
        address,
        prefix: subnet.prefix_len(),
        gateway: subnet.gateway(),
        dns: match nat {
            Nat::On => resolvers::upstream(local),
            // It reaches none.
            Nat::Off => Vec::new(),
        },
    }
}

/// Gives a VM its place on the bridge: an address and a TAP that its VMM's uid may open. The first
/// makes the bridge and the rules. Repeated it changes nothing but what is asked anew (`nat`) or
/// lacks. After a failure [`detach`] removes what was begun.
///
/// # Errors
/// `HostNotReady`: the network overlaps with another, is full, or the host lacks nftables or TAPs;
/// `Refused`: the VM is another user's; the kernel's.
pub fn attach(places: &Places, owner: u32, vm: &VmId, nat: Nat) -> Result<(Did, Lease), RootError> {
    let mut net = Net::lock_wanted(places)?;
    if bridge::find(places, &net.links)?.is_none() {
        bridge::refuse_overlap(net.subnet, None, &net.links)?;
    }
    in_use::note(&net.places)?;
    let held = Held { owner, vm: vm.clone(), nat };
    let (address, leased) = net.leases.take(held, net.subnet)?;
    let (bridge, bridged) = bridge::ensure(places, net.subnet, &net.links)?;
    let (tap, tapped) = port::ensure(&net.links, vm, &bridge, places.tap_pool)?;
    net.settle(&bridge, Look::Quickly)?;
    if tapped == Did::Made || !tap.up {
        port::up(&net.links, &tap)?;
    }
    let did = [bridged, tapped].into_iter().fold(leased, either);
    Ok((did, net.answer(address, nat)))
}

/// Takes it from the bridge again; the last one takes the bridge, the rules, the idle TAPs and the
/// host's forwarding, if it was set here, along.
///
/// # Errors
/// All that failed; the rest is done.
pub fn detach(places: &Places, vm: &VmId) -> Result<Did, RootError> {
    let mut net = Net::lock(places)?;
    let tap = port::remove(&net.links, vm);
    // Without its lease nobody would come back for a TAP that could not be removed.
    let lease = match &tap {
        Ok(_) => net.leases.end(vm),
        Err(_) => Ok(Did::WasThere),
    };
    let shared = if net.leases.is_empty() { net.remove_shared() } else { net.settle_if_there() };
    all([tap, lease, shared])
}

/// Whether VMs can be given this network at all.
///
/// # Errors
/// `BadRequest`: why not.
pub fn check(places: &Places) -> Result<(), RootError> {
    subnet::checked(places)?;
    bridge::name(places).map(|_| ())
}

/// What a VM has.
///
/// # Errors
/// Those of reading.
pub fn lease(places: &Places, vm: &VmId) -> Result<Option<Lease>, RootError> {
    let subnet = subnet::checked(&in_use::places(places))?;
    let leases = Leases::read(places.leases(), subnet)?;
    let Some((address, held)) = leases.of(vm) else { return Ok(None) };
    Ok(Some(answer(&links()?, subnet, address, held.nat)))
}

/// Puts back what somebody flushed, changed or removed: rules, forwarding, the bridge, its ports.
/// Cheap when nothing is wrong. `Made`: something was.
///
/// # Errors
/// Those of [`attach`].
pub fn ensure(places: &Places) -> Result<Did, RootError> {
    let net = Net::lock(places)?;
    if net.leases.is_empty() {
        return net.remove_shared();
    }
    let (bridge, mut did) = bridge::ensure(&net.places, net.subnet, &net.links)?;
    let failed = |error| RootError::system("list interfaces and routes", &error);
    if !bridge::has_address(&bridge, net.subnet, &net.links.routes().map_err(failed)?) {
        bridge::finish(&bridge, net.subnet, &net.links)?;
        did = Did::Made;
    }
    did = either(net.settle(&bridge, Look::Closely)?, did);
    net.rules().look()?;
    let links = net.links.all().map_err(failed)?;
    for (_, held) in net.leases.iter() {
        let tap = held.vm.tap_name();
        let found = links.iter().find(|link| link.name == tap && link.kind == "tun");
        let Some(link) = found else { continue };
        did = either(port::mend(&net.links, link, &held.vm, &bridge)?, did);
        if !link.up {
            port::up(&net.links, link)?;
            did = Did::Made;
        }
    }
    Ok(did)
}

/// Refills the pool of idle TAPs. Called outside of starts.
///
/// # Errors
/// The kernel's.
pub fn refill(places: &Places) -> Result<Did, RootError> {
    let mut did = Did::WasThere;
    for n in 0..places.tap_pool.min(port::MAX_POOL) {
        // Let go between two, so that nobody waits for more than one.
        let net = Net::lock(places)?;
        let bridge = bridge::ours(&net.places, &net.links)?;
        let Some(bridge) = bridge.filter(|_| !net.leases.is_empty()) else {
            return Ok(Did::WasAbsent);
        };
        did = either(port::make_idle(&net.links, n, &bridge)?, did);
    }
    Net::lock(places)?.rules().look()?;
    Ok(did)
}
