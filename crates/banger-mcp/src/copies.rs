//! Tools that copy files between this host and a machine, as `banger cp` does.

use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use banger_api::size::human_size;
use banger_api::{ApiError, ErrorCode};
use banger_archive::place::{self, LastLink};
use banger_client::{ArchiveSource, ArchiveTarget, Copied, Counter, HostSource, HostTarget};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::arguments::CopyFiles;
use crate::server::Call;

/// Bytes between two messages of progress.
const STEP: u64 = 1024 * 1024;

impl Call<'_> {
    /// Copies a file or folder of this host into a machine.
    pub async fn upload(&mut self, wanted: CopyFiles) -> Result<Value, ApiError> {
        let name = place::name(wanted.host_path.as_bytes()).to_vec();
        let host = self.folders.source(&wanted.host_path)?;
        let mut path = host.clone().into_os_string().into_vec();
        if name == b"." {
            path.extend(b"/.");
        }
        let from = HostSource::open(&path, LastLink::Keep)?;
        let target = ArchiveTarget {
            path: guest_path(&wanted.path),
            source: from.source,
            name,
            keep_owners: false,
            user: None,
        };
        let (client, counter) = (self.client, Counter::default());
        let copied =
            self.copied(&counter, client.copy_in(&wanted.vm, &target, from, &counter)).await?;
        Ok(result(&copied, ("host_path", json!(host.display().to_string()))))
    }

    /// Copies a file or folder of a machine to this host.
    pub async fn download(&mut self, wanted: CopyFiles) -> Result<Value, ApiError> {
        let host = self.folders.target(&wanted.host_path)?;
        let path = guest_path(&wanted.path);
        let name = place::name(&path).to_vec();
        let from = ArchiveSource { path, name: name.clone(), link: LastLink::Keep, user: None };
        let (client, counter) = (self.client, Counter::default());
        let (writing, mut all_written) = mpsc::channel(1);
        let target = HostTarget {
            path: host.as_os_str().as_bytes().to_vec(),
            name,
            keep_owners: false,
            writing,
        };
        let copying = async {
            let stream = client.archive(&wanted.vm, &from).await?;
            stream.copy_out(target, &counter).await
        };
        let copied = self.copied(&counter, copying).await;
        // The thread of a cancelled copy removes its incomplete file first.
        let _ = all_written.recv().await;
        Ok(result(&copied?, ("host_path", json!(host.display().to_string()))))
    }

    /// Waits for a copy, with progress; a cancelled call ends it.
    async fn copied(
        &mut self,
        counter: &Counter,
        copying: impl Future<Output = Result<Copied, ApiError>>,
    ) -> Result<Copied, ApiError> {
        let (to, mut sums) = watch::channel(0);
        let mut report = |bytes| {
            to.send_replace(bytes);
        };
        let copying = counter.reported(&mut report, copying);
        tokio::pin!(copying);
        let mut told = 0;
        loop {
            tokio::select! {
                copied = &mut copying => return copied,
                Ok(()) = sums.changed() => {
                    let sum = *sums.borrow_and_update();
                    if sum >= told + STEP {
                        told = sum;
                        self.progress.tell(1, format!("copied {}", human_size(sum))).await;
                    }
                }
                () = self.context.ct.cancelled() => {
                    return Err(ApiError::new(ErrorCode::Cancelled, "the call was cancelled"));
                }
            }
        }
    }
}

/// The path in a machine: the home folder as a whole is copied without its name.
fn guest_path(path: &str) -> Vec<u8> {
    match path {
        "" | "~" | "~/" => b"~/.".to_vec(),
        path => path.as_bytes().to_vec(),
    }
}

fn result(copied: &Copied, (name, host): (&str, Value)) -> Value {
    json!({ name: host, "bytes": copied.bytes, "left_out": copied.left_out })
}
