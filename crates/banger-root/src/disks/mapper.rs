//! Device-mapper devices: created atomically, removed with retries.

use std::io;

use banger_base::HostHint;
use banger_sys::dm;

use super::retry::Retry;
use super::{Device, Disks};
use crate::error::{Kind, RootError};
use crate::protocol::Did;

/// A device to create.
pub(super) struct Wanted {
    /// Its name.
    pub name: String,
    /// Its table.
    pub table: Vec<dm::Target>,
    /// Access mode.
    pub access: dm::Access,
}

/// The device in devtmpfs.
pub(super) fn device(number: dm::DeviceNumber) -> Device {
    let path = format!("/dev/dm-{}", number.minor).into();
    Device { path, major: number.major, minor: number.minor }
}

fn failed(doing: &str, name: &str, error: &io::Error) -> RootError {
    let mut failure = RootError::system(format_args!("{doing} `{name}`"), error);
    if no_driver(error) {
        failure.kind = Kind::HostNotReady;
        return failure.with_hint(HostHint::load("dm_mod"));
    }
    if error.kind() == io::ErrorKind::InvalidInput {
        return failure.with_hint(HostHint::load("dm_snapshot")).with_hint(HostHint::ReadKernelLog);
    }
    failure
}

/// The host has no device-mapper: no node, or a node without a driver.
fn no_driver(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

fn same(one: &[dm::Target], other: &[dm::Target]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| {
            let extent = (one.start, one.length, &one.kind);
            // A kernel may append parameters to those it was given.
            let (given, reported) = (one.arguments.split(' '), other.arguments.split(' '));
            extent == (other.start, other.length, &other.kind)
                && (one.arguments.is_empty()
                    || given.zip(reported.chain(std::iter::repeat(""))).all(|(a, b)| a == b))
        })
}

impl Disks<'_> {
    /// Checks that devices with these target types can be created.
    pub(super) fn check_targets(&self, kinds: &[&str]) -> Result<(), RootError> {
        let check = |kind: &&str| {
            let checked = self.kernel.dm_check_target(kind);
            checked.map_err(|error| {
                let doing = format_args!("use device-mapper's target type `{kind}`");
                let module = if no_driver(&error) { "mod" } else { kind };
                let mut failure = RootError::system(doing, &error);
                failure.kind = Kind::HostNotReady;
                failure.with_hint(HostHint::load(&format!("dm_{module}")))
            })
        };
        kinds.iter().try_for_each(check)
    }

    /// The status of a device; `None` also without device-mapper.
    pub(super) fn mapped(&self, name: &str) -> Result<Option<dm::Status>, RootError> {
        match self.kernel.dm_status(name) {
            Err(error) if no_driver(&error) => Ok(None),
            other => other.map_err(|error| failed("find", name, &error)),
        }
    }

    /// Creates a device; returns an existing one with the same table.
    pub(super) fn map(
        &self,
        wanted: &Wanted,
        retry: &Retry<'_>,
    ) -> Result<(Did, dm::DeviceNumber), RootError> {
        let name = &wanted.name;
        let found = self.mapped(name)?;
        if let Some(status) = found.filter(|status| status.live) {
            let table = self.kernel.dm_table(name);
            let table = table.map_err(|error| failed("read the table of", name, &error))?;
            if same(&wanted.table, &table) {
                return Ok((Did::WasThere, status.number));
            }
        }
        if found.is_some() {
            // Left by a killed process, or its table names devices that have been reused.
            self.unmap(name, retry)?;
        }
        self.make(wanted, retry).map_err(|error| match self.unmap(name, retry) {
            Ok(_) => error,
            Err(too) => error.and(too),
        })
    }

    fn make(
        &self,
        wanted: &Wanted,
        retry: &Retry<'_>,
    ) -> Result<(Did, dm::DeviceNumber), RootError> {
        let name = &wanted.name;
        self.kernel.dm_create(name).map_err(|error| failed("make", name, &error))?;
        self.activate(wanted, retry)?;
        match self.mapped(name)? {
            Some(status) => Ok((Did::Made, status.number)),
            None => {
                let text = format!("`{name}` was removed by another process during its creation");
                Err(RootError::new(Kind::Internal, text))
            }
        }
    }

    /// Gives an existing device a table. The device may be open.
    pub(super) fn activate(&self, wanted: &Wanted, retry: &Retry<'_>) -> Result<(), RootError> {
        let name = &wanted.name;
        self.load(wanted, retry).map_err(|error| failed("load the table of", name, &error))?;
        self.kernel.dm_resume(name).map_err(|error| failed("start", name, &error))
    }

    /// The active targets of a device, with the state of each in place of its parameters.
    pub(super) fn states(&self, name: &str) -> Result<Vec<dm::Target>, RootError> {
        let states = self.kernel.dm_states(name);
        states.map_err(|error| failed("read the state of", name, &error))
    }

    /// Linux 6.1 fails with ENOMEM while another snapshot is being removed: the kernel registers
    /// the buffer cache of every snapshot under one name in /sys/kernel/slab, and releases it late.
    fn load(&self, wanted: &Wanted, retry: &Retry<'_>) -> io::Result<()> {
        let mut last = None;
        let loaded = retry.until(|| {
            match self.kernel.dm_load(&wanted.name, &wanted.table, wanted.access) {
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                    last = Some(error);
                    Ok(None)
                }
                other => other.map(Some),
            }
        })?;
        match (loaded, last) {
            (None, Some(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes a device; retries while it is open.
    pub(super) fn unmap(&self, name: &str, retry: &Retry<'_>) -> Result<Did, RootError> {
        if self.mapped(name)?.is_none() {
            return Ok(Did::WasAbsent);
        }
        let gone = retry.until(|| match self.kernel.dm_remove(name) {
            Ok(()) => Ok(Some(())),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(None),
            Err(error) => Err(error),
        });
        match gone.map_err(|error| failed("remove", name, &error))? {
            Some(()) => Ok(Did::Removed),
            None => Err(RootError::new(Kind::Busy, format!("`{name}` is still in use"))
                .with_hint(HostHint::FindHolder { path: format!("/dev/mapper/{name}") })),
        }
    }

    pub(super) fn mapped_names(&self) -> Result<Vec<String>, RootError> {
        match self.kernel.dm_names() {
            Err(error) if no_driver(&error) => Ok(Vec::new()),
            other => other
                .map_err(|error| RootError::system("list the devices of device-mapper", &error)),
        }
    }
}
