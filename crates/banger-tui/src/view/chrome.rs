//! What surrounds the lists: header, rule with the state of the list, gauges and keys.

use banger_api::operation::OpState;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::canvas::Canvas;
use crate::keys::{BINDINGS, Command};
use crate::model::detail::Zoom;
use crate::model::vms::SortBy;
use crate::model::{Hit, Link, Model, Tab};
use crate::text;
use crate::update::places;

/// Columns of a gauge, at least and at most.
const GAUGE: (u16, u16) = (8, 40);

/// The lists with their numbers, and the connection.
pub fn header(model: &Model, canvas: &mut Canvas<'_>) {
    let theme = model.theme;
    let width = canvas.area().width;
    let mut x = canvas.put(1, 0, 8, "banger", theme.strong) + 2;
    for (number, tab) in Tab::ALL.into_iter().enumerate() {
        let selected = tab == model.tab;
        let from = x;
        x = canvas.put(x, 0, 2, &format!("{}", number + 1), theme.faint) + 1;
        let style = if selected { theme.accent } else { theme.text };
        x = canvas.put(x, 0, 12, tab.title(), style);
        let count = match tab {
            Tab::Vms => model.vms.known.then(|| model.vms.total()),
            Tab::Images => model.images.known.then(|| model.images.all().len()),
            Tab::Kernels => model.kernels.known.then(|| model.kernels.all().len()),
            Tab::Operations => {
                let running = model.operations.all().iter();
                let running = running.filter(|one| one.state == OpState::Running).count();
                Some(running).filter(|count| *count > 0)
            }
        };
        if let Some(count) = count {
            let style = if tab == Tab::Operations { theme.busy } else { theme.faint };
            x = canvas.put(x + 1, 0, 6, &count.to_string(), style);
        }
        canvas.hit(Rect::new(from, 0, x - from, 1), Hit::Tab(tab));
        x += 2;
    }
    let (style, text) = link(model);
    let room = width.saturating_sub(x + 1);
    canvas.put_right(x, 0, room, &text, style);
}

fn link(model: &Model) -> (Style, String) {
    match &model.link {
        Link::Connecting => (model.theme.busy, "◌ connecting".into()),
        Link::Lost { since_ms, .. } => {
            let seconds = model.now_ms.saturating_sub(*since_ms) / 1000;
            (model.theme.bad, format!("✗ no daemon for {}", text::span(seconds)))
        }
        Link::Up => match &model.daemon {
            Some(daemon) if daemon.simulated => (model.theme.info, "● simulated host".into()),
            Some(daemon) => (model.theme.good, format!("● bangerd {}", daemon.version)),
            None => (model.theme.good, "● connected".into()),
        },
    }
}

/// Filter, number of entries, marks and order, or why the daemon does not answer.
pub fn rule(model: &Model, canvas: &mut Canvas<'_>) {
    let theme = model.theme;
    let width = canvas.area().width;
    canvas.rule(0, 1, width);
    if let Link::Lost { reason, .. } = &model.link {
        let text = format!(" connecting again, `d` starts it: {reason} ");
        canvas.put(2, 1, width.saturating_sub(4), &text, theme.bad);
        return;
    }
    let mut x = 2;
    if let Some(edit) = &model.filtering {
        x = canvas.put(x, 1, 3, " / ", theme.accent);
        canvas.cursor = Some((x + u16::try_from(edit.column()).unwrap_or(0), 1));
        x = canvas.put(x, 1, width / 2, edit.text(), theme.strong);
        x = canvas.put(x, 1, 2, "  ", theme.text) + 1;
    } else if !model.filter().is_empty() {
        x = canvas.put(x, 1, width / 2, &format!(" / {} ", model.filter()), theme.accent) + 1;
    }
    let (shown, all) = match model.tab {
        Tab::Vms => (model.vms.len(), model.vms.total()),
        Tab::Images => (model.images.len(), model.images.all().len()),
        Tab::Kernels => (model.kernels.len(), model.kernels.all().len()),
        Tab::Operations => (model.operations.len(), model.operations.all().len()),
    };
    if shown != all {
        x = canvas.put(x, 1, 24, &format!(" {shown} of {all} "), theme.faint) + 1;
    }
    if model.tab == Tab::Vms && model.vms.marked() > 0 {
        let text = format!(" {} marked ", model.vms.marked());
        x = canvas.put(x, 1, 20, &text, theme.accent) + 1;
    }
    if model.tab == Tab::Vms && (model.vms.sort != SortBy::Name || model.vms.reverse) {
        let arrow = if model.vms.reverse { "▼" } else { "▲" };
        let text = format!(" by {} {arrow} ", super::vms::title(model.vms.sort).to_lowercase());
        canvas.put(x, 1, 20, &text, theme.faint);
    }
}

/// Reserved CPUs and memory, and the used disk.
pub fn gauges(model: &Model, canvas: &mut Canvas<'_>, y: u16) {
    let theme = model.theme;
    let Some(host) = &model.host else {
        canvas.put(1, y, 60, "the host's resources are not known yet", theme.faint);
        return;
    };
    let width = canvas.area().width;
    let running = model.vms.all().filter(|vm| vm.summary.state.has_vmm());
    let (vcpus, memory) = running.fold((0, 0), |(vcpus, memory), vm| {
        let (one, mib) = (vm.summary.vcpus, vm.summary.memory_mib);
        (vcpus + u64::from(one.unwrap_or_default()), memory + (mib.unwrap_or_default() << 20))
    });
    let busy: f64 = model.vms.all().filter_map(|vm| vm.cpu_now()).sum();
    let gib = text::gib;
    let mut parts = [
        ("CPU", share(vcpus, host.cpus.into()), format!("{vcpus}/{}", host.cpus)),
        (
            "Memory",
            share(memory, host.memory_bytes),
            format!("{}/{}G", gib(memory), gib(host.memory_bytes)),
        ),
        (
            "Disk",
            share(host.disk_used_bytes, host.disk_used_bytes + host.disk_free_bytes),
            format!(
                "{} used, {} free",
                text::size(host.disk_used_bytes),
                text::size(host.disk_free_bytes)
            ),
        ),
    ];
    if width >= 120 {
        parts[0].2 = format!("{vcpus} of {} reserved, {:.1} busy", host.cpus, busy / 100.0);
        parts[1].2 = format!("{} of {} GiB reserved", gib(memory), gib(host.memory_bytes));
    }
    let words: usize = parts.iter().map(|(name, _, text)| name.len() + text.len() + 2).sum();
    let room = width.saturating_sub(u16::try_from(words).unwrap_or(width) + 2 + 2 * 2);
    let bar = (room / 3).clamp(GAUGE.0, GAUGE.1);
    let mut x = 1;
    for (name, part, text) in parts {
        x = canvas.put(x, y, 8, name, theme.faint) + 1;
        // More can be reserved than there is.
        let style = if part > 1.0 { theme.bad } else { theme.gauge };
        if x + bar < width {
            canvas.gauge((x, y, bar), part, style);
        }
        let style = if part > 1.0 { theme.bad } else { theme.text };
        x = canvas.put(x + bar + 1, y, width.saturating_sub(x + bar + 1), &text, style) + 2;
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The keys that matter most here.
pub fn keys(model: &Model, canvas: &mut Canvas<'_>, y: u16) {
    let theme = model.theme;
    let width = canvas.area().width;
    if model.filtering.is_some() {
        let mut x = 1;
        for (key, text) in [("Enter", "keep the filter"), ("Esc", "remove it")] {
            x = canvas.put(x, y, 8, key, theme.accent) + 1;
            x = canvas.put(x, y, 24, text, theme.faint) + 2;
        }
        return;
    }
    let places = places(model);
    let zoomed = model.tab == Tab::Vms && model.detail.zoom != Zoom::Beside;
    let shown: Vec<_> = BINDINGS
        .iter()
        .filter(|binding| places.contains(&binding.place) && !binding.hint.is_empty())
        .filter(|binding| !zoomed || !matches!(binding.command, Command::Open | Command::Filter))
        .collect();
    let length = |shown: &str, hint: &str| {
        u16::try_from(shown.chars().count() + hint.len() + 1).unwrap_or_default()
    };
    // Help and quit are last and always shown.
    let (rest, last) = shown.split_at(shown.len().saturating_sub(2));
    let reserved: u16 = last.iter().map(|one| length(one.shown, one.hint) + 2).sum();
    let mut x = 1;
    if zoomed {
        canvas.hit(Rect::new(x, y, 8, 1), Hit::Command(Command::Back));
        x = canvas.put(x, y, 4, "Esc", theme.accent) + 1;
        x = canvas.put(x, y, 4, "back", theme.faint) + 2;
    }
    for binding in rest.iter().chain(last) {
        let columns = length(binding.shown, binding.hint);
        let is_last = last.iter().any(|one| one.command == binding.command);
        let room = if is_last { width } else { width.saturating_sub(reserved) };
        if x + columns > room {
            continue;
        }
        canvas.hit(Rect::new(x, y, columns, 1), Hit::Command(binding.command));
        x = canvas.put(x, y, columns, binding.shown, theme.accent) + 1;
        x = canvas.put(x, y, columns, binding.hint, theme.faint) + 2;
    }
}
