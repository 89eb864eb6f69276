//! Requests and answers of the helper: one JSON object in each direction, descriptors beside it.

pub use banger_base::DriveRole as Role;
use banger_base::{ByteString, Lease, ProcRef, RunFacts, ShimStatus, VmId};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Hints;

/// The change that a request made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Did {
    /// It created the object.
    Made,
    /// The object existed already.
    WasThere,
    /// It removed the object.
    Removed,
    /// The object did not exist.
    WasAbsent,
}

/// Whether a guest can reach networks outside of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nat {
    /// It can.
    On,
    /// It cannot.
    Off,
}

/// A request. It identifies a VM by its id, and the requesting user must own the VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Returns the build id of the helper.
    #[serde(deserialize_with = "nothing_else")]
    Hello,
    /// Creates root's folder of a VM; from then on the requesting user owns the VM.
    Make {
        /// The VM.
        vm: VmId,
    },
    /// Records the state folder of the daemon that a VM belongs to.
    SetHome {
        /// The VM.
        vm: VmId,
        /// The folder. Only compared, never opened.
        home: ByteString,
    },
    /// Removes that folder.
    Remove {
        /// The VM.
        vm: VmId,
    },
    /// Attaches a VM to the bridge.
    NetAttach {
        /// The VM.
        vm: VmId,
        /// Whether the guest can reach networks outside of the host.
        nat: Nat,
    },
    /// Detaches a VM from the bridge.
    NetDetach {
        /// The VM.
        vm: VmId,
    },
    /// Opens the VM's TAP. Answers with its descriptor.
    TapOpen {
        /// The VM.
        vm: VmId,
    },
    /// Restores rules that another program removed, and refills the pool of TAPs.
    #[serde(deserialize_with = "nothing_else")]
    NetEnsure,
    /// Makes systemd-resolved forward names of VMs to a DNS server on the host's loopback.
    RouteDns {
        /// UDP and TCP port.
        port: u16,
    },
    /// Reverts that, unless another server is configured by now.
    UnrouteDns {
        /// UDP and TCP port.
        port: u16,
    },
    /// Creates a copy-on-write device. Descriptors: the image, readable, and the layer, writable.
    SnapshotAttach {
        /// The VM.
        vm: VmId,
        /// Size of the device in bytes.
        root_bytes: u64,
    },
    /// Removes the copy-on-write device.
    SnapshotDetach {
        /// The VM.
        vm: VmId,
    },
    /// Opens the VM's copy-on-write device. Answers with its descriptor.
    SnapshotOpen {
        /// The VM.
        vm: VmId,
        /// How it is opened.
        access: Access,
    },
    /// Reads the file of changes of the copy-on-write device again if the kernel gave it up.
    SnapshotReload {
        /// The VM.
        vm: VmId,
    },
    /// Whether the kernel can make copy-on-write devices.
    #[serde(deserialize_with = "nothing_else")]
    SnapshotReady,
    /// Creates a jail. Descriptors: kernel and initramfs, readable, then one for each drive backed
    /// by a file. Returns a listener for the guest's hello.
    JailMake {
        /// The VM.
        vm: VmId,
        /// Its drives in order.
        drives: Vec<Drive>,
    },
    /// Removes a jail with its loop devices and cgroup.
    JailClear {
        /// The VM.
        vm: VmId,
    },
    /// Starts a shim, which waits at its gate; a [`Launch`] on the same connection opens it.
    Spawn {
        /// The VM.
        vm: VmId,
    },
    /// Ends shim and VMM, and waits until they are gone.
    End {
        /// The VM.
        vm: VmId,
    },
    /// The state of a run.
    Facts {
        /// The VM.
        vm: VmId,
    },
    /// Connects to a socket of the VMM. Returns the connection.
    Connect {
        /// The VM.
        vm: VmId,
        /// The socket.
        socket: VmmSocket,
    },
    /// Removes the socket for the guest's hello, so that the guest can open no further connections.
    CloseHello {
        /// The VM.
        vm: VmId,
    },
    /// The VMs of the requesting user that belong to a state folder.
    VmsOf {
        /// The folder, as recorded by [`Request::SetHome`].
        home: ByteString,
    },
    /// Names the objects and processes of a VM.
    Objects {
        /// The VM.
        vm: VmId,
    },
    /// Whether VMs can be started: checks programs and their versions.
    #[serde(deserialize_with = "nothing_else")]
    Ready,
    /// Checks of the host for `banger doctor`.
    #[serde(deserialize_with = "nothing_else")]
    Findings,
}

/// Declares the name of each request once, for [`Request::name`] and [`Request::NAMES`].
macro_rules! names {
    ($($request:ident => $name:literal,)*) => {
        impl Request {
            /// The names of all requests on the wire.
            pub const NAMES: &[&str] = &[$($name),*];

            /// The name on the wire.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$request { .. } => $name,)*
                }
            }
        }
    };
}

names! {
    Hello => "hello",
    Make => "make",
    SetHome => "set_home",
    Remove => "remove",
    NetAttach => "net_attach",
    NetDetach => "net_detach",
    TapOpen => "tap_open",
    NetEnsure => "net_ensure",
    RouteDns => "route_dns",
    UnrouteDns => "unroute_dns",
    SnapshotAttach => "snapshot_attach",
    SnapshotDetach => "snapshot_detach",
    SnapshotOpen => "snapshot_open",
    SnapshotReload => "snapshot_reload",
    SnapshotReady => "snapshot_ready",
    JailMake => "jail_make",
    JailClear => "jail_clear",
    Spawn => "spawn",
    End => "end",
    Facts => "facts",
    Connect => "connect",
    CloseHello => "close_hello",
    VmsOf => "vms_of",
    Objects => "objects",
    Ready => "ready",
    Findings => "findings",
}

impl Request {
    /// The VM that the request changes, if any.
    pub fn changes(&self) -> Option<&VmId> {
        match self {
            Self::Make { vm }
            | Self::SetHome { vm, .. }
            | Self::Remove { vm }
            | Self::NetAttach { vm, .. }
            | Self::NetDetach { vm }
            | Self::SnapshotAttach { vm, .. }
            | Self::SnapshotDetach { vm }
            | Self::SnapshotReload { vm }
            | Self::JailMake { vm, .. }
            | Self::JailClear { vm }
            | Self::Spawn { vm }
            | Self::End { vm }
            | Self::CloseHello { vm } => Some(vm),
            Self::Hello
            | Self::NetEnsure
            | Self::RouteDns { .. }
            | Self::UnrouteDns { .. }
            | Self::TapOpen { .. }
            | Self::SnapshotOpen { .. }
            | Self::SnapshotReady
            | Self::Facts { .. }
            | Self::Connect { .. }
            | Self::VmsOf { .. }
            | Self::Objects { .. }
            | Self::Ready
            | Self::Findings => None,
        }
    }
}

/// Rejects fields of a request that has none: serde would ignore them.
fn nothing_else<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    Nothing::deserialize(deserializer).map(|Nothing {}| ())
}

/// A block device of a VM, in the order in which the guest sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    /// Role.
    pub role: Role,
    /// Backing store.
    pub from: DriveFrom,
}

/// Backing store of a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriveFrom {
    /// A file, whose descriptor is sent with the request.
    File,
    /// The VM's copy-on-write device.
    Snapshot,
}

/// How a device is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// For reading.
    Read,
    /// For reading and writing.
    ReadWrite,
}

/// Name of a drive's device node in the jail.
pub fn node(role: Role) -> String {
    format!("drive-{}", role.as_str())
}

/// A socket of the VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmmSocket {
    /// Firecracker's API.
    Api,
    /// The vsock device.
    Vsock,
}

/// Configuration that opens the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// Number of vCPUs, for the limit of threads.
    pub vcpus: u32,
    /// Guest memory in MiB, for the memory limit.
    pub memory_mib: u64,
}

/// Result of a check of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable name: `network_nft`, `cgroup2`…
    pub code: String,
    /// Whether the check passed.
    pub ok: bool,
    /// The observation.
    pub seen: String,
    /// Hints, if the check failed or found a possible obstacle.
    #[serde(default, flatten)]
    pub hints: Hints,
}

/// The objects of a VM on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objects {
    /// Kind and name of each: ``TAP `fc-0123456789ab` ``.
    pub objects: Vec<String>,
    /// Process ids of its shim and VMM, those that run.
    pub processes: Vec<u32>,
}

/// An answer; some requests also return a descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "is", rename_all = "snake_case")]
pub enum Answer {
    /// Build id of the helper.
    Hello(String),
    /// The request was carried out.
    Did(Did),
    /// Lease of an attached VM.
    Leased(Did, Lease),
    /// A shim that waits at its gate.
    Spawned(ProcRef),
    /// The VMM is running.
    Launched(ProcRef),
    /// State of a run.
    Facts {
        /// Its state.
        run: Box<RunFacts>,
        /// Status that the shim reports while it runs.
        status: ShimStatus,
    },
    /// VMs.
    Vms(Vec<VmId>),
    /// The objects of a VM.
    Objects(Objects),
    /// Checks of the host.
    Findings(Vec<Finding>),
    /// The descriptor is attached.
    Descriptor,
}
