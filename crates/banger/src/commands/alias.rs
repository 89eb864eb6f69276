//! Short forms of commands without the noun, and hints for the command names of other tools.

use clap::Subcommand;

use crate::cli::Command;
use crate::commands::{image, vm};

/// Aliases of commands of `vm` and `image`. They are hidden: the help of `banger` lists them in
/// one paragraph.
#[derive(Debug, Subcommand)]
pub enum Alias {
    #[command(hide = true, alias = "list")]
    Ls(vm::list::Args),
    #[command(hide = true, alias = "launch")]
    Create(vm::create::Args),
    #[command(hide = true)]
    Start(vm::action::StartArgs),
    #[command(hide = true, alias = "shutdown", alias = "poweroff")]
    Stop(vm::action::StopArgs),
    #[command(hide = true, alias = "reboot")]
    Restart(vm::action::RestartArgs),
    #[command(hide = true)]
    Kill(vm::action::KillArgs),
    #[command(hide = true, aliases = ["delete", "remove", "destroy"])]
    Rm(vm::action::DeleteArgs),
    #[command(hide = true)]
    Repair(vm::action::RepairArgs),
    #[command(hide = true)]
    Rename(vm::rename::Args),
    #[command(hide = true)]
    Reset(vm::action::ResetArgs),
    #[command(hide = true, aliases = ["inspect", "info"])]
    Show(vm::show::Args),
    #[command(hide = true, alias = "sh")]
    Shell(vm::shell::Args),
    #[command(hide = true, alias = "log")]
    Logs(vm::logs::Args),
    #[command(hide = true, alias = "top")]
    Stats(vm::stats::Args),
    #[command(hide = true)]
    Health(vm::health::Args),
    #[command(hide = true)]
    Events(vm::events::Args),
    #[command(hide = true, alias = "port")]
    Ports(vm::ports::Args),
    #[command(hide = true)]
    Prune(vm::prune::Args),
    /// See what changed in a machine's repository, bring it here, and send changes.
    ///
    ///   banger workspace status web
    ///   banger workspace pull web
    #[command(hide = true, subcommand, verbatim_doc_comment, alias = "ws")]
    Workspace(vm::workspace::Command),
    #[command(hide = true)]
    Images(image::list::Args),
    #[command(hide = true)]
    Pull(image::pull::Args),
    #[command(hide = true)]
    Import(image::import::Args),
    #[command(hide = true)]
    Rmi(image::delete::Args),
}

/// The paragraph of the help.
pub const HELP: &str = "\
Short forms:
  ls create start stop restart kill rm show shell
  logs stats health ports events prune workspace    as in `banger vm`
  images pull import rmi                            as in `banger image`

Exit codes:
  0 success, 1 failed, 2 usage, 3 not found, 4 refused in the present state, 5 host not ready;
  run, exec, shell and ssh: that of the command in the guest, 125 for a failure of banger";

impl From<Alias> for Command {
    fn from(short: Alias) -> Self {
        match short {
            Alias::Ls(args) => Self::Vm(vm::Command::List(args)),
            Alias::Create(args) => Self::Vm(vm::Command::Create(args)),
            Alias::Start(args) => Self::Vm(vm::Command::Start(args)),
            Alias::Stop(args) => Self::Vm(vm::Command::Stop(args)),
            Alias::Restart(args) => Self::Vm(vm::Command::Restart(args)),
            Alias::Kill(args) => Self::Vm(vm::Command::Kill(args)),
            Alias::Rm(args) => Self::Vm(vm::Command::Delete(args)),
            Alias::Repair(args) => Self::Vm(vm::Command::Repair(args)),
            Alias::Rename(args) => Self::Vm(vm::Command::Rename(args)),
            Alias::Reset(args) => Self::Vm(vm::Command::Reset(args)),
            Alias::Show(args) => Self::Vm(vm::Command::Show(args)),
            Alias::Shell(args) => Self::Vm(vm::Command::Shell(args)),
            Alias::Logs(args) => Self::Vm(vm::Command::Logs(args)),
            Alias::Stats(args) => Self::Vm(vm::Command::Stats(args)),
            Alias::Health(args) => Self::Vm(vm::Command::Health(args)),
            Alias::Events(args) => Self::Vm(vm::Command::Events(args)),
            Alias::Ports(args) => Self::Vm(vm::Command::Ports(args)),
            Alias::Prune(args) => Self::Vm(vm::Command::Prune(args)),
            Alias::Workspace(command) => Self::Vm(vm::Command::Workspace(command)),
            Alias::Images(args) => Self::Image(image::Command::List(args)),
            Alias::Pull(args) => Self::Image(image::Command::Pull(args)),
            Alias::Import(args) => Self::Image(image::Command::Import(args)),
            Alias::Rmi(args) => Self::Image(image::Command::Delete(args)),
        }
    }
}

/// A hint for an unknown command name.
pub fn suggestion(word: &str) -> Option<&'static str> {
    Some(match word {
        "attach" | "enter" | "connect" | "login" => "`banger shell VM` opens a shell in a machine",
        "console" | "tail" => "`banger logs VM` shows the console of a machine",
        "up" | "new" | "init" | "add" => {
            "`banger run` makes a machine with a shell in it, `banger create` one without"
        }
        "down" | "halt" | "off" => "`banger stop VM` stops a machine",
        "diff" => "`banger workspace diff VM` shows what changed in a machine's repository",
        "status" | "vms" | "machines" => {
            "`banger ps` shows the machines that run, `banger daemon status` the daemon"
        }
        "build" | "commit" | "save" => "`banger image --help` shows what can be done with images",
        "scp" | "rsync" => "`banger ssh-config --install` lets `scp` and `rsync` reach NAME.vm",
        "copy" | "push" => "`banger cp PATH VM:` copies files into a machine",
        "publish" | "expose" => {
            "`banger ports` shows published ports, `-p` of `run` and `create` publishes them"
        }
        "name" => "`--name` of `run` and `create` names a machine, `banger rename` renames it",
        "rebuild" => "`banger reset VM` gives a machine a fresh root disk",
        "kernels" => "`banger kernel list` shows all kernels",
        "check" | "verify" => "`banger doctor` checks this host",
        _ => return None,
    })
}
