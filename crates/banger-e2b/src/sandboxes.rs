//! The sandboxes of a server, and their ends.
//!
//! A sandbox is a machine that lives as long as the connection that holds it, as those of
//! `banger mcp`: the daemon deletes it when this process ends, however that happens. Besides, a
//! sandbox ends when its time is over, and when it is killed or shuts down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use banger_api::ApiError;
use banger_api::operation::VmTag;
use banger_client::{Client, Hold, all_deleted};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::access::Secret;
use crate::failure::{Code, Failure};
use crate::process::Processes;
use crate::watch::Watchers;

/// Most sandboxes at once, those that are being created included.
pub const MAX_SANDBOXES: usize = 256;

/// What a client has asked for when it created a sandbox.
pub struct Wanted {
    /// Name of the template: `base`, or an image.
    pub template: String,
    /// The client's own values.
    pub metadata: BTreeMap<String, String>,
    /// Variables of all commands.
    pub envs: BTreeMap<String, String>,
    /// Time to live.
    pub timeout: Duration,
}

/// A sandbox.
pub struct Sandbox {
    /// Its machine.
    pub vm: VmTag,
    /// What was asked for.
    pub wanted: Wanted,
    /// Token for requests to the sandbox.
    pub token: Secret,
    /// Token for its ports.
    pub port_token: Secret,
    /// Time of its creation.
    pub started: Timestamp,
    /// Its commands.
    pub processes: Processes,
    /// Folders that are watched.
    pub watchers: Watchers,
    /// When its time is over.
    end: watch::Sender<Instant>,
    /// Dropped or released at the end.
    hold: Mutex<Option<Hold>>,
}

impl Sandbox {
    /// Its id, that of the machine.
    pub fn id(&self) -> &str {
        self.vm.id.as_str()
    }

    /// Time until it ends.
    pub fn left(&self) -> Duration {
        self.end.borrow().saturating_duration_since(Instant::now())
    }

    /// Sets the time until it ends.
    pub fn set_timeout(&self, timeout: Duration) {
        self.end.send_replace(Instant::now() + timeout);
    }

    /// Makes it end no earlier than after this time.
    pub fn extend(&self, timeout: Duration) {
        let end = Instant::now() + timeout;
        self.end.send_if_modified(|current| {
            let is_later = end > *current;
            *current = end.max(*current);
            is_later
        });
    }
}

/// All sandboxes.
#[derive(Default)]
pub struct Sandboxes(Mutex<State>);

#[derive(Default)]
struct State {
    ended: bool,
    creating: usize,
    by_id: BTreeMap<String, Arc<Sandbox>>,
}

/// A place for a sandbox that is being created.
pub struct Place<'a>(&'a Sandboxes);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.state().creating -= 1;
    }
}

impl Sandboxes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for one more.
    ///
    /// # Errors
    /// There are too many.
    pub fn place(&self) -> Result<Place<'_>, Failure> {
        let mut state = self.state();
        if state.by_id.len() + state.creating >= MAX_SANDBOXES {
            let text = format!("there are {MAX_SANDBOXES} sandboxes already: kill some first");
            return Err(Failure::new(Code::ResourceExhausted, text));
        }
        state.creating += 1;
        Ok(Place(self))
    }

    /// Adds a machine that has booted; the sandbox of an earlier request if it is known.
    ///
    /// # Errors
    /// The server ends; there are no random numbers.
    pub fn add(
        self: &Arc<Self>,
        client: &Client,
        vm: VmTag,
        hold: Hold,
        wanted: Wanted,
    ) -> Result<Arc<Sandbox>, Failure> {
        let no_random = |_| Failure::new(Code::Internal, "the system has no random numbers");
        let (token, port_token) =
            (Secret::new().map_err(no_random)?, Secret::new().map_err(no_random)?);
        let (end, deadline) = watch::channel(Instant::now() + wanted.timeout);
        let sandbox = Arc::new(Sandbox {
            vm,
            wanted,
            token,
            port_token,
            started: Timestamp::now(),
            processes: Processes::default(),
            watchers: Watchers::default(),
            end,
            hold: Mutex::new(Some(hold)),
        });
        let mut state = self.state();
        if state.ended {
            return Err(Failure::new(Code::Unavailable, "the server ends"));
        }
        let id = sandbox.id().to_owned();
        if let Some(known) = state.by_id.get(&id) {
            return Ok(known.clone());
        }
        state.by_id.insert(id.clone(), sandbox.clone());
        let (sandboxes, client) = (self.clone(), client.clone());
        tokio::spawn(async move {
            if over(deadline).await {
                // The hold ends with it, so the daemon deletes it even if this fails.
                let _ = sandboxes.kill(&client, &id).await;
            }
        });
        Ok(sandbox)
    }

    /// A sandbox by its id.
    pub fn get(&self, id: &str) -> Option<Arc<Sandbox>> {
        self.state().by_id.get(id).cloned()
    }

    /// All sandboxes.
    pub fn all(&self) -> Vec<Arc<Sandbox>> {
        self.state().by_id.values().cloned().collect()
    }

    /// Forgets a sandbox whose machine is gone.
    pub fn forget(&self, id: &str) {
        self.state().by_id.remove(id);
    }

    /// Deletes a sandbox; whether there was one.
    ///
    /// # Errors
    /// The daemon's. The sandbox is forgotten anyway, and its hold ends.
    pub async fn kill(&self, client: &Client, id: &str) -> Result<bool, ApiError> {
        let removed = self.state().by_id.remove(id);
        let Some(sandbox) = removed else { return Ok(false) };
        end(client, &sandbox).await.map(|()| true)
    }

    /// Deletes all sandboxes and waits until they are gone; no more can be created.
    ///
    /// # Errors
    /// The first of the deletions.
    pub async fn end(&self, client: &Client) -> Result<(), ApiError> {
        let sandboxes = {
            let mut state = self.state();
            state.ended = true;
            std::mem::take(&mut state.by_id)
        };
        let deletions = sandboxes.into_values().map(|sandbox| {
            let client = client.clone();
            async move { end(&client, &sandbox).await }
        });
        all_deleted(deletions).await
    }
}

/// Returns when the time is over; false if the sandbox has ended before.
async fn over(mut deadline: watch::Receiver<Instant>) -> bool {
    loop {
        let at = *deadline.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep_until(at) => return true,
            changed = deadline.changed() => if changed.is_err() {
                return false;
            }
        }
    }
}

async fn end(client: &Client, sandbox: &Sandbox) -> Result<(), ApiError> {
    let hold = sandbox.hold.lock().unwrap_or_else(PoisonError::into_inner).take();
    let deleted = client.delete_to_end(&sandbox.vm.id).await;
    if let Some(hold) = hold {
        hold.release().await;
    }
    deleted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_sandbox_can_be_changed() {
        let (end, deadline) = watch::channel(Instant::now() + Duration::from_secs(10));
        let waiting = tokio::spawn(over(deadline));
        tokio::time::sleep(Duration::from_secs(9)).await;
        end.send_replace(Instant::now() + Duration::from_secs(100));
        tokio::time::sleep(Duration::from_secs(99)).await;
        assert!(!waiting.is_finished());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(waiting.await.unwrap());
        let (end, deadline) = watch::channel(Instant::now() + Duration::from_secs(10));
        drop(end);
        assert!(!over(deadline).await, "the sandbox has ended");
    }

    #[test]
    fn there_are_not_too_many() {
        let sandboxes = Sandboxes::default();
        let places: Vec<_> = (0..MAX_SANDBOXES).map(|_| sandboxes.place().unwrap()).collect();
        assert_eq!(sandboxes.place().err().map(|e| e.code), Some(Code::ResourceExhausted));
        drop(places);
        assert!(sandboxes.place().is_ok());
    }
}
