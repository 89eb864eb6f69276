//! `--wait`: the stage of a VM's start that a command waits for.

use std::time::Duration;

use banger_api::boot::{BootState, BootView, Wait, WaitFor};
use banger_api::hint::VmLog;
use banger_api::{ApiError, ErrorCode, Hint};
use banger_client::{AgentSession, Client};

use crate::context::Context;
use crate::errors::Failure;

/// Time limit of the wait without `--wait`; the command runs after it too.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// Time limit of a wait with `--wait`; its end is an error.
const EXPLICIT_TIMEOUT: Duration = Duration::from_secs(600);

/// Time after which a message about the wait is shown.
const MESSAGE_DELAY: Duration = Duration::from_millis(700);

/// For commands that start VMs.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct StartWait {
    /// Return when the guest agent answers, the guest is ready, or its init has booted: agent,
    /// ready or booted [default: ready]
    #[arg(long, value_name = "STAGE")]
    pub wait: Option<WaitFor>,
}

/// For commands that run something in a VM.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct CommandWait {
    /// Run it when the guest agent answers, the guest is ready, or its init has booted: agent,
    /// ready or booted [default: booted, for at most 60 s]
    #[arg(long, value_name = "STAGE")]
    pub wait: Option<WaitFor>,
}

fn wait_request(stage: WaitFor, limit: Duration) -> Wait {
    Wait { stage, timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) }
}

/// A connection to the agent of a VM for a command, after the stage has been reached.
pub async fn connection(
    context: &Context,
    client: &Client,
    vm: &str,
    wait: CommandWait,
) -> Result<AgentSession, Failure> {
    let (stage, limit) = match wait.wait {
        Some(stage) => (stage, EXPLICIT_TIMEOUT),
        None => (WaitFor::Booted, DEFAULT_TIMEOUT),
    };
    let connecting = client.agent_session_at(vm, wait_request(stage, limit));
    let (session, boot) = wait_with_message(context, vm, stage, connecting).await?;
    if stage == WaitFor::Booted && !boot.is_over() {
        context.info(&boot_timeout(vm, wait, limit)?);
    }
    Ok(session)
}

/// The message after a wait in which the guest's init did not finish booting, if the command runs
/// all the same.
fn boot_timeout(vm: &str, wait: CommandWait, limit: Duration) -> Result<String, ApiError> {
    match wait.wait {
        Some(_) => Err(not_booted(vm, limit)),
        None => Ok(format!(
            "the init of `{vm}` has not finished booting after {} s; running the command now \
             (`--wait ready` skips this wait, `banger vm logs {vm} --console` shows the progress)",
            limit.as_secs()
        )),
    }
}

/// After a start: with `--wait booted`, waits for the boot and reports failed services.
pub async fn after_start(
    context: &Context,
    client: &Client,
    vm: &str,
    wait: Option<WaitFor>,
) -> Result<(), Failure> {
    if wait != Some(WaitFor::Booted) {
        return Ok(());
    }
    let waiting = client.wait_boot(vm, wait_request(WaitFor::Booted, EXPLICIT_TIMEOUT));
    let boot = wait_with_message(context, vm, WaitFor::Booted, waiting).await?;
    if !boot.is_over() {
        return Err(not_booted(vm, EXPLICIT_TIMEOUT).into());
    }
    if let Some(text) = boot_warning(vm, &boot) {
        context.info(&text);
    }
    Ok(())
}

/// Follows a start to its end, or with `--wait agent` until the guest agent answers.
pub async fn started<T>(
    client: &Client,
    vm: &str,
    wait: Option<WaitFor>,
    followed: impl Future<Output = Result<T, Failure>>,
) -> Result<(), Failure> {
    let answers = async {
        let answered = match wait {
            Some(WaitFor::Agent) => {
                client.wait_boot(vm, wait_request(WaitFor::Agent, EXPLICIT_TIMEOUT)).await.is_ok()
            }
            _ => false,
        };
        // A start that fails is reported by its operation.
        if !answered {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        followed = followed => followed.map(|_| ()),
        () = answers => Ok(()),
    }
}

/// A warning about a finished boot, if there is a reason.
fn boot_warning(vm: &str, boot: &BootView) -> Option<String> {
    match boot.state {
        BootState::Degraded if boot.failed.is_empty() => {
            Some(format!("`{vm}` has booted in a degraded state ({})", boot.source))
        }
        BootState::Degraded => {
            Some(format!("`{vm}` has booted, but these failed: {}", boot.failed.join(", ")))
        }
        BootState::Unknown => Some(format!("`{vm}` is up: {}", boot.source)),
        BootState::Booting | BootState::Running => None,
    }
}

fn not_booted(vm: &str, limit: Duration) -> ApiError {
    let text = format!("`{vm}` has not finished booting after {} s", limit.as_secs());
    ApiError::new(ErrorCode::Timeout, text).with_hint(Hint::log(vm, VmLog::Console))
}

/// Waits until Ctrl-C, with a message if the wait is long.
async fn wait_with_message<T>(
    context: &Context,
    vm: &str,
    stage: WaitFor,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, Failure> {
    let work = context.interrupts.run_interruptible(work);
    tokio::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return Ok(done??),
        () = tokio::time::sleep(MESSAGE_DELAY) => {}
    }
    if stage == WaitFor::Booted {
        context.info(&format!("waiting until `{vm}` has booted; `--wait ready` does not wait"));
    }
    Ok(work.await??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_explicit_wait_for_a_boot_fails() {
        let message = boot_timeout("web", CommandWait { wait: None }, DEFAULT_TIMEOUT).unwrap();
        let expected = "the init of `web` has not finished booting after 60 s; running the command \
                        now (`--wait ready` skips this wait, `banger vm logs web --console` shows \
                        the progress)";
        assert_eq!(message, expected);
        let wait = CommandWait { wait: Some(WaitFor::Booted) };
        let error = boot_timeout("web", wait, EXPLICIT_TIMEOUT).unwrap_err();
        assert_eq!(error.code, ErrorCode::Timeout);
        assert_eq!(error.message, "`web` has not finished booting after 600 s");
        assert!(error.hint().unwrap().contains("vm logs web --console"), "{error:?}");
    }

    #[test]
    fn failed_services_are_named() {
        let boot = |state, failed: &[&str]| BootView {
            state,
            source: "systemd: degraded".into(),
            failed: failed.iter().map(ToString::to_string).collect(),
            ..BootView::booting()
        };
        let degraded = boot_warning("web", &boot(BootState::Degraded, &["a.service", "b.mount"]));
        assert_eq!(degraded.unwrap(), "`web` has booted, but these failed: a.service, b.mount");
        let degraded = boot_warning("web", &boot(BootState::Degraded, &[])).unwrap();
        assert!(degraded.contains("systemd: degraded"));
        assert_eq!(boot_warning("web", &boot(BootState::Running, &[])), None);
    }
}
