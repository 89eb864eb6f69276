//! A fake kernel with loop devices and device-mapper, in which any call can fail.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use banger_root::disks::kernel::{FileFacts, Kernel, Linux};
use banger_sys::{dm, loopdev};
use rustix::io::Errno;

/// Whether a failing call has its effect first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

/// The nth call (from 0) of this name fails.
#[derive(Debug, Clone)]
pub struct Fault {
    pub call: &'static str,
    pub nth: u32,
    pub when: When,
}

#[derive(Debug, Clone)]
struct Loop {
    status: loopdev::Status,
    bytes: u64,
}

#[derive(Debug, Clone, Default)]
struct Mapped {
    /// Whether the kernel gave up its snapshot.
    invalid: bool,
    minor: u32,
    live: Option<Vec<dm::Target>>,
    loaded: Option<Vec<dm::Target>>,
}

#[derive(Default)]
struct State {
    loops: BTreeMap<u32, Loop>,
    mapped: BTreeMap<String, Mapped>,
    /// Devices in use ("major:minor"), and until when.
    open: BTreeMap<String, Duration>,
    next_minor: u32,
}

#[derive(Default)]
pub struct World {
    state: RefCell<State>,
    pub faults: RefCell<Vec<Fault>>,
    counts: RefCell<BTreeMap<&'static str, u32>>,
    pub calls: Cell<u32>,
    /// From this call on, every call fails: the process is dead.
    pub dead_from: Cell<Option<u32>>,
    pub without_mapper: Cell<bool>,
    /// Target type that the kernel does not have.
    pub missing_target: Cell<&'static str>,
    /// Number of table loads that fail with ENOMEM.
    pub scarce: Cell<u32>,
    clock: Cell<Duration>,
    linux: Linux,
}

impl State {
    fn holders(&self, device: &str, now: Duration) -> bool {
        let tables = self.mapped.values().flat_map(|one| [&one.live, &one.loaded]).flatten();
        let mut targets = tables.flatten();
        targets.any(|target| target.arguments.split(' ').any(|word| word == device))
            || self.open.get(device).is_some_and(|until| *until > now)
    }

    fn sweep(&mut self, now: Duration) {
        let leaving = self.loops.iter().filter(|(_, one)| one.status.leaving);
        let gone: Vec<u32> = leaving
            .filter(|(number, _)| !self.holders(&format!("7:{number}"), now))
            .map(|(number, _)| *number)
            .collect();
        self.loops.retain(|number, _| !gone.contains(number));
    }

    fn sectors(&self, device: &str) -> io::Result<u64> {
        let (major, minor) = device.split_once(':').unwrap();
        let minor = minor.parse().unwrap();
        let sectors = match major {
            "7" => self.loops.get(&minor).map(|one| one.bytes / 512),
            _ => {
                let found = self.mapped.values().find(|one| one.minor == minor);
                let live = found.and_then(|one| one.live.as_ref());
                live.map(|table| table.iter().map(|target| target.length).sum())
            }
        };
        sectors.ok_or_else(|| Errno::NXIO.into())
    }

    fn check(&self, table: &[dm::Target]) -> io::Result<()> {
        let mut at = 0;
        for target in table {
            assert_eq!(target.start, at, "targets follow each other");
            at += target.length;
            let words: Vec<&str> = target.arguments.split(' ').collect();
            match (target.kind.as_str(), words.as_slice()) {
                ("zero" | "error", [""]) => {}
                ("linear", [device, "0"]) => {
                    assert!(self.sectors(device)? >= target.length, "within the device");
                }
                ("snapshot", [base, cow, "P", "8"]) => {
                    assert_eq!(self.sectors(base)?, target.length);
                    self.sectors(cow)?;
                }
                _ => return Err(Errno::INVAL.into()),
            }
        }
        Ok(())
    }
}

impl World {
    /// The kernel cannot store a change of this snapshot.
    pub fn give_up(&self, name: &str) {
        self.state.borrow_mut().mapped.get_mut(name).unwrap().invalid = true;
    }

    /// Keeps the device open for this time.
    pub fn hold(&self, device: &str, time: Duration) {
        self.state.borrow_mut().open.insert(device.into(), self.clock.get() + time);
    }

    pub fn is_empty(&self) -> bool {
        let mut state = self.state.borrow_mut();
        state.sweep(self.clock.get());
        state.loops.is_empty() && state.mapped.is_empty()
    }

    /// Ends fault injection, as a new process would not have it.
    pub fn heal(&self) {
        self.faults.borrow_mut().clear();
        self.counts.borrow_mut().clear();
        self.dead_from.set(None);
        self.calls.set(0);
    }

    fn step<T>(
        &self,
        call: &'static str,
        effect: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let number = self.calls.get();
        self.calls.set(number + 1);
        if self.dead_from.get().is_some_and(|from| number >= from) {
            return Err(io::Error::other("dead"));
        }
        if self.without_mapper.get() && call.starts_with("dm_") {
            return Err(Errno::NOENT.into());
        }
        let nth = {
            let mut counts = self.counts.borrow_mut();
            let count = counts.entry(call).or_default();
            *count += 1;
            *count - 1
        };
        let faults = self.faults.borrow();
        let fault = faults.iter().find(|fault| fault.call == call && fault.nth == nth);
        if let Some(Fault { when: When::Before, .. }) = fault {
            return Err(io::Error::other(format!("injected into {call}")));
        }
        let mut state = self.state.borrow_mut();
        state.sweep(self.clock.get());
        let done = effect(&mut state)?;
        match fault {
            Some(_) => Err(io::Error::other(format!("injected after {call}"))),
            None => Ok(done),
        }
    }
}

impl Kernel for World {
    fn file(&self, file: BorrowedFd<'_>) -> io::Result<FileFacts> {
        self.step("file", |_| self.linux.file(file))
    }

    fn loops(&self) -> io::Result<Vec<u32>> {
        self.step("loops", |state| Ok(state.loops.keys().copied().collect()))
    }

    fn loop_status(&self, number: u32) -> io::Result<Option<loopdev::Status>> {
        self.step("loop_status", |state| Ok(state.loops.get(&number).map(|one| one.status.clone())))
    }

    fn loop_free(&self) -> io::Result<u32> {
        self.step("loop_free", |state| {
            (0..).find(|number| !state.loops.contains_key(number)).ok_or(Errno::NOSPC.into())
        })
    }

    fn loop_configure(
        &self,
        number: u32,
        file: BorrowedFd<'_>,
        tag: &str,
        access: loopdev::Access,
    ) -> io::Result<()> {
        let facts = self.linux.file(file)?;
        self.step("loop_configure", |state| {
            if state.loops.contains_key(&number) {
                return Err(Errno::BUSY.into());
            }
            let status = loopdev::Status {
                tag: tag.into(),
                file_device: facts.device,
                file_inode: facts.inode,
                access,
                leaving: false,
            };
            state.loops.insert(number, Loop { status, bytes: facts.bytes });
            Ok(())
        })
    }

    fn loop_clear(&self, number: u32) -> io::Result<()> {
        let now = self.clock.get();
        self.step("loop_clear", |state| {
            if let Some(one) = state.loops.get_mut(&number) {
                one.status.leaving = true;
            }
            state.sweep(now);
            Ok(())
        })
    }

    fn dm_check_target(&self, kind: &str) -> io::Result<()> {
        self.step("dm_check_target", |_| match kind {
            kind if kind == self.missing_target.get() => Err(Errno::INVAL.into()),
            _ => Ok(()),
        })
    }

    fn dm_names(&self) -> io::Result<Vec<String>> {
        self.step("dm_names", |state| Ok(state.mapped.keys().cloned().collect()))
    }

    fn dm_status(&self, name: &str) -> io::Result<Option<dm::Status>> {
        self.step("dm_status", |state| {
            Ok(state.mapped.get(name).map(|one| dm::Status {
                number: dm::DeviceNumber { major: 253, minor: one.minor },
                live: one.live.is_some(),
                open_count: 0,
            }))
        })
    }

    fn dm_table(&self, name: &str) -> io::Result<Vec<dm::Target>> {
        self.step("dm_table", |state| {
            let found = state.mapped.get(name).ok_or(Errno::NXIO)?;
            Ok(found.live.clone().unwrap_or_default())
        })
    }

    fn dm_states(&self, name: &str) -> io::Result<Vec<dm::Target>> {
        self.step("dm_states", |state| {
            let found = state.mapped.get(name).ok_or(Errno::NXIO)?;
            let mut targets = found.live.clone().unwrap_or_default();
            let text = if found.invalid { "Invalid" } else { "16/1024 16" };
            let snapshots = targets.iter_mut().filter(|target| target.kind == "snapshot");
            snapshots.for_each(|target| target.arguments = text.into());
            Ok(targets)
        })
    }

    fn dm_create(&self, name: &str) -> io::Result<()> {
        self.step("dm_create", |state| {
            if state.mapped.contains_key(name) {
                return Err(Errno::BUSY.into());
            }
            let minor = state.next_minor;
            state.next_minor += 1;
            state.mapped.insert(name.into(), Mapped { minor, ..Mapped::default() });
            Ok(())
        })
    }

    fn dm_load(&self, name: &str, table: &[dm::Target], _access: dm::Access) -> io::Result<()> {
        self.step("dm_load", |state| {
            if let Some(left) = self.scarce.get().checked_sub(1) {
                self.scarce.set(left);
                return Err(Errno::NOMEM.into());
            }
            state.check(table)?;
            state.mapped.get_mut(name).ok_or(Errno::NXIO)?.loaded = Some(table.to_vec());
            Ok(())
        })
    }

    fn dm_resume(&self, name: &str) -> io::Result<()> {
        self.step("dm_resume", |state| {
            let found = state.mapped.get_mut(name).ok_or(Errno::NXIO)?;
            if let Some(table) = found.loaded.take() {
                // A snapshot takes over the state of the one that it replaces.
                let is_snapshot = table.iter().any(|target| target.kind == "snapshot");
                found.invalid &= is_snapshot;
                found.live = Some(table);
            }
            if found.live.is_some() { Ok(()) } else { Err(Errno::INVAL.into()) }
        })
    }

    fn dm_remove(&self, name: &str) -> io::Result<()> {
        let now = self.clock.get();
        self.step("dm_remove", |state| {
            let Some(found) = state.mapped.get(name) else { return Ok(()) };
            if state.holders(&format!("253:{}", found.minor), now) {
                return Err(Errno::BUSY.into());
            }
            state.mapped.remove(name);
            Ok(())
        })
    }

    fn now(&self) -> Duration {
        self.clock.get()
    }

    fn sleep(&self, time: Duration) {
        self.clock.set(self.clock.get() + time);
    }
}
