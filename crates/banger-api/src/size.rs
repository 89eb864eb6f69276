//! Sizes in human notation: `512M`, `2G`, `2GiB`. Units are powers of 1024.

/// Bytes in a mebibyte.
pub const MIB: u64 = 1024 * 1024;
/// Bytes in a gibibyte.
pub const GIB: u64 = 1024 * MIB;

/// Reason why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSize {
    /// Not a number with a unit.
    #[error("`{0}` is not a size: write a number and a unit, such as 512M or 2G")]
    Malformed(String),
    /// Zero.
    #[error("`{0}` is not a size: it must be more than zero")]
    Zero(String),
    /// More than 2^64 bytes.
    #[error("`{0}` is not a size: it is too large")]
    TooLarge(String),
}

/// Parses a size; returns bytes.
///
/// # Errors
/// A text without unit, with a sign or fraction, zero, or too large for 64 bits.
pub fn parse_size(text: &str) -> Result<u64, BadSize> {
    let shown = || text.chars().take(40).collect::<String>();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(BadSize::Malformed(shown())),
    };
    if number.is_empty() {
        return Err(BadSize::Malformed(shown()));
    }
    let number: u64 = number.parse().map_err(|_| BadSize::TooLarge(shown()))?;
    if number == 0 {
        return Err(BadSize::Zero(shown()));
    }
    number.checked_mul(1 << shift).ok_or_else(|| BadSize::TooLarge(shown()))
}

/// Formats a size: `8 GiB`, `1.5 MiB`, `0 B`.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut whole = bytes as f64;
    while whole >= 1024.0 && unit + 1 < UNITS.len() {
        whole /= 1024.0;
        unit += 1;
    }
    if unit == 0 || whole.fract() < 0.05 || whole >= 100.0 {
        format!("{whole:.0} {}", UNITS[unit])
    } else {
        format!("{whole:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed() {
        assert_eq!(parse_size("512M"), Ok(512 * MIB));
        assert_eq!(parse_size("2G"), Ok(2 * GIB));
        assert_eq!(parse_size("2GiB"), Ok(2 * GIB));
        assert_eq!(parse_size("1t"), Ok(1024 * GIB));
        assert_eq!(parse_size("64k"), Ok(65536));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "G", "12", "-1G", "+1G", "1.5G", "1 G", "2GB", "0x1G", "1Gi", "٣G"] {
            assert!(matches!(parse_size(text), Err(BadSize::Malformed(_))), "{text}");
        }
        assert!(matches!(parse_size("0G"), Err(BadSize::Zero(_))));
        for text in ["99999999999999999999G", "18014398509481984K", "16777216T"] {
            assert!(matches!(parse_size(text), Err(BadSize::TooLarge(_))), "{text}");
        }
    }

    #[test]
    fn sizes_are_formatted() {
        assert_eq!(human_size(0), "0 B");
        assert_eq!(human_size(1536 * 1024), "1.5 MiB");
        assert_eq!(human_size(8 * GIB), "8 GiB");
        assert_eq!(human_size(130 * MIB + 700_000), "131 MiB");
    }
}
