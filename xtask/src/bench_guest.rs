//! A VM of the benchmarks of files: its commands, and programs of this host that reach it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::bench::Bench;

/// Reads lines `see PATH TEXT` and `write PATH TEXT`: answers a line when the file has the text. It
/// looks every 2 ms, so that this does not need the guest's processor.
const EYE: &str = "
import os, sys, time
def content(path):
    try:
        with open(path) as file: return file.read()
    except OSError: return None
print('ready', flush=True)
for line in sys.stdin:
    what, path, text = line.rstrip('\\n').split(' ', 2)
    if what == 'write':
        with open(path, 'w') as file: file.write(text)
    else:
        print('watching', flush=True)
        while content(path) != text: time.sleep(0.002)
    print('done', flush=True)
";

/// A VM.
pub struct Vm<'a> {
    pub bench: &'a Bench,
    pub name: &'static str,
}

impl<'a> Vm<'a> {
    /// Size of the VMs.
    pub const SIZE: [&'static str; 4] = ["--vcpus", "1", "--memory", "2G"];

    /// Creates it, and waits until its init has settled.
    ///
    /// # Errors
    /// A command fails.
    pub fn create(bench: &'a Bench, name: &'static str) -> anyhow::Result<Self> {
        let _ = bench.banger(&bench.home, &["vm", "delete", "-f", name]);
        let create = [&["vm", "create", "-q", "--name", name], Self::SIZE.as_slice()].concat();
        bench.banger(&bench.home, &create)?;
        let vm = Self { bench, name };
        vm.run(
            "for n in $(seq 600); do case $(systemctl is-system-running 2>&1) in \
             running|degraded) exit 0;; esac; sleep 0.2; done; exit 1",
        )?;
        Ok(vm)
    }

    /// Runs a shell command in it.
    ///
    /// # Errors
    /// It fails.
    pub fn run(&self, script: &str) -> anyhow::Result<String> {
        self.bench.banger(&self.bench.home, &["exec", self.name, "--", "sh", "-c", script])
    }

    /// The remote shell for rsync(1): a script in `folder`, which rsync calls with the name of the
    /// VM and a command.
    ///
    /// # Errors
    /// The script cannot be written.
    pub fn remote_shell(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let (script, banger) = (folder.join("remote-shell"), self.bench.programs.join("banger"));
        let text = format!("#!/bin/sh\nexec {} exec -i \"$@\"\n", banger.display());
        std::fs::write(&script, text)?;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
        Ok(script)
    }

    /// Copies a folder with `rsync -a` to a new one; milliseconds.
    ///
    /// # Errors
    /// rsync fails.
    pub fn rsync(&self, shell: &Path, from: &Path, to: &str) -> anyhow::Result<f64> {
        timed(self.rsync_command(shell, from, to))
    }

    /// The command of [`Self::rsync`].
    pub fn rsync_command(&self, shell: &Path, from: &Path, to: &str) -> Command {
        let target = format!("{}:{to}/", self.name);
        let mut command = Command::new("rsync");
        command.arg("-a").arg("-e").arg(shell).arg(format!("{}/", from.display())).arg(target);
        command.env("BANGER_HOME", &self.bench.home);
        command
    }

    /// A program in it that looks at files and writes them.
    ///
    /// # Errors
    /// It does not start.
    pub fn eye(&self) -> anyhow::Result<Eye> {
        let mut child = Command::new(self.bench.programs.join("banger"))
            .args(["exec", "-i", self.name, "--", "python3", "-c", EYE])
            .env("BANGER_HOME", &self.bench.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run banger")?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let mut eye = Eye { child, input, output };
        eye.expect("ready")?;
        Ok(eye)
    }
}

impl Drop for Vm<'_> {
    fn drop(&mut self) {
        let _ = self.bench.banger(&self.bench.home, &["vm", "delete", "-f", self.name]);
    }
}

/// See [`Vm::eye`].
pub struct Eye {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Eye {
    fn expect(&mut self, word: &str) -> anyhow::Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(line.trim() == word, "the guest's program said `{}`", line.trim());
        Ok(())
    }

    /// Has the file watched for this text, does `change`, and waits for it; milliseconds since the
    /// begin of the change.
    ///
    /// # Errors
    /// The program ended; those of `change`.
    pub fn sees(
        &mut self,
        path: &str,
        text: &str,
        change: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<f64> {
        writeln!(self.input, "see {path} {text}")?;
        self.expect("watching")?;
        let begin = Instant::now();
        change()?;
        self.expect("done")?;
        Ok(begin.elapsed().as_secs_f64() * 1000.0)
    }

    /// Has the text written to the file.
    ///
    /// # Errors
    /// The program ended.
    pub fn write(&mut self, path: &str, text: &str) -> anyhow::Result<()> {
        writeln!(self.input, "write {path} {text}").context("the guest's program ended")
    }

    /// Waits until a text is written.
    ///
    /// # Errors
    /// The program ended.
    pub fn written(&mut self) -> anyhow::Result<()> {
        self.expect("done")
    }
}

impl Drop for Eye {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program; its duration in milliseconds.
///
/// # Errors
/// It fails.
pub fn timed(mut command: Command) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {command:?}"))?;
    let took = begin.elapsed().as_secs_f64() * 1000.0;
    let printed = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed:\n{printed}");
    Ok(took)
}
