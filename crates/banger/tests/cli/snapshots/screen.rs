//! A command on two pseudo terminals: one for its input and output, one for its errors.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::termios::{LocalModes, OptionalActions};

use super::script::Output;
use crate::terminal::pseudo_terminal;

/// Time limit for a command.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a command to its end, with a line typed in.
pub fn run(mut command: Command, keys: &Option<String>, columns: u16) -> Output {
    let (out, out_end) = pseudo_terminal(50, columns);
    let (err, err_end) = pseudo_terminal(50, columns);
    // Without echo the output does not depend on the moment of the input.
    let mut modes = rustix::termios::tcgetattr(&out_end).unwrap();
    modes.local_modes.remove(LocalModes::ECHO);
    rustix::termios::tcsetattr(&out_end, OptionalActions::Now, &modes).unwrap();
    command.env("TERM", "xterm").stdin(out_end.try_clone().unwrap());
    command.stdout(out_end).stderr(err_end);
    let mut child = command.spawn().unwrap();
    // Closes our copies of the ends, so that reading ends with the last program.
    drop(command);
    let mut input = File::from(out.try_clone().unwrap());
    let (out, err) = (reader(out), reader(err));
    if let Some(keys) = keys {
        input.write_all(format!("{keys}\n").as_bytes()).unwrap();
    }
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{child:?} does not end, or waits for an answer");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let shown = |thread: JoinHandle<Vec<u8>>| show(&thread.join().unwrap());
    Output { out: shown(out), err: shown(err), code: status.code().unwrap() }
}

fn reader(terminal: OwnedFd) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut terminal, mut bytes) = (File::from(terminal), Vec::new());
        // EIO after the last program has closed the terminal (pty(7)).
        let _ = terminal.read_to_end(&mut bytes);
        bytes
    })
}

/// The lines of the screen after this output: cursor movements and erasures are carried out
/// (ECMA-48), colours dropped. Lines are not wrapped.
fn show(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut lines: Vec<Vec<char>> = vec![Vec::new()];
    let (mut row, mut column) = (0_usize, 0_usize);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\n' => row += 1,
            '\r' => column = 0,
            '\u{1b}' => {
                let sequence: String = match characters.next() {
                    Some('[') => {
                        let mut sequence = String::new();
                        for character in characters.by_ref() {
                            sequence.push(character);
                            if character.is_ascii_alphabetic() {
                                break;
                            }
                        }
                        sequence
                    }
                    _ => continue,
                };
                let command = sequence.chars().last().unwrap_or_default();
                let number = sequence.trim_end_matches(command).parse().unwrap_or(1);
                match command {
                    'A' => row = row.saturating_sub(number),
                    'B' => row += number,
                    'C' => column += number,
                    'D' => column = column.saturating_sub(number),
                    'G' => column = number - 1,
                    'K' => match sequence.as_str() {
                        "2K" => lines[row].clear(),
                        _ => lines[row].truncate(column),
                    },
                    'J' => {
                        lines.truncate(row + 1);
                        lines[row].truncate(column);
                    }
                    _ => {}
                }
            }
            _ => {
                let line = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = character;
                column += 1;
            }
        }
        lines.resize(lines.len().max(row + 1), Vec::new());
    }
    let text = |line: &Vec<char>| line.iter().collect::<String>().trim_end().to_owned();
    let mut lines: Vec<String> = lines.iter().map(text).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

#[test]
fn a_redrawn_line_shows_its_last_state() {
    let shown = |text: &str| show(text.as_bytes()).join("|");
    assert_eq!(shown("one\r\ntwo\r\n"), "one|two");
    assert_eq!(shown("spin 1\r\u{1b}[2Kspin 2\r\u{1b}[2K\u{1b}[1mdone\u{1b}[0m\r\n"), "done");
    assert_eq!(shown("a\r\nb\r\n\u{1b}[1A\u{1b}[2Kc"), "a|c");
}
