//! Carries out requests: who asks, whether the VM is theirs, and the one function that does it.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use banger_base::VmId;
use banger_shim::gate::Gate;

use crate::admission::{Admission, hung_up};
use crate::disks::snapshot;
use crate::error::{Kind, RootError};
use crate::jail::{self, Wanted};
use crate::places::Places;
use crate::programs::{Programs, Versions};
use crate::run;
use crate::words::{Answer, Did, Drive, DriveFrom, Finding, Launch, Request};
use crate::{net, owner, wire};

/// Connections served at the same time; more wait.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to ask.
const ASKS_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to open a gate, and to read an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause after a connection that could not be taken: out of descriptors, say.
const PAUSE: Duration = Duration::from_millis(100);
/// Drives of a VM.
const MAX_DRIVES: usize = 4;

/// What it works with.
#[derive(Debug, Clone)]
pub struct Server {
    /// Folders and names.
    pub places: Places,
    /// Programs.
    pub programs: Programs,
    /// Which build this is.
    pub build_id: String,
    /// Which versions the programs are of.
    pub versions: Versions,
    /// For tests: a file with the name of the point at which to abort, once.
    pub abort_once: Option<PathBuf>,
}

/// What became of a request.
pub enum Outcome {
    /// An answer, with a descriptor where it has one.
    Answered(Answer, Option<OwnedFd>),
    /// A shim waits at its gate.
    AtGate(Gate),
}

impl From<Did> for Outcome {
    fn from(did: Did) -> Self {
        Self::Answered(Answer::Did(did), None)
    }
}

fn local(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

impl Server {
    /// Carries out a request of a user.
    ///
    /// # Errors
    /// It is not theirs to ask, or it failed.
    pub fn carry_out(
        &self,
        uid: u32,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<Outcome, RootError> {
        let places = &self.places;
        let own = |vm: &VmId| owner::check(places, uid, vm);
        let undo = |vm: &VmId| owner::check_undo(places, uid, vm);
        let answered = |answer| Ok(Outcome::Answered(answer, None));
        match request {
            Request::Hello => answered(Answer::Hello(self.build_id.clone())),
            Request::Make { vm } => owner::make(places, uid, &vm).map(Outcome::from),
            Request::Remove { vm } => owner::remove(places, uid, &vm).map(Outcome::from),
            Request::NetAttach { vm, nat } => {
                own(&vm)?;
                net::attach(places, uid, &vm, nat)
                    .and_then(|(did, lease)| answered(Answer::Leased(did, lease)))
            }
            Request::NetDetach { vm } => {
                undo(&vm)?;
                net::detach(places, &vm).map(Outcome::from)
            }
            Request::NetEnsure => {
                net::refill(places)?;
                net::ensure(places).map(Outcome::from)
            }
            Request::RouteDns { port } => net::route_dns(places, local(port)).map(Outcome::from),
            Request::UnrouteDns { port } => {
                net::unroute_dns(places, local(port)).map(Outcome::from)
            }
            Request::SnapshotAttach { vm, root_bytes } => {
                own(&vm)?;
                let [image, layer] = take(fds)?;
                let (did, _) = snapshot::attach(&vm, image.as_fd(), layer.as_fd(), root_bytes)?;
                Ok(did.into())
            }
            Request::SnapshotDetach { vm } => {
                undo(&vm)?;
                snapshot::detach(&vm).map(Outcome::from)
            }
            Request::JailMake { vm, drives } => {
                own(&vm)?;
                self.make_jail(uid, &vm, drives, fds)
            }
            Request::JailClear { vm } => {
                undo(&vm)?;
                self.clear_jail(&vm).map(Outcome::from)
            }
            Request::Spawn { vm } => {
                own(&vm)?;
                run::spawn(places, &self.programs, &vm).map(Outcome::AtGate)
            }
            Request::End { vm } => {
                undo(&vm)?;
                run::end(places, &vm).map(Outcome::from)
            }
            Request::Facts { vm } => {
                own(&vm)?;
                answered(Answer::Facts(Box::new(run::facts(places, &vm))))
            }
            Request::Connect { vm, socket } => {
                own(&vm)?;
                let socket = jail::connect(places, &vm, socket)?;
                Ok(Outcome::Answered(Answer::Descriptor, Some(socket)))
            }
            Request::CloseHello { vm } => {
                own(&vm)?;
                jail::close_hello(places, &vm).map(Outcome::from)
            }
            Request::Ready => self.versions.check(&self.programs).map(|_| Did::WasThere.into()),
            Request::Findings => answered(Answer::Findings(self.findings())),
        }
    }

    fn make_jail(
        &self,
        uid: u32,
        vm: &VmId,
        drives: Vec<Drive>,
        fds: Vec<OwnedFd>,
    ) -> Result<Outcome, RootError> {
        let files = drives.iter().filter(|drive| drive.from == DriveFrom::File).count();
        if drives.len() > MAX_DRIVES || fds.len() != files + 2 {
            let text = format!("{} descriptors for {} drives", fds.len(), drives.len());
            return Err(RootError::new(Kind::BadRequest, text));
        }
        let mut fds = fds.into_iter();
        let [kernel, initramfs] = take(fds.by_ref().take(2).collect())?;
        let with_file = |drive: Drive| {
            let file = (drive.from == DriveFrom::File).then(|| fds.next()).flatten();
            (drive, file)
        };
        let wanted =
            Wanted { kernel, initramfs, drives: drives.into_iter().map(with_file).collect() };
        run::forget(&self.places, vm)?;
        let vmm = self.programs.vmm_name()?;
        let listener = jail::make(&self.places, (uid, &vmm), vm, &wanted)?;
        Ok(Outcome::Answered(Answer::Descriptor, Some(listener.into())))
    }

    fn clear_jail(&self, vm: &VmId) -> Result<Did, RootError> {
        run::forget(&self.places, vm)?;
        jail::clear(&self.places, vm)
    }

    /// Opens a gate.
    ///
    /// # Errors
    /// What jailer or VMM failed at.
    pub fn launch(
        &self,
        uid: u32,
        vm: &VmId,
        gate: Gate,
        launch: Launch,
    ) -> Result<Answer, RootError> {
        let config = run::config(&self.places, &self.programs, (uid, vm), launch)?;
        run::open(&self.places, vm, gate, &config).map(Answer::Launched)
    }

    /// What the host has and lacks.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = net::findings(&self.places)
            .into_iter()
            .map(|net::Finding { code, ok, seen, hint }| Finding { code, ok, seen, hint })
            .collect();
        findings.push(match self.versions.check(&self.programs) {
            Ok(version) => Finding {
                code: "program.firecracker".into(),
                ok: true,
                seen: format!("Firecracker {version} and its jailer"),
                hint: None,
            },
            Err(error) => Finding {
                code: "program.firecracker".into(),
                ok: false,
                seen: error.message,
                hint: error.hint,
            },
        });
        let controllers = self.places.cgroups.join("cgroup.controllers");
        let has = std::fs::read_to_string(&controllers).unwrap_or_default();
        let ok = ["memory", "pids"].iter().all(|name| has.split_whitespace().any(|c| c == *name));
        findings.push(Finding {
            code: "cgroup2".into(),
            ok,
            seen: format!("controllers: {}", has.trim()),
            hint: (!ok).then(|| "boot with systemd.unified_cgroup_hierarchy=1".into()),
        });
        findings
    }

    /// Reaches a point at which a test may want this process to die.
    fn reach(&self, request: &str, when: &str) {
        let Some(file) = &self.abort_once else { return };
        let point = format!("{request}.{when}");
        if std::fs::read_to_string(file).is_ok_and(|wanted| wanted.trim() == point)
            && std::fs::remove_file(file).is_ok()
        {
            std::process::abort();
        }
    }

    /// Serves one connection: one request, and for a gate what opens it.
    fn serve(&self, stream: &UnixStream, uid: u32, admission: &Admission) -> std::io::Result<()> {
        stream.set_read_timeout(Some(ASKS_WITHIN))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let Some((request, fds)) = wire::receive::<Request>(stream)? else { return Ok(()) };
        stream.set_read_timeout(Some(PATIENCE))?;
        let guard = request.changes().map(|vm| admission.take(vm));
        // Whoever asked was killed meanwhile; who comes after it decides anew.
        if hung_up(stream) {
            return Ok(());
        }
        let name = request.name();
        let of = match &request {
            Request::Spawn { vm } => Some(vm.clone()),
            _ => None,
        };
        self.reach(&name, "before");
        let done = self.carry_out(uid, request, fds);
        self.reach(&name, "after");
        // An end must not wait for what it ends: a gate is waited at without.
        drop(guard);
        match (done, of) {
            (Ok(Outcome::Answered(answer, fd)), _) => {
                let fds: Vec<BorrowedFd<'_>> = fd.iter().map(AsFd::as_fd).collect();
                wire::send(stream, &Ok::<_, RootError>(answer), &fds)
            }
            (Ok(Outcome::AtGate(gate)), Some(vm)) => {
                let spawned = Answer::Spawned(gate.process());
                wire::send(stream, &Ok::<_, RootError>(spawned), &[])?;
                // A client that left has not written the shim down: the gate stays shut.
                let Some((launch, _)) = wire::receive::<Launch>(stream)? else { return Ok(()) };
                self.reach("launch", "before");
                let launched = self.launch(uid, &vm, gate, launch);
                self.reach("launch", "after");
                wire::send(stream, &launched, &[])
            }
            (Ok(Outcome::AtGate(_)), None) => Ok(()),
            (Err(error), _) => wire::send(stream, &Err::<Answer, _>(error), &[]),
        }
    }
}

fn take<const N: usize>(fds: Vec<OwnedFd>) -> Result<[OwnedFd; N], RootError> {
    fds.try_into().map_err(|fds: Vec<OwnedFd>| {
        RootError::new(Kind::BadRequest, format!("{} descriptors came, not {N}", fds.len()))
    })
}

/// Serves connections of these users, and of root, for ever.
///
/// # Errors
/// accept(2).
pub fn listen(server: Server, listener: &UnixListener, owners: &[u32]) -> std::io::Result<()> {
    let server = Arc::new(server);
    let admission = Admission::default();
    loop {
        let slot = admission.slot(MAX_CONNECTIONS);
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            // Nothing that waiting would mend: the listener itself is wrong.
            Err(error) if error.kind() == ErrorKind::InvalidInput => return Err(error),
            Err(error) => {
                eprintln!("banger-root: a connection was not taken: {error}");
                std::thread::sleep(PAUSE);
                continue;
            }
        };
        let Ok(peer) = banger_sys::peer::peer(&stream) else { continue };
        if peer.uid != 0 && !owners.contains(&peer.uid) {
            let hint = "`sudo banger-root install --owner USER` lets a user in";
            let error =
                RootError::new(Kind::Refused, "banger-root serves other users").with_hint(hint);
            // Who is refused need not listen.
            let _ = wire::send(&stream, &Err::<Answer, _>(error), &[]);
            continue;
        }
        let (server, admission) = (server.clone(), admission.clone());
        std::thread::spawn(move || {
            let _slot = slot;
            if let Err(error) = server.serve(&stream, peer.uid, &admission) {
                eprintln!("banger-root: a connection of uid {}: {error}", peer.uid);
                let refusal = RootError::new(Kind::BadRequest, error.to_string());
                let _ = wire::send(&stream, &Err::<Answer, _>(refusal), &[]);
            }
        });
    }
}
