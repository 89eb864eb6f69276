//! Checks that the tests which docs/threat-model.md names exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Context;

/// What introduces the names of the tests that hold a statement.
const HELD_BY: &str = "Held by ";

/// Adds a finding for each name that is no test of these sources.
///
/// # Errors
/// The page cannot be read.
pub fn check(
    root: &Path,
    tests: &BTreeSet<String>,
    findings: &mut Vec<String>,
) -> anyhow::Result<()> {
    let path = root.join("docs/threat-model.md");
    let page = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let named = named(&page, findings);
    if named.is_empty() {
        findings.push("docs/threat-model.md: names no tests".into());
    }
    for name in named.difference(tests) {
        findings.push(format!("docs/threat-model.md: there is no test `{name}`"));
    }
    Ok(())
}

/// The names after each [`HELD_BY`], up to the end of the paragraph or list item.
fn named(page: &str, findings: &mut Vec<String>) -> BTreeSet<String> {
    let page = page.replace("\n  ", " ");
    let mut names = BTreeSet::new();
    for part in page.split(HELD_BY).skip(1) {
        let end = ["\n\n", "\n- "].iter().filter_map(|end| part.find(end)).min();
        let part = part.get(..end.unwrap_or(part.len())).unwrap_or_default();
        if !part.trim_end().ends_with("`.") {
            let line = part.lines().next().unwrap_or_default();
            findings.push(format!("docs/threat-model.md: unclear list of tests: {line}"));
        }
        names.extend(part.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    names
}

/// The names of the tests in a source file: functions that follow a line with `#[test]` or
/// `#[tokio::test…]`, in a `proptest!` too.
pub fn tests(text: &str) -> impl Iterator<Item = &str> {
    let mut lines = text.lines().map(str::trim_start);
    std::iter::from_fn(move || {
        lines.find(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))?;
        let (_, function) = lines.find_map(|line| line.split_once("fn "))?;
        function.split('(').next()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_end_with_their_paragraph() {
        let page = "- **x**: y. Held by `one`,\n  `two`.\n- `three`. Held by `four`.\n\n`five`\n";
        let mut findings = Vec::new();
        let named = super::named(page, &mut findings);
        assert_eq!(named.into_iter().collect::<Vec<_>>(), ["four", "one", "two"]);
        assert_eq!(findings, Vec::<String>::new());
        super::named("Held by whatever", &mut findings);
        assert_eq!(findings.len(), 1);
    }

    #[test]
    fn tests_are_found_by_their_attribute() {
        let text =
            "#[test]\nfn a() {}\nfn b() {}\n#[tokio::test(start_paused = true)]\nasync fn c() {}";
        assert_eq!(super::tests(text).collect::<Vec<_>>(), ["a", "c"]);
    }
}
