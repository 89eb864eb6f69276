//! A session: keeps two folders alike until it is stopped or a side is gone.
//!
//! ```text
//!          changes                 actions              changed files again
//! wait ───────────► scan both ───────────► transfer ──┐ ◄──────────────────┐
//!  ▲                    │ nothing to do                ├── settle ──────────┘
//!  └────────────────────┴──────────────────────────────┘
//! ```
//!
//! When nothing has happened for a while, both sides write to their disks, and the base as it was
//! then is saved: a base on disk never has a file that a power cut can take from either side.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use banger_archive::beneath::Folder;
use banger_sync_side::{Identity, Rules as SideRules};

use crate::base::{Base, Identities, Pending};
use crate::ends::{Connection, End, Folders};
use crate::flush::Flusher;
use crate::peer::{Bell, Call, Changes, Peer};
use crate::reconcile::{Action, Place, halt, reconcile};
use crate::rules::Rules;
use crate::scan::{RuleBook, Scanned};
use crate::scope::{Scope, Touched};
use crate::status::{MAX_SHOWN, Phase, Status, look};
use crate::transfer::{Problem, Sides, Transfer};
use crate::tree::split;

/// How long both sides must be quiet before the base is saved.
const QUIET: Duration = Duration::from_secs(1);
/// First and longest pause before files that changed meanwhile are looked at again.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Interval of looking at the whole folder where some of it cannot be watched.
const POLL: Duration = Duration::from_secs(5);
/// Interval of looking whether the folders are still there: a removal of the folder itself is no
/// event while it is open.
const CHECK: Duration = Duration::from_secs(10);

/// A session, shared with those who watch or stop it.
#[derive(Debug, Default)]
pub struct Session {
    bell: Arc<Bell>,
    status: Mutex<Status>,
}

impl Session {
    /// Ends the session soon.
    pub fn stop(&self) {
        self.bell.stop();
    }

    /// Has it look at both folders as a whole.
    pub fn look(&self) {
        self.bell.look();
    }

    /// Its state.
    pub fn status(&self) -> Status {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the folders alike; blocks the thread. The connections to the guest's folder are for
    /// changes and for writing to its disk. Nothing that is seen after `is_wanted` became false is
    /// copied.
    pub fn run(
        &self,
        folders: &Folders,
        guest: [Connection; 2],
        is_wanted: &dyn Fn() -> bool,
    ) -> End {
        let mut run = match self.begin(folders, guest) {
            Ok(run) => run,
            Err(end) => return end,
        };
        let end = run.keep_alike(is_wanted).err().unwrap_or(End::Stopped);
        match end {
            // A folder with an identity is known by it when another session begins.
            End::RootGone(Place::Guest) if run.identities[1].is_none() => {
                run.base.forget().map_or_else(End::from, |()| end)
            }
            _ => end,
        }
    }

    fn begin(&self, folders: &Folders, guest: [Connection; 2]) -> Result<Run<'_>, End> {
        let identity = Identity::of(&folders.host).map_err(End::HostFolder)?;
        let root = Folder::open_itself(folders.host.as_path()).map_err(End::HostFolder)?;
        let rules = SideRules { reserve_bytes: folders.reserve_bytes };
        let flushed = Folder::open_itself(folders.host.as_path()).map_err(End::HostFolder)?;
        let host = Peer::local(Place::Host, root, rules, &self.bell)?;
        let [guest, to_flush] = guest;
        let mut guest = guest.peer(&self.bell)?;
        let identities = [Some(identity), guest.identity()?];
        let flushed =
            [Peer::local(Place::Host, flushed, rules, &self.bell)?, to_flush.peer(&self.bell)?];
        let rules = Rules::new(&folders.ignore).map_err(|(pattern, problem)| {
            let text = format!("the pattern `{pattern}` is malformed: {problem}");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        Ok(Run {
            session: self,
            host: folders.host.clone(),
            identities,
            checked: Instant::now(),
            sides: Sides { host: Scanned::new(host), guest: Scanned::new(guest) },
            base: Base::of(&folders.base, identities)?,
            is_first: true,
            book: RuleBook::new(rules),
            touched: Touched::default(),
            retry: RETRY.0,
            unsaved: false,
            flusher: Flusher::new(flushed, &self.bell)?,
            pending: None,
        })
    }
}

/// A session that runs.
struct Run<'a> {
    session: &'a Session,
    host: PathBuf,
    identities: Identities,
    /// When the guest's folder was last found in its place.
    checked: Instant,
    sides: Sides,
    base: Base,
    /// Whether nothing was decided yet.
    is_first: bool,
    book: RuleBook,
    /// Folders that the next round decides on.
    touched: Touched,
    /// Pause before files that changed meanwhile are looked at again.
    retry: Duration,
    /// Whether the base has changes that are not saved, but for the pending ones.
    unsaved: bool,
    flusher: Flusher,
    /// Changes of the base that wait for the flusher.
    pending: Option<Pending>,
}

impl Run<'_> {
    fn keep_alike(&mut self, is_wanted: &dyn Fn() -> bool) -> Result<(), End> {
        loop {
            self.round(is_wanted)?;
            let call = self.wait();
            match call {
                Call::Stop => return self.save_whole(),
                Call::Closed(place) => {
                    let text = format!("the connection to the {} ended", place.as_str());
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, text).into());
                }
                Call::Changed(host, guest) => {
                    for (place, changes) in [(Place::Host, host), (Place::Guest, guest)] {
                        self.take(place, changes)?;
                    }
                }
                Call::Flushed => self.write()?,
                Call::Idle if self.is_savable() => self.save(),
                Call::Idle => self.poll(),
            }
        }
    }

    fn is_savable(&self) -> bool {
        self.unsaved && !self.flusher.is_running() && !self.is_due()
    }

    fn is_due(&self) -> bool {
        !self.sides.host.due.is_empty() || !self.sides.guest.due.is_empty()
    }

    fn wait(&mut self) -> Call {
        let most = if self.is_due() {
            let pause = self.retry;
            self.retry = (pause * 2).min(RETRY.1);
            pause
        } else if self.unsaved && !self.flusher.is_running() {
            QUIET
        } else if self.sides.host.unwatched || self.sides.guest.unwatched {
            POLL
        } else {
            CHECK
        };
        self.session.bell.wait(most)
    }

    fn take(&mut self, place: Place, changes: Changes) -> Result<(), End> {
        if changes.root_gone {
            return Err(End::RootGone(place));
        }
        if let Some(since) = changes.since {
            self.session.lock().behind_since.get_or_insert(since);
        }
        self.sides.at(place).take(changes);
        Ok(())
    }

    fn poll(&mut self) {
        for place in [Place::Host, Place::Guest] {
            let side = self.sides.at(place);
            match std::mem::take(&mut side.unwatched) {
                true => side.relist(b""),
                false => drop(side.due.insert(Vec::new())),
            }
        }
    }

    /// Scans, and transfers until nothing is left to do but what changes at the moment.
    fn round(&mut self, is_wanted: &dyn Fn() -> bool) -> Result<(), End> {
        // After a conflict another round copies both versions; more are files that keep changing.
        for _ in 0..3 {
            self.check_folders()?;
            self.scan()?;
            if !is_wanted() {
                self.session.stop();
                return Ok(());
            }
            self.gather();
            let (host, guest) = (self.sides.host.tree.root(), self.sides.guest.tree.root());
            if let Some(place) = halt(self.base.had_content(), host, guest) {
                self.session.lock().phase = Phase::Halted(place);
                return Ok(());
            }
            if std::mem::take(&mut self.is_first)
                && (self.base.is_about_another(host) || self.base.is_about_another(guest))
            {
                self.base.forget()?;
            }
            let scope = Scope::Only(&self.touched);
            let actions = reconcile(self.base.root(), host, guest, scope);
            if actions.is_empty() {
                self.settle(Vec::new())?;
                self.touched = Touched::default();
                self.retry = RETRY.0;
                return Ok(());
            }
            // Whatever of them fails is decided on again; all else is settled.
            let mut undecided = Touched::default();
            for path in actions.iter().map(Action::path) {
                undecided.insert(split(path).0);
            }
            let total = actions.len();
            let is_conflict = |action: &Action| matches!(action, Action::SetAside { .. });
            let has_conflict = actions.iter().any(is_conflict);
            self.session.lock().phase = Phase::Copying { done: 0, total, bytes: 0 };
            let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
            let Self { session, sides, base, .. } = self;
            let session = *session;
            let done = Transfer::run(sides, actions, &stamp, |begun, made| {
                let bytes = made.bytes;
                session.lock().phase = Phase::Copying { done: begun, total, bytes };
                // A first copy may take long.
                if made.changed.iter().any(|changed| *changed > 1) { base.mark() } else { Ok(()) }
            })?;
            let made = done.changed.iter().sum::<usize>();
            self.gather();
            self.settle(done.problems)?;
            self.touched = undecided;
            // Without a file that was set aside, the other changes are those that a side reports.
            if made == 0 || !has_conflict || session.bell.is_stopped() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Checks that both folders are in their places. The guest is not asked each time, which would
    /// make each round longer.
    fn check_folders(&mut self) -> Result<(), End> {
        let host = Identity::of(&self.host).map_err(End::HostFolder)?;
        if self.identities[0] != Some(host) {
            return Err(End::RootGone(Place::Host));
        }
        if self.identities[1].is_some() && self.checked.elapsed() >= CHECK {
            if self.sides.guest.peer.identity()? != self.identities[1] {
                return Err(End::RootGone(Place::Guest));
            }
            self.checked = Instant::now();
        }
        Ok(())
    }

    fn scan(&mut self) -> io::Result<()> {
        loop {
            let Self { sides, book, base, .. } = self;
            for folder in sides.host.scan(book, base.root())? {
                sides.guest.relist(&folder);
            }
            let ruled = sides.guest.scan(book, base.root())?;
            if ruled.is_empty() {
                return Ok(());
            }
            for folder in ruled {
                sides.host.relist(&folder);
            }
        }
    }

    /// Takes over in which folders the trees of the sides have changed.
    fn gather(&mut self) {
        for place in [Place::Host, Place::Guest] {
            self.touched.merge(std::mem::take(&mut self.sides.at(place).touched));
        }
    }

    /// Takes what both sides have into the base, and shows the result of a round.
    fn settle(&mut self, mut problems: Vec<Problem>) -> io::Result<()> {
        let Self { sides, base, session, touched, .. } = self;
        let (host, guest) = (sides.host.tree.root(), sides.guest.tree.root());
        self.unsaved |= base.settle(host, guest, Scope::Only(touched));
        if base.had_content() {
            base.mark()?;
        }
        let mut conflicts = Vec::new();
        for (place, side) in [(Place::Host, &sides.host), (Place::Guest, &sides.guest)] {
            look(&side.tree, place, &mut conflicts, &mut problems);
        }
        problems.truncate(MAX_SHOWN);
        let is_due = !sides.host.due.is_empty() || !sides.guest.due.is_empty();
        let mut status = session.lock();
        status.phase = Phase::Watching;
        status.files = sides.host.tree.count();
        (status.conflicts, status.problems) = (conflicts, problems);
        status.unwatched = [Place::Host, Place::Guest]
            .into_iter()
            .filter(|place| match place {
                Place::Host => sides.host.unwatched,
                Place::Guest => sides.guest.unwatched,
            })
            .collect();
        if !is_due {
            status.rounds += 1;
            if let Some(since) = status.behind_since.take() {
                let ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                status.lag_ms = Some(ms);
            }
        }
        Ok(())
    }

    /// Begins to save the base.
    fn save(&mut self) {
        self.pending = self.base.take();
        self.unsaved = false;
        if self.pending.is_some() {
            self.flusher.begin();
        }
    }

    /// Writes the base that was waiting for the disks.
    fn write(&mut self) -> Result<(), End> {
        if self.flusher.end()?
            && let Some(pending) = self.pending.take()
        {
            self.unsaved |= !self.base.write(pending)?;
        }
        Ok(())
    }

    /// Saves the present states as well, so that the next session need not read the files.
    fn save_whole(&mut self) -> Result<(), End> {
        self.flusher.run()?;
        Ok(self.base.save_whole()?)
    }
}
