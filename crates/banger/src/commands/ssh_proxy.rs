//! `banger ssh-proxy`: what ssh starts as its `ProxyCommand`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;

use banger_api::{ApiError, ErrorCode};
use banger_client::PortStream;

use crate::context::Context;
use crate::errors::{Failure, usage};
use crate::ssh::{DOMAIN, PORT, reach};
use crate::values;

/// Bytes copied at once.
const PIECE: usize = 64 * 1024;

/// Connect standard input and output to a port of a VM, for ssh.
///
///   banger ssh-proxy web.vm 22
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// NAME.vm as given to ssh; also an id or prefix of the id
    pub host: String,
    /// TCP port of the guest [default: 22]
    #[arg(
        default_value_t = PORT, value_parser = values::port,
        hide_default_value = true
    )]
    pub port: u16,
    /// Connection that `banger ssh` has opened
    #[arg(long, hide = true)]
    pub offer: Option<String>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let (host, vm) = parse(&args.host).ok_or_else(|| {
        usage(format!("`{}` is not the host name of a VM, such as web.vm", args.host))
    })?;
    // ssh may start this later, or twice: the offer is gone then.
    let stream = match args.offer.as_deref().map(banger_client::take) {
        Some(Ok(stream)) => stream,
        _ => {
            let client = context.client().await?;
            reach::reach(context, &client, &vm, &host, args.port).await?
        }
    };
    let relayed = tokio::task::spawn_blocking(move || relay(stream)).await;
    let relayed = relayed.unwrap_or_else(|error| Err(io::Error::other(error)));
    relayed.map_err(|error| {
        let text = format!("the connection to `{vm}` failed");
        ApiError::new(ErrorCode::GuestFailed, text).caused_by(&error)
    })?;
    Ok(0)
}

/// The host name as ssh knows it, and the reference of the VM.
fn parse(host: &str) -> Option<(String, String)> {
    let host = host.to_ascii_lowercase();
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let vm = host.strip_suffix(&format!(".{DOMAIN}")).unwrap_or(&host).to_owned();
    (!vm.is_empty() && vm.chars().all(valid)).then_some((host, vm))
}

/// Copies both ways until the guest ends the connection, or ssh does.
fn relay(stream: PortStream) -> io::Result<()> {
    let early = stream.early.clone();
    let mut from_guest = stream.into_std()?;
    let mut to_guest = from_guest.try_clone()?;
    std::thread::spawn(move || {
        // ssh has ended, or the guest has; either ends the other direction.
        let _ = rustix::io::dup(io::stdin())
            .map_err(io::Error::from)
            .and_then(|stdin| copy(&mut File::from(stdin), &mut to_guest));
        let _ = to_guest.shutdown(Shutdown::Both);
    });
    let mut stdout = io::stdout().lock();
    stdout.write_all(&early)?;
    stdout.flush()?;
    // Standard output of the library is buffered by lines, which ssh's packets have none of.
    let mut direct = File::from(rustix::io::dup(&stdout)?);
    match copy(&mut from_guest, &mut direct) {
        Err(error) if is_end(error.kind()) => Ok(()),
        copied => copied,
    }
}

/// Copies to the end by read(2) and write(2). `std::io::copy` uses splice(2) where one
/// side is a pipe, and blocked there with data at hand.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(piece.get(..length).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_end(kind: io::ErrorKind) -> bool {
    [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset].contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_lead_to_vms() {
        let parsed = |host: &str| parse(host).map(|(host, vm)| format!("{host} {vm}"));
        assert_eq!(parsed("web.vm").as_deref(), Some("web.vm web"));
        assert_eq!(parsed("Web.VM").as_deref(), Some("web.vm web"));
        assert_eq!(parsed("0123456789ab").as_deref(), Some("0123456789ab 0123456789ab"));
        assert_eq!(crate::ssh::host_name("web"), "web.vm");
        for host in ["", ".vm", "a.b.vm", "web.vm,*", "we b.vm", "*.vm", "web.vm\n"] {
            assert_eq!(parsed(host), None, "{host}");
        }
    }
}
