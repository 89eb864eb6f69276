//! Converts usage errors of clap into the form of all other errors, with hints.

use std::ffi::OsString;

use banger_api::{ApiError, ErrorCode, Hint};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _};

use crate::cli::Cli;
use crate::commands::alias;
use crate::render;

/// Characters that are shown of an argument.
const MAX_SHOWN: usize = 80;

/// Shows a usage error, as JSON with `--json`.
pub fn show(error: &clap::Error, arguments: &[OsString]) {
    let as_json = arguments.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    let is_help = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    match (as_json, is_help) {
        (true, _) => render::error_as_json(&api_error(error, arguments)),
        // A noun without a verb shows the help.
        (false, true) => {
            let _ = error.print();
        }
        (false, false) => render::error(&api_error(error, arguments)),
    }
}

/// Converts the error.
fn api_error(error: &clap::Error, arguments: &[OsString]) -> ApiError {
    let missing =
        [ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, ErrorKind::MissingSubcommand];
    let mut found = Paragraphs::of(&error.render().to_string());
    if found.usage.is_none() {
        // clap does not name the command whose value is invalid.
        found.usage_of = named_command(&Cli::command(), arguments);
    }
    if missing.contains(&error.kind()) {
        return ApiError::new(ErrorCode::BadRequest, "a command is missing")
            .with_hint(Hint::text(format!("`{} --help` shows all commands", found.command())));
    }
    let hint = special_hint(error, &found).unwrap_or_else(|| found.hint());
    let message = found.message.replace('\'', "`");
    ApiError::new(ErrorCode::BadRequest, shortened(error, message)).with_hint(Hint::text(hint))
}

/// The message with the end of a long argument omitted.
fn shortened(error: &clap::Error, message: String) -> String {
    let long = error.context().find_map(|(_, value)| match value {
        ContextValue::String(text) if text.chars().count() > MAX_SHOWN => Some(text),
        _ => None,
    });
    let Some(long) = long else { return message };
    let start: String = long.chars().take(MAX_SHOWN).collect();
    message.replace(long.as_str(), &format!("{start}…"))
}

/// The paragraphs of clap's text: `error: …`, `  tip: …`, `Usage: …`.
struct Paragraphs {
    message: String,
    tips: Vec<String>,
    usage: Option<String>,
    /// The command, where there is no usage.
    usage_of: String,
}

/// The command that the arguments name, such as `banger vm create`; its options are skipped.
fn named_command(top: &Command, arguments: &[OsString]) -> String {
    let mut found = (top, vec![top.get_name()]);
    let words = arguments.iter().skip(1).filter_map(|word| word.to_str());
    for word in words.filter(|word| !word.starts_with('-')) {
        match found.0.find_subcommand(word) {
            Some(command) => {
                found.0 = command;
                found.1.push(word);
            }
            None => break,
        }
    }
    found.1.join(" ")
}

impl Paragraphs {
    fn of(text: &str) -> Self {
        let one_line = |paragraph: &str| {
            let mut lines = paragraph.lines().map(str::trim).filter(|line| !line.is_empty());
            let first = lines.next().unwrap_or_default().to_owned();
            let rest: Vec<&str> = lines.collect();
            if rest.is_empty() { first } else { format!("{first} {}", rest.join(", ")) }
        };
        let mut paragraphs = text.split("\n\n");
        let first = one_line(paragraphs.next().unwrap_or_default());
        let message = first.strip_prefix("error: ").unwrap_or(&first).to_owned();
        let (mut tips, mut usage) = (Vec::new(), None);
        for paragraph in paragraphs {
            for line in paragraph.lines().map(str::trim) {
                if let Some(tip) = line.strip_prefix("tip: ") {
                    // No value starts with a hyphen.
                    if tip.starts_with("to pass ") {
                        continue;
                    }
                    tips.push(tip.replace('\'', "`"));
                } else if let Some(shown) = line.strip_prefix("Usage: ") {
                    usage = Some(shown.to_owned());
                }
            }
        }
        Self { message, tips, usage, usage_of: "banger".to_owned() }
    }

    /// The parsed part of the command, such as `banger vm create`.
    fn command(&self) -> String {
        let usage = self.usage.as_deref().unwrap_or(&self.usage_of);
        let is_word = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
        usage.split(' ').take_while(is_word).collect::<Vec<_>>().join(" ")
    }

    fn hint(&self) -> String {
        let command = self.command();
        match (self.tips.is_empty(), &self.usage) {
            (false, _) => self.tips.join("; "),
            (true, Some(usage)) => format!("usage: `{usage}`; `{command} --help` tells more"),
            (true, None) => format!("`{command} --help` shows what can be given"),
        }
    }
}

/// Hints that clap does not give.
fn special_hint(error: &clap::Error, found: &Paragraphs) -> Option<String> {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let word = word(ContextKind::InvalidArg)?;
            let creates = found.command().ends_with(" create");
            (creates && !word.starts_with('-'))
                .then(|| format!("use `--name {word}` to name the machine"))
        }
        ErrorKind::InvalidSubcommand => {
            alias::suggestion(word(ContextKind::InvalidSubcommand)?).map(str::to_owned)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_found_behind_options() {
        let named = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
            named_command(&Cli::command(), &words)
        };
        assert_eq!(named("banger stop --timeout x web"), "banger stop");
        assert_eq!(named("banger -q vm create --vcpus 99"), "banger vm create");
        assert_eq!(named("banger nope"), "banger");
    }

    #[test]
    fn the_text_of_clap_is_parsed() {
        let text = "error: the following required arguments were not provided:\n  <VM>...\n  \
            <CMD>...\n\n  tip: a similar one exists: 'x'\n\nUsage: banger vm exec [OPTIONS] \
            <VM>...\n\nFor more information, try '--help'.\n";
        let found = Paragraphs::of(text);
        let message = "the following required arguments were not provided: <VM>..., <CMD>...";
        assert_eq!(found.message, message);
        assert_eq!(found.command(), "banger vm exec");
        assert_eq!(found.hint(), "a similar one exists: `x`");
        let bare = Paragraphs::of("error: odd\n");
        assert_eq!(bare.hint(), "`banger --help` shows what can be given");
    }
}
