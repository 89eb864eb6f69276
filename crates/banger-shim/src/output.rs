//! What a child says, from its pipe into its log.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use banger_shim::CappedLog;
use rustix::fs::OFlags;

use crate::capped_log::Log;
use crate::disk_errors::DiskErrors;
use crate::last_words::LastWords;

/// Most bytes that are passed on in one go, so that who floods its log cannot keep the shim from
/// everything else. More than a pipe holds (pipe(7)).
const GO: usize = 256 * 1024;

/// The reading end of a pipe, and the log behind it.
pub struct Output {
    pipe: Option<File>,
    /// A second way in, which its writer opens by itself. Held open both ways, so that it has no
    /// end.
    fifo: Option<File>,
    log: Log,
    /// Looked for in what is passed on, if at all.
    pub last_words: Option<LastWords>,
    /// Looked for in what comes by the FIFO, if at all.
    pub disk_errors: Option<DiskErrors>,
}

impl Output {
    /// Makes the pipe and opens the log. The other end is for the child.
    pub fn new(config: &CappedLog, reader: Option<u32>) -> io::Result<(Self, OwnedFd)> {
        let log = Log::open(config, reader)?;
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let pipe = Some(File::from(ours));
        let output = Self { pipe, fifo: None, log, last_words: None, disk_errors: None };
        Ok((output, theirs))
    }

    /// Nothing but a FIFO, and the log behind it.
    pub fn of_fifo(name: &str, config: &CappedLog, reader: Option<u32>) -> io::Result<Self> {
        let (mut output, _) = Self::new(config, reader)?;
        output.pipe = None;
        output.hear_fifo(name)?;
        Ok(output)
    }

    /// Listens to a FIFO in the run folder too: open(2) with O_RDWR, which does not wait for a
    /// writer (fifo(7)).
    pub fn hear_fifo(&mut self, name: &str) -> io::Result<()> {
        use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
        let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
        let fifo = File::options().read(true).write(true).custom_flags(flags).open(name)?;
        if !fifo.metadata()?.file_type().is_fifo() {
            return Err(io::Error::other(format!("`{name}` is no FIFO")));
        }
        self.fifo = Some(fifo);
        Ok(())
    }

    /// Become readable when there is something to pass on; none once all ends are closed.
    pub fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.pipe.as_ref(), self.fifo.as_ref()].into_iter().flatten().map(AsFd::as_fd)
    }

    /// Passes on what there is, up to a limit.
    pub fn pass_on(&mut self) {
        self.pass_on_fifo();
        self.pass_on_pipe();
    }

    fn pass_on_fifo(&mut self) {
        let Some(fifo) = &mut self.fifo else { return };
        let mut piece = [0; 16 * 1024];
        let mut passed = 0;
        while passed < GO {
            match fifo.read(&mut piece) {
                Ok(count) if count > 0 => {
                    self.log.write(&piece[..count]);
                    if let Some(disk_errors) = &mut self.disk_errors {
                        disk_errors.hear(&piece[..count]);
                    }
                    passed += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    fn pass_on_pipe(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut piece = [0; 16 * 1024];
        let mut passed = 0;
        while passed < GO {
            match pipe.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => {
                    self.log.write(&piece[..count]);
                    if let Some(last_words) = &mut self.last_words {
                        last_words.hear(&piece[..count]);
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

    /// The end of what was said.
    pub fn tail(&self) -> String {
        self.log.tail()
    }
}
