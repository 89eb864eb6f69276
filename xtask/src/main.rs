//! Tasks of the project that are more than a shell line: `cargo xtask <task>`.

mod agent;
mod bench;
mod host_cost;
mod lab;
mod threat_model;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

const USAGE: &str = "usage: cargo xtask <task>
  tidy                 check borders, style and documents
  agent                build the static guest agent and put it beside the other programs
  bench [--json] [--pairs N]
                       create-to-ready against the same VM started by hand, and our own cost
  lab …                a Firecracker host inside QEMU: `cargo xtask lab` tells more";

fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = root()?;
    match words.as_slice() {
        ["tidy"] => tidy::run(&root)?,
        ["agent"] => drop(agent::run(&root)?),
        ["bench", options @ ..] => bench::run(&root, options)?,
        ["lab", words @ ..] => return lab::run(&root, words),
        _ => bail!("{USAGE}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The project's folder.
fn root() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(Path::to_owned).context("xtask is not inside the project")
}
