//! `--ssh-agent`: the user's ssh agent (`ssh-agent(1)`) for one session in a machine.

use std::ffi::OsString;
use std::path::PathBuf;

use banger_api::{ApiError, ErrorCode, Hint};
use banger_client::{Client, ExecRequest};
use tokio::task::JoinHandle;

use crate::errors::usage;

/// Variable with the path of the agent's socket.
const VARIABLE: &str = "SSH_AUTH_SOCK";

/// The socket of the user's agent, if it is to be forwarded.
#[derive(Debug, Clone)]
pub struct SshAgent(Option<PathBuf>);

/// Ends the forwarding with the session.
pub struct Forwarding(JoinHandle<()>);

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl SshAgent {
    /// The agent of this process' environment, if `wanted`.
    ///
    /// # Errors
    /// There is none.
    pub fn of_environment(wanted: bool) -> Result<Self, ApiError> {
        if !wanted {
            return Ok(Self(None));
        }
        Self::at(std::env::var_os(VARIABLE)).map(|path| Self(Some(path)))
    }

    fn at(value: Option<OsString>) -> Result<PathBuf, ApiError> {
        let path = value.filter(|value| !value.is_empty()).map(PathBuf::from).ok_or_else(|| {
            usage(format!("`{VARIABLE}` is not set: there is no ssh agent here"))
                .with_hint(Hint::text("`eval $(ssh-agent)` starts one, `ssh-add` gives it keys"))
        })?;
        std::os::unix::net::UnixStream::connect(&path).map_err(|error| {
            let text = format!("the ssh agent at `{}` does not answer", path.display());
            ApiError::new(ErrorCode::BadRequest, text).caused_by(&error)
        })?;
        Ok(path)
    }

    /// Whether it is to be forwarded.
    pub fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// Makes a socket in the machine and adds it to the variables of the command.
    ///
    /// # Errors
    /// A machine that does not answer, or is on another host.
    pub async fn forward(
        &self,
        client: &Client,
        vm: &str,
        request: &mut ExecRequest,
    ) -> Result<Option<Forwarding>, ApiError> {
        let Some(path) = self.0.clone() else { return Ok(None) };
        let forward = client.forward(vm, request.user.as_deref()).await?;
        let value = OsString::from(&forward.path);
        request.env.push((OsString::from(VARIABLE).into(), value.into()));
        Ok(Some(Forwarding(tokio::spawn(forward.serve(path)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_is_not_there_is_an_error_before_anything_is_made() {
        assert!(SshAgent::of_environment(false).unwrap().0.is_none());
        assert!(SshAgent::at(None).unwrap_err().message.contains("is not set"));
        assert!(SshAgent::at(Some("".into())).unwrap_err().message.contains("is not set"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        let error = SshAgent::at(Some(path.clone().into())).unwrap_err();
        assert!(error.message.contains("does not answer"), "{error:?}");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(SshAgent::at(Some(path.clone().into())).unwrap(), path);
    }
}
