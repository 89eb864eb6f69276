//! Commands of a sandbox: each goes on when its client leaves, and can have several clients.
//!
//! A command has a number of this server, which is never used again; it is not its process id in
//! the guest. Its output is read only as fast as all of its clients receive it; without a client it
//! is discarded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use banger_api::ApiError;
use banger_client::{Control, Exec, ExecInput, ExecOutput, ExitStatus, Output};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::failure::{Code, Failure};
use crate::wire::Item;

/// Most commands of a sandbox at once.
pub const MAX_PROCESSES: usize = 256;
/// Most clients of a command.
const MAX_CLIENTS: usize = 32;
/// Messages that wait for a client.
const QUEUE: usize = 4;
/// SIGKILL.
pub const SIGKILL: u8 = 9;

/// A command as the client describes it.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// Program.
    pub cmd: String,
    /// Arguments.
    pub args: Vec<String>,
    /// Variables.
    pub envs: BTreeMap<String, String>,
    /// Working folder; absent: the user's home.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

/// A running command.
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// What was asked for.
    pub config: Config,
    /// The client's name for it.
    pub tag: Option<String>,
    /// Whether it has a terminal.
    pub is_terminal: bool,
    /// Signals for it.
    pub control: Control,
    /// Its input, until it is closed.
    input: tokio::sync::Mutex<Option<ExecInput>>,
    clients: Mutex<Vec<mpsc::Sender<Item>>>,
    /// Whether its time was over.
    timed_out: AtomicBool,
}

/// The commands of a sandbox.
#[derive(Default)]
pub struct Processes(Mutex<Running>);

#[derive(Default)]
struct Running {
    last: u32,
    by_pid: BTreeMap<u32, Arc<Process>>,
}

/// Which command a request is about.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Selector {
    /// Its number.
    Pid(u32),
    /// The client's name for it.
    Tag(String),
}

/// A command to be watched over.
pub struct Started {
    /// What was asked for.
    pub config: Config,
    /// The client's name for it.
    pub tag: Option<String>,
    /// Whether it has a terminal.
    pub is_terminal: bool,
    /// When it is killed.
    pub deadline: Option<Instant>,
    /// The command.
    pub exec: Exec,
}

impl Processes {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks whether there may be one more.
    ///
    /// # Errors
    /// There are too many.
    pub fn check(&self) -> Result<(), Failure> {
        if self.running().by_pid.len() < MAX_PROCESSES {
            return Ok(());
        }
        let text = format!("{MAX_PROCESSES} commands run in this sandbox: wait or kill some first");
        Err(Failure::new(Code::ResourceExhausted, text))
    }

    /// All commands.
    pub fn all(&self) -> Vec<Arc<Process>> {
        self.running().by_pid.values().cloned().collect()
    }

    /// A command.
    ///
    /// # Errors
    /// Absent from the request, or not running.
    pub fn find(&self, selector: Option<Selector>) -> Result<Arc<Process>, Failure> {
        let running = self.running();
        let (found, name) = match selector {
            None => return Err(Failure::invalid("the request names no command")),
            Some(Selector::Pid(pid)) => (running.by_pid.get(&pid), pid.to_string()),
            Some(Selector::Tag(tag)) => {
                let has = |process: &&Arc<Process>| process.tag.as_deref() == Some(&tag);
                (running.by_pid.values().find(has), banger_api::excerpt(&tag))
            }
        };
        let text = || format!("there is no running command `{name}` of this server");
        found.cloned().ok_or_else(|| Failure::new(Code::NotFound, text()))
    }
}

/// Watches over a command from now on; returns it and what its first client receives.
pub fn watch_over(
    sandbox: Arc<crate::sandboxes::Sandbox>,
    started: Started,
) -> (Arc<Process>, mpsc::Receiver<Item>) {
    let Started { config, tag, is_terminal, deadline, exec } = started;
    let Exec { input, control, output } = exec;
    let (to, from) = mpsc::channel(QUEUE);
    let process = {
        let mut running = sandbox.processes.running();
        running.last += 1;
        let process = Arc::new(Process {
            pid: running.last,
            config,
            tag,
            is_terminal,
            control,
            input: tokio::sync::Mutex::new(input),
            clients: Mutex::new(vec![to]),
            timed_out: AtomicBool::new(false),
        });
        running.by_pid.insert(process.pid, process.clone());
        process
    };
    let watched = process.clone();
    tokio::spawn(async move {
        let killer = deadline.map(|deadline| tokio::spawn(kill_at(watched.clone(), deadline)));
        let end = pump(&watched, output).await;
        if let Some(killer) = killer {
            killer.abort();
        }
        sandbox.processes.running().by_pid.remove(&watched.pid);
        let clients = std::mem::take(&mut *watched.clients());
        for client in clients {
            for item in &end {
                // It may have left.
                let _ = client.send(item.clone()).await;
            }
        }
    });
    (process, from)
}

/// Kills the command when its time is over, also while its output waits for a client.
async fn kill_at(process: Arc<Process>, deadline: Instant) {
    tokio::time::sleep_until(deadline).await;
    process.timed_out.store(true, Ordering::Relaxed);
    loop {
        process.control.signal(SIGKILL);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Passes output to all clients until the command ends; the last items.
async fn pump(process: &Process, mut output: ExecOutput) -> Vec<Item> {
    loop {
        let (stream, data) = match output.next().await {
            Ok(Output::Stdout(data)) if process.is_terminal => ("pty", data),
            Ok(Output::Stdout(data)) => ("stdout", data),
            Ok(Output::Stderr(data)) => ("stderr", data),
            Ok(Output::Exit(_)) if process.timed_out.load(Ordering::Relaxed) => {
                let text = "the command was killed: its time limit is over";
                return vec![Item::Failed(Failure::new(Code::DeadlineExceeded, text))];
            }
            Ok(Output::Exit(status)) => return ended(status),
            Err(error) => return vec![Item::Failed(lost(&error))],
        };
        let data = json!({ "data": { stream: BASE64_STANDARD.encode(data) } });
        process.send(&event(data)).await;
    }
}

/// The sandbox may have ended: the SDKs ask for its state after this error.
fn lost(error: &ApiError) -> Failure {
    let text = format!("the connection to the sandbox was lost: {}", error.message);
    Failure::new(Code::Unavailable, text)
}

fn event(event: Value) -> Item {
    Item::Message(json!({ "event": event }))
}

/// The last items of a command that has ended, as E2B's agent words them.
fn ended(status: ExitStatus) -> Vec<Item> {
    let (code, status, message) = match status {
        ExitStatus::Exited { code } => (i32::from(code), format!("exit status {code}"), None),
        ExitStatus::Signaled { signal } => (-1, format!("signal: {}", signal_name(signal)), None),
        ExitStatus::NotStarted { code, message } => {
            let message = format!("{message}; the SDK runs commands with /bin/bash\n");
            (i32::from(code), format!("exit status {code}"), Some(message))
        }
    };
    let mut end = json!({ "exitCode": code, "exited": code >= 0, "status": status });
    if let (Some(object), true) = (end.as_object_mut(), code != 0) {
        object.insert("error".into(), json!(status));
    }
    let said =
        message.map(|text| event(json!({ "data": { "stderr": BASE64_STANDARD.encode(text) } })));
    said.into_iter().chain([event(json!({ "end": end })), Item::End]).collect()
}

fn signal_name(signal: u8) -> String {
    match signal {
        1 => "hangup".into(),
        2 => "interrupt".into(),
        9 => "killed".into(),
        11 => "segmentation fault".into(),
        15 => "terminated".into(),
        other => format!("signal {other}"),
    }
}

impl Process {
    fn clients(&self) -> MutexGuard<'_, Vec<mpsc::Sender<Item>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends to all clients; those that have left are forgotten.
    async fn send(&self, item: &Item) {
        let clients = self.clients().clone();
        for client in &clients {
            // A failure means that it has left.
            let _ = client.send(item.clone()).await;
        }
        self.clients().retain(|client| !client.is_closed());
    }

    /// Adds a client, which receives the output from now on.
    ///
    /// # Errors
    /// It has too many.
    pub fn connect(&self) -> Result<mpsc::Receiver<Item>, Failure> {
        let mut clients = self.clients();
        clients.retain(|client| !client.is_closed());
        if clients.len() >= MAX_CLIENTS {
            let text = format!("the command has {MAX_CLIENTS} clients already");
            return Err(Failure::new(Code::ResourceExhausted, text));
        }
        let (to, from) = mpsc::channel(QUEUE);
        clients.push(to);
        Ok(from)
    }

    /// Sends input, as fast as the command takes it.
    ///
    /// # Errors
    /// Its input is closed.
    pub async fn send_input(&self, data: Vec<u8>) -> Result<(), Failure> {
        let input = self.input.lock().await;
        let closed = "the command has no input: start it with `stdin=True`, and before \
            `close_stdin`";
        match &*input {
            Some(input) if input.send(Bytes::from(data)).await => Ok(()),
            _ => Err(Failure::new(Code::FailedPrecondition, closed)),
        }
    }

    /// Closes its input; it may be closed already.
    pub async fn close_input(&self) {
        self.input.lock().await.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_of(status: ExitStatus) -> Value {
        let items = ended(status);
        let [.., Item::Message(end), Item::End] = items.as_slice() else { panic!("{items:?}") };
        end["event"]["end"].clone()
    }

    #[test]
    fn ends_are_worded_as_the_sdk_expects() {
        let fine = end_of(ExitStatus::Exited { code: 0 });
        assert_eq!(fine, json!({ "exitCode": 0, "exited": true, "status": "exit status 0" }));
        assert_eq!(end_of(ExitStatus::Exited { code: 3 })["error"], "exit status 3");
        let killed = end_of(ExitStatus::Signaled { signal: 9 });
        assert_eq!((&killed["exitCode"], &killed["exited"]), (&json!(-1), &json!(false)));
        assert_eq!(killed["error"], "signal: killed");
        let missing = ended(ExitStatus::NotStarted { code: 127, message: "no bash".into() });
        assert_eq!(missing.len(), 3, "the reason is shown as error output");
    }
}
