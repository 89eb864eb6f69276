//! `banger cp`, `banger vm cp`.

pub mod ends;
pub mod transfer;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::time::Instant;

use banger_api::size::human_size;
use banger_api::{ApiError, ErrorCode, Hint, exit};
use banger_archive::place::LastLink;
use banger_client::Copied;
use tokio::sync::mpsc;

use crate::context::{Context, Format};
use crate::errors::{Failure, usage};
use crate::render::progress::{Lines, Progress};
use crate::render::time::duration;
use crate::render::warning;
use ends::End;
use transfer::Options;

/// Copy files and folders into a VM, out of it, or between VMs.
///
///   banger cp notes.txt web:
///   banger cp -a site web:/srv
///   banger cp web:/var/log/syslog .
///   tar c src | banger cp - web:/work
///
/// As `cp -r`: into a folder that exists, else under the new name. `SRC/.` is the
/// content of a folder. Paths in a VM begin in the home folder. `-` is a tar
/// archive on standard input or output. A file `a:b` of this host is `./a:b`.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// PATH of this host, VM:PATH, or `-`
    #[arg(value_name = "SRC")]
    pub source: OsString,
    /// PATH of this host, VM:PATH, or `-`
    #[arg(value_name = "DST")]
    pub target: OsString,
    /// Keep owners and set-id bits (out of a VM: as root only)
    #[arg(short, long)]
    pub archive: bool,
    /// Follow SRC if it is a symlink
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// User of the VM who reads and owns the files [default: root]
    #[arg(short, long)]
    pub user: Option<String>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let (from, to) = (End::parse(&args.source), End::parse(&args.target));
    check(context, &from, &to)?;
    let (writing, mut all_written) = mpsc::channel(1);
    let options = Options {
        keep_owners: args.archive,
        link: if args.follow_link { LastLink::Follow } else { LastLink::Keep },
        user: args.user,
        writing,
    };
    let label = match args.target.to_string_lossy().trim_end_matches(':') {
        "-" => "archive".to_owned(),
        target => target.to_owned(),
    };
    let mut pressed = context.interrupts.listen();
    let mut track = Progress::new(context, Lines::Total).track(&label);
    let begun = Instant::now();
    let elapsed = || u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let client = context.client().await?;
    let copied = tokio::select! {
        copied = async {
            let mut report = |bytes| track.transfer(elapsed(), "copy", bytes, None);
            transfer::copy(&client, from, to, &options, &mut report).await
        } => copied?,
        () = pressed.next() => {
            drop(options);
            // The thread finds its archive cut off, and removes the incomplete file.
            let _ = all_written.recv().await;
            let error = ApiError::new(ErrorCode::Cancelled, "the copy was cancelled");
            return Err(Failure::Cancelled(Box::new(error)));
        }
    };
    drop(track);
    show(context, &label, &copied, elapsed())?;
    Ok(exit::OK)
}

fn show(context: &Context, label: &str, copied: &Copied, ms: u64) -> Result<(), Failure> {
    if copied.left_out > 0 {
        let count = copied.left_out;
        warning(&format!("{label}: {count} sockets or devices were not copied"));
    }
    match context.format {
        // Standard output has the archive.
        Format::Json if label == "-" => {}
        Format::Json => context.json(&serde_json::json!({
            "bytes": copied.bytes,
            "left_out": copied.left_out,
        }))?,
        Format::Text => {
            let (size, time) = (human_size(copied.bytes), duration(ms));
            context.info(&format!("{label}: copied {size} in {time}"));
        }
    }
    Ok(())
}

/// Refuses pairs of ends that cannot be copied.
fn check(context: &Context, from: &End, to: &End) -> Result<(), ApiError> {
    match (from, to) {
        (End::Guest { .. }, _) | (_, End::Guest { .. }) => {}
        _ => {
            return Err(usage("neither the source nor the target is in a VM").with_hint(
                Hint::text("a path in a VM is written VM:PATH: `banger cp notes.txt web:/root`"),
            ));
        }
    }
    if matches!(from, End::Stream) && std::io::stdin().is_terminal() {
        return Err(usage("standard input is a terminal, not an archive").with_hint(Hint::text(
            "redirect a tar archive to it: `tar c FOLDER | banger cp - VM:PATH`",
        )));
    }
    if matches!(to, End::Stream) {
        if std::io::stdout().is_terminal() {
            return Err(usage("standard output is a terminal, which cannot show an archive")
                .with_hint(Hint::text("redirect it: `banger cp VM:PATH - | tar t`")));
        }
        if context.format == Format::Json {
            return Err(usage("an archive on standard output cannot be shown as JSON"));
        }
    }
    Ok(())
}
