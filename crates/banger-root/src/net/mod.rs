//! The network of VMs: a bridge, and for each VM a TAP, a lease and filter rules.
//!
//! ```text
//! attach   lock → lease (file) → bridge → TAP (down) → forwarding → rules → TAP up
//! detach   lock → TAP → lease → rules from the leases that are left, or, after the last,
//!          rules, forwarding, idle TAPs and bridge gone
//! ```
//!
//! The lease files are the source of truth. Every call brings the shared objects into the state
//! that the leases require, so the next call completes what a killed process began. A port forwards
//! nothing before its rules are loaded: the TAP is taken up last, and the filter drops packets that
//! no set element allows.

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
use std::os::fd::OwnedFd;
use std::path::Path;

use banger_base::{Lease, VmId};
use ipnet::Ipv4Net;

use crate::error::{Kind, RootError};
use crate::places::Places;
use crate::protocol::{Did, Nat};
pub use findings::findings;
use forwarding::Docker;
use leases::{LeaseFile, Leases};
use link::{Link, Links};
use lock::Lock;
use nft::Nft;
pub use resolved::{route_dns, unroute_dns};
use state::{Check, Rules};
use subnet::GuestNetwork;

/// The state of the network, with the lock held.
struct Net {
    /// Folders and names, with the network in use.
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

    /// With the wanted network; refused while VMs use another.
    fn lock_wanted(wanted: &Places) -> Result<Self, RootError> {
        let mut net = Self::lock(wanted)?;
        if !in_use::same(&net.places, wanted) {
            if !net.leases.is_empty() {
                return Err(in_use::refusal(&net.places, wanted));
            }
            // Left by VMs of the previous network.
            net.remove_shared()?;
            net = Self::under(net.lock, wanted.clone())?;
        }
        Ok(net)
    }

    fn rules(&self) -> Rules<'_> {
        Rules { places: &self.places, lock: &self.lock, links: &self.links, nft: &self.nft }
    }

    /// Brings the shared objects into the state that the leases require.
    fn settle(&self, bridge: &Link, look: Check) -> Result<Did, RootError> {
        let forwarding = self.settle_forwarding()?;
        let rules = self.rules().settle(&self.leases, bridge, look)?;
        Ok(either(forwarding, rules))
    }

    /// As `settle`, for a detach: its result does not report changes of shared objects.
    fn settle_if_there(&self) -> Result<Did, RootError> {
        if let Some(bridge) = bridge::ours(&self.places, &self.links)? {
            self.settle(&bridge, Check::Generation)?;
        }
        Ok(Did::WasAbsent)
    }

    fn settle_forwarding(&self) -> Result<Did, RootError> {
        let docker = match self.rules().docker_exists() {
            Ok(true) => Docker::Present,
            Ok(false) | Err(_) => Docker::Absent,
        };
        if self.leases.any_nat() {
            forwarding::on(&self.places, docker)
        } else {
            forwarding::restore(&self.places, docker)
        }
    }

    /// Removes the shared objects; continues after errors.
    fn remove_shared(&self) -> Result<Did, RootError> {
        let bridge = bridge::ours(&self.places, &self.links);
        let index = bridge.as_ref().ok().and_then(Option::as_ref).map(|link| link.index);
        // The bridge stays while it has a TAP, which is found through it.
        let removed = all([
            port::remove_all(&self.links, index)
                .and_then(|ports| Ok(either(ports, bridge::remove(&self.places, &self.links)?))),
            self.rules().remove(),
            self.settle_forwarding(),
            resolved::forget(&self.places).map(|()| Did::WasAbsent),
        ])?;
        // Last: a retry needs the name of the bridge.
        in_use::forget(&self.places)?;
        Ok(removed)
    }

    fn answer(&self, address: Ipv4Addr, nat: Nat) -> Lease {
        answer(&self.links, self.subnet, address, nat)
    }
}

/// Removes a record. Succeeds if it does not exist.
fn forget(record: &Path) -> Result<(), RootError> {
    match fs::remove_file(record) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RootError::on_path("remove", record, &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The change, if either step made one.
fn either(one: Did, other: Did) -> Did {
    match one {
        Did::Made | Did::Removed => one,
        Did::WasThere | Did::WasAbsent => other,
    }
}

/// Combines results: the change, if a step made one, and all errors.
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
            // No resolvers for a VM that cannot reach any.
            Nat::Off => Vec::new(),
        },
    }
}

/// Attaches a VM to the bridge: a lease and a TAP that the VMM's uid may open. The first VM creates
/// bridge and rules. Idempotent, except that it updates `nat` and repairs missing objects. After a
/// failure [`detach`] removes the objects created so far.
///
/// # Errors
/// `HostNotReady`: the subnet overlaps with another or is full, or the host lacks nftables or TAPs;
/// `Refused`: the VM belongs to another user; netlink errors.
pub fn attach(places: &Places, owner: u32, vm: &VmId, nat: Nat) -> Result<(Did, Lease), RootError> {
    let mut net = Net::lock_wanted(places)?;
    if bridge::find(places, &net.links)?.is_none() {
        bridge::refuse_overlap(net.subnet, None, &net.links)?;
    }
    in_use::record(&net.places)?;
    let held = LeaseFile { owner, vm: vm.clone(), nat };
    let (address, leased) = net.leases.take(held, net.subnet)?;
    let (bridge, bridged) = bridge::ensure(places, net.subnet, &net.links)?;
    let (tap, tapped) = port::ensure(&net.links, vm, &bridge, places.tap_pool)?;
    net.settle(&bridge, Check::Generation)?;
    if tapped == Did::Made || !tap.up {
        port::up(&net.links, &tap)?;
    }
    let did = [bridged, tapped].into_iter().fold(leased, either);
    Ok((did, net.answer(address, nat)))
}

/// Detaches a VM from the bridge. The last VM's detach also removes bridge, rules and idle TAPs,
/// and restores IP forwarding if banger had enabled it.
///
/// # Errors
/// All errors; every other step was done.
pub fn detach(places: &Places, vm: &VmId) -> Result<Did, RootError> {
    let mut net = Net::lock(places)?;
    let tap = port::remove(&net.links, vm);
    // The lease is removed after the TAP: without a lease nothing would retry the removal of the
    // TAP.
    let lease = match &tap {
        Ok(_) => net.leases.end(vm),
        Err(_) => Ok(Did::WasThere),
    };
    let shared = if net.leases.is_empty() { net.remove_shared() } else { net.settle_if_there() };
    all([tap, lease, shared])
}

/// Opens the TAP of a VM that is on the bridge, for a VMM that gets it as a descriptor.
///
/// # Errors
/// `NotFound`: the VM is not on the bridge. `Busy`: the TAP is open already. The kernel's.
pub fn open_tap(places: &Places, vm: &VmId) -> Result<OwnedFd, RootError> {
    let net = Net::lock(places)?;
    if net.leases.of(vm).is_none() {
        return Err(RootError::new(Kind::NotFound, format!("the VM {vm} is not on the bridge")));
    }
    let bridge = bridge::ours(&net.places, &net.links)?;
    port::open(&net.links, vm, bridge.map(|bridge| bridge.index))
}

/// Checks whether the configured network is usable for VMs.
///
/// # Errors
/// `BadRequest` with the reason.
pub fn check(places: &Places) -> Result<(), RootError> {
    subnet::checked(places)?;
    bridge::name(places).map(|_| ())
}

/// The lease of a VM.
///
/// # Errors
/// Errors of reading the leases.
pub fn lease(places: &Places, vm: &VmId) -> Result<Option<Lease>, RootError> {
    let subnet = subnet::checked(&in_use::places(places))?;
    let leases = Leases::read(places.leases(), subnet)?;
    let Some((address, held)) = leases.of(vm) else { return Ok(None) };
    Ok(Some(answer(&links()?, subnet, address, held.nat)))
}

/// Names the TAP and the lease of a VM, those that exist.
///
/// # Errors
/// Errors of reading the leases; netlink errors.
pub fn objects(places: &Places, vm: &VmId) -> Result<Vec<String>, RootError> {
    let subnet = subnet::checked(&in_use::places(places))?;
    let leases = Leases::read(places.leases(), subnet)?;
    let name = vm.tap_name();
    let failed = |error| RootError::system(format_args!("find `{name}`"), &error);
    let tap = links()?.get(&name).map_err(failed)?;
    let tap = tap.map(|tap| format!("TAP `{}`", tap.name));
    let lease = leases.of(vm).map(|(address, _)| format!("lease of {address}"));
    Ok(tap.into_iter().chain(lease).collect())
}

/// Restores shared objects that another program changed or removed: rules, forwarding, bridge,
/// ports. Cheap if nothing changed. Returns `Made` if it restored something.
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
    did = either(net.settle(&bridge, Check::Contents)?, did);
    net.rules().look()?;
    let links = net.links.all().map_err(failed)?;
    for (_, held) in net.leases.iter() {
        let tap = held.vm.tap_name();
        let found = links.iter().find(|link| link.name == tap && link.kind == "tun");
        let Some(link) = found else { continue };
        did = either(port::repair(&net.links, link, &held.vm, &bridge)?, did);
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
/// Netlink errors.
pub fn refill(places: &Places) -> Result<Did, RootError> {
    let mut did = Did::WasThere;
    for n in 0..places.tap_pool.min(port::MAX_POOL) {
        // The lock is released between two TAPs, so that a start waits for one at most.
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
