//! What `banger doctor` shows: the host's checks, what could not be loaded, and where every value
//! of the configuration came from.

use banger_api::doctor::{Check, Verdict};

use crate::api::Api;
use crate::config::{Origin, Setting, Used};

/// All checks. Nothing is changed.
pub async fn checks(api: &Api) -> Vec<Check> {
    let mut checks = api.engine.drivers().host.doctor().await;
    checks.push(api.dns.borrow().check());
    checks.extend(api.engine.unreadable.iter().map(|(id, why)| unreadable(id, why)));
    checks.extend(api.config.settings.iter().map(setting));
    checks
}

fn unreadable(id: &str, why: &str) -> Check {
    Check {
        code: "store.vm".into(),
        verdict: Verdict::Missing,
        seen: format!("the record of VM `{id}` cannot be understood: {why}"),
        hint: Some("use the version of banger that wrote it".into()),
        needed_for: vec!["start".into()],
    }
}

fn setting(setting: &Setting) -> Check {
    let value = match &setting.value {
        Some(value) => format!("`{value}`"),
        None => "not set".into(),
    };
    let origin = match &setting.origin {
        Origin::Default => "by default".into(),
        Origin::File => "from the configuration file".into(),
        Origin::Variable(name) => format!("from the variable `{name}`"),
    };
    let mut check = Check {
        code: format!("config.{}", setting.key),
        verdict: Verdict::Ok,
        seen: format!("{value}, {origin}"),
        hint: None,
        needed_for: vec!["config".into()],
    };
    if setting.used == Used::NotYet && setting.origin != Origin::Default {
        check.verdict = Verdict::Warning;
        check.hint = Some("this version does nothing with it yet".into());
    }
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_says_where_it_came_from() {
        let seen = |value: Option<&str>, origin| {
            let value = value.map(str::to_owned);
            setting(&Setting { key: "vmm", value, origin, used: Used::Yes }).seen
        };
        assert_eq!(seen(Some("qemu"), Origin::File), "`qemu`, from the configuration file");
        assert_eq!(
            seen(Some("qemu"), Origin::Variable("BANGER_VMM".into())),
            "`qemu`, from the variable `BANGER_VMM`"
        );
        assert_eq!(seen(None, Origin::Default), "not set, by default");
    }

    #[test]
    fn a_setting_without_effect_is_worth_a_warning_where_somebody_made_it() {
        for (origin, verdict) in [(Origin::Default, Verdict::Ok), (Origin::File, Verdict::Warning)]
        {
            let value = Some("4".into());
            let used = Used::NotYet;
            let check = setting(&Setting { key: "tap_pool_size", value, origin, used });
            assert_eq!(check.verdict, verdict);
        }
    }
}
