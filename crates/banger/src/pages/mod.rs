//! Tests of the help pages and of all examples: pages are compared with `tests/snapshots/help`, one
//! file for each command. `BANGER_BLESS=1 cargo nextest run -p banger snapshot` rewrites the files.

mod words;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use banger_api::limits::VmDefaults;
use clap::{Command, CommandFactory as _};
use unicode_width::UnicodeWidthStr as _;

use crate::cli::Cli;
use crate::values;

/// Columns of the terminals.
const WIDTHS: [usize; 2] = [80, 200];
/// clap wraps pages at this width on a wider terminal.
const WIDEST_PAGE: usize = 100;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots")
}

/// Runs a check for each command, its path as words after `banger`.
fn for_each_command(top: &mut Command, check: &mut dyn FnMut(&[String], &mut Command)) {
    fn visit(
        command: &mut Command,
        path: &[String],
        check: &mut dyn FnMut(&[String], &mut Command),
    ) {
        check(path, command);
        if command.is_hide_set() {
            // A short form: what it contains has pages under its full name.
            return;
        }
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
            let path = [path, &[sub.get_name().to_owned()]].concat();
            visit(sub, &path, check);
        }
    }
    visit(top, &[], check);
}

/// The command tree in a terminal, with the defaults of a host.
fn tree(columns: usize) -> Command {
    let defaults = VmDefaults {
        image: "debian".into(),
        kernel: "debian-cloud".into(),
        vcpus: 2,
        memory_mib: 2048,
        root_bytes: 8 << 30,
        work_bytes: 8 << 30,
        nat: true,
    };
    let command = values::with_defaults(Cli::command(), Some(&defaults));
    let mut command = command.term_width(columns.min(WIDEST_PAGE));
    command.build();
    command
}

/// The snapshots: file name and content.
fn snapshots() -> BTreeMap<String, String> {
    let mut files = BTreeMap::<String, String>::new();
    for columns in WIDTHS {
        for_each_command(&mut tree(columns), &mut |path, command| {
            // Hidden commands are short forms, or not for users.
            if command.is_hide_set() {
                return;
            }
            let name = if path.is_empty() { "banger".into() } else { path.join("-") };
            let title = [&["banger".to_owned()], path].concat().join(" ");
            let page = command.render_long_help().to_string();
            let file = files.entry(format!("{name}.txt")).or_default();
            file.push_str(&format!("$ {title} --help  # {columns} columns\n"));
            // clap indents empty lines.
            page.lines().for_each(|line| *file += &format!("{}\n", line.trim_end()));
        });
    }
    files
}

#[test]
fn help_pages_equal_their_snapshots() {
    let folder = folder().join("help");
    let expected = snapshots();
    if std::env::var_os("BANGER_BLESS").is_some_and(|bless| bless == "1") {
        fs::create_dir_all(&folder).unwrap();
        for file in fs::read_dir(&folder).unwrap() {
            let file = file.unwrap();
            if !expected.contains_key(&*file.file_name().to_string_lossy()) {
                fs::remove_file(file.path()).unwrap();
            }
        }
        for (name, text) in &expected {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    let mut differing = Vec::new();
    for (name, text) in &expected {
        if fs::read_to_string(folder.join(name)).ok().as_ref() != Some(text) {
            differing.push(name.clone());
        }
    }
    for file in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if !expected.contains_key(&name) {
            differing.push(name);
        }
    }
    assert!(
        differing.is_empty(),
        "help pages differ from tests/snapshots/help: {differing:?}\nrewrite them with \
         `BANGER_BLESS=1 cargo nextest run -p banger snapshot` and review the difference"
    );
}

#[test]
fn no_line_of_a_page_is_wider_than_the_terminal() {
    for columns in WIDTHS {
        for_each_command(&mut tree(columns), &mut |path, command| {
            for page in [command.render_long_help(), command.render_help()] {
                let page = page.to_string();
                let wide: Vec<&str> = page.lines().filter(|line| line.width() > columns).collect();
                assert!(wide.is_empty(), "{path:?} at {columns}: {wide:#?}");
                // Defaults are part of the sentence, not a paragraph.
                let apart = page.lines().collect::<Vec<_>>();
                let apart = apart.windows(2).find(|pair| {
                    pair[0].trim().is_empty() && pair[1].trim().starts_with("[default")
                });
                assert_eq!(apart, None, "{path:?}");
            }
        });
    }
}

#[test]
fn every_page_opens_with_its_purpose_and_commands_to_run() {
    for_each_command(&mut tree(80), &mut |path, command| {
        let page = command.render_long_help().to_string();
        let mut paragraphs = page.split("\n\n");
        let purpose = paragraphs.next().unwrap_or_default();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(purpose.ends_with('.') && !purpose.contains('\n'), "{path:?}: {purpose}");
        assert!(purpose.starts_with(|c: char| c.is_ascii_uppercase() || path.is_empty()));
        assert_eq!(about, purpose, "{path:?}: the list of commands shows another purpose");
        let examples: Vec<&str> = paragraphs.next().unwrap_or_default().lines().collect();
        assert!((1..=4).contains(&examples.len()), "{path:?} has {} examples", examples.len());
        for line in &examples {
            let commands = words::of_shell(line);
            assert!(line.starts_with("  ") && !commands.is_empty(), "{path:?}: {line}");
            for command in commands {
                assert_eq!(words::problem(&command), None, "{path:?}: {line}");
            }
        }
    });
}

/// The pages of documentation with examples: path and text.
fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut paths = vec![];
    for folder in [root.clone(), root.join("docs"), root.join("docs/decisions")] {
        let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        paths.extend(files.filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    paths
        .iter()
        .map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap()))
        .collect()
}

#[test]
fn examples_of_the_documentation_parse() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for (path, text) in documents() {
        for line in words::block_lines(&text) {
            for command in words::of_shell(line) {
                count += 1;
                let problem = words::problem(&command);
                wrong.extend(problem.map(|problem| format!("{path}: {line}\n{problem}")));
            }
        }
        for span in words::code_spans(&text) {
            count += 1;
            let unknown = words::unknown_in_synopsis(&span);
            wrong.extend(unknown.map(|unknown| format!("{path}: `{span}`: {unknown}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 50, "only {count} examples were found");
}

#[test]
fn commands_in_hints_exist() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for file in fs::read_dir(folder().join("output")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        for line in text.lines().filter(|line| line.starts_with('!')) {
            for span in words::code_spans(line) {
                count += 1;
                let unknown = words::unknown_in_synopsis(&span);
                wrong.extend(unknown.map(|unknown| format!("{line}: {unknown}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 50, "only {count} hints were found");
}
