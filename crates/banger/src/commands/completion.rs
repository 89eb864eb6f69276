//! `banger completion`, and `banger __complete`, which its scripts call.

use std::ffi::OsString;
use std::time::Duration;

use banger_api::exit;
use clap::{CommandFactory, ValueEnum};

use crate::cli::Cli;
use crate::completion::{self, Candidate, Kind, Offer, names};
use crate::context::{Context, Format};
use crate::errors::{Failure, usage};

/// Time limit of the daemon's answer: without one, no names are offered.
const MAX_WAIT: Duration = Duration::from_millis(250);
/// Maximum number of values.
const MAX_VALUES: usize = 2000;

/// Print a script that lets a shell complete banger's commands and names of VMs.
///
///   banger completion bash >~/.local/share/bash-completion/completions/banger
///   banger completion zsh >~/.zfunc/_banger     to a folder of zsh's fpath
///   banger completion fish >~/.config/fish/completions/banger.fish
///
/// Installed packages of banger contain the scripts. For one shell only:
/// `source <(banger completion bash)`.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The shell
    pub shell: Shell,
}

/// A shell with a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash 4.4 or later
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

impl Shell {
    fn script(self) -> &'static str {
        match self {
            Self::Bash => include_str!("../../../../packaging/completions/banger.bash"),
            Self::Zsh => include_str!("../../../../packaging/completions/_banger"),
            Self::Fish => include_str!("../../../../packaging/completions/banger.fish"),
        }
    }
}

/// Runs `completion`.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    if context.format == Format::Json {
        return Err(usage("a script cannot be shown as JSON").into());
    }
    context.print(args.shell.script())?;
    Ok(exit::OK)
}

/// Print the values that the last word can have, for the scripts of `completion`.
///
///   banger __complete -- vm stop w
///
/// The first line is words, files or folders: what the word is. Each other line
/// has a value, a tab and a description.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct CompleteArgs {
    /// The words up to the cursor, without the first one, `banger`
    #[arg(last = true, allow_hyphen_values = true)]
    pub words: Vec<OsString>,
}

/// Runs `__complete`. No failure has a message: it would be in the middle of a command line.
pub async fn complete(context: &Context, args: CompleteArgs) -> Result<u8, Failure> {
    let mut command = Cli::command();
    command.build();
    let lossy = |word: &OsString| word.to_string_lossy().into_owned();
    let words: Vec<String> = args.words.iter().map(lossy).collect();
    let found = completion::complete(&command, &words);
    let candidates = match found.offer {
        Offer::Words(words) => words,
        Offer::Names(names) => {
            let fetched = match context.paths() {
                Ok(paths) => {
                    tokio::time::timeout(MAX_WAIT, names::fetch(paths, &names, &found.prefix)).await
                }
                Err(error) => Ok(Err(error)),
            };
            let fetched = fetched.ok().and_then(Result::ok).unwrap_or_default();
            if names.kind == Kind::VmPath && (found.prefix.is_empty() || fetched.is_empty()) {
                context.print("files\n")?;
                return Ok(exit::OK);
            }
            fetched
        }
        Offer::Files | Offer::Folders => {
            let kind = if found.offer == Offer::Files { "files\n" } else { "folders\n" };
            context.print(kind)?;
            return Ok(exit::OK);
        }
        Offer::Nothing => Vec::new(),
    };
    let mut text = String::from("words\n");
    let fits = |candidate: &&Candidate| {
        candidate.value.starts_with(&found.prefix) && completion::is_plain(&candidate.value)
    };
    for Candidate { value, about } in candidates.iter().filter(fits).take(MAX_VALUES) {
        text.push_str(&format!("{}{value}\t{about}\n", found.before));
    }
    context.print(&text)?;
    Ok(exit::OK)
}
