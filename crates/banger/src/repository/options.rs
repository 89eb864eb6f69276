//! Options of `banger run PATH` about what is sent.

use banger_api::{ApiError, Hint};
use banger_workspace::Options;
use banger_workspace::snapshot::Submodules;

use crate::errors::usage;

/// What of a folder is sent.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Sending {
    /// Also send files of a repository that are neither tracked nor ignored
    #[arg(long)]
    pub include_untracked: bool,
    /// Put the repository on a new branch in the machine
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
    /// Begin the new branch at this revision, without changes of the work tree [default: HEAD,
    /// with them]
    #[arg(long, value_name = "REV", requires = "branch")]
    pub from: Option<String>,
    /// Also send the submodules that are checked out, each as a repository of its own
    #[arg(long)]
    pub recurse_submodules: bool,
    /// Send the folder with everything in it, whether it is a repository or not
    #[arg(
        long,
        conflicts_with_all = ["include_untracked", "branch", "from", "recurse_submodules"]
    )]
    pub copy: bool,
    /// Print what would be sent, and create nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl Sending {
    /// For a repository.
    pub fn options(&self) -> Options {
        Options {
            include_untracked: self.include_untracked,
            branch: self.branch.clone(),
            from: self.from.clone(),
            submodules: match self.recurse_submodules {
                true => Submodules::Send,
                false => Submodules::Refuse,
            },
            list_staged: self.dry_run,
        }
    }

    /// Refuses options that have no effect without a folder.
    ///
    /// # Errors
    /// One of them is set.
    pub fn refuse_without_folder(&self) -> Result<(), ApiError> {
        let set = [
            ("--dry-run", self.dry_run),
            ("--branch NAME", self.branch.is_some()),
            ("--include-untracked", self.include_untracked),
            ("--recurse-submodules", self.recurse_submodules),
            ("--copy", self.copy),
        ];
        let Some((name, _)) = set.iter().find(|(_, is_set)| *is_set) else { return Ok(()) };
        let hint = format!("name the folder: `banger run . {name}`");
        let flag = name.split(' ').next().unwrap_or(name);
        Err(usage(format!("`{flag}` is for a folder that is sent")).with_hint(Hint::text(hint)))
    }
}
