//! Loop devices, identified by their tag.

use std::os::fd::BorrowedFd;

use banger_base::HostHint;
use banger_sys::loopdev::{self, Access};

use super::kernel::{FileFacts, Linux};
use super::retry::Retry;
use super::{Device, Disks};
use crate::error::{Kind, RootError};
use crate::protocol::Did;

/// As [`Disks::loop_attach`].
///
/// # Errors
/// Those of [`Disks::loop_attach`].
pub fn loop_attach(
    tag: &str,
    backing: BorrowedFd<'_>,
    access: Access,
) -> Result<(Did, Device), RootError> {
    Disks::new(&Linux::default()).loop_attach(tag, backing, access)
}

/// The loop device with this tag.
///
/// # Errors
/// Devices that cannot be listed.
pub fn loop_find(tag: &str) -> Result<Option<Device>, RootError> {
    Disks::new(&Linux::default()).loop_find(tag)
}

/// Unbinds the loop device with this tag and waits, for a bounded time, until it is gone.
///
/// # Errors
/// `Busy`: the device is still in use after that time.
pub fn loop_detach(tag: &str) -> Result<Did, RootError> {
    Disks::new(&Linux::default()).loop_detach(tag)
}

/// Number of attempts to bind a device that another process took first.
const TRIES: u32 = 64;

/// A bound device and its number.
struct Bound {
    number: u32,
    status: loopdev::Status,
}

fn device(number: u32) -> Device {
    Device { path: loopdev::path(number).into(), major: loopdev::MAJOR, minor: number }
}

fn busy(number: u32, tag: &str) -> RootError {
    let path = loopdev::path(number);
    RootError::new(Kind::Busy, format!("`{path}` (`{tag}`) is still in use"))
        .with_hint(HostHint::FindHolder { path })
}

impl Disks<'_> {
    fn bound(&self, tag: &str) -> std::io::Result<Option<Bound>> {
        for number in self.kernel.loops()? {
            match self.kernel.loop_status(number)? {
                Some(status) if status.tag == tag => return Ok(Some(Bound { number, status })),
                _ => {}
            }
        }
        Ok(None)
    }

    fn seek(&self, tag: &str) -> Result<Option<Bound>, RootError> {
        let doing = format_args!("find the loop device `{tag}`");
        self.bound(tag).map_err(|error| RootError::system(doing, &error))
    }

    /// The loop device with this tag.
    ///
    /// # Errors
    /// sysfs(5), ioctl(2).
    pub fn loop_find(&self, tag: &str) -> Result<Option<Device>, RootError> {
        Ok(self.seek(tag)?.map(|bound| device(bound.number)))
    }

    /// Binds a loop device to a file and a tag; returns the device if it is bound to that file
    /// already.
    ///
    /// # Errors
    /// Not a regular file, or not open for that access; the tag is used for another file; no free
    /// device.
    pub fn loop_attach(
        &self,
        tag: &str,
        backing: BorrowedFd<'_>,
        access: Access,
    ) -> Result<(Did, Device), RootError> {
        let file = self.usable(tag, backing, access)?;
        // A device marked for removal cannot be used.
        let retry = Retry::new(self.kernel);
        let mut leaving = None;
        let found = retry.until(|| {
            Ok(match self.bound(tag)? {
                Some(bound) if bound.status.leaving => {
                    leaving = Some(bound.number);
                    None
                }
                other => Some(other),
            })
        });
        let doing = format_args!("find the loop device `{tag}`");
        match found.map_err(|error| RootError::system(doing, &error))? {
            None => Err(busy(leaving.unwrap_or_default(), tag)),
            Some(Some(bound)) => {
                let status = &bound.status;
                let same = (status.file_device, status.file_inode) == (file.device, file.inode);
                if same && status.access == access {
                    return Ok((Did::WasThere, device(bound.number)));
                }
                let path = loopdev::path(bound.number);
                let text = format!("`{path}` (`{tag}`) is bound to another file");
                Err(RootError::new(Kind::Internal, text).with_hint(HostHint::StopVmOrRestartHost))
            }
            Some(None) => self.bind(tag, backing, access),
        }
    }

    fn usable(
        &self,
        tag: &str,
        backing: BorrowedFd<'_>,
        access: Access,
    ) -> Result<FileFacts, RootError> {
        let facts = self.kernel.file(backing);
        let doing = format_args!("check the file for `{tag}`");
        let facts = facts.map_err(|error| RootError::system(doing, &error))?;
        let why = match (facts.access, access) {
            (None, _) => "is not a readable regular file",
            (Some(Access::Read), Access::ReadWrite) => "was not opened for writing",
            _ if facts.bytes < banger_sys::dm::SECTOR => "is empty",
            _ => return Ok(facts),
        };
        Err(RootError::new(Kind::BadRequest, format!("the file for `{tag}` {why}")))
    }

    fn bind(
        &self,
        tag: &str,
        backing: BorrowedFd<'_>,
        access: Access,
    ) -> Result<(Did, Device), RootError> {
        let doing = format_args!("bind a loop device for `{tag}`");
        let mut tries = 0;
        loop {
            let free = self.kernel.loop_free();
            let number = free.map_err(|error| no_loops(RootError::system(doing, &error)))?;
            tries += 1;
            match self.kernel.loop_configure(number, backing, tag, access) {
                Ok(()) => return Ok((Did::Made, device(number))),
                // Another process bound the device first.
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy && tries < TRIES => {
                }
                Err(error) => {
                    let failed = RootError::system(doing, &error);
                    return Err(match self.loop_detach(tag) {
                        Ok(_) => failed,
                        Err(too) => failed.and(too),
                    });
                }
            }
        }
    }

    /// Unbinds the loop device with this tag and waits, for a bounded time, until it is gone.
    ///
    /// # Errors
    /// `Busy`: the device is still in use after that time.
    pub fn loop_detach(&self, tag: &str) -> Result<Did, RootError> {
        self.loop_detach_within(tag, &Retry::new(self.kernel))
    }

    pub(super) fn loop_detach_within(
        &self,
        tag: &str,
        retry: &Retry<'_>,
    ) -> Result<Did, RootError> {
        let Some(first) = self.seek(tag)? else { return Ok(Did::WasAbsent) };
        let gone = retry.until(|| {
            let Some(bound) = self.bound(tag)? else { return Ok(Some(())) };
            match self.kernel.loop_clear(bound.number) {
                Err(error) if error.kind() != std::io::ErrorKind::ResourceBusy => Err(error),
                // LOOP_CLR_FD succeeds while the device is open; wait until it is unbound.
                _ => Ok(self.bound(tag)?.is_none().then_some(())),
            }
        });
        let doing = format_args!("unbind `{}` (`{tag}`)", loopdev::path(first.number));
        match gone.map_err(|error| RootError::system(doing, &error))? {
            Some(()) => Ok(Did::Removed),
            None => Err(busy(first.number, tag)),
        }
    }

    pub(super) fn loop_tags(&self) -> Result<Vec<String>, RootError> {
        let tags = || -> std::io::Result<Vec<String>> {
            let mut tags = Vec::new();
            for number in self.kernel.loops()? {
                tags.extend(self.kernel.loop_status(number)?.map(|status| status.tag));
            }
            Ok(tags)
        };
        tags().map_err(|error| RootError::system("list the loop devices", &error))
    }
}

fn no_loops(mut error: RootError) -> RootError {
    if error.kind == Kind::Internal {
        error.kind = Kind::HostNotReady;
    }
    error.with_hint(HostHint::load("loop"))
}
