//! `banger vm sync`: the live folders of a VM.

use std::time::Duration;

use banger_api::sync::{SyncState, SyncView};
use banger_api::{ApiError, ErrorCode, exit};
use banger_client::Client;

use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::render::plain;

/// Interval of the questions whether both folders are alike.
const INTERVAL: Duration = Duration::from_millis(100);

/// Show the live folders of a VM, and what of them is not alike.
///
///   banger vm sync web
///   banger vm sync web --wait     return when the present changes are copied
///   banger vm set web --sync .:/srv/app
///
/// `--sync` of `run`, `create` and `vm set` makes live folders, `--unsync` of `vm
/// set` ends one. If both sides changed a file, the host's version keeps its name,
/// and the machine's version is beside it with `.conflict-guest-` in its name.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of an id
    #[arg(value_name = "VM")]
    pub vm: String,
    /// Wait until the changes that are there now are copied
    #[arg(long)]
    pub wait: bool,
    /// Longest wait in seconds [default: 60]
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60,
        hide_default_value = true,
        requires = "wait"
    )]
    pub timeout: u64,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    let folders = match args.wait {
        true => alike(&client, &args.vm, Duration::from_secs(args.timeout)).await?,
        false => client.live_folders(&args.vm, false).await?,
    };
    match context.format {
        Format::Json => context.json(&folders)?,
        Format::Text if folders.is_empty() => {
            let vm = &args.vm;
            context.info(&format!(
                "`{vm}` has no live folder: `banger vm set {vm} --sync PATH` adds one"
            ));
        }
        Format::Text => {
            for folder in &folders {
                context.print(&text(folder))?;
            }
        }
    }
    Ok(exit::OK)
}

/// Waits until each folder was looked at as a whole after this moment, and is alike.
///
/// # Errors
/// One is halted, or not alike after this time.
pub async fn alike(client: &Client, vm: &str, most: Duration) -> Result<Vec<SyncView>, Failure> {
    let begin = tokio::time::Instant::now();
    let first = client.live_folders(vm, true).await?;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = client.live_folders(vm, true).await?;
        // The round that was in progress, and one that began later.
        let later = |folder: &SyncView| {
            let before = first.iter().find(|one| one.folder == folder.folder);
            let before = before.filter(|one| one.rounds <= folder.rounds);
            folder.rounds >= before.map_or(0, |one| one.rounds) + 2
        };
        let is_alike = |folder: &SyncView| folder.state == SyncState::Watching && later(folder);
        if now.iter().all(is_alike) {
            return Ok(now);
        }
        let halted = now.iter().find(|folder| folder.state == SyncState::Halted);
        let late = now.iter().find(|folder| !is_alike(folder));
        let (code, why) = match (halted, late) {
            (Some(folder), _) => (ErrorCode::WrongState, folder),
            (None, Some(folder)) if begin.elapsed() >= most => (ErrorCode::Timeout, folder),
            _ => continue,
        };
        let mut error = ApiError::new(
            code,
            format!("`{}` is not alike: it is {}", why.folder.host, why.state.as_str()),
        );
        error.causes = why.message.iter().cloned().collect();
        return Err(error.into());
    }
}

/// A live folder in lines.
pub fn text(view: &SyncView) -> String {
    let mut text = format!("{}\n", summary(view));
    if let Some(message) = &view.message {
        text.push_str(&format!("  {}\n", plain::line(message)));
    }
    for path in &view.conflicts {
        text.push_str(&format!("  conflict: {}\n", plain::line(&path.to_string_lossy())));
    }
    for problem in &view.problems {
        let path = plain::line(&problem.path.to_string_lossy());
        let reason = plain::line(&problem.reason);
        text.push_str(&format!("  {path} ({}): {reason}\n", problem.side));
    }
    text
}

/// `/home/me/app and /root/app: watching, 12 files, 1 conflict, last change copied in 35 ms`
pub fn summary(view: &SyncView) -> String {
    let path = |path: &banger_api::ByteString| plain::line(&path.to_string_lossy());
    let mut text = format!(
        "{} and {}: {}",
        path(&view.folder.host),
        path(&view.folder.guest),
        view.state.as_str()
    );
    if view.state != SyncState::Waiting {
        text.push_str(&format!(", {} files", view.files));
    }
    if view.pending > 0 {
        text.push_str(&format!(", {} changes left", view.pending));
    }
    match view.conflicts.len() {
        0 => {}
        1 => text.push_str(", 1 conflict"),
        many => text.push_str(&format!(", {many} conflicts")),
    }
    if !view.problems.is_empty() {
        text.push_str(&format!(", {} not alike", view.problems.len()));
    }
    match (view.behind_ms, view.lag_ms) {
        (Some(ms), _) => text.push_str(&format!(", {ms} ms behind")),
        (None, Some(ms)) => text.push_str(&format!(", last change copied in {ms} ms")),
        (None, None) => {}
    }
    text
}
