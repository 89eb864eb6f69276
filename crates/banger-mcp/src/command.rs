//! Commands in machines: their output with limits in time and size.

use std::collections::VecDeque;
use std::time::Duration;

use banger_api::boot::{Wait, WaitFor};
use banger_api::{ApiError, ErrorCode, Hint};
use banger_client::{Control, Exec as Command, ExecInput, ExecRequest, ExitStatus, Output};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::arguments::{
    Create, DEFAULT_OUTPUT_BYTES, DEFAULT_TIMEOUT_MS, Delete, Exec, MAX_OUTPUT_BYTES,
    MAX_TIMEOUT_MS, Run,
};
use crate::server::Call;
use crate::text;

/// Time limit for the boot of a machine that a command waits for; it runs after it too.
const BOOT_TIMEOUT_MS: u64 = 60_000;
/// Time between SIGTERM and SIGKILL for a command whose time is over.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// Time to wait for the end of a killed command.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// Most bytes of output in one message of progress.
const MAX_MESSAGE: usize = 4096;
/// Bytes of input sent at once.
const PIECE: usize = 64 * 1024;
const SIGTERM: u8 = 15;
const SIGKILL: u8 = 9;

/// Why a command was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overdue {
    Timeout,
    Cancelled,
}

impl Call<'_> {
    /// Runs a command.
    pub async fn exec(&mut self, wanted: Exec) -> Result<Value, ApiError> {
        let request = request(&wanted)?;
        let limits = Limits::of(&wanted)?;
        let wait = Wait { stage: WaitFor::Booted, timeout_ms: BOOT_TIMEOUT_MS };
        let connecting = self.client.agent_session_at(&wanted.vm, wait);
        let (session, _) = tokio::select! {
            connected = connecting => connected?,
            () = self.context.ct.cancelled() => return Err(cancelled()),
        };
        let command = Command::start(session, &request).await?;
        self.finish(command, wanted.stdin, limits).await
    }

    /// Runs a command in a machine of its own.
    pub async fn run(&mut self, wanted: Run) -> Result<Value, ApiError> {
        let Run { command, argv, image, vcpus, memory_mib, nat, env, stdin, .. } = wanted;
        let (timeout_ms, max_output_bytes) = (wanted.timeout_ms, wanted.max_output_bytes);
        let mut exec =
            Exec { command, argv, env, stdin, timeout_ms, max_output_bytes, ..Exec::default() };
        // Before a machine is made of it.
        request(&exec)?;
        Limits::of(&exec)?;
        let create = Create { image, vcpus, memory_mib, nat, ..Create::default() };
        let vm = self.make(create).await?;
        exec.vm = vm.id.to_string();
        let result = self.exec(exec).await;
        let removed = self.delete(Delete { vm: vm.id.to_string(), force: true }).await;
        // A failure of the command has priority over one of the removal.
        let value = result?;
        removed.map(|_| value)
    }

    async fn finish(
        &mut self,
        command: Command,
        stdin: Option<String>,
        limits: Limits,
    ) -> Result<Value, ApiError> {
        let Command { input, control, mut output } = command;
        let sending = send(input, stdin);
        tokio::pin!(sending);
        let mut kept = Kept::new(limits.output_bytes);
        let mut deadline = Instant::now() + limits.time;
        let (mut sent, mut overdue, mut killed) = (false, None, false);
        let status = loop {
            let reason = tokio::select! {
                // The first that is ready, so that output cannot hold up the end.
                biased;
                () = self.context.ct.cancelled(), if overdue.is_none() => Overdue::Cancelled,
                () = tokio::time::sleep_until(deadline) => Overdue::Timeout,
                piece = output.next() => {
                    if let Some(status) = self.piece(piece?, &mut kept, overdue.is_none()).await {
                        break Some(status);
                    }
                    continue;
                }
                () = &mut sending, if !sent => {
                    sent = true;
                    continue;
                }
            };
            let Some(grace) = end(&control, overdue.is_some(), killed) else { break None };
            killed = overdue.is_some();
            overdue.get_or_insert(reason);
            deadline = Instant::now() + grace;
        };
        if overdue == Some(Overdue::Cancelled) {
            return Err(cancelled());
        }
        result(status, kept, overdue.is_some())
    }

    /// Takes a piece of output; the status at the end.
    async fn piece(&mut self, piece: Output, kept: &mut Kept, tell: bool) -> Option<ExitStatus> {
        let (stream, data) = match piece {
            Output::Stdout(data) => (&mut kept.stdout, data),
            Output::Stderr(data) => (&mut kept.stderr, data),
            Output::Exit(status) => return Some(status),
        };
        stream.push(&data);
        if tell && self.progress.is_wanted() {
            for part in data.chunks(MAX_MESSAGE) {
                let by = u32::try_from(part.len()).unwrap_or(u32::MAX);
                self.progress.tell(by, text::lines(part)).await;
            }
        }
        None
    }
}

fn cancelled() -> ApiError {
    ApiError::new(ErrorCode::Cancelled, "the call was cancelled")
}

/// Ends a command in steps: SIGTERM, SIGKILL, then no more waiting.
fn end(control: &Control, is_ending: bool, is_killed: bool) -> Option<Duration> {
    match (is_ending, is_killed) {
        (false, _) => {
            control.signal(SIGTERM);
            Some(TERM_GRACE)
        }
        (true, false) => {
            control.signal(SIGKILL);
            Some(KILL_GRACE)
        }
        (true, true) => None,
    }
}

async fn send(input: Option<ExecInput>, text: Option<String>) {
    let (Some(input), Some(text)) = (input, text) else { return };
    let mut bytes = Bytes::from(text);
    while !bytes.is_empty() {
        if !input.send(bytes.split_to(bytes.len().min(PIECE))).await {
            return;
        }
    }
}

fn request(wanted: &Exec) -> Result<ExecRequest, ApiError> {
    let bad = |text: &str| ApiError::new(ErrorCode::BadRequest, text);
    let argv: Vec<String> = match (&wanted.command, wanted.argv.as_slice()) {
        (Some(_), [_, ..]) => return Err(bad("`command` and `argv` exclude each other")),
        (Some(command), []) if !command.trim().is_empty() => {
            vec!["/bin/sh".into(), "-c".into(), command.clone()]
        }
        (None, argv @ [_, ..]) => argv.to_vec(),
        (_, []) => {
            let hint = "set `command` to a command line for the shell";
            return Err(bad("there is no command").with_hint(Hint::text(hint)));
        }
    };
    Ok(ExecRequest {
        argv: argv.into_iter().map(Into::into).collect(),
        env: wanted.env.iter().map(|(n, v)| (n.as_str().into(), v.as_str().into())).collect(),
        cwd: wanted.workdir.as_deref().map(Into::into),
        user: wanted.user.clone(),
        stdin: wanted.stdin.is_some(),
        ..ExecRequest::default()
    })
}

struct Limits {
    time: Duration,
    output_bytes: usize,
}

impl Limits {
    fn of(wanted: &Exec) -> Result<Self, ApiError> {
        let ms = wanted.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
        let bytes = wanted.max_output_bytes.unwrap_or(DEFAULT_OUTPUT_BYTES);
        let bad = |text: String| Err(ApiError::new(ErrorCode::BadRequest, text));
        if !(1..=MAX_TIMEOUT_MS).contains(&ms) {
            return bad(format!("`timeout_ms` must be from 1 to {MAX_TIMEOUT_MS}"));
        }
        if !(1..=MAX_OUTPUT_BYTES).contains(&bytes) {
            return bad(format!("`max_output_bytes` must be from 1 to {MAX_OUTPUT_BYTES}"));
        }
        Ok(Self { time: Duration::from_millis(ms), output_bytes: bytes as usize })
    }
}

/// Kept output of both streams.
struct Kept {
    stdout: Stream,
    stderr: Stream,
}

impl Kept {
    fn new(limit: usize) -> Self {
        Self { stdout: Stream::new(limit), stderr: Stream::new(limit) }
    }
}

/// Beginning and end of a stream: what explains a failure is at either.
struct Stream {
    limit: usize,
    total: u64,
    first: Vec<u8>,
    last: VecDeque<u8>,
}

impl Stream {
    fn new(limit: usize) -> Self {
        Self { limit, total: 0, first: Vec::new(), last: VecDeque::new() }
    }

    fn push(&mut self, data: &[u8]) {
        self.total += data.len() as u64;
        let room = self.first_limit().saturating_sub(self.first.len()).min(data.len());
        let (first, rest) = data.split_at(room);
        self.first.extend_from_slice(first);
        self.last.extend(rest);
        let more = self.last.len().saturating_sub(self.limit - self.first_limit());
        self.last.drain(..more);
    }

    fn first_limit(&self) -> usize {
        self.limit - self.limit / 2
    }

    fn is_cut(&self) -> bool {
        self.total > (self.first.len() + self.last.len()) as u64
    }

    fn text(&mut self) -> String {
        let left_out = self.total - (self.first.len() + self.last.len()) as u64;
        let last = self.last.make_contiguous();
        if left_out == 0 {
            return text::lines(&[self.first.as_slice(), last].concat());
        }
        let (first, last) = (text::lines(&self.first), text::lines(last));
        format!("{first}\n[{left_out} bytes left out]\n{last}")
    }
}

fn result(status: Option<ExitStatus>, mut kept: Kept, timed_out: bool) -> Result<Value, ApiError> {
    if let Some(ExitStatus::NotStarted { message, .. }) = &status {
        return Err(ApiError::new(ErrorCode::NotFound, message.clone())
            .with_hint(Hint::text("`command` runs a command line with the shell")));
    }
    let signal = match &status {
        Some(ExitStatus::Signaled { signal }) => Some(*signal),
        _ => None,
    };
    Ok(json!({
        "exit_code": status.as_ref().map(ExitStatus::shell_code),
        "signal": signal,
        "timed_out": timed_out,
        "stdout": kept.stdout.text(),
        "stderr": kept.stderr.text(),
        "stdout_bytes": kept.stdout.total,
        "stderr_bytes": kept.stderr.total,
        "truncated": kept.stdout.is_cut() || kept.stderr.is_cut(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_end_of_long_output_are_kept() {
        let mut stream = Stream::new(10);
        for piece in ["0123", "45678", "9"] {
            stream.push(piece.as_bytes());
        }
        assert_eq!((stream.is_cut(), stream.text().as_str()), (false, "0123456789"));
        stream.push(b"abcdefghijklmnopqrstuvwxyz");
        assert!(stream.is_cut());
        assert_eq!(stream.text(), "01234\n[26 bytes left out]\nvwxyz");
        let mut one = Stream::new(1);
        one.push(b"abc");
        assert_eq!(one.text(), "a\n[2 bytes left out]\n");
    }

    #[test]
    fn a_command_is_a_line_or_arguments() {
        let exec = |command: Option<&str>, argv: &[&str]| {
            request(&Exec {
                command: command.map(str::to_owned),
                argv: argv.iter().map(|word| (*word).to_owned()).collect(),
                ..Exec::default()
            })
        };
        assert_eq!(exec(Some("ls | wc"), &[]).unwrap().argv[2], "ls | wc");
        assert_eq!(exec(None, &["ls", "-l"]).unwrap().argv.len(), 2);
        for (command, argv) in [(Some("ls"), &["ls"][..]), (None, &[]), (Some(" "), &[])] {
            assert!(exec(command, argv).is_err(), "{command:?} {argv:?}");
        }
    }
}
