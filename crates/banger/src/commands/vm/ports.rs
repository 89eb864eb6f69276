//! `banger vm ports`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use banger_api::opencode;
use banger_api::publish::PortForward;
use banger_api::vm::{VmState, VmSummary};
use banger_api::{ApiError, VmId, VmName, exit};
use banger_client::batch::resolve;
use serde::Serialize;

use crate::commands::opencode::by_name;
use crate::context::{Context, Format, Verbosity};
use crate::errors::{self, Failure};
use crate::render::table::{Column, table};

/// Show the published ports of VMs, with a link for each port that serves HTTP.
///
///   banger vm ports                 those of all VMs
///   banger vm ports web db
///   banger vm ports -q web          endpoints only, such as 127.0.0.1:8080
///
/// `-p` of `run` and `create` publishes ports. The opencode server of a machine
/// with an address of its own is shown even if its port is not published.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Names, ids or prefixes of ids [default: all VMs]
    #[arg(value_name = "VM")]
    pub vms: Vec<String>,
}

/// An element of the document that `--json` prints: one VM.
#[derive(Serialize)]
struct Element {
    /// The argument; the name if there was none.
    reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<VmId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<VmName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<VmState>,
    ports: Vec<Published>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ApiError>,
}

/// A published port.
#[derive(Serialize)]
struct Published {
    /// Address and port of the host, such as `127.0.0.1:8080` or `[::1]:8080`.
    endpoint: SocketAddr,
    protocol: &'static str,
    guest_port: u16,
    /// Whether the host listens now.
    available: bool,
    /// URL for programs on this host; absent for ports of protocols other than HTTP.
    link: Option<String>,
}

/// Ports of well-known protocols that are not HTTP (IANA service names): SMTP, DNS, databases and
/// the like.
const OTHER_PROTOCOLS: &[u16] = &[
    21, 22, 23, 25, 53, 88, 110, 111, 139, 143, 389, 445, 465, 514, 587, 636, 873, 993, 995, 1433,
    1521, 1883, 2049, 3306, 3389, 5432, 5671, 5672, 5900, 6379, 8883, 9042, 9092, 11211, 27017,
];

/// Ports on which HTTPS is usual.
const HTTPS: &[u16] = &[443, 8443];

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let listing = context.client().await?.vms().await?;
    let mut code = exit::OK;
    let mut elements = Vec::new();
    if args.vms.is_empty() {
        for vm in &listing {
            elements.push(element(vm.name.to_string(), vm).await);
        }
    }
    let targets = resolve(&listing, &args.vms);
    let batch = targets.len() > 1;
    for target in targets {
        let found = target.found.map(|tag| listing.iter().find(|vm| vm.id == tag.id));
        match found {
            Ok(Some(vm)) => elements.push(element(target.reference, vm).await),
            Ok(None) => {}
            Err(error) => {
                code = if batch { exit::FAILED } else { error.code.exit_code() };
                if context.format == Format::Text {
                    errors::show(context, &error);
                }
                let (reference, error) = (target.reference, Some(error));
                let (id, name, state, ports) = (None, None, None, Vec::new());
                elements.push(Element { reference, id, name, state, ports, error });
            }
        }
    }
    show(context, &elements, !args.vms.is_empty())?;
    Ok(code)
}

fn show(context: &Context, elements: &[Element], named: bool) -> Result<(), Failure> {
    let ports = || elements.iter().flat_map(|vm| &vm.ports);
    match (context.format, context.verbosity) {
        (Format::Json, _) => return context.json(&elements),
        (Format::Text, Verbosity::Quiet) => {
            return context
                .print(&ports().map(|port| format!("{}\n", port.endpoint)).collect::<String>());
        }
        (Format::Text, _) if ports().next().is_some() => context.print(&text(elements))?,
        (Format::Text, _) => {}
    }
    let without = elements.iter().filter(|vm| named && vm.ports.is_empty());
    for name in without.filter_map(|vm| vm.name.as_ref()) {
        context.info(&format!("{name}: no published ports"));
    }
    if !named && ports().next().is_none() {
        context.info("no published ports: `banger run -p 8080:80` publishes one");
    }
    Ok(())
}

async fn element(reference: String, vm: &VmSummary) -> Element {
    let available = vm.state == VmState::Running;
    let published = |port: &PortForward| Published {
        endpoint: port.listens_on(),
        protocol: "tcp",
        guest_port: port.guest_port,
        available,
        link: link(port),
    };
    let mut ports: Vec<Published> = vm.publish.iter().map(published).collect();
    ports.extend(opencode_port(vm).await);
    Element {
        reference,
        id: Some(vm.id.clone()),
        name: Some(vm.name.clone()),
        state: Some(vm.state),
        ports,
        error: None,
    }
}

/// The opencode server of a VM with an address of its own, unless its port is published.
async fn opencode_port(vm: &VmSummary) -> Option<Published> {
    let guest_port = opencode::PORT;
    let is_published = vm.publish.iter().any(|port| port.guest_port == guest_port);
    if !vm.opencode || is_published {
        return None;
    }
    let endpoint = SocketAddr::new(vm.ip.as_ref()?.parse().ok()?, guest_port);
    let url = by_name(vm).await.unwrap_or_else(|| format!("http://{endpoint}"));
    let (link, available) = (Some(format!("{url}/")), vm.state == VmState::Running);
    Some(Published { endpoint, protocol: "tcp", guest_port, available, link })
}

fn text(elements: &[Element]) -> String {
    let columns = [
        Column::long_text("NAME", 0, 12),
        Column::text("ENDPOINT", 0),
        Column::text("PROTOCOL", 3),
        Column::number("GUEST", 1),
        Column::long_text("LINK", 2, 16),
    ];
    let row = |vm: &Element, port: &Published| {
        let link = match (&vm.state, port.available) {
            (_, true) => port.link.clone().unwrap_or_else(|| "-".to_owned()),
            (Some(state), false) => format!("when it runs; it is {}", state.as_str()),
            (None, false) => "-".to_owned(),
        };
        let name = vm.name.as_ref().map_or(vm.reference.as_str(), VmName::as_str);
        let guest = port.guest_port.to_string();
        vec![name.to_owned(), port.endpoint.to_string(), port.protocol.to_owned(), guest, link]
    };
    let rows: Vec<_> =
        elements.iter().flat_map(|vm| vm.ports.iter().map(move |port| row(vm, port))).collect();
    table(&columns, &rows)
}

/// The URL of a port on this host; none for well-known ports of other protocols.
fn link(port: &PortForward) -> Option<String> {
    if OTHER_PROTOCOLS.contains(&port.guest_port) {
        return None;
    }
    // A browser cannot connect to the address that stands for all addresses.
    let address = match port.listen {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    let scheme = if HTTPS.contains(&port.guest_port) { "https" } else { "http" };
    Some(format!("{scheme}://{}/", SocketAddr::new(address, port.host_port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_an_address_that_accepts_connections() {
        for (port, expected) in [
            ("8080:80", Some("http://127.0.0.1:8080/")),
            ("0.0.0.0:8080:3000", Some("http://127.0.0.1:8080/")),
            ("[::]:8080:3000", Some("http://[::1]:8080/")),
            ("10.1.2.3:8080:3000", Some("http://10.1.2.3:8080/")),
            ("9443:443", Some("https://127.0.0.1:9443/")),
            ("2222:22", None),
            ("80:5432", None),
        ] {
            assert_eq!(link(&port.parse().unwrap()).as_deref(), expected, "{port}");
        }
    }
}
