//! What is asked and answered: one JSON object each way, descriptors beside it.

use banger_base::{Lease, ProcRef, RunFacts, ShimStatus, VmId};
use serde::{Deserialize, Deserializer, Serialize};

/// What a request did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Did {
    /// It made the thing.
    Made,
    /// The thing was there.
    WasThere,
    /// It removed the thing.
    Removed,
    /// There was nothing.
    WasAbsent,
}

/// Whether a guest reaches the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nat {
    /// It does.
    On,
    /// It does not.
    Off,
}

/// What is asked. Every VM is named by its id; the asking user must be its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Who is there.
    #[serde(deserialize_with = "nothing_else")]
    Hello,
    /// Makes root's folder of a VM; from now on the VM belongs to the asking user.
    Make {
        /// The VM.
        vm: VmId,
    },
    /// Removes it.
    Remove {
        /// The VM.
        vm: VmId,
    },
    /// Puts a VM on the bridge.
    NetAttach {
        /// The VM.
        vm: VmId,
        /// Whether it reaches the outside.
        nat: Nat,
    },
    /// Takes it off.
    NetDetach {
        /// The VM.
        vm: VmId,
    },
    /// Puts back rules that somebody else removed, and fills the pool of TAPs.
    #[serde(deserialize_with = "nothing_else")]
    NetEnsure,
    /// Has systemd-resolved ask a resolver on the host's loopback for names of VMs.
    RouteDns {
        /// UDP and TCP port.
        port: u16,
    },
    /// Takes that back, unless another resolver is asked by now.
    UnrouteDns {
        /// UDP and TCP port.
        port: u16,
    },
    /// Makes a copy-on-write device. Descriptors: the image for reading, the layer for writing.
    SnapshotAttach {
        /// The VM.
        vm: VmId,
        /// Size of the device in bytes.
        root_bytes: u64,
    },
    /// Removes it.
    SnapshotDetach {
        /// The VM.
        vm: VmId,
    },
    /// Makes a jail. Descriptors: kernel and initramfs for reading, then one for each drive that
    /// comes as a file. Answers with a listener for the guest's hello.
    JailMake {
        /// The VM.
        vm: VmId,
        /// Its drives in order.
        drives: Vec<Drive>,
    },
    /// Removes it with its loop devices and its cgroup.
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
    /// What is there of a run.
    Facts {
        /// The VM.
        vm: VmId,
    },
    /// Connects to a socket of the VMM. Answers with the connection.
    Connect {
        /// The VM.
        vm: VmId,
        /// Which.
        socket: VmmSocket,
    },
    /// Removes the socket for the guest's hello, so that nobody in the guest can dial any more.
    CloseHello {
        /// The VM.
        vm: VmId,
    },
    /// Whether VMs can be started: programs and their versions.
    #[serde(deserialize_with = "nothing_else")]
    Ready,
    /// What the host has and lacks.
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
    Remove => "remove",
    NetAttach => "net_attach",
    NetDetach => "net_detach",
    NetEnsure => "net_ensure",
    RouteDns => "route_dns",
    UnrouteDns => "unroute_dns",
    SnapshotAttach => "snapshot_attach",
    SnapshotDetach => "snapshot_detach",
    JailMake => "jail_make",
    JailClear => "jail_clear",
    Spawn => "spawn",
    End => "end",
    Facts => "facts",
    Connect => "connect",
    CloseHello => "close_hello",
    Ready => "ready",
    Findings => "findings",
}

impl Request {
    /// The VM that it changes something of.
    pub fn changes(&self) -> Option<&VmId> {
        match self {
            Self::Make { vm }
            | Self::Remove { vm }
            | Self::NetAttach { vm, .. }
            | Self::NetDetach { vm }
            | Self::SnapshotAttach { vm, .. }
            | Self::SnapshotDetach { vm }
            | Self::JailMake { vm, .. }
            | Self::JailClear { vm }
            | Self::Spawn { vm }
            | Self::End { vm }
            | Self::CloseHello { vm } => Some(vm),
            Self::Hello
            | Self::NetEnsure
            | Self::RouteDns { .. }
            | Self::UnrouteDns { .. }
            | Self::Facts { .. }
            | Self::Connect { .. }
            | Self::Ready
            | Self::Findings => None,
        }
    }
}

/// What stands beside the word of a request without fields: serde would take anything there.
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
    /// Which.
    pub role: Role,
    /// Where its bytes are.
    pub from: DriveFrom,
}

/// What a drive is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Root disk, or its private layer.
    Root,
    /// Work disk.
    Work,
    /// The shared image, read-only.
    Image,
    /// The kernel's modules, read-only.
    Modules,
}

impl Role {
    /// Its word in names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Work => "work",
            Self::Image => "image",
            Self::Modules => "modules",
        }
    }

    /// Name of its device node in the jail.
    pub fn node(self) -> String {
        format!("drive-{}", self.as_str())
    }

    /// Whether the guest may write to it.
    pub fn writable(self) -> bool {
        matches!(self, Self::Root | Self::Work)
    }
}

/// Where a drive's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriveFrom {
    /// In a file, whose descriptor goes along.
    File,
    /// On the VM's copy-on-write device.
    Snapshot,
}

/// A socket of the VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmmSocket {
    /// Firecracker's API.
    Api,
    /// The guest's vsock.
    Vsock,
}

/// Opens the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// vCPUs, for the limit of threads.
    pub vcpus: u32,
    /// Memory of the guest in MiB, for the limit of memory.
    pub memory_mib: u64,
}

/// Something worth knowing about the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable name.
    pub code: String,
    /// Whether all is well.
    pub ok: bool,
    /// What was seen.
    pub seen: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What is answered; descriptors go along where the request says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "is", rename_all = "snake_case")]
pub enum Answer {
    /// Build id of the helper.
    Hello(String),
    /// It is done.
    Did(Did),
    /// On the bridge.
    Leased(Did, Lease),
    /// A shim waits at its gate.
    Spawned(ProcRef),
    /// The VMM runs.
    Launched(ProcRef),
    /// Of a run.
    Facts {
        /// Its state.
        run: Box<RunFacts>,
        /// What the shim tells of it while it runs.
        status: ShimStatus,
    },
    /// Of the host.
    Findings(Vec<Finding>),
    /// A descriptor goes along.
    Descriptor,
}
