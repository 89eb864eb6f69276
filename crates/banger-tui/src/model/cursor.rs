//! A list with a filter, a selected row and a place to which it is scrolled.

use banger_api::images::{ImageView, KernelView};
use banger_api::operation::OperationView;

/// An entry of a list.
pub trait Entry {
    /// What identifies it.
    fn key(&self) -> String;
    /// Texts that a filter finds.
    fn texts(&self) -> Vec<&str>;
}

impl Entry for ImageView {
    fn key(&self) -> String {
        self.id.to_string()
    }

    fn texts(&self) -> Vec<&str> {
        let mut texts = vec![self.id.as_str(), self.source.as_str()];
        texts.extend(self.names.iter().chain(&self.used_by).map(String::as_str));
        texts.extend(self.system.as_deref());
        texts
    }
}

impl Entry for KernelView {
    fn key(&self) -> String {
        self.id.to_string()
    }

    fn texts(&self) -> Vec<&str> {
        let mut texts = vec![self.id.as_str(), self.source.as_str(), self.release.as_str()];
        texts.extend(self.names.iter().chain(&self.used_by).map(String::as_str));
        texts
    }
}

impl Entry for OperationView {
    fn key(&self) -> String {
        self.id.to_string()
    }

    fn texts(&self) -> Vec<&str> {
        use banger_api::operation::Subject;
        let subject = match &self.subject {
            Subject::Vm(vm) => vm.name.as_str(),
            Subject::Image { name, .. } | Subject::Kernel { name, .. } => name.as_str(),
            Subject::Host => "host",
        };
        let mut texts = vec![self.id.as_str(), self.kind.as_str(), subject];
        texts.extend(self.error.as_ref().map(|error| error.message.as_str()));
        texts
    }
}

/// Whether one of the texts contains the filter, in whatever case.
pub fn matches<'a>(filter: &str, texts: impl IntoIterator<Item = &'a str>) -> bool {
    let wanted = filter.to_lowercase();
    wanted.is_empty() || texts.into_iter().any(|text| text.to_lowercase().contains(&wanted))
}

/// Position of the selected row and of the first row on the screen. Pure arithmetic, shared by all
/// lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// The selected row.
    pub row: usize,
    /// The first row on the screen.
    pub top: usize,
}

impl Place {
    /// Moves the selection by rows, within a list of `count` entries.
    pub fn moved(self, by: isize, count: usize) -> Self {
        let last = count.saturating_sub(1);
        Self { row: self.row.saturating_add_signed(by).min(last), ..self }
    }

    /// Scrolls as little as needed, so that the selected row is among `height` visible ones.
    pub fn scrolled(self, height: usize, count: usize) -> Self {
        let height = height.max(1);
        let row = self.row.min(count.saturating_sub(1));
        let lowest = (row + 1).saturating_sub(height);
        // Without empty rows below the last one.
        let most = count.saturating_sub(height);
        Self { row, top: self.top.clamp(lowest, row).min(most) }
    }
}

/// A list.
#[derive(Debug, Clone)]
pub struct Cursor<T> {
    all: Vec<T>,
    /// Positions of those that match the filter.
    shown: Vec<usize>,
    filter: String,
    place: Place,
    /// Whether the daemon has answered.
    pub known: bool,
}

impl<T> Default for Cursor<T> {
    fn default() -> Self {
        let (all, shown, filter) = (Vec::new(), Vec::new(), String::new());
        Self { all, shown, filter, place: Place::default(), known: false }
    }
}

impl<T: Entry> Cursor<T> {
    /// Replaces the entries; the selection stays on the same entry, unless that is the first one:
    /// then the newest entry is selected where those are first.
    pub fn replace(&mut self, all: Vec<T>) {
        let selected = self.selected().filter(|_| self.place.row > 0).map(Entry::key);
        self.all = all;
        self.known = true;
        self.arrange();
        let again = selected.and_then(|key| self.entries().position(|one| one.key() == key));
        if let Some(row) = again {
            self.place.row = row;
        }
    }

    /// Sets the filter.
    pub fn set_filter(&mut self, filter: String) {
        self.filter = filter;
        self.arrange();
    }

    fn arrange(&mut self) {
        let fits = |(_, entry): &(usize, &T)| matches(&self.filter, entry.texts());
        self.shown = self.all.iter().enumerate().filter(fits).map(|(at, _)| at).collect();
        self.place = self.place.moved(0, self.shown.len());
    }

    /// All entries, also those that the filter hides.
    pub fn all(&self) -> &[T] {
        &self.all
    }

    /// The entries that match the filter.
    pub fn entries(&self) -> impl Iterator<Item = &T> {
        self.shown.iter().filter_map(|at| self.all.get(*at))
    }

    /// Number of entries that match the filter.
    pub fn len(&self) -> usize {
        self.shown.len()
    }

    /// Whether no entry matches the filter.
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// The selected entry.
    pub fn selected(&self) -> Option<&T> {
        self.all.get(*self.shown.get(self.place.row)?)
    }

    /// The filter.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// The selected row and the first visible one.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Moves the selection.
    pub fn go(&mut self, by: isize) {
        self.place = self.place.moved(by, self.shown.len());
    }

    /// Keeps the selected row visible.
    pub fn scroll(&mut self, height: usize) {
        self.place = self.place.scrolled(height, self.shown.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selected_row_is_always_visible() {
        for count in 0..12 {
            for height in 0..8 {
                let mut place = Place::default();
                for by in [3, -1, 20, -2, isize::MIN, isize::MAX] {
                    place = place.moved(by, count).scrolled(height, count);
                    assert!(place.row < count.max(1), "{place:?}");
                    assert!(place.top <= place.row && place.row < place.top + height.max(1));
                    assert!(place.top + height <= count || place.top == 0 || height == 0);
                }
            }
        }
    }

    #[test]
    fn a_filter_ignores_case() {
        assert!(matches("", ["a"]) && matches("WEB", ["db", "my-Web-1"]));
        assert!(!matches("x", ["a", "b"]) && !matches("x", []));
    }
}
