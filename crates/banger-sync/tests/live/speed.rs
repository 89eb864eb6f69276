//! Figures: `cargo nextest run -p banger-sync --run-ignored only speed --no-capture`.

use std::fs;
use std::time::{Duration, Instant};

use crate::world::{World, content};

/// A `node_modules`: 5,000 folders of ten small files.
#[test]
#[ignore = "prints times, asserts none: nextest run -p banger-sync --run-ignored only"]
fn fifty_thousand_files_and_single_changes() {
    let world = World::new();
    for folder in 0..5000 {
        let path = world.host.path().join(format!("m{}/p{folder}/lib", folder % 500));
        fs::create_dir_all(&path).unwrap();
        for file in 0..10 {
            fs::write(path.join(format!("f{file}.js")), format!("{folder} {file}\n").repeat(60))
                .unwrap();
        }
    }
    let begin = Instant::now();
    let live = world.start();
    live.until("the first copy", || live.status().rounds > 0);
    println!("first copy: {:?}, {} nodes", begin.elapsed(), live.status().files);
    let begin = Instant::now();
    let rsync = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("rsync")
        .arg("-a")
        .arg(format!("{}/", world.host.path().display()))
        .arg(rsync.path())
        .status();
    println!("rsync -a: {:?} {copied:?}", begin.elapsed());
    // The session reads once more what it wrote.
    let mut last = live.status().rounds;
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(100));
        if live.status().rounds != last {
            (last, since) = (live.status().rounds, Instant::now());
        }
    }
    for (from, to) in [(&world.host, &world.guest), (&world.guest, &world.host)] {
        let mut times = Vec::new();
        for round in 0..40 {
            let text = format!("saved {round}");
            let begin = Instant::now();
            fs::write(from.path().join("m1/p1/lib/f1.js"), &text).unwrap();
            live.until("the change", || content(to, "m1/p1/lib/f1.js").as_ref() == Some(&text));
            times.push(begin.elapsed());
            std::thread::sleep(Duration::from_millis(50));
        }
        times.sort();
        println!("one file: median {:?}, p95 {:?}", times[20], times[37]);
    }
    let begin = Instant::now();
    live.stop();
    let live = world.start();
    live.until("the second session", || live.status().rounds > 0);
    println!("next session: {:?}", begin.elapsed());
    live.stop();
}
