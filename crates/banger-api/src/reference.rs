//! Resolves a reference to a VM: its name, its id, or a unique prefix of its id. Without a match,
//! the error suggests similar names.

use crate::VmId;
use crate::error::{ApiError, ErrorCode};
use crate::hint::{Hint, Kind};
use crate::names::VmName;

/// A VM to resolve against.
pub type Listed<'a> = (&'a VmId, &'a VmName);

/// Maximum number of suggested names.
const MAX_SIMILAR: usize = 3;
/// Maximum length of a name that is compared, in bytes; VM, image and kernel names are not longer.
const MAX_COMPARED: usize = 255;

/// The hint of an error about a name that does not exist: similar names, otherwise the list of all.
///
/// Similar means that at most a third of the letters differ (optimal string alignment distance:
/// one letter inserted, removed, replaced, or two adjacent ones swapped). Upper and lower case are
/// equal.
pub fn suggest<'a>(what: Kind, names: impl IntoIterator<Item = &'a str>, reference: &str) -> Hint {
    if reference.len() > MAX_COMPARED {
        return Hint::List { what };
    }
    let wanted = reference.to_lowercase();
    let limit = wanted.chars().count().div_ceil(3).min(3);
    let mut similar: Vec<(usize, &str)> = names
        .into_iter()
        .filter(|name| name.len().abs_diff(wanted.len()) <= limit)
        .map(|name| (strsim::osa_distance(&wanted, name), name))
        .filter(|(distance, name)| *distance <= limit && 2 * distance <= name.len())
        .collect();
    similar.sort_unstable();
    similar.dedup();
    similar.truncate(MAX_SIMILAR);
    if similar.is_empty() {
        return Hint::List { what };
    }
    Hint::SimilarNames { names: similar.into_iter().map(|(_, name)| name.to_owned()).collect() }
}

/// Resolves `reference`. A name takes precedence over an id prefix.
///
/// # Errors
/// [`ErrorCode::NotFound`], or [`ErrorCode::Ambiguous`] naming the candidates.
pub fn resolve<'a>(
    listing: impl IntoIterator<Item = Listed<'a>>,
    reference: &str,
) -> Result<VmId, ApiError> {
    let mut candidates: Vec<Listed<'a>> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for (id, name) in listing {
        names.push(name.as_str());
        if name.as_str() == reference || id.as_str() == reference {
            return Ok(id.clone());
        }
        if !reference.is_empty() && id.as_str().starts_with(reference) {
            candidates.push((id, name));
        }
    }
    let shown = crate::excerpt(reference);
    match candidates.as_slice() {
        [] => Err(ApiError::new(ErrorCode::NotFound, format!("there is no VM `{shown}`"))
            .with_hint(suggest(Kind::Vm, names, reference))),
        [(id, _)] => Ok((*id).clone()),
        several => {
            let mut names: Vec<String> =
                several.iter().map(|(id, name)| format!("{name} ({id})")).collect();
            names.sort();
            Err(ApiError::new(
                ErrorCode::Ambiguous,
                format!("`{shown}` matches {}", names.join(", ")),
            )
            .with_hint(Hint::NarrowReference))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_ids_and_prefixes() {
        let list: Vec<(VmId, VmName)> =
            [("aaaa00000001", "web"), ("aaab00000002", "aaaa"), ("b00000000003", "db")]
                .map(|(id, name)| (id.parse().unwrap(), name.parse().unwrap()))
                .into();
        let find = |reference: &str| resolve(list.iter().map(|(id, name)| (id, name)), reference);
        assert_eq!(find("web").unwrap().as_str(), "aaaa00000001");
        assert_eq!(find("b0").unwrap().as_str(), "b00000000003");
        assert_eq!(find("aaaa").unwrap().as_str(), "aaab00000002", "a name wins over a prefix");
        let ambiguous = find("aaa").unwrap_err();
        assert_eq!(ambiguous.code, ErrorCode::Ambiguous);
        assert_eq!(ambiguous.message, "`aaa` matches aaaa (aaab00000002), web (aaaa00000001)");
        assert_eq!(find("").unwrap_err().code, ErrorCode::NotFound);
        assert_eq!(find("zzz").unwrap_err().message, "there is no VM `zzz`");
        assert_eq!(find("zzz").unwrap_err().hints, [Hint::List { what: Kind::Vm }]);
        let similar = Hint::SimilarNames { names: vec!["web".into()] };
        assert_eq!(find("wbe").unwrap_err().hints, [similar]);
    }

    #[test]
    fn similar_names_are_suggested_the_nearest_first() {
        let names = ["web", "web-1", "debian", "debian-12", "a"];
        let suggested = |reference: &str| match suggest(Kind::Image, names, reference) {
            Hint::SimilarNames { names } => names,
            Hint::List { what: Kind::Image } => Vec::new(),
            other => panic!("{other:?}"),
        };
        for (reference, expected) in [
            ("wbe", &["web"][..]),
            ("WEB", &["web"]),
            ("wep", &["web"]),
            ("eb", &["web"]),
            ("web1", &["web", "web-1"]),
            ("debain", &["debian"]),
            ("debian12", &["debian-12", "debian"]),
            ("b", &[]),
            ("", &[]),
            ("postgres", &[]),
            ("\u{e9}\u{e9}\u{e9}", &[]),
            (&"w".repeat(100_000), &[]),
        ] {
            let shown: String = reference.chars().take(20).collect();
            assert_eq!(suggested(reference), expected, "{shown}");
        }
        let many: Vec<String> = (0..9).map(|n| format!("web-{n}")).collect();
        let hint = suggest(Kind::Vm, many.iter().map(String::as_str), "web-x");
        let expected = ["web-0", "web-1", "web-2"].map(String::from).into();
        assert_eq!(hint, Hint::SimilarNames { names: expected });
    }
}
