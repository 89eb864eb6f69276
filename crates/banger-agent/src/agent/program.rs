//! The one program of a machine whose agent is init: prepared as container engines do (environment,
//! user, folder), started on the streams of a client, its end reported to process 1.
//!
//! ```text
//! agent → init   SIGRTMIN+6          the daemon has recorded that the machine runs: start it
//!                SIGRTMIN+7, a pid   a client has started it
//!                SIGRTMIN+8, a code  it has ended
//! ```

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use banger_agent_proto::boot::{Program, ProgramStart};
use banger_agent_proto::exec::{ExecRequest, ExitStatus};
use rustix::fs::{Gid, Uid};
use rustix::process::Pid;

use super::environment::Variables;
use super::exec::{self, Prepared, Started};
use super::http::Refusal;
use super::routes::Client;
use super::{Agent, cgroup, lookup, session, terminfo};
use crate::boot::uptime_ms;
use crate::sys::process::{self, ChildSetup, Namespaces, Terminal};
use crate::sys::signal::{self, realtime};

/// Time after the boot within which a client may attach, in milliseconds. Process 1 starts the
/// program by itself later ([`crate::boot::CLIENT_WAIT`]).
const ATTACH_MAX_MS: u64 = 50_000;

/// Signal: start the program.
pub fn go_signal() -> i32 {
    realtime(6)
}

/// Signal: the program runs as the process of the signal's value.
pub fn started_signal() -> i32 {
    realtime(7)
}

/// Signal: the program has ended with the exit code of the signal's value.
pub fn ended_signal() -> i32 {
    realtime(8)
}

/// The program of this machine, as the agent knows it.
pub struct Workload {
    program: Program,
    booted_ms: u64,
    taken: AtomicBool,
}

impl Workload {
    /// Of an agent that was started `restarts` times before; clients attach to the first one only.
    pub fn new(program: Program, restarts: u32) -> Self {
        Self { program, booted_ms: uptime_ms(), taken: AtomicBool::new(restarts > 0) }
    }

    /// The daemon knows that the machine runs.
    pub fn go(&self) {
        // Without the signal, process 1 starts the program a few seconds later.
        let _ = signal::send_value(Pid::INIT, go_signal(), 0);
    }

    /// Takes the right to start the program.
    fn take(&self) -> Result<(), Refusal> {
        let waits = self.program.start == ProgramStart::WithClient
            && uptime_ms().saturating_sub(self.booted_ms) < ATTACH_MAX_MS;
        if !waits || self.taken.swap(true, Ordering::AcqRel) {
            return Err(Refusal::new(409, "the program of this machine has been started already"));
        }
        Ok(())
    }
}

/// Starts the program on the streams of a client, and tells process 1 how it ended.
///
/// # Errors
/// Those of the connection, before the program runs.
pub fn attach(mut client: Client, request: &ExecRequest, agent: &Agent) -> std::io::Result<()> {
    let Some(workload) = &agent.workload else {
        return client.refuse(&Refusal::bad("this machine has no program of its own"));
    };
    if let Err(refusal) = workload.take() {
        return client.refuse(&refusal);
    }
    let request = combined(&workload.program, request);
    let group = || agent.commands.groups.group();
    let started = prepare(&workload.program, &request, &agent.commands.env, group)
        .and_then(|prepared| exec::launch(prepared, &request).map_err(|refusal| refusal.message));
    let switched = client.switch(banger_agent_proto::exec::UPGRADE);
    let (stream, early) = client.into_parts();
    let stream = OwnedFd::from(stream);
    let status = match started {
        Ok(Started::Running(running)) => {
            // From here on the program's end is the machine's, whatever becomes of the client.
            let pid = running.process.pid.as_raw_pid();
            let _ = signal::send_value(Pid::INIT, started_signal(), pid);
            let client = switched.and_then(|()| exec::nonblocking(stream)).ok();
            session::run_program(client, &early, running)
        }
        Ok(Started::Failed(status)) => not_started(&stream, status),
        Err(message) => {
            not_started(&stream, ExitStatus::NotStarted { code: exec::CANNOT_EXECUTE, message })
        }
    };
    let _ = signal::send_value(Pid::INIT, ended_signal(), i32::from(status.shell_code()));
    Ok(())
}

/// Tells the client, and waits until it has read that, since the machine ends next.
fn not_started(stream: &OwnedFd, status: ExitStatus) -> ExitStatus {
    // A client that is gone needs no answer.
    if stream.try_clone().and_then(|copy| session::not_started(copy, status.clone())).is_ok() {
        session::linger(stream);
    }
    status
}

/// The request with what the program decides itself.
fn combined(program: &Program, request: &ExecRequest) -> ExecRequest {
    ExecRequest {
        argv: program.argv.clone(),
        cwd: program.cwd.clone(),
        user: program.user.clone(),
        ..request.clone()
    }
}

/// The same without a client.
pub fn request(program: &Program) -> ExecRequest {
    combined(program, &ExecRequest::default())
}

/// Resolves user, folder, program and environment.
///
/// # Errors
/// What cannot be used, such as an unknown user.
pub fn prepare(
    program: &Program,
    request: &ExecRequest,
    configured: &BTreeMap<String, String>,
    group: impl FnOnce() -> Option<cgroup::Group>,
) -> Result<Prepared, String> {
    let wanted = program.user.as_deref().filter(|user| !user.is_empty()).unwrap_or("root");
    let user = exec::find_user(wanted).map_err(|refusal| refusal.message)?;
    let cwd = folder(program.cwd.as_ref().map_or(b"/".as_slice(), |cwd| cwd.as_bytes()))?;
    let env = variables(program, request, &user.home, configured);
    let name = program.argv.first().map(|name| name.as_os_str()).unwrap_or_default();
    let path = env.get(OsStr::new("PATH")).map(OsString::as_os_str).unwrap_or_default();
    let mut paths = lookup::candidates(name, path);
    lookup::skip_missing(&mut paths);
    let strings = |bytes: &[u8]| CString::new(bytes).map_err(|_| "a zero byte".to_owned());
    let argv: Result<Vec<_>, _> =
        program.argv.iter().map(|word| strings(word.as_bytes())).collect();
    let env: Result<Vec<_>, _> = env
        .iter()
        .map(|(name, value)| strings(&[name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect();
    let setup = ChildSetup {
        uid: Uid::from_raw(user.uid),
        gid: Gid::from_raw(user.gid),
        groups: user.groups.iter().copied().map(Gid::from_raw).collect(),
        cwd,
        terminal: Terminal::None,
        namespaces: namespaces(name),
    };
    let program = process::Program { paths, argv: argv?, env: env? };
    Ok(Prepared { program, setup, group: group(), user })
}

/// Programs that are written to be process 1 of a container: s6-overlay (`/init`), tini, dumb-init,
/// catatonit, phusion's baseimage. s6-overlay does not start as any other process.
const CONTAINER_INITS: [&str; 7] =
    ["init", "s6-svscan", "tini", "tini-static", "dumb-init", "catatonit", "my_init"];

/// A container's init gets a PID namespace of its own. Other programs do not: process 1 of a
/// namespace ignores each signal that it has no handler for (pid_namespaces(7)).
fn namespaces(program: &OsStr) -> Namespaces {
    let file = Path::new(program).file_name().and_then(OsStr::to_str);
    match file.is_some_and(|file| CONTAINER_INITS.contains(&file)) {
        true => Namespaces::PidAndMount,
        false => Namespaces::Inherited,
    }
}

/// The working folder, created as root if it is missing.
fn folder(path: &[u8]) -> Result<CString, String> {
    let absolute = if path.starts_with(b"/") { path.to_vec() } else { [b"/", path].concat() };
    let shown = String::from_utf8_lossy(&absolute).into_owned();
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(Path::new(OsStr::from_bytes(&absolute)));
    made.map_err(|error| format!("cannot make the working folder `{shown}`: {error}"))?;
    CString::new(absolute).map_err(|_| format!("`{shown}` has a zero byte"))
}

/// `PATH`, `HOSTNAME` and `HOME`; the configuration; the image's and the user's; the client's.
fn variables(
    program: &Program,
    request: &ExecRequest,
    home: &str,
    configured: &BTreeMap<String, String>,
) -> Variables {
    let mut env = Variables::new();
    env.insert("PATH".into(), lookup::default_path().into());
    env.insert("HOME".into(), home.into());
    let host = rustix::system::uname();
    env.insert("HOSTNAME".into(), OsStr::from_bytes(host.nodename().to_bytes()).into());
    if request.tty.is_some() {
        let wanted = request.term.as_deref().unwrap_or(terminfo::COMMON);
        env.insert("TERM".into(), terminfo::known(wanted, &terminfo::folders(home)).into());
    }
    env.extend(configured.iter().map(|(name, value)| (name.into(), value.into())));
    for variable in &program.env {
        let bytes = variable.as_bytes();
        let Some(at) = bytes.iter().position(|byte| *byte == b'=').filter(|at| *at > 0) else {
            continue;
        };
        let (name, value) = bytes.split_at(at);
        let value = value.get(1..).unwrap_or_default();
        env.insert(OsStr::from_bytes(name).into(), OsStr::from_bytes(value).into());
    }
    for (name, value) in &request.env {
        env.insert(name.as_os_str().into(), value.as_os_str().into());
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(argv: &[&str]) -> Program {
        Program {
            argv: argv.iter().map(|word| (*word).into()).collect(),
            env: Vec::new(),
            cwd: None,
            user: None,
            stop_signal: 15,
            start: ProgramStart::AfterBoot,
        }
    }

    fn prepared(program: &Program) -> Result<Prepared, String> {
        prepare(program, &request(program), &BTreeMap::new(), || None)
    }

    #[test]
    fn the_environment_is_that_of_a_container() {
        let mut wanted = program(&["sh", "-c", "x"]);
        wanted.env = ["PATH=/bin", "A=b=c", "A=2", "=x", "plain"].map(Into::into).into();
        let found = prepared(&wanted).unwrap().program;
        assert_eq!(found.paths, [c"/bin/sh".to_owned()]);
        let has = |text: &str| found.env.iter().any(|line| line.to_str() == Ok(text));
        assert!(has("PATH=/bin") && has("A=2") && !has("A=b=c") && !has("plain"));
        let names =
            |name: &str| found.env.iter().any(|line| line.to_bytes().starts_with(name.as_bytes()));
        assert!(names("HOME=") && names("HOSTNAME="));
        assert!(!names("SHELL=") && !names("USER=") && !names("TERM="), "{:?}", found.env);
    }

    #[test]
    fn the_clients_terminal_is_the_programs() {
        let wanted = program(&["sh"]);
        let size = banger_agent_proto::exec::WindowSize { rows: 24, cols: 80 };
        let asked = ExecRequest {
            tty: Some(size),
            env: vec![("COLORTERM".into(), "truecolor".into())],
            ..request(&wanted)
        };
        let configured = BTreeMap::from([("http_proxy".to_owned(), "http://p:1".to_owned())]);
        let found = prepare(&wanted, &asked, &configured, || None).unwrap().program.env;
        let has = |text: &str| found.iter().any(|line| line.to_str() == Ok(text));
        assert!(has("COLORTERM=truecolor") && has("http_proxy=http://p:1"));
        assert!(found.iter().any(|line| line.to_bytes().starts_with(b"TERM=")));
    }

    #[test]
    fn a_missing_folder_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let mut wanted = program(&["true"]);
        wanted.cwd = Some(path.clone().into_os_string().into());
        assert_eq!(prepared(&wanted).unwrap().setup.cwd.to_bytes(), path.as_os_str().as_bytes());
        assert!(path.is_dir());
        std::fs::write(dir.path().join("file"), "").unwrap();
        wanted.cwd = Some(dir.path().join("file").into_os_string().into());
        assert!(prepared(&wanted).err().unwrap().contains("working folder"));
    }

    #[test]
    fn users_are_names_or_numbers() {
        let mut wanted = program(&["true"]);
        wanted.user = Some("4242:0".into());
        let setup = prepared(&wanted).unwrap().setup;
        assert_eq!((setup.uid.as_raw(), setup.gid.as_raw()), (4242, 0));
        wanted.user = Some("no-such-user".into());
        assert!(prepared(&wanted).err().unwrap().contains("no-such-user"));
        wanted.user = Some(String::new());
        assert!(prepared(&wanted).unwrap().setup.uid.is_root());
    }

    #[test]
    fn an_init_of_containers_is_process_1_of_a_namespace() {
        for name in ["/init", "/sbin/my_init", "tini", "/usr/bin/dumb-init"] {
            assert_eq!(namespaces(OsStr::new(name)), Namespaces::PidAndMount, "{name}");
        }
        for name in ["/bin/sh", "/init/app", "sleep", "/sbin/initctl", "/", ""] {
            assert_eq!(namespaces(OsStr::new(name)), Namespaces::Inherited, "{name}");
        }
    }

    #[test]
    fn only_one_client_starts_the_program_in_time() {
        let wanted = Program { start: ProgramStart::WithClient, ..program(&["true"]) };
        let workload = Workload::new(wanted.clone(), 0);
        assert!(workload.take().is_ok());
        assert_eq!(workload.take().unwrap_err().status, 409);
        assert!(Workload::new(wanted.clone(), 1).take().is_err(), "after a restart of the agent");
        assert!(Workload::new(program(&["true"]), 0).take().is_err(), "it starts by itself");
        let mut late = Workload::new(wanted, 0);
        late.booted_ms = uptime_ms().saturating_sub(ATTACH_MAX_MS + 1);
        assert!(late.take().is_err());
    }
}
