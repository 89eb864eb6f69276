//! From the client to the command: frames, input within credit, signals and window sizes.

use banger_agent_proto::frame::{Frame, MAX_PAYLOAD, Piece, STDIN_WINDOW, STDIN_WINDOW_MAX};
use rustix::event::PollFlags;
use rustix::io::{Errno, read, write};

use super::{Session, write_from};
use crate::agent::exec::winsize;
use crate::sys::signal::{self, Target};
use crate::sys::socket;

/// Credit is given back in portions, so that it costs few frames. A client that does not know of
/// the larger window has four portions in its own.
const CREDIT_PORTION: u32 = STDIN_WINDOW / 4;

/// Bytes read from the client at once: a few frames.
const PIECE: usize = 2 * MAX_PAYLOAD;

/// Maximum number of bytes to wait for. Half of what the kernel of the guest leaves free in its
/// receive buffer before it tells the sender (`VIRTIO_VSOCK_MAX_PKT_BUF_SIZE`, 64 KiB), so that the
/// sender can always send as much.
const AWAITED_MAX: usize = 32 * 1024;

/// End of file as a terminal's line discipline understands it (`VEOF`, Ctrl-D).
const END_OF_TRANSMISSION: u8 = 4;

impl Session {
    pub(super) fn client_ready(&mut self, events: PollFlags) {
        if !events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        let Some(client) = &self.client else { return };
        match read(client, self.decoder.room(PIECE)) {
            Ok(length) if length > 0 => {
                self.decoder.filled(length);
                self.take_frames();
                self.await_frame();
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            _ => self.hang_up(),
        }
    }

    /// Has the kernel wake this thread when much of the next frame is there. It receives data in
    /// packets of 4 KiB, and each wake-up costs a poll(2), a read(2), a write(2) and a switch to
    /// the command.
    fn await_frame(&mut self) {
        let missing = self.decoder.missing().min(AWAITED_MAX);
        if let Some(client) = &self.client
            && missing != self.awaited
            && socket::set_read_threshold(client, missing).is_ok()
        {
            self.awaited = missing;
        }
    }

    pub(super) fn take_frames(&mut self) {
        let mut decoder = std::mem::take(&mut self.decoder);
        while self.client.is_some() {
            match decoder.next_piece() {
                Ok(Some(Piece::Stdin(data))) => self.take_input(data),
                Ok(Some(Piece::Frame(frame))) => self.handle_frame(&frame),
                Ok(None) => break,
                // Framing is lost: nothing after this can be decoded.
                Err(_) => self.hang_up(),
            }
        }
        self.decoder = decoder;
        // Once for all that came.
        self.feed();
    }

    fn take_input(&mut self, data: &[u8]) {
        if self.stdin_ended {
            return;
        }
        if self.incoming.len() + data.len() > STDIN_WINDOW_MAX as usize {
            return self.hang_up();
        }
        if let Some(last) = data.last() {
            self.ends_in_line = *last != b'\n';
        }
        // What the command takes at once is not copied.
        let written = match &self.stdin {
            Some(stdin) if self.incoming.is_empty() => write(stdin, data).unwrap_or(0),
            _ => 0,
        };
        self.owed_credit += written as u32;
        self.incoming.push(data.get(written..).unwrap_or_default());
    }

    fn handle_frame(&mut self, frame: &Frame) {
        match frame {
            Frame::StdinEnd => self.end_input(),
            Frame::Resize(size) => {
                if let (true, Some(master)) = (self.is_terminal, &self.stdout) {
                    // A terminal that has gone away needs no size.
                    let _ = rustix::termios::tcsetwinsize(master, winsize(*size));
                }
            }
            Frame::Signal(number) => self.signal(*number),
            // Frames of the other direction; input comes as a piece.
            Frame::Stdin(_)
            | Frame::Stdout(_)
            | Frame::Stderr(_)
            | Frame::Credit(_)
            | Frame::Exit(_) => self.hang_up(),
        }
    }

    fn end_input(&mut self) {
        if self.stdin_ended {
            return;
        }
        self.stdin_ended = true;
        if self.is_terminal {
            // In the middle of a line the first one only hands the line over.
            let times = if self.ends_in_line { 2 } else { 1 };
            self.incoming.push(&[END_OF_TRANSMISSION; 2][..times]);
        }
        self.feed();
    }

    /// To the command's group; on a terminal also to the job in front.
    fn signal(&self, number: u8) {
        if self.status.is_some() || !(1..=64).contains(&number) {
            return;
        }
        let front = match &self.stdout {
            Some(master) if self.is_terminal => rustix::termios::tcgetpgrp(master).ok(),
            _ => None,
        };
        for group in std::iter::once(self.pid).chain(front.filter(|front| *front != self.pid)) {
            // Both may end at any time.
            let _ = signal::send(Target::Group(group), i32::from(number));
        }
    }

    pub(super) fn stdin_ready(&mut self, events: PollFlags) {
        // An event without data to write: the pipe's reader has closed it.
        if self.incoming.is_empty() && events.contains(PollFlags::ERR) {
            self.stdin = None;
        }
        self.feed();
    }

    /// Writes input to the command and grants credit to the client.
    fn feed(&mut self) {
        let written = match &self.stdin {
            // The command has closed its input: discard it and grant credit.
            None => {
                let length = self.incoming.len();
                self.incoming.clear();
                Ok(length)
            }
            Some(_) if self.incoming.is_empty() => Ok(0),
            Some(stdin) => write_from(&mut self.incoming, stdin),
        };
        match written {
            Ok(written) => self.owed_credit += written as u32,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => {
                self.stdin = None;
                self.owed_credit += self.incoming.len() as u32;
                self.incoming.clear();
            }
        }
        if self.stdin_ended {
            if self.incoming.is_empty() {
                self.stdin = None;
            }
        } else if self.owed_credit >= CREDIT_PORTION
            || (self.owed_credit > 0 && self.incoming.is_empty())
        {
            let credit = std::mem::take(&mut self.owed_credit);
            self.push(&Frame::Credit(credit));
        }
    }
}
