//! The lab: a Debian host with systemd and a working `/dev/kvm`, inside QEMU under emulation, where
//! tests run with the real Firecracker. See docs/lab.md.

mod cache;
mod durations;
mod fixture;
mod image;
mod machine;
mod payload;
mod report;
mod suite;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use machine::{How, Job, Terminal};

const USAGE: &str = "usage: cargo xtask lab <command>
  build                    make the lab's disk and fetch Firecracker, if that was not done yet
  test [OPTIONS] [FILTER…] run the tests of tests-vm/tests/lab in the lab
  verify [OPTIONS]         the tests whose names have `verify` in them
  bench [OPTIONS]          create-to-ready against Firecracker by hand, with release programs
  run [OPTIONS] -- CMD…    run a command in the lab, as root
  shell [OPTIONS]          a root shell in the lab

options:
  --timeout-min N          end after that many minutes (60), which is a failure
  --with FILE              put another file into the lab's folder of programs (repeatable)
  --release                build the programs as users get them
  --no-build               take the programs as the last build left them";
/// Default timeout of a lab, in minutes.
const TIMEOUT_MIN: u64 = 60;

/// Folders of the lab.
pub struct Lab {
    /// Root of the project.
    root: PathBuf,
    /// Folder of all generated files.
    folder: PathBuf,
}

/// Options of the command line.
#[derive(Clone)]
struct Options<'a> {
    timeout: Duration,
    build: Build,
    more: Vec<&'a str>,
    rest: Vec<&'a str>,
}

/// Whether to build the programs first, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Build {
    First,
    /// Release builds.
    Optimised,
    AsTheyAre,
}

/// Runs one command of the lab; returns the exit code of the program that ran in the lab.
///
/// # Errors
/// The lab cannot be built or started, or gave no verdict.
pub fn run(root: &Path, words: &[&str]) -> anyhow::Result<ExitCode> {
    let lab = Lab { root: root.to_owned(), folder: root.join(".cache/lab") };
    fs::create_dir_all(&lab.folder)?;
    let Some((verb, words)) = words.split_first() else { bail!("{USAGE}") };
    let options = options(words)?;
    let rest = options.rest.as_slice();
    match (*verb, rest) {
        ("build", []) => {
            image::ready(&lab)?;
            fixture::ready(&lab)?;
            Ok(ExitCode::SUCCESS)
        }
        ("test", filters) => lab.tests(&options, filters),
        ("bench", []) => {
            let build = match options.build {
                Build::First => Build::Optimised,
                other => other,
            };
            lab.tests(&Options { build, ..options }, &["bench"])
        }
        ("verify", []) => lab.verify(&options),
        ("run", [_, ..]) => lab.command(&options, rest, None),
        ("shell", []) => {
            let terminal = Terminal::of_ours().context("`lab shell` needs a terminal")?;
            lab.command(&options, &["bash", "--login"], Some(terminal))
        }
        _ => bail!("{USAGE}"),
    }
}

/// Options end at `--` or at the first word that is not an option.
fn options<'a>(words: &[&'a str]) -> anyhow::Result<Options<'a>> {
    let mut options = Options {
        timeout: minutes(TIMEOUT_MIN),
        build: Build::First,
        more: Vec::new(),
        rest: Vec::new(),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--no-build" => options.build = Build::AsTheyAre,
            "--release" => options.build = Build::Optimised,
            "--with" => options.more.push(words.next().context("`--with` needs a file")?),
            "--timeout-min" => {
                let count = words.next().context("`--timeout-min` needs a number")?;
                let count = count.parse().with_context(|| format!("`{count}` is no number"))?;
                ensure!((1..=1440).contains(&count), "`--timeout-min` is from 1 to 1440");
                options.timeout = minutes(count);
            }
            "--" => {
                options.rest.extend(words);
                break;
            }
            option if option.starts_with('-') => bail!("unknown option `{option}`\n{USAGE}"),
            word => {
                options.rest.push(word);
                options.rest.extend(words);
                break;
            }
        }
    }
    Ok(options)
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

impl Lab {
    /// The smoke test, which prints its stages.
    fn verify(&self, options: &Options) -> anyhow::Result<ExitCode> {
        let code = self.tests(options, &["verify"])?;
        if code == ExitCode::SUCCESS {
            let evidence = self.folder.join("out/evidence.json");
            ensure!(evidence.is_file(), "`{}` was not written", evidence.display());
            println!("evidence: {}\n[verify] ok", evidence.display());
        } else {
            let logs = self.folder.join("logs/latest");
            println!(
                "logs: {}\n[verify] failed in the stage after the last one above",
                logs.display()
            );
        }
        Ok(code)
    }

    fn command(
        &self,
        options: &Options,
        command: &[&str],
        terminal: Option<Terminal>,
    ) -> anyhow::Result<ExitCode> {
        match self.start(options, command, terminal)?.how {
            How::Exited(code) => Ok(code.into()),
            How::Broken(fault) => bail!("{fault}"),
            How::OutOfTime(seconds) => bail!("the lab did not end within {seconds} s"),
        }
    }

    fn start(
        &self,
        options: &Options,
        command: &[&str],
        terminal: Option<Terminal>,
    ) -> anyhow::Result<machine::Ended> {
        let image = image::ready(self)?;
        let fixture = fixture::ready(self)?;
        let programs = payload::programs(&self.root, options.build)?;
        let cache = cache::ready(self, options.build)?;
        let run = machine::RunFolder::new(&self.folder)?;
        let load = payload::Load {
            programs: &programs,
            fixture: &fixture,
            more: &options.more,
            command,
            terminal: terminal.as_ref(),
        };
        let payload = payload::disk(self, &run, &load)?;
        let timeout = options.timeout;
        machine::run(&run, &Job { image, payload, cache, timeout, terminal })
    }
}

/// Runs a program that must succeed; its output is shown only on failure.
fn must(command: &mut Command, hint: &str) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run `{name}`: {hint}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "`{name}` failed: {hint}\n{told}{said}");
    Ok(())
}

/// SHA-256 of a file, in hexadecimal digits.
fn sha256(path: &Path) -> anyhow::Result<String> {
    let output = Command::new("sha256sum").arg(path).output().context("cannot run `sha256sum`")?;
    ensure!(output.status.success(), "cannot read {}", path.display());
    let text = String::from_utf8_lossy(&output.stdout);
    // `sha256sum` writes a backslash before the digits if the name has special characters.
    let digits = text.trim_start_matches('\\').split_whitespace().next().unwrap_or_default();
    Ok(digits.to_owned())
}

/// Hash, 16 hexadecimal digits, of the output of a shell command run in a folder.
fn digest(script: &str, folder: &Path) -> anyhow::Result<String> {
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("set -o pipefail; ({script}) | sha256sum")]).current_dir(folder);
    let output = shell.output().context("cannot run bash")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cannot look through {}: {said}", folder.display());
    Ok(String::from_utf8_lossy(&output.stdout).chars().take(16).collect())
}

/// Locks the lab's folder while files shared between runs are built.
fn lock(folder: &Path) -> anyhow::Result<fs::File> {
    let path = folder.join("lock");
    let lock = fs::File::create(&path).with_context(|| format!("{}", path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(lock)
}

/// Removes a file or folder, if it exists.
fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = if path.is_dir() && !path.is_symlink() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_end_where_the_command_begins() {
        let words = ["--timeout-min", "5", "--", "ls", "--no-build"];
        let found = options(&words).unwrap();
        assert_eq!(found.timeout, Duration::from_secs(300));
        assert_eq!((found.build, found.rest), (Build::First, vec!["ls", "--no-build"]));
        let found = options(&["--no-build", "jail", "dm"]).unwrap();
        assert_eq!((found.build, found.rest), (Build::AsTheyAre, vec!["jail", "dm"]));
        assert!(options(&["--timeout-min"]).is_err());
        assert!(options(&["--timeout-min", "0"]).is_err());
        assert!(options(&["--other"]).is_err());
    }
}
