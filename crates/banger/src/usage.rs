//! Converts usage errors of clap into the form of all other errors, with hints.

use std::ffi::OsString;

use banger_api::{ApiError, ErrorCode};
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::commands::alias;
use crate::render;

/// Shows a usage error, as JSON with `--json`.
pub fn show(error: &clap::Error, arguments: &[OsString]) {
    let as_json = arguments.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    let is_help = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    match (as_json, is_help) {
        (true, _) => render::error_as_json(&api_error(error)),
        // A noun without a verb shows the help.
        (false, true) => {
            let _ = error.print();
        }
        (false, false) => render::error(&api_error(error)),
    }
}

/// Converts the error.
fn api_error(error: &clap::Error) -> ApiError {
    let missing =
        [ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, ErrorKind::MissingSubcommand];
    let found = Paragraphs::of(&error.render().to_string());
    if missing.contains(&error.kind()) {
        return ApiError::new(ErrorCode::BadRequest, "a command is missing")
            .with_hint(format!("`{} --help` shows all commands", found.command()));
    }
    let hint = special_hint(error, &found).unwrap_or_else(|| found.hint());
    ApiError::new(ErrorCode::BadRequest, found.message.replace('\'', "`")).with_hint(hint)
}

/// The paragraphs of clap's text: `error: …`, `  tip: …`, `Usage: …`.
struct Paragraphs {
    message: String,
    tips: Vec<String>,
    usage: Option<String>,
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
        Self { message, tips, usage }
    }

    /// The parsed part of the command, such as `banger vm create`.
    fn command(&self) -> String {
        let usage = self.usage.as_deref().unwrap_or("banger");
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
