//! The start of the server in the guest, and the wait until it answers.

use std::time::Duration;

use banger_agent_proto::exec::{Detached, ExecRequest};
use banger_api::opencode::{PASSWORD_VARIABLES, PORT};
use banger_engine::drivers::GuestCommand;
use banger_engine::plan::VmPlan;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::builds::command::Session;
use crate::guest::{SocketsByDriver, channel, clean};

/// The program of the server and of its restarts.
const SERVE: &str = include_str!("serve.sh");
/// Succeeds if the server has ended for good or again and again.
const HAS_FAILED: &str = include_str!("failed.sh");
/// How long a start waits for the server at least. Emulated, it needs one to two minutes.
const MIN_WAIT: Duration = Duration::from_secs(300);
/// Time between two looks at whether the server has failed, and time limit of each.
const LOOK: Duration = Duration::from_secs(10);
/// Time limit of the request that starts it.
const START: Duration = Duration::from_secs(20);
/// Time limit of the first attempt, doubled for each further one up to the second limit: a server
/// that is starting may accept a connection and never answer.
const ATTEMPT: Duration = Duration::from_secs(1);
const MAX_ATTEMPT: Duration = Duration::from_secs(10);
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the agent waits for the port in one attempt.
const PORT_WAIT: Duration = Duration::from_millis(500);
/// Begin of an answer of HTTP. Any status counts: without the password it is 401.
const ANSWER: &[u8] = b"HTTP/1.";

/// How long a start waits for the server: as long as for the guest, where that is longer.
pub fn wait(boot_timeout: Duration) -> Duration {
    boot_timeout.max(MIN_WAIT)
}

/// Starts the server and waits until it answers.
///
/// # Errors
/// A warning for the user: it could not be started, has failed, or does not answer in time.
pub async fn serve(
    vm: &VmPlan,
    sockets: &SocketsByDriver,
    password: &str,
    wait: Duration,
) -> Result<(), String> {
    let name = &vm.name;
    let Some(sockets) = sockets.get(&vm.drivers.vmm.name) else {
        return Err(format!("nothing leads to the guest of `{name}`: opencode is not started"));
    };
    let connect = async || sockets.connect(vm).await.map_err(|error| error.message);
    let started = timeout(START, async { start(connect().await?, password).await }).await;
    let started = started.unwrap_or_else(|_| Err("the agent did not answer in time".to_owned()));
    started.map_err(|why| format!("opencode was not started in `{name}`: {why}"))?;
    let deadline = Instant::now() + wait;
    let output = format!("`banger exec {name} -- cat /run/opencode/log` shows its output");
    let answered = timeout_at(deadline, async {
        let mut limit = ATTEMPT;
        let mut looked = Instant::now();
        loop {
            let attempt = async { answers(connect().await?).await };
            match timeout(limit, attempt).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(why)) => tracing::debug!(vm = %vm.id, why, "opencode"),
                Err(_) => limit = (limit * 2).min(MAX_ATTEMPT),
            }
            if looked.elapsed() >= LOOK {
                let look = async { has_failed(connect().await?, vm).await };
                // A guest that does not answer may do so later.
                if let Ok(Ok(true)) = timeout(LOOK, look).await {
                    return Err(format!("opencode does not run in `{name}`: {output}"));
                }
                looked = Instant::now();
            }
            sleep(PAUSE).await;
        }
    });
    answered.await.unwrap_or_else(|_| {
        let seconds = wait.as_secs();
        Err(format!(
            "opencode does not answer on port {PORT} of `{name}` after {seconds} s: {output}; \
             `boot_timeout_s` of the configuration makes the wait longer"
        ))
    })
}

/// Whether the server has ended for good.
async fn has_failed(stream: UnixStream, vm: &VmPlan) -> Result<bool, String> {
    let stream = channel::dial(stream).await.map_err(|failure| failure.to_string())?;
    let argv = ["/bin/sh", "-c", HAS_FAILED].map(str::to_owned).to_vec();
    let command = GuestCommand { purpose: "the look at opencode", argv, stdin: Vec::new() };
    let run = async {
        let mut session = Session::start(stream, vm, &command).await?;
        session.finish(vm, b"", &|_| {}).await
    };
    Ok(run.await.map_err(|error| error.message)?.code == 0)
}

/// Starts the program that runs the server.
async fn start(stream: UnixStream, password: &str) -> Result<(), String> {
    let request = ExecRequest {
        argv: ["/bin/sh", "-c", SERVE].map(Into::into).to_vec(),
        // Not in the arguments, which every process of the guest can read.
        env: PASSWORD_VARIABLES.map(|name| (name.into(), password.into())).to_vec(),
        cwd: Some("/".into()),
        ..ExecRequest::default()
    };
    match channel::ask::<Detached>(stream, "/detach", &request).await {
        Ok(Detached::Running { .. }) => Ok(()),
        Ok(Detached::NotStarted { message, .. }) => Err(clean(&message)),
        Err(failure) => Err(failure.to_string()),
    }
}

/// Whether the server answers a request without the password.
async fn answers(stream: UnixStream) -> Result<(), String> {
    let mut port = channel::port(stream, PORT, PORT_WAIT).await.map_err(|why| why.to_string())?;
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    port.write_all(request).await.map_err(|error| error.to_string())?;
    let mut begin = [0; ANSWER.len()];
    port.read_exact(&mut begin).await.map_err(|error| error.to_string())?;
    if begin == ANSWER { Ok(()) } else { Err("the answer is not HTTP".to_owned()) }
}
