//! The host's opencode, attached to the opencode server of a machine.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use banger_api::opencode::{OpencodeAccess, PASSWORD_VARIABLES, PORT};
use banger_api::operation::VmTag;
use banger_api::vm::VmSummary;
use banger_api::{ApiError, ErrorCode, Hint, exit};
use banger_client::{Client, MAX_PORT_WAIT, Port};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream, UnixStream, lookup_host};
use tokio::process::Command;

use crate::context::{self, Context};
use crate::errors::{Failure, usage};
use crate::ssh;

/// Name of the program.
const PROGRAM: &str = "opencode";
/// A name that only version 2 has, beside the other one.
const PROGRAM_2: &str = "opencode2";
/// Folder where it works if no repository was sent.
const HOME: &str = "/root";
/// A program that fails within this time has not been used.
const AT_ONCE: Duration = Duration::from_secs(10);
/// Variables with hosts that are reached without a proxy.
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// The host's opencode, if it is installed.
pub fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let find = |name| {
        std::env::split_paths(&path)
            .map(|folder| folder.join(name))
            .find(|program| rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_ok())
    };
    find(PROGRAM).or_else(|| find(PROGRAM_2))
}

/// The refusal of a machine that would be deleted before anyone could attach to it.
pub fn missing() -> ApiError {
    usage("this host has no `opencode` to attach, and `--rm` would delete the machine at once")
        .with_hint(Hint::text("`npm install -g opencode-ai` installs it"))
}

/// Refuses an image that is here and has no opencode, before a machine is made of it. Without a
/// name it is the daemon's default.
///
/// # Errors
/// That refusal, or one of the daemon.
pub async fn check_image(client: &Client, image: Option<&str>) -> Result<(), ApiError> {
    let default = context::defaults().await.map(|defaults| defaults.image);
    let Some(name) = image.map(str::to_owned).or(default) else { return Ok(()) };
    match client.image(&name).await {
        Ok(image) if !image.opencode => Err(without(&name)),
        Ok(_) => Ok(()),
        // It may be pulled.
        Err(missing) if missing.code == ErrorCode::NotFound => Ok(()),
        Err(failed) => Err(failed),
    }
}

fn without(image: &str) -> ApiError {
    let text = format!("the image `{image}` has no opencode");
    ApiError::new(ErrorCode::BadRequest, text)
        .with_hint(Hint::text("`banger image pull debian-dev` makes one that has it"))
}

/// Attaches the host's opencode to a machine until it ends, or says how to do it by hand.
///
/// # Errors
/// An image without opencode; a server that does not answer; a program that cannot be started.
pub async fn attach(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    folder: Option<&Path>,
) -> Result<u8, Failure> {
    let summary = client.vm(vm.id.as_str()).await?.summary;
    let access = access(client, &summary).await?;
    let folder = folder.unwrap_or(Path::new(HOME));
    let Some(program) = installed() else {
        say_how(context, &summary, folder).await;
        return Ok(exit::OK);
    };
    // Reported here, before the program does in words of its own.
    let ready = client.connect_port(vm.id.as_str(), PORT, MAX_PORT_WAIT);
    if let Port::Closed = context.interrupts.run_interruptible(ready).await?? {
        return Err(not_listening(&summary).into());
    }
    let (url, relay) = match by_name(&summary).await {
        Some(url) => (url, None),
        None => {
            let (url, relay) = forward(client.clone(), vm.id.to_string()).await?;
            (url, Some(relay))
        }
    };
    let program = Attached { program: &program, url: &url, password: &access.password, vm };
    let ended = program.run(context, folder).await;
    if let Some(relay) = relay {
        relay.abort();
    }
    let status = ended.map_err(|error| {
        let text = format!("`{}` cannot be started", program.program.display());
        ApiError::new(ErrorCode::HostNotReady, text).caused_by(&error)
    })?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::FAILED))
}

/// A program that is attached to the server of a machine.
struct Attached<'a> {
    program: &'a Path,
    url: &'a str,
    password: &'a str,
    vm: &'a VmTag,
}

impl Attached<'_> {
    /// Runs it until it ends.
    async fn run(&self, context: &Context, folder: &Path) -> std::io::Result<ExitStatus> {
        let major = major(self.program).await;
        let began = Instant::now();
        let status = self.spawn(&arguments(major, self.url, Some(folder))).await?;
        // Early versions 2 would enter the folder on this host, where it is not.
        let is_refused = major >= Some(2) && !status.success() && began.elapsed() < AT_ONCE;
        if !is_refused {
            return Ok(status);
        }
        let text = "this opencode cannot begin in a folder of the machine, and begins without";
        context.info(&format!("{text}: go to `{}` in it", folder.display()));
        self.spawn(&arguments(major, self.url, None)).await
    }

    /// The program has the terminal; Ctrl-C is its own.
    async fn spawn(&self, arguments: &[OsString]) -> std::io::Result<ExitStatus> {
        let mut command = Command::new(self.program);
        command.args(arguments).envs(PASSWORD_VARIABLES.map(|name| (name, self.password)));
        let host = ssh::host_name(self.vm.name.as_str());
        for name in NO_PROXY {
            command.env(name, without_proxy(std::env::var_os(name), &host));
        }
        command.status().await
    }
}

/// The access to the server of a machine.
async fn access(client: &Client, vm: &VmSummary) -> Result<OpencodeAccess, ApiError> {
    let secrets = client.secrets(vm.id.as_str()).await?;
    secrets.opencode.ok_or_else(|| without(&vm.image))
}

fn not_listening(vm: &VmSummary) -> ApiError {
    let name = &vm.name;
    let text = format!("opencode does not listen on port {PORT} of `{name}`");
    ApiError::new(ErrorCode::GuestFailed, text).with_hint(Hint::text(format!(
        "`banger exec {name} -- cat /run/opencode/log` shows its output"
    )))
}

/// Prints the command that attaches another host's opencode, or one that is installed later.
///
/// # Errors
/// An image without opencode.
pub async fn how(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    folder: Option<&Path>,
) -> Result<(), Failure> {
    let summary = client.vm(vm.id.as_str()).await?.summary;
    access(client, &summary).await?;
    say_how(context, &summary, folder.unwrap_or(Path::new(HOME))).await;
    Ok(())
}

async fn say_how(context: &Context, vm: &VmSummary, folder: &Path) {
    let name = &vm.name;
    context.info(&format!("`{name}` serves opencode; to attach to it by hand:"));
    let url = by_name(vm).await.or_else(|| published(vm));
    if url.is_none() {
        context.info(&format!(
            "  banger vm set {name} --publish {PORT}:{PORT} && banger vm restart {name}"
        ));
    }
    let url = url.unwrap_or_else(|| format!("http://127.0.0.1:{PORT}"));
    context.info(&format!("  banger vm show {name} --secrets    # the password"));
    let [variable, variable_2] = PASSWORD_VARIABLES;
    let folder = folder.display();
    context.info(&format!("  {variable}=PASSWORD {PROGRAM} attach {url} --dir {folder}"));
    context
        .info(&format!("  {variable_2}=PASSWORD {PROGRAM} --server {url} {folder}    # version 2"));
}

/// The URL with the name of the machine, where the name leads to its address.
pub async fn by_name(vm: &VmSummary) -> Option<String> {
    let address: IpAddr = vm.ip.as_ref()?.parse().ok()?;
    let host = ssh::host_name(vm.name.as_str());
    let mut found = lookup_host((host.as_str(), PORT)).await.ok()?;
    found.any(|found| found.ip() == address).then(|| format!("http://{host}:{PORT}"))
}

/// The URL of the published port of the server.
fn published(vm: &VmSummary) -> Option<String> {
    let port = vm.publish.iter().find(|port| port.guest_port == PORT)?;
    Some(format!("http://{}", port.listens_on()))
}

/// A port of the loopback address that leads to the server, as long as the task runs.
async fn forward(
    client: Client,
    vm: String,
) -> Result<(String, tokio::task::JoinHandle<()>), ApiError> {
    let failed = |error: std::io::Error| {
        ApiError::new(ErrorCode::Internal, "cannot forward a port of 127.0.0.1").caused_by(&error)
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let accept = async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (client, vm) = (client.clone(), vm.clone());
            tokio::spawn(async move {
                // The program sees a closed connection, and reports it.
                let _ = relay(&client, &vm, stream).await;
            });
        }
    };
    Ok((format!("http://{address}"), tokio::spawn(accept)))
}

async fn relay(client: &Client, vm: &str, mut stream: TcpStream) -> Result<(), Failure> {
    let Port::Open(guest) = client.connect_port(vm, PORT, MAX_PORT_WAIT).await? else {
        return Ok(());
    };
    stream.write_all(&guest.early).await?;
    let guest = guest.into_std()?;
    guest.set_nonblocking(true)?;
    let mut guest = UnixStream::from_std(guest)?;
    let (mut from_guest, mut to_guest) = guest.split();
    let (mut from_program, mut to_program) = stream.split();
    // There is no half-close: the end of one direction is that of the connection.
    tokio::select! {
        _ = tokio::io::copy(&mut from_guest, &mut to_program) => {}
        _ = tokio::io::copy(&mut from_program, &mut to_guest) => {}
    }
    Ok(())
}

/// Major version of the program; none if it does not tell.
async fn major(program: &Path) -> Option<u32> {
    let mut command = Command::new(program);
    let output = command.arg("--version").stdin(Stdio::null()).output().await.ok()?;
    parse_major(&String::from_utf8_lossy(&output.stdout))
}

fn parse_major(version: &str) -> Option<u32> {
    let word = version.split_whitespace().last()?;
    word.trim_start_matches('v').split('.').next()?.parse().ok()
}

/// Arguments that attach to a server: since version 2 that is an option, and the folder, which is
/// the server's, an argument.
fn arguments(major: Option<u32>, url: &str, folder: Option<&Path>) -> Vec<OsString> {
    let (option, before_folder) = match major {
        Some(2..) => ("--server", None),
        Some(_) | None => ("attach", Some("--dir".into())),
    };
    let mut words: Vec<OsString> = vec![option.into(), url.into()];
    if let Some(folder) = folder {
        words.extend(before_folder);
        words.push(folder.into());
    }
    words
}

/// The variable with the hosts of the machine added.
fn without_proxy(value: Option<OsString>, host: &str) -> OsString {
    let ours = format!("{},{host}", Ipv4Addr::LOCALHOST);
    match value.filter(|value| !value.is_empty()) {
        Some(mut value) => {
            value.push(OsStr::new(","));
            value.push(ours);
            value
        }
        None => ours.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_major_version_has_its_command_line() {
        for (version, major) in [
            ("1.18.33\n", Some(1)),
            ("opencode v2.0.1\n", Some(2)),
            ("10.0.0-beta", Some(10)),
            ("", None),
            ("local", None),
        ] {
            assert_eq!(parse_major(version), major, "{version}");
        }
        let words = |major| arguments(major, "http://web.vm:4096", Some(Path::new("/root/app")));
        assert_eq!(words(Some(1)), ["attach", "http://web.vm:4096", "--dir", "/root/app"]);
        assert_eq!(words(None), words(Some(1)));
        assert_eq!(words(Some(2)), ["--server", "http://web.vm:4096", "/root/app"]);
    }

    #[test]
    fn the_machine_is_reached_without_a_proxy() {
        assert_eq!(without_proxy(None, "web.vm"), "127.0.0.1,web.vm");
        assert_eq!(without_proxy(Some("".into()), "web.vm"), "127.0.0.1,web.vm");
        assert_eq!(without_proxy(Some("a.b".into()), "web.vm"), "a.b,127.0.0.1,web.vm");
    }
}
