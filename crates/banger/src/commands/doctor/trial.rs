//! `banger doctor --try`: a VM from its creation to its deletion, with a check for each thing that
//! users do with one.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use banger_api::doctor::{Check, Verdict};
use banger_api::operation::VmTag;
use banger_api::publish::PortForward;
use banger_api::vm::{CreateVm, Lifetime, VmDetails};
use banger_api::{ApiError, ErrorCode, Hint};
use banger_client::follow::OnInterrupt;
use banger_client::{Client, ExecRequest, ExitStatus, Port};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::attach::{self, Captured, Guest, SessionEnd, Sink};
use crate::commands::run::{delete, no_vm};
use crate::context::Context;
use crate::errors::Failure;
use crate::follow;
use crate::render::progress::{Lines, Progress};
use crate::render::time::duration;
use crate::waiting::{self, CommandWait};

/// Beginning of the codes of these checks.
const CODES: &str = "try.";
/// Time limit of each command, name and connection.
const LIMIT: Duration = Duration::from_secs(20);
/// A name of the Internet that is reserved for examples, RFC 2606.
const OUTSIDE: &str = "example.com";
/// Port of the guest's ssh server, a program that most images run.
const SSH: u16 = 22;
/// First bytes that an ssh server sends, RFC 4253, section 4.2.
const SSH_BANNER: &[u8] = b"SSH-";

/// Result of one check: the observation, or the error.
type Seen = Result<(Verdict, String), ApiError>;

/// Whether a check is one of [`run`].
pub fn is_of(check: &Check) -> bool {
    check.code.starts_with(CODES)
}

/// Creates a VM, uses it and deletes it. The daemon deletes the VM if this process ends before.
///
/// # Errors
/// Ctrl-C, after the VM has been deleted. What does not work is a check with that verdict.
pub async fn run(context: &Context) -> Result<Vec<Check>, Failure> {
    let prepared = async {
        let client = context.client().await?;
        Ok((client, free_port().map_err(|error| unexpected("cannot find a free port", &error))?))
    };
    let (client, host_port) = match prepared.await {
        Ok(prepared) => prepared,
        Err(error) => return Ok(vec![check("boot", Err(error))]),
    };
    let request = CreateVm {
        publish: vec![PortForward {
            listen: Ipv4Addr::LOCALHOST.into(),
            host_port,
            guest_port: SSH,
        }],
        nat: Some(true),
        lifetime: Lifetime::Session,
        ..CreateVm::default()
    };
    let (accepted, interrupts) = match follow::request(context, client.create(&request)).await {
        Ok(requested) => requested,
        Err(Failure::Api(error)) => return Ok(vec![check("boot", Err(*error))]),
        Err(failure) => return Err(failure),
    };
    let vm = accepted.vm.clone().ok_or_else(no_vm)?;
    // A creation that has failed already has no VM to hold; its operation has the reason.
    let hold = client.hold(&vm.id).await;
    let track = Progress::new(context, Lines::Fetches).track(vm.name.as_str());
    let followed = follow::accepted(&client, (&accepted, interrupts), track, OnInterrupt::Cancel);
    let mut checks = Vec::new();
    let used = match followed.await {
        Ok(_) => {
            let vm = RunningVm { context, client: &client, tag: &vm, host_port };
            context.interrupts.run_interruptible(vm.checks(&mut checks)).await
        }
        Err(Failure::Api(error)) => {
            checks.push(check("boot", Err(*error)));
            Ok(())
        }
        Err(failure) => Err(failure),
    };
    let deleted = delete(context, &client, &vm).await;
    if let Ok(hold) = hold {
        hold.release().await;
    }
    used?;
    match deleted {
        Ok(()) => checks.push(check("delete", nothing_left(&client, &vm).await)),
        Err(Failure::Api(error)) => checks.push(check("delete", Err(*error))),
        Err(failure) => return Err(failure),
    }
    Ok(checks)
}

/// A port of the loopback address that nothing listens on now.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn check(name: &str, seen: Seen) -> Check {
    let (verdict, seen, hints) = match seen {
        Ok((verdict, seen)) => (verdict, seen, Vec::new()),
        Err(error) => (Verdict::Missing, error.line(), error.hints),
    };
    Check { code: format!("{CODES}{name}"), verdict, seen, hints, needed_for: Vec::new() }
}

fn unexpected(text: impl Into<String>, error: &dyn std::error::Error) -> ApiError {
    ApiError::new(ErrorCode::Internal, text).caused_by(error)
}

/// The deleted VM does not exist, and the daemon finds nothing on the host that was its.
async fn nothing_left(client: &Client, vm: &VmTag) -> Seen {
    match client.vm(vm.id.as_str()).await {
        Err(error) if error.code == ErrorCode::NotFound => {}
        Err(error) => return Err(error),
        Ok(_) => {
            let text = format!("`{}` exists after it was deleted", vm.name);
            return Err(ApiError::new(ErrorCode::Internal, text));
        }
    }
    let found = client.doctor().await?;
    match found.into_iter().find(|check| check.seen.contains(vm.id.as_str())) {
        None => Ok((Verdict::Ok, format!("deleted `{}`, nothing of it is left", vm.name))),
        Some(left) => Err(ApiError::new(ErrorCode::Internal, left.seen)),
    }
}

struct RunningVm<'a> {
    context: &'a Context,
    client: &'a Client,
    tag: &'a VmTag,
    host_port: u16,
}

impl RunningVm<'_> {
    async fn checks(&self, checks: &mut Vec<Check>) {
        let details = match self.client.vm(self.tag.id.as_str()).await {
            Ok(details) => details,
            Err(error) => return checks.push(check("boot", Err(error))),
        };
        let (image, vmm) = (&details.summary.image, &details.drivers.vmm);
        let ready = details.start.as_ref().map(|start| start.total_ms).map(duration);
        let seen = format!(
            "`{}` of image {image} was ready under {vmm} in {}",
            self.tag.name,
            ready.as_deref().unwrap_or("unknown time")
        );
        checks.push(check("boot", Ok((Verdict::Ok, seen))));
        checks.push(check("command", self.command().await));
        checks.push(check("name", self.name(&details).await));
        checks.push(check("internet", self.internet().await));
        checks.push(check("port", self.port().await));
    }

    /// Standard output of a shell script in the guest, and its exit code.
    async fn script(&self, script: &str) -> Result<(String, u8), ApiError> {
        let name = self.tag.name.as_str();
        let request = ExecRequest {
            argv: ["/bin/sh", "-c", script].map(Into::into).to_vec(),
            ..ExecRequest::default()
        };
        let wait = CommandWait::default();
        let session = waiting::connection(self.context, self.client, name, wait).await;
        let session = session.map_err(|failure| match failure {
            Failure::Api(error) | Failure::Cancelled(error) => *error,
            Failure::WaitEnded | Failure::BrokenPipe => {
                ApiError::new(ErrorCode::Cancelled, "the wait was interrupted")
            }
        })?;
        let mut sink = Sink::Memory(Captured::default());
        let guest = Guest { client: self.client, vm: name };
        let running = attach::run(session, &request, &mut sink, &guest);
        let late = |_| {
            let text = format!("`{script}` did not end within {} s in `{name}`", LIMIT.as_secs());
            ApiError::new(ErrorCode::Timeout, text).with_hint(Hint::check(name))
        };
        let ended = timeout(LIMIT, running).await.map_err(late)??;
        let output = match sink {
            Sink::Memory(captured) => String::from_utf8_lossy(&captured.stdout).into_owned(),
            Sink::Streams => String::new(),
        };
        match ended {
            SessionEnd::Exited(ExitStatus::NotStarted { message, .. }) => {
                Err(ApiError::new(ErrorCode::GuestFailed, message))
            }
            SessionEnd::Exited(status) => Ok((output, status.shell_code())),
            SessionEnd::Interrupted(code) => Ok((output, code)),
            SessionEnd::Unresponsive(_, reason) => {
                Err(ApiError::new(ErrorCode::GuestFailed, reason).with_hint(Hint::check(name)))
            }
        }
    }

    async fn command(&self) -> Seen {
        let (output, code) = self.script("echo $((6 * 7)); uname -sr; exit 3").await?;
        match (output.split_once('\n'), code) {
            (Some(("42", kernel)), 3) => {
                let kernel = kernel.trim();
                Ok((
                    Verdict::Ok,
                    format!("a command ran on {kernel}; its output and exit code arrived"),
                ))
            }
            _ => {
                let text =
                    format!("a command returned {code} and the output {output:?}, not 3 and 42");
                Err(ApiError::new(ErrorCode::GuestFailed, text))
            }
        }
    }

    /// The host's resolver knows the VM's name, where the VM has an address.
    async fn name(&self, details: &VmDetails) -> Seen {
        let name = format!("{}.vm", self.tag.name);
        let Some(address) = &details.summary.ip else {
            let network = &details.drivers.network;
            let text = format!("no name: with the network `{network}` VMs have no address");
            return Ok((Verdict::Ok, text));
        };
        let resolved = timeout(LIMIT, lookup_host((name.as_str(), SSH))).await;
        let found = resolved.ok().and_then(Result::ok).into_iter().flatten().next();
        match found.map(|found| found.ip().to_string()) {
            Some(found) if found == *address => {
                Ok((Verdict::Ok, format!("this host resolves {name} to {address}")))
            }
            Some(found) => {
                let text = format!("this host resolves {name} to {found}, not to {address}");
                Err(ApiError::new(ErrorCode::Internal, text))
            }
            None => Ok((Verdict::Warning, format!("this host does not resolve {name}"))),
        }
    }

    /// The guest resolves a name of the Internet, if this host does.
    async fn internet(&self) -> Seen {
        let known = timeout(LIMIT, lookup_host((OUTSIDE, SSH))).await;
        if !known.is_ok_and(|known| known.is_ok()) {
            let text = format!("not tried: this host does not resolve {OUTSIDE} itself");
            return Ok((Verdict::Warning, text));
        }
        let script = format!("getent hosts {OUTSIDE} || nslookup {OUTSIDE}");
        match self.script(&script).await? {
            (_, 0) => Ok((Verdict::Ok, format!("the guest resolves {OUTSIDE}"))),
            (_, code) => {
                let text = format!("this host resolves {OUTSIDE}, the guest does not ({code})");
                Err(ApiError::new(ErrorCode::GuestFailed, text))
            }
        }
    }

    /// The guest's ssh server answers on the published port.
    async fn port(&self) -> Seen {
        let port = self.host_port;
        match self.client.connect_port(self.tag.id.as_str(), SSH, LIMIT).await? {
            Port::Open(_) => {}
            Port::Closed => {
                let text = format!("not tried: nothing listens on port {SSH} of this image");
                return Ok((Verdict::Warning, text));
            }
        }
        let mut banner = [0; SSH_BANNER.len()];
        let reading = async {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            stream.read_exact(&mut banner).await
        };
        let text = format!("127.0.0.1:{port} does not lead to port {SSH} of the guest");
        let late = |_| ApiError::new(ErrorCode::Timeout, text.clone());
        let read = timeout(LIMIT, reading).await.map_err(late)?;
        match read {
            Ok(_) if banner == SSH_BANNER => {
                let text = format!("127.0.0.1:{port} leads to port {SSH} of the guest");
                Ok((Verdict::Ok, text))
            }
            Ok(_) => Err(ApiError::new(ErrorCode::GuestFailed, text)),
            Err(error) => Err(unexpected(text, &error)),
        }
    }
}
