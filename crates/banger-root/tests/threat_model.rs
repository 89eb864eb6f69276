//! Holds docs/threat-model.md to what is there: the table of requests against the requests that are
//! read, the names of tests against the tests of this tree.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use banger_root::wire;
use banger_root::words::Request;

const PAGE: &str = include_str!("../../../docs/threat-model.md");

/// Words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The words of all requests, from the mouth of what reads them.
fn requests() -> BTreeSet<String> {
    let error = wire::decode::<Request>(br#"{"request":"?"}"#).unwrap_err().to_string();
    let (_, list) = error.split_once("expected one of").unwrap();
    quoted(list).map(str::to_owned).collect()
}

/// The first word of each line of the page that begins so.
fn first_words(begin: &str) -> Vec<String> {
    let section = PAGE.split("### Requests").nth(1).unwrap().split("\n## ").next().unwrap();
    let lines = section.lines().filter_map(|line| line.strip_prefix(begin));
    lines.map(|line| line.split('`').next().unwrap().to_owned()).collect()
}

/// The tests that the page names: each paragraph says after `Held by` which ones.
fn named() -> BTreeSet<String> {
    let page = PAGE.replace("\n  ", " ");
    let parts = page.split("Held by ").skip(1).map(|part| {
        let end = ["\n\n", "\n- "].iter().filter_map(|end| part.find(end)).min();
        &part[..end.unwrap_or(part.len())]
    });
    parts
        .flat_map(|part| {
            assert!(part.trim_end().ends_with("`."), "{part}");
            quoted(part).map(str::to_owned)
        })
        .collect()
}

fn source_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            source_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of all tests: the functions that follow a line with `#[test]` or `#[tokio::test…]`.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for folder in ["crates", "tests-vm"] {
        source_files(&root.join(folder), &mut files);
    }
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let mut lines = text.lines().map(str::trim_start);
        while let Some(line) = lines.next() {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                let function = lines.find_map(|line| line.split_once("fn "));
                let name = function.map(|(_, rest)| rest.split('(').next().unwrap_or(rest));
                names.extend(name.map(str::to_owned));
            }
        }
    }
    names
}

#[test]
fn the_page_lists_the_requests_there_are() {
    let requests = requests();
    assert!(requests.contains("hello") && requests.contains("findings"), "{requests:?}");
    let table = first_words("| `");
    assert_eq!(BTreeSet::from_iter(table.iter().cloned()), requests);
    assert_eq!(table.len(), requests.len(), "one line each");
    assert_eq!(first_words("- `"), table, "in the same order");
}

#[test]
fn every_test_that_the_page_names_is_there() {
    let (named, tests) = (named(), tests());
    assert!(named.len() > 40 && tests.len() > 500, "{} of {}", named.len(), tests.len());
    let absent: Vec<_> = named.iter().filter(|name| !tests.contains(*name)).collect();
    assert!(absent.is_empty(), "not in the tree: {absent:?}");
}
