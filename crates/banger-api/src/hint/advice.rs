//! Hints about images, published ports and the installation.

use serde::{Deserialize, Serialize};

/// A change of the archive, the recipe or the stored files of an image or a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageAdvice {
    /// Import a root file system of the distribution of a recipe.
    ImportSystem {
        /// Name of the recipe.
        recipe: String,
    },
    /// Import an archive of a whole root file system.
    PackRootFs,
    /// Mount a file-system image and pack its files.
    PackMounted,
    /// Mount the root partition of a disk image and pack the files.
    PackDisk,
    /// Convert a disk image to a format that can be imported.
    ConvertDisk,
    /// Convert a disk image to one that refers to no other file.
    FlattenDisk,
    /// Unpack a cpio archive and pack its files.
    PackCpio,
    /// Unpack an archive of another format; import the root file system in it.
    Unpack,
    /// Install a package in a VM.
    InstallPackage,
    /// Download the file again: it is a page of text.
    DownloadAgain,
    /// Unpack an OCI image layout.
    UnpackOci,
    /// Export the root file system of a container instead of saving its image.
    ExportContainer,
    /// Pack the contents of a folder of the archive.
    PackFolder {
        /// Path of the folder in the archive.
        path: String,
    },
    /// Unpack all volumes of a multi-volume archive and pack them as one.
    JoinVolumes,
    /// Check the name, folder and tag of an image of a registry; private ones need a login.
    CheckReference,
    /// Log in to a registry by Docker's tools.
    LogIn {
        /// Its host.
        host: String,
    },
    /// Check the network, the proxy and the certificates of this host.
    CheckNetwork,
    /// Get the signed file again; do not use it if its signature still does not fit.
    CheckSignature,
    /// Copy one of several container images into a file or folder of its own.
    CopyOneImage,
    /// Copy a truncated archive again.
    CopyAgain,
    /// Try again, and look for what changes bytes on their way.
    BytesChanged,
    /// Correct the path of a file that does not exist.
    CheckPath,
    /// Import the archive after the program that writes it has finished.
    AwaitWriter,
    /// Make an image from an archive.
    Import,
    /// Run a program as a command of a machine with an init.
    RunAsCommand,
    /// Import a file that cannot be registered.
    CopyIn,
    /// Fetch the object again.
    FetchAgain,
    /// Import the archive again, or restore the image's files, or give the VM up.
    RestoreImage {
        /// Name of the VM that uses the image.
        vm: String,
    },
    /// Fetch the kernel again, or restore its files, or give the VM up.
    RestoreKernel {
        /// Name of the VM that uses the kernel.
        vm: String,
    },
    /// Check the network and the sources of packages.
    CheckSources,
    /// Add Debian's package sources to the host.
    AddDebianSources,
}

/// A change of the files of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KernelAdvice {
    /// Import one of the supported kinds of files.
    SupportedFiles,
    /// Import a package without a folder of modules.
    LeaveOutModules,
    /// Name the folder of a kernel's modules.
    GiveModules {
        /// `uname -r` of the kernel.
        release: String,
    },
    /// Build a kernel by a recipe.
    Build {
        /// The recipe.
        recipe: String,
    },
    /// Install the distribution's kernel in an image, or boot it with another kernel.
    InstallKernel,
    /// Boot an image with another kernel than its own.
    UseOtherThanOwn,
}

/// A change of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PortAdvice {
    /// Stop the program that uses the port, or publish another port.
    FreePort,
    /// Publish a port that needs no privilege.
    UseUnprivileged,
    /// Publish the port on an address of the host.
    UseOwnAddress,
    /// Publish the port on an IPv4 address, or use the network `bridge`.
    UseIpv4,
}

/// A change of the installation or the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SetupAdvice {
    /// Install `vhost-device-vsock` with banger's patches.
    InstallCompanion,
    /// Install banger again: a program or a file of it is missing.
    Reinstall {
        /// Paths where the part was searched.
        searched: Vec<String>,
    },
    /// Turn NAT off for untrusted guests under QEMU's user network.
    TurnNatOff,
    /// Give a user ids for user namespaces: subuid(5), subgid(5).
    AddSubordinateIds {
        /// Name of the user; the calling user if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
    /// Raise the daemon's hard limit of open files, `RLIMIT_NOFILE`.
    RaiseFileLimit {
        /// The smallest limit that suffices.
        least: u64,
    },
    /// Stop the program that uses the port of the daemon's DNS server.
    FreeDnsPort {
        /// The port.
        port: u16,
    },
    /// Use a proxy that listens on an address of the network: VMs on the bridge cannot reach one on
    /// the host's loopback address.
    UseNetworkProxy,
    /// Correct or replace a file of certificates, or the list of files in the configuration.
    CorrectCertificates,
    /// Replace certificates that are not valid now.
    ReplaceCertificates,
    /// Use addresses of VMs, while names are served by another daemon.
    UseAddresses,
    /// Set a key for the helper, which does not read the user's configuration.
    SetForHelper {
        /// The key, with dots.
        key: String,
    },
    /// Restore the database that contains a VM, or delete the VM's folder.
    RestoreDatabase {
        /// Id of the VM.
        vm: String,
        /// Path of the VM's folder, if it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        folder: Option<String>,
        /// Running processes of the VM.
        processes: Vec<u32>,
    },
    /// Move something that is not banger's out of one of its folders.
    RemoveForeign {
        /// Its path.
        path: String,
    },
    /// Have `doctor` remove the objects of a VM that is not in the database.
    RemoveLeftovers,
    /// End a process, or delete the VM and create it again with another uid.
    ReplaceUid {
        /// The process that has the VM's uid.
        process: u32,
    },
    /// Enable the daemon's user unit and lingering, so that the daemon starts with the host.
    EnableUnit,
    /// Let the host start the daemon when it boots; it does not run systemd.
    StartAtBoot,
    /// Correct or remove a key in the configuration.
    CorrectConfig,
    /// Set a variable of the environment to an absolute path, or unset it.
    UseAbsolutePath {
        /// Name of the variable.
        variable: String,
    },
    /// Move a damaged database aside.
    MoveAside {
        /// Path of the database.
        path: String,
    },
    /// Remove a damaged file, which is made again when it is needed.
    RemoveFile {
        /// Path of the file.
        path: String,
    },
    /// Restore a damaged file from a backup.
    RestoreFile {
        /// Path of the file.
        path: String,
    },
}
