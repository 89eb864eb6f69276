//! Manual pages, one for each command, from the help: man(7), man-pages(7).
//!
//! clap_mangen renders synopsis, options and subcommands. The description keeps the lines of
//! examples, which clap_mangen would fill.

use std::io;

use banger_api::exit;
use clap::Command;
use clap_mangen::Man;

use crate::commands::alias;
use crate::errors;

/// First line of each page: `make uninstall` removes the pages that begin with it.
pub const MARK: &str = ".\\\" A manual page of banger, made from its help.\n";

/// A manual page.
pub struct Page {
    /// File name, such as `banger-vm-create.1`.
    pub name: String,
    /// Content, in the language of roff(7).
    pub text: String,
}

/// The pages of a command and its subcommands except hidden ones.
///
/// # Errors
/// None: rendering to memory does not fail.
pub fn pages(command: Command) -> io::Result<Vec<Page>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, &[], &mut pages)?;
    Ok(pages)
}

fn name_of(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn add(command: &Command, parents: &[&str], pages: &mut Vec<Page>) -> io::Result<()> {
    let name = name_of(command);
    pages.push(Page { name: format!("{name}.1"), text: page(command, parents)? });
    let parents = [parents, &[name]].concat();
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        add(sub, &parents, pages)?;
    }
    Ok(())
}

fn page(command: &Command, parents: &[&str]) -> io::Result<String> {
    let man = Man::new(command.clone());
    let mut out = MARK.as_bytes().to_vec();
    let (title, version) = (name_of(command), env!("CARGO_PKG_VERSION"));
    // Without a date, so that equal builds make equal pages; without hyphens and padding, which
    // would change options and examples.
    let title = format!(".TH {title} 1 \"\" \"banger {version}\" \"banger manual\"\n.nh\n.ad l\n");
    out.extend(title.bytes());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let about = about.lines().next().unwrap_or_default().trim_end_matches('.').to_owned();
    let name = name_of(command).replace('-', "\\-");
    out.extend(format!(".SH NAME\n{name} \\- {}\n", escaped(&about)).bytes());
    man.render_synopsis_section(&mut out)?;
    let long = command.get_long_about().or_else(|| command.get_about());
    let long = long.map(ToString::to_string).unwrap_or_default();
    out.extend(format!(".SH DESCRIPTION\n{}", prose(&long)).bytes());
    man.render_options_section(&mut out)?;
    if command.get_subcommands().any(|sub| !sub.is_hide_set()) {
        man.render_subcommands_section(&mut out)?;
    }
    if parents.is_empty() {
        out.extend(root_sections().bytes());
    } else {
        let links: Vec<String> =
            parents.iter().map(|name| format!(".BR {} (1)", name.replace('-', "\\-"))).collect();
        out.extend(format!(".SH \"SEE ALSO\"\n{}\n", links.join(",\n")).bytes());
    }
    let text = String::from_utf8(out).map_err(io::Error::other)?;
    // groff(7) prints an unescaped grave accent as a quotation mark.
    Ok(text.replace('`', "\\(ga"))
}

/// Help as roff: paragraphs are filled, indented lines are kept as they are.
fn prose(help: &str) -> String {
    let mut text = String::new();
    let mut kept = false;
    for line in help.lines() {
        let indented = line.starts_with("  ");
        if indented != kept {
            text.push_str(if indented { ".nf\n" } else { ".fi\n" });
            kept = indented;
        }
        if line.trim().is_empty() {
            text.push_str(".PP\n");
        } else {
            text.push_str(&format!("{}\n", escaped(line)));
        }
    }
    if kept {
        text.push_str(".fi\n");
    }
    text
}

/// A line of text in which no character has a meaning for roff(7).
fn escaped(line: &str) -> String {
    let mut text = String::new();
    if line.starts_with(['.', '\'']) {
        text.push_str("\\&");
    }
    for character in line.chars() {
        match character {
            '\\' => text.push_str("\\(rs"),
            '-' => text.push_str("\\-"),
            '\'' => text.push_str("\\(aq"),
            '^' => text.push_str("\\(ha"),
            '~' => text.push_str("\\(ti"),
            other => text.push(other),
        }
    }
    text
}

/// Exit codes with their meaning.
const CODES: [(u8, &str); 11] = [
    (exit::OK, "Success."),
    (exit::FAILED, "Failure; also of any VM of a command over several."),
    (exit::USAGE, "Usage error."),
    (exit::NOT_FOUND, "The named VM, image, kernel or operation does not exist."),
    (exit::REFUSED, "Refused in the present state of the object."),
    (exit::HOST_NOT_READY, "The host lacks a program, a device or a privilege."),
    (
        exit::RUN_FAILED,
        "run, exec, shell and ssh: a failure of banger; other codes are those of the command in \
         the guest.",
    ),
    (exit::NOT_EXECUTABLE, "run and exec: the command was found but could not be executed."),
    (exit::COMMAND_NOT_FOUND, "run and exec: the command was not found."),
    (errors::INTERRUPTED, "Interrupted by Ctrl-C."),
    (errors::PIPE_CLOSED, "The reader of standard output closed it."),
];

/// Environment variables.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("BANGER_HOME", "Folder that contains all others: config, state, data, cache and run."),
    ("BANGER_STATE_DIR", "State folder: database, logs, VMs."),
    ("BANGER_LOG_LEVEL", "Level of the daemon's log: error, warn, info, debug or trace."),
    (
        "BANGER_*",
        "Each key of config.toml has a variable, such as BANGER_VMM or BANGER_VM_DEFAULTS_VCPUS. \
         It takes precedence over the file.",
    ),
    (
        "XDG_CONFIG_HOME, XDG_STATE_HOME, XDG_DATA_HOME, XDG_CACHE_HOME, XDG_RUNTIME_DIR",
        "Base folders, as in the XDG Base Directory Specification.",
    ),
    ("NO_COLOR", "Disables colour."),
    ("TERM", "A terminal of type dumb gets no redrawn lines."),
];

/// Files and folders, with the default folders.
const FILES: [(&str, &str); 5] = [
    ("~/.config/banger/config.toml", "Configuration; every key is optional."),
    ("~/.local/state/banger/", "State: database, logs and disks of VMs."),
    ("~/.local/share/banger/", "Images and kernels."),
    ("~/.cache/banger/", "Files that can be fetched or built again."),
    ("$XDG_RUNTIME_DIR/banger/bangerd.sock", "Socket of the daemon's API."),
];

fn items<'a>(title: &str, items: impl Iterator<Item = (String, &'a str)>) -> String {
    let items =
        items.map(|(term, text)| format!(".TP\n\\fB{}\\fR\n{}\n", escaped(&term), escaped(text)));
    format!(".SH \"{title}\"\n{}", items.collect::<String>())
}

/// The sections that only the page of `banger` has.
fn root_sections() -> String {
    let (title, lines) = alias::HELP.split_once(":\n").unwrap_or(("Short forms", alias::HELP));
    let short = format!(".SH \"{}\"\n{}", title.to_uppercase(), prose(lines));
    let named = |(name, text): (&str, &'static str)| (name.to_owned(), text);
    let codes = CODES.into_iter().map(|(code, text)| (code.to_string(), text));
    [
        short,
        items("EXIT STATUS", codes),
        items("ENVIRONMENT", ENVIRONMENT.into_iter().map(named)),
        items("FILES", FILES.into_iter().map(named)),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_visible_command_has_a_page_with_its_help() {
        fn check(command: &Command, pages: &[Page]) {
            let name = format!("{}.1", name_of(command));
            let page = pages.iter().find(|page| page.name == name).unwrap();
            assert!(page.text.starts_with(MARK), "{name}");
            let long = command.get_long_about().map(ToString::to_string).unwrap_or_default();
            for line in long.lines().filter(|line| !line.trim().is_empty()) {
                let line = escaped(line).replace('`', "\\(ga");
                assert!(page.text.lines().any(|other| other == line), "{name}: {line}");
            }
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                check(sub, pages);
            }
        }
        let pages = pages(crate::cli::Cli::command()).unwrap();
        let mut command = crate::cli::Cli::command().disable_help_subcommand(true);
        command.build();
        check(&command, &pages);
        let names: Vec<&str> = pages.iter().map(|page| page.name.as_str()).collect();
        assert!(names.contains(&"banger.1") && names.contains(&"banger-vm-create.1"), "{names:?}");
        assert!(!names.iter().any(|name| name.contains("__")), "hidden commands: {names:?}");
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
    }

    #[test]
    fn no_character_of_the_help_is_a_request() {
        assert_eq!(escaped(".it's a\\b"), "\\&.it\\(aqs a\\(rsb");
        assert_eq!(escaped("'x"), "\\&\\(aqx");
        let help = "Purpose.\n\n  banger x   example\n\nText.";
        let expected = "Purpose.\n.PP\n.nf\n  banger x   example\n.fi\n.PP\nText.\n";
        assert_eq!(prose(help), expected);
    }
}
