//! The faces of the API compared with each other: each verb of the OpenAPI document has a place in
//! [`table`], and so has everything that the command line, the terminal interface, the web page and
//! the server for agents offer.

mod table;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};
use serde_json::Value;

use crate::cli::Cli;
use table::{OWN, TABLE, Verb};

/// What a face does with a verb.
#[derive(Debug, PartialEq, Eq)]
enum Offer {
    /// It has these names.
    Named(BTreeSet<String>),
    /// It shows it without being asked.
    Shown,
    /// It has it not, for a reason.
    Absent,
}

fn offer(cell: &str) -> Offer {
    match cell.split_at_checked(2) {
        Some(("= ", place)) if !place.is_empty() => Offer::Shown,
        Some(("- ", reason)) if !reason.is_empty() => Offer::Absent,
        _ => Offer::Named(cell.split(", ").map(str::to_owned).collect()),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Operations of the document; each action of `vm_action` on its own.
fn verbs_of_the_api() -> BTreeSet<String> {
    let text = std::fs::read(root().join("openapi/banger.json")).unwrap();
    let document: Value = serde_json::from_slice(&text).unwrap();
    let operations = document["paths"].as_object().unwrap().values();
    let operations = operations.flat_map(|item| item.as_object().unwrap().values());
    let mut verbs: BTreeSet<String> =
        operations.map(|operation| operation["operationId"].as_str().unwrap().to_owned()).collect();
    assert!(verbs.remove("vm_action"));
    let actions = document["components"]["schemas"]["VmAction"]["oneOf"].as_array().unwrap();
    let action =
        |variant: &Value| format!("vm_action {}", variant["required"][0].as_str().unwrap());
    verbs.extend(actions.iter().map(action));
    verbs
}

/// Commands that do something, under their full names.
fn commands() -> BTreeSet<String> {
    fn visit(command: &Command, path: &str, all: &mut BTreeSet<String>) {
        let shown = |sub: &&Command| sub.get_name() != "help" && !sub.is_hide_set();
        let mut subs = command.get_subcommands().filter(shown).peekable();
        if subs.peek().is_none() {
            all.insert(path.to_owned());
        }
        for sub in subs {
            visit(sub, format!("{path} {}", sub.get_name()).trim_start(), all);
        }
    }
    let mut all = BTreeSet::new();
    visit(&Cli::command(), "", &mut all);
    // The short form of `vm shell`, which users know it by.
    all.insert("shell".to_owned());
    all
}

fn keys() -> BTreeSet<String> {
    let name = |one: &banger_tui::keys::Binding| format!("{:?}/{:?}", one.place, one.command);
    banger_tui::keys::BINDINGS.iter().map(name).collect()
}

fn paths() -> BTreeSet<String> {
    banger_web::paths().into_iter().map(str::to_owned).collect()
}

fn tools() -> BTreeSet<String> {
    banger_mcp::Tool::ALL.iter().map(ToString::to_string).collect()
}

fn compare(
    face: &str,
    offered: &BTreeSet<String>,
    column: fn(&Verb) -> &'static str,
    own: &[&str],
) {
    let mut named: BTreeSet<String> = own.iter().map(|name| (*name).to_owned()).collect();
    for verb in TABLE {
        if let Offer::Named(names) = offer(column(verb)) {
            let unknown: Vec<&String> = names.difference(offered).collect();
            assert!(unknown.is_empty(), "{face} does not have {unknown:?} for `{}`", verb.name);
            named.extend(names);
        }
    }
    let gone: Vec<&String> = named.difference(offered).collect();
    assert!(gone.is_empty(), "{face} does not have {gone:?} of its own any more");
    let without: Vec<&String> = offered.difference(&named).collect();
    assert!(without.is_empty(), "{without:?} of {face} is in no row of the table");
}

#[test]
fn every_verb_has_a_place_in_each_face_or_a_reason() {
    let names: Vec<&str> = TABLE.iter().map(|verb| verb.name).collect();
    let unique: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(unique.len(), names.len(), "a verb has two rows");
    let of_api = names.iter().filter(|name| !name.starts_with('('));
    let of_api: BTreeSet<String> = of_api.map(|name| (*name).to_owned()).collect();
    assert_eq!(of_api, verbs_of_the_api());
}

#[test]
fn every_command_key_form_and_tool_has_a_verb() {
    compare("the command line", &commands(), |verb| verb.cli, OWN.cli);
    compare("the terminal interface", &keys(), |verb| verb.tui, OWN.tui);
    compare("the web page", &paths(), |verb| verb.web, OWN.web);
    compare("the server for agents", &tools(), |verb| verb.mcp, &[]);
}

/// The table for readers.
fn page() -> String {
    let mut page = "# What each face offers

The command line, the terminal interface (`banger tui`), the web page (`banger web`) and the tools
for agents (`banger mcp`) use one API. This page is made of `crates/banger/src/parity/table.rs`,
which a test compares with all five: a verb in brackets is made of several of the API. `=` is shown
without being asked for, `-` is not offered, with the reason.

| verb | `banger` | terminal | browser | agents |
| --- | --- | --- | --- | --- |
"
    .to_owned();
    for verb in TABLE {
        let key = |cell: &str| match offer(cell) {
            Offer::Named(_) => shown_keys(cell),
            _ => cell.to_owned(),
        };
        let (name, cli, tui) = (verb.name, verb.cli, key(verb.tui));
        page += &format!("| {name} | {cli} | {tui} | {} | {} |\n", verb.web, verb.mcp);
    }
    page
}

/// Keys as they are written on a keyboard.
fn shown_keys(cell: &str) -> String {
    let shown = |name: &str| {
        let binding = banger_tui::keys::BINDINGS
            .iter()
            .find(|one| format!("{:?}/{:?}", one.place, one.command) == name);
        binding.map_or_else(|| name.to_owned(), |one| format!("`{}`", one.shown))
    };
    let keys: BTreeSet<String> = cell.split(", ").map(shown).collect();
    keys.into_iter().collect::<Vec<_>>().join(", ")
}

#[test]
fn the_page_of_the_snapshot_is_current() {
    let path = root().join("docs/faces.md");
    if std::env::var_os("BANGER_BLESS").is_some_and(|bless| bless == "1") {
        std::fs::write(&path, page()).unwrap();
    }
    let current = std::fs::read_to_string(&path).unwrap_or_default() == page();
    assert!(current, "docs/faces.md is out of date: run this test with BANGER_BLESS=1");
}
