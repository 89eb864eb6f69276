//! Deletion of objects and names.

use std::fs;

use super::{Deleted, InUse, ObjectStore, Record, check_name, file_of};
use crate::fetch::{FetchError, PathContext};

impl<R: Record> ObjectStore<R> {
    /// Deletes by reference. One of several names is only removed; the last name, or an id, deletes
    /// the object.
    ///
    /// # Errors
    /// Not found; in use by VMs, which are named; unlink(2).
    pub fn delete(&self, wanted: &str, in_use: &[InUse]) -> Result<Deleted, FetchError> {
        let id = self.find(wanted)?;
        let names = self.names_of(&id);
        if names.len() > 1 && names.iter().any(|name| name == wanted) {
            self.remove_name(wanted)?;
            return Ok(Deleted { id, names: vec![wanted.to_owned()], freed_bytes: 0 });
        }
        let vms: Vec<String> =
            in_use.iter().filter(|user| user.id == id).map(|user| user.vm.clone()).collect();
        if !vms.is_empty() {
            return Err(FetchError::InUse { kind: R::KIND, wanted: wanted.to_owned(), vms });
        }
        for name in &names {
            self.remove_name(name)?;
        }
        let freed_bytes = self.remove_object(&id)?;
        Ok(Deleted { id, names, freed_bytes })
    }

    /// Deletes all objects without a name and without a VM; returns them.
    ///
    /// # Errors
    /// The first error, after all other objects were removed.
    pub fn prune(&self, in_use: &[InUse]) -> Result<Vec<Deleted>, FetchError> {
        let (mut deleted, mut failed) = (Vec::new(), None);
        for id in self.ids() {
            if in_use.iter().any(|user| user.id == id) || !self.names_of(&id).is_empty() {
                continue;
            }
            match self.remove_object(&id) {
                Ok(freed_bytes) => {
                    deleted.push(Deleted { id, names: Vec::new(), freed_bytes });
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(deleted), Err)
    }

    /// Removes a name.
    ///
    /// # Errors
    /// An invalid name; unlink(2).
    pub fn remove_name(&self, name: &str) -> Result<(), FetchError> {
        check_name::<R>(name)?;
        let path = self.names_folder().join(file_of(name));
        fs::remove_file(&path).at("remove", &path)
    }

    /// Renames the object out of the store, then removes its files.
    fn remove_object(&self, id: &str) -> Result<u64, FetchError> {
        let folder = self.folder(id);
        let used = crate::fetch::used_bytes(&folder);
        let staging = self.stage()?;
        fs::rename(&folder, staging.join("deleted")).at("remove", &folder)?;
        fs::remove_dir_all(staging.path()).at("remove", &folder)?;
        Ok(used)
    }
}
