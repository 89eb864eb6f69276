//! Serves requests: checks that the client owns the VM, and calls the function of the request.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use banger_base::{HostHint, VmId};
use banger_shim::gate::Gate;
use banger_sys::stdio::error_line;

use crate::admission::{Admitted, Limits, Slot, Slots, VmLocks, hung_up};
use crate::disks::snapshot;
use crate::error::{Hints, Kind, RootError};
use crate::jail::{self, Wanted};
use crate::places::Places;
use crate::programs::{Programs, Versions};
use crate::protocol::{Answer, Did, Drive, DriveFrom, Finding, Launch, Request};
use crate::run;
use crate::{net, owner, traces, wire};

/// Connection limits of each user.
const LIMITS: Limits = Limits { served: 64, waiting: 256 };
/// Time limit for a client to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for a client to record a shim and open its gate.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit for a client to read the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after a failed accept(2), for example if no descriptors are free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Maximum number of drives of a VM.
const MAX_DRIVES: usize = 4;

/// A function that is called with the name of each point of a request that is reached:
/// `REQUEST.before`, `REQUEST.after`, and `launch.before` and `launch.after` for a gate.
pub type Failpoint = fn(point: &str);

/// The server's environment.
#[derive(Debug, Clone)]
pub struct Server {
    /// Folders and names.
    pub places: Places,
    /// Programs.
    pub programs: Programs,
    /// Build id.
    pub build_id: String,
    /// Cache of program versions.
    pub versions: Versions,
    /// Called before and after each request; only the helper for tests has one.
    pub failpoint: Option<Failpoint>,
}

/// Result of a request.
pub enum Outcome {
    /// An answer, with a descriptor if the request returns one.
    Answered(Answer, Option<OwnedFd>),
    /// A shim that waits at its gate.
    AtGate(Gate),
}

impl From<Did> for Outcome {
    fn from(did: Did) -> Self {
        Self::Answered(Answer::Did(did), None)
    }
}

impl From<OwnedFd> for Outcome {
    fn from(descriptor: OwnedFd) -> Self {
        Self::Answered(Answer::Descriptor, Some(descriptor))
    }
}

fn local(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

impl Server {
    /// Carries out a request of a user.
    ///
    /// # Errors
    /// `Refused` if the user does not own the VM; otherwise the errors of the operation.
    pub fn carry_out(
        &self,
        uid: u32,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<Outcome, RootError> {
        let places = &self.places;
        self.check_owner(uid, &request)?;
        let answered = |answer| Ok(Outcome::Answered(answer, None));
        match request {
            Request::Hello => answered(Answer::Hello(self.build_id.clone())),
            Request::Make { vm } => owner::make(places, uid, &vm).map(Outcome::from),
            Request::SetHome { vm, home } => {
                traces::set_home(places, &vm, &home).map(Outcome::from)
            }
            Request::Remove { vm } => owner::remove(places, uid, &vm).map(Outcome::from),
            Request::NetAttach { vm, nat } => net::attach(places, uid, &vm, nat)
                .and_then(|(did, lease)| answered(Answer::Leased(did, lease))),
            Request::NetDetach { vm } => net::detach(places, &vm).map(Outcome::from),
            Request::TapOpen { vm } => net::open_tap(places, &vm).map(Outcome::from),
            Request::NetEnsure => {
                net::refill(places)?;
                net::ensure(places).map(Outcome::from)
            }
            Request::RouteDns { port } => net::route_dns(places, local(port)).map(Outcome::from),
            Request::UnrouteDns { port } => {
                net::unroute_dns(places, local(port)).map(Outcome::from)
            }
            Request::SnapshotAttach { vm, root_bytes } => {
                let [image, layer] = take(fds)?;
                snapshot::attach(&vm, image.as_fd(), layer.as_fd(), root_bytes)
                    .map(|(did, _)| did.into())
            }
            Request::SnapshotDetach { vm } => snapshot::detach(&vm).map(Outcome::from),
            Request::SnapshotOpen { vm, access } => snapshot::open(&vm, access).map(Outcome::from),
            Request::SnapshotReload { vm } => snapshot::reload(&vm).map(Outcome::from),
            Request::SnapshotReady => snapshot::check().map(|()| Did::WasThere.into()),
            Request::JailMake { vm, drives } => self.make_jail(uid, &vm, drives, fds),
            Request::JailClear { vm } => self.clear_jail(&vm).map(Outcome::from),
            Request::Spawn { vm } => {
                run::spawn(places, &self.programs, (uid, &vm)).map(Outcome::AtGate)
            }
            Request::End { vm } => run::end(places, &vm).map(Outcome::from),
            Request::Facts { vm } => {
                let (run, status) = run::facts(places, &vm);
                answered(Answer::Facts { run: Box::new(run), status })
            }
            Request::Connect { vm, socket } => {
                jail::connect(places, &vm, socket).map(Outcome::from)
            }
            Request::CloseHello { vm } => jail::close_hello(places, &vm).map(Outcome::from),
            Request::VmsOf { home } => {
                traces::vms_of(places, uid, &home).and_then(|vms| answered(Answer::Vms(vms)))
            }
            Request::Objects { vm } => {
                traces::objects(places, &vm).and_then(|found| answered(Answer::Objects(found)))
            }
            Request::Ready => self.versions.check(&self.programs).map(|_| Did::WasThere.into()),
            Request::Findings => answered(Answer::Findings(self.findings())),
        }
    }

    /// Checks that the user owns the VM of a request; an undo may name a VM that no longer exists.
    fn check_owner(&self, uid: u32, request: &Request) -> Result<(), RootError> {
        match request {
            Request::SetHome { vm, .. }
            | Request::NetAttach { vm, .. }
            | Request::TapOpen { vm }
            | Request::SnapshotAttach { vm, .. }
            | Request::SnapshotOpen { vm, .. }
            | Request::SnapshotReload { vm }
            | Request::JailMake { vm, .. }
            | Request::Spawn { vm }
            | Request::Facts { vm }
            | Request::Connect { vm, .. }
            | Request::CloseHello { vm } => owner::check(&self.places, uid, vm),
            Request::NetDetach { vm }
            | Request::SnapshotDetach { vm }
            | Request::JailClear { vm }
            | Request::Objects { vm }
            | Request::End { vm } => owner::check_undo(&self.places, uid, vm),
            // The first two check it as they change it, `vms_of` for each VM; the others have none.
            Request::Make { .. }
            | Request::Remove { .. }
            | Request::VmsOf { .. }
            | Request::Hello
            | Request::NetEnsure
            | Request::RouteDns { .. }
            | Request::UnrouteDns { .. }
            | Request::SnapshotReady
            | Request::Ready
            | Request::Findings => Ok(()),
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
    /// Errors of jailer and VMM.
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

    /// Checks of the host for `banger doctor`.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = net::findings(&self.places);
        findings.push(match self.versions.check(&self.programs) {
            Ok(version) => Finding {
                code: "program.firecracker".into(),
                ok: true,
                seen: format!("Firecracker {version} and its jailer"),
                hints: Hints::default(),
            },
            Err(error) => Finding {
                code: "program.firecracker".into(),
                ok: false,
                seen: error.message,
                hints: error.hints,
            },
        });
        let groups = jail::check_cgroups(&self.places);
        findings.push(Finding {
            code: "cgroup2".into(),
            ok: groups.is_ok(),
            hints: Hints(groups.is_err().then(cgroup2_parameter).into_iter().collect()),
            seen: groups.unwrap_or_else(|why| why),
        });
        findings
    }

    fn reach(&self, request: &str, when: &str) {
        if let Some(failpoint) = self.failpoint {
            failpoint(&format!("{request}.{when}"));
        }
    }

    /// Serves one connection: one request, and for a gate the configuration that opens it.
    fn serve(&self, stream: &UnixStream, uid: u32, locks: &VmLocks) -> std::io::Result<()> {
        let received = wire::receive::<Request>(stream, Instant::now() + REQUEST_TIMEOUT)?;
        let Some((request, fds)) = received else { return Ok(()) };
        let guard = request.changes().map(|vm| locks.take(vm));
        // The client was killed meanwhile; the next daemon decides again.
        if hung_up(stream) {
            return Ok(());
        }
        let name = request.name();
        let spawned = match &request {
            Request::Spawn { vm } => Some(vm.clone()),
            _ => None,
        };
        self.reach(name, "before");
        let done = self.carry_out(uid, request, fds);
        self.reach(name, "after");
        // Not held at a gate: `end` must not wait for the shim that it ends.
        drop(guard);
        match (done, spawned) {
            (Ok(Outcome::Answered(answer, fd)), _) => answer_with(stream, &Ok(answer), fd),
            (Ok(Outcome::AtGate(gate)), Some(vm)) => {
                answer_with(stream, &Ok(Answer::Spawned(gate.process())), None)?;
                // A client that disconnected has not recorded the shim: the gate stays closed.
                let launch = wire::receive::<Launch>(stream, Instant::now() + LAUNCH_TIMEOUT)?;
                let Some((launch, _)) = launch else { return Ok(()) };
                self.reach("launch", "before");
                let launched = self.launch(uid, &vm, gate, launch);
                self.reach("launch", "after");
                answer_with(stream, &launched, None)
            }
            (Ok(Outcome::AtGate(_)), None) => Ok(()),
            (Err(error), _) => answer_with(stream, &Err(error), None),
        }
    }

    /// Serves a connection, then the queued connections of the same user.
    fn serve_slot(&self, slot: Slot, stream: UnixStream, locks: &VmLocks) {
        let uid = slot.uid();
        let mut next = Some((slot, stream));
        while let Some((slot, stream)) = next {
            // A panic ends one connection only.
            let served = catch_unwind(AssertUnwindSafe(|| self.serve(&stream, uid, locks)));
            if let Ok(Err(error)) = served {
                error_line(format_args!("banger-root: connection of uid {uid}: {error}"));
                let refusal = RootError::new(Kind::BadRequest, error.to_string());
                let _ = wire::send(&stream, &Err::<Answer, _>(refusal), &[], Instant::now());
            }
            drop(stream);
            next = slot.next();
        }
    }
}

fn answer_with(
    stream: &UnixStream,
    answer: &Result<Answer, RootError>,
    fd: Option<OwnedFd>,
) -> std::io::Result<()> {
    let fds: Vec<BorrowedFd<'_>> = fd.iter().map(AsFd::as_fd).collect();
    wire::send(stream, answer, &fds, Instant::now() + ANSWER_TIMEOUT)
}

fn take<const N: usize>(fds: Vec<OwnedFd>) -> Result<[OwnedFd; N], RootError> {
    fds.try_into().map_err(|fds: Vec<OwnedFd>| {
        RootError::new(
            Kind::BadRequest,
            format!("{} descriptors received, {N} expected", fds.len()),
        )
    })
}

/// Accepts connections of these users and of root in a loop. Never waits for a client.
///
/// # Errors
/// accept(2).
pub fn listen(server: Server, listener: &UnixListener, owners: &[u32]) -> std::io::Result<()> {
    let server = Arc::new(server);
    let (locks, slots) = (VmLocks::default(), Slots::new(LIMITS));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            // The listener itself is unusable.
            Err(error) if error.kind() == ErrorKind::InvalidInput => return Err(error),
            Err(error) => {
                error_line(format_args!("banger-root: cannot accept a connection: {error}"));
                std::thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        let Ok(peer) = banger_sys::peer::peer(&stream) else { continue };
        let uid = peer.uid;
        if uid != 0 && !owners.contains(&uid) {
            let text = format!("banger-root does not serve the user with uid {uid}");
            let hint = HostHint::AddHelperUser { uid };
            refuse(&stream, RootError::new(Kind::Refused, text).with_hint(hint));
            continue;
        }
        match slots.admit(uid, stream) {
            Admitted::Serve(slot, stream) => {
                let (server, locks) = (server.clone(), locks.clone());
                let started = std::thread::Builder::new()
                    .spawn(move || server.serve_slot(slot, stream, &locks));
                if let Err(error) = started {
                    error_line(format_args!("banger-root: cannot start a thread: {error}"));
                    std::thread::sleep(ACCEPT_PAUSE);
                }
            }
            Admitted::Waits => {}
            Admitted::Refused(stream) => {
                let text = format!("too many requests of the user with uid {uid} wait already");
                refuse(&stream, RootError::new(Kind::Busy, text));
            }
        }
    }
}

/// The kernel parameter that makes systemd mount only cgroup v2.
fn cgroup2_parameter() -> HostHint {
    HostHint::BootWith { parameter: "systemd.unified_cgroup_hierarchy=1".into() }
}

/// Answers a connection that is not served. The answer fits into an empty socket buffer, so this
/// does not wait.
fn refuse(stream: &UnixStream, error: RootError) {
    // The client may have left already.
    let _ = wire::send(stream, &Err::<Answer, _>(error), &[], Instant::now());
}
