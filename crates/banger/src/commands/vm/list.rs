//! `banger vm list`, `banger ps`.

use std::net::{IpAddr, Ipv4Addr};

use banger_api::exit;
use banger_api::filter::VmFilter;
use banger_api::publish::PortForward;
use banger_api::size::{MIB, human_size};
use banger_api::vm::{DiskView, VmState, VmSummary};

use crate::context::{Context, Format, Verbosity};
use crate::errors::Failure;
use crate::render::table::{Column, table};
use crate::render::time::ago;
use crate::values;

/// Show all VMs.
///
///   banger vm list
///   banger vm list --running
///   banger vm list -q               ids only
///   banger vm list --filter label=team=web --filter state=stopped
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Only running VMs
    #[arg(long)]
    pub running: bool,
    /// Conditions.
    #[command(flatten)]
    pub filters: Filters,
}

/// Conditions for the listed VMs.
#[derive(Debug, clap::Args)]
pub struct Filters {
    /// Only VMs that match: label=KEY[=VALUE], name=NAME, image=IMAGE or state=STATE; repeatable
    ///
    /// `*` in a name stands for any text. Each label must match, and one of the values of each
    /// other key.
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = values::filter)]
    pub filter: Vec<VmFilter>,
}

/// Show the running VMs: short for `banger vm list --running`.
///
///   banger ps
///   banger ps -a                    stopped ones too
///   banger ps -q                    ids only
///   banger ps --filter label=team
///
/// With a filter of states it shows VMs in these states.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct PsArgs {
    /// Also VMs that are not running
    #[arg(short, long)]
    pub all: bool,
    /// Conditions.
    #[command(flatten)]
    pub filters: Filters,
}

/// Runs `ps`.
pub async fn ps(context: &Context, args: PsArgs) -> Result<u8, Failure> {
    let of_state = |filter: &VmFilter| matches!(filter, VmFilter::State(_));
    let running = !args.all && !args.filters.filter.iter().any(of_state);
    run(context, Args { running, filters: args.filters }).await
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let mut vms = context.client().await?.vms_matching(&args.filters.filter).await?;
    if args.running {
        vms.retain(|vm| matches!(vm.state, VmState::Running | VmState::Paused));
    }
    match (context.format, context.verbosity) {
        (Format::Json, _) => context.json(&vms)?,
        (Format::Text, Verbosity::Quiet) => {
            context.print(&vms.iter().map(|vm| format!("{}\n", vm.id)).collect::<String>())?;
        }
        (Format::Text, _) => context.print(&text(&vms))?,
    }
    for (vm, problem) in vms.iter().filter_map(|vm| Some((vm, vm.problem.as_ref()?))) {
        context.info(&format!("{}: {problem}; `banger doctor` shows what to do", vm.name));
    }
    Ok(exit::OK)
}

fn text(vms: &[VmSummary]) -> String {
    let columns = [
        Column::long_text("NAME", 0, 12),
        Column::text("ID", 4),
        Column::text("STATE", 1),
        Column::long_text("IMAGE", 5, 8),
        Column::number("VCPUS", 8),
        Column::number("MEMORY", 7),
        Column::number("DISK", 6),
        Column::text("IP", 2),
        Column::long_text("PORTS", 3, 12),
        Column::text("CREATED", 9),
    ];
    let row = |vm: &VmSummary| {
        vec![
            vm.name.to_string(),
            vm.id.to_string(),
            vm.state.as_str().to_owned(),
            or_dash(Some(vm.image.clone())),
            or_dash(vm.vcpus.map(|count| count.to_string())),
            or_dash(vm.memory_mib.map(|mib| human_size(mib.saturating_mul(MIB)))),
            or_dash(vm.disk.map(|disk| used(&disk))),
            or_dash(vm.ip.clone()),
            ports(&vm.publish),
            or_dash(Some(ago(&vm.created_at))),
        ]
    };
    table(&columns, &vms.iter().map(row).collect::<Vec<_>>())
}

/// A cell whose value may be absent.
fn or_dash(value: Option<String>) -> String {
    value.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned())
}

/// Allocated size of both disks.
fn used(disk: &DiskView) -> String {
    human_size(disk.root_used_bytes.saturating_add(disk.work_used_bytes))
}

/// Published ports in one cell; with the address if it is not 127.0.0.1.
fn ports(publish: &[PortForward]) -> String {
    if publish.is_empty() {
        return "-".to_owned();
    }
    let port = |port: &PortForward| {
        let listens = match port.listen {
            IpAddr::V4(Ipv4Addr::LOCALHOST) => port.host_port.to_string(),
            _ => port.listens_on().to_string(),
        };
        format!("{listens}->{}", port.guest_port)
    };
    publish.iter().map(port).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_values_are_shown_as_dashes() {
        let unreadable = VmSummary {
            id: "0123456789ab".parse().unwrap(),
            name: "web".parse().unwrap(),
            state: VmState::Broken,
            image: String::new(),
            vcpus: None,
            memory_mib: None,
            ip: None,
            created_at: String::new(),
            disk: None,
            operation: None,
            publish: Vec::new(),
            labels: Default::default(),
            opencode: false,
            problem: Some("not JSON".into()),
        };
        let table = text(&[unreadable]);
        let cells: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        let expected = ["web", "0123456789ab", "broken", "-", "-", "-", "-", "-", "-", "-"];
        assert_eq!(cells, expected);
    }

    #[test]
    fn ports_contain_the_address_unless_it_is_loopback() {
        let shown = |texts: &[&str]| {
            let parsed: Vec<PortForward> = texts.iter().map(|text| text.parse().unwrap()).collect();
            ports(&parsed)
        };
        assert_eq!(shown(&[]), "-");
        assert_eq!(shown(&["8080:80"]), "8080->80");
        assert_eq!(
            shown(&["8080:80", "0.0.0.0:53:5353", "[::1]:1:2"]),
            "8080->80, 0.0.0.0:53->5353, [::1]:1->2"
        );
    }
}
