//! The faces with 1,000 VMs, on the simulated host: real programs, a real terminal and browser, no
//! guests.
//!
//! - `tui_frame_ms`: the work for a frame of the terminal interface, by the example `frame_time`;
//! - `tui_start_ms`: from `banger tui` to its first frame, and to the first one with the VMs;
//! - `page_paint_ms`: the first paint of the list in headless Chromium, and its complete load;
//! - `page_terminal`: output of a guest through the terminal of the page, and the longest time
//!   without a frame meanwhile;
//! - `changes`: VMs that change some hundred times a second, with a reader of the event stream, the
//!   terminal interface and the page: the delay of an event, and the time after which each of them
//!   shows a new VM, at the beginning and at the end of it.

mod load;
mod page;
mod pty;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::bench::{Bench, median, rounded};
use crate::bench_simulated::{create, with_home};
use page::Page;
use pty::Screen;

/// VMs in the lists.
const VMS: usize = 1000;
/// Time that VMs change before the first and the last new VM.
const CHANGING: Duration = Duration::from_secs(5);
/// Longest wait for anything to be shown.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// VMs that are made while others change. No letter of the second is at the place of one of the
/// first: the terminal interface sends changed cells only.
const NEW: [&str; 2] = ["aardvark", "0quilt"];

/// All figures; removes what it made.
///
/// # Errors
/// A program fails or is missing.
pub fn measure(bench: &Bench, runs: usize) -> anyhow::Result<Value> {
    with_home(bench, "faces", |bench, home| {
        create(bench, home, 0..VMS)?;
        let frames = frames(bench)?;
        let start = tui_start(bench, home, runs)?;
        let mut page = Page::open(bench, home)?;
        let paint = page.ask(&format!("paint {runs}"))?;
        let terminal = page.ask("terminal")?;
        let changes = changes(bench, home, &mut page)?;
        Ok(json!({
            "vms": VMS,
            "tui_frame_ms": frames,
            "tui_start_ms": start,
            "page_paint_ms": paint,
            "page_terminal": terminal,
            "changes": changes,
        }))
    })
}

/// The example's own figures.
fn frames(bench: &Bench) -> anyhow::Result<Value> {
    let program = bench.programs.join("examples/frame_time");
    let example = "cargo build --release -p banger-tui --example frame_time";
    ensure!(program.exists(), "build first: `make build` and `{example}`");
    let output = Command::new(program).arg("--json").output().context("cannot run frame_time")?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn tui_start(bench: &Bench, home: &Path, runs: usize) -> anyhow::Result<Value> {
    let (mut first, mut listed) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let began = Instant::now();
        let screen = Screen::tui(bench, home, (200, 50))?;
        let ms = |at: Instant| at.duration_since(began).as_secs_f64() * 1000.0;
        first.push(ms(screen.wait("banger")?));
        listed.push(ms(screen.wait("vm-0")?));
    }
    Ok(json!({
        "first_frame": rounded(median(&first), 1),
        "with_vms": rounded(median(&listed), 1),
    }))
}

fn changes(bench: &Bench, home: &Path, page: &mut Page) -> anyhow::Result<Value> {
    page.ask(&format!("follow {}", NEW.join(" ")))?;
    let screen = Screen::tui(bench, home, (200, 50))?;
    screen.wait("vm-0")?;
    let socket = home.join("run/bangerd.sock");
    let load = load::begin(&socket, VMS)?;
    let mut made = Vec::new();
    let mut on_screen = Vec::new();
    for name in NEW {
        std::thread::sleep(CHANGING);
        load::create(&socket, name)?;
        let (instant, time) = (Instant::now(), unix_ms());
        on_screen.push(screen.wait(name)?.duration_since(instant).as_secs_f64() * 1000.0);
        made.push(time);
    }
    let load = load.end()?;
    let followed = page.ask("followed")?;
    let on_page = NEW.iter().zip(&made).map(|(name, made)| {
        let seen = followed["seen"][name].as_f64().context("the page did not show a new VM")?;
        Ok(rounded((seen - made).max(0.0), 1))
    });
    let on_page = on_page.collect::<anyhow::Result<Vec<f64>>>()?;
    let on_screen: Vec<f64> = on_screen.into_iter().map(|ms| rounded(ms, 1)).collect();
    Ok(json!({
        "each_second": rounded(load.each_second, 0),
        "operations_each_second": rounded(load.operations_each_second, 0),
        "missed": load.missed,
        "event_delay_ms": {"begin": rounded(load.delays.0, 1), "end": rounded(load.delays.1, 1)},
        "tui_delay_ms": {"begin": on_screen[0], "end": on_screen[1]},
        "page_delay_ms": {"begin": on_page[0], "end": on_page[1]},
        "page_longest_frame_ms": followed["longest_frame_ms"],
    }))
}

/// Present time in milliseconds since 1970.
pub fn unix_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0
}

/// Packages of npm that drive Chromium, as `scripts/setup.sh test` keeps them.
fn web_tests(root: &Path) -> anyhow::Result<std::path::PathBuf> {
    let lock = root.join("scripts/web-tests/package-lock.json");
    let sum = Command::new("sha256sum").arg(lock).output().context("cannot run sha256sum")?;
    let sum = String::from_utf8_lossy(&sum.stdout).chars().take(16).collect::<String>();
    let folder = root.join(".cache/tools").join(format!("web-tests-{sum}"));
    ensure!(fs::exists(&folder)?, "{} is missing: `scripts/setup.sh test`", folder.display());
    Ok(folder)
}
