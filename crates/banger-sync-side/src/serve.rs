//! The server: one thread that waits for requests and for changes of the folder.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::codec::Frames;
use crate::failed::Failed;
use crate::files::{Side, now_ns};
use crate::stage::Staged;
use crate::{Cause, Expected, PIECE, Reply, Request};

/// How long changes are collected before they are reported, in nanoseconds: a program that saves a
/// file makes several at once.
const COLLECT_NS: i64 = 8_000_000;
/// Bytes received at once.
const RECEIVE: usize = 64 * 1024;
/// Bytes of answers that are sent together.
const SEND: usize = 64 * 1024;

/// Serves a connection until it is closed. `early` are bytes that were already received.
///
/// # Errors
/// The connection's, or a request that is malformed.
pub fn serve<S: Read + Write + AsFd>(stream: S, early: &[u8], side: Side) -> io::Result<()> {
    let mut server = Server { stream, out: Vec::new(), side, writing: None };
    let mut frames = Frames::default();
    frames.push(early);
    let mut piece = vec![0; RECEIVE];
    loop {
        while let Some(frame) = frames.next_frame()? {
            let request = Request::decode(frame)?;
            server.carry_out(request)?;
        }
        server.send()?;
        if !server.wait()? {
            continue;
        }
        match server.stream.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => frames.push(piece.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

struct Server<S> {
    stream: S,
    out: Vec<u8>,
    side: Side,
    writing: Option<Writing>,
}

/// A file whose content is being received.
struct Writing {
    /// Its file, or why the rest of its content is discarded.
    staged: Result<Staged, Failed>,
    expected: Expected,
    executable: bool,
    left: u64,
}

impl<S: Read + Write + AsFd> Server<S> {
    /// Waits for a request; reports changes meanwhile. Returns whether there is a request.
    fn wait(&mut self) -> io::Result<bool> {
        let (readable, watched) = self.poll(None)?;
        if watched && self.side.watch.collect()? {
            // More changes usually follow at once.
            let collected = Timespec { tv_sec: 0, tv_nsec: COLLECT_NS };
            self.pause(&collected)?;
            self.side.watch.collect()?;
            for notice in self.side.watch.take() {
                notice.encode(&mut self.out);
            }
            self.send()?;
        }
        Ok(readable)
    }

    fn poll(&self, timeout: Option<&Timespec>) -> io::Result<(bool, bool)> {
        let mut ready = [
            PollFd::new(&self.stream, PollFlags::IN),
            PollFd::new(&self.side.watch, PollFlags::IN),
        ];
        match poll(&mut ready, timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let [stream, watch] = ready.map(|fd| !fd.revents().is_empty());
        Ok((stream, watch))
    }

    /// Waits this long, or until a request arrives.
    fn pause(&self, time: &Timespec) -> io::Result<()> {
        let mut ready = [PollFd::new(&self.stream, PollFlags::IN)];
        match poll(&mut ready, Some(time)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn carry_out(&mut self, request: Request) -> io::Result<()> {
        let Self { stream, out, side, .. } = self;
        let mut send = |reply: Reply| {
            reply.encode(out);
            if out.len() < SEND {
                return Ok(());
            }
            stream.write_all(out)?;
            out.clear();
            Ok(())
        };
        let answer = match request {
            Request::Data(bytes) => return self.receive(&bytes),
            Request::Abort => {
                if self.writing.take().is_some() {
                    let message = "it changed while it was copied".into();
                    Reply::Failed { cause: Cause::Changed, message }.encode(&mut self.out);
                }
                return Ok(());
            }
            Request::Write { path, expected, executable, size } => {
                let staged = side.begin(&path, size);
                self.writing = Some(Writing { staged, expected, executable, left: size });
                return self.receive(&[]);
            }
            Request::List { path } => side.list(&path, &mut send)?,
            // At once: a client that hears nothing gives up, and one that is gone ends the work.
            Request::Hash { path } => side.hash(&path, &mut || {
                Reply::Working.encode(out);
                stream.write_all(out)?;
                out.clear();
                Ok(())
            })?,
            Request::Read { path } => {
                side.read(&path, &mut |piece| send(Reply::Data(piece.to_vec())))?
            }
            Request::Folder { path } => done(side.make_folder(&path)),
            Request::Link { path, target, expected } => {
                done(side.make_link(&path, &target, expected))
            }
            Request::Remove { path, expected } => done(side.remove(&path, &expected)),
            Request::Execute { path, expected, executable } => {
                done(side.set_executable(&path, &expected, executable))
            }
            Request::Rename { path, name, expected } => done(side.rename(&path, &name, &expected)),
            Request::Flush => done(side.flush()),
        };
        self.answer(answer)
    }

    /// Takes content of the file that is being written; it is complete with its last byte.
    fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(writing) = &mut self.writing else { return Ok(()) };
        let length = bytes.len() as u64;
        if length > writing.left || bytes.len() > PIECE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        writing.left -= length;
        if let Ok(staged) = &mut writing.staged
            && let Err(error) = staged.file.write_all(bytes)
        {
            writing.staged = Err(error.into());
        }
        if writing.left > 0 {
            return Ok(());
        }
        let Some(Writing { staged, expected, executable, .. }) = self.writing.take() else {
            return Ok(());
        };
        let written = staged.and_then(|staged| self.side.commit(staged, expected, executable));
        self.answer(done(written))
    }

    fn answer(&mut self, answer: Result<Reply, Failed>) -> io::Result<()> {
        let reply = match answer {
            Ok(reply) => reply,
            Err(Failed { cause, message }) => Reply::Failed { cause, message },
        };
        reply.encode(&mut self.out);
        if self.out.len() >= SEND { self.send() } else { Ok(()) }
    }
}

fn done(changed: Result<Expected, Failed>) -> Result<Reply, Failed> {
    changed.map(|stamp| Reply::Done { stamp, now_ns: now_ns() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use banger_archive::beneath::Folder;

    use super::*;
    use crate::Rules;

    #[test]
    fn a_long_digest_is_told_at_once_and_ends_with_its_client() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("sparse")).unwrap();
        file.set_len(1 << 40).unwrap();
        let side = Side::new(Folder::open(dir.path()).unwrap(), Rules::default()).unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || serve(theirs, &[], side));
        let mut request = Vec::new();
        Request::Hash { path: b"sparse".to_vec() }.encode(&mut request);
        ours.write_all(&request).unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut expected = Vec::new();
        Reply::Working.encode(&mut expected);
        let mut told = vec![0; expected.len()];
        ours.read_exact(&mut told).unwrap();
        assert_eq!(told, expected);
        drop(ours);
        // The digest of a tebibyte takes half an hour.
        assert!(server.join().unwrap().is_err());
    }
}
