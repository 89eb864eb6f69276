//! Builds the configuration that a booting guest receives.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use banger_agent_proto::boot::{DiskRef, GuestConfig, Hello, NetworkConfig, RootConfig};
use banger_agent_proto::{PROTOCOL_MAX, PROTOCOL_MIN, negotiate};
use banger_api::ApiError;
use banger_engine::plan::{Lease, VmPlan};
use banger_root::protocol::Role;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::boot::Failure;
use crate::capabilities::GuestPart;
use crate::failure::of;
use crate::vmm::firecracker::config as firecracker;

/// A configuration as it goes over the wire, and the boot it is for.
pub struct ReadyConfig {
    /// One line of JSON, newline included.
    pub line: Vec<u8>,
    /// Boot id from the hello.
    pub boot_id: String,
}

/// Bytes of entropy that a guest gets.
const ENTROPY: usize = 256;

/// Builds the configuration for the guest that said this hello.
///
/// # Errors
/// No common protocol, or a file of ours that cannot be read.
pub fn build(
    vm: &VmPlan,
    lease: Option<&Lease>,
    hello: &Hello,
    parts: &[GuestPart],
) -> Result<ReadyConfig, ApiError> {
    let theirs = (hello.protocol_min, hello.protocol_max);
    let protocol = negotiate((PROTOCOL_MIN, PROTOCOL_MAX), theirs)
        .map_err(|mismatch| Failure::Protocol(mismatch).about(vm))?;
    if hello.boot_id.len() > 64 || !hello.boot_id.is_ascii() {
        return Err(Failure::Malformed.about(vm));
    }
    let mut entropy = vec![0; ENTROPY];
    getrandom::fill(&mut entropy).map_err(|error| {
        of("cannot get random numbers for a guest", &std::io::Error::other(error.to_string()))
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let disk = |role| disk(vm, role);
    let root = match vm.drivers.storage.name.as_str() {
        "overlay" => RootConfig { disk: disk(Role::Image), layer: Some(disk(Role::Root)) },
        _ => RootConfig { disk: disk(Role::Root), layer: None },
    };
    let mut config = GuestConfig {
        protocol,
        hostname: vm.name.to_string(),
        machine_id: vm.machine_id.clone(),
        root,
        work: None,
        modules: Some(disk(Role::Modules)),
        network: network(vm, lease),
        files: Vec::new(),
        env: BTreeMap::new(),
        clock_unix_ms: now.as_millis() as u64,
        entropy: BASE64.encode(entropy),
        entrypoint: Vec::new(),
    };
    for part in parts {
        part(vm, &mut config)?;
    }
    let mut line = serde_json::to_vec(&config)
        .map_err(|error| of("cannot write a guest's configuration", &error.into()))?;
    line.push(b'\n');
    Ok(ReadyConfig { line, boot_id: hello.boot_id.clone() })
}

/// How a guest tells its disks apart: by the serial numbers that QEMU gives them, by their order
/// under Firecracker.
pub fn disk(vm: &VmPlan, role: Role) -> DiskRef {
    match vm.drivers.vmm.name.as_str() {
        "firecracker" => DiskRef::Index(firecracker::index(vm, role).unwrap_or_default()),
        _ => DiskRef::Serial(role.as_str().into()),
    }
}

fn network(vm: &VmPlan, lease: Option<&Lease>) -> Option<NetworkConfig> {
    match (vm.drivers.network.name.as_str(), lease) {
        ("user", _) => Some(user_network(vm)),
        (_, Some(lease)) => Some(NetworkConfig {
            mac: vm.id.mac().to_string(),
            addresses: vec![format!("{}/{}", lease.address, lease.prefix)],
            gateway: Some(lease.gateway.to_string()),
            dns: lease.dns.iter().map(ToString::to_string).collect(),
            search: Vec::new(),
            mtu: None,
        }),
        (_, None) => None,
    }
}

fn user_network(vm: &VmPlan) -> NetworkConfig {
    use crate::network;
    NetworkConfig {
        mac: vm.id.mac().to_string(),
        addresses: vec![network::GUEST_ADDRESS.into()],
        gateway: Some(network::GATEWAY.into()),
        dns: vec![network::RESOLVER.into()],
        search: Vec::new(),
        mtu: None,
    }
}
