//! Commands of banger in examples: lines of help pages, blocks and code spans of Markdown, hints.

use clap::error::ErrorKind;
use clap::{Command, CommandFactory as _};

use crate::cli::Cli;

/// The command lines of banger in a line of a shell script, such as
/// `tar c . | banger cp - web:/srv    # a comment`, as words.
pub fn of_shell(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    for word in split(line) {
        match word.as_str() {
            "|" | "||" | "&&" | ";" | "&" => commands.push(Vec::new()),
            _ => commands.last_mut().unwrap().push(word),
        }
    }
    commands.retain_mut(|words| {
        let is_prefix = |word: &String| word == "sudo" || word.contains('=');
        let prefixes = words.iter().take_while(|word| is_prefix(word)).count();
        words.drain(..prefixes);
        let is_program = |word: &String| word == "banger" || word.ends_with("release/banger");
        words.first().is_some_and(is_program)
    });
    commands
}

/// Words of a line up to a comment: quotes are removed, redirections skipped.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word): (Vec<String>, Option<String>) = (Vec::new(), None);
    let (mut quote, mut spaces) = (None, 0);
    for character in line.chars().chain([' ']) {
        match (quote, character) {
            (Some(end), _) if character == end => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, ' ') => {
                words.extend(word.take());
                spaces += 1;
                // In help pages two spaces separate a command from its purpose.
                if spaces >= 2 && !words.is_empty() {
                    break;
                }
                continue;
            }
            (None, '#') if word.is_none() => break,
            // Empty commands between the two characters of `||` and `&&` are dropped later.
            (None, ';' | '|') => {
                words.extend([word.take(), Some(character.into())].into_iter().flatten())
            }
            (None, _) => word.get_or_insert_default().push(character),
        }
        spaces = 0;
    }
    let is_redirection = |word: &String| word.contains(['>', '<']) && !word.contains(' ');
    words.retain(|word| !is_redirection(word));
    words
}

/// The reason that a command line is refused.
pub fn problem(words: &[String]) -> Option<String> {
    let error = Cli::command().try_get_matches_from(words).err()?;
    let shows = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion];
    (!shows.contains(&error.kind())).then(|| error.to_string())
}

/// The code spans of Markdown that begin with `banger `, outside of fenced blocks.
pub fn code_spans(markdown: &str) -> Vec<String> {
    let mut text = String::new();
    for (place, part) in markdown.split("```").enumerate() {
        if place % 2 == 0 {
            text.push_str(part);
        }
    }
    let spans = text.split('`').skip(1).step_by(2);
    let joined = spans.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "));
    joined.filter(|span| span.starts_with("banger ")).collect()
}

/// The lines of fenced blocks, without those of diagrams.
pub fn block_lines(markdown: &str) -> Vec<&str> {
    let blocks = markdown.split("```").skip(1).step_by(2);
    let lines = blocks.flat_map(str::lines).filter(|line| !line.contains('─'));
    lines.map(|line| line.strip_prefix("$ ").unwrap_or(line)).collect()
}

/// What is unknown in the synopsis of a command, such as `banger vm stop|start [--timeout N] VM…`.
pub fn unknown_in_synopsis(synopsis: &str) -> Option<String> {
    let text = synopsis.replace("\\|", "|").replace(['[', ']', '…'], " ");
    let top = built();
    let mut commands = vec![&top];
    let mut words = text.split_whitespace().skip(1).peekable();
    while let Some(word) = words.next_if(|word| !word.starts_with(['-', '\'', '"'])) {
        let names: Vec<&str> = word.split('|').collect();
        // The first word in capitals, or the operand of a command without subcommands.
        let ended = names.iter().any(|name| !name.starts_with(|c: char| c.is_ascii_lowercase()));
        if ended || commands.iter().any(|command| !command.has_subcommands()) {
            break;
        }
        let mut found = Vec::new();
        for name in names {
            match commands.iter().find_map(|command| command.find_subcommand(name)) {
                Some(command) => found.push(command),
                None => return Some(format!("command `{name}`")),
            }
        }
        commands = found;
    }
    let flags = words.take_while(|word| *word != "--").filter(|word| word.starts_with('-'));
    for flag in flags.flat_map(|word| word.split('|')).filter(|word| word.starts_with('-')) {
        let flag = flag.split('=').next().unwrap_or_default();
        if !commands.iter().any(|command| has_flag(command, flag)) {
            return Some(format!("flag `{flag}`"));
        }
    }
    None
}

/// The command tree with the flags of all parents.
pub fn built() -> Command {
    let mut top = Cli::command();
    top.build();
    top
}

fn has_flag(command: &Command, flag: &str) -> bool {
    let mut arguments = command.get_arguments();
    match flag.strip_prefix("--") {
        Some(long) => arguments.any(|argument| {
            let aliases = argument.get_all_aliases().unwrap_or_default();
            argument.get_long() == Some(long) || aliases.contains(&long)
        }),
        None => {
            let shorts: Vec<char> = command.get_arguments().filter_map(|a| a.get_short()).collect();
            flag.chars().skip(1).all(|short| shorts.contains(&short))
        }
    }
}

#[test]
fn commands_of_a_line_are_found() {
    let found = |line: &str| {
        of_shell(line).iter().map(|words| words.join("+")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(found("  banger run                    a machine"), "banger+run");
    assert_eq!(found("  tar c . | banger exec -i web tar x"), "banger+exec+-i+web+tar+x");
    assert_eq!(
        found("banger vm stop web && banger rm web;true"),
        "banger+vm+stop+web banger+rm+web"
    );
    assert_eq!(found("A=1 banger exec web 'a  b|c' >x # all"), "banger+exec+web+a  b|c");
    assert_eq!(found("NAME  ID"), "");
}

#[test]
fn wrong_examples_are_found() {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(problem(&words("banger vm list --help")), None);
    assert!(problem(&words("banger vm lsit")).is_some());
    assert_eq!(unknown_in_synopsis("banger vm stop|start [--json] VM…"), None);
    assert_eq!(unknown_in_synopsis("banger vm stop|halt VM…").unwrap(), "command `halt`");
    assert_eq!(unknown_in_synopsis("banger exec VM --nope").unwrap(), "flag `--nope`");
    assert_eq!(code_spans("a `banger\nps` b\n```\n`banger x`\n```\n`ls`"), ["banger ps"]);
    assert_eq!(block_lines("```\n$ banger ps\n```\n"), ["", "banger ps"]);
}
