//! The table of VMs.

use banger_api::publish::PortForward;
use banger_api::vm::VmState;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::canvas::Canvas;
use crate::model::progress::Progress;
use crate::model::vms::{SortBy, Vm};
use crate::model::{Hit, Link, Model};
use crate::text;

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Name,
    State,
    Cpu,
    Memory,
    Disk,
    Image,
    Ip,
    Ports,
    Age,
}

impl Column {
    /// All with their widths, and the width of the table from which each is shown. A name takes
    /// what is left.
    const ALL: [(Self, u16, u16); 9] = [
        (Self::Name, 0, 0),
        (Self::State, 13, 0),
        (Self::Cpu, 5, 0),
        (Self::Memory, 10, 0),
        (Self::Disk, 5, 0),
        (Self::Image, 14, 84),
        (Self::Ip, 13, 118),
        (Self::Ports, 14, 70),
        (Self::Age, 4, 0),
    ];

    fn sort(self) -> Option<SortBy> {
        match self {
            Self::Name => Some(SortBy::Name),
            Self::State => Some(SortBy::State),
            Self::Cpu => Some(SortBy::Cpu),
            Self::Memory => Some(SortBy::Memory),
            Self::Disk => Some(SortBy::Disk),
            Self::Age => Some(SortBy::Age),
            Self::Image | Self::Ip | Self::Ports => None,
        }
    }

    fn title(self) -> &'static str {
        match self.sort() {
            Some(sort) => title(sort),
            None if self == Self::Image => "IMAGE",
            None if self == Self::Ip => "IP",
            None => "PORTS",
        }
    }

    fn is_right(self) -> bool {
        matches!(self, Self::Cpu | Self::Memory | Self::Disk | Self::Age)
    }
}

/// Title of a column by which the table is sorted.
pub fn title(sort: SortBy) -> &'static str {
    match sort {
        SortBy::Name => "NAME",
        SortBy::State => "STATE",
        SortBy::Cpu => "CPU",
        SortBy::Memory => "MEMORY",
        SortBy::Disk => "DISK",
        SortBy::Age => "AGE",
    }
}

/// The shown columns with their places: start and width.
fn places(width: u16) -> Vec<(Column, u16, u16)> {
    let shown = Column::ALL.into_iter().filter(|(_, _, least)| width >= *least);
    let shown: Vec<(Column, u16, u16)> = shown.collect();
    let fixed: u16 = shown.iter().map(|(_, width, _)| width + 1).sum();
    let mut left = width.saturating_sub(fixed + 3);
    // The state has the name of a stage beside it.
    let for_state = left.saturating_sub(24).min(9);
    left -= for_state;
    let mut x = 2;
    let mut places = Vec::new();
    for (column, width, _) in shown {
        let width = match column {
            Column::Name => left,
            Column::State => width + for_state,
            _ => width,
        };
        places.push((column, x, width));
        x += width + 1;
    }
    places
}

/// Draws the table.
pub fn table(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let theme = model.theme;
    let places = places(area.width);
    for (column, x, width) in &places {
        let sorted = column.sort() == Some(model.vms.sort);
        let mut title = column.title().to_owned();
        if sorted {
            title.push_str(if model.vms.reverse { "▼" } else { "▲" });
        }
        let style = if sorted { theme.strong } else { theme.faint };
        if column.is_right() {
            canvas.put_right(area.x + x - 1, area.y, *width + 1, &title, style);
        } else {
            canvas.put(area.x + x, area.y, *width, &title, style);
        }
        if let Some(sort) = column.sort() {
            canvas.hit(Rect::new(area.x + x, area.y, *width, 1), Hit::Column(sort));
        }
    }
    if model.vms.is_empty() {
        return empty(model, canvas, area);
    }
    let visible = usize::from(area.height.saturating_sub(1));
    let place = model.vms.place();
    let rows = model.vms.rows(place.top, visible).enumerate();
    for (y, (number, vm)) in (area.y + 1..).zip(rows) {
        let row = place.top + number;
        let line = Rect::new(area.x, y, area.width, 1);
        draw_row(model, canvas, vm, &places, line);
        if row == place.row {
            canvas.style(line, theme.selected);
            canvas.put(area.x, y, 1, "▌", theme.accent.patch(theme.selected));
        }
        canvas.hit(line, Hit::Row(row));
    }
    scroll_bar(canvas, area, (place.top, visible, model.vms.len()));
}

/// A mark at the right edge that shows which part of a list is visible.
pub fn scroll_bar(
    canvas: &mut Canvas<'_>,
    area: Rect,
    (top, visible, count): (usize, usize, usize),
) {
    if count <= visible || visible == 0 {
        return;
    }
    let height = (visible * visible / count).max(1);
    let most = count - visible;
    let from = (visible - height) * top / most;
    for row in from..(from + height).min(visible) {
        let y = area.y + 1 + u16::try_from(row).unwrap_or_default();
        canvas.put(area.right() - 1, y, 1, "▐", canvas.theme.line);
    }
}

fn empty(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let theme = model.theme;
    let y = area.y + area.height / 3;
    let lines: &[&str] = match &model.link {
        _ if !model.vms.filter().is_empty() => &["No VM matches the filter", "Esc removes it"],
        Link::Up if model.vms.known => &["There is no VM yet", "n creates one"],
        Link::Lost { .. } => &["The daemon does not answer", "d starts it"],
        Link::Connecting | Link::Up => &["Reading the VMs …"],
    };
    for (number, line) in lines.iter().enumerate() {
        let columns = u16::try_from(line.chars().count()).unwrap_or_default();
        let x = area.x + area.width.saturating_sub(columns) / 2;
        let style = if number == 0 { theme.strong } else { theme.faint };
        canvas.put(x, y + u16::try_from(number).unwrap_or_default(), area.width, line, style);
    }
}

fn draw_row(
    model: &Model,
    canvas: &mut Canvas<'_>,
    vm: &Vm,
    places: &[(Column, u16, u16)],
    line: Rect,
) {
    let theme = model.theme;
    if model.vms.is_marked(&vm.summary.id) {
        canvas.put(line.x + 1, line.y, 1, "✓", theme.accent);
    }
    for (column, x, width) in places {
        let x = line.x + x;
        if *column == Column::State {
            state(model, canvas, vm, (x, line.y, *width));
            continue;
        }
        let (text, style) = cell(model, vm, *column);
        if column.is_right() {
            canvas.put_right(x, line.y, *width, &text, style);
        } else {
            let x = if *column == Column::Name { x + 1 } else { x };
            canvas.put(
                x,
                line.y,
                width.saturating_sub(u16::from(*column == Column::Name)),
                &text,
                style,
            );
        }
    }
}

/// Symbol and state; while an operation is in progress, its stage and time.
fn state(model: &Model, canvas: &mut Canvas<'_>, vm: &Vm, (x, y, width): (u16, u16, u16)) {
    let (style, symbol) = model.theme.of_state(vm.summary.state);
    canvas.put(x, y, 1, symbol, style);
    let progress = model.progress_of(&vm.summary.id);
    let text = progress.and_then(|progress| stage(progress, model.now_ms));
    let text = text.unwrap_or_else(|| vm.summary.state.as_str().to_owned());
    canvas.put(x + 2, y, width.saturating_sub(2), &text, style);
}

/// The stage in progress in few words: `boot 3s`.
fn stage(progress: &Progress, now_ms: u64) -> Option<String> {
    let stage = progress.current()?;
    let seconds = progress.elapsed_ms(now_ms).saturating_sub(stage.from_ms) / 1000;
    let name = stage.name.replace('_', " ");
    Some(if seconds >= 1 { format!("{name} {}", text::span(seconds)) } else { name })
}

fn cell(model: &Model, vm: &Vm, column: Column) -> (String, Style) {
    let theme = model.theme;
    let summary = &vm.summary;
    let none = || ("–".to_owned(), theme.faint);
    let is_on = matches!(summary.state, VmState::Running | VmState::Paused);
    let quiet = if is_on { theme.text } else { theme.faint };
    match column {
        Column::Name => {
            let style = if is_on { theme.strong } else { theme.text };
            (summary.name.to_string(), style)
        }
        Column::State => (String::new(), theme.text),
        Column::Cpu => match vm.cpu_now() {
            Some(percent) => {
                let most = f64::from(summary.vcpus.unwrap_or(1)) * 100.0;
                let style = if percent >= most * 0.8 { theme.busy } else { theme.text };
                (format!("{percent:.0}%"), style)
            }
            None => none(),
        },
        Column::Memory => {
            let Some(mib) = summary.memory_mib else { return none() };
            match vm.memory_used() {
                Some(used) => (format!("{}/{}", text::size(used), text::mib(mib)), theme.text),
                None => (text::mib(mib), quiet),
            }
        }
        Column::Disk => vm.disk_used().map_or_else(none, |bytes| (text::size(bytes), quiet)),
        Column::Image => (summary.image.clone(), quiet),
        Column::Ip => summary.ip.clone().map_or_else(none, |ip| (ip, quiet)),
        Column::Ports => {
            let ports: Vec<String> = summary.publish.iter().map(port).collect();
            if ports.is_empty() { (String::new(), quiet) } else { (ports.join(" "), theme.info) }
        }
        Column::Age => match vm.created_ms {
            Some(then) => (text::span(model.now_ms.saturating_sub(then) / 1000), theme.faint),
            None => none(),
        },
    }
}

/// `8080→80`, with the address unless it is 127.0.0.1.
pub fn port(port: &PortForward) -> String {
    let listen = match port.listen {
        core::net::IpAddr::V4(core::net::Ipv4Addr::LOCALHOST) => port.host_port.to_string(),
        _ => port.listens_on().to_string(),
    };
    format!("{listen}→{}", port.guest_port)
}
