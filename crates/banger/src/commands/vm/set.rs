//! `banger vm set`: changes the specification of VMs.

use banger_api::ByteString;
use banger_api::labels::LabelKey;
use banger_api::publish::PortForward;
use banger_api::set::{SetVm, Unpublish};
use banger_api::sync::SyncFolder;
use banger_api::vm::VmAction;
use banger_client::batch::resolve;

use crate::batch::{self, DurationDisplay, Messages};
use crate::context::Context;
use crate::errors::Failure;
use crate::sync_options::{self, SyncOptions};
use crate::values::{self, Switch};

/// Change VMs: ports, labels, folders at once; other values at the next start.
///
///   banger vm set web -p 8080:80 --unpublish 9090
///   banger vm set web --vcpus 4 --memory 8G && banger vm restart web
///   banger vm set web --disk-size 32G
///   banger vm set web db --label team=web --unlabel urgent
///
/// For a running VM it says which values changed at once and which change at the
/// next start; `vm show` shows both. Ports of a VM without an address of its own
/// change at the next start, too. A live change of ports closes the connections
/// through the VM's published ports. Disks only grow; the guest enlarges their file
/// systems when it boots.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Names, ids or prefixes of ids
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,
    /// Kernel to boot, or `image` for the one in its image; only while it is stopped
    #[arg(long, value_parser = values::reference)]
    pub kernel: Option<String>,
    /// Virtual CPUs
    #[arg(
        long, alias = "cpus", value_name = "N", value_parser = values::vcpus,
        allow_hyphen_values = true
    )]
    pub vcpus: Option<u32>,
    /// Memory, such as 2G
    #[arg(long, value_name = "SIZE", value_parser = values::memory_mib, allow_hyphen_values = true)]
    pub memory: Option<u64>,
    /// Size of the root disk, at least the present one
    #[arg(
        long, alias = "disk", value_name = "SIZE", value_parser = values::root_disk,
        allow_hyphen_values = true
    )]
    pub disk_size: Option<u64>,
    /// Size of the work disk, at least the present one
    #[arg(
        long, alias = "work-disk", value_name = "SIZE", value_parser = values::work_disk,
        allow_hyphen_values = true
    )]
    pub work_size: Option<u64>,
    /// Access to outside networks
    #[arg(long, value_name = "on|off", hide_possible_values = true)]
    pub nat: Option<Switch>,
    /// Start it again when banger's daemon starts, unless it was stopped before
    #[arg(long, value_name = "on|off", hide_possible_values = true)]
    pub autostart: Option<Switch>,
    /// Publish a port of this host in addition, such as 8080:80; repeatable
    ///
    /// A port of this host that is published already leads to the new port of the guest.
    #[arg(
        short, long, value_name = "[ADDR:]HOST:GUEST", value_parser = values::published,
        allow_hyphen_values = true
    )]
    pub publish: Vec<PortForward>,
    /// Stop publishing a port of this host, such as 8080, or all of them; repeatable
    #[arg(
        long, value_name = "[ADDR:]HOST|all", value_parser = values::unpublished,
        allow_hyphen_values = true
    )]
    pub unpublish: Vec<Unpublish>,
    /// Keep a folder of this host and one of the VM alike in addition; repeatable
    ///
    /// One with the same folder of the VM is replaced.
    #[arg(long, value_name = "PATH[:GUEST]", value_parser = sync_options::folder)]
    pub sync: Vec<SyncFolder>,
    /// Leave files out of the new live folders, as a line of `.gitignore` does; repeatable
    #[arg(long, value_name = "PATTERN", requires = "sync")]
    pub sync_ignore: Vec<String>,
    /// End a live folder, by its path on this host or in the VM; repeatable. All files stay
    #[arg(long, value_name = "PATH", value_parser = sync_options::removed)]
    pub unsync: Vec<ByteString>,
    /// Attach a label, such as team=web or urgent, or change its value; repeatable
    #[arg(
        short, long, value_name = "KEY[=VALUE]", value_parser = values::label,
        allow_hyphen_values = true
    )]
    pub label: Vec<(LabelKey, String)>,
    /// Remove a label; repeatable
    #[arg(
        long, value_name = "KEY", value_parser = values::label_key, allow_hyphen_values = true
    )]
    pub unlabel: Vec<LabelKey>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let sync = SyncOptions { sync: args.sync, sync_ignore: args.sync_ignore };
    let set = SetVm {
        sync: sync.folders(),
        unsync: args.unsync,
        kernel: args.kernel,
        vcpus: args.vcpus,
        memory_mib: args.memory,
        root_bytes: args.disk_size,
        work_bytes: args.work_size,
        nat: args.nat.map(|switch| switch == Switch::On),
        autostart: args.autostart.map(|switch| switch == Switch::On),
        publish: args.publish,
        unpublish: args.unpublish,
        labels: values::labelled(&args.label)?,
        unlabel: args.unlabel,
    };
    set.check()?;
    let client = context.client().await?;
    let targets = resolve(&client.vms().await?, &args.vms);
    let messages = Messages {
        done: "changed".into(),
        already: "is so already".into(),
        duration: DurationDisplay::Hide,
    };
    batch::run(context, &client, targets, VmAction::Set(Box::new(set)), &messages).await
}
