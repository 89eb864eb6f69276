//! Everything about one VM, as text.

use banger_api::ByteString;
use banger_api::boot::BootView;
use banger_api::handover::{HandedOver, HandoverState};
use banger_api::labels;
use banger_api::opencode::{self, VmSecrets};
use banger_api::program::ProgramView;
use banger_api::size::{MIB, human_size};
use banger_api::vm::{SpecView, Timing, VmDetails, VmSummary};
use banger_client::text::stopped_because;

use crate::commands::vm::sync;
use crate::render::plain;
use crate::render::time::{ago, duration};

/// Whether to tell why each driver was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reasons {
    /// Yes.
    Show,
    /// No.
    Hide,
}

/// Renders the details of a VM.
pub fn vm(vm: &VmDetails, reasons: Reasons) -> String {
    let summary = &vm.summary;
    let disk = summary.disk.unwrap_or_default();
    let mut text = Lines::default();
    text.add("name", summary.name.as_str());
    text.add("id", summary.id.as_str());
    text.add("state", summary.state.as_str());
    if let Some(because) = &vm.stopped_because {
        text.add("because", &stopped_because(because));
    }
    for problem in &vm.problems {
        text.add("problem", problem);
    }
    for notice in &vm.notices {
        text.add("notice", notice);
    }
    text.add("created", &format!("{} ({})", ago(&summary.created_at), summary.created_at));
    text.add("image", &format!("{} ({})", summary.image, vm.image_id));
    text.add("kernel", vm.kernel_id.as_str());
    text.program(vm.program.as_ref());
    text.add("vcpus", &summary.vcpus.unwrap_or_default().to_string());
    text.add("memory", &human_size(summary.memory_mib.unwrap_or_default().saturating_mul(MIB)));
    let used = |used, size| format!("{} used of {}", human_size(used), human_size(size));
    text.add("root disk", &used(disk.root_used_bytes, disk.root_bytes));
    text.add("work disk", &used(disk.work_used_bytes, disk.work_bytes));
    text.reached(vm);
    if vm.autostart {
        text.add("autostart", "on");
    }
    for (key, value) in &summary.labels {
        text.add("label", &labels::shown(key, value));
    }
    if let Some(next) = &vm.next_start {
        text.add("next start", &next_start(summary, next));
    }
    if let Some(pid) = vm.pid {
        text.add("vmm pid", &pid.to_string());
    }
    if let Some(boot_id) = &vm.boot_id {
        text.add("boot id", boot_id);
    }
    let (drivers, why) = (&vm.drivers, &vm.why);
    let with = |name: &str, why: &str| match reasons {
        Reasons::Show => format!("{name}: {why}"),
        Reasons::Hide => name.to_owned(),
    };
    text.add("vmm", &with(&drivers.vmm, &why.vmm));
    text.add("storage", &with(&drivers.storage, &why.storage));
    text.add("network", &with(&drivers.network, &why.network));
    text.add("console", &vm.paths.console_log.to_string_lossy());
    text.add("vmm log", &vm.paths.vmm_log.to_string_lossy());
    if let Some(boot) = &vm.boot {
        text.add("boot", &boot_text(boot));
    }
    for entry in vm.start.iter().flat_map(|start| &start.handed_over) {
        text.add("from host", &handed_over(entry));
    }
    if let Some(start) = &vm.start {
        text.add("last start", &duration(start.total_ms));
        text.stages(&start.stages);
        if !start.guest.is_empty() {
            text.add("in guest", "");
            text.stages(&start.guest);
        }
    }
    text.0
}

/// Renders where a machine's repository or folder came from, and where it is.
pub fn workspace(host: &ByteString, guest: &ByteString) -> String {
    let mut text = Lines::default();
    text.add("workspace", &format!("{guest} of {host}"));
    text.0
}

/// Renders the secrets of a VM.
pub fn secrets(secrets: &VmSecrets) -> String {
    let mut text = Lines::default();
    if let Some(access) = &secrets.opencode {
        text.add("username", &access.username);
        text.add("password", &access.password);
    }
    text.0
}

/// `vcpus 4, memory 2 GiB, root disk 8 GiB, work disk 8 GiB, nat on, publishes 127.0.0.1:8080:80`
fn next_start(now: &VmSummary, next: &SpecView) -> String {
    let ports: Vec<String> = next.publish.iter().map(ToString::to_string).collect();
    let mut values = vec![
        format!("vcpus {}", next.vcpus),
        format!("memory {}", human_size(next.memory_mib.saturating_mul(MIB))),
        format!("root disk {}", human_size(next.root_bytes)),
        format!("work disk {}", human_size(next.work_bytes)),
        format!("nat {}", if next.nat { "on" } else { "off" }),
    ];
    if next.publish != now.publish {
        values.push(match ports.as_slice() {
            [] => "publishes no port".to_owned(),
            ports => format!("publishes {}", ports.join(" ")),
        });
    }
    values.join(", ")
}

/// `/app serve, in /srv, as web:web`
fn program_text(program: &ProgramView) -> String {
    let words: Vec<String> = program.argv.iter().map(shown_word).collect();
    let mut text = words.join(" ");
    if let Some(cwd) = &program.cwd {
        text.push_str(&format!(", in {cwd}"));
    }
    if let Some(user) = &program.user {
        text.push_str(&format!(", as {user}"));
    }
    text
}

/// A word of a command line, in quotes if a shell would divide it.
fn shown_word(word: &ByteString) -> String {
    let text = word.to_string();
    let plain = |c: char| c.is_alphanumeric() || "_@%+=:,./-".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("{text:?}") }
}

/// `running 7.21 s after the kernel's start (systemd: running)`
fn boot_text(boot: &BootView) -> String {
    let mut text = boot.state.as_str().to_owned();
    if let Some(ms) = boot.after_ms {
        text.push_str(&format!(", {} after the kernel's start", duration(ms)));
    }
    if !boot.source.is_empty() {
        text.push_str(&format!(" ({})", boot.source));
    }
    if !boot.failed.is_empty() {
        text.push_str(&format!("; failed: {}", boot.failed.join(", ")));
    }
    text
}

/// `git identity copied to /root/.gitconfig`
fn handed_over(entry: &HandedOver) -> String {
    let HandedOver { kind, guest, state, detail } = entry;
    let what = kind.as_str();
    match (state, detail) {
        (HandoverState::Copied, None) => format!("{what} copied to {guest}"),
        (HandoverState::Copied, Some(detail)) => {
            format!("{what} copied to {guest} without {detail}")
        }
        (_, detail) => {
            let why = detail.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            format!("{what} not copied to {guest}{why}")
        }
    }
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: &str) {
        let line = format!("{name:<12}{}", plain::block(value, &" ".repeat(12)));
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }

    fn program(&mut self, program: Option<&ProgramView>) {
        let Some(program) = program else { return };
        self.add("program", &program_text(program));
        if let Some(code) = program.exit_code {
            self.add("exit code", &code.to_string());
        }
    }

    /// What of it can be reached, and its live folders.
    fn reached(&mut self, vm: &VmDetails) {
        let summary = &vm.summary;
        if let Some(ip) = &summary.ip {
            self.add("address", ip);
        }
        for port in &summary.publish {
            self.add("published", &format!("{} leads to {}", port.listens_on(), port.guest_port));
        }
        if summary.opencode {
            self.add("opencode", &format!("on port {} of the guest", opencode::PORT));
        }
        for folder in &vm.sync {
            self.add("live folder", &sync::summary(folder));
            if let Some(message) = &folder.message {
                self.add("", message);
            }
        }
    }

    fn stages(&mut self, stages: &[Timing]) {
        for stage in stages {
            let name = plain::line(&stage.name);
            self.0.push_str(&format!("  {name:<20}{:>10}\n", duration(stage.ms)));
        }
    }
}
