//! Create-to-ready with the kernel `fast` beside Debian's packaged kernel, in alternating pairs.
//!
//! The first run builds `fast`, which takes some minutes.

use serde_json::{Value, json};

use crate::bench::{Bench, median, rounded};

/// Name of the measured VM.
const VM: &str = "kernels";
/// The kernels, the packaged one first.
const KERNELS: [&str; 2] = ["debian-cloud", "fast"];

/// Medians in milliseconds, and the median of the ratios of pairs.
///
/// # Errors
/// A command of banger fails.
pub fn measure(bench: &Bench, pairs: usize) -> anyhow::Result<Value> {
    std::fs::create_dir_all(&bench.home)?;
    let _ = bench.banger(&bench.home, &["vm", "delete", "-f", VM]);
    bench.banger(&bench.home, &["kernel", "build", "fast"])?;
    let create = |kernel: &str| -> anyhow::Result<f64> {
        let args = ["vm", "create", "-q", "--name", VM, "--vcpus", "1", "--kernel", kernel];
        let took = bench.timed(&bench.home, &args)?;
        bench.banger(&bench.home, &["vm", "delete", "-f", VM])?;
        Ok(took)
    };
    // Fetches the kernel and the image, and fills the caches.
    for kernel in KERNELS {
        create(kernel)?;
    }
    let (mut packaged, mut fast, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..pairs {
        // Which one begins alternates, so that what one leaves in caches favours neither.
        let [first, second] = if pair % 2 == 0 { [0, 1] } else { [1, 0] };
        let mut took = [0.0; 2];
        for which in [first, second] {
            took[which] = create(KERNELS[which])?;
        }
        eprintln!("pair {:2}: packaged {:.0} ms, fast {:.0} ms", pair + 1, took[0], took[1]);
        packaged.push(took[0]);
        fast.push(took[1]);
        ratios.push(took[1] / took[0]);
    }
    Ok(json!({"kernels": {
        "packaged_ms": rounded(median(&packaged), 1),
        "fast_ms": rounded(median(&fast), 1),
        "ratio": rounded(median(&ratios), 3),
        "n": pairs,
    }}))
}
