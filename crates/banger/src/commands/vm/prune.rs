//! `banger vm prune`.

use std::io::Write;

use banger_api::filter::{self, VmFilter};
use banger_api::operation::VmTag;
use banger_api::size::human_size;
use banger_api::vm::{VmAction, VmState, VmSummary};
use banger_api::{Hint, exit};
use banger_client::batch::Target;
use jiff::Timestamp;
use serde::Serialize;

use crate::batch::{self, DurationDisplay, Element, Messages};
use crate::context::{Context, Format};
use crate::errors::{Failure, usage};
use crate::render::table::{Column, table};
use crate::render::time::ago;
use crate::values::{self, age_s};

/// Delete all stopped VMs with their disks, after showing them.
///
///   banger vm prune
///   banger vm prune --older 7d      only those created more than 7 days ago
///   banger vm prune --filter label=ci
///   banger vm prune --force         without asking
///
/// VMs that run, are paused or broken are left alone.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Only VMs created before this time ago, such as 30m, 24h or 7d
    #[arg(long, value_name = "AGE", value_parser = age_s, allow_hyphen_values = true)]
    pub older: Option<u64>,
    /// Only VMs that match: label=KEY[=VALUE], name=NAME, image=IMAGE or until=AGE; repeatable
    ///
    /// `*` in a name stands for any text. Each label and age must match, and one of the values of
    /// each other key.
    #[arg(long, value_name = "KEY=VALUE", value_parser = filter)]
    pub filter: Vec<Filter>,
}

/// A condition for VMs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// A condition of the list of VMs.
    Vm(VmFilter),
    /// Created more than this number of seconds ago, as Docker's `until`.
    Older(u64),
}

/// The document that `--json` prints.
#[derive(Serialize)]
struct Pruned {
    vms: Vec<Element>,
    freed_bytes: u64,
}

fn filter(text: &str) -> Result<Filter, String> {
    match text.split_once('=') {
        Some(("label" | "name" | "image", _)) => values::filter(text).map(Filter::Vm),
        Some(("until", value)) => age_s(value).map(Filter::Older),
        _ => Err("write label=KEY[=VALUE], name=NAME, image=IMAGE or until=AGE".to_owned()),
    }
}

/// Whether a VM is stopped and matches all conditions at this time.
fn is_due(vm: &VmSummary, filters: &[Filter], now: Timestamp) -> bool {
    // An operation in progress is a create or a start.
    let stopped = vm.state == VmState::Stopped && vm.operation.is_none();
    let matches = |filter: &Filter| match filter {
        // Repeated keys are alternatives, so these are tested together.
        Filter::Vm(_) => true,
        Filter::Older(age_s) => vm.created_at.parse::<Timestamp>().is_ok_and(|created| {
            let age = now.as_second().saturating_sub(created.as_second());
            u64::try_from(age).is_ok_and(|age| age >= *age_s)
        }),
    };
    stopped && filter::matches(&of_list(filters), vm) && filters.iter().all(matches)
}

/// The conditions that the list of VMs has, too.
fn of_list(filters: &[Filter]) -> Vec<VmFilter> {
    let filters = filters.iter().filter_map(|filter| match filter {
        Filter::Vm(filter) => Some(filter.clone()),
        Filter::Older(_) => None,
    });
    filters.collect()
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    if !args.force && (context.format == Format::Json || !context.can_prompt()) {
        let text = "`vm prune` asks on a terminal before it deletes, and there is none";
        return Err(usage(text).with_hint(Hint::text("--force deletes without asking")).into());
    }
    let client = context.client().await?;
    let mut filters = args.filter;
    filters.extend(args.older.map(Filter::Older));
    let now = Timestamp::now();
    let mut due = client.vms_matching(&of_list(&filters)).await?;
    due.retain(|vm| is_due(vm, &filters, now));
    if due.is_empty() && context.format == Format::Text {
        context.info("no stopped VMs to delete");
        return Ok(exit::OK);
    }
    if !args.force && !confirmed(context, &due).await? {
        context.info("nothing was deleted");
        return Ok(exit::FAILED);
    }
    let target = |vm: &VmSummary| Target {
        reference: vm.name.to_string(),
        found: Ok(VmTag { id: vm.id.clone(), name: vm.name.clone() }),
    };
    let messages = Messages {
        done: "deleted".into(),
        already: "was deleted already".into(),
        duration: DurationDisplay::Hide,
    };
    // Without force: a VM that was started meanwhile is left alone.
    let action = VmAction::Delete { force: false };
    let targets = due.iter().map(target).collect();
    let results = batch::results(context, &client, targets, action, &messages).await?;
    let left = client.vms().await?;
    let gone = due.iter().filter(|vm| left.iter().all(|other| other.id != vm.id));
    let freed_bytes = gone.map(used_bytes).fold(0, u64::saturating_add);
    let (vms, code) = results.split();
    match context.format {
        Format::Json => context.json(&Pruned { vms, freed_bytes })?,
        Format::Text => context.info(&format!("freed {}", human_size(freed_bytes))),
    }
    code
}

/// Allocated size of both disks.
fn used_bytes(vm: &VmSummary) -> u64 {
    let disk = vm.disk.unwrap_or_default();
    disk.root_used_bytes.saturating_add(disk.work_used_bytes)
}

/// Shows the VMs and asks for confirmation.
async fn confirmed(context: &Context, due: &[VmSummary]) -> Result<bool, Failure> {
    let columns = [
        Column::long_text("NAME", 0, 12),
        Column::text("ID", 3),
        Column::long_text("IMAGE", 2, 8),
        Column::number("DISK", 0),
        Column::text("CREATED", 1),
    ];
    let row = |vm: &VmSummary| {
        let disk = human_size(used_bytes(vm));
        let (name, id) = (vm.name.to_string(), vm.id.to_string());
        vec![name, id, vm.image.clone(), disk, ago(&vm.created_at)]
    };
    let rows: Vec<_> = due.iter().map(row).collect();
    let count = match due.len() {
        1 => "this VM with its disks".to_owned(),
        count => format!("these {count} VMs with their disks"),
    };
    write!(std::io::stderr(), "{}", table(&columns, &rows))?;
    context.confirm(&format!("delete {count}?")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_filters_are_parsed() {
        for (text, seconds) in
            [("0s", 0), ("30s", 30), ("2m", 120), ("24h", 86_400), ("7d", 604_800), ("1w", 604_800)]
        {
            assert_eq!(age_s(text), Ok(seconds), "{text}");
        }
        for text in ["", "7", "d", "-7d", "+7d", "7 d", "7dd", "7y", "1.5h", "é", "٣d"] {
            assert!(age_s(text).unwrap_err().starts_with("write a number"), "{text}");
        }
        assert_eq!(age_s("99999999999999999999d"), Err("it is too large".into()));
        assert_eq!(age_s("9999999999999999999w"), Err("it is too large".into()));
        for text in ["name=web-*", "image=debian", "label=ci", "label=ci=1"] {
            assert_eq!(filter(text), Ok(Filter::Vm(text.parse().unwrap())), "{text}");
        }
        assert_eq!(filter("until=1h"), Ok(Filter::Older(3600)));
        for text in ["", "name", "name=", "name=A b", "label=", "state=stopped", "until=soon", "=x"]
        {
            assert!(filter(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_stopped_vms_that_match_are_deleted() {
        let now: Timestamp = "2026-01-08T00:00:00Z".parse().unwrap();
        let vm = |state, created_at: &str| VmSummary {
            id: "0123456789ab".parse().unwrap(),
            name: "web".parse().unwrap(),
            state,
            image: "debian".into(),
            vcpus: None,
            memory_mib: None,
            ip: None,
            created_at: created_at.into(),
            disk: None,
            operation: None,
            publish: Vec::new(),
            labels: [("ci".to_owned(), String::new())].into(),
            opencode: false,
            problem: None,
        };
        let week = "2026-01-01T00:00:00Z";
        let due = |vm: &VmSummary, filters: &[&str]| {
            let filters: Vec<_> = filters.iter().map(|text| filter(text).unwrap()).collect();
            is_due(vm, &filters, now)
        };
        let stopped = vm(VmState::Stopped, week);
        assert!(due(&stopped, &[]) && due(&stopped, &["until=7d", "name=web", "image=debian"]));
        assert!(due(&stopped, &["name=db", "name=w*", "label=ci"]), "one of the names");
        for other in [["name=db"], ["image=x"], ["until=8d"], ["label=x"], ["label=ci=1"]] {
            assert!(!due(&stopped, &other), "{other:?}");
        }
        assert!(!due(&stopped, &["name=web", "label=ci", "label=x"]), "all labels must match");
        assert!(!due(&stopped, &["until=1d", "until=8d"]), "all ages must match");
        // A clock that was set back, and a record that cannot be parsed.
        assert!(!due(&vm(VmState::Stopped, "2027-01-01T00:00:00Z"), &["until=0s"]));
        assert!(!due(&vm(VmState::Stopped, ""), &["until=0s"]));
        for state in VmState::ALL.into_iter().filter(|state| *state != VmState::Stopped) {
            assert!(!due(&vm(state, week), &[]), "{state:?}");
        }
        let busy = VmSummary { operation: Some("op-abc123".parse().unwrap()), ..stopped };
        assert!(!due(&busy, &[]), "a start is queued");
    }
}
