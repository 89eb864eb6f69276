//! Files with commands and their output:
//!
//! ```text
//! # a comment
//! % banger vm create --name web     run before the next command; must succeed, output not shown
//! $ banger vm delete web            a command in a terminal
//! < y                               the line that is typed in
//!   web deleted                     its standard output
//! ! error: …                        its standard error
//! @ 200 columns                     the output in the wider terminal follows, if it is another
//! = 4                               its exit code, if it is not 0
//! ```

/// A file.
pub struct Script {
    pub items: Vec<Item>,
}

/// A line of a file that is not output.
pub enum Item {
    Comment(String),
    Hidden(String),
    Shown { line: String, keys: Option<String> },
}

/// What a terminal shows after a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Output {
    pub out: Vec<String>,
    pub err: Vec<String>,
    pub code: i32,
}

impl Script {
    pub fn parse(text: &str) -> Self {
        let mut items = Vec::new();
        for line in text.lines() {
            match line.split_at_checked(2) {
                _ if line.is_empty() || line.starts_with('#') => {
                    items.push(Item::Comment(line.into()));
                }
                Some(("% ", rest)) => items.push(Item::Hidden(rest.into())),
                Some(("$ ", rest)) => items.push(Item::Shown { line: rest.into(), keys: None }),
                Some(("< ", rest)) => match items.last_mut() {
                    Some(Item::Shown { keys, .. }) => *keys = Some(rest.into()),
                    _ => panic!("`{line}` follows no command"),
                },
                _ => {}
            }
        }
        Self { items }
    }

    /// The file with this output in the narrow and the wide terminal.
    pub fn render(&self, narrow: &[Output], wide: &[Output]) -> String {
        let mut outputs = narrow.iter().zip(wide);
        let mut text = String::new();
        for item in &self.items {
            match item {
                Item::Comment(line) => text += &format!("{line}\n"),
                Item::Hidden(line) => text += &format!("% {line}\n"),
                Item::Shown { line, keys } => {
                    text += &format!("$ {line}\n");
                    keys.iter().for_each(|keys| text += &format!("< {keys}\n"));
                    let Some((narrow, wide)) = outputs.next() else { continue };
                    text += &narrow.render();
                    if narrow != wide {
                        text += &format!("@ 200 columns\n{}", wide.render());
                    }
                }
            }
        }
        text
    }
}

impl Output {
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Empty lines separate cases.
        self.out.iter().for_each(|line| text += &format!("  {line}\n"));
        self.err.iter().for_each(|line| text += &format!("! {line}\n"));
        if self.code != 0 {
            text += &format!("= {}\n", self.code);
        }
        text
    }
}
