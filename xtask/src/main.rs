//! Tasks of the project that are more than a shell line: `cargo xtask <task>`.

mod agent;
mod bench;
mod bench_create;
mod bench_faces;
mod bench_folders;
mod bench_guest;
mod bench_images;
mod bench_images_set;
mod bench_kernels;
mod bench_repositories;
mod bench_simulated;
mod bench_streams;
mod bench_usage;
mod cargo;
mod fuzz;
mod host_cost;
mod lab;
mod threat_model;
mod tidy;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

const USAGE: &str = "usage: cargo xtask <task>
  tidy                 check borders, style and documents
  agent                build the static guest agent and put it beside the other programs
  bench [--json] [--pairs N] [--simulated | --faces | --kernels | --images [--rootfs TAR] |
        --folders | --repositories [--mib N]]
                       create-to-ready against the same VM started by hand, and our own cost;
                       --simulated: only the command line and the daemon with many VMs;
                       --faces: only the terminal interface and the web page with many VMs;
                       --images: only imports and pulls; --rootfs: also of this archive;
                       --folders: live folders beside rsync; --repositories: import and push
                       of a repository of N MiB beside rsync and git bundle;
                       --kernels: only the kernel `fast` beside the packaged one
  bench-create [--runs N] [--mode sequential|staggered|burst] [--out FILE]
                       create-to-ready and create-to-ssh with p50 and p95 of each stage
  fuzz [--seconds N] [TARGET…]
                       readers of images with inputs that libFuzzer makes, for a minute each
  lab …                a Firecracker host inside QEMU: `cargo xtask lab` tells more";

fn main() -> ExitCode {
    let args = std::env::args_os().skip(1);
    let args: Vec<String> = args.map(|word| word.to_string_lossy().into_owned()).collect();
    run(&args).unwrap_or_else(|error| {
        // Not `Debug`, which shows a backtrace where RUST_BACKTRACE is set.
        let _ = writeln!(std::io::stderr(), "error: {error}");
        for cause in error.chain().skip(1) {
            let _ = writeln!(std::io::stderr(), "  because {cause}");
        }
        ExitCode::FAILURE
    })
}

fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = root()?;
    match words.as_slice() {
        ["tidy"] => tidy::run(&root)?,
        ["agent"] => drop(agent::run(&root)?),
        ["bench", options @ ..] => bench::run(&root, options)?,
        ["bench-create", options @ ..] => bench_create::run(&root, options)?,
        ["fuzz", words @ ..] => return fuzz::run(&root, words),
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
