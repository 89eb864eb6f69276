//! `banger vm events`.

use std::collections::BTreeMap;
use std::io::Write;

use banger_api::events::{About, Event, EventKind, VmNow};
use banger_api::{VmId, VmName};
use banger_client::batch::resolve;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::values;

/// Show changes of VMs as they happen: one line for each new state, until Ctrl-C.
///
///   banger vm events
///   banger vm events web --since 10m
///   banger vm events --json         one JSON object in each line
///
/// The daemon keeps its last 4096 events of VMs and operations, and none of earlier daemons.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Only these VMs: names, ids or prefixes of ids [default: all VMs]
    #[arg(value_name = "VM")]
    pub vms: Vec<String>,
    /// Begin with earlier changes: an age, such as 10m, or a time, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = values::since, allow_hyphen_values = true)]
    pub since: Option<Timestamp>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    let mut only = Vec::new();
    if !args.vms.is_empty() {
        for target in resolve(&client.vms().await?, &args.vms) {
            only.push(target.found?.id);
        }
    }
    let mut shown = Shown { only, known: BTreeMap::new() };
    let since = args.since.map(|time| u64::try_from(time.as_millisecond()).unwrap_or_default());
    let mut events = client.events(Some(About::Vms), since).await?;
    let zone = TimeZone::system();
    // Not in the listing: its state is that of now, and events may be of earlier.
    let mut begun = args.since.is_some();
    loop {
        let event = events.next().await?;
        let Some(event) = shown.selected(event) else { continue };
        let text = match context.format {
            Format::Json => serde_json::to_string(&event).map_err(std::io::Error::from)? + "\n",
            Format::Text => {
                let lines = shown.lines(&event, &zone);
                // The state at the beginning is not a change.
                if begun { lines } else { String::new() }
            }
        };
        begun = true;
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
    }
}

/// The VMs to show, and the state of each as it was shown last.
struct Shown {
    /// All VMs if empty.
    only: Vec<VmId>,
    known: BTreeMap<VmId, VmNow>,
}

impl Shown {
    /// The event without other VMs; `None` if it is about another VM.
    fn selected(&self, mut event: Event) -> Option<Event> {
        let wanted = |id: &VmId| self.only.is_empty() || self.only.contains(id);
        match &mut event.what {
            EventKind::All { vms, .. } => vms.retain(|vm| wanted(&vm.id)),
            EventKind::Changed { vm } if !wanted(&vm.id) => return None,
            EventKind::Gone { vm } if !wanted(vm) => return None,
            EventKind::Changed { .. } | EventKind::Gone { .. } => {}
            EventKind::Operation { .. } => return None,
        }
        Some(event)
    }

    /// A line for each VM whose name or state has changed.
    fn lines(&mut self, event: &Event, zone: &TimeZone) -> String {
        let mut changes = Vec::new();
        match &event.what {
            EventKind::All { vms, .. } => {
                let gone = self.known.keys().filter(|id| vms.iter().all(|vm| vm.id != **id));
                for id in gone.cloned().collect::<Vec<_>>() {
                    changes.push(self.gone(&id));
                }
                changes.extend(vms.iter().filter_map(|vm| self.changed(vm)));
            }
            EventKind::Changed { vm } => changes.extend(self.changed(vm)),
            EventKind::Gone { vm } => changes.push(self.gone(vm)),
            EventKind::Operation { .. } => {}
        }
        let ms = i64::try_from(event.at_unix_ms).unwrap_or(i64::MAX);
        let time = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
        let time = time.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string();
        changes.iter().map(|change| format!("{time}  {change}\n")).collect()
    }

    fn changed(&mut self, vm: &VmNow) -> Option<String> {
        let before = self.known.insert(vm.id.clone(), vm.clone());
        let same = before.is_some_and(|old| old.state == vm.state && old.name == vm.name);
        (!same).then(|| line(&vm.id, Some(&vm.name), vm.state.as_str()))
    }

    fn gone(&mut self, id: &VmId) -> String {
        let before = self.known.remove(id);
        line(id, before.as_ref().map(|vm| &vm.name), "deleted")
    }
}

fn line(id: &VmId, name: Option<&VmName>, state: &str) -> String {
    format!("{id}  {state:<8}  {}", name.map_or("-", VmName::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::vm::VmState;

    fn vm(id: &str, state: VmState, generation: u64) -> VmNow {
        let name = format!("vm-{}", &id[..1]).parse().unwrap();
        VmNow { id: id.parse().unwrap(), name, state, generation, operation: None }
    }

    const A: &str = "aaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbb";

    #[test]
    fn each_new_state_is_one_line() {
        let mut shown = Shown { only: Vec::new(), known: BTreeMap::new() };
        let mut lines = |what| {
            let event = Event { id: "x-1".into(), at_unix_ms: 1_767_225_600_000, what };
            shown.lines(&event, &TimeZone::UTC)
        };
        let all = |vms: &[VmNow]| EventKind::All {
            missed: false,
            vms: vms.to_vec(),
            operations: Vec::new(),
        };
        let changed = |vm: VmNow| EventKind::Changed { vm };
        lines(all(&[vm(A, VmState::Stopped, 1)]));
        let at = "2026-01-01 00:00:00";
        let starting = lines(changed(vm(A, VmState::Starting, 2)));
        assert_eq!(starting, format!("{at}  {A}  starting  vm-a\n"));
        assert_eq!(lines(changed(vm(A, VmState::Starting, 3))), "", "a step of the start");
        let gone = lines(EventKind::Gone { vm: A.parse().unwrap() });
        assert_eq!(gone, format!("{at}  {A}  deleted   vm-a\n"));
        let unknown = lines(EventKind::Gone { vm: A.parse().unwrap() });
        assert_eq!(unknown, format!("{at}  {A}  deleted   -\n"));
        // Another daemon begins with all VMs: only the differences are shown.
        lines(changed(vm(A, VmState::Running, 4)));
        let after = lines(all(&[vm(B, VmState::Running, 1)]));
        let expected = format!("{at}  {A}  deleted   vm-a\n{at}  {B}  running   vm-b\n");
        assert_eq!(after, expected);
    }
}
