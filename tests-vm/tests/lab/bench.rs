//! Create-to-ready against Firecracker started by hand with the same kernel, initramfs and drive,
//! and a network device.

use std::time::Instant;

use crate::support::{finish, host, out, shell, whole};

/// Pairs, alternating.
const PAIRS: usize = 15;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn bench_create_to_ready_against_firecracker_by_hand() {
    let before = host();
    let home = whole("");
    // Fills every cache.
    home.ok(&["vm", "create", "--name", "warm"]);
    home.ok(&["vm", "delete", "-f", "warm"]);
    let ours = || {
        let began = Instant::now();
        home.ok(&["vm", "create", "-q", "--name", "bench"]);
        let took = began.elapsed().as_secs_f64() * 1000.0;
        home.ok(&["vm", "delete", "-f", "bench"]);
        took
    };
    let by_hand = crate::smoke::floor_command();
    let floor = || -> f64 { shell(&by_hand).parse().unwrap() };
    let (mut mine, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let (a, b) = if pair % 2 == 0 {
            let a = ours();
            (a, floor())
        } else {
            let b = floor();
            (ours(), b)
        };
        println!("pair {}: ours {a:.0} ms, floor {b:.0} ms", pair + 1);
        mine.push(a);
        theirs.push(b);
        ratios.push(a / b);
    }
    let figures = serde_json::json!({
        "create_ready": {"ratio": median(ratios), "n": PAIRS, "ours_ms": median(mine),
                         "floor_ms": median(theirs)},
    });
    println!("bench: {figures}");
    std::fs::write(out("bench.json"), format!("{figures:#}\n")).unwrap();
    crate::smoke::remove_tap();
    finish(home, &before);
}
