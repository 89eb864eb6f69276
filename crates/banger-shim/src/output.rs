//! What a child says, from its pipe into its log.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use banger_shim::CappedLog;

use crate::capped_log::Log;
use crate::last_words::LastWords;

/// Most bytes that are passed on in one go, so that who floods its log cannot keep the shim from
/// everything else. More than a pipe holds (pipe(7)).
const GO: usize = 256 * 1024;

/// The reading end of a pipe, and the log behind it.
pub struct Output {
    pipe: Option<File>,
    log: Log,
    /// Looked for in what is passed on, if at all.
    pub last_words: Option<LastWords>,
}

impl Output {
    /// Makes the pipe and opens the log. The other end is for the child.
    pub fn new(config: &CappedLog, reader: Option<u32>) -> io::Result<(Self, OwnedFd)> {
        let log = Log::open(config, reader)?;
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((Self { pipe: Some(File::from(ours)), log, last_words: None }, theirs))
    }

    /// Becomes readable when there is something to pass on; nothing once all ends are closed.
    pub fn source(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Passes on what there is, up to a limit.
    pub fn pass_on(&mut self) {
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
