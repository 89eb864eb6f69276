//! Copies a child's output from its pipe to its log.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use banger_shim::CappedLog;
use rustix::fs::OFlags;

use crate::capped_log::Log;
use crate::disk_errors::DiskErrors;
use crate::guest_end::GuestEndScanner;

/// Maximum number of bytes copied at once, so that a flood of output does not keep the shim from
/// other events. More than the capacity of a pipe (pipe(7)).
const GO: usize = 256 * 1024;

/// The read end of a pipe, with its log.
pub struct Output {
    pipe: Option<File>,
    /// A FIFO that the child opens by itself. The shim holds both ends open, so it never reaches
    /// end of file.
    fifo: Option<File>,
    log: Log,
    /// Scanner for the copied bytes of the pipe.
    pub guest_end: Option<GuestEndScanner>,
    /// Scanner for the copied bytes of the FIFO.
    pub disk_errors: Option<DiskErrors>,
}

impl Output {
    /// Creates the pipe and opens the log. Returns the write end, for the child.
    ///
    /// # Errors
    /// pipe(2); those of [`Log::open`].
    pub fn new(config: &CappedLog, reader: Option<u32>) -> io::Result<(Self, OwnedFd)> {
        let log = Log::open(config, reader)?;
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let pipe = Some(File::from(ours));
        let output = Self { pipe, fifo: None, log, guest_end: None, disk_errors: None };
        Ok((output, theirs))
    }

    /// Marks the beginning of a run in the log.
    pub fn begin(&mut self) {
        self.log.begin(jiff::Timestamp::now());
    }

    /// A FIFO with a log, without a pipe.
    ///
    /// # Errors
    /// Those of [`Self::new`] and [`Self::add_fifo`].
    pub fn from_fifo(name: &str, config: &CappedLog, reader: Option<u32>) -> io::Result<Self> {
        let (mut output, _) = Self::new(config, reader)?;
        output.pipe = None;
        output.add_fifo(name)?;
        Ok(output)
    }

    /// Adds a FIFO of the run folder: open(2) with O_RDWR, which does not wait for a writer
    /// (fifo(7)).
    ///
    /// # Errors
    /// open(2); the file is not a FIFO.
    pub fn add_fifo(&mut self, name: &str) -> io::Result<()> {
        use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
        let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
        let fifo = File::options().read(true).write(true).custom_flags(flags).open(name)?;
        if !fifo.metadata()?.file_type().is_fifo() {
            return Err(io::Error::other(format!("`{name}` is not a FIFO")));
        }
        self.fifo = Some(fifo);
        Ok(())
    }

    /// Descriptors that become readable when there is output; none once all write ends are closed.
    pub fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.pipe.as_ref(), self.fifo.as_ref()].into_iter().flatten().map(AsFd::as_fd)
    }

    /// Copies pending output, up to a limit.
    pub fn copy_pending(&mut self) {
        self.copy_fifo();
        self.copy_pipe();
    }

    fn copy_fifo(&mut self) {
        let Some(fifo) = &mut self.fifo else { return };
        let mut piece = [0; 16 * 1024];
        let mut passed = 0;
        while passed < GO {
            match fifo.read(&mut piece) {
                Ok(count) if count > 0 => {
                    self.log.write(&piece[..count]);
                    if let Some(disk_errors) = &mut self.disk_errors {
                        disk_errors.scan(&piece[..count]);
                    }
                    passed += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    fn copy_pipe(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut piece = [0; 16 * 1024];
        let mut passed = 0;
        while passed < GO {
            match pipe.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => {
                    self.log.write(&piece[..count]);
                    if let Some(guest_end) = &mut self.guest_end {
                        guest_end.scan(&piece[..count]);
                    }
                    passed += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        if passed < GO {
            self.pipe = None;
        }
    }

    /// The end of the output in this run.
    pub fn tail(&self) -> String {
        self.log.tail()
    }
}
