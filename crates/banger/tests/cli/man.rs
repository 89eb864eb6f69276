//! Manual pages.

use std::collections::BTreeSet;
use std::process::Command;

use crate::support::{home, run};

#[test]
fn manual_pages_are_complete_and_have_no_warnings() {
    let home = home();
    let folder = home.path().join("man1");
    std::fs::create_dir(&folder).unwrap();
    let list = run(&home, "__man");
    let names: BTreeSet<&str> = list.out.lines().collect();
    assert!(names.contains("banger-image-pull.1"), "{names:?}");
    let written = home.run(&["__man", folder.to_str().unwrap()]);
    assert_eq!((written.code, written.out.as_str()), (0, ""), "{}", written.err);
    let files: BTreeSet<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files.iter().map(String::as_str).collect::<BTreeSet<_>>(), names);
    let missing = home.path().join("missing");
    let refused = home.run(&["__man", missing.to_str().unwrap()]);
    assert_eq!(refused.code, 1);
    let expected = format!("error: cannot write `{}/banger.1`", missing.display());
    assert!(refused.err.starts_with(&expected), "{refused:?}");
    for name in files {
        let mut groff = Command::new("groff");
        let shown =
            groff.args(["-Kutf8", "-man", "-Tutf8", "-ww", "-rLL=78n"]).arg(folder.join(&name));
        let shown = shown.env("GROFF_NO_SGR", "1").output().unwrap();
        let warnings = String::from_utf8_lossy(&shown.stderr);
        assert!(shown.status.success() && warnings.is_empty(), "{name}: {warnings}");
        // Without the overstriking of bold and underlined characters.
        let text = String::from_utf8_lossy(&shown.stdout);
        let mut plain = String::new();
        for character in text.chars() {
            match character {
                '\u{8}' => drop(plain.pop()),
                // Hyphen and minus, depending on the macros of the distribution.
                '\u{2010}' | '\u{2212}' => plain.push('-'),
                other => plain.push(other),
            }
        }
        assert!(plain.contains("DESCRIPTION") && plain.contains("--json"), "{name}\n{plain}");
        if name == "banger-vm-stats.1" {
            let example = "         banger vm stats --watch         refreshed until Ctrl-C\n";
            assert!(plain.contains(example), "{plain}");
        }
        if name == "banger.1" {
            for title in ["EXIT STATUS", "FILES", "ENVIRONMENT", "SHORT FORMS"] {
                assert!(plain.contains(&format!("\n{title}\n")), "{title}\n{plain}");
            }
            assert!(plain.contains("banger-vm(1)"), "{plain}");
        }
    }
}
