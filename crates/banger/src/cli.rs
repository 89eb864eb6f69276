//! The command tree, and the exit codes of usage errors.

use std::ffi::OsString;

use banger_api::exit;
use banger_api::limits::VmDefaults;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::alias::{self, Alias};
use crate::commands::web;
use crate::commands::{
    acp, agent, api, completion, cp, daemon, doctor, exec, image, kernel, man, mcp, operation, run,
    serve, ssh, ssh_config, ssh_proxy, system, tui, version, vm,
};
use crate::errors::output_failed;
use crate::{render, usage, values};

/// banger gives you a real Linux machine in one command.
///
///   banger run                    a machine and a shell in it
///   banger run --rm uname -a      one command in a machine that is gone afterwards
///   banger vm list                all machines
#[derive(Debug, Parser)]
#[command(
    name = "banger", version, verbatim_doc_comment, after_help = alias::HELP, max_term_width = 100
)]
pub struct Cli {
    /// Global flags.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Global flags.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Print one JSON document instead of text
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// Print only results, warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,
    /// Print every stage and operation id
    #[arg(short, long, global = true, help_heading = "Output")]
    pub verbose: bool,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Run(run::Args),
    Ps(vm::list::PsArgs),
    Exec(exec::Args),
    Cp(cp::Args),
    Ssh(ssh::Args),
    /// Create, start, stop, inspect and delete virtual machines.
    ///
    ///   banger vm create --name web
    ///   banger vm shell web
    ///   banger vm list
    #[command(subcommand, verbatim_doc_comment)]
    Vm(vm::Command),
    /// Fetch, create and delete images: root file systems for VMs.
    ///
    ///   banger image list
    ///   banger image pull debian
    ///   banger image import rootfs.tar.zst
    #[command(subcommand, verbatim_doc_comment)]
    Image(image::Command),
    /// Fetch and delete kernels that VMs boot.
    ///
    ///   banger kernel list
    ///   banger kernel pull
    #[command(subcommand, verbatim_doc_comment)]
    Kernel(kernel::Command),
    /// Show what banger stores on the disk, and remove what nothing uses.
    ///
    ///   banger system df
    ///   banger system prune
    #[command(subcommand, verbatim_doc_comment)]
    System(system::Command),
    /// Show and cancel operations: what the daemon does for commands.
    ///
    ///   banger operation list --running
    ///   banger operation cancel op-abc123
    #[command(subcommand, verbatim_doc_comment, visible_alias = "op")]
    Operation(operation::Command),
    /// Control the daemon that manages the VMs. Commands start it if needed.
    ///
    ///   banger daemon status
    ///   banger daemon logs -f
    #[command(subcommand, verbatim_doc_comment)]
    Daemon(daemon::Command),
    Tui(tui::Args),
    Web(web::Args),
    Doctor(doctor::Args),
    /// Make the shell commands of coding agents run in a machine.
    ///
    ///   banger agent install claude . --vm web
    ///   banger agent status
    #[command(subcommand, verbatim_doc_comment)]
    Agent(agent::Command),
    Acp(acp::Args),
    Mcp(mcp::Args),
    Serve(serve::Args),
    Api(api::Args),
    SshConfig(ssh_config::Args),
    #[command(hide = true)]
    SshProxy(ssh_proxy::Args),
    Completion(completion::Args),
    #[command(hide = true, name = "__complete")]
    Complete(completion::CompleteArgs),
    #[command(hide = true, name = "__man")]
    Man(man::Args),
    Version(version::Args),
    #[command(flatten)]
    Alias(Alias),
}

/// Origin of the exit code of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCodeOf {
    /// banger itself.
    Banger,
    /// A command in the guest; failures of banger have a code of their own.
    Guest,
}

impl Command {
    /// Origin of the exit code.
    pub fn exit_code_of(&self) -> ExitCodeOf {
        match self {
            Self::Run(_) | Self::Exec(_) | Self::Ssh(_) | Self::Acp(_) => ExitCodeOf::Guest,
            Self::Vm(
                vm::Command::Run(_)
                | vm::Command::Exec(_)
                | vm::Command::Shell(_)
                | vm::Command::Ssh(_),
            )
            | Self::Alias(Alias::Shell(_)) => ExitCodeOf::Guest,
            _ => ExitCodeOf::Banger,
        }
    }
}

/// Whether a command line asks for help, which shows the defaults of a new VM.
pub fn asks_for_help(arguments: &[OsString]) -> bool {
    let ends = |word: &&OsString| *word == "--";
    let words = arguments.iter().skip(1).take_while(|word| !ends(word));
    words.into_iter().any(|word| word == "--help" || word == "-h" || word == "help")
}

/// The command that scripts and agents run most, without the tree of all others: building that
/// takes a third of the time until a command runs.
#[derive(Debug, Parser)]
#[command(name = "banger", disable_help_flag = true, disable_help_subcommand = true)]
struct Frequent {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: FrequentCommand,
}

#[derive(Debug, Subcommand)]
enum FrequentCommand {
    Exec(exec::Args),
}

/// Parses `banger exec …`; none for another command, for help and for an invalid command line.
fn frequent(arguments: &[OsString]) -> Option<Cli> {
    if arguments.get(1).is_none_or(|word| word != "exec") || asks_for_help(arguments) {
        return None;
    }
    let Frequent { global, command: FrequentCommand::Exec(args) } =
        Frequent::try_parse_from(arguments).ok()?;
    Some(Cli { global, command: Command::Exec(args) })
}

/// Parses the command line. Prints help and usage errors; their exit code is the error.
pub fn parse(arguments: &[OsString], defaults: Option<&VmDefaults>) -> Result<Cli, u8> {
    if let Some(cli) = frequent(arguments) {
        return Ok(cli);
    }
    // Dropping the tree of all commands takes a sixth of the time until a command runs.
    let tree = values::with_defaults(Cli::command(), defaults);
    let parsed = std::mem::ManuallyDrop::new(tree)
        .try_get_matches_from_mut(arguments)
        .and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    parsed.map_err(|error| {
        if !error.use_stderr() {
            return match error.print() {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                    render::error(&output_failed(&error));
                    exit::FAILED
                }
                _ => exit::OK,
            };
        }
        usage::show(&error, arguments);
        match guess_exit_code_of(arguments) {
            ExitCodeOf::Guest => exit::RUN_FAILED,
            ExitCodeOf::Banger => exit::USAGE,
        }
    })
}

/// Guesses the command of an invalid command line.
fn guess_exit_code_of(arguments: &[OsString]) -> ExitCodeOf {
    let words = arguments.iter().skip(1).map(|word| word.to_string_lossy());
    let mut words = words.filter(|word| !word.starts_with('-'));
    let first = words.next();
    let verb = if first.as_deref() == Some("vm") { words.next() } else { first.clone() };
    match (first.as_deref(), verb.as_deref()) {
        (_, Some("run" | "exec" | "shell" | "sh" | "ssh" | "acp")) => ExitCodeOf::Guest,
        _ => ExitCodeOf::Banger,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_frequent_command_is_parsed_as_by_the_whole_tree() {
        for line in [
            "banger exec web -- true",
            "banger exec web true -x --json",
            "banger exec -it -u 1:2 -w /x -e A=1 --json -q web sh",
            "banger exec --wait ready web uname",
            "banger exec web",
            "banger exec --nope web true",
            "banger exec",
            "banger exec --help",
            "banger -q exec web true",
            "banger ps",
        ] {
            let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
            let whole = Cli::try_parse_from(&words).ok().map(|cli| format!("{cli:?}"));
            let is_frequent = words[1] == "exec" && !line.contains("--help");
            let expected = whole.filter(|_| is_frequent);
            assert_eq!(frequent(&words).map(|cli| format!("{cli:?}")), expected, "{line}");
        }
    }

    #[test]
    fn the_verb_decides_the_exit_code_of_a_usage_error() {
        for (line, exit_code_of) in [
            ("banger run --vcpus 0", ExitCodeOf::Guest),
            ("banger -q exec", ExitCodeOf::Guest),
            ("banger vm exec x", ExitCodeOf::Guest),
            ("banger vm shell", ExitCodeOf::Guest),
            ("banger vm run --x", ExitCodeOf::Guest),
            ("banger shell", ExitCodeOf::Guest),
            ("banger acp", ExitCodeOf::Guest),
            ("banger stop", ExitCodeOf::Banger),
            ("banger vm stop", ExitCodeOf::Banger),
            ("banger vm", ExitCodeOf::Banger),
            ("banger", ExitCodeOf::Banger),
        ] {
            let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
            assert_eq!(guess_exit_code_of(&words), exit_code_of, "{line}");
        }
    }
}
