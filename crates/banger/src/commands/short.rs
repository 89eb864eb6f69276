//! Short forms: what people type without naming the noun, and words of other tools.

use clap::Subcommand;

use crate::cli::Command;
use crate::commands::{image, vm};

/// Commands that also exist below `vm` and `image`. They are hidden: the help of `banger` has one
/// line about all of them.
#[derive(Debug, Subcommand)]
pub enum Short {
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
    #[command(hide = true, aliases = ["inspect", "info"])]
    Show(vm::show::Args),
    #[command(hide = true, alias = "sh")]
    Shell(vm::shell::Args),
    #[command(hide = true, alias = "log")]
    Logs(vm::logs::Args),
    #[command(hide = true)]
    Health(vm::health::Args),
    #[command(hide = true)]
    Images(image::list::Args),
    #[command(hide = true)]
    Pull(image::pull::Args),
    #[command(hide = true)]
    Import(image::import::Args),
    #[command(hide = true)]
    Rmi(image::delete::Args),
}

/// The lines of help about them.
pub const HELP: &str = "\
Short forms:
  ls create start stop restart kill rm show shell logs health   as in `banger vm`
  images pull import rmi                                        as in `banger image`";

impl From<Short> for Command {
    fn from(short: Short) -> Self {
        match short {
            Short::Ls(args) => Self::Vm(vm::Command::List(args)),
            Short::Create(args) => Self::Vm(vm::Command::Create(args)),
            Short::Start(args) => Self::Vm(vm::Command::Start(args)),
            Short::Stop(args) => Self::Vm(vm::Command::Stop(args)),
            Short::Restart(args) => Self::Vm(vm::Command::Restart(args)),
            Short::Kill(args) => Self::Vm(vm::Command::Kill(args)),
            Short::Rm(args) => Self::Vm(vm::Command::Delete(args)),
            Short::Repair(args) => Self::Vm(vm::Command::Repair(args)),
            Short::Show(args) => Self::Vm(vm::Command::Show(args)),
            Short::Shell(args) => Self::Vm(vm::Command::Shell(args)),
            Short::Logs(args) => Self::Vm(vm::Command::Logs(args)),
            Short::Health(args) => Self::Vm(vm::Command::Health(args)),
            Short::Images(args) => Self::Image(image::Command::List(args)),
            Short::Pull(args) => Self::Image(image::Command::Pull(args)),
            Short::Import(args) => Self::Image(image::Command::Import(args)),
            Short::Rmi(args) => Self::Image(image::Command::Delete(args)),
        }
    }
}

/// What somebody may have meant by a word that is not a command.
pub fn meant(word: &str) -> Option<&'static str> {
    Some(match word {
        "ssh" | "attach" | "enter" | "connect" | "login" => {
            "`banger shell VM` opens a shell in a machine"
        }
        "console" | "tail" => "`banger logs VM` shows the console of a machine",
        "up" | "new" | "init" | "add" => {
            "`banger run` makes a machine with a shell in it, `banger create` one without"
        }
        "down" | "halt" | "off" => "`banger stop VM` stops a machine",
        "status" | "top" | "stats" | "vms" | "machines" => {
            "`banger ps` shows the machines that run, `banger daemon status` the daemon"
        }
        "build" | "commit" | "save" => "`banger image --help` shows what can be done with images",
        "cp" | "copy" | "scp" | "rsync" => {
            "`tar c PATH | banger exec -i VM tar x` copies files into a machine"
        }
        "port" | "ports" | "publish" => {
            "`banger ps` shows published ports, `-p` of `run` and `create` publishes them"
        }
        "name" | "rename" => "`--name` of `run` and `create` names a machine",
        "kernels" => "`banger kernel list` shows all kernels",
        "check" | "verify" => "`banger doctor` shows what this host has and lacks",
        _ => return None,
    })
}
