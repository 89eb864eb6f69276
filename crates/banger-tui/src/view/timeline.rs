//! Stages of an operation as bars on a common time line.

use ratatui::layout::Rect;
use ratatui::style::Style;

use super::canvas::{Canvas, EIGHTHS};
use crate::model::progress::Stage;
use crate::text;

/// Columns of a name and of a duration.
const NAME: u16 = 18;
const TIME: u16 = 9;

/// A time line.
pub struct Timeline<'a> {
    /// The stages, the first one first.
    pub stages: &'a [Stage],
    /// Present time, in milliseconds since the start: the end of a stage in progress.
    pub now_ms: u64,
    /// Style of the bars.
    pub style: Style,
}

impl Timeline<'_> {
    /// Draws as many stages as there are rows, the shortest left out; returns the used rows.
    pub fn draw(&self, canvas: &mut Canvas<'_>, area: Rect) -> u16 {
        let theme = canvas.theme;
        let shown = longest(self.stages, self.now_ms, usize::from(area.height));
        let end = |stage: &Stage| stage.until_ms.unwrap_or(self.now_ms).max(stage.from_ms);
        let from = self.stages.iter().map(|stage| stage.from_ms).min().unwrap_or_default();
        let until = self.stages.iter().map(end).max().unwrap_or_default().max(from + 1);
        let name = NAME.min(area.width / 3);
        let bar = area.width.saturating_sub(name + 1 + TIME + 1);
        let scale = f64::from(bar) / (until - from) as f64;
        let mut y = area.y;
        for stage in shown {
            let open = stage.until_ms.is_none();
            let style = if open { theme.busy } else { theme.text };
            canvas.put(area.x, y, name, &stage.name.replace('_', " "), style);
            let (start, stop) = (stage.from_ms - from, end(stage) - from);
            let style = if open { theme.busy } else { self.style };
            let span = (start as f64 * scale, stop as f64 * scale);
            draw_bar(canvas, (area.x + name + 1, y, bar), span, style);
            let time = text::duration(stop - start);
            canvas.put_right(area.x + name + 1 + bar, y, TIME + 1, &time, theme.faint);
            y += 1;
        }
        y - area.y
    }
}

/// A bar between two places, in columns with fractions.
fn draw_bar(
    canvas: &mut Canvas<'_>,
    (x, y, width): (u16, u16, u16),
    (from, until): (f64, f64),
    style: Style,
) {
    let first = (from.floor() as u16).min(width.saturating_sub(1));
    // Also a stage at the very end has a column.
    let columns = if from >= f64::from(width) { until - from } else { until - f64::from(first) };
    let whole = (columns.floor().max(0.0) as u16).min(width - first);
    let rest = ((columns - f64::from(whole)) * 8.0).round().clamp(0.0, 7.0) as usize;
    canvas.put(x, y, first, &"·".repeat(usize::from(first)), canvas.theme.track);
    let end = canvas.put(x + first, y, whole, &"█".repeat(usize::from(whole)), style);
    // Also a stage that took no time can be seen.
    let rest = if whole == 0 { rest.max(1) } else { rest };
    let end = if end < x + width { canvas.put(end, y, 1, EIGHTHS[rest], style) } else { end };
    let left = (x + width).saturating_sub(end);
    canvas.put(end, y, left, &"·".repeat(usize::from(left)), canvas.theme.track);
}

/// The `count` longest stages, in their order; the one in progress is among them.
fn longest(stages: &[Stage], now_ms: u64, count: usize) -> Vec<&Stage> {
    let length = |stage: &Stage| match stage.until_ms {
        Some(until) => until.saturating_sub(stage.from_ms),
        None => now_ms.saturating_add(1 << 40),
    };
    let mut positions: Vec<usize> = (0..stages.len()).collect();
    positions.sort_by_key(|at| std::cmp::Reverse(stages.get(*at).map(length)));
    positions.truncate(count);
    positions.sort_unstable();
    positions.into_iter().filter_map(|at| stages.get(at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stages_are_kept_in_their_order() {
        let stage = |name: &str, from_ms, until_ms| Stage { name: name.into(), from_ms, until_ms };
        let stages = [
            stage("a", 0, Some(5)),
            stage("b", 5, Some(6)),
            stage("c", 6, Some(16)),
            stage("d", 16, None),
        ];
        let names = |count| {
            let shown = longest(&stages, 17, count).into_iter();
            shown.map(|stage| stage.name.as_str()).collect::<String>()
        };
        assert_eq!(
            ["", "d", "cd", "acd", "abcd"],
            [0, 1, 2, 3, 9].map(names).each_ref().map(|s| s.as_str())
        );
    }
}
