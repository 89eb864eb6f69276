//! Compares the requests that docs/threat-model.md lists with the requests there are. That the
//! tests which the page names exist is checked by `cargo xtask tidy`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use banger_root::words::Request;

const PAGE: &str = include_str!("../../../docs/threat-model.md");

/// The first word in backticks of each line of the section on requests that begins so.
fn first_words(begin: &str) -> Vec<&str> {
    let section = PAGE.split("### Requests").nth(1).unwrap().split("\n## ").next().unwrap();
    let lines = section.lines().filter_map(|line| line.strip_prefix(begin));
    lines.map(|line| line.split('`').next().unwrap()).collect()
}

#[test]
fn the_page_lists_each_request_once_in_order() {
    assert_eq!(first_words("| `"), Request::NAMES, "the table");
    assert_eq!(first_words("- `"), Request::NAMES, "the list of tests");
}
