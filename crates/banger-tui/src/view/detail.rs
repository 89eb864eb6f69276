//! Details of one VM: facts, the stages of its start, and the end of its console.

use banger_api::size::{MIB, human_size};
use banger_api::vm::{VmDetails, VmState};
use banger_client::text::stopped_because;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::canvas::{Canvas, sparkline};
use super::timeline::Timeline;
use super::vms::port;
use crate::model::Model;
use crate::model::detail::Zoom;
use crate::model::progress::{Progress, of_start};
use crate::model::vms::Vm;
use crate::text;

/// Columns of a label.
const LABEL: u16 = 10;
/// Columns from which facts and stages stand side by side.
const TWO_COLUMNS: u16 = 120;
/// Rows that the console has at least.
const CONSOLE: u16 = 5;
/// Rows from which free rows stand between the parts.
const TALL: u16 = 26;
/// Rows of one fact at most.
const MAX_ROWS: usize = 4;

/// A fact: label, text, and style of the text.
type Fact = (&'static str, String, Style);

/// Draws the details of the selected VM.
pub fn details(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let Some(vm) = model.vms.selected() else {
        canvas.put(area.x, area.y, area.width, "No VM is selected", model.theme.faint);
        return;
    };
    title(model, canvas, vm, area);
    // A tall screen has free rows between the parts.
    let gap = u16::from(area.height >= TALL);
    let top = area.y + 1 + gap;
    let below = Rect::new(area.x, top, area.width, area.bottom().saturating_sub(top));
    let details = model.detail.details.as_deref();
    let details = details.filter(|details| details.summary.id == vm.summary.id);
    let facts = facts(model, vm, details);
    let two = below.width >= TWO_COLUMNS;
    let left = if two { below.width / 2 - 1 } else { below.width };
    let most = below.height.saturating_sub(CONSOLE);
    let used = draw_facts(canvas, Rect { width: left, height: most, ..below }, &facts);
    let stages = if two {
        let x = below.x + left + 2;
        Rect::new(x, below.y, below.right() - x, most)
    } else {
        let top = used + gap;
        Rect::new(below.x, below.y + top, below.width, most.saturating_sub(top))
    };
    let of_stages = draw_stages(model, canvas, vm, details, stages);
    let top = if two { used.max(of_stages) } else { used + gap + of_stages };
    let y = below.y + top + if of_stages > 0 || two { gap } else { 0 };
    let console = Rect::new(below.x, y, below.width, below.bottom().saturating_sub(y));
    draw_console(model, canvas, console);
}

/// Draws only the console.
pub fn console_alone(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    if let Some(vm) = model.vms.selected() {
        title(model, canvas, vm, area);
    }
    let rest = Rect::new(area.x, area.y + 1, area.width, area.height.saturating_sub(1));
    console_lines(model, canvas, rest);
}

fn title(model: &Model, canvas: &mut Canvas<'_>, vm: &Vm, area: Rect) {
    let theme = model.theme;
    let name = vm.summary.name.as_str();
    let mut x = canvas.put(area.x, area.y, area.width / 2, name, theme.strong) + 2;
    let (style, symbol) = theme.of_state(vm.summary.state);
    x = canvas.put(x, area.y, 2, symbol, style) + 1;
    x = canvas.put(x, area.y, 10, vm.summary.state.as_str(), style) + 2;
    let run = vm.stats.as_ref().and_then(|stats| stats.run.as_ref());
    if let Some(run) = run {
        let text = format!("for {}", text::span(run.uptime_ms / 1000));
        x = canvas.put(x, area.y, 10, &text, theme.faint) + 2;
    }
    let room = area.right().saturating_sub(x);
    canvas.put_right(x, area.y, room, vm.summary.id.as_str(), theme.faint);
}

fn facts(model: &Model, vm: &Vm, details: Option<&VmDetails>) -> Vec<Fact> {
    let theme = model.theme;
    let mut facts: Vec<Fact> = Vec::new();
    for problem in details.iter().flat_map(|details| &details.problems) {
        facts.push(("problem", problem.clone(), theme.bad));
    }
    facts.extend(vm.summary.problem.clone().map(|problem| ("problem", problem, theme.bad)));
    let because = details.and_then(|details| details.stopped_because.as_ref());
    if let Some(because) = because.filter(|_| vm.summary.state == VmState::Stopped) {
        use banger_api::vm::StoppedBecause::{StartFailed, VmmDied};
        let is_bad = matches!(because, StartFailed { .. } | VmmDied { .. });
        let style = if is_bad { theme.bad } else { theme.text };
        facts.push(("stopped", stopped_because(because), style));
    }
    for notice in details.iter().flat_map(|details| &details.notices) {
        facts.push(("notice", notice.clone(), theme.busy));
    }
    usage(model, vm, &mut facts);
    let summary = &vm.summary;
    if let Some(ip) = &summary.ip {
        facts.push(("address", ip.clone(), theme.text));
    }
    if !summary.publish.is_empty() {
        let ports: Vec<String> = summary.publish.iter().map(port).collect();
        facts.push(("ports", ports.join("  "), theme.info));
    }
    let mut from = summary.image.clone();
    if let Some(details) = details {
        let drivers = &details.drivers;
        from.push_str(&format!(
            " · kernel {} · {}, {}, {}",
            kernel(model, details),
            drivers.vmm,
            drivers.storage,
            drivers.network
        ));
    }
    facts.push(("image", from, theme.text));
    if !summary.labels.is_empty() {
        let labels = summary.labels.iter();
        let labels: Vec<String> =
            labels.map(|(key, value)| banger_api::labels::shown(key, value)).collect();
        facts.push(("labels", labels.join("  "), theme.text));
    }
    if let Some(boot) = details.and_then(|details| details.boot.as_ref())
        && !boot.failed.is_empty()
    {
        facts.push(("failed", boot.failed.join(", "), theme.bad));
    }
    facts
}

/// Name of the kernel; its id if it is not listed.
fn kernel<'a>(model: &'a Model, details: &'a VmDetails) -> &'a str {
    let listed = model.kernels.all().iter().find(|kernel| kernel.id == details.kernel_id);
    let name = listed.and_then(|kernel| kernel.names.first());
    name.map_or(details.kernel_id.as_str(), String::as_str)
}

fn usage(model: &Model, vm: &Vm, facts: &mut Vec<Fact>) {
    let theme = model.theme;
    let summary = &vm.summary;
    let vcpus = summary.vcpus.unwrap_or_default();
    let plural = if vcpus == 1 { "" } else { "s" };
    let cpu = match vm.cpu_now() {
        Some(percent) => {
            let most = vm.cpu.iter().copied().fold(25.0, f64::max);
            let history = sparkline(&vm.cpu, most, 30);
            format!("{percent:.0}% of {vcpus} vCPU{plural}  {history}")
        }
        None => format!("{vcpus} vCPU{plural}"),
    };
    facts.push(("CPU", cpu, theme.text));
    let limit = human_size(summary.memory_mib.unwrap_or_default().saturating_mul(MIB));
    let memory = match vm.memory_used() {
        Some(used) => format!("{} of {limit}", human_size(used)),
        None => limit,
    };
    facts.push(("memory", memory, theme.text));
    if let Some(disk) = summary.disk {
        let of = |used, size| format!("{} of {}", human_size(used), human_size(size));
        let root = of(disk.root_used_bytes, disk.root_bytes);
        let work = of(disk.work_used_bytes, disk.work_bytes);
        facts.push(("disk", format!("root {root} · work {work}"), theme.text));
    }
}

/// Draws facts, wrapped; returns the used rows.
fn draw_facts(canvas: &mut Canvas<'_>, area: Rect, facts: &[Fact]) -> u16 {
    let width = area.width.saturating_sub(LABEL);
    let mut y = area.y;
    for (label, value, style) in facts {
        let value = text::harmless(&value.replace('\n', " ")).into_owned();
        let lines = text::wrap(&value, usize::from(width));
        for (number, line) in lines.iter().take(MAX_ROWS).enumerate() {
            if y >= area.bottom() {
                return area.height;
            }
            if number == 0 {
                canvas.put(area.x, y, LABEL, label, canvas.theme.faint);
            }
            canvas.put(area.x + LABEL, y, width, line, *style);
            y += 1;
        }
    }
    y - area.y
}

/// Draws the operation in progress, or the last start; returns the used rows.
fn draw_stages(
    model: &Model,
    canvas: &mut Canvas<'_>,
    vm: &Vm,
    details: Option<&VmDetails>,
    area: Rect,
) -> u16 {
    if area.height < 2 {
        return 0;
    }
    if let Some(progress) = model.progress_of(&vm.summary.id) {
        return draw_progress(model, canvas, progress, area);
    }
    let Some(report) = details.and_then(|details| details.start.as_ref()) else { return 0 };
    let heading = format!("Last start, {}", text::duration(report.total_ms));
    section(canvas, area, &heading);
    let (host, guest) = of_start(report);
    let room = area.height - 1;
    let for_guest = if guest.is_empty() || room < 6 { 0 } else { room / 3 };
    let style = model.theme.gauge;
    let lines = Timeline { stages: &host, now_ms: 0, style };
    let place = Rect::new(area.x, area.y + 1, area.width, room - for_guest);
    let used = lines.draw(canvas, place);
    if for_guest < 2 {
        return used + 1;
    }
    canvas.put(area.x, area.y + 1 + used, area.width, "in the guest", model.theme.faint);
    let lines = Timeline { stages: &guest, now_ms: 0, style: model.theme.info };
    let y = area.y + 2 + used;
    used + 2 + lines.draw(canvas, Rect::new(area.x, y, area.width, area.bottom() - y))
}

/// Draws an operation with its stages; returns the used rows.
pub fn draw_progress(
    model: &Model,
    canvas: &mut Canvas<'_>,
    progress: &Progress,
    area: Rect,
) -> u16 {
    let elapsed = progress.elapsed_ms(model.now_ms);
    let heading = format!("{}, {}", progress.label, text::duration(elapsed));
    section(canvas, area, &heading);
    let lines = Timeline { stages: &progress.stages, now_ms: elapsed, style: model.theme.gauge };
    let room = area.height.saturating_sub(2);
    let mut used = 1 + lines.draw(canvas, Rect::new(area.x, area.y + 1, area.width, room));
    if let Some(text) = transfer(progress) {
        canvas.put(area.x, area.y + used, area.width, &text, model.theme.info);
        used += 1;
    }
    used
}

/// `12 MiB of 80 MiB`, or the last line of information.
pub fn transfer(progress: &Progress) -> Option<String> {
    let Some(transfer) = &progress.transfer else { return progress.note.clone() };
    let count = |value: u64| match &transfer.unit {
        None => human_size(value),
        Some(_) => value.to_string(),
    };
    let mut text = count(transfer.done);
    if let Some(total) = transfer.total {
        text.push_str(&format!(" of {}", count(total)));
    }
    if let Some(unit) = &transfer.unit {
        text.push_str(&format!(" {unit}"));
    }
    Some(text)
}

/// A heading with a line to the right of it.
fn section(canvas: &mut Canvas<'_>, area: Rect, heading: &str) {
    let theme = canvas.theme;
    let end = canvas.put(area.x, area.y, area.width, heading, theme.strong) + 1;
    canvas.rule(end, area.y, area.right().saturating_sub(end));
}

fn draw_console(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    if area.height < 2 {
        return;
    }
    section(canvas, area, "Console");
    let rest = Rect::new(area.x, area.y + 1, area.width, area.height - 1);
    console_lines(model, canvas, rest);
}

/// The last lines of the console, or those to which it is scrolled.
fn console_lines(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let lines = model.detail.console.lines();
    if lines.is_empty() {
        let text = "nothing was written to the console yet";
        canvas.put(area.x, area.y, area.width, text, model.theme.faint);
        return;
    }
    let height = usize::from(area.height);
    let scrolled = if model.detail.zoom == Zoom::Beside { 0 } else { model.detail.scrolled };
    let end = lines.len().saturating_sub(scrolled).max(height.min(lines.len()));
    let first = end.saturating_sub(height);
    let colours = model.theme.has_colours;
    for (row, line) in lines.iter().take(end).skip(first).enumerate() {
        let y = area.y + u16::try_from(row).unwrap_or_default();
        let mut x = area.x;
        for (passage, style) in line {
            let style = if colours { *style } else { Style { fg: None, ..*style } };
            x = canvas.put(x, y, area.right().saturating_sub(x), passage, style);
        }
    }
    if scrolled > 0 {
        let text = format!(" {} lines below ", lines.len() - end);
        canvas.put_right(area.x, area.bottom() - 1, area.width, &text, model.theme.accent);
    }
}
