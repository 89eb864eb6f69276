//! Compares the requests listed in docs/threat-model.md with [`Request::NAMES`]. `cargo xtask tidy`
//! checks that the tests named on the page exist.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use banger_root::protocol::Request;

const PAGE: &str = include_str!("../../../docs/threat-model.md");

/// The first word in backticks of each line of the section on requests that starts with `begin`.
fn first_words(begin: &str) -> Vec<&str> {
    let section = PAGE.split("### Requests").nth(1).unwrap().split("\n## ").next().unwrap();
    let lines = section.lines().filter_map(|line| line.strip_prefix(begin));
    lines.map(|line| line.split('`').next().unwrap()).collect()
}

#[test]
fn the_threat_model_lists_every_request_in_order() {
    assert_eq!(first_words("| `"), Request::NAMES, "the table");
    assert_eq!(first_words("- `"), Request::NAMES, "the list of tests");
}
