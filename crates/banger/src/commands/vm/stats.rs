//! `banger vm stats`.

use std::time::Duration;

use banger_api::size::human_size;
use banger_api::stats::{RunStats, VmStats, cpu_percent};
use banger_api::vm::VmState;
use banger_api::{ApiError, VmId, exit};
use banger_client::batch::resolve;
use banger_client::{Client, StatsSelection};
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior};

use crate::context::{Context, Format};
use crate::errors::{self, Failure};
use crate::render::frames::{self, Frames};
use crate::render::plain;
use crate::render::table::{Column, table};
use crate::render::time::span;
use crate::values;

/// Show the CPU, memory, disk and network usage of VMs.
///
///   banger vm stats                 running VMs, measured for one second
///   banger vm stats web db
///   banger vm stats --watch         refreshed until Ctrl-C
///
/// CPU is in percent of one CPU of this host: 200% for two busy vCPUs. MEMORY is
/// the memory that the VM takes on this host, of its memory size; AVAILABLE is
/// the part that programs in the guest can still use. DISK is the space that both
/// disks take on this host, of their sizes. NET I/O (received / sent by the guest)
/// and DISK I/O (read / written) are totals since the VM started.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Names, ids or prefixes of ids [default: running VMs]
    #[arg(value_name = "VM")]
    pub vms: Vec<String>,
    /// Also VMs that are not running
    #[arg(short, long, conflicts_with = "vms")]
    pub all: bool,
    /// Refresh until Ctrl-C; with --json, one object for each VM and interval, in a line each
    #[arg(short, long)]
    pub watch: bool,
    /// Time between two samples, 100ms to 1h [default: 1s]
    #[arg(
        short = 'n', long, value_name = "DURATION", value_parser = values::interval,
        default_value = "1s", hide_default_value = true, allow_hyphen_values = true
    )]
    pub interval: Duration,
}

/// An object that `--json` prints: one sample of a VM.
#[derive(Serialize)]
struct Element<'a> {
    /// The argument; the name if there was none.
    reference: &'a str,
    /// Time of the sample; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    /// CPU usage since the previous sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_percent: Option<Option<f64>>,
    #[serde(flatten)]
    stats: Option<&'a VmStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ApiError>,
}

/// VMs of the command line.
struct Wanted {
    selection: StatsSelection,
    /// Arguments in order, each with its VM or the reason why there is none; empty without
    /// arguments.
    named: Vec<(String, Result<VmId, ApiError>)>,
}

/// A VM with the samples at both ends of an interval.
struct Measured {
    reference: String,
    stats: VmStats,
    cpu_percent: Option<f64>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    let wanted = wanted(&client, &args).await?;
    let failed = || wanted.named.iter().filter_map(|(_, found)| found.as_ref().err());
    if context.format == Format::Text || args.watch {
        failed().for_each(|error| errors::show(context, error));
    }
    let code = match failed().next() {
        None => exit::OK,
        Some(error) if wanted.named.len() == 1 => error.code.exit_code(),
        Some(_) => exit::FAILED,
    };
    if args.watch && failed().count() == wanted.named.len() && !wanted.named.is_empty() {
        return Ok(code);
    }
    if !args.watch {
        once(context, &client, &wanted, args.interval).await?;
        return Ok(code);
    }
    // Ctrl-C is the usual end of the command, so it is a success.
    let mut interrupts = context.interrupts.listen();
    tokio::select! {
        biased;
        () = interrupts.next() => Ok(code),
        () = frames::reader_gone() => Err(Failure::BrokenPipe),
        failure = watch(context, &client, &wanted, args.interval) => failure.map(|()| code),
    }
}

async fn wanted(client: &Client, args: &Args) -> Result<Wanted, Failure> {
    if args.vms.is_empty() {
        let selection = if args.all { StatsSelection::All } else { StatsSelection::Running };
        return Ok(Wanted { selection, named: Vec::new() });
    }
    let targets = resolve(&client.vms().await?, &args.vms);
    let named: Vec<_> = targets
        .into_iter()
        .map(|target| (target.reference, target.found.map(|vm| vm.id)))
        .collect();
    let ids = named.iter().filter_map(|(_, found)| found.as_ref().ok().cloned());
    Ok(Wanted { selection: StatsSelection::Ids(ids.collect()), named })
}

impl Wanted {
    async fn sample(&self, client: &Client) -> Result<Vec<VmStats>, ApiError> {
        match &self.selection {
            StatsSelection::Ids(ids) if ids.is_empty() => Ok(Vec::new()),
            selection => client.stats(selection).await,
        }
    }

    /// The samples in the order of the arguments.
    fn measured(&self, before: &[VmStats], now: Vec<VmStats>) -> Vec<Measured> {
        let place = |id: &VmId| {
            let is = |(_, found): &(String, Result<VmId, ApiError>)| found.as_ref() == Ok(id);
            self.named.iter().position(is)
        };
        let mut all: Vec<(Option<usize>, Measured)> = now
            .into_iter()
            .map(|stats| {
                let earlier = before.iter().find(|earlier| earlier.id == stats.id);
                let cpu_percent = earlier.and_then(|earlier| cpu_percent(earlier, &stats));
                let place = place(&stats.id);
                let named = place.and_then(|place| self.named.get(place));
                let reference =
                    named.map_or_else(|| stats.name.to_string(), |(name, _)| name.clone());
                (place, Measured { reference, stats, cpu_percent })
            })
            .collect();
        // A stable sort: VMs without an argument keep the order of their names.
        all.sort_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, measured)| measured).collect()
    }
}

/// Two samples, and the usage in between.
async fn once(
    context: &Context,
    client: &Client,
    wanted: &Wanted,
    interval: Duration,
) -> Result<(), Failure> {
    let before = wanted.sample(client).await?;
    let mut now = before.clone();
    // Without a running VM there is nothing to wait for.
    if before.iter().any(|vm| vm.run.is_some()) {
        tokio::time::sleep(interval).await;
        now = wanted.sample(client).await?;
    }
    let measured = wanted.measured(&before, now);
    if context.format == Format::Text {
        if wanted.named.is_empty() && measured.is_empty() {
            context.info("no running VMs: `banger vm stats --all` shows all");
        }
        return match measured.is_empty() && !wanted.named.is_empty() {
            true => Ok(()),
            false => context.print(&text(&measured)),
        };
    }
    let failed = wanted.named.iter().filter_map(|(reference, found)| {
        let (time, cpu_percent, stats) = (None, None, None);
        let error = Some(found.as_ref().err()?);
        Some(Element { reference, time, cpu_percent, stats, error })
    });
    let time = time();
    let elements = measured.iter().map(|vm| element(vm, &time));
    context.json(&elements.chain(failed).collect::<Vec<_>>())
}

/// Shows each interval, until the VMs of the arguments are deleted.
async fn watch(
    context: &Context,
    client: &Client,
    wanted: &Wanted,
    interval: Duration,
) -> Result<(), Failure> {
    let mut frames = Frames::new();
    let mut before = wanted.sample(client).await?;
    let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
    // After a slow answer, the next interval is a whole one.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = wanted.sample(client).await?;
        if now.is_empty() && !wanted.named.is_empty() {
            context.info("the VMs were deleted");
            return Ok(());
        }
        let measured = wanted.measured(&before, now.clone());
        match context.format {
            Format::Text => frames.show(text(&measured)).await?,
            Format::Json => frames::write(lines(&measured)?).await?,
        }
        before = now;
    }
}

fn time() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn element<'a>(vm: &'a Measured, time: &str) -> Element<'a> {
    let hundredths = |percent: f64| (percent * 100.0).round() / 100.0;
    Element {
        reference: &vm.reference,
        time: Some(time.to_owned()),
        cpu_percent: Some(vm.cpu_percent.map(hundredths)),
        stats: Some(&vm.stats),
        error: None,
    }
}

/// One line of JSON for each VM.
fn lines(measured: &[Measured]) -> Result<String, Failure> {
    let (time, mut text) = (time(), String::new());
    for vm in measured {
        let line = serde_json::to_string(&element(vm, &time)).map_err(std::io::Error::from)?;
        text.push_str(&plain::json(&line));
        text.push('\n');
    }
    Ok(text)
}

fn text(measured: &[Measured]) -> String {
    let mut columns = vec![
        Column::long_text("NAME", 0, 12),
        Column::number("CPU", 1),
        Column::number("MEMORY", 2),
        Column::number("AVAILABLE", 3),
        Column::number("NET I/O", 4),
        Column::number("DISK I/O", 5),
        Column::number("DISK", 6),
        Column::text("UPTIME", 7),
    ];
    let mut rows: Vec<_> = measured.iter().map(row).collect();
    if measured.iter().any(|vm| vm.stats.state != VmState::Running) {
        columns.insert(1, Column::text("STATE", 2));
        for (row, vm) in rows.iter_mut().zip(measured) {
            row.insert(1, vm.stats.state.as_str().to_owned());
        }
    }
    table(&columns, &rows)
}

fn row(vm: &Measured) -> Vec<String> {
    let run = vm.stats.run.as_ref();
    let cell = |value: &dyn Fn(&RunStats) -> Option<String>| {
        run.and_then(value).unwrap_or_else(|| "-".to_owned())
    };
    let disk = vm.stats.disk.map(|disk| {
        let used = disk.root_used_bytes.saturating_add(disk.work_used_bytes);
        pair(used, disk.root_bytes.saturating_add(disk.work_bytes))
    });
    vec![
        vm.stats.name.to_string(),
        vm.cpu_percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.1}%")),
        cell(&|run| Some(pair(run.memory.resident_bytes, run.memory.limit_bytes))),
        cell(&|run| run.memory.guest.map(|guest| human_size(guest.available_bytes))),
        cell(&|run| run.network.map(|io| pair(io.received_bytes, io.sent_bytes))),
        cell(&|run| run.disk_io.map(|io| pair(io.read_bytes, io.written_bytes))),
        disk.unwrap_or_else(|| "-".to_owned()),
        cell(&|run| Some(span(i64::try_from(run.uptime_ms / 1000).unwrap_or(i64::MAX)))),
    ]
}

fn pair(first: u64, second: u64) -> String {
    format!("{} / {}", human_size(first), human_size(second))
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::stats::{CpuStats, DiskIo, GuestMemory, MemoryStats, NetworkIo, Source};
    use banger_api::vm::DiskView;

    fn stats(name: &str, state: VmState, run: Option<RunStats>) -> VmStats {
        let id = VmId::from_entropy(name.bytes().map(u64::from).sum());
        let disk = DiskView {
            root_bytes: 8 << 30,
            root_used_bytes: 5 << 20,
            work_bytes: 8 << 30,
            work_used_bytes: 7 << 20,
        };
        VmStats { id, name: name.parse().unwrap(), state, disk: Some(disk), run }
    }

    fn run_stats(guest: Option<GuestMemory>) -> RunStats {
        let source = Source::Host;
        RunStats {
            sampled_us: 1_000_000,
            uptime_ms: 125_000,
            cpu: CpuStats { vcpus: 2, time_us: 500_000 },
            memory: MemoryStats { limit_bytes: 512 << 20, resident_bytes: 210 << 20, guest },
            disk_io: guest.map(|_| DiskIo { read_bytes: 1 << 20, written_bytes: 2 << 20, source }),
            network: Some(NetworkIo { received_bytes: 3 << 10, sent_bytes: 900, source }),
        }
    }

    fn measured(stats: VmStats, cpu_percent: Option<f64>) -> Measured {
        Measured { reference: stats.name.to_string(), stats, cpu_percent }
    }

    #[test]
    fn unknown_values_are_dashes_and_states_are_shown_if_they_differ() {
        let guest = Some(GuestMemory { total_bytes: 500 << 20, available_bytes: 400 << 20 });
        let web = || measured(stats("web", VmState::Running, Some(run_stats(guest))), Some(112.34));
        let silent = measured(stats("silent", VmState::Running, Some(run_stats(None))), Some(0.0));
        let expected = "\
NAME       CPU               MEMORY  AVAILABLE        NET I/O       DISK I/O             DISK  UPTIME
web     112.3%  210 MiB / 512 MiB    400 MiB  3 KiB / 900 B  1 MiB / 2 MiB  12 MiB / 16 GiB  2 minutes
silent    0.0%  210 MiB / 512 MiB          -  3 KiB / 900 B              -  12 MiB / 16 GiB  2 minutes
";
        let squeeze = |text: &str| {
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            text.lines().map(words).collect::<Vec<_>>()
        };
        assert_eq!(squeeze(&text(&[web(), silent])), squeeze(expected));
        let stopped = measured(stats("off", VmState::Stopped, None), None);
        let shown = squeeze(&text(&[web(), stopped]));
        assert!(shown[0].starts_with("NAME STATE CPU MEMORY "), "{shown:?}");
        assert_eq!(shown[2], "off stopped - - - - - 12 MiB / 16 GiB -");
    }

    #[test]
    fn vms_keep_the_order_of_the_arguments() {
        let (a, b) = (stats("a", VmState::Stopped, None), stats("b", VmState::Stopped, None));
        let missing = ApiError::new(banger_api::ErrorCode::NotFound, "there is no VM `c`");
        let named = vec![
            ("b".to_owned(), Ok(b.id.clone())),
            ("c".to_owned(), Err(missing)),
            (a.id.to_string(), Ok(a.id.clone())),
        ];
        let ids = vec![b.id.clone(), a.id.clone()];
        let wanted = Wanted { selection: StatsSelection::Ids(ids), named };
        let shown = wanted.measured(&[], vec![a.clone(), b]);
        let references: Vec<&str> = shown.iter().map(|vm| vm.reference.as_str()).collect();
        assert_eq!(references, ["b", a.id.as_str()]);
    }

    #[test]
    fn a_line_of_json_is_one_vm() {
        let web = measured(stats("web", VmState::Running, Some(run_stats(None))), Some(12.345_678));
        let off = measured(stats("off", VmState::Stopped, None), None);
        let text = lines(&[web, off]).unwrap();
        let objects: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            (&objects[0]["name"], &objects[0]["cpu_percent"]),
            (&"web".into(), &12.35.into())
        );
        assert_eq!(objects[0]["run"]["memory"]["resident_bytes"], 210 << 20);
        assert!(objects[1]["run"].is_null() && objects[1]["cpu_percent"].is_null());
        assert!(objects[1].get("cpu_percent").is_some() && objects[1].get("error").is_none());
    }
}
