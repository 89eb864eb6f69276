//! `banger doctor --fix`: removes objects of VMs that are not in the database.

use std::fmt::Write as _;

use banger_api::Hint;
use banger_api::doctor::{Check, Leftover, RemovedLeftover, Verdict};

use crate::context::{Context, Format};
use crate::errors::{Failure, usage};
use crate::render::plain;

/// Beginning of the codes of these checks.
const CODES: &str = "fix.";

/// Whether a check is one of [`run`].
pub fn is_of(check: &Check) -> bool {
    check.code.starts_with(CODES)
}

/// Whether objects are removed without a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// Show them and ask on the terminal.
    Ask,
    /// `--force`.
    Given,
}

/// Removes leftovers, after showing them; returns a check for each VM that it was tried for.
///
/// # Errors
/// There is no terminal for the question; errors of the daemon; Ctrl-C.
pub async fn run(context: &Context, consent: Consent) -> Result<Vec<Check>, Failure> {
    if consent == Consent::Ask && (context.format == Format::Json || !context.can_prompt()) {
        let text =
            "`doctor --fix` asks on a terminal before it removes anything, and there is none";
        return Err(usage(text).with_hint(Hint::text("--force removes without asking")).into());
    }
    let client = context.client().await?;
    let mut due = client.leftovers().await?;
    due.retain(|leftover| leftover.kept().is_none());
    if due.is_empty() {
        context.info("no leftovers of VMs to remove");
        return Ok(Vec::new());
    }
    if consent == Consent::Ask {
        eprint!("{}", list(&due));
        if !context.confirm("remove these objects?").await? {
            context.info("nothing was removed");
            return Ok(Vec::new());
        }
    }
    let ids = due.into_iter().map(|leftover| leftover.id).collect();
    let removed = client.remove_leftovers(ids).await?;
    Ok(removed.into_iter().map(check).collect())
}

/// The objects, by VM.
fn list(due: &[Leftover]) -> String {
    let mut text = String::new();
    for leftover in due {
        let _ = writeln!(text, "VM {}, which is not in the database:", plain::line(&leftover.id));
        for object in &leftover.objects {
            let _ = writeln!(text, "  {}", plain::line(object));
        }
    }
    text
}

fn check(removed: RemovedLeftover) -> Check {
    let RemovedLeftover { id, removed, error } = removed;
    let (verdict, seen, hints) = match error {
        None if removed.is_empty() => (Verdict::Ok, "it was removed already".into(), Vec::new()),
        None => (Verdict::Ok, format!("removed {}", removed.join(", ")), Vec::new()),
        Some(error) => (Verdict::Missing, error.line(), error.hints),
    };
    Check { code: format!("{CODES}{id}"), verdict, seen, hints, needed_for: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_checks() {
        let one = |removed: &[&str], error| {
            let removed = removed.iter().map(|text| (*text).to_owned()).collect();
            check(RemovedLeftover { id: "0123456789ab".into(), removed, error })
        };
        let done = one(&["TAP `a`", "folder `b`"], None);
        assert!(is_of(&done));
        assert_eq!((done.verdict, &*done.seen), (Verdict::Ok, "removed TAP `a`, folder `b`"));
        assert_eq!(one(&[], None).seen, "it was removed already");
        let error = banger_api::ApiError::new(banger_api::ErrorCode::Busy, "`a` is in use");
        let failed = one(&[], Some(error));
        assert_eq!((failed.verdict, &*failed.seen), (Verdict::Missing, "`a` is in use"));
    }
}
