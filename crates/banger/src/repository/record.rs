//! The record of a repository or folder that is put in a machine.

use std::path::{Path, PathBuf};

use banger_workspace::store::{Record, Store};
use banger_workspace::workspace;

use super::{Content, Prepared};
use crate::errors::{Failure, usage};

impl Content {
    /// Puts on record what is about to be sent to a machine, in its folder on this host. A machine
    /// without a folder here has no record.
    ///
    /// # Errors
    /// git's, the file system's.
    pub async fn keep_record(&self, folder: PathBuf) -> Result<(), Failure> {
        if !folder.parent().is_some_and(Path::is_dir) {
            return Ok(());
        }
        match self {
            Self::Repository(prepared) => prepared.keep_record(folder).await,
            Self::Folder(copied) => Ok(copied.record().keep_copy(&folder)?),
        }
    }
}

impl Prepared {
    async fn keep_record(&self, folder: PathBuf) -> Result<(), Failure> {
        let (repository, snapshot) = (self.repository.clone(), self.snapshot.clone());
        let (target, include_untracked) = (self.folder.clone(), self.include_untracked);
        let keeping = tokio::task::spawn_blocking(move || {
            let store = Store::open(&folder)?;
            let base = workspace::sent(&store, &repository, &snapshot)?;
            store.save(&Record {
                repository: repository.top().to_owned(),
                folder: target.into_os_string().into_encoded_bytes(),
                head: snapshot.head.clone(),
                include_untracked,
                base,
            })
        });
        keeping.await.map_err(|error| usage("git failed").caused_by(&error))??;
        Ok(())
    }
}
