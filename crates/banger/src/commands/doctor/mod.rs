//! `banger doctor`.

mod fix;
mod trial;

use banger_api::doctor::{Check, Verdict};
use banger_api::exit;

use crate::context::{Context, Format, Verbosity};
use crate::errors::Failure;
use crate::render::{self, plain};

/// Check this host and show problems with their remedies.
///
///   banger doctor
///   banger doctor --try           boot a VM, use it, delete it
///   banger doctor --fix           remove what lost VMs have left behind
///   banger doctor --json
///
/// Problems come first; -v also shows the checks that passed and the settings.
/// Without `--try` and `--fix` it changes nothing. The exit code is 5 if something is missing.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Also create a VM, run a command in it, resolve names, reach a published port, delete it
    #[arg(long = "try")]
    pub trial: bool,
    /// First remove objects of VMs that are not in the database, after showing them
    ///
    /// Such as interfaces, devices, control groups and folders. Running VMs and disks are kept, and
    /// so are objects of other users and of other state folders.
    #[arg(long)]
    pub fix: bool,
    /// With --fix: do not ask
    #[arg(short, long, requires = "fix")]
    pub force: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let consent = if args.force { fix::Consent::Given } else { fix::Consent::Ask };
    let fixed = if args.fix { fix::run(context, consent).await? } else { Vec::new() };
    let mut checks = checks(context).await;
    checks.extend(fixed);
    if args.trial {
        checks.extend(trial::run(context).await?);
    }
    match context.format {
        Format::Json => {
            let checks = checks.iter().map(|check| render::with_hint_text(check, check.hint()));
            context.json(&checks.collect::<Vec<_>>())?;
        }
        Format::Text => context.print(&report(&checks, context.verbosity))?,
    }
    let missing = checks.iter().any(|check| check.verdict == Verdict::Missing);
    Ok(if missing { exit::HOST_NOT_READY } else { exit::OK })
}

/// The daemon's checks, or one failed check if the daemon cannot be reached.
async fn checks(context: &Context) -> Vec<Check> {
    let checks = match context.client().await {
        Ok(client) => client.doctor().await,
        Err(error) => Err(error),
    };
    checks.unwrap_or_else(|error| {
        vec![Check {
            code: "daemon.answers".into(),
            verdict: Verdict::Missing,
            seen: error.line(),
            hints: error.hints,
            needed_for: vec!["everything".into()],
        }]
    })
}

/// Missing things, warnings, then passed checks or their number.
fn report(checks: &[Check], verbosity: Verbosity) -> String {
    let acted = |check: &&Check| trial::is_of(check) || fix::is_of(check);
    let (acted, checks): (Vec<_>, Vec<_>) = checks.iter().partition(acted);
    let of = |verdict| checks.iter().copied().filter(move |check| check.verdict == verdict);
    let mut report: String = of(Verdict::Missing).chain(of(Verdict::Warning)).map(text).collect();
    if verbosity >= Verbosity::Verbose {
        let setting = |check: &&Check| check.code.starts_with("config.");
        let (settings, passed): (Vec<_>, Vec<_>) = of(Verdict::Ok).partition(setting);
        report.extend(passed.into_iter().chain(settings).map(text));
    } else {
        let passed = of(Verdict::Ok).filter(|check| !check.code.starts_with("config.")).count();
        report.push_str(&format!(
            "ok       {passed} checks passed; -v shows them and the settings\n"
        ));
    }
    report.extend(acted.into_iter().map(text));
    report
}

fn text(check: &Check) -> String {
    let mark = match check.verdict {
        Verdict::Ok => "ok      ",
        Verdict::Warning => "warning ",
        Verdict::Missing => "missing ",
    };
    let mut text = format!("{mark} {}: {}\n", plain::line(&check.code), plain::line(&check.seen));
    if check.verdict != Verdict::Ok {
        let needed = check.needed_for.join(", ");
        if !needed.is_empty() {
            text.push_str(&format!("         needed for {}\n", plain::line(&needed)));
        }
        if let Some(hint) = check.hint() {
            text.push_str(&format!("         hint: {}\n", plain::block(&hint, "         ")));
        }
    }
    text
}
