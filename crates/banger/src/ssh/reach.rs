//! A connection to a port of a VM for ssh, once the port is open and the host keys are recorded.

use std::time::Duration;

use banger_api::hint::VmLog;
use banger_api::{ApiError, ErrorCode, Hint};
use banger_client::{Client, MAX_PORT_WAIT, Port, PortStream};

use super::{PORT, known_hosts};
use crate::context::Context;
use crate::errors::Failure;

/// A shorter wait is not reported.
const REPORTED_AFTER: Duration = Duration::from_millis(700);

/// Connects to a port of a VM, which ssh knows as `host`.
///
/// # Errors
/// The VM does not run, has no ssh server or no host keys; Ctrl-C.
pub async fn reach(
    context: &Context,
    client: &Client,
    vm: &str,
    host: &str,
    port: u16,
) -> Result<PortStream, Failure> {
    let work = context.interrupts.run_interruptible(client.connect_port(vm, port, MAX_PORT_WAIT));
    tokio::pin!(work);
    let connected = tokio::select! {
        biased;
        done = &mut work => done,
        () = tokio::time::sleep(REPORTED_AFTER) => {
            context.info(&format!("waiting for port {port} of `{vm}`"));
            work.await
        }
    };
    let opened = connected??;
    let server = client.ssh_server(vm).await?;
    let stream = match opened {
        Port::Open(stream) => stream,
        Port::Closed if server.installed => return Err(closed(vm, port).into()),
        Port::Closed => return Err(no_server(vm).into()),
    };
    if server.host_keys.is_empty() {
        let text = format!("`{vm}` has no ssh host keys in `/etc/ssh`");
        return Err(ApiError::new(ErrorCode::GuestFailed, text)
            .with_hint(Hint::text(format!("`banger exec {vm} -- ssh-keygen -A` makes them")))
            .into());
    }
    let pattern = known_hosts::pattern(host, port);
    known_hosts::record(&context.paths()?.ssh_known_hosts(), &pattern, &server.host_keys)?;
    Ok(stream)
}

fn closed(vm: &str, port: u16) -> ApiError {
    let text = format!("nothing listens on port {port} of `{vm}`");
    let mut error = ApiError::new(ErrorCode::GuestFailed, text);
    if port == PORT {
        let hint = format!("`banger exec {vm} -- systemctl status ssh` shows the ssh server");
        error = error.with_hint(Hint::text(hint));
    }
    error.with_hint(Hint::log(vm, VmLog::Console))
}

fn no_server(vm: &str) -> ApiError {
    ApiError::new(ErrorCode::WrongState, format!("`{vm}` has no ssh server"))
        .with_hint(Hint::text(format!(
            "`banger shell {vm}` and `banger exec {vm} -- CMD` need none"
        )))
        .with_hint(Hint::text(format!(
            "to install one on Debian: `banger exec {vm} -- apt-get install -y openssh-server`"
        )))
}
