//! A host's and a guest's folder, and sessions between them.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use banger_archive::beneath::Folder;
use banger_sync::reconcile::Place;
use banger_sync::{Connection, End, Folders, Session, Status};
use banger_sync_side::{Rules, Side};
use tempfile::TempDir;

/// How long a test waits for what must happen.
const DEADLINE: Duration = Duration::from_secs(60);

pub struct World {
    pub host: TempDir,
    pub guest: TempDir,
    pub state: TempDir,
    /// The guest's folder, if it is not `guest` itself.
    pub at: Option<PathBuf>,
    pub ignore: Vec<String>,
    /// What the owner of the folders says to sessions.
    pub wanted: Arc<AtomicBool>,
}

impl World {
    pub fn new() -> Self {
        let [host, guest, state] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let wanted = Arc::new(AtomicBool::new(true));
        Self { host, guest, state, at: None, ignore: Vec::new(), wanted }
    }

    pub fn host(&self, name: &str, content: &str) {
        write(self.host.path(), name, content);
    }

    pub fn guest(&self, name: &str, content: &str) {
        write(self.guest.path(), name, content);
    }

    /// A side's folder, and the other one.
    pub fn from(&self, side: Place) -> [&TempDir; 2] {
        match side {
            Place::Host => [&self.host, &self.guest],
            Place::Guest => [&self.guest, &self.host],
        }
    }

    pub fn folders(&self) -> Folders {
        Folders {
            host: self.host.path().to_owned(),
            ignore: self.ignore.clone(),
            base: self.state.path().join("base"),
            reserve_bytes: 0,
        }
    }

    pub fn start(&self) -> Live<'_> {
        let ours = self.serve();
        let cut = ours.try_clone().unwrap();
        let mut live = self.start_with(ours);
        live.cut = Some(cut);
        live
    }

    /// A connection to the guest's folder.
    fn serve(&self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let path = self.at.as_deref().unwrap_or(self.guest.path());
        let side = Side::new(Folder::open(path).unwrap(), Rules::default()).unwrap().at(path);
        std::thread::spawn(move || banger_sync_side::serve(theirs, &[], side));
        ours
    }

    /// A session with a guest's side of the test.
    pub fn start_with(&self, guest: UnixStream) -> Live<'_> {
        self.start_between([guest, self.serve()])
    }

    /// A session with a guest whose disk does not end to write; returns the other end of that
    /// connection.
    pub fn start_with_slow_disk(&self) -> (Live<'_>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (self.start_between([self.serve(), ours]), theirs)
    }

    fn start_between(&self, guest: [UnixStream; 2]) -> Live<'_> {
        let session = Arc::new(Session::default());
        let (folders, running) = (self.folders(), session.clone());
        let wanted = self.wanted.clone();
        let is_wanted = move || wanted.load(Relaxed);
        let guest = guest.map(|stream| Connection { stream, early: Vec::new() });
        let thread = std::thread::spawn(move || running.run(&folders, guest, &is_wanted));
        Live { world: self, session, thread: Some(thread), cut: None }
    }
}

fn write(root: &Path, name: &str, content: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

pub fn content(root: &TempDir, name: &str) -> Option<String> {
    fs::read_to_string(root.path().join(name)).ok()
}

/// A session that runs.
pub struct Live<'a> {
    world: &'a World,
    session: Arc<Session>,
    thread: Option<JoinHandle<End>>,
    /// The connection to the guest.
    cut: Option<UnixStream>,
}

impl Live<'_> {
    pub fn status(&self) -> Status {
        self.session.status()
    }

    pub fn look(&self) {
        self.session.look();
    }

    pub fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!ended || is_so(), "{what}: the session ended");
            assert!(begin.elapsed() < DEADLINE, "{what}: {:?}", self.status());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn alike(&self) {
        self.alike_but(&[]);
    }

    /// Waits until both folders are alike, except for files of these names.
    pub fn alike_but(&self, names: &[&str]) {
        let mut last = (Vec::new(), Vec::new());
        self.until("both folders are alike", || {
            last = (list(self.world.host.path(), names), list(self.world.guest.path(), names));
            last.0 == last.1 && self.status().behind_since.is_none() && self.status().rounds > 0
        });
    }

    pub fn end(mut self) -> End {
        self.thread.take().unwrap().join().unwrap()
    }

    /// Ends the connection at this moment, as a guest that is killed.
    pub fn cut_off(mut self) {
        self.cut.take().unwrap().shutdown(std::net::Shutdown::Both).unwrap();
        let end = self.end();
        assert!(matches!(end, End::Failed(_)), "{end:?}");
    }

    pub fn stop(self) {
        self.session.stop();
        let end = self.end();
        assert!(matches!(end, End::Stopped), "{end:?}");
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.session.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// All files below a folder, with content, program bit and target.
pub fn list(root: &Path, but: &[&str]) -> Vec<(std::path::PathBuf, String)> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut all = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(".banger-")
                || but.iter().any(|one| name.to_str() == Some(one))
            {
                continue;
            }
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            let what = if meta.is_dir() {
                folders.push(path.clone());
                "folder".to_owned()
            } else if meta.is_symlink() {
                format!("to {:?}", fs::read_link(&path).unwrap_or_default())
            } else {
                let program = meta.permissions().mode() & 0o100;
                format!("{program} {:?}", fs::read(&path).unwrap_or_default())
            };
            all.push((path.strip_prefix(root).unwrap().to_owned(), what));
        }
    }
    all.sort();
    all
}
