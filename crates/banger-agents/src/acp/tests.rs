//! An exchange of an editor and an agent, with hostile messages.

use super::*;

const EXCHANGE: &str = include_str!("fixtures/exchange.txt");

struct Repository;

impl Files for Repository {
    fn beneath(&self, path: &Path) -> Option<PathBuf> {
        // `/link` leads to the repository.
        let tops = ["/home/u/my app", "/link"];
        tops.iter().find_map(|top| path.strip_prefix(top).ok()).map(Path::to_owned)
    }

    fn admit(&self, beneath: &Path) -> Result<(), String> {
        match beneath.starts_with(".git") {
            true => Err("leads into `.git`".to_owned()),
            false => Ok(()),
        }
    }
}

fn relay() -> Relay<Repository> {
    Relay { host: "/home/u/my app".into(), guest: "/root/my app".into(), files: Repository }
}

#[test]
fn messages_are_carried_with_the_paths_of_the_other_side_and_hostile_ones_are_not() {
    let relay = relay();
    let lines = EXCHANGE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lines: Vec<&str> = lines.collect();
    for pair in lines.chunks(2) {
        let [message, expected] = pair else { panic!("{pair:?}") };
        let (side, text) = message.split_once(' ').unwrap();
        let passed = match side {
            "editor" => relay.from_editor(text.as_bytes()),
            "agent" => relay.from_agent(text.as_bytes()),
            other => panic!("{other}"),
        };
        let shown = match &passed {
            Passed::On(Cow::Borrowed(line)) if *line == text.as_bytes() => "=".to_owned(),
            Passed::On(line) => format!("on {}", String::from_utf8_lossy(line)),
            Passed::Back(line) => format!("back {}", String::from_utf8_lossy(line)),
            Passed::Nowhere(why) => format!("nowhere {why}"),
        };
        assert_eq!(shown.replace("\\\"", "\""), **expected, "{message}");
    }
    assert!(lines.len() > 50, "{}", lines.len());
}

#[test]
fn uris_are_decoded_and_encoded() {
    let map = |text: &str| {
        mapped(text, |path| path.to_str()?.strip_prefix("/a b").map(|rest| format!("/c%{rest}")))
    };
    for (uri, expected) in [
        ("file:///a%20b/x?l=1", Some("file:///c%25/x?l=1")),
        ("file://localhost/a%20b/x", Some("file:///c%25/x")),
        ("file://other/a%20b/x", None),
        ("file:///a%2", None),
        ("file:///a%ff", None),
        ("file:///a%+1", None),
        ("/a b/x", Some("/c%/x")),
        ("a b/x", None),
        ("", None),
    ] {
        assert_eq!(map(uri).as_deref(), expected, "{uri}");
    }
}
