//! The keys: one table for their effect, for the help and for the hints at the bottom.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Selects the next row.
    Down,
    /// Selects the previous row.
    Up,
    /// Scrolls down by a page.
    PageDown,
    /// Scrolls up by a page.
    PageUp,
    /// Selects the first row.
    First,
    /// Selects the last row.
    Last,
    /// Shows the next list.
    NextTab,
    /// Shows the previous list.
    PreviousTab,
    /// Shows the list with this number.
    Tab(usize),
    /// Opens the details.
    Open,
    /// Closes what is open, or removes marks and filter.
    Back,
    /// Marks the row.
    Mark,
    /// Marks all rows, or none.
    MarkAll,
    /// Edits the filter.
    Filter,
    /// Sorts by the next column.
    Sort,
    /// Sorts in the other direction.
    Reverse,
    /// Opens the form for a new VM.
    New,
    /// Starts VMs.
    Start,
    /// Stops VMs.
    Stop,
    /// Restarts VMs.
    Restart,
    /// Kills VMs.
    Kill,
    /// Pauses or resumes VMs.
    Pause,
    /// Deletes VMs, an image or a kernel.
    Delete,
    /// Opens a shell.
    Shell,
    /// Shows only the console.
    Console,
    /// Edits the published ports.
    Ports,
    /// Cancels an operation.
    Cancel,
    /// Pulls an image or a kernel.
    Pull,
    /// Starts the daemon.
    StartDaemon,
    /// Shows the keys.
    Help,
    /// Suspends the program.
    Suspend,
    /// Ends the program.
    Quit,
}

/// Where a key has an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Everywhere outside of forms and questions.
    Everywhere,
    /// In the list of VMs and the details of one.
    Vms,
    /// In the lists of images and kernels.
    Stored,
    /// In the list of operations.
    Operations,
    /// While the daemon does not answer.
    Offline,
}

/// A key with its effect.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// The keys; the first one is shown.
    pub keys: &'static [KeyCode],
    /// How they are written.
    pub shown: &'static str,
    /// The effect.
    pub command: Command,
    /// Where.
    pub place: Place,
    /// The effect in few words, for the hints at the bottom; empty: not shown there.
    pub hint: &'static str,
    /// The effect in a sentence, for the help.
    pub help: &'static str,
}

const fn binding(
    keys: &'static [KeyCode],
    shown: &'static str,
    command: Command,
    place: Place,
    (hint, help): (&'static str, &'static str),
) -> Binding {
    Binding { keys, shown, command, place, hint, help }
}

use KeyCode::{BackTab, Char, Delete, End, Enter, Esc, Home, PageDown, PageUp};
use Place::{Everywhere, Offline, Operations, Stored, Vms};

/// All keys, in the order of the help. Ctrl-C quits, Ctrl-Z suspends the program.
pub const BINDINGS: &[Binding] = &[
    binding(&[Enter], "Enter", Command::Open, Vms, ("open", "open the details of the VM")),
    binding(&[Char('n')], "n", Command::New, Vms, ("new", "create a VM")),
    binding(&[Char('e')], "e", Command::Shell, Vms, ("shell", "open a shell; its end leads back")),
    binding(&[Char('s')], "s", Command::Start, Vms, ("start", "start")),
    binding(&[Char('x')], "x", Command::Stop, Vms, ("stop", "stop: shut down")),
    binding(&[Char('r')], "r", Command::Restart, Vms, ("", "restart")),
    binding(&[Char('K')], "K", Command::Kill, Vms, ("", "kill: end at once")),
    binding(&[Char('p')], "p", Command::Pause, Vms, ("", "pause or resume")),
    binding(&[Char('D'), Delete], "D", Command::Delete, Vms, ("delete", "delete with its disks")),
    binding(&[Char('P')], "P", Command::Ports, Vms, ("", "edit the published ports")),
    binding(&[Char('c')], "c", Command::Cancel, Vms, ("", "cancel its operation")),
    binding(&[Char(' ')], "Space", Command::Mark, Vms, ("mark", "mark: keys act on marked VMs")),
    binding(&[Char('a')], "a", Command::MarkAll, Vms, ("", "mark all shown VMs, or none")),
    binding(&[Char('/')], "/", Command::Filter, Everywhere, ("filter", "filter by any text")),
    binding(&[Char('o')], "o", Command::Sort, Vms, ("", "sort by the next column")),
    binding(&[Char('O')], "O", Command::Reverse, Vms, ("", "sort in the other direction")),
    binding(&[Char('l')], "l", Command::Console, Vms, ("", "show only the console")),
    binding(&[Char('u')], "u", Command::Pull, Stored, ("pull", "pull an image or a kernel")),
    binding(&[Char('D'), Delete], "D", Command::Delete, Stored, ("delete", "delete it")),
    binding(&[Char('c')], "c", Command::Cancel, Operations, ("cancel", "cancel and undo it")),
    binding(&[Enter], "Enter", Command::Open, Operations, ("", "show its whole error")),
    binding(&[Char('d')], "d", Command::StartDaemon, Offline, ("start daemon", "start the daemon")),
    binding(
        &[KeyCode::Down, Char('j')],
        "↓ j",
        Command::Down,
        Everywhere,
        ("", "next; the console too"),
    ),
    binding(&[KeyCode::Up, Char('k')], "↑ k", Command::Up, Everywhere, ("", "previous")),
    binding(&[PageDown], "PgDn", Command::PageDown, Everywhere, ("", "a page down")),
    binding(&[PageUp], "PgUp", Command::PageUp, Everywhere, ("", "a page up")),
    binding(&[Home, Char('g')], "Home g", Command::First, Everywhere, ("", "first")),
    binding(&[End, Char('G')], "End G", Command::Last, Everywhere, ("", "last")),
    binding(&[Char('1')], "1", Command::Tab(0), Everywhere, ("", "VMs")),
    binding(&[Char('2')], "2", Command::Tab(1), Everywhere, ("", "images")),
    binding(&[Char('3')], "3", Command::Tab(2), Everywhere, ("", "kernels")),
    binding(&[Char('4')], "4", Command::Tab(3), Everywhere, ("", "operations")),
    binding(&[KeyCode::Tab], "Tab", Command::NextTab, Everywhere, ("", "next list")),
    binding(&[BackTab], "S-Tab", Command::PreviousTab, Everywhere, ("", "previous list")),
    binding(&[Esc], "Esc", Command::Back, Everywhere, ("", "close, or remove marks and filter")),
    binding(&[Char('?')], "?", Command::Help, Everywhere, ("help", "this page")),
    binding(&[Char('q')], "q", Command::Quit, Everywhere, ("quit", "quit; VMs keep running")),
];

/// The effect of a key at one of these places.
pub fn command(key: &KeyEvent, places: &[Place]) -> Option<Command> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            Char('c') => Some(Command::Quit),
            Char('z') => Some(Command::Suspend),
            _ => None,
        };
    }
    if key.modifiers.intersects(KeyModifiers::ALT | KeyModifiers::SUPER | KeyModifiers::META) {
        return None;
    }
    let at_place = |binding: &&Binding| places.contains(&binding.place);
    let bindings = BINDINGS.iter().filter(at_place);
    bindings.into_iter().find(|binding| binding.keys.contains(&key.code)).map(|one| one.command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_has_two_effects_at_one_place() {
        for place in [Vms, Stored, Operations] {
            let mut seen = Vec::new();
            for binding in BINDINGS {
                if [place, Everywhere, Offline].contains(&binding.place) {
                    for key in binding.keys {
                        assert!(!seen.contains(key), "{key:?} at {place:?}");
                        seen.push(*key);
                    }
                }
            }
        }
    }

    #[test]
    fn keys_with_control_and_alt_are_not_those_without() {
        let places = [Vms, Everywhere];
        let key = |code, modifiers| command(&KeyEvent::new(code, modifiers), &places);
        assert_eq!(key(Char('s'), KeyModifiers::NONE), Some(Command::Start));
        assert_eq!(key(Char('K'), KeyModifiers::SHIFT), Some(Command::Kill));
        assert_eq!(key(Char('s'), KeyModifiers::ALT), None);
        assert_eq!(key(Char('s'), KeyModifiers::CONTROL), None);
        assert_eq!(key(Char('c'), KeyModifiers::CONTROL), Some(Command::Quit));
        assert_eq!(key(Char('u'), KeyModifiers::NONE), None, "pull is for images");
    }
}
