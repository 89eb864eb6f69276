//! Operations: list, show and cancel.

use banger_testkit::{Home, Options, program};

use crate::support::{expect, home, plain, run};

/// A home on a simulated host whose pull of `debian` never ends.
fn home_with_endless_pull() -> Home {
    Home::bare(Options {
        env: vec![
            ("BANGERD".into(), program("bangerd-sim").display().to_string()),
            ("BANGER_SIM_BEHAVIORS".into(), "debian=silent".into()),
        ],
        ..Options::default()
    })
}

#[test]
fn operations_are_listed_and_shown() {
    let home = home();
    run(&home, "vm create --name web --no-start");
    run(&home, "kernel pull nope");
    let list = home.json(&["operation", "list"]);
    let create = list.as_array().unwrap().iter().find(|op| op["kind"] == "create").unwrap();
    assert_eq!(
        (&create["subject"]["name"], &create["state"]),
        (&"web".into(), &"succeeded".into())
    );
    let id = create["id"].as_str().unwrap();
    assert_eq!(home.json(&["op", "show", id])["id"], id);
    let text = run(&home, "op ls").out;
    assert!(text.starts_with("ID         KIND  "), "{text}");
    let row = text.lines().find(|line| line.starts_with(id)).unwrap();
    assert!(row.contains("  VM web  ") && row.contains("  succeeded  "), "{row}");
    let shown = run(&home, &format!("operation show {id}")).out;
    let start = "id       OP\nkind     create\nsubject  VM web\nstate    succeeded\nstarted  ";
    assert!(plain(&shown).starts_with(start), "{shown}");
    assert_eq!(run(&home, "operation list --running -q").out, "");
    run(&home, "vm delete web");
    home.finish();
}

#[test]
fn a_running_operation_is_cancelled() {
    let home = home_with_endless_pull();
    let pull = home.spawn(&["image", "pull", "debian"]);
    let running = || {
        let list = home.json(&["operation", "list", "--running"]);
        list.get(0).and_then(|op| op["id"].as_str()).map(str::to_owned)
    };
    home.wait("the pull to start", || running().is_some());
    let id = running().unwrap();
    expect(&run(&home, &format!("op cancel {id} {id}")), 0, "OP is being cancelled\n", "");
    let ended: banger_testkit::Run = pull.wait_with_output().unwrap().into();
    expect(&ended, 1, "", "error: pull of image `debian` was cancelled\n(OP)\n");
    let shown = run(&home, &format!("op show {id}")).out;
    assert!(shown.contains("\nstate    failed\n"), "{shown}");
    assert!(shown.contains("\nerror    pull of image `debian` was cancelled\n"), "{shown}");
    let text = "error: operation `OP` has ended (failed) and cannot be cancelled\n\
        hint: `banger operation show OP` shows its result\n";
    expect(&run(&home, &format!("op cancel {id}")), 4, "", &plain(text));
    let batch = run(&home, &format!("op cancel {id} op-000000 --json"));
    let json: serde_json::Value = serde_json::from_str(&batch.out).unwrap();
    assert_eq!((batch.code, &json[0]["error"]["code"]), (1, &"wrong_state".into()));
    assert_eq!(json[1]["error"]["code"], "not_found");
    home.finish();
}

#[test]
fn unknown_and_malformed_ids_are_errors() {
    let home = home();
    let text = "error: there is no operation `OP`\n\
        hint: `banger operation list` lists the newest operations\n";
    expect(&run(&home, "operation show op-000000"), 3, "", text);
    expect(&run(&home, "operation cancel op-000000"), 3, "", text);
    for line in ["operation show web", "op cancel OP-000000", "op cancel", "op show", "op frob"] {
        let refused = run(&home, line);
        assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{line}\n{}", refused.err);
        assert!(refused.err.starts_with("error: "), "{line}\n{}", refused.err);
    }
    home.ok(&["daemon", "stop"]);
    home.finish();
}
