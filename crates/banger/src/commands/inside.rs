//! `banger run --agent`: a coding agent in a machine, with its login of this host.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use banger_api::agent::{Agent, AgentLogin};
use banger_api::operation::VmTag;
use banger_api::{ApiError, ErrorCode, Hint, exit};
use banger_client::{Client, Exec, ExecRequest};
use bytes::Bytes;
use rustix::fs::OFlags;

use crate::context::Context;
use crate::errors::{Failure, usage};
use crate::render::warning;

/// Largest login file in bytes.
const MAX_LOGIN: u64 = 1 << 20;
/// Bytes of the guest's messages that are shown.
const MAX_MESSAGE: usize = 1024;
/// Exit code of [`SCRIPT`] if the agent is not there.
const ABSENT: u8 = exit::COMMAND_NOT_FOUND;

/// Looks for the program `$1`; writes its input to the file `$2` of the home folder, in one step
/// and for its user only. Without `$2` the file stays as it is.
const SCRIPT: &str = "command -v \"$1\" >/dev/null 2>&1 || exit 127
[ -n \"$2\" ] || exit 0
umask 077
cd 2>/dev/null || { echo \"the user has no home folder ($HOME)\" >&2; exit 1; }
mkdir -p \"${2%/*}\" && cat >\"$2.banger\" && mv -f \"$2.banger\" \"$2\"";

/// The login that the daemon hands over at each start, before the guest's init runs. Another user
/// of the guest than root gets it from [`prepare`].
pub fn login_of_root(agent: Option<Agent>, user: Option<&str>) -> Option<AgentLogin> {
    let agent = agent.filter(|_| is_root(user))?;
    let host = variable_path(agent)?.into_os_string();
    Some(AgentLogin { agent, host: host.into() })
}

/// Whether `USER[:GROUP]` is root, as it is by default.
pub fn is_root(user: Option<&str>) -> bool {
    user.is_none_or(|user| ["root", "0"].contains(&user.split(':').next().unwrap_or_default()))
}

/// The error for a command of a user who cannot enter the folder of a repository.
pub fn refuse_user(user: Option<&str>, folder: &Path) -> ApiError {
    let (user, folder) = (user.unwrap_or_default(), folder.display());
    usage(format!("user `{user}` of the machine cannot enter `{folder}`: `/root` is root's"))
        .with_hint(Hint::text("leave out `-u`, or name a folder that the user can enter with `-w`"))
}

/// Checks that the machine has the agent, and hands the agent's login file over to a user other
/// than root. A login that is missing or cannot be read is a warning.
///
/// # Errors
/// The machine does not have the agent, or the connection fails.
pub async fn prepare(
    context: &Context,
    client: &Client,
    vm: &VmTag,
    (agent, user): (Agent, Option<&str>),
) -> Result<(), Failure> {
    let login = match (is_root(user), host_login(agent)) {
        (true, _) => None,
        (false, Ok(login)) => Some(login),
        (false, Err(why)) => {
            let guest = agent.login();
            warning(&format!("{agent} login: {why}; the guest keeps what it has at `~/{guest}`"));
            None
        }
    };
    let hand_over = hand_over(client, vm, (agent, user), login);
    match context.interrupts.run_interruptible(hand_over).await?? {
        (0, _) => Ok(()),
        (ABSENT, _) => Err(absent(agent, vm).into()),
        (code, messages) => {
            let text = format!("the {agent} login cannot be written in `{}`", vm.name);
            let mut error = ApiError::new(ErrorCode::GuestFailed, text);
            error.causes.push(format!("exit code {code}: {}", messages.trim()));
            Err(error.into())
        }
    }
}

fn absent(agent: Agent, vm: &VmTag) -> ApiError {
    let text = format!("the machine `{}` has no program `{agent}`", vm.name);
    ApiError::new(ErrorCode::NotFound, text).with_hint(Hint::text(format!(
        "its npm package is {}: `banger image build NAME --from debian-dev --script FILE` makes an \
         image with `npm install -g {}`",
        agent.package(),
        agent.package()
    )))
}

/// Content of the agent's login file on this host.
///
/// # Errors
/// Why there is none, in words.
fn host_login(agent: Agent) -> Result<Vec<u8>, String> {
    let path = variable_path(agent).ok_or("the variable HOME is not set")?;
    let shown = path.display();
    read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("`{shown}` does not exist"),
        _ => format!("`{shown}` cannot be read: {error}"),
    })
}

fn variable_path(agent: Agent) -> Option<PathBuf> {
    login_path(agent, |name| std::env::var_os(name).map(PathBuf::from))
}

/// Path of the login file: where a variable of the agent puts it, else in the home folder.
fn login_path(agent: Agent, variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|path| path.is_absolute());
    match agent {
        Agent::Claude => set("CLAUDE_CONFIG_DIR").map(|folder| folder.join(".credentials.json")),
        Agent::Codex => set("CODEX_HOME").map(|folder| folder.join("auth.json")),
        Agent::Opencode => set("XDG_DATA_HOME")
            .map(|folder| folder.join("opencode/auth.json"))
            .filter(|path| path.exists()),
    }
    .or_else(|| Some(set("HOME")?.join(agent.login())))
}

/// Reads a file; a link to it is followed.
fn read(path: &PathBuf) -> io::Result<Vec<u8>> {
    // Does not wait for the writer of a named pipe.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_LOGIN + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_LOGIN {
        true => Err(io::Error::other("it has more than 1 MiB")),
        false => Ok(bytes),
    }
}

/// Runs [`SCRIPT`]; its exit code and messages.
async fn hand_over(
    client: &Client,
    vm: &VmTag,
    (agent, user): (Agent, Option<&str>),
    login: Option<Vec<u8>>,
) -> Result<(u8, String), ApiError> {
    let path = if login.is_some() { agent.login() } else { "" };
    let words = ["sh", "-c", SCRIPT, "sh", agent.as_str(), path];
    let request = ExecRequest {
        argv: words.map(Into::into).to_vec(),
        user: user.map(str::to_owned),
        stdin: true,
        ..ExecRequest::default()
    };
    let session = client.agent_session(vm.id.as_str()).await?;
    let Exec { input, mut output, .. } = Exec::start(session, &request).await?;
    if let (Some(input), Some(login)) = (&input, login) {
        // A script that has ended reads nothing.
        let _ = input.send(Bytes::from(login)).await;
    }
    drop(input);
    let (status, messages) = output.end(MAX_MESSAGE).await?;
    Ok((status.shell_code(), banger_api::excerpt(&String::from_utf8_lossy(&messages))))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_variable_of_the_agent_names_its_login() {
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/u"));
        let own = |name: &str| Some(PathBuf::from(format!("/of/{name}")));
        for (agent, at_home, elsewhere) in [
            (Agent::Claude, ".claude/.credentials.json", "CLAUDE_CONFIG_DIR/.credentials.json"),
            (Agent::Codex, ".codex/auth.json", "CODEX_HOME/auth.json"),
            // That file does not exist.
            (Agent::Opencode, ".local/share/opencode/auth.json", ""),
        ] {
            let path = PathBuf::from("/home/u").join(at_home);
            assert_eq!(login_path(agent, home), Some(path));
            let of_variable = match elsewhere {
                "" => PathBuf::from("/of/HOME").join(at_home),
                path => PathBuf::from("/of").join(path),
            };
            assert_eq!(login_path(agent, own), Some(of_variable));
            assert_eq!(login_path(agent, |_| None), None);
        }
    }

    #[test]
    fn only_a_small_file_is_a_login() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("login"), "x").unwrap();
        symlink("login", at("link")).unwrap();
        assert_eq!(read(&at("link")).unwrap(), b"x");
        std::fs::write(at("huge"), vec![0; (MAX_LOGIN + 1) as usize]).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        for (name, words) in [("huge", "more than"), ("pipe", "not a file"), (".", "not a file")] {
            let error = read(&at(name)).unwrap_err().to_string();
            assert!(error.contains(words), "{name}: {error}");
        }
        assert_eq!(read(&at("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
