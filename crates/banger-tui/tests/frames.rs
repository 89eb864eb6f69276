//! Frames at several sizes, compared with `tests/snapshots`, one file for each.
//! `BANGER_BLESS=1 cargo nextest run -p banger-tui frames` rewrites the files.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixtures;

use std::path::Path;

use banger_api::vm::VmAction;
use banger_api::{ApiError, ErrorCode};
use banger_tui::Background;
use banger_tui::keys::BINDINGS;
use banger_tui::model::{Hit, Model, Tab};
use banger_tui::theme::Theme;
use banger_tui::update::{CreateEnd, Data, Effect, Msg, update};
use banger_tui::view;
use crossterm::event::{
    Event, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use fixtures::{
    NOW_MS, connected, data, details, id, keys, of, sample, several, stage, type_in, vm,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;
use serde_json::json;

/// The terminals of most frames.
const SIZES: [(u16, u16); 2] = [(80, 24), (200, 50)];

fn dark() -> Theme {
    Theme::colours(Background::Dark)
}

/// Draws a frame as the program does.
fn drawn(model: &mut Model) -> Buffer {
    let (columns, rows) = model.size;
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    let mut hits = Vec::new();
    terminal.draw(|frame| hits = view::draw(model, frame)).unwrap();
    model.hits = hits;
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let area = buffer.area;
    let row = |y: u16| {
        let cells = (0..area.width).filter_map(|x| buffer.cell((x, y)));
        let row: String = cells.map(|cell| cell.symbol()).collect();
        row.trim_end().to_owned() + "\n"
    };
    (0..area.height).map(row).collect()
}

fn shown(model: &mut Model) -> String {
    text(&drawn(model))
}

#[track_caller]
fn compare(name: &str, frames: &[String]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots");
    let path = path.join(format!("{name}.txt"));
    let all = frames.join("\n");
    if std::env::var_os("BANGER_BLESS").is_some_and(|bless| bless == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &all).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        all == expected,
        "{name} differs from tests/snapshots/{name}.txt:\n{all}\nrewrite it with \
         `BANGER_BLESS=1 cargo nextest run -p banger-tui frames` and review the difference"
    );
}

/// Compares frames of a model at both sizes.
#[track_caller]
fn compare_sizes(name: &str, model: impl Fn((u16, u16)) -> Model) {
    compare(name, &SIZES.map(|size| shown(&mut model(size))));
}

fn error(code: ErrorCode, message: &str) -> ApiError {
    ApiError::new(code, message)
}

fn with_details(size: (u16, u16)) -> Model {
    let mut model = several(size, dark());
    keys(&mut model, &[KeyCode::End, KeyCode::Enter]);
    let summary = vm(7, "web", "running", json!({ "ip": "172.16.0.12" }));
    let web = details(7, summary, json!({}));
    data(&mut model, Data::Details(Box::new(of(web))));
    let log = b"\x1b[32m[  OK  ]\x1b[0m Reached target multi-user\r\n\r\nweb login: ";
    data(&mut model, Data::Console(id(7).parse().unwrap(), log.to_vec()));
    model
}

#[test]
fn frames_of_the_list() {
    compare_sizes("list", |size| several(size, dark()));
    compare_sizes("list-empty", |size| {
        let mut model = connected(size, dark());
        data(&mut model, Data::Vms(Vec::new()));
        model
    });
    compare_sizes("list-marked", |size| {
        let mut model = several(size, dark());
        type_in(&mut model, "  o");
        keys(&mut model, &[KeyCode::Char('/')]);
        type_in(&mut model, "ue");
        model
    });
}

#[test]
fn frames_of_details() {
    compare_sizes("details", with_details);
    compare_sizes("details-starting", |size| {
        let mut model = several(size, dark());
        keys(&mut model, &[KeyCode::Enter]);
        model
    });
    compare_sizes("details-failed", |size| {
        let mut model = several(size, dark());
        type_in(&mut model, "jj");
        keys(&mut model, &[KeyCode::Enter]);
        let failed = json!({ "pid": null, "start": null, "stopped_because": {
            "reason": "start_failed", "operation": "op-bbbbbb",
            "error": "the guest did not start within 60 s" } });
        let cache = details(3, vm(3, "cache", "stopped", json!({})), failed);
        data(&mut model, Data::Details(Box::new(of(cache))));
        model
    });
    compare_sizes("console", |size| {
        let mut model = with_details(size);
        keys(&mut model, &[KeyCode::Esc, KeyCode::Char('l')]);
        model
    });
}

#[test]
fn frames_of_what_opens_above() {
    for (name, key) in [("help", '?'), ("form", 'n'), ("question-stop", 'x')] {
        compare_sizes(name, |size| {
            let mut model = several(size, dark());
            keys(&mut model, &[KeyCode::Char(key)]);
            model
        });
    }
    compare_sizes("ports-refused", |size| {
        let mut model = several(size, dark());
        type_in(&mut model, "GP x");
        keys(&mut model, &[KeyCode::Enter]);
        model
    });
    compare_sizes("question-delete-many", |size| {
        let mut model = several(size, dark());
        type_in(&mut model, "aD");
        model
    });
    compare_sizes("form-refused", |size| {
        let mut model = several(size, dark());
        type_in(&mut model, "nWeb");
        keys(&mut model, &[KeyCode::Enter]);
        model
    });
    compare_sizes("form-creating", |size| {
        let mut model = several(size, dark());
        type_in(&mut model, "napi");
        keys(&mut model, &[KeyCode::Enter]);
        let accepted = json!({ "operation": "op-aaaaaa", "vm": { "id": id(1), "name": "api" } });
        data(&mut model, Data::Created(Ok(of(accepted))));
        model
    });
    compare_sizes("messages", |size| {
        let mut model = several(size, dark());
        let api = || of(json!({ "id": id(1), "name": "api" }));
        let done = banger_client::batch::ActionEffect::Done(Some(1_234));
        data(&mut model, Data::Acted("start", vec![(api(), Ok(done))]));
        let refused = error(ErrorCode::WrongState, "`api` is being deleted");
        data(&mut model, Data::Acted("stop", vec![(api(), Err(refused))]));
        model
    });
}

#[test]
fn frames_of_other_lists() {
    compare_sizes("images", |size| {
        let mut model = several(size, dark());
        let image = |id: &str, names: &[&str], used_by: &[&str]| {
            json!({ "id": id, "names": names, "source": "recipe", "system": "Debian 13",
                "virtual_bytes": 512 << 20, "used_bytes": 213 << 20, "init": null,
                "created_at": "2026-11-28T12:00:00Z", "fingerprint": "f", "used_by": used_by })
        };
        let list = json!([
            image("0123456789abcdef", &["debian"], &["web", "db"]),
            image("1123456789abcdef", &["alpine", "small"], &[])
        ]);
        data(&mut model, Data::Images(of(list)));
        keys(&mut model, &[KeyCode::Char('2')]);
        model
    });
    compare_sizes("kernels-pull-refused", |size| {
        let mut model = several(size, dark());
        let list = json!([{ "id": "fedcba9876543210", "names": ["debian-cloud"],
            "release": "6.12.48-cloud-amd64", "source": "recipe", "used_bytes": 88 << 20,
            "created_at": "2026-11-28T12:00:00Z", "used_by": ["web"] }]);
        data(&mut model, Data::Kernels(of(list)));
        type_in(&mut model, "3ufats");
        keys(&mut model, &[KeyCode::Enter]);
        let kind = banger_tui::model::PullKind::Kernel;
        let refused = error(ErrorCode::NotFound, "there is no recipe `fats`");
        data(&mut model, Data::Pulled(kind, Err(refused)));
        model
    });
    compare_sizes("operations", |size| {
        let mut model = several(size, dark());
        let subject = json!({ "type": "vm", "id": id(1), "name": "api" });
        let list = json!([
            { "id": "op-aaaaaa", "kind": "start", "subject": subject, "state": "running",
              "started_at": "2026-11-29T11:59:59Z", "error": null },
            { "id": "op-bbbbbb", "kind": "pull_image", "state": "failed",
              "subject": { "type": "image", "name": "debian" },
              "started_at": "2026-11-29T10:00:00Z",
              "error": { "code": "timeout", "message": "the registry does not answer" } },
            { "id": "op-cccccc", "kind": "stop", "subject": subject, "state": "succeeded",
              "started_at": "2026-11-28T10:00:00Z", "error": null }]);
        data(&mut model, Data::Operations(of(list)));
        type_in(&mut model, "4");
        model
    });
}

#[test]
fn frames_without_a_daemon() {
    compare_sizes("lost", |size| {
        let mut model = several(size, dark());
        let error = error(ErrorCode::DaemonUnavailable, "the daemon at `/s` does not answer");
        data(&mut model, Data::Lost(error));
        update(&mut model, Msg::Tick(NOW_MS + 75_000));
        model
    });
    let mut model = several((80, 24), dark());
    assert_eq!(type_in(&mut model, "d"), [], "a daemon is not started beside another one");
    data(&mut model, Data::Lost(error(ErrorCode::DaemonUnavailable, "gone")));
    assert_eq!(type_in(&mut model, "d"), [Effect::StartDaemon]);
    data(&mut model, Data::Up(None));
    assert!(shown(&mut model).contains("the daemon answers again"));
}

#[test]
fn every_size_is_drawn() {
    for columns in [1, 20, 59, 60, 80, 100, 119, 120, 129, 130, 200, 300] {
        for rows in [1, 5, 14, 15, 24, 50, 80] {
            let mut model = with_details((columns, rows));
            for key in [KeyCode::Esc, KeyCode::Esc, KeyCode::Char('l'), KeyCode::Char('?')] {
                assert_eq!(drawn(&mut model).area.width, columns);
                keys(&mut model, &[key]);
            }
            keys(&mut model, &[KeyCode::Esc]);
            for key in "nx234u?".chars() {
                keys(&mut model, &[KeyCode::Char(key)]);
                let frame = shown(&mut model);
                let small = columns < 60 || rows < 15;
                let visible = key != 'n' || frame.contains("Name ");
                assert!(small || visible, "{columns}×{rows} {key}\n{frame}");
                keys(&mut model, &[KeyCode::Esc]);
            }
        }
    }
    assert!(shown(&mut several((50, 20), dark())).contains("banger needs 60×15"));
}

#[test]
fn without_colours_no_cell_has_one() {
    let mut model = several((80, 24), Theme::monochrome());
    keys(&mut model, &[KeyCode::End, KeyCode::Enter]);
    data(&mut model, Data::Console(id(7).parse().unwrap(), b"\x1b[31mred".to_vec()));
    for key in [KeyCode::Esc, KeyCode::Char('n'), KeyCode::Esc] {
        for cell in drawn(&mut model).content() {
            assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset), "{cell:?}");
        }
        keys(&mut model, &[key]);
    }
    // The selected row is visible nevertheless.
    let reversed = ratatui::style::Modifier::REVERSED;
    assert!(drawn(&mut model).content().iter().any(|cell| cell.modifier.contains(reversed)));
}

#[test]
fn text_of_guests_and_daemons_cannot_control_the_terminal() {
    const EVIL: &str = "\x1b[2J\x1b]0;x\x07\u{9b}31m\u{202e}\u{200f}\r\n\tz";
    for size in SIZES {
        let mut model = connected(size, dark());
        let labels = json!({ "a": EVIL });
        let more = json!({ "image": EVIL, "ip": EVIL, "labels": labels, "problem": EVIL });
        let summary = vm(1, "web", "stopped", more);
        data(&mut model, Data::Vms(of(json!([summary]))));
        keys(&mut model, &[KeyCode::Enter]);
        let boot = json!({ "state": "degraded", "failed": [EVIL] });
        let because = json!({ "reason": "vmm_died", "story": EVIL });
        let names = json!({ "vmm": EVIL, "storage": EVIL, "network": EVIL });
        let start = json!({ "total_ms": 1, "stages": [{ "name": EVIL, "ms": 1 }], "guest": [] });
        let more = json!({ "boot": boot, "stopped_because": because, "drivers": names,
            "start": start, "problems": [EVIL], "notices": [EVIL] });
        data(&mut model, Data::Details(Box::new(of(details(1, summary, more)))));
        data(&mut model, Data::Console(id(1).parse().unwrap(), EVIL.as_bytes().to_vec()));
        data(&mut model, Data::Did(Err(error(ErrorCode::Internal, EVIL))));
        stage(&mut model, 1, 1, json!({ "event": "stage_started", "stage": EVIL }));
        stage(&mut model, 2, 2, json!({ "event": "warning", "text": EVIL }));
        data(&mut model, Data::Lost(error(ErrorCode::DaemonUnavailable, EVIL)));
        for key in [KeyCode::Esc, KeyCode::Esc, KeyCode::Char('n'), KeyCode::Enter] {
            for cell in drawn(&mut model).content() {
                let symbol = cell.symbol();
                assert!(!symbol.contains(banger_client::text::controls_terminal));
            }
            keys(&mut model, &[key]);
        }
        data(&mut model, Data::Created(Err(error(ErrorCode::NotFound, EVIL))));
        let frame = shown(&mut model);
        assert!(frame.contains("\\u{1b}[2J"), "{frame}");
    }
}

fn click(model: &mut Model, wanted: Hit) -> Vec<Effect> {
    let _ = drawn(model);
    let (area, _) = model.hits.iter().rev().find(|(_, hit)| *hit == wanted).unwrap();
    let (column, row) = (area.x, area.y);
    let kind = MouseEventKind::Down(MouseButton::Left);
    let event = MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE };
    update(model, Msg::Input(Event::Mouse(event)))
}

#[test]
fn the_mouse_does_what_it_points_at() {
    let mut model = several((80, 24), dark());
    click(&mut model, Hit::Row(6));
    assert_eq!(model.vms.selected().unwrap().summary.name.as_str(), "web");
    click(&mut model, Hit::Column(banger_tui::model::vms::SortBy::Cpu));
    assert!(model.vms.reverse && model.vms.place().row == 0, "the selection stays on its VM");
    click(&mut model, Hit::Tab(Tab::Images));
    assert_eq!(model.tab, Tab::Images);
    click(&mut model, Hit::Tab(Tab::Vms));
    click(&mut model, Hit::Command(banger_tui::keys::Command::Stop));
    // What is below a question cannot be reached.
    let row = model.hits.iter().find(|(_, hit)| *hit == Hit::Row(0)).unwrap().0;
    let kind = MouseEventKind::ScrollDown;
    let event = MouseEvent { kind, column: row.x, row: row.y, modifiers: KeyModifiers::NONE };
    update(&mut model, Msg::Input(Event::Mouse(event)));
    assert_eq!(model.vms.place().row, 0);
    let effects = click(&mut model, Hit::Confirm);
    assert!(matches!(&effects[..], [Effect::Act(vms, VmAction::Stop { .. })] if vms.len() == 1));
    click(&mut model, Hit::Row(0));
    assert!(shown(&mut model).contains("172.16.0.12"), "a click on the selected VM opens it");
}

#[test]
fn keys_request_what_they_say() {
    let names = |effects: &[Effect]| -> Vec<String> {
        let one = |effect: &Effect| match effect {
            Effect::Act(vms, action) => {
                let names: Vec<&str> = vms.iter().map(|vm| vm.name.as_str()).collect();
                let force = matches!(action, VmAction::Delete { force: true });
                format!("{}{} {}", action.as_str(), if force { " -f" } else { "" }, names.join(" "))
            }
            other => format!("{other:?}"),
        };
        effects.iter().map(one).collect()
    };
    for (typed, expected) in [
        ("jjs", &["start cache"][..]),
        ("  s", &["start api build"]),
        ("jjxy", &["stop cache"]),
        ("jjry", &["restart cache"]),
        ("jjKy", &["kill cache"]),
        ("jjDy", &["delete cache"]),
        ("jj  Dy", &["delete cache", "delete -f db"]),
        ("jp", &["resume build"]),
        ("Gp", &["pause web"]),
        ("cy", &["Cancel(OpId(\"op-aaaaaa\"))"]),
        ("jjDn", &[]),
        ("jjpe", &[]),
        ("q", &["Quit"]),
    ] {
        let mut model = several((80, 24), dark());
        let mut effects = type_in(&mut model, typed);
        effects.retain(|effect| !matches!(effect, Effect::Watch(_)));
        assert_eq!(names(&effects), expected, "{typed}");
        assert_eq!(model.vms.marked(), 0, "{typed}");
    }
    let mut model = several((80, 24), dark());
    type_in(&mut model, "GP 443:443");
    let effects = keys(&mut model, &[KeyCode::Enter]);
    assert!(
        matches!(&effects[..], [Effect::Act(vms, VmAction::Set(set))]
            if vms[0].name.as_str() == "web" && set.publish.len() == 1 && set.unpublish.is_empty()),
        "{effects:?}"
    );
    let effects = type_in(&mut model, "e");
    assert!(matches!(&effects[..], [Effect::Shell(vm)] if vm.name.as_str() == "web"));
    let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    type_in(&mut model, "n");
    assert_eq!(update(&mut model, Msg::Input(Event::Key(control))), [Effect::Quit]);
}

#[test]
fn the_form_leads_to_the_new_vm_or_back_to_the_refused_value() {
    let mut model = several((80, 24), dark());
    type_in(&mut model, "nnew");
    let effects = keys(&mut model, &[KeyCode::Enter]);
    assert!(matches!(&effects[..], [Effect::Create(one)] if one.name.as_deref() == Some("new")));
    let taken = error(ErrorCode::NameTaken, "there is a VM `new` already");
    data(&mut model, Data::Created(Err(taken)));
    assert!(shown(&mut model).contains("there is a VM `new` already"));
    type_in(&mut model, "er");
    assert!(!shown(&mut model).contains("there is a VM"), "the error stays after a change");
    keys(&mut model, &[KeyCode::Enter]);
    let tag = || of(json!({ "id": id(99), "name": "newer" }));
    let accepted = json!({ "operation": "op-dddddd", "vm": { "id": id(99), "name": "newer" } });
    data(&mut model, Data::Created(Ok(of(accepted.clone()))));
    let undone = error(ErrorCode::NotFound, "there is no image `debian`");
    data(&mut model, Data::CreateEnded(tag(), CreateEnd::Undone(undone)));
    assert!(shown(&mut model).contains("there is no image `debian`"));
    keys(&mut model, &[KeyCode::Enter]);
    data(&mut model, Data::Created(Ok(of(accepted))));
    data(&mut model, Data::CreateEnded(tag(), CreateEnd::Ready));
    data(
        &mut model,
        Data::Vms(of(json!([
            vm(1, "a", "stopped", json!({})),
            vm(99, "newer", "running", json!({}))
        ]))),
    );
    let frame = shown(&mut model);
    assert!(frame.contains("newer  ● running") && frame.contains("`newer` is ready"), "{frame}");
}

#[test]
fn selection_and_marks_follow_their_vms() {
    let mut model = several((80, 24), dark());
    type_in(&mut model, "jj ");
    data(
        &mut model,
        Data::Vms(of(json!([
            vm(3, "zz", "stopped", json!({})),
            vm(9, "aa", "stopped", json!({})),
            vm(4, "db", "stopped", json!({}))
        ]))),
    );
    assert_eq!(model.vms.selected().unwrap().summary.name.as_str(), "db");
    assert_eq!(model.vms.targets()[0].summary.name.as_str(), "zz");
    data(&mut model, Data::Event(of(json!({ "event": "gone", "vm": id(3) }))));
    assert_eq!((model.vms.marked(), model.vms.total()), (0, 2));
    let changed = json!({ "event": "changed", "vm": { "id": id(4), "name": "dbx",
        "state": "starting", "generation": 3, "operation": "op-eeeeee" } });
    assert_eq!(data(&mut model, Data::Event(of(changed))), [Effect::ReadVms]);
    assert_eq!(model.vms.selected().unwrap().summary.name.as_str(), "dbx");
    let late = of(json!([sample(3, "zz", 1, 1)]));
    data(&mut model, Data::Stats(late));
}

#[test]
fn a_thousand_vms_are_drawn_and_filtered() {
    let mut model = connected((300, 80), dark());
    let list: Vec<_> =
        (0..1_000).map(|n| vm(n, &format!("vm-{n:04}"), "running", json!({}))).collect();
    data(&mut model, Data::Vms(of(json!(list))));
    keys(&mut model, &[KeyCode::End]);
    assert!(shown(&mut model).contains("vm-0999"));
    keys(&mut model, &[KeyCode::Char('/')]);
    type_in(&mut model, "vm-050");
    let frame = shown(&mut model);
    assert!(frame.contains("10 of 1000") && frame.contains("vm-0505"), "{frame}");
}

#[test]
fn every_key_is_in_the_help() {
    let mut model = several((200, 80), dark());
    type_in(&mut model, "?");
    let frame = shown(&mut model);
    for binding in BINDINGS {
        assert!(frame.contains(binding.help), "{} is missing:\n{frame}", binding.help);
    }
}
