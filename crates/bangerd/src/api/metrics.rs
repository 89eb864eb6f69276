//! Metrics for Prometheus: its text exposition format, version 0.0.4.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use banger_api::routes;
use banger_api::stats::{RunStats, VmStats};
use banger_api::vm::{DiskView, VmState};
use banger_engine::drivers::Capacity;
use banger_engine::op_counts::OpCounts;
use banger_engine::stats::{GuestView, Reserved, Selection};
use banger_engine::timings::{BOUNDS_MS, Durations, Named};

use super::body::QueryParams;
use super::{Answer, Shared};
use crate::daemon::BUILD_ID;

/// Value of `Content-Type`.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The query.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// Also metrics of each VM, for which every running VM is measured.
    #[serde(default)]
    vms: bool,
}

/// Metrics of the host, of operations and, if requested, of VMs in the text format of Prometheus.
#[utoipa::path(get, path = routes::METRICS, tag = "daemon", operation_id = "metrics",
    params(Query),
    responses((status = 200, description = "Prometheus text exposition format 0.0.4",
        body = String, content_type = "text/plain")))]
pub async fn metrics(
    State(api): Shared,
    QueryParams(query): QueryParams<Query>,
) -> Answer<([(HeaderName, HeaderValue); 1], String)> {
    let engine = &api.engine;
    let vms = match query.vms {
        true => Some(engine.stats(&Selection::All, GuestView::Asked).await),
        false => None,
    };
    let all = All {
        reserved: engine.reserved(),
        capacity: engine.drivers().host.capacity(),
        operations: engine.operation_counts(),
        durations: engine.timings().all(),
        vms,
    };
    Ok(([(CONTENT_TYPE, HeaderValue::from_static(FORMAT))], all.text()))
}

/// Everything that is written.
struct All {
    reserved: Reserved,
    capacity: Capacity,
    operations: Vec<OpCounts>,
    durations: Durations,
    vms: Option<Vec<VmStats>>,
}

/// Kind of a metric.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Writes metrics, all samples of each in one group as the format requires.
#[derive(Default)]
struct Text(String);

impl Text {
    /// A metric with its samples: labels and value.
    fn metric(
        &mut self,
        (name, kind, help): (&str, Kind, &str),
        samples: impl IntoIterator<Item = (Vec<(&'static str, String)>, String)>,
    ) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.0.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for (labels, value) in samples {
            let labels: Vec<String> = labels
                .into_iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(&value)))
                .collect();
            self.0.push_str(&format!("{name}{{{}}} {value}\n", labels.join(",")));
        }
    }

    /// Histograms of one metric; no label if its name is empty.
    fn histograms(&mut self, (name, help): (&str, &str), label: &'static str, all: &Named) {
        self.metric((name, Kind::Histogram, help), []);
        for (value, histogram) in all {
            let labels = match label {
                "" => String::new(),
                label => format!("{label}=\"{}\",", escaped(value)),
            };
            let mut below = 0;
            for (bound, count) in BOUNDS_MS.iter().zip(histogram.buckets) {
                below += count;
                let bound = seconds(*bound, 1000);
                self.0 += &format!("{name}_bucket{{{labels}le=\"{bound}\"}} {below}\n");
            }
            let (count, sum) = (histogram.count, seconds(histogram.sum_us, 1_000_000));
            let own = labels.trim_end_matches(',');
            self.0 += &format!("{name}_bucket{{{labels}le=\"+Inf\"}} {count}\n");
            self.0 += &format!("{name}_sum{{{own}}} {sum}\n{name}_count{{{own}}} {count}\n");
        }
    }

    /// A metric of VMs; VMs without this value have no sample.
    fn of_vms(
        &mut self,
        metric: (&str, Kind, &str),
        vms: &[VmStats],
        value: impl Fn(&VmStats) -> Option<String>,
    ) {
        let sample = |vm: &VmStats| {
            let labels = vec![("vm", vm.name.to_string()), ("id", vm.id.to_string())];
            Some((labels, value(vm)?))
        };
        self.metric(metric, vms.iter().filter_map(sample));
    }

    /// The same for values of the run.
    fn of_runs(
        &mut self,
        metric: (&str, Kind, &str),
        vms: &[VmStats],
        value: impl Fn(&RunStats) -> Option<u64>,
    ) {
        self.of_vms(metric, vms, |vm| value(vm.run.as_ref()?).map(|value| value.to_string()));
    }
}

/// A label's value: backslash, quotation mark and line feed are escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Thousandths or millionths of a second as seconds.
fn seconds(count: u64, per_second: u64) -> String {
    format!("{}", count as f64 / per_second as f64)
}

impl All {
    fn text(&self) -> String {
        let mut text = Text::default();
        let build = [(vec![("build", BUILD_ID.to_owned())], "1".to_owned())];
        text.metric(("banger_build_info", Kind::Gauge, "Build of the daemon"), build);
        // The series of a state without VMs is zero and not absent.
        let states = VmState::ALL.map(|state| {
            let count = self.reserved.states.get(state.as_str()).copied().unwrap_or_default();
            (vec![("state", state.as_str().to_owned())], count.to_string())
        });
        text.metric(("banger_vms", Kind::Gauge, "Number of VMs in each state"), states);
        self.of_host(&mut text);
        if let Some(vms) = &self.vms {
            cpu_and_memory(&mut text, vms);
            transfers(&mut text, vms);
            disks(&mut text, vms);
        }
        of_operations(&mut text, &self.operations);
        of_durations(&mut text, &self.durations);
        text.0
    }

    fn of_host(&self, text: &mut Text) {
        let (capacity, reserved) = (&self.capacity, &self.reserved);
        for (name, help, value) in [
            ("banger_host_cpus", "CPUs of the host", u64::from(capacity.cpus)),
            ("banger_host_memory_bytes", "Memory of the host", capacity.memory_bytes),
            ("banger_host_disk_free_bytes", "Free where disks are kept", capacity.disk_free_bytes),
            ("banger_reserved_vcpus", "vCPUs of running VMs", reserved.vcpus),
            ("banger_reserved_memory_bytes", "Memory of running VMs", reserved.memory_bytes),
        ] {
            text.metric((name, Kind::Gauge, help), [(Vec::new(), value.to_string())]);
        }
    }
}

fn of_durations(text: &mut Text, durations: &Durations) {
    let stages = ("banger_stage_seconds", "Durations of stages of operations");
    text.histograms(stages, "stage", &durations.stages);
    let operations = ("banger_operation_seconds", "Durations of operations that succeeded");
    text.histograms(operations, "kind", &durations.operations);
    let connections = ("banger_agent_connection_seconds", "Connections to agents, one a command");
    let only = BTreeMap::from([(String::new(), durations.connections.clone())]);
    text.histograms(connections, "", &only);
    let commands = ("banger_exec_seconds", "Commands in guests, from the connection to the end");
    let only = BTreeMap::from([(String::new(), durations.commands.clone())]);
    text.histograms(commands, "", &only);
}

fn cpu_and_memory(text: &mut Text, vms: &[VmStats]) {
    use Kind::{Counter, Gauge};
    let cpu = ("banger_vm_cpu_seconds_total", Counter, "CPU time of the VMM");
    text.of_vms(cpu, vms, |vm| Some(seconds(vm.run.as_ref()?.cpu.time_us, 1_000_000)));
    let vcpus = ("banger_vm_vcpus", Gauge, "Virtual CPUs of the running VM");
    text.of_runs(vcpus, vms, |run| Some(run.cpu.vcpus.into()));
    let uptime = ("banger_vm_uptime_seconds", Gauge, "Age of the VMM");
    text.of_vms(uptime, vms, |vm| Some(seconds(vm.run.as_ref()?.uptime_ms, 1000)));
    let resident = ("banger_vm_memory_resident_bytes", Gauge, "Resident memory of the VMM");
    text.of_runs(resident, vms, |run| Some(run.memory.resident_bytes));
    let limit = ("banger_vm_memory_limit_bytes", Gauge, "Memory of the guest");
    text.of_runs(limit, vms, |run| Some(run.memory.limit_bytes));
    let available = (
        "banger_vm_guest_memory_available_bytes",
        Gauge,
        "Available memory as reported by the guest",
    );
    text.of_runs(available, vms, |run| Some(run.memory.guest?.available_bytes));
}

fn transfers(text: &mut Text, vms: &[VmStats]) {
    use Kind::Counter;
    let read = ("banger_vm_disk_read_bytes_total", Counter, "Bytes read from the disks");
    text.of_runs(read, vms, |run| Some(run.disk_io?.read_bytes));
    let written = ("banger_vm_disk_written_bytes_total", Counter, "Bytes written to the disks");
    text.of_runs(written, vms, |run| Some(run.disk_io?.written_bytes));
    let received =
        ("banger_vm_network_received_bytes_total", Counter, "Bytes received by the guest");
    text.of_runs(received, vms, |run| Some(run.network?.received_bytes));
    let sent = ("banger_vm_network_sent_bytes_total", Counter, "Bytes sent by the guest");
    text.of_runs(sent, vms, |run| Some(run.network?.sent_bytes));
}

fn disks(text: &mut Text, vms: &[VmStats]) {
    let samples = |value: fn(&DiskView) -> [u64; 2]| {
        let of_vm = move |vm: &VmStats| {
            let both = vm.disk.as_ref().map(value).into_iter();
            let (name, id) = (vm.name.to_string(), vm.id.to_string());
            both.flat_map(|bytes| ["root", "work"].into_iter().zip(bytes))
                .map(|(disk, bytes)| {
                    let labels =
                        vec![("vm", name.clone()), ("id", id.clone()), ("disk", disk.to_owned())];
                    (labels, bytes.to_string())
                })
                .collect::<Vec<_>>()
        };
        vms.iter().flat_map(of_vm).collect::<Vec<_>>()
    };
    let used = ("banger_vm_disk_used_bytes", Kind::Gauge, "Allocated size of a disk on the host");
    text.metric(used, samples(|disk| [disk.root_used_bytes, disk.work_used_bytes]));
    let size = ("banger_vm_disk_size_bytes", Kind::Gauge, "Virtual size of a disk");
    text.metric(size, samples(|disk| [disk.root_bytes, disk.work_bytes]));
}

fn of_operations(text: &mut Text, operations: &[OpCounts]) {
    let running = operations
        .iter()
        .map(|count| (vec![("kind", count.kind.clone())], count.running.to_string()));
    let help = "Operations in progress";
    text.metric(("banger_operations_running", Kind::Gauge, help), running);
    let ended = operations.iter().flat_map(|count| {
        [("succeeded", count.succeeded), ("failed", count.failed)].map(|(result, number)| {
            let labels = vec![("kind", count.kind.clone()), ("result", result.to_owned())];
            (labels, number.to_string())
        })
    });
    let help = "Operations that ended since the daemon started";
    text.metric(("banger_operations_total", Kind::Counter, help), ended);
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::stats::{CpuStats, DiskIo, GuestMemory, MemoryStats, Source};

    #[test]
    #[expect(clippy::too_many_lines, reason = "one document")]
    fn vms_and_operations_are_written_in_the_text_format() {
        let web = VmStats {
            id: "aaaa00000001".parse().unwrap(),
            name: "web".parse().unwrap(),
            state: VmState::Running,
            disk: Some(DiskView {
                root_bytes: 8,
                root_used_bytes: 5,
                work_bytes: 9,
                work_used_bytes: 6,
            }),
            run: Some(RunStats {
                sampled_us: 1,
                uptime_ms: 1500,
                cpu: CpuStats { vcpus: 2, time_us: 2_500_000 },
                memory: MemoryStats {
                    limit_bytes: 512,
                    resident_bytes: 210,
                    guest: Some(GuestMemory { total_bytes: 500, available_bytes: 400 }),
                },
                disk_io: Some(DiskIo { read_bytes: 1, written_bytes: 2, source: Source::Host }),
                network: None,
            }),
        };
        let (id, name) = ("bbbb00000002".parse().unwrap(), "off".parse().unwrap());
        let off = VmStats { id, name, state: VmState::Stopped, disk: None, run: None };
        let kind = "create".to_owned();
        let counts = OpCounts { kind, running: 1, succeeded: 2, failed: 3 };
        let mut durations = Durations::default();
        durations.stages.entry("boot".into()).or_default().add(1_500_000);
        durations.connections.add(700);
        durations.commands.add(30_000);
        let states = BTreeMap::from([("running", 1), ("stopped", 1)]);
        let all = All {
            reserved: Reserved { states, vcpus: 2, memory_bytes: 512 },
            capacity: Capacity { cpus: 4, memory_bytes: 8, disk_free_bytes: 9 },
            operations: vec![counts],
            durations,
            vms: Some(vec![off, web]),
        };
        let text = all.text();
        let without = All { vms: None, ..all }.text();
        assert!(!without.contains("banger_vm_") && without.contains("banger_host_cpus{} 4\n"));
        for line in [
            "# HELP banger_vms Number of VMs in each state",
            "# TYPE banger_vms gauge",
            "banger_vms{state=\"running\"} 1",
            "banger_vms{state=\"stopped\"} 1",
            "banger_vms{state=\"broken\"} 0",
            "# TYPE banger_vm_cpu_seconds_total counter",
            "banger_vm_cpu_seconds_total{vm=\"web\",id=\"aaaa00000001\"} 2.5",
            "banger_vm_uptime_seconds{vm=\"web\",id=\"aaaa00000001\"} 1.5",
            "banger_vm_vcpus{vm=\"web\",id=\"aaaa00000001\"} 2",
            "banger_vm_memory_resident_bytes{vm=\"web\",id=\"aaaa00000001\"} 210",
            "banger_vm_guest_memory_available_bytes{vm=\"web\",id=\"aaaa00000001\"} 400",
            "banger_vm_disk_written_bytes_total{vm=\"web\",id=\"aaaa00000001\"} 2",
            "banger_vm_disk_used_bytes{vm=\"web\",id=\"aaaa00000001\",disk=\"work\"} 6",
            "banger_vm_disk_size_bytes{vm=\"web\",id=\"aaaa00000001\",disk=\"root\"} 8",
            "banger_host_disk_free_bytes{} 9",
            "banger_reserved_vcpus{} 2",
            "# TYPE banger_stage_seconds histogram",
            "banger_stage_seconds_bucket{stage=\"boot\",le=\"1\"} 0",
            "banger_stage_seconds_bucket{stage=\"boot\",le=\"2.5\"} 1",
            "banger_stage_seconds_bucket{stage=\"boot\",le=\"+Inf\"} 1",
            "banger_stage_seconds_sum{stage=\"boot\"} 1.5",
            "banger_stage_seconds_count{stage=\"boot\"} 1",
            "banger_agent_connection_seconds_bucket{le=\"0.001\"} 1",
            "banger_agent_connection_seconds_count{} 1",
            "banger_exec_seconds_bucket{le=\"0.05\"} 1",
            "banger_exec_seconds_count{} 1",
            "banger_operations_running{kind=\"create\"} 1",
            "banger_operations_total{kind=\"create\",result=\"failed\"} 3",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert!(!text.contains("off") && !text.contains("network_sent_bytes_total{"), "{text}");
        // Each line is a comment or a sample, and each metric is one group.
        let mut groups = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with("# HELP ")) {
            let name = line.strip_prefix("# TYPE ").unwrap_or(line);
            let name = name.split([' ', '{']).next().unwrap();
            let parts = ["_bucket", "_sum", "_count"];
            let name = parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
            assert!(line.starts_with("# TYPE ") || line.contains("} "), "{line}");
            if groups.last() != Some(&name) {
                assert!(!groups.contains(&name), "{name} is in two groups");
                groups.push(name);
            }
        }
        assert_eq!(escaped("a\"\\\n"), "a\\\"\\\\\\n");
    }
}
