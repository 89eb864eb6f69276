//! Device-mapper devices: made whole or not at all, removed with retry.

use std::io;

use banger_sys::dm;

use super::retry::Retry;
use super::{Device, Disks};
use crate::error::{Kind, RootError};
use crate::words::Did;

/// What a mapped device is to be.
pub(super) struct Wanted {
    /// Its name.
    pub name: String,
    /// Its table.
    pub table: Vec<dm::Target>,
    /// What may be done with it.
    pub access: dm::Access,
}

/// How a device is known to the kernel's device file system.
pub(super) fn device(numbers: dm::Numbers) -> Device {
    let path = format!("/dev/dm-{}", numbers.minor).into();
    Device { path, major: numbers.major, minor: numbers.minor }
}

fn failed(doing: &str, name: &str, error: &io::Error) -> RootError {
    let mut failure = RootError::system(format_args!("{doing} `{name}`"), error);
    if no_driver(error) {
        failure.kind = Kind::HostNotReady;
        return failure.with_hint("`modprobe dm_mod` gives the host its device-mapper");
    }
    if error.kind() == io::ErrorKind::InvalidInput {
        let hint = "`modprobe dm_snapshot` may help; the kernel's log (`dmesg`) says why";
        return failure.with_hint(hint);
    }
    failure
}

/// A host without device-mapper: no node, or one without a driver.
fn no_driver(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

fn same(one: &[dm::Target], other: &[dm::Target]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| {
            let extent = (one.start, one.length, &one.kind);
            // A kernel may tell more about a target than it was told.
            let (told, tells) = (one.arguments.split(' '), other.arguments.split(' '));
            extent == (other.start, other.length, &other.kind)
                && (one.arguments.is_empty()
                    || told.zip(tells.chain(std::iter::repeat(""))).all(|(a, b)| a == b))
        })
}

impl Disks<'_> {
    /// The device of this name; none on a host without device-mapper.
    pub(super) fn mapped(&self, name: &str) -> Result<Option<dm::Status>, RootError> {
        match self.kernel.dm_status(name) {
            Err(error) if no_driver(&error) => Ok(None),
            other => other.map_err(|error| failed("look for", name, &error)),
        }
    }

    /// Makes a device; one that is there with the same table is taken.
    pub(super) fn map(
        &self,
        wanted: &Wanted,
        retry: &Retry<'_>,
    ) -> Result<(Did, dm::Numbers), RootError> {
        let name = &wanted.name;
        let found = self.mapped(name)?;
        if let Some(status) = found.filter(|status| status.live) {
            let table = self.kernel.dm_table(name);
            let table = table.map_err(|error| failed("read the table of", name, &error))?;
            if same(&wanted.table, &table) {
                return Ok((Did::WasThere, status.numbers));
            }
        }
        if found.is_some() {
            // Of a process that was killed on its way, or over devices that are others now.
            self.unmap(name, retry)?;
        }
        self.make(wanted, retry).map_err(|error| match self.unmap(name, retry) {
            Ok(_) => error,
            Err(too) => error.and(too),
        })
    }

    fn make(&self, wanted: &Wanted, retry: &Retry<'_>) -> Result<(Did, dm::Numbers), RootError> {
        let name = &wanted.name;
        self.kernel.dm_create(name).map_err(|error| failed("make", name, &error))?;
        self.load(wanted, retry).map_err(|error| failed("load the table of", name, &error))?;
        self.kernel.dm_resume(name).map_err(|error| failed("start", name, &error))?;
        match self.mapped(name)? {
            Some(status) => Ok((Did::Made, status.numbers)),
            None => {
                let text = format!("`{name}` was removed by somebody else while it was made");
                Err(RootError::new(Kind::Internal, text))
            }
        }
    }

    /// Linux 6.1 fails with ENOMEM when a snapshot is taken apart at the same moment: their caches
    /// of buffers have one name in /sys/kernel/slab, and the old one leaves it a little later.
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

    /// Removes a device, waiting for those who have it open.
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
                .with_hint(format!("`fuser -v /dev/mapper/{name}` names who holds it"))),
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
