//! The line discipline of a simulated terminal: echo, lines, Ctrl-C, Ctrl-D (termios(3)).

/// Result of keyboard input.
#[derive(Debug, PartialEq, Eq)]
pub enum Key {
    /// A line with its newline.
    Line(Vec<u8>),
    /// Ctrl-D at the beginning of a line.
    End,
    /// Ctrl-C.
    Interrupt,
}

/// A terminal with the incomplete input line.
#[derive(Debug, Default)]
pub struct Terminal {
    line: Vec<u8>,
}

impl Terminal {
    /// Converts output for a terminal: adds a carriage return before each newline.
    pub fn output(data: &[u8]) -> Vec<u8> {
        data.iter()
            .flat_map(|byte| match byte {
                b'\n' => vec![b'\r', b'\n'],
                other => vec![*other],
            })
            .collect()
    }

    /// Processes keyboard input; returns its echo and the completed keys.
    pub fn input(&mut self, typed: &[u8]) -> (Vec<u8>, Vec<Key>) {
        let (mut echo, mut keys) = (Vec::new(), Vec::new());
        for byte in typed {
            match byte {
                3 => {
                    self.line.clear();
                    echo.extend(b"^C\r\n");
                    keys.push(Key::Interrupt);
                }
                4 if self.line.is_empty() => keys.push(Key::End),
                4 => keys.push(Key::Line(std::mem::take(&mut self.line))),
                b'\r' | b'\n' => {
                    self.line.push(b'\n');
                    echo.extend(b"\r\n");
                    keys.push(Key::Line(std::mem::take(&mut self.line)));
                }
                8 | 127 => {
                    if self.line.pop().is_some() {
                        echo.extend(b"\x08 \x08");
                    }
                }
                other => {
                    self.line.push(*other);
                    echo.push(*other);
                }
            }
        }
        (echo, keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_control_keys() {
        let mut terminal = Terminal::default();
        let (echo, keys) = terminal.input(b"lx\x7fs\r\x04ab\x03");
        assert_eq!(echo, b"lx\x08 \x08s\r\nab^C\r\n");
        assert_eq!(keys, [Key::Line(b"ls\n".into()), Key::End, Key::Interrupt]);
        assert_eq!(Terminal::output(b"a\nb"), b"a\r\nb");
    }
}
