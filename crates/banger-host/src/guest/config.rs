//! Builds the configuration that a booting guest receives.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use banger_agent_proto::boot::{
    DiskRef, GuestConfig, Hello, NetworkConfig, Program as GuestProgram, ProgramStart, RootConfig,
};
use banger_agent_proto::{ByteString, PROTOCOL_MAX, PROTOCOL_MIN, negotiate};
use banger_api::{ApiError, ErrorCode};
use banger_engine::devices::{Devices, DriveKey, DriveRole, Nic};
use banger_engine::plan::{RunPlan, VmPlan};
use banger_engine::program::Program;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::boot::Failure;
use crate::capabilities::GuestPart;
use crate::failure::of;
use crate::handover::Handover;

/// An encoded configuration for a boot.
pub struct ReadyConfig {
    /// One line of JSON with its newline.
    pub line: Vec<u8>,
    /// Boot id from the hello.
    pub boot_id: String,
    /// What is handed over with it.
    pub handover: Handover,
}

/// Bytes of entropy for a guest.
const ENTROPY: usize = 256;

/// Builds the configuration for the guest that sent this hello.
///
/// # Errors
/// No common protocol version; a file of the VM cannot be read.
pub fn build(
    (vm, start): (&VmPlan, ProgramStart),
    devices: &Devices,
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
    let disk = |role: DriveRole| {
        disk(devices, role).ok_or_else(|| {
            let text = format!("`{}` has no {} disk", vm.name, role.as_str());
            ApiError::new(ErrorCode::Internal, text)
        })
    };
    // With an image among the drives, the root disk is a layer over it.
    let root = match devices.place(DriveRole::Image) {
        Some(_) => {
            RootConfig { disk: disk(DriveRole::Image)?, layer: Some(disk(DriveRole::Root)?) }
        }
        None => RootConfig { disk: disk(DriveRole::Root)?, layer: None },
    };
    let mut config = GuestConfig {
        protocol,
        hostname: vm.name.to_string(),
        machine_id: vm.machine_id.clone(),
        root,
        work: None,
        modules: Some(disk(DriveRole::Modules)?),
        network: network(&devices.nic),
        files: Vec::new(),
        certificates: Vec::new(),
        env: variables(vm.program.as_ref()),
        clock_unix_ms: 0,
        entropy: BASE64.encode(entropy),
        program: vm.program.as_ref().map(|program| guest_program(program, start)),
    };
    let mut handover = Handover::default();
    for part in parts {
        handover.extend(part(vm, devices, &mut config)?);
    }
    // Last: the guest takes it for the time at which the configuration was sent.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    config.clock_unix_ms = now.as_millis() as u64;
    let mut line = serde_json::to_vec(&config)
        .map_err(|error| of("cannot write a guest's configuration", &error.into()))?;
    line.push(b'\n');
    Ok(ReadyConfig { line, boot_id: hello.boot_id.clone(), handover })
}

/// When the machine's program starts in a run.
pub fn program_start(run: &RunPlan) -> ProgramStart {
    if run.attach { ProgramStart::WithClient } else { ProgramStart::AfterBoot }
}

fn guest_program(program: &Program, start: ProgramStart) -> GuestProgram {
    GuestProgram {
        argv: program.argv.clone(),
        env: program.env.clone(),
        cwd: program.cwd.clone(),
        user: program.user.clone(),
        stop_signal: program.stop_signal,
        start,
    }
}

/// The variables of the program, which other commands in the machine also have, as in a container.
/// Those that are not text are the program's only.
fn variables(program: Option<&Program>) -> BTreeMap<String, String> {
    let text = |variable: &ByteString| {
        let (name, value) = std::str::from_utf8(variable.as_bytes()).ok()?.split_once('=')?;
        (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    };
    program.iter().flat_map(|program| &program.env).filter_map(text).collect()
}

/// Identification of a disk in the guest; `None` if the VM lacks it.
pub fn disk(devices: &Devices, role: DriveRole) -> Option<DiskRef> {
    let place = devices.place(role)?;
    match devices.drive_key {
        DriveKey::Order => u8::try_from(place).ok().map(DiskRef::Index),
        DriveKey::Serial => Some(DiskRef::Serial(role.as_str().into())),
    }
}

fn network(nic: &Nic) -> Option<NetworkConfig> {
    let lease = nic.address()?;
    Some(NetworkConfig {
        mac: nic.mac().to_string(),
        addresses: vec![format!("{}/{}", lease.address, lease.prefix)],
        gateway: Some(lease.gateway.to_string()),
        dns: lease.dns.iter().map(ToString::to_string).collect(),
        search: Vec::new(),
        mtu: None,
    })
}

#[cfg(test)]
mod tests {
    use banger_api::OpId;
    use banger_engine::devices::Drive;

    use super::*;
    use crate::testing::{devices, plan, spec, tap};

    fn built(devices: &Devices) -> GuestConfig {
        let hello = Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            build: "test".into(),
            boot_id: "b".into(),
            kernel_release: "test".into(),
            uptime_ms: 0,
        };
        let vm = plan("0123456789ab", "web");
        let run = RunPlan::new(OpId::from_entropy(1), "host".into(), spec(), Vec::new());
        let ready = build((&vm, program_start(&run)), devices, &hello, &[]).unwrap();
        serde_json::from_slice(&ready.line).unwrap()
    }

    #[test]
    fn disks_are_identified_as_the_vmm_presents_them() {
        let vm = plan("0123456789ab", "web");
        let mut devices = devices(&vm, &spec());
        let config = built(&devices);
        assert_eq!(config.root.disk, DiskRef::Serial("root".into()));
        assert_eq!(config.root.layer, None);
        devices.drive_key = DriveKey::Order;
        devices.drives.insert(2, Drive::file(DriveRole::Image, "/images/root.ext4"));
        let config = built(&devices);
        assert_eq!(config.root.disk, DiskRef::Index(2));
        assert_eq!(config.root.layer, Some(DiskRef::Index(0)));
        assert_eq!(config.modules, Some(DiskRef::Index(3)));
    }

    #[test]
    fn the_network_is_that_of_the_nic() {
        let vm = plan("0123456789ab", "web");
        let mut devices = devices(&vm, &spec());
        let network = built(&devices).network.unwrap();
        assert_eq!(network.addresses, ["10.0.2.15/24"]);
        assert_eq!(
            (network.gateway.as_deref(), &network.dns[0][..]),
            (Some("10.0.2.2"), "10.0.2.3")
        );
        devices.nic = tap(&vm);
        let network = built(&devices).network.unwrap();
        assert_eq!(network.addresses, ["172.16.0.7/24"]);
        assert_eq!(network.mac, vm.id.mac().to_string());
        devices.nic = Nic::Tap { name: "t".into(), mac: vm.id.mac(), lease: None };
        assert_eq!(built(&devices).network, None);
    }
}
