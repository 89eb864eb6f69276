//! TAPs: one for each VM, and a pool of idle ones that are renamed for a VM.

use std::io;
use std::os::fd::OwnedFd;

use banger_base::{HostHint, VmId};
use banger_sys::tap::Tap;

use super::link::{Link, Links};
use super::sysctl;
use crate::error::{Kind, RootError};
use crate::protocol::Did;

/// Maximum size of the pool.
pub const MAX_POOL: u32 = 64;
/// Owner of idle TAPs: root. A TAP without an owner can be opened by every user.
const NOBODY: u32 = 0;

/// Name of an idle TAP.
pub fn pool_name(n: u32) -> String {
    format!("fcp-{n}")
}

/// Whether this is the name of an idle TAP.
pub fn is_pool_name(name: &str) -> bool {
    name.strip_prefix("fcp-").is_some_and(|n| n.parse::<u32>().is_ok())
}

fn failed<'a>(doing: &'a str, name: &'a str) -> impl Fn(io::Error) -> RootError + 'a {
    move |error| RootError::system(format_args!("{doing} the TAP `{name}`"), &error)
}

/// Creates a TAP as a port of the bridge, in state down.
fn make(links: &Links, name: &str, owner: u32, bridge: &Link) -> Result<Link, RootError> {
    Tap::open(name).and_then(|tap| tap.keep_for(owner)).map_err(|error| {
        let failure = failed("make", name)(io::Error::from(error.kind()));
        let failure = failure.with_hint(HostHint::load("tun"));
        RootError { causes: vec![error.to_string()], ..failure }
    })?;
    sysctl::no_ipv6(name)?;
    let vanished = || RootError::new(Kind::Internal, format!("the TAP `{name}` vanished"));
    let link = links.get(name).map_err(failed("find", name))?.ok_or_else(vanished)?;
    links.make_port(link.index, bridge.index).map_err(failed("attach", name))?;
    Ok(link)
}

/// Renames an idle TAP and gives it this owner.
fn rename_idle(
    links: &Links,
    name: &str,
    owner: u32,
    (bridge, pool): (&Link, u32),
) -> Option<Link> {
    let idle = |n| links.get(&pool_name(n)).ok().flatten();
    let ready = |link: &Link| {
        link.kind == "tun" && link.isolated && link.master == Some(bridge.index) && !link.up
    };
    let link = (0..pool.min(MAX_POOL)).filter_map(idle).find(ready)?;
    // If any step fails, the caller creates a new TAP.
    Tap::open(&link.name).and_then(|tap| tap.keep_for(owner)).ok()?;
    links.rename(link.index, name).ok()?;
    Some(link)
}

/// Creates the VM's TAP, or repairs it. A new TAP is in state down.
///
/// # Errors
/// `HostNotReady`: another kind of interface has that name. `Busy`: the TAP is open and belongs to
/// another user. Netlink errors.
pub fn ensure(
    links: &Links,
    vm: &VmId,
    bridge: &Link,
    pool: u32,
) -> Result<(Link, Did), RootError> {
    let name = vm.tap_name();
    let (link, did) = match links.get(&name).map_err(failed("find", &name))? {
        Some(link) if link.kind != "tun" => {
            let message = format!("there is an interface `{name}` that is not a TAP");
            return Err(RootError::new(Kind::HostNotReady, message)
                .with_hint(HostHint::DeleteInterfaces { names: vec![name] }));
        }
        Some(link) => {
            let mended = repair(links, &link, vm, bridge)?;
            (link, mended)
        }
        None => match rename_idle(links, &name, vm.uid(), (bridge, pool)) {
            Some(link) => (link, Did::Made),
            None => (make(links, &name, vm.uid(), bridge)?, Did::Made),
        },
    };
    links.known(link.index, vm.mac()).map_err(failed("add the bridge entry of", &name))?;
    Ok((link, did))
}

/// Repairs an existing TAP without interrupting a VM that uses it.
///
/// # Errors
/// A netlink request or the TAP driver fails.
pub fn repair(links: &Links, link: &Link, vm: &VmId, bridge: &Link) -> Result<Did, RootError> {
    let mut did = Did::WasThere;
    if link.owner != Some(vm.uid()) {
        Tap::open(&link.name)
            .and_then(|tap| tap.keep_for(vm.uid()))
            .map_err(failed("change the owner of", &link.name))?;
        did = Did::Made;
    }
    if link.master != Some(bridge.index) || !link.isolated {
        sysctl::no_ipv6(&link.name)?;
        links.make_port(link.index, bridge.index).map_err(failed("attach", &link.name))?;
        links.known(link.index, vm.mac()).map_err(failed("add the bridge entry of", &link.name))?;
        did = Did::Made;
    }
    Ok(did)
}

/// Opens the VM's TAP, which must be a port of the bridge: TUNSETIFF would make one that is not
/// there, without a filter.
///
/// # Errors
/// `NotFound`: there is none. `Busy`: it is open already. The kernel's.
pub fn open(links: &Links, vm: &VmId, bridge: Option<u32>) -> Result<OwnedFd, RootError> {
    let name = vm.tap_name();
    let found = links.get(&name).map_err(failed("look for", &name))?;
    let ours = |link: &Link| {
        link.kind == "tun"
            && link.owner == Some(vm.uid())
            && bridge.is_some()
            && link.master == bridge
    };
    if !found.as_ref().is_some_and(ours) {
        let text = format!("the VM {vm} has no TAP `{name}` on the bridge");
        return Err(RootError::new(Kind::NotFound, text));
    }
    Tap::open(&name).map(|tap| tap.into_file().into()).map_err(failed("open", &name))
}

/// Sets a TAP to state up.
///
/// # Errors
/// Netlink errors.
pub fn up(links: &Links, link: &Link) -> Result<(), RootError> {
    links.up(link.index).map_err(failed("take up", &link.name))
}

/// Removes the VM's TAP.
///
/// # Errors
/// Netlink errors.
pub fn remove(links: &Links, vm: &VmId) -> Result<Did, RootError> {
    let name = vm.tap_name();
    match links.get(&name).map_err(failed("find", &name))? {
        Some(link) if link.kind == "tun" => {
            links.delete(link.index).map_err(failed("remove", &name))
        }
        _ => Ok(Did::WasAbsent),
    }
}

/// Removes all TAPs that are ports of the bridge, and idle TAPs that are not.
///
/// # Errors
/// Netlink errors, joined.
pub fn remove_all(links: &Links, bridge: Option<u32>) -> Result<Did, RootError> {
    let all = links.all().map_err(|error| RootError::system("list interfaces", &error))?;
    let ours = |link: &&Link| {
        let vms = link.name.starts_with("fc-") && bridge.is_some() && link.master == bridge;
        link.kind == "tun" && (vms || is_pool_name(&link.name))
    };
    let mut did = Did::WasAbsent;
    let mut failure: Option<RootError> = None;
    for link in all.iter().filter(ours) {
        match links.delete(link.index).map_err(failed("remove", &link.name)) {
            Ok(Did::Removed) => did = Did::Removed,
            Ok(_) => {}
            Err(error) => failure = Some(join(failure, error)),
        }
    }
    failure.map_or(Ok(did), Err)
}

/// Joins two errors.
pub fn join(first: Option<RootError>, error: RootError) -> RootError {
    match first {
        Some(first) => first.and(error),
        None => error,
    }
}

/// Creates idle TAP number `n` if it does not exist.
///
/// # Errors
/// Netlink errors.
pub fn make_idle(links: &Links, n: u32, bridge: &Link) -> Result<Did, RootError> {
    let name = pool_name(n);
    match links.get(&name).map_err(failed("find", &name))? {
        Some(link) if link.kind != "tun" => Ok(Did::WasAbsent),
        Some(link) if link.isolated && link.master == Some(bridge.index) => Ok(Did::WasThere),
        Some(link) => {
            sysctl::no_ipv6(&name)?;
            links.make_port(link.index, bridge.index).map_err(failed("attach", &name))?;
            Ok(Did::Made)
        }
        None => make(links, &name, NOBODY, bridge).map(|_| Did::Made),
    }
}
