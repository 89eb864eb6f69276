//! The frequency of the host's time stamp counter, measured once a boot of the host and kept.

use std::fs;
use std::path::Path;

use crate::probe;

/// kHz of the time stamp counter; `None` where the CPU has none.
///
/// Measuring takes 50 ms, so the result is kept in the cache folder beside the boot id it is good
/// for.
pub fn frequency_khz(cache: &Path) -> Option<u64> {
    let file = cache.join("tsc-khz");
    let boot_id = probe::boot_id();
    if let Some(khz) = fs::read_to_string(&file).ok().and_then(|text| parse(&text, &boot_id)) {
        return Some(khz);
    }
    let khz = banger_sys::tsc::frequency_khz()?;
    // Without the cache the next daemon measures again, which is all there is to lose.
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
