//! The frequency of the host's time stamp counter, measured once per boot of the host and cached.

use std::fs;
use std::path::Path;

use crate::probe;

/// Frequency in kHz; `None` if the CPU has no such counter.
///
/// A measurement takes 50 ms, so the result is cached with the boot id for which it is valid.
pub fn frequency_khz(cache: &Path) -> Option<u64> {
    let file = cache.join("tsc-khz");
    let boot_id = probe::boot_id();
    if let Some(khz) = fs::read_to_string(&file).ok().and_then(|text| parse(&text, &boot_id)) {
        return Some(khz);
    }
    let khz = banger_sys::tsc::frequency_khz()?;
    // Ignored: without the cache the next daemon measures again.
    if let Err(error) = fs::write(&file, format!("{boot_id} {khz}\n")) {
        tracing::warn!(path = %file.display(), %error, "cannot keep a measurement");
    }
    Some(khz)
}

fn parse(text: &str, boot_id: &str) -> Option<u64> {
    let (boot, khz) = text.trim().split_once(' ')?;
    let khz: u64 = khz.parse().ok()?;
    (boot == boot_id && (100_000..100_000_000).contains(&khz)).then_some(khz)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_of_another_boot_or_out_of_reason_is_not_used() {
        assert_eq!(parse("abc 2500000\n", "abc"), Some(2_500_000));
        assert_eq!(parse("abc 2500000\n", "def"), None);
        assert_eq!(parse("abc 3\n", "abc"), None);
        assert_eq!(parse("", "abc"), None);
    }
}
