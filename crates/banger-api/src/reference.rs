//! Resolves a reference to a VM: its name, its id, or a unique prefix of its id.

use crate::VmId;
use crate::error::{ApiError, ErrorCode};
use crate::hint::{Hint, Kind};
use crate::names::VmName;

/// A VM to resolve against.
pub type Listed<'a> = (&'a VmId, &'a VmName);

/// Resolves `reference`. A name takes precedence over an id prefix.
///
/// # Errors
/// [`ErrorCode::NotFound`], or [`ErrorCode::Ambiguous`] naming the candidates.
pub fn resolve<'a>(
    listing: impl IntoIterator<Item = Listed<'a>>,
    reference: &str,
) -> Result<VmId, ApiError> {
    let mut candidates: Vec<Listed<'a>> = Vec::new();
    for (id, name) in listing {
        if name.as_str() == reference || id.as_str() == reference {
            return Ok(id.clone());
        }
        if !reference.is_empty() && id.as_str().starts_with(reference) {
            candidates.push((id, name));
        }
    }
    let shown: String = reference.chars().take(80).flat_map(char::escape_debug).collect();
    match candidates.as_slice() {
        [] => Err(ApiError::new(ErrorCode::NotFound, format!("there is no VM `{shown}`"))
            .with_hint(Hint::List { what: Kind::Vm })),
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
    }
}
