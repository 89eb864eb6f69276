//! What to do about a failure or a finding, as data.
//!
//! A face words hints for itself: the command line names a command ([`words`]), a page on another
//! host shows a button for the same request. On the wire each hint also has its words, in the field
//! `text`, which a reader shows if it does not know the kind of the hint.

mod advice;
#[cfg(test)]
mod tests;
mod wire;
mod words;

pub use banger_base::HostHint;
use serde::{Deserialize, Serialize};

pub use self::advice::{ImageAdvice, KernelAdvice, PortAdvice, SetupAdvice};
pub use self::wire::{WordedHint, read, to_json, write};
pub use self::words::words;
use crate::ids::OpId;
use crate::vm::VmAction;

/// A change or a request that may help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "hint", rename_all = "snake_case")]
pub enum Hint {
    /// Ask for an action on a VM: `POST /v1/vms/{vm}/actions` with `action` as its body.
    AskVm {
        /// Name or id.
        vm: String,
        /// The action.
        action: VmAction,
    },
    /// Show a VM: its state, its problems, the stages of its start.
    ShowVm {
        /// Name or id.
        vm: String,
    },
    /// Open a shell in a VM that was kept for inspection.
    OpenShell {
        /// Name or id.
        vm: String,
    },
    /// Check whether the guest agent of a VM responds.
    CheckVm {
        /// Name or id.
        vm: String,
    },
    /// Show a log of a VM.
    ShowVmLog {
        /// Name or id.
        vm: String,
        /// Which log.
        log: VmLog,
    },
    /// List the objects of a kind.
    List {
        /// Of which kind.
        what: Kind,
    },
    /// Use the name of an existing object that resembles the one in the request.
    SimilarNames {
        /// The names, most similar first; at least one.
        names: Vec<String>,
    },
    /// Delete an image or a kernel.
    Delete {
        /// Of which kind.
        what: Kind,
        /// Name or id.
        name: String,
    },
    /// Delete the VMs that use it.
    DeleteUsers,
    /// Give an image one more name.
    TagImage {
        /// A name that it has.
        image: String,
    },
    /// Fetch an image or a kernel by its recipe.
    Pull {
        /// Of which kind.
        what: Kind,
        /// Name of the recipe.
        recipe: String,
    },
    /// Use another name.
    ChooseAnotherName,
    /// Ask for the name to be moved to the new image (`replace`).
    ReplaceName,
    /// Use a whole name, or more digits of the id.
    NarrowReference,
    /// Send the same request again.
    Retry,
    /// Check the host's programs and drivers.
    CheckHost,
    /// Show whether the daemon runs.
    ShowDaemon,
    /// Stop the daemon; VMs continue to run.
    StopDaemon,
    /// Show the daemon's log.
    ShowDaemonLog,
    /// Read a file of the daemon's host.
    ReadFile {
        /// Its path.
        path: String,
    },
    /// Read the logs of a VM that was deleted because its start failed.
    ReadKeptLogs {
        /// Name of the VM.
        vm: String,
        /// Path of the folder with the logs.
        path: String,
    },
    /// Install packages of the host's distribution, as Debian names them.
    InstallPackages {
        /// Their names.
        packages: Vec<String>,
    },
    /// Install the helper that carries out operations as root.
    InstallHelper {
        /// The program, where it is not in the search path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        program: Option<String>,
    },
    /// Run a program on the host.
    RunOnHost {
        /// Program and arguments.
        argv: Vec<String>,
        /// Whether it needs root.
        as_root: bool,
    },
    /// Free some disk space.
    FreeSpace {
        /// A file or folder on the disk that is full.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
    },
    /// Remove what banger stores and nothing uses.
    Prune {
        /// What `system prune` frees, in bytes.
        frees_bytes: u64,
        /// What `system prune --all` frees, in bytes.
        all_frees_bytes: u64,
    },
    /// Make a file or folder writable for the daemon's user.
    MakeWritable {
        /// Its path, where the message does not name it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
    },
    /// Set a variable of the environment to another folder.
    UseFolder {
        /// Name of the variable.
        variable: String,
    },
    /// Change a key of the configuration.
    Configure {
        /// The key, with dots.
        key: String,
        /// A value for it, where one is known to help.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<String>,
    },
    /// Boot a VM with the guest agent of this build.
    UpdateAgent {
        /// Name or id.
        vm: String,
    },
    /// Use a name that the rules for names of this kind allow.
    FollowNameRule {
        /// Of which kind.
        what: Kind,
    },
    /// Ask for a root disk of at least this size.
    EnlargeRootDisk {
        /// The size in bytes.
        least_bytes: u64,
    },
    /// Use the build of banger that wrote a record.
    UseOtherBuild,
    /// Wait until some of the requests that wait for a VM have finished.
    WaitForRequests,
    /// Wait until an operation has finished.
    WaitForOperation {
        /// The operation's id.
        operation: OpId,
    },
    /// List VMs to see whether a request took effect.
    CheckEffect,
    /// Pass large data on standard input or in a file, not as arguments or environment.
    UseStdin,
    /// Stop a daemon of another build; the next command starts the installed one.
    ReplaceDaemon,
    /// Read the API's description.
    ReadApi {
        /// Path of the route.
        route: String,
    },
    /// A change of the archive, the recipe or the stored files of an image or a kernel.
    Image {
        /// The change.
        advice: ImageAdvice,
    },
    /// A change of the files of a kernel.
    Kernel {
        /// The change.
        advice: KernelAdvice,
    },
    /// A change of a published port.
    Port {
        /// The change.
        advice: PortAdvice,
    },
    /// A change of the installation or the configuration.
    Setup {
        /// The change.
        advice: SetupAdvice,
    },
    /// A change of the host, as the privileged helper names it.
    Host {
        /// The change.
        advice: HostHint,
    },
    /// Words of another program, of the face itself, or of a hint of a newer version.
    Text {
        /// One line, no full stop.
        text: String,
    },
}

/// A log of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VmLog {
    /// The guest's serial console.
    Console,
    /// The output of the VMM and its companion.
    Vmm,
}

/// A kind of thing that has names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A VM.
    Vm,
    /// An image.
    Image,
    /// A kernel.
    Kernel,
}

impl Kind {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vm => "vm",
            Self::Image => "image",
            Self::Kernel => "kernel",
        }
    }
}

impl From<HostHint> for Hint {
    fn from(advice: HostHint) -> Self {
        match advice {
            HostHint::InstallPackages { packages } => Self::InstallPackages { packages },
            HostHint::ShowDaemonLog => Self::ShowDaemonLog,
            HostHint::Text { text } => Self::Text { text },
            advice => Self::Host { advice },
        }
    }
}

impl From<ImageAdvice> for Hint {
    fn from(advice: ImageAdvice) -> Self {
        Self::Image { advice }
    }
}

impl From<KernelAdvice> for Hint {
    fn from(advice: KernelAdvice) -> Self {
        Self::Kernel { advice }
    }
}

impl From<PortAdvice> for Hint {
    fn from(advice: PortAdvice) -> Self {
        Self::Port { advice }
    }
}

impl From<SetupAdvice> for Hint {
    fn from(advice: SetupAdvice) -> Self {
        Self::Setup { advice }
    }
}

impl Hint {
    /// Ask for an action on a VM.
    pub fn ask(vm: impl ToString, action: VmAction) -> Self {
        Self::AskVm { vm: vm.to_string(), action }
    }

    /// Show a VM.
    pub fn show(vm: impl ToString) -> Self {
        Self::ShowVm { vm: vm.to_string() }
    }

    /// Open a shell in a VM that was kept for inspection.
    pub fn open_shell(vm: impl ToString) -> Self {
        Self::OpenShell { vm: vm.to_string() }
    }

    /// Check whether the guest agent of a VM responds.
    pub fn check(vm: impl ToString) -> Self {
        Self::CheckVm { vm: vm.to_string() }
    }

    /// Show a log of a VM.
    pub fn log(vm: impl ToString, log: VmLog) -> Self {
        Self::ShowVmLog { vm: vm.to_string(), log }
    }

    /// Install a package.
    pub fn install(package: impl ToString) -> Self {
        Self::InstallPackages { packages: vec![package.to_string()] }
    }

    /// Words of another program, or of the face that shows them.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }
}
