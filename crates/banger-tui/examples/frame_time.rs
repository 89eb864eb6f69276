//! Measures the work with 1,000 VMs: for a frame after a key, for a sample of all VMs, and for a
//! change of one of them.
//!
//! `cargo run --release -p banger-tui --example frame_time [-- --json]`

#![expect(clippy::unwrap_used, reason = "a measurement ends at its first error")]

#[path = "../tests/fixtures/mod.rs"]
#[expect(dead_code, reason = "the frames of the tests need more of it")]
mod fixtures;

use std::time::{Duration, Instant};

use banger_tui::Background;
use banger_tui::theme::Theme;
use banger_tui::update::Data;
use banger_tui::view;
use crossterm::event::KeyCode;
use fixtures::{connected, data, id, keys, of, sample, vm};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use serde_json::json;

const VMS: usize = 1_000;
const FRAMES: u64 = 200;

fn main() {
    let as_json = std::env::args().nth(1).is_some_and(|argument| argument == "--json");
    if !as_json {
        println!("{VMS} VMs, {FRAMES} frames: median and longest in ms");
    }
    let mut figures = serde_json::Map::new();
    for size in [(80, 24), (200, 50), (300, 80)] {
        let (columns, rows) = size;
        let (frames, samples, changes) = measure(size);
        if as_json {
            let of = |(median, longest)| json!({ "median": median, "longest": longest });
            let figure = json!({ "frame": of(frames), "samples": of(samples),
                "change": of(changes) });
            figures.insert(format!("{columns}x{rows}"), figure);
        } else {
            println!("{columns}×{rows}: frame {frames:?}, samples {samples:?}, change {changes:?}");
        }
    }
    if as_json {
        println!("{}", serde_json::Value::Object(figures));
    }
}

/// Median and longest of a frame with a key, of the samples of all VMs, and of a change of one of
/// them.
fn measure(size: (u16, u16)) -> ((f64, f64), (f64, f64), (f64, f64)) {
    let mut model = connected(size, Theme::colours(Background::Dark));
    let list: Vec<_> =
        (0..VMS).map(|n| vm(n, &format!("vm-{n:04}"), "running", json!({}))).collect();
    data(&mut model, Data::Vms(of(json!(list))));
    // By CPU: each sample sorts the list again.
    keys(&mut model, &[KeyCode::Char('o'), KeyCode::Char('o')]);
    let backend = CrosstermBackend::new(Vec::new());
    let area = ratatui::layout::Rect::new(0, 0, size.0, size.1);
    let viewport = ratatui::Viewport::Fixed(area);
    let options = ratatui::TerminalOptions { viewport };
    let mut terminal = Terminal::with_options(backend, options).unwrap();
    let (mut samples, mut frames, mut changes) = (Vec::new(), Vec::new(), Vec::new());
    for frame in 1..=FRAMES {
        let busy = |n: usize| frame * 900_000 + (n as u64 * 7_919 * frame) % 1_000_000;
        let all: Vec<_> =
            (0..VMS).map(|n| sample(n, &format!("vm-{n:04}"), frame, busy(n))).collect();
        let all = Data::Stats(of(json!(all)));
        let start = Instant::now();
        data(&mut model, all);
        samples.push(start.elapsed());
        let change = json!({ "event": "changed", "vm": { "id": id(frame as usize),
            "name": format!("vm-{frame:04}"), "state": "paused", "generation": frame } });
        let change = Data::Event(of(change));
        let start = Instant::now();
        data(&mut model, change);
        changes.push(start.elapsed());
        let start = Instant::now();
        keys(&mut model, &[KeyCode::Down]);
        terminal.draw(|frame| drop(view::draw(&model, frame))).unwrap();
        frames.push(start.elapsed());
    }
    (summary(frames), summary(samples), summary(changes))
}

/// Median and longest in milliseconds.
fn summary(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort_unstable();
    let at = |n: usize| {
        let ms = times.get(n).copied().unwrap_or_default().as_secs_f64() * 1000.0;
        (ms * 1000.0).round() / 1000.0
    };
    (at(times.len() / 2), at(times.len().saturating_sub(1)))
}
