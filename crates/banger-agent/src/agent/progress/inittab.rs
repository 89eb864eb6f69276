//! Inits that read inittab(5) report nothing: System V init and busybox. They have booted when
//! none of the entries that init waits for runs any more and one that stays does. Where their
//! scripts start OpenRC, as Debian's do, OpenRC's own state decides.

use std::fs;
use std::path::Path;

use super::processes::{self, Process};
use super::{LOOK, Outcome, openrc};

/// Largest inittab that is read, in bytes.
const TABLE_MAX: usize = 64 * 1024;

/// Looks in a row at the same process that stays before it counts.
const STEADY: u32 = 2;

/// Looks in a row without any process that init waits for, where none stays: 3 s.
const QUIET: u32 = 30;

/// The table that busybox uses where the image has none (init/init.c of busybox).
const DEFAULT: &str = "::sysinit:/etc/init.d/rcS\n::askfirst:-/bin/sh\n";

pub fn wait() -> Outcome {
    let table = fs::read("/etc/inittab").ok().filter(|table| table.len() <= TABLE_MAX);
    let table = table.map(|table| String::from_utf8_lossy(&table).into_owned());
    let entries = parse(table.as_deref().unwrap_or(DEFAULT));
    let mut watch = Watch::new(entries);
    loop {
        if Path::new(openrc::STATE).exists() {
            return openrc::wait();
        }
        if watch.look(&processes::of_init(), &processes::command_of(1)) {
            return Outcome::booted("init: its boot scripts have ended", Vec::new());
        }
        std::thread::sleep(LOOK);
    }
}

/// How init handles a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Waits until it has ended.
    Starting,
    /// Keeps it running.
    Staying,
    /// Asks for a key before it starts the program, in a copy of init that stays (busybox).
    Asking,
}

/// `id:runlevels:action:process`
fn parse(table: &str) -> Vec<(Role, String)> {
    let entry = |line: &str| {
        let mut fields = line.trim().splitn(4, ':');
        let id = fields.next()?;
        let (action, process) = (fields.nth(1)?, fields.next()?);
        let role = match action {
            "sysinit" | "wait" | "bootwait" | "boot" => Role::Starting,
            "respawn" => Role::Staying,
            "askfirst" => Role::Asking,
            _ => return None,
        };
        let process = process.trim_start_matches(['-', '+', '@']).trim().to_owned();
        (!id.starts_with('#') && !process.is_empty()).then_some((role, process))
    };
    table.lines().filter_map(entry).collect()
}

struct Watch {
    entries: Vec<(Role, String)>,
    quiet: u32,
    /// A process that stays, and in how many looks it was there.
    steady: Option<(u32, u32)>,
    /// Processes that init waits for, which may execute another program.
    starting: Vec<u32>,
}

impl Watch {
    fn new(entries: Vec<(Role, String)>) -> Self {
        Self { entries, quiet: 0, steady: None, starting: Vec::new() }
    }

    /// Takes the children of init; true once it has booted.
    fn look(&mut self, children: &[Process], init: &str) -> bool {
        let asks = self.entries.iter().any(|(role, _)| *role == Role::Asking);
        // System V init runs the scripts of `sysinit` and `boot` entries below a copy of itself,
        // which waits for them; a copy of busybox that sleeps asks for a key. One that does not
        // sleep is about to execute the program of an entry, which takes long on a busy machine.
        let is_copy = |child: &Process| child.command == init;
        let is_question = |child: &Process| asks && child.is_asleep;
        let stays = |child: &&Process| {
            if is_copy(child) { is_question(child) } else { self.is(Role::Staying, child) }
        };
        let staying = children.iter().find(stays);
        // Entries of the table, also after they have executed another program.
        let entry = |child: &Process| {
            self.is(Role::Starting, child)
                || (self.starting.contains(&child.pid) && !self.is(Role::Staying, child))
        };
        let entries: Vec<u32> = children
            .iter()
            .filter(|child| !is_copy(child) && entry(child))
            .map(|child| child.pid)
            .collect();
        // Beside a process that stays, a script in the background is a service.
        let is_booting = !entries.is_empty()
            || children.iter().any(|child| {
                if is_copy(child) {
                    !is_question(child)
                } else {
                    staying.is_none() && is_boot_script(child)
                }
            });
        let looks = match (staying, self.steady) {
            (Some(child), Some((pid, looks))) if pid == child.pid => Some((pid, looks + 1)),
            (Some(child), _) => Some((child.pid, 1)),
            (None, _) => None,
        };
        self.starting = entries;
        if is_booting {
            (self.quiet, self.steady) = (0, None);
            return false;
        }
        self.quiet += 1;
        self.steady = looks;
        looks.is_some_and(|(_, looks)| looks >= STEADY) || self.quiet >= QUIET
    }

    fn is(&self, role: Role, child: &Process) -> bool {
        let words: Vec<&str> = child.command.split(' ').collect();
        self.entries.iter().filter(|(is, _)| *is == role).any(|(_, process)| {
            let mut wanted = process.split_whitespace();
            let program = wanted.next().unwrap_or_default();
            // A script is the argument of its interpreter.
            let runs = words.iter().take(3).any(|word| *word == program);
            child.command.contains(process.as_str())
                || (runs && wanted.all(|argument| words.contains(&argument)))
        })
    }
}

/// Whether a command line is that of a script in the customary folders, or of OpenRC. Programs
/// that such scripts leave running have command lines of their own.
fn is_boot_script(child: &Process) -> bool {
    child.command.split(' ').take(3).any(|word| {
        let is_openrc = word.rsplit('/').next() == Some("openrc");
        is_openrc || ["/etc/init.d/", "/etc/rc"].iter().any(|folder| word.starts_with(folder))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# comment\n#x:2:wait:/no\nid:2:initdefault:\n\
        si::sysinit:/etc/init.d/rcS\nl2:2:wait:/etc/init.d/rc 2\n\
        1:2345:respawn:/sbin/getty 38400 tty1\n::askfirst:-/bin/sh\n";

    fn child(pid: u32, command: &str) -> Process {
        Process { pid, command: command.into(), is_asleep: true }
    }

    /// A copy of init that has not executed the program of its entry yet.
    fn copy(pid: u32) -> Process {
        Process { is_asleep: false, ..child(pid, "init") }
    }

    fn watch() -> Watch {
        Watch::new(parse(TABLE))
    }

    #[test]
    fn entries_are_read() {
        let entries = parse(TABLE);
        let starting = entries.iter().filter(|(role, _)| *role == Role::Starting).count();
        assert_eq!((entries.len(), starting), (4, 2));
        let default = [(Role::Starting, "/etc/init.d/rcS"), (Role::Asking, "/bin/sh")];
        assert_eq!(parse(DEFAULT), default.map(|(role, program)| (role, program.to_owned())));
    }

    #[test]
    fn a_login_that_stays_ends_the_boot() {
        let mut watch = watch();
        assert!(!watch.look(&[child(9, "/bin/sh /etc/init.d/rcS")], "init"));
        assert!(!watch.look(&[], "init"));
        let rc = child(10, "/bin/sh /etc/init.d/rc 2");
        let getty = child(11, "/sbin/getty 38400 tty1");
        assert!(!watch.look(&[rc.clone(), getty.clone()], "init"));
        assert!(!watch.look(std::slice::from_ref(&getty), "init"), "one look may be by chance");
        assert!(watch.look(&[getty, child(12, "/usr/sbin/sshd")], "init"));
    }

    #[test]
    fn a_copy_of_init_that_becomes_a_script_is_not_the_end() {
        let mut watch = watch();
        for _ in 0..2 * QUIET {
            assert!(!watch.look(&[copy(9)], "init"));
        }
        assert!(!watch.look(&[child(9, "sh /etc/init.d/rcS")], "init"));
        assert!(!watch.look(&[copy(10)], "init"));
        assert!(!watch.look(&[child(10, "init")], "init"));
        assert!(watch.look(&[child(10, "init")], "init"), "a question for a key stays");
    }

    #[test]
    fn a_copy_of_system_v_init_waits_for_a_script() {
        let table = TABLE.replace("::askfirst:-/bin/sh\n", "");
        let mut watch = Watch::new(parse(&table));
        for _ in 0..2 * QUIET {
            assert!(!watch.look(&[child(9, "init boot")], "init boot"));
        }
        // Seen before it executes getty, and getty executes login later.
        assert!(!watch.look(&[child(11, "init [2]")], "init [2]"));
        let getty = [child(11, "/sbin/getty 38400 tty1")];
        assert!(!watch.look(&getty, "init [2]"));
        assert!(watch.look(&getty, "init [2]"));
    }

    #[test]
    fn a_script_in_the_background_is_a_service_once_a_login_runs() {
        let mut watch = watch();
        let service = child(10, "/bin/sh /etc/init.d/watch-disks start");
        assert!(!watch.look(std::slice::from_ref(&service), "init"));
        let children = [service, child(11, "/sbin/getty 38400 tty1")];
        assert!(!watch.look(&children, "init"));
        assert!(watch.look(&children, "init"));
    }

    #[test]
    fn a_program_of_unknown_name_that_stays_does_not_keep_the_boot_from_ending() {
        let mut watch = Watch::new(parse("1:2345:respawn:/usr/local/bin/start-getty tty1\n"));
        assert!(!watch.look(&[child(11, "init [2]")], "init [2]"));
        let looks = (0..QUIET).filter(|_| watch.look(&[child(11, "login --")], "init [2]"));
        assert_eq!(looks.count(), 1);
    }

    /// Debian's rcS executes `rc S`, and OpenRC's rc the program `openrc`.
    #[test]
    fn a_script_that_executes_another_program_is_waited_for() {
        let mut watch = Watch::new(parse(DEFAULT));
        for command in ["/bin/sh /etc/init.d/rcS", "/bin/sh /etc/init.d/rc S", "unknown program"] {
            for _ in 0..2 * QUIET {
                assert!(!watch.look(&[child(9, command)], "init"), "{command}");
            }
        }
        assert!(!watch.look(&[child(10, "init")], "init"));
        assert!(watch.look(&[child(10, "init")], "init"));
    }

    #[test]
    fn silence_ends_the_boot_where_nothing_stays() {
        let mut watch = watch();
        let looks = (0..QUIET).map(|_| watch.look(&[child(5, "/usr/sbin/sshd")], "init"));
        let looks: Vec<bool> = looks.collect();
        assert_eq!(looks.iter().filter(|done| **done).count(), 1);
        assert_eq!(looks.last(), Some(&true));
    }
}
