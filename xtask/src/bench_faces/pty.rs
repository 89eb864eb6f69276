//! A program on a terminal of its own, whose output is kept with the time at which it arrived.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, bail};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::PATIENCE;
use crate::bench::Bench;

/// Output, and the time of its end after each read.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    arrived: Vec<(usize, Instant)>,
}

/// A program on a terminal; killed when dropped.
pub struct Screen {
    child: Child,
    output: Arc<(Mutex<Output>, Condvar)>,
}

impl Screen {
    /// `banger tui` on a terminal of this many columns and rows.
    ///
    /// # Errors
    /// There is no terminal, or the program cannot be started.
    pub fn tui(bench: &Bench, home: &Path, (columns, rows): (u16, u16)) -> anyhow::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size)?;
        let path = ptsname(&master, Vec::new())?;
        let path = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
        let slave = OpenOptions::new().read(true).write(true).open(path)?;
        // With this terminal as its controlling one.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(bench.programs.join("banger")).arg("tui");
        let child = bench
            .in_home(&mut command, home)
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(Stdio::from(slave.try_clone()?))
            .stdout(Stdio::from(slave))
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run setsid")?;
        let output = Arc::<(Mutex<Output>, Condvar)>::default();
        let (kept, mut master) = (output.clone(), File::from(master));
        std::thread::spawn(move || {
            let mut piece = vec![0; 1 << 16];
            // EIO when the program has ended.
            while let Ok(count @ 1..) = master.read(&mut piece) {
                let mut output = kept.0.lock().unwrap_or_else(PoisonError::into_inner);
                output.bytes.extend_from_slice(&piece[..count]);
                let end = output.bytes.len();
                output.arrived.push((end, Instant::now()));
                kept.1.notify_all();
            }
        });
        Ok(Self { child, output })
    }

    /// Waits until a text was written; returns the time at which its end arrived.
    ///
    /// # Errors
    /// It was not written within a minute.
    pub fn wait(&self, text: &str) -> anyhow::Result<Instant> {
        let deadline = Instant::now() + PATIENCE;
        let (output, changed) = &*self.output;
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        let mut searched = 0;
        loop {
            let rest = output.bytes.get(searched..).unwrap_or_default();
            let found = rest.windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(at) = found {
                let end = searched + at + text.len();
                let arrived = output.arrived.iter().find(|(upto, _)| *upto >= end);
                return arrived.map(|(_, at)| *at).context("output without a time");
            }
            searched = output.bytes.len().saturating_sub(text.len());
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("`banger tui` did not show `{text}`");
            }
            let waited = changed.wait_timeout(output, left);
            output = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
