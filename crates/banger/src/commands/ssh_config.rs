//! `banger ssh-config`.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use banger_api::{ApiError, ByteString, ErrorCode, Hint};

use crate::context::Context;
use crate::errors::Failure;
use crate::ssh::{self, user_config};

/// Let ssh, scp, rsync and editors reach every VM as NAME.vm.
///
///   banger ssh-config --install
///   banger ssh-config --uninstall
///   banger ssh-config
///
/// `--install` adds one Include, marked as banger's, at the top of `~/.ssh/config`.
/// Then `ssh web.vm`, `scp FILE web.vm:`, `rsync -a DIR web.vm:` and
/// `git clone ssh://web.vm/root/REPO` work, without root and on any network driver.
/// Without a flag the configuration is printed.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Add the Include to `~/.ssh/config`
    #[arg(long, conflicts_with = "uninstall")]
    pub install: bool,
    /// Remove it
    #[arg(long)]
    pub uninstall: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let paths = context.paths()?;
    let config = paths.ssh_config();
    if args.uninstall {
        let file = user_file()?;
        let change = user_config::uninstall(&file)?;
        remove(&config)?;
        return report(context, &file, change, "removed from", "was not in");
    }
    let text = ssh::config(&paths, &program()?, |name| std::env::var_os(name))?;
    if !args.install {
        if context.format == crate::context::Format::Json {
            context.json(&serde_json::json!({ "config": ByteString::from(text) }))?;
        } else {
            context.print_bytes(text.as_bytes())?;
        }
        return Ok(0);
    }
    let include = ssh::with_path("Include", &config)?;
    let file = user_file()?;
    write(&config, &text)?;
    let change = user_config::install(&file, &include)?;
    report(context, &file, change, "added to", "is already in")
}

/// This program, which ssh starts.
pub fn program() -> Result<PathBuf, ApiError> {
    std::env::current_exe().map_err(|error| {
        ApiError::new(ErrorCode::Internal, "cannot find the path of banger").caused_by(&error)
    })
}

fn user_file() -> Result<PathBuf, ApiError> {
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let home = home.ok_or_else(|| {
        ApiError::new(ErrorCode::HostNotReady, "`HOME` is not set to an absolute path")
            .with_hint(Hint::text("set it to the folder that contains `.ssh`"))
    })?;
    Ok(home.join(".ssh/config"))
}

fn failed(path: &Path, error: &std::io::Error) -> ApiError {
    let text = format!("cannot write `{}`", path.display());
    ApiError::new(ErrorCode::Internal, text).caused_by(error)
}

/// Replaces our own file in one step.
fn write(path: &Path, text: &OsStr) -> Result<(), ApiError> {
    let written = || {
        let folder = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let temporary = path.with_extension(format!("new-{}", std::process::id()));
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&temporary, path)
    };
    written().map_err(|error| failed(path, &error))
}

fn remove(path: &Path) -> Result<(), ApiError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(path, &error)),
        _ => Ok(()),
    }
}

fn report(
    context: &Context,
    file: &Path,
    change: user_config::Change,
    done: &str,
    already: &str,
) -> Result<u8, Failure> {
    let changed = change == user_config::Change::Done;
    if context.format == crate::context::Format::Json {
        let file = ByteString::from(file);
        context.json(&serde_json::json!({ "file": file, "changed": changed }))?;
    } else {
        let words = if changed { done } else { already };
        context.info(&format!("the Include of banger {words} `{}`", file.display()));
    }
    Ok(0)
}
