//! Tables: columns as wide as their widest cell, separated by two spaces. Tables fit the width of a
//! terminal: long cells are shortened, then the least important columns are omitted.

use std::io::{self, IsTerminal};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::terminal;

/// Spaces between columns.
const GAP: usize = 2;
/// Replaces the end of a shortened cell.
const ELLIPSIS: char = '…';

/// Alignment of the cells of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    title: &'static str,
    align: Align,
    /// Minimum width of a shortened cell; none for a column that is never shortened.
    shortest: Option<usize>,
    /// The column with the highest rank is omitted first; a column of rank 0 never.
    rank: u8,
}

impl Column {
    /// Text, never shortened.
    pub const fn text(title: &'static str, rank: u8) -> Self {
        Self { title, align: Align::Left, shortest: None, rank }
    }

    /// Text that may be shortened to this many columns.
    pub const fn long_text(title: &'static str, rank: u8, shortest: usize) -> Self {
        Self { title, align: Align::Left, shortest: Some(shortest), rank }
    }

    /// Numbers.
    pub const fn number(title: &'static str, rank: u8) -> Self {
        Self { title, align: Align::Right, shortest: None, rank }
    }
}

/// Renders a table with a header for standard output.
pub fn table(columns: &[Column], rows: &[Vec<String>]) -> String {
    let limit = io::stdout().is_terminal().then(|| usize::from(terminal::size().cols));
    fit(columns, rows, limit)
}

fn fit(columns: &[Column], rows: &[Vec<String>], limit: Option<usize>) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| super::plain::line(cell)).collect()).collect();
    let natural: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(place, column)| {
            let cells = rows.iter().filter_map(|row| row.get(place)).map(|cell| cell.width());
            cells.max().unwrap_or(0).max(column.title.width())
        })
        .collect();
    let widths = widths(columns, &natural, limit);
    let titles: Vec<String> = columns.iter().map(|column| column.title.to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&titles).chain(&rows) {
        let mut line = String::new();
        for ((cell, width), column) in row.iter().zip(&widths).zip(columns) {
            let Some(width) = *width else { continue };
            let cell = shortened(cell, width);
            let padding = " ".repeat(width.saturating_sub(cell.width()));
            match column.align {
                Align::Left => line.extend([cell.as_str(), &padding]),
                Align::Right => line.extend([padding.as_str(), &cell]),
            }
            line.push_str(&" ".repeat(GAP));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The width of each column within a limit; none for omitted columns.
fn widths(columns: &[Column], natural: &[usize], limit: Option<usize>) -> Vec<Option<usize>> {
    let mut widths: Vec<Option<usize>> = natural.iter().copied().map(Some).collect();
    let Some(limit) = limit else { return widths };
    let least = |place: usize| {
        let width = natural.get(place).copied().unwrap_or(0);
        let column = columns.get(place);
        column.and_then(|column| column.shortest).map_or(width, |shortest| {
            width.min(shortest.max(column.map_or(0, |column| column.title.width())))
        })
    };
    // Omits columns until the rest fits with all cells shortened to the minimum.
    loop {
        let kept = widths.iter().enumerate().filter(|(_, width)| width.is_some());
        if total(kept.map(|(place, _)| least(place))) <= limit {
            break;
        }
        let last = (0..columns.len())
            .filter(|place| widths.get(*place).is_some_and(Option::is_some))
            .filter_map(|place| columns.get(place).map(|column| (column.rank, place)))
            .filter(|(rank, _)| *rank > 0)
            .max();
        let Some((_, place)) = last else { break };
        if let Some(width) = widths.get_mut(place) {
            *width = None;
        }
    }
    // Shortens the widest column that can be shortened.
    while total(widths.iter().flatten().copied()) > limit {
        let widest = widths
            .iter_mut()
            .enumerate()
            .filter_map(|(place, width)| width.as_mut().map(|width| (place, width)))
            .filter(|(place, width)| **width > least(*place))
            .max_by_key(|(_, width)| **width);
        let Some((_, width)) = widest else { break };
        *width -= 1;
    }
    widths
}

fn total(widths: impl Iterator<Item = usize>) -> usize {
    widths.map(|width| width + GAP).sum::<usize>().saturating_sub(GAP)
}

fn shortened(cell: &str, width: usize) -> String {
    if cell.width() <= width {
        return cell.to_owned();
    }
    let mut text = String::new();
    let mut room = width.saturating_sub(1);
    for character in cell.chars() {
        let Some(rest) = room.checked_sub(character.width().unwrap_or(0)) else { break };
        room = rest;
        text.push(character);
    }
    text.push(ELLIPSIS);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::long_text("NAME", 0, 6),
        Column::number("N", 1),
        Column::long_text("SOURCE", 2, 8),
        Column::text("IP", 3),
    ];

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        vec![row(["web", "2", "/a/long/path", "10.0.0.1"]), row(["a\n", "10", "日本", "-"])]
    }

    #[test]
    fn columns_are_aligned_and_complete_without_a_limit() {
        let text = fit(&COLUMNS, &rows(), None);
        let expected = "NAME   N  SOURCE        IP\n\
                        web    2  /a/long/path  10.0.0.1\n\
                        a\\n   10  日本          -\n";
        assert_eq!(text, expected);
        assert_eq!(fit(&COLUMNS, &rows(), Some(200)), expected);
    }

    #[test]
    fn a_narrow_table_shortens_cells_then_omits_columns() {
        let narrow = |limit| fit(&COLUMNS, &rows(), Some(limit));
        assert_eq!(
            narrow(30),
            "NAME   N  SOURCE      IP\nweb    2  /a/long/p…  10.0.0.1\na\\n   10  日本        -\n"
        );
        assert_eq!(narrow(20), "NAME   N  SOURCE\nweb    2  /a/long/p…\na\\n   10  日本\n");
        assert_eq!(narrow(10), "NAME   N\nweb    2\na\\n   10\n");
        assert_eq!(narrow(1), "NAME\nweb\na\\n\n");
        for limit in 8..80 {
            let widest = narrow(limit).lines().map(UnicodeWidthStr::width).max();
            assert!(widest <= Some(limit), "{limit}\n{}", narrow(limit));
        }
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(shortened("日本語", 6), "日本語");
        assert_eq!(shortened("日本語", 5), "日本…");
        assert_eq!(shortened("日本語", 4), "日…");
        assert_eq!(shortened("abc", 1), "…");
    }
}
