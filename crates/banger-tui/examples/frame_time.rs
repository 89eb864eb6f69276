//! Measures the work for a frame with 1,000 VMs: a sample of all of them, a key, and the drawing.
//!
//! `cargo run --release -p banger-tui --example frame_time`

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
use fixtures::{connected, data, keys, of, sample, vm};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use serde_json::json;

const VMS: usize = 1_000;
const FRAMES: u64 = 200;

fn main() {
    println!("{VMS} VMs, {FRAMES} frames: median and longest in ms");
    for size in [(80, 24), (200, 50), (300, 80)] {
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
        let (mut samples, mut frames) = (Vec::new(), Vec::new());
        for frame in 1..=FRAMES {
            let busy = |n: usize| frame * 900_000 + (n as u64 * 7_919 * frame) % 1_000_000;
            let all: Vec<_> =
                (0..VMS).map(|n| sample(n, &format!("vm-{n:04}"), frame, busy(n))).collect();
            let all = Data::Stats(of(json!(all)));
            let start = Instant::now();
            data(&mut model, all);
            samples.push(start.elapsed());
            let start = Instant::now();
            keys(&mut model, &[KeyCode::Down]);
            terminal.draw(|frame| drop(view::draw(&model, frame))).unwrap();
            frames.push(start.elapsed());
        }
        let ms = |mut times: Vec<Duration>| {
            times.sort_unstable();
            let at = |n: usize| times.get(n).copied().unwrap_or_default().as_secs_f64() * 1000.0;
            format!("{:.2} {:.2}", at(times.len() / 2), at(times.len() - 1))
        };
        let (columns, rows) = size;
        println!("{columns}×{rows}: frame {}, samples {}", ms(frames), ms(samples));
    }
}
