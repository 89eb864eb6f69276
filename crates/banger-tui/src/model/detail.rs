//! Details of one VM.

use banger_api::VmId;
use banger_api::vm::VmDetails;

use super::console::Console;

/// Which part of the screen the details take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Zoom {
    /// Beside the list, if the terminal is wide.
    #[default]
    Beside,
    /// In place of the list.
    Whole,
    /// In place of the list, only the console.
    Console,
}

/// Details of the VM that is selected.
#[derive(Debug, Default)]
pub struct Detail {
    /// Where they are shown.
    pub zoom: Zoom,
    /// The VM whose details are read.
    pub vm: Option<VmId>,
    /// The details, once the daemon has answered.
    pub details: Option<Box<VmDetails>>,
    /// The console.
    pub console: Console,
    /// Lines of the console below the last visible one.
    pub scrolled: usize,
}

impl Detail {
    /// Changes the VM. Returns whether it is another one, whose details must be read.
    pub fn watch(&mut self, vm: Option<VmId>) -> bool {
        if self.vm == vm {
            return false;
        }
        *self = Self { zoom: self.zoom, vm, ..Self::default() };
        true
    }

    /// Scrolls the console by lines, backwards if positive, of which `height` are visible.
    pub fn scroll(&mut self, by: isize, height: usize) {
        let most = self.console.lines().len().saturating_sub(height);
        self.scrolled = self.scrolled.saturating_add_signed(by).min(most);
    }
}
