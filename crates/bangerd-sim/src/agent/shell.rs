//! The commands of a simulated guest, and the subset of `sh -c` that tests use: words, quotes,
//! `$NAME`, `;`, `&&`, `>&2`.

use std::sync::Arc;
use std::time::Duration;

use banger_agent_proto::exec::ExitStatus;
use banger_engine::drivers::GuestEnd;

use super::exec::Streams;
use super::{Machine, coreutils};

/// A process of a simulated guest.
pub struct Shell {
    machine: Arc<Machine>,
    env: Vec<(String, String)>,
    cwd: String,
    streams: Streams,
}

/// Destination of a command's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Stdout,
    Stderr,
}

/// One command of a script.
#[derive(Debug, PartialEq, Eq)]
struct Statement {
    words: Vec<String>,
    target: Target,
    /// Runs only if the previous command succeeded.
    if_ok: bool,
}

/// Result of a command.
enum Outcome {
    Code(u8),
    Signal(u8),
    /// The script called `exit`.
    Exit(u8),
    Unknown,
}

impl Shell {
    /// A process with this environment and folder.
    pub fn new(
        machine: Arc<Machine>,
        env: Vec<(String, String)>,
        cwd: Option<String>,
        streams: Streams,
    ) -> Self {
        let mut all = vec![
            ("HOME".into(), "/root".into()),
            ("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
            ("USER".into(), "root".into()),
        ];
        for (name, value) in env {
            all.retain(|(known, _): &(String, String)| *known != name);
            all.push((name, value));
        }
        Self { machine, env: all, cwd: cwd.unwrap_or_else(|| "/root".into()), streams }
    }
}

/// Runs a command; an empty one is the login shell.
pub async fn run(shell: &mut Shell, argv: &[String]) -> ExitStatus {
    let Some(program) = argv.first() else { return interactive(shell).await };
    let outcome = match argv {
        [sh, c, script, ..] if is_shell(sh) && c == "-c" => run_script(shell, script).await,
        // A login shell.
        [sh, l, c, script, ..] if is_shell(sh) && l == "-l" && c == "-c" => {
            run_script(shell, script).await
        }
        [sh, flags @ ..]
            if is_shell(sh) && flags.iter().all(|flag| flag == "-i" || flag == "-l") =>
        {
            return interactive(shell).await;
        }
        _ => command(shell, argv, Target::Stdout).await,
    };
    match outcome {
        // Shell built-ins are not programs.
        Outcome::Unknown => ExitStatus::NotStarted {
            code: banger_api::exit::COMMAND_NOT_FOUND,
            message: not_found(program),
        },
        Outcome::Code(code) | Outcome::Exit(code) => ExitStatus::Exited { code },
        Outcome::Signal(signal) => ExitStatus::Signaled { signal },
    }
}

fn is_shell(program: &str) -> bool {
    matches!(program.rsplit('/').next(), Some("sh" | "bash"))
}

async fn interactive(shell: &mut Shell) -> ExitStatus {
    let mut typed: Vec<u8> = Vec::new();
    let mut code = 0;
    loop {
        if shell.streams.size.is_some() {
            let prompt = format!("root@{}:~# ", shell.machine.vm.name);
            shell.streams.out(prompt).await;
        }
        while !typed.contains(&b'\n') {
            match shell.streams.read().await {
                Some(data) => typed.extend(data),
                None if typed.is_empty() => return ExitStatus::Exited { code },
                None => typed.push(b'\n'),
            }
        }
        let rest = typed.split_off(typed.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1));
        let line = String::from_utf8_lossy(&std::mem::replace(&mut typed, rest)).into_owned();
        match Box::pin(run_script(shell, &line)).await {
            Outcome::Code(last) => code = last,
            Outcome::Exit(code) => return ExitStatus::Exited { code },
            Outcome::Signal(signal) => return ExitStatus::Signaled { signal },
            Outcome::Unknown => code = banger_api::exit::COMMAND_NOT_FOUND,
        }
    }
}

async fn run_script(shell: &mut Shell, script: &str) -> Outcome {
    let statements = match parse(script, &shell.env) {
        Ok(statements) => statements,
        Err(problem) => {
            shell.streams.err(format!("sh: {problem}\n")).await;
            return Outcome::Exit(2);
        }
    };
    let mut code = 0;
    for statement in statements {
        if statement.if_ok && code != 0 {
            continue;
        }
        code = match Box::pin(command(shell, &statement.words, statement.target)).await {
            Outcome::Code(code) => code,
            Outcome::Unknown => {
                let name = statement.words.first().cloned().unwrap_or_default();
                shell.streams.err(format!("sh: {name}: not found\n")).await;
                banger_api::exit::COMMAND_NOT_FOUND
            }
            ended => return ended,
        };
    }
    Outcome::Code(code)
}

/// Programs of a simulated guest; `exit` is a shell built-in.
const PROGRAMS: [&str; 23] = [
    "bash", "cat", "dd", "echo", "env", "false", "find", "hostname", "kill", "mkdir", "mv",
    "poweroff", "pwd", "reboot", "rm", "seq", "sh", "sleep", "stat", "stty", "true", "uname",
    "whoami",
];

/// Whether the program exists.
pub fn has_program(path: &str) -> bool {
    PROGRAMS.contains(&path.rsplit('/').next().unwrap_or_default())
}

/// Error message for a missing program.
pub fn not_found(program: &str) -> String {
    format!("`{program}` was not found")
}

async fn command(shell: &mut Shell, argv: &[String], target: Target) -> Outcome {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let Some((program, arguments)) = words.split_first() else { return Outcome::Code(0) };
    let name = program.rsplit('/').next().unwrap_or_default();
    let text = match (name, arguments) {
        ("true", _) => return Outcome::Code(0),
        ("false", _) => return Outcome::Code(1),
        ("exit", []) => return Outcome::Exit(0),
        ("exit", [code, ..]) => return Outcome::Exit(code.parse().unwrap_or(2)),
        ("kill", arguments) => return kill(arguments),
        ("sleep", [seconds]) => return sleep(seconds).await,
        ("seq", [last]) => return seq(shell, target, last, 0).await,
        ("seq", ["-w", last]) => return seq(shell, target, last, last.len()).await,
        ("cat", []) => {
            while let Some(data) = shell.streams.read().await {
                write(shell, target, data).await;
            }
            return Outcome::Code(0);
        }
        ("poweroff", []) => return power(shell, GuestEnd::Poweroff).await,
        ("reboot", []) => return power(shell, GuestEnd::Reboot).await,
        ("sh" | "bash", ["-c", script, ..]) => {
            return match Box::pin(run_script(shell, script)).await {
                Outcome::Exit(code) => Outcome::Code(code),
                other => other,
            };
        }
        ("echo", ["-n", words @ ..]) => words.join(" "),
        ("echo", words) => format!("{}\n", words.join(" ")),
        ("env", []) => shell.env.iter().map(|(name, value)| format!("{name}={value}\n")).collect(),
        ("pwd", []) => format!("{}\n", shell.cwd),
        ("whoami", []) => "root\n".into(),
        ("hostname", []) => format!("{}\n", shell.machine.vm.name),
        ("uname", ["-a"]) => {
            format!("Linux {} 6.1.0-sim #1 SMP banger x86_64 GNU/Linux\n", shell.machine.vm.name)
        }
        ("uname", []) => "Linux\n".into(),
        ("stty", ["size"]) => match &shell.streams.size {
            Some(size) => {
                let size = *size.borrow();
                format!("{} {}\n", size.rows, size.cols)
            }
            None => {
                shell.streams.err("stty: standard input: not a terminal\n").await;
                return Outcome::Code(1);
            }
        },
        ("dd", [to, ..]) if to.starts_with("of=") => {
            return dd(shell, to.trim_start_matches("of=")).await;
        }
        _ => return on_files(shell, target, &words).await,
    };
    write(shell, target, text.into_bytes()).await;
    Outcome::Code(0)
}

/// The programs of [`coreutils`].
async fn on_files(shell: &Shell, target: Target, words: &[&str]) -> Outcome {
    match coreutils::run(&shell.machine.files, words) {
        None => return Outcome::Unknown,
        Some(Ok(output)) => {
            for piece in output.chunks(PIECE) {
                write(shell, target, piece.to_vec()).await;
            }
        }
        Some(Err(message)) => {
            let name = words.first().copied().unwrap_or_default();
            shell.streams.err(format!("{name}: {message}\n")).await;
            return Outcome::Code(1);
        }
    }
    Outcome::Code(0)
}

/// Writes the input to a file.
async fn dd(shell: &mut Shell, path: &str) -> Outcome {
    let mut content = Vec::new();
    while let Some(data) = shell.streams.read().await {
        content.extend(data);
    }
    match coreutils::write(&shell.machine.files, path, &content) {
        Ok(()) => Outcome::Code(0),
        Err(message) => {
            shell.streams.err(format!("dd: {message}\n")).await;
            Outcome::Code(1)
        }
    }
}

async fn write(shell: &Shell, target: Target, data: Vec<u8>) {
    match target {
        Target::Stdout => shell.streams.out(data).await,
        Target::Stderr => shell.streams.err(data).await,
    }
}

async fn sleep(seconds: &str) -> Outcome {
    match seconds.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok()) {
        Some(duration) => {
            tokio::time::sleep(duration).await;
            Outcome::Code(0)
        }
        None => Outcome::Code(1),
    }
}

/// Numbers from 1 with at least `width` digits, a line each: output of any length.
async fn seq(shell: &Shell, target: Target, last: &str, width: usize) -> Outcome {
    let Ok(last) = last.parse::<u32>() else { return Outcome::Code(1) };
    let mut lines = String::new();
    for number in 1..=last {
        lines.push_str(&format!("{number:0width$}\n"));
        if lines.len() > PIECE || number == last {
            write(shell, target, std::mem::take(&mut lines).into_bytes()).await;
        }
    }
    Outcome::Code(0)
}

/// `kill [-N] $$`: the shell is the only process.
fn kill(arguments: &[&str]) -> Outcome {
    let signal = match arguments {
        [own] if *own == OWN_PID => 15,
        [signal, own] if *own == OWN_PID => match signal.trim_start_matches('-') {
            "HUP" => 1,
            "INT" => 2,
            "KILL" => 9,
            "TERM" => 15,
            number => match number.parse() {
                Ok(number) => number,
                Err(_) => return Outcome::Code(1),
            },
        },
        _ => return Outcome::Code(1),
    };
    Outcome::Signal(signal)
}

async fn power(shell: &mut Shell, end: GuestEnd) -> Outcome {
    let machine = &shell.machine;
    machine.sim.end_vmm(&machine.vm, Some(end), "the simulated guest went down by itself");
    // This command ends with the guest.
    std::future::pending().await
}

/// Size of a piece of output, in bytes.
const PIECE: usize = 32 * 1024;

/// Value of `$$`.
const OWN_PID: &str = "42";

/// Splits a script into commands.
fn parse(script: &str, env: &[(String, String)]) -> Result<Vec<Statement>, String> {
    let new = |if_ok| Statement { words: Vec::new(), target: Target::Stdout, if_ok };
    let (mut done, mut current) = (Vec::new(), new(false));
    let mut word: Option<String> = None;
    let mut characters = script.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\'' => {
                let text: String = characters.by_ref().take_while(|c| *c != '\'').collect();
                word.get_or_insert_default().push_str(&text);
            }
            '"' => loop {
                let word = word.get_or_insert_default();
                match characters.next() {
                    Some('"') => break,
                    Some('$') => word.push_str(&expand(&mut characters, env)),
                    Some('\\') => word.extend(characters.next()),
                    Some(other) => word.push(other),
                    None => return Err("a quote is not closed".into()),
                }
            },
            '\\' => word.get_or_insert_default().extend(characters.next()),
            '$' => word.get_or_insert_default().push_str(&expand(&mut characters, env)),
            ' ' | '\t' => current.words.extend(word.take()),
            ';' | '\n' => {
                current.words.extend(word.take());
                done.push(std::mem::replace(&mut current, new(false)));
            }
            '&' if characters.next_if_eq(&'&').is_some() => {
                current.words.extend(word.take());
                done.push(std::mem::replace(&mut current, new(true)));
            }
            '>' => {
                current.words.extend(word.take());
                let to: String = characters.by_ref().take(2).collect();
                if to != "&2" {
                    return Err("a simulated shell can only redirect to &2".into());
                }
                current.target = Target::Stderr;
            }
            '|' | '&' | '<' | '(' | '`' => {
                return Err(format!("a simulated shell does not know `{character}`"));
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    current.words.extend(word);
    done.push(current);
    done.retain(|statement| !statement.words.is_empty());
    Ok(done)
}

fn expand(
    characters: &mut std::iter::Peekable<std::str::Chars<'_>>,
    env: &[(String, String)],
) -> String {
    if characters.next_if_eq(&'$').is_some() {
        return OWN_PID.into();
    }
    let mut name = String::new();
    while let Some(next) = characters.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(next);
    }
    if name.is_empty() {
        return "$".into();
    }
    env.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(script: &str) -> Vec<Vec<String>> {
        let env = [("K".to_owned(), "a b".to_owned())];
        parse(script, &env).unwrap().into_iter().map(|statement| statement.words).collect()
    }

    #[test]
    fn scripts_are_split() {
        assert_eq!(words("echo out; exit 7"), [vec!["echo", "out"], vec!["exit", "7"]]);
        assert_eq!(words("echo 'a  b' \"$K;c\" d\\ e"), [vec!["echo", "a  b", "a b;c", "d e"]]);
        assert_eq!(words("kill -9 $$"), [vec!["kill", "-9", "42"]]);
        assert_eq!(words(" ;\n"), Vec::<Vec<String>>::new());
        let parsed = parse("echo err >&2 && true", &[]).unwrap();
        assert_eq!(parsed[0].target, Target::Stderr);
        assert!(parsed[1].if_ok && !parsed[0].if_ok);
        assert!(parse("a | b", &[]).is_err() && parse("echo \"x", &[]).is_err());
    }
}
