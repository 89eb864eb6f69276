//! The rules of STYLE.md and ARCHITECTURE.md that a program can check.
//!
//! `xtask/exceptions.toml` lists the exceptions, each with its reason. The list may only shrink: an
//! exception that is larger than needed, or unused, is an error too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::threat_model;

/// Lines of a file without its tests.
const MAX_FILE_LINES: usize = 400;
/// Columns of a line.
const MAX_COLUMNS: usize = 100;

/// Allowed dependencies of each crate. `banger-testkit` is for tests only: every crate may have it
/// as a dev-dependency.
const BORDERS: &[(&str, &[&str])] = &[
    ("banger-base", &[]),
    ("banger-api", &["banger-base"]),
    ("banger-agent-proto", &["banger-base"]),
    ("banger-sys", &["banger-base"]),
    ("banger-archive", &[]),
    ("banger-workspace", &["banger-api", "banger-archive"]),
    ("banger-sync-side", &["banger-archive"]),
    ("banger-sync", &["banger-archive", "banger-sync-side"]),
    ("banger-agent", &["banger-agent-proto", "banger-archive", "banger-sync-side"]),
    ("banger-shim", &["banger-base", "banger-sys"]),
    ("banger-root", &["banger-base", "banger-shim", "banger-sys"]),
    ("banger-engine", &["banger-api", "banger-base"]),
    ("banger-store", &["banger-engine", "banger-api"]),
    ("banger-image", &["banger-api", "banger-sys"]),
    (
        "banger-host",
        &[
            "banger-agent-proto",
            "banger-api",
            "banger-archive",
            "banger-base",
            "banger-engine",
            "banger-image",
            "banger-root",
            "banger-shim",
            "banger-sys",
        ],
    ),
    ("banger-client", &["banger-agent-proto", "banger-api", "banger-archive", "banger-sys"]),
    ("banger-agents", &["banger-api"]),
    ("banger-e2b", &["banger-api", "banger-client", "banger-sync-side"]),
    ("banger-mcp", &["banger-api", "banger-archive", "banger-client", "banger-workspace"]),
    ("banger-tui", &["banger-api", "banger-client"]),
    ("banger-web", &["banger-api", "banger-client"]),
    (
        "banger",
        &[
            "banger-agents",
            "banger-api",
            "banger-archive",
            "banger-client",
            "banger-e2b",
            "banger-mcp",
            "banger-tui",
            "banger-web",
            "banger-workspace",
        ],
    ),
    (
        "bangerd",
        &[
            "banger-agent-proto",
            "banger-api",
            "banger-engine",
            "banger-host",
            "banger-image",
            "banger-root",
            "banger-store",
            "banger-sync",
            "banger-sync-side",
            "banger-sys",
        ],
    ),
    (
        "bangerd-sim",
        &[
            "banger-agent-proto",
            "banger-api",
            "banger-archive",
            "banger-engine",
            "banger-host",
            "banger-image",
            "banger-root",
            "banger-sync-side",
            "bangerd",
        ],
    ),
    ("banger-testkit", &["banger-agent-proto", "banger-api", "banger-client", "banger-sys"]),
    (
        "tests-vm",
        &[
            "banger-api",
            "banger-engine",
            "banger-host",
            "banger-root",
            "banger-sys",
            "banger-testkit",
        ],
    ),
    ("xtask", &[]),
];

/// Crates that decide and must not touch the machine.
const PURE: &[&str] = &["banger-base", "banger-api", "banger-agent-proto", "banger-engine"];
/// Paths that they must not use.
const MACHINE: &[&str] = &["std::fs", "std::process", "std::net", "std::env", "tokio::fs"];

/// Runs all checks.
///
/// # Errors
/// All findings, one a line.
pub fn run(root: &Path) -> anyhow::Result<()> {
    let exceptions = exceptions(root)?;
    let mut findings = Vec::new();
    let mut long_files: BTreeMap<String, usize> = BTreeMap::new();
    let mut tests = BTreeSet::new();
    for package in packages(root)? {
        check_borders(&package, &mut findings)?;
        for file in rust_files(&package) {
            let text = fs::read_to_string(&file)?;
            let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            check_file(&name, &text, &mut findings);
            tests.extend(threat_model::tests(&text).map(str::to_owned));
            let lines = lines_without_tests(&name, &text);
            if lines > MAX_FILE_LINES {
                long_files.insert(name, lines);
            }
        }
    }
    threat_model::check(root, &tests, &mut findings)?;
    for (name, lines) in &long_files {
        match exceptions.get(name) {
            Some(allowed) if lines <= allowed => {}
            Some(allowed) => {
                findings.push(format!("{name}: {lines} lines, {allowed} are excepted"))
            }
            None => findings.push(format!("{name}: {lines} lines, at most {MAX_FILE_LINES}")),
        }
    }
    for (name, allowed) in &exceptions {
        match long_files.get(name) {
            None => findings.push(format!("{name}: needs no exception any more, remove it")),
            Some(lines) if lines + 20 < *allowed => {
                findings
                    .push(format!("{name}: has {lines} lines, lower its exception of {allowed}"));
            }
            Some(_) => {}
        }
    }
    if findings.is_empty() {
        println!("tidy: ok");
        return Ok(());
    }
    bail!("tidy found {}:\n{}", findings.len(), findings.join("\n"))
}

/// Files with an exception, and the number of lines allowed.
fn exceptions(root: &Path) -> anyhow::Result<BTreeMap<String, usize>> {
    let path = root.join("xtask/exceptions.toml");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let table: toml::Table = text.parse().with_context(|| format!("{}", path.display()))?;
    let mut files = BTreeMap::new();
    for (name, entry) in table {
        let lines = entry.get("lines").and_then(toml::Value::as_integer);
        let reason = entry.get("reason").and_then(toml::Value::as_str).unwrap_or_default();
        let lines = lines.and_then(|lines| usize::try_from(lines).ok());
        let lines = lines.with_context(|| format!("{name}: an exception needs `lines`"))?;
        if reason.len() < 10 {
            bail!("{name}: an exception needs a reason");
        }
        files.insert(name, lines);
    }
    Ok(files)
}

fn packages(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut packages: Vec<PathBuf> = fs::read_dir(root.join("crates"))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.join("Cargo.toml").exists())
        .collect();
    packages.extend(["xtask", "tests-vm"].map(|name| root.join(name)));
    packages.retain(|path| path.join("Cargo.toml").exists());
    packages.sort();
    Ok(packages)
}

fn check_borders(package: &Path, findings: &mut Vec<String>) -> anyhow::Result<()> {
    let path = package.join("Cargo.toml");
    let manifest: toml::Table =
        fs::read_to_string(&path)?.parse().with_context(|| format!("{}", path.display()))?;
    let name = package.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((_, allowed)) = BORDERS.iter().find(|(known, _)| *known == name) else {
        findings.push(format!("{name}: not in the list of borders (xtask/src/tidy.rs)"));
        return Ok(());
    };
    let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
    for dependency in dependencies.into_iter().flatten().map(|(name, _)| name.as_str()) {
        let ours = BORDERS.iter().any(|(known, _)| *known == dependency);
        if ours && !allowed.contains(&dependency) {
            findings.push(format!("{name}: must not depend on {dependency}"));
        }
    }
    let inherits = manifest
        .get("lints")
        .and_then(|lints| lints.get("workspace"))
        .and_then(toml::Value::as_bool);
    if inherits != Some(true) {
        findings.push(format!("{name}: does not inherit the workspace's lints"));
    }
    Ok(())
}

fn rust_files(package: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["src", "tests", "examples", "benches"].iter().map(|name| package.join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Lines before the unit tests; a file of tests only counts as zero.
fn lines_without_tests(name: &str, text: &str) -> usize {
    if name.contains("/tests/") || name.ends_with("/tests.rs") {
        return 0;
    }
    text.lines().take_while(|line| *line != "#[cfg(test)]").count()
}

fn check_file(name: &str, text: &str, findings: &mut Vec<String>) {
    if !text.starts_with("//!") {
        findings.push(format!("{name}: does not open with `//!` and what it is for"));
    }
    let in_sys = name.split('/').any(|part| part == "sys" || part == "sys.rs")
        || name.starts_with("crates/banger-sys/");
    let pure = PURE.iter().any(|package| name.starts_with(&format!("crates/{package}/src")));
    let banned_words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!(")];
    let mut in_tests = false;
    for (number, line) in (1..).zip(text.lines()) {
        in_tests |= line == "#[cfg(test)]";
        let at = format!("{name}:{number}");
        // Tables of test data may be as wide as their data is.
        if line.chars().count() > MAX_COLUMNS && !in_tests {
            findings.push(format!("{at}: longer than {MAX_COLUMNS} columns"));
        }
        let code = line.split("//").next().unwrap_or_default();
        if !in_sys && name != "xtask/src/tidy.rs" && has_unsafe(code) {
            findings.push(format!("{at}: unsafe code outside a `sys` module"));
        }
        for word in banned_words {
            if line.contains(word) {
                findings.push(format!("{at}: `{word}` without an issue that owns it"));
            }
        }
        for word in MACHINE.iter().filter(|_| pure) {
            if code.contains(word) && !code.contains("std::env::consts") {
                findings.push(format!("{at}: `{word}` in a crate that must not touch the machine"));
            }
        }
        if code.trim_start().starts_with("#[allow(") {
            findings.push(format!("{at}: `#[expect(…, reason)]` instead of `#[allow]`"));
        }
    }
}

fn has_unsafe(code: &str) -> bool {
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|form| code.contains(form))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check_file(name, text, &mut findings);
        findings
    }

    #[test]
    fn violations_are_found() {
        assert_eq!(findings("a.rs", "//! Fine.\n"), Vec::<String>::new());
        assert_eq!(findings("a.rs", "fn main() {}\n").len(), 1);
        assert_eq!(findings("a.rs", "//! X.\nunsafe { x() }\n").len(), 1);
        assert_eq!(findings("crates/banger-sys/src/a.rs", "//! X.\nunsafe { x() }\n").len(), 0);
        assert_eq!(findings("crates/banger-engine/src/a.rs", "//! X.\nuse std::fs;\n").len(), 1);
        let long = format!("//! X.\n// {}\n", "x".repeat(100));
        assert_eq!(findings("a.rs", &long).len(), 1);
    }

    #[test]
    fn tests_do_not_count() {
        let text = "//! X.\nfn a() {}\n#[cfg(test)]\nmod tests {}\n";
        assert_eq!(lines_without_tests("crates/x/src/a.rs", text), 2);
        assert_eq!(lines_without_tests("crates/x/tests/a.rs", text), 0);
    }
}
