//! Output of every command in terminals of 80 and 200 columns, on the simulated host, compared with
//! `tests/snapshots`. `BANGER_BLESS=1 cargo nextest run -p banger snapshot` rewrites the files.

mod masks;
mod screen;
mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_testkit::{Home, Options, program};

use self::script::{Item, Output, Script};

/// Columns of the terminals.
const WIDTHS: [u16; 2] = [80, 200];
/// Defaults of new VMs, which else depend on the host.
const CONFIG: &str = "\
[vm_defaults]
vcpus = 2
memory = \"2G\"
disk_size = \"8G\"
work_size = \"8G\"
";

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name)
}

/// The files of a folder: name without ending, and content.
fn files(name: &str) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for file in fs::read_dir(folder(name)).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        files.insert(name, fs::read_to_string(path).unwrap());
    }
    files
}

fn home() -> Home {
    Home::bare(Options {
        config: CONFIG.into(),
        env: vec![("BANGERD".into(), program("bangerd-sim").display().to_string())],
        ..Options::default()
    })
}

/// A shell command in a home, with the programs of this build in its path.
fn shell(home: &Home, line: &str) -> Command {
    let mut command = Command::new("sh");
    let banger = home.command(&[]);
    command.envs(banger.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let programs = program("banger").parent().unwrap().display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let user = home.path().join("user");
    fs::create_dir_all(&user).unwrap();
    command.env("PATH", format!("{programs}:{path}")).env("HOME", &user).current_dir(&user);
    command.env_remove("BANGER_STATE_DIR").env("LANG", "C.UTF-8").env("TZ", "UTC");
    command.args(["-c", line]);
    command
}

/// Runs a file's commands; returns the output of each that is shown.
fn run(home: &Home, name: &str, script: &Script, columns: u16) -> Vec<Output> {
    let mut outputs = Vec::new();
    for item in &script.items {
        match item {
            Item::Comment(_) => {}
            Item::Hidden(line) => {
                let output = shell(home, line).output().unwrap();
                let err = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{name}: `{line}` failed\n{err}");
            }
            Item::Shown { line, keys } => {
                let mut output = screen::run(shell(home, line), keys, columns);
                for line in output.out.iter_mut().chain(&mut output.err) {
                    *line = masks::mask(line, home.path());
                }
                outputs.push(output);
            }
        }
    }
    home.run(&["daemon", "start"]);
    for vm in home.json(&["vm", "list"]).as_array().unwrap() {
        home.ok(&["vm", "delete", "-f", vm["id"].as_str().unwrap()]);
    }
    let user = home.path().join("user");
    fs::remove_dir_all(&user).unwrap();
    outputs
}

#[test]
fn output_equals_its_snapshots() {
    let files = files("output");
    let scripts: BTreeMap<&str, Script> =
        files.iter().map(|(name, text)| (name.as_str(), Script::parse(text))).collect();
    // One daemon for each width, at the same time.
    let [narrow, wide] = std::thread::scope(|scope| {
        let threads = WIDTHS.map(|columns| {
            let scripts = &scripts;
            scope.spawn(move || {
                let home = home();
                let run = |(name, script): (&&str, &Script)| {
                    (name.to_string(), run(&home, name, script, columns))
                };
                let outputs: BTreeMap<String, Vec<Output>> = scripts.iter().map(run).collect();
                home.finish();
                outputs
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    let blessed = std::env::var_os("BANGER_BLESS").is_some_and(|bless| bless == "1");
    let mut differing = Vec::new();
    for (name, script) in &scripts {
        let text = script.render(&narrow[*name], &wide[*name]);
        if blessed {
            fs::write(folder("output").join(format!("{name}.txt")), &text).unwrap();
        } else if text != files[*name] {
            differing.push(difference(name, &files[*name], &text));
        }
    }
    assert!(
        differing.is_empty(),
        "output differs from tests/snapshots/output:\n{}rewrite the files with \
         `BANGER_BLESS=1 cargo nextest run -p banger snapshot` and review the difference",
        differing.concat()
    );
    for (outputs, columns) in [(&narrow, 80), (&wide, 200)] {
        scripts.iter().for_each(|(name, script)| check(name, script, &outputs[*name], columns));
    }
}

/// The first lines that differ.
fn difference(name: &str, expected: &str, found: &str) -> String {
    let (expected, found): (Vec<&str>, Vec<&str>) =
        (expected.lines().collect(), found.lines().collect());
    let at = expected.iter().zip(&found).take_while(|(one, other)| one == other).count();
    let some =
        |lines: &[&str]| lines.iter().skip(at).take(5).map(|l| format!("    {l}\n")).collect();
    let (expected, found): (String, String) = (some(&expected), some(&found));
    format!("{name}.txt, line {}:\n  expected\n{expected}  found\n{found}", at + 1)
}

/// Rules of every output.
fn check(name: &str, script: &Script, outputs: &[Output], columns: usize) {
    let lines = script.items.iter().filter_map(|item| match item {
        Item::Shown { line, .. } => Some(line),
        _ => None,
    });
    for (line, output) in lines.zip(outputs) {
        let shown = format!("{name} at {columns} columns: {line}\n{}", output.render());
        assert!(matches!(output.code, 0..=5 | 7 | 125..=143), "{shown}");
        let words: Vec<&str> = line.split_whitespace().take_while(|word| *word != "--").collect();
        let as_json = words.contains(&"--json") && !line.contains('|');
        if as_json {
            let is_json = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
            let out = output.out.join("\n");
            assert!(
                out.is_empty() || is_json(&out) || output.out.iter().all(|l| is_json(l)),
                "{shown}"
            );
            let mut errors = output.err.iter().filter(|line| line.starts_with(['{', '}']));
            assert!(errors.all(|line| is_json(line)), "{shown}");
            assert!(!output.err.iter().any(|line| line.starts_with("error:")), "{shown}");
        }
        // Errors of a batch as JSON and the verdict of `vm health` are results.
        let is_result = !output.out.is_empty() && (as_json || line.contains(" health "));
        let is_silent = matches!(output.code, 2..=5 | 125) && output.err.is_empty();
        assert!(!is_silent || is_result || line.contains("2>&-"), "{shown}");
    }
}

#[test]
fn every_command_has_snapshots_of_a_success_and_three_failures() {
    let pages = files("help");
    let outputs = files("output");
    let mut missing = Vec::new();
    for (name, page) in &pages {
        if page.contains(" <COMMAND>\n") {
            continue;
        }
        // `banger vm exec` is `banger exec`.
        let short = name.strip_prefix("vm-").filter(|short| pages.contains_key(*short));
        let Some(text) = outputs.get(name).or_else(|| outputs.get(short?)) else {
            missing.push(format!("{name}: no file tests/snapshots/output/{name}.txt"));
            continue;
        };
        let script = Script::parse(text);
        let lines = script.items.iter().filter(|item| matches!(item, Item::Shown { .. })).count();
        // The output in the wider terminal is of the same command.
        let narrow = text.split("\n$ ").map(|case| case.split("\n@ ").next().unwrap_or_default());
        let failures = narrow.filter(|case| case.contains("\n= ")).count();
        if failures < 3 || lines <= failures {
            missing.push(format!("{name}: {} successes, {failures} failures", lines - failures));
        }
        if !text.lines().any(|line| line.starts_with("$ ") && line.contains("--json")) {
            missing.push(format!("{name}: no command with `--json`"));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    let known: BTreeSet<&String> = pages.keys().collect();
    let unknown: Vec<_> = outputs.keys().filter(|name| !known.contains(name)).collect();
    assert!(unknown.is_empty(), "snapshots of no command: {unknown:?}");
}

#[test]
fn snapshots_of_help_pages_are_what_a_terminal_shows() {
    let home = home();
    let run = |(name, page): (&String, &String)| {
        let mut parts: Vec<(String, Vec<String>)> = Vec::new();
        for line in page.lines() {
            if line.starts_with("$ ") {
                parts.push((line.to_owned(), Vec::new()));
            } else if let Some((_, lines)) = parts.last_mut() {
                lines.push(line.to_owned());
            }
        }
        for ((line, expected), columns) in parts.into_iter().zip(WIDTHS) {
            let command = line.split("  # ").next().unwrap_or_default();
            let output = screen::run(shell(&home, &command[2..]), &None, columns);
            assert_eq!((output.code, output.out), (0, expected), "{name}: {line}");
        }
    };
    files("help").iter().for_each(run);
}
