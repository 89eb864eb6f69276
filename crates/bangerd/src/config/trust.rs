//! `[trust]`: catalogs, keys and rules for images of registries.

use std::ffi::OsString;

use banger_api::hint::SetupAdvice;
use banger_api::{ApiError, ErrorCode, excerpt};
use banger_image::trust::{Requirement, Rule, TrustSettings};

use super::file::Trust;
use super::values::PathList;
use super::{Origin, Resolver, Setting};

/// Combines the table with the environment.
///
/// # Errors
/// An invalid variable; a rule that nothing could fulfil.
pub fn settings<E: Fn(&str) -> Option<OsString>>(
    meet: &mut Resolver<E>,
    file: Trust,
) -> Result<TrustSettings, ApiError> {
    let catalogs = meet.optional("trust.catalogs", file.catalogs)?;
    let keys = meet.optional("trust.keys", file.keys)?;
    let rules = file.registries.into_iter().map(|rule| Rule {
        name: rule.name,
        signature: rule.signature.requirement(),
        keys: rule.keys.into_iter().map(|path| path.0).collect(),
    });
    let registries: Vec<Rule> = rules.collect();
    let without_keys = |rule: &&Rule| {
        rule.name.is_empty() || (rule.signature == Requirement::Required && rule.keys.is_empty())
    };
    if let Some(bad) = registries.iter().find(without_keys) {
        let name = excerpt(&bad.name);
        let text = format!("`trust.registries`: the rule for `{name}` needs a name and keys");
        return Err(
            ApiError::new(ErrorCode::BadRequest, text).with_hint(SetupAdvice::CorrectConfig)
        );
    }
    let shown = |rule: &Rule| match rule.signature {
        Requirement::Required => format!("{} required", rule.name),
        Requirement::Off => format!("{} off", rule.name),
    };
    let value = registries.iter().map(shown).collect::<Vec<_>>().join(", ");
    let (value, origin) = match registries.is_empty() {
        true => (None, Origin::Default),
        false => (Some(value), Origin::File),
    };
    meet.settings.push(Setting { key: "trust.registries", value, origin });
    let paths = |list: Option<PathList>| list.map_or_else(Vec::new, PathList::paths);
    Ok(TrustSettings { catalogs: paths(catalogs), keys: paths(keys), registries })
}
