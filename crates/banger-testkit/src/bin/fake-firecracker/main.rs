//! A fake of Firecracker and its jailer for hosts without KVM: the host does all its work for a VM,
//! and the guest is [`banger_testkit::guest`].
//!
//! With `--exec-file` among its arguments it is the jailer, otherwise Firecracker. The last part of
//! its file name selects its behavior: a Firecracker that is `broken` ends at once, one that
//! `collapses` ends while it is configured, a jailer that `refuses` fails; the others are those of
//! the guest.

mod jailer;
mod vmm;

use std::process::ExitCode;

use banger_testkit::guest;

/// The arguments of a command line.
pub struct Args(Vec<String>);

impl Args {
    /// All values of an option, before a `--`.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let end = self.0.iter().position(|arg| arg == "--").unwrap_or(self.0.len());
        let words = self.0.get(..end).unwrap_or_default();
        words.windows(2).filter(move |pair| pair[0] == name).map(|pair| pair[1].as_str())
    }

    /// The value of a required option.
    pub fn value(&self, name: &str) -> std::io::Result<&str> {
        let missing = || std::io::Error::other(format!("Argument '{name}' required"));
        self.all(name).next().ok_or_else(missing)
    }

    /// The arguments after a `--`.
    pub fn extra(&self) -> &[String] {
        let end = self.0.iter().position(|arg| arg == "--").unwrap_or(self.0.len());
        self.0.get(end + 1..).unwrap_or_default()
    }
}

fn main() -> ExitCode {
    let args = Args(std::env::args().collect());
    let behavior = guest::behavior(args.0.first().map(String::as_str).unwrap_or_default());
    let result = if args.0.iter().any(|arg| arg == "--version") {
        println!("Firecracker v1.12.1\n");
        Ok(())
    } else if args.value("--exec-file").is_ok() {
        jailer::run(&args, &behavior)
    } else {
        vmm::run(&args, &behavior)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fake-firecracker: {error}");
            ExitCode::FAILURE
        }
    }
}
