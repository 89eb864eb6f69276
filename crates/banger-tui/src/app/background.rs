//! Whether the terminal's background is dark or light.

use crate::theme::Background;

/// The background as the terminal reports it in `COLORFGBG`: `foreground;background`, numbers of
/// the palette.
pub fn guess() -> Background {
    parse(&std::env::var("COLORFGBG").unwrap_or_default())
}

fn parse(value: &str) -> Background {
    match value.rsplit(';').next().map(str::parse::<u8>) {
        Some(Ok(0..=6 | 8)) => Background::Dark,
        Some(Ok(7 | 9..=15)) => Background::Light,
        _ => Background::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_the_background() {
        for (value, background) in [
            ("15;0", Background::Dark),
            ("0;default;15", Background::Light),
            ("12;8", Background::Dark),
            ("", Background::Unknown),
            ("0;default", Background::Unknown),
        ] {
            assert_eq!(parse(value), background, "{value}");
        }
    }
}
