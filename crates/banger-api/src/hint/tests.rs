//! Tests of hints: wire and words.

use banger_base::HostHint;

use super::*;
use crate::{ApiError, ErrorCode};

#[test]
fn a_hint_carries_the_request_that_helps() {
    let error = ApiError::new(ErrorCode::WrongState, "`web` is broken")
        .with_hint(Hint::ask("web", VmAction::Repair {}))
        .with_hint(Hint::show("web"));
    let json = serde_json::to_value(&error).unwrap();
    let expected = serde_json::json!([
        {"hint": "ask_vm", "vm": "web", "action": {"repair": {}},
            "text": "`banger vm repair web` brings it back"},
        {"hint": "show_vm", "vm": "web", "text": "`banger vm show web` says why"},
    ]);
    assert_eq!(json["hints"], expected);
    assert_eq!(serde_json::from_value::<ApiError>(json).unwrap(), error);
    let words = "`banger vm repair web` brings it back; `banger vm show web` says why";
    assert_eq!(error.hint().as_deref(), Some(words));
}

#[test]
fn hints_of_older_and_newer_programs_are_read() {
    let read = |json: &str| serde_json::from_str::<ApiError>(json).unwrap().hints;
    let old = r#"{"code": "internal", "message": "m", "hint": "try"}"#;
    assert_eq!(read(old), [Hint::text("try")]);
    let new = r#"{"code": "internal", "message": "m",
        "hints": [{"hint": "fly", "to": "the moon"}, {"hint": "retry"},
            {"hint": "land", "text": "land it"}, {"hint": "host", "advice": {"hint": "melt"},
            "text": "melt it"}, {"hint": "port", "advice": "close", "text": "close it"}]}"#;
    let words = ["land it", "melt it", "close it"].map(Hint::text);
    assert_eq!(read(new), [[Hint::Retry].as_slice(), &words].concat());
    for none in ["", r#", "hints": []"#, r#", "hint": null"#] {
        let json = format!(r#"{{"code": "internal", "message": "m"{none}}}"#);
        assert_eq!(read(&json), [], "{none}");
    }
}

#[test]
fn related_hints_are_one_phrase() {
    let delete = |force| Hint::ask("web", VmAction::Delete { force });
    for (hints, expected) in [
        (vec![], None),
        (
            vec![Hint::ask("web", VmAction::STOP), delete(true)],
            Some("stop it first, or use `banger vm delete -f web`"),
        ),
        (
            vec![Hint::ChooseAnotherName, delete(false)],
            Some("choose another name, or `banger vm delete web` first"),
        ),
        (
            vec![Hint::ChooseAnotherName, delete(true)],
            Some("choose another name, or `banger vm delete -f web` first"),
        ),
        (
            vec![
                Hint::MakeWritable { path: Some("/s/db".into()) },
                Hint::UseFolder { variable: "BANGER_STATE_DIR".into() },
            ],
            Some(
                "make `/s/db` and its folder writable, or set `BANGER_STATE_DIR` to another \
                 folder",
            ),
        ),
        (
            vec![Hint::SimilarNames { names: vec!["web".into(), "wb".into()] }],
            Some("did you mean `web` or `wb`?"),
        ),
        (
            vec![Hint::install("nftables"), Hint::text("look"), Hint::Retry],
            Some("apt install nftables; look; run the command again"),
        ),
    ] {
        assert_eq!(words(&hints).as_deref(), expected, "{hints:?}");
    }
}

/// Hints of every group, whose data is nested.
#[test]
fn hints_of_all_groups_survive_the_wire() {
    let path = || "/s/db".to_owned();
    let hints = [
        Hint::from(HostHint::load("tun")),
        HostHint::DeleteInterfaces { names: vec!["fc-1".into()] }.into(),
        ImageAdvice::PackDisk.into(),
        ImageAdvice::PackFolder { path: "rootfs".into() }.into(),
        ImageAdvice::RestoreKernel { vm: "web".into() }.into(),
        PortAdvice::FreePort.into(),
        SetupAdvice::TurnNatOff.into(),
        SetupAdvice::AddSubordinateIds { user: None }.into(),
        SetupAdvice::MoveAside { path: path() }.into(),
        Hint::EnlargeRootDisk { least_bytes: 2 << 30 },
        Hint::WaitForOperation { operation: OpId::from_entropy(1) },
    ];
    let error = hints
        .iter()
        .cloned()
        .fold(ApiError::new(ErrorCode::Internal, "m"), |error, hint| error.with_hint(hint));
    let json = serde_json::to_value(&error).unwrap();
    for (hint, sent) in hints.iter().zip(json["hints"].as_array().unwrap()) {
        assert_eq!(sent["text"], hint.words(), "{hint:?}");
        assert!(!hint.words().contains("  ") && !hint.words().contains('\n'), "{hint:?}");
    }
    assert_eq!(serde_json::from_value::<ApiError>(json).unwrap(), error);
    let logged = to_json(&error.hints);
    let mut logged = serde_json::Deserializer::from_str(&logged);
    assert_eq!(read(&mut logged).unwrap(), error.hints);
}

#[test]
fn shared_hints_of_helper_and_api_are_equal() {
    assert_eq!(Hint::from(HostHint::install("nftables")), Hint::install("nftables"));
    assert_eq!(Hint::from(HostHint::ShowDaemonLog), Hint::ShowDaemonLog);
    assert_eq!(Hint::from(HostHint::text("fly")), Hint::text("fly"));
}
