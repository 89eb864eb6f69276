//! Objects of VMs that are not in the database, as log lines and checks of `doctor`.

use banger_api::Hint;
use banger_api::doctor::{Check, Kept, Leftover, Verdict};
use banger_api::hint::SetupAdvice;
use banger_engine::Engine;

/// Logs the leftovers when the daemon starts.
pub async fn log(engine: &Engine) {
    match engine.leftovers().await {
        Ok(found) => {
            for Leftover { id, objects, processes, .. } in found {
                tracing::warn!(%id, ?objects, ?processes, "this VM is not in the database");
            }
        }
        Err(error) => tracing::warn!(%error, "cannot look for leftovers of VMs"),
    }
}

/// The leftovers as checks of `doctor`.
pub async fn checks(engine: &Engine) -> Vec<Check> {
    match engine.leftovers().await {
        Ok(found) => found.into_iter().map(check).collect(),
        Err(error) => vec![Check {
            code: "leftover".into(),
            verdict: Verdict::Warning,
            seen: error.line(),
            hints: error.hints,
            needed_for: Vec::new(),
        }],
    }
}

fn check(leftover: Leftover) -> Check {
    let kept = leftover.kept();
    let Leftover { id, objects, folder, processes, .. } = leftover;
    let list = objects.join(", ");
    let mut seen = format!("VM `{id}` is not in the database and has left: {list}");
    if !processes.is_empty() {
        let list: Vec<String> = processes.iter().map(u32::to_string).collect();
        seen.push_str(&format!("; it runs as process {}", list.join(", ")));
    }
    let restore = |folder| SetupAdvice::RestoreDatabase { vm: id, folder, processes };
    let hint: Hint = match (kept, folder) {
        (None, _) => SetupAdvice::RemoveLeftovers.into(),
        (Some(Kept::Foreign), folder) => {
            let path = folder.unwrap_or_default();
            seen = format!("`{path}` is no folder of a VM");
            SetupAdvice::RemoveForeign { path }.into()
        }
        (Some(Kept::Running | Kept::Disks), folder) => restore(folder).into(),
    };
    Check {
        code: "leftover.vm".into(),
        verdict: Verdict::Warning,
        seen,
        hints: vec![hint],
        needed_for: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leftover() -> Leftover {
        Leftover {
            id: "0123456789ab".into(),
            objects: vec!["TAP `fc-0123456789ab`".into(), "folder `/s/x`".into()],
            folder: Some("/s/x".into()),
            ..Leftover::default()
        }
    }

    #[test]
    fn a_leftover_is_named_with_its_objects() {
        let idle = check(leftover());
        assert_eq!(
            idle.seen,
            "VM `0123456789ab` is not in the database and has left: TAP `fc-0123456789ab`, folder \
             `/s/x`"
        );
        assert_eq!(idle.hint().unwrap(), "`banger doctor --fix` removes them");
    }

    #[test]
    fn a_leftover_with_disks_or_processes_is_not_removed() {
        let disks = check(Leftover { disks: vec!["/s/x/root.ext4".into()], ..leftover() });
        let hint = disks.hint().unwrap();
        assert!(hint.contains("`rm -r /s/x`") && !hint.contains("kill"), "{hint}");
        let busy = check(Leftover { processes: vec![7, 8], ..leftover() });
        assert!(busy.seen.ends_with("; it runs as process 7, 8"), "{}", busy.seen);
        assert!(busy.hint().unwrap().contains("`kill 7 8`"));
        let helper = check(Leftover { processes: vec![7], folder: None, ..leftover() });
        assert!(!helper.hint().unwrap().contains("rm -r"));
        let foreign = check(Leftover { id: "notes".into(), ..leftover() });
        assert_eq!(foreign.seen, "`/s/x` is no folder of a VM");
    }
}
