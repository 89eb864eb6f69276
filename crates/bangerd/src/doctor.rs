//! The checks of `banger doctor`: those of the host, unreadable records, and the origin of every
//! configuration value.

use banger_api::Hint;
use banger_api::doctor::{Check, Verdict};
use banger_api::hint::SetupAdvice;
use banger_api::operation::VmTag;
use banger_api::vm::VmAction;
use banger_engine::drivers::Stray;
use banger_engine::store::Unreadable;
use banger_engine::unreadable::advice;
use banger_image::Privilege;

use crate::api::Api;
use crate::config::{Origin, Setting};
use crate::{autostart, leftovers, limits};

/// All checks. Changes nothing.
pub async fn checks(api: &Api) -> Vec<Check> {
    let mut checks = api.engine.drivers().host.doctor().await;
    let port = api.dns.borrow().port();
    checks.iter_mut().for_each(|check| check_dns_owner(check, port));
    checks.push(api.dns.borrow().check());
    checks.push(limits::check());
    checks.extend(leftovers::checks(&api.engine).await);
    checks.extend(api.engine.unreadable().iter().map(unreadable));
    checks
        .extend(api.engine.strays().await.iter().map(|(vm, stray)| running_unrecorded(vm, stray)));
    checks.extend(api.engine.held().await.into_iter().map(held));
    checks.extend(autostart::checks(&api.engine, api.host));
    let privilege = Privilege::ours();
    checks.extend(api.config.settings.iter().map(|one| setting(one, privilege)));
    checks
}

/// Marks the DNS check if systemd-resolved forwards to the DNS server of another daemon.
fn check_dns_owner(check: &mut Check, port: u16) {
    let own = format!("`127.0.0.1:{port}`");
    let routed = check.code == "network_dns" && check.verdict == Verdict::Ok;
    if routed && !check.seen.contains(&own) {
        check.verdict = Verdict::Warning;
        check.seen = format!("{}, the DNS server of another daemon", check.seen);
        check.hints = vec![SetupAdvice::UseAddresses.into()];
    }
}

/// Settings without effect in an ordinary user's daemon: the helper reads no configuration of a
/// user.
const OF_HELPER: [&str; 5] =
    ["network.subnet", "network.bridge", "firecracker_bin", "jailer_bin", "tap_pool_size"];

fn unreadable(row: &Unreadable) -> Check {
    let Unreadable { id, name, why } = row;
    Check {
        code: "store.vm".into(),
        verdict: Verdict::Missing,
        seen: format!("the record of VM `{name}` ({id}) cannot be understood: {why}"),
        hints: advice(row),
        needed_for: vec!["start".into()],
    }
}

/// A VM that is not on record as running, and runs.
fn running_unrecorded(vm: &VmTag, stray: &Stray) -> Check {
    let (name, pid) = (&vm.name, stray.pid);
    Check {
        code: "store.run".into(),
        verdict: Verdict::Warning,
        seen: format!(
            "`{name}` is stopped on record, and its VMM runs as process {pid}: a start or delete \
             ends it first"
        ),
        hints: vec![
            Hint::ask(name, VmAction::Start {}),
            Hint::ask(name, VmAction::Delete { force: false }),
        ],
        needed_for: Vec::new(),
    }
}

/// A guest that is paused because of a failed disk request.
fn held((vm, why): (VmTag, String)) -> Check {
    Check {
        code: "vm.disk".into(),
        verdict: Verdict::Warning,
        seen: format!("`{}` is {why}", vm.name),
        hints: vec![Hint::FreeSpace { path: None }],
        needed_for: Vec::new(),
    }
}

fn setting(setting: &Setting, privilege: Privilege) -> Check {
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
        hints: Vec::new(),
        needed_for: vec!["config".into()],
    };
    let without_effect = match privilege {
        Privilege::User if OF_HELPER.contains(&setting.key) => {
            Some(SetupAdvice::SetForHelper { key: setting.key.into() })
        }
        Privilege::User | Privilege::Root => None,
    };
    if let Some(hint) = without_effect.filter(|_| setting.origin != Origin::Default) {
        check.verdict = Verdict::Warning;
        check.hints = vec![hint.into()];
    }
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_shows_its_origin() {
        let seen = |value: Option<&str>, origin| {
            let value = value.map(str::to_owned);
            setting(&Setting { key: "vmm", value, origin }, Privilege::User).seen
        };
        assert_eq!(seen(Some("qemu"), Origin::File), "`qemu`, from the configuration file");
        assert_eq!(
            seen(Some("qemu"), Origin::Variable("BANGER_VMM".into())),
            "`qemu`, from the variable `BANGER_VMM`"
        );
        assert_eq!(seen(None, Origin::Default), "not set, by default");
    }

    #[test]
    fn dns_of_another_daemon_is_a_warning() {
        for (port, verdict) in
            [(42069, Verdict::Ok), (4206, Verdict::Warning), (0, Verdict::Warning)]
        {
            let mut check = Check {
                code: "network_dns".into(),
                verdict: Verdict::Ok,
                seen: "systemd-resolved forwards `vm` to `127.0.0.1:42069`".into(),
                hints: Vec::new(),
                needed_for: Vec::new(),
            };
            check_dns_owner(&mut check, port);
            assert_eq!(check.verdict, verdict, "{port}");
        }
    }

    #[test]
    fn a_users_setting_for_the_helper_is_a_warning() {
        let seen = |key, origin, privilege| {
            let value = Some("10.1.0.0/16".into());
            let check = setting(&Setting { key, value, origin }, privilege);
            (check.verdict, check.hint())
        };
        let (verdict, hint) = seen("network.subnet", Origin::File, Privilege::User);
        assert_eq!(verdict, Verdict::Warning);
        assert!(hint.unwrap().contains("banger-root install --subnet"));
        for (key, origin, privilege) in [
            ("network.subnet", Origin::File, Privilege::Root),
            ("network.subnet", Origin::Default, Privilege::User),
            ("network.nat", Origin::File, Privilege::User),
        ] {
            assert_eq!(seen(key, origin, privilege), (Verdict::Ok, None), "{key}");
        }
    }
}
