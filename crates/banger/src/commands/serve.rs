//! `banger serve`: machines for the SDKs of others.

use std::net::SocketAddr;

use banger_api::{ApiError, ErrorCode, exit};
use banger_e2b::{Door, Options};
use tokio::signal::unix::{SignalKind, signal};

use crate::context::{Context, Format};
use crate::errors::Failure;

/// Serve machines to programs that use the SDK of E2B's sandboxes.
///
///   banger serve --e2b 127.0.0.1:3000                 print addresses and key
///   banger serve --e2b 127.0.0.1:3000 --image ubuntu  another image for `base`
///
/// Set the printed variables where the program runs; its SDK needs no change. The
/// sandboxes are deleted when their time is over, when this command ends, and when
/// it is killed. It listens on this computer only.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Serve the API of E2B on this loopback address and port
    #[arg(long, value_name = "ADDR:PORT", value_parser = listen)]
    pub e2b: SocketAddr,
    /// Image of the template `base` [default: that of `banger vm create`]
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an address and a port: 127.0.0.1:3000".to_owned())
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    client.ensure_daemon().await?;
    let end = end_signal().map_err(|error| {
        ApiError::new(ErrorCode::Internal, "signal handlers cannot be installed").caused_by(&error)
    })?;
    let mut interrupts = context.interrupts.listen();
    let mut again = interrupts.clone();
    let door = Door::bind(client, args.e2b, Options { image: args.image }).await?;
    let (url, key) = (format!("http://{}", door.address()), door.key());
    match context.format {
        Format::Text => context.print(&format!(
            "export E2B_API_URL={url}\nexport E2B_SANDBOX_URL={url}\nexport E2B_API_KEY={key}\n"
        ))?,
        Format::Json => context.json(&serde_json::json!({
            "api_url": url, "sandbox_url": url, "api_key": key,
        }))?,
    }
    let supported = banger_e2b::supported();
    context.info(&format!("Supported: {supported}. Ctrl-C deletes all sandboxes and ends."));
    let ended = async {
        tokio::select! {
            () = end => {}
            () = interrupts.next() => {}
        }
    };
    let twice = async {
        again.next().await;
        again.next().await;
    };
    tokio::select! {
        served = door.serve(ended) => served?,
        // The daemon deletes the rest.
        () = twice => {}
    }
    Ok(exit::OK)
}

/// Waits for SIGTERM or SIGHUP.
fn end_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port() {
        assert_eq!(listen("127.0.0.1:0").map(|address| address.port()), Ok(0));
        for text in ["", "3000", "localhost:3000", "127.0.0.1"] {
            assert!(listen(text).unwrap_err().contains("127.0.0.1:3000"), "{text}");
        }
    }
}
