//! The frequency of the CPU's time stamp counter.

/// Frequency in kHz, measured over 50 ms against CLOCK_MONOTONIC_RAW (clock_gettime(2)); `None` on
/// CPUs without the counter.
#[cfg(target_arch = "x86_64")]
pub fn frequency_khz() -> Option<u64> {
    use rustix::time::{ClockId, clock_gettime};
    let now = || {
        let time = clock_gettime(ClockId::MonotonicRaw);
        let nanos = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
        (nanos, counter())
    };
    let (begin, first) = now();
    std::thread::sleep(std::time::Duration::from_millis(50));
    let (end, last) = now();
    let ticks = i128::from(last.checked_sub(first)?);
    let khz = ticks * 1_000_000 / (end - begin).max(1);
    u64::try_from(khz).ok().filter(|khz| *khz > 0)
}

/// This architecture has no time stamp counter.
#[cfg(not(target_arch = "x86_64"))]
pub fn frequency_khz() -> Option<u64> {
    None
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "reading the counter is an intrinsic")]
fn counter() -> u64 {
    // SAFETY: RDTSC has no memory operands, and user programs may execute it (the kernel sets
    // CR4.TSD only for processes that requested it with prctl).
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    #[test]
    fn two_measurements_agree() {
        let (one, two) = (super::frequency_khz().unwrap(), super::frequency_khz().unwrap());
        assert!(one.abs_diff(two) * 50 < one, "{one} and {two} kHz");
    }
}
