//! Line breaks between words, for messages on a terminal.

use std::io::{self, IsTerminal};

use textwrap::core::Word;
use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

use super::live;

/// Columns below which lines are left to the terminal.
const MIN_WIDTH: usize = 30;

/// Columns of the terminal on stderr; `None`: stderr is no terminal, or a very narrow one.
pub fn stderr_width() -> Option<usize> {
    let width = usize::from(live::size().1);
    (io::stderr().is_terminal() && width >= MIN_WIDTH).then_some(width)
}

/// The text with line breaks between words, and `indent` before each line but the first. Text in
/// backquotes and words that are longer than a line stay whole, so that they can be copied.
pub fn wrap(text: &str, width: Option<usize>, indent: &str) -> String {
    let Some(width) = width else { return text.to_owned() };
    let options = Options::new(width)
        .subsequent_indent(indent)
        .break_words(false)
        .word_splitter(WordSplitter::NoHyphenation)
        .word_separator(WordSeparator::Custom(words))
        .wrap_algorithm(WrapAlgorithm::FirstFit);
    let lines: Vec<String> = text.split('\n').map(|line| textwrap::fill(line, &options)).collect();
    lines.join("\n")
}

/// The words of a line with the spaces after them. Text in backquotes is one word.
fn words(line: &str) -> Box<dyn Iterator<Item = Word<'_>> + '_> {
    let mut start = 0;
    let paired = line.matches('`').count().is_multiple_of(2);
    let mut quoted = false;
    let mut ends = Vec::new();
    let mut characters = line.char_indices().peekable();
    while let Some((_, character)) = characters.next() {
        quoted ^= paired && character == '`';
        let next = characters.peek().copied();
        if let (' ', Some((at, after))) = (character, next)
            && after != ' '
            && !quoted
        {
            ends.push(at);
        }
    }
    ends.push(line.len());
    Box::new(ends.into_iter().map(move |end| {
        let word = Word::from(&line[start..end]);
        start = end;
        word
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        let text = "the kernel `debian` has no driver for the disk";
        assert_eq!(wrap(text, Some(24), "  "), "the kernel `debian` has\n  no driver for the disk");
        assert_eq!(wrap(text, None, "  "), text);
    }

    #[test]
    fn commands_and_long_words_stay_whole() {
        let text = "remove it with `banger vm delete web` now";
        assert_eq!(wrap(text, Some(30), ""), "remove it with\n`banger vm delete web` now");
        let long = format!("see /{} there", "x".repeat(40));
        assert_eq!(wrap(&long, Some(30), ""), format!("see\n/{}\nthere", "x".repeat(40)));
    }

    #[test]
    fn line_breaks_and_unmatched_quotes_are_kept() {
        assert_eq!(wrap("one\n  two", Some(30), "  "), "one\n  two");
        assert_eq!(
            wrap("a ` in one of the names that are here", Some(30), ""),
            "a ` in one of the names that\nare here"
        );
        assert_eq!(wrap("", Some(30), ""), "");
    }
}
