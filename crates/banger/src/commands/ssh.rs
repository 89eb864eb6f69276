//! `banger ssh`, `banger vm ssh`.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};

use banger_api::operation::VmTag;
use banger_api::{ApiError, ErrorCode, Hint};
use banger_client::Handover;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::signal::unix::{SignalKind, signal};

use crate::commands::ssh_config;
use crate::commands::vm::shell::report_running;
use crate::context::{Context, Format};
use crate::errors::{Failure, usage};
use crate::ssh::{self, PORT, reach};

/// Log in to a VM, or run a command in it, with OpenSSH; its exit code is ours.
///
///   banger ssh web
///   banger ssh web uname -a
///   banger ssh -L 8080:localhost:80 web
///
/// The VM needs an ssh server; `banger shell` and `banger exec` do not. The host
/// key of the VM is known, and root of the VM accepts the key of banger.
/// `banger ssh-config --install` lets `ssh web.vm` and scp do the same. Flags of
/// banger must precede the command.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub vm: String,
    /// User to log in as [default: root]
    #[arg(short, long, value_name = "USER", default_value = "root", hide_default_value = true)]
    pub user: String,
    /// Forward a port of this host to the guest's side, as `ssh -L` does; repeatable
    #[arg(short = 'L', value_name = "FORWARD")]
    pub local: Vec<OsString>,
    /// Forward a port of the guest to this host's side, as `ssh -R` does; repeatable
    #[arg(short = 'R', value_name = "FORWARD")]
    pub remote: Vec<OsString>,
    /// Forward the ssh agent, as `ssh -A` does
    #[arg(short = 'A', long = "ssh-agent")]
    pub agent: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Option of ssh_config(5); repeatable
    #[arg(short, value_name = "OPTION")]
    pub option: Vec<OsString>,
    /// The command with its arguments, for the login shell of the user
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    if context.format == Format::Json {
        return Err(usage("a session of ssh cannot be shown as JSON").into());
    }
    let client = context.client().await?;
    let summary = client.vm(&args.vm).await?.summary;
    let vm = VmTag { id: summary.id, name: summary.name };
    let host = ssh::host_name(vm.name.as_str());
    let (paths, program) = (context.paths()?, ssh_config::program()?);
    // Reports what prevents a connection, before ssh does in words of its own.
    let stream = reach::reach(context, &client, vm.name.as_str(), &host, PORT).await?;
    // Without an offer the proxy connects itself.
    let offer = Handover::new(stream).ok();
    let name = offer.as_ref().map(Handover::name);
    let options = ssh::options(&paths, &program, |name| std::env::var_os(name), name)?;
    // Ends when the proxy has the connection, or with this process.
    tokio::spawn(async move {
        if let Some(offer) = offer {
            let _ = offer.serve().await;
        }
    });
    let mut command = Command::new("ssh");
    // Of several values ssh takes the first one; the user is a flag.
    let ours = options.into_iter().filter(|option| !option.as_bytes().starts_with(b"User "));
    for option in args.option.iter().cloned().chain(ours) {
        command.arg("-o").arg(option);
    }
    command.arg("-o").arg(format!("HostKeyAlias {host}"));
    command.arg("-o").arg(format!("Port {PORT}")).arg("-l").arg(&args.user);
    let forwards = [("-L", &args.local), ("-R", &args.remote)];
    for (flag, forward) in forwards.iter().flat_map(|(f, all)| all.iter().map(move |one| (f, one)))
    {
        command.arg(flag).arg(forward);
    }
    for (flag, _) in [("-A", args.agent), ("-t", args.tty)].iter().filter(|(_, given)| *given) {
        command.arg(flag);
    }
    command.arg("--").arg(&host).args(&args.command);
    let code = wait(start(command)?).await.map_err(|error| {
        ApiError::new(ErrorCode::Internal, "cannot wait for ssh").caused_by(&error)
    })?;
    report_running(context, &client, &vm).await;
    Ok(code)
}

fn start(mut command: Command) -> Result<Child, ApiError> {
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            ApiError::new(ErrorCode::HostNotReady, "the program `ssh` is not installed").with_hint(
                Hint::text("install OpenSSH's client; on Debian and Ubuntu: openssh-client"),
            )
        }
        _ => ApiError::new(ErrorCode::Internal, "cannot start `ssh`").caused_by(&error),
    })
}

/// Waits for ssh and gives its exit code. ssh gets the keys of the terminal itself; SIGTERM and
/// SIGHUP are passed on, and this process stops when ssh does (`~^Z`), so that the user's shell
/// notices.
async fn wait(mut ssh: Child) -> io::Result<u8> {
    let mut ended = signal(SignalKind::child())?;
    let mut ignored = [signal(SignalKind::interrupt())?, signal(SignalKind::quit())?];
    let (mut term, mut hup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let pid = i32::try_from(ssh.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("no process id"))?;
    loop {
        if let Some(status) = ssh.try_wait()? {
            let code = status.code().or_else(|| status.signal().map(|number| 128 + number));
            return Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255));
        }
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        if waitid(WaitId::Pid(pid), stopped)?.is_some_and(|status| status.stopped()) {
            // The shell continues the whole process group.
            let _ = kill_process(rustix::process::getpid(), Signal::STOP);
        }
        let [interrupt, quit] = &mut ignored;
        tokio::select! {
            _ = ended.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
            _ = term.recv() => { let _ = kill_process(pid, Signal::TERM); }
            _ = hup.recv() => { let _ = kill_process(pid, Signal::HUP); }
        }
    }
}
