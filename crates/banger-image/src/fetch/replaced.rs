//! Names that move from one object to another, so that no object is left without a name.
//!
//! An object that loses its only name gets a name of its own, made of the lost one and its id. A
//! file in `replaced/` records the move before the first change and stays until the caller has
//! decided about that object, so that the next daemon completes or takes back a move after a crash.

use std::fs;
use std::path::PathBuf;
use std::sync::PoisonError;

use banger_api::images::spare_name;
use serde::de::DeserializeOwned;

use super::durable::sync;
use super::object_store::{Record, file_of, list_names};
use super::{FetchError, ObjectStore, PathContext};

impl<R: Record + DeserializeOwned> ObjectStore<R> {
    fn replaced_folder(&self) -> PathBuf {
        self.root().join("replaced")
    }

    /// Points a name to an object. Another object whose only name this was keeps the name
    /// [`spare_name`], and is in [`Self::replaced`] until [`Self::settled`].
    ///
    /// # Errors
    /// An invalid name; rename(2), write(2). The name then points to the earlier object.
    pub fn move_name(&self, name: &str, id: &str) -> Result<(), FetchError> {
        self.check_name(name)?;
        let _moving = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.id_of_name(name).filter(|old| old != id && self.folder(old).exists());
        let Some(old) = old.filter(|old| self.names_of(old) == [name]) else {
            return self.name(name, id);
        };
        self.write_id(&self.replaced_folder(), name, &old)?;
        let moved = self.keep_under_spare_name(name, &old).and_then(|()| self.name(name, id));
        if moved.is_err() {
            // What this does not remove, the next call of `replaced` does.
            let _ = self.take_back(name, &old);
        }
        moved
    }

    /// Gives an object its spare name, unless another object has that.
    fn keep_under_spare_name(&self, name: &str, old: &str) -> Result<(), FetchError> {
        let spare = spare_name(name, old);
        match self.id_of_name(&spare) {
            Some(other) if self.folder(&other).exists() => Ok(()),
            _ => self.name(&spare, old),
        }
    }

    /// Takes back a move that has not happened: `name` still points to `old`.
    fn take_back(&self, name: &str, old: &str) -> Result<(), FetchError> {
        let spare = spare_name(name, old);
        if self.id_of_name(&spare).as_deref() == Some(old) {
            self.remove_name(&spare)?;
        }
        self.settled(name)
    }

    /// Moved names with the objects that had them before, of which the caller must decide. Takes
    /// back moves that a crash interrupted before the name had moved.
    ///
    /// # Errors
    /// unlink(2).
    pub fn replaced(&self) -> Result<Vec<(String, String)>, FetchError> {
        let _moving = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        let mut moved = Vec::new();
        for name in list_names(&self.replaced_folder()) {
            let old = Self::read_id(&self.replaced_folder().join(file_of(&name)));
            match old {
                Some(old) if self.id_of_name(&name).as_ref() == Some(&old) => {
                    self.take_back(&name, &old)?;
                }
                Some(old) => moved.push((name, old)),
                // Not written by this program.
                None => self.settled(&name)?,
            }
        }
        moved.sort();
        Ok(moved)
    }

    /// Forgets a move; the object that had the name is deleted, or keeps its spare name.
    ///
    /// # Errors
    /// unlink(2), fsync(2).
    pub fn settled(&self, name: &str) -> Result<(), FetchError> {
        let folder = self.replaced_folder();
        let path = folder.join(file_of(name));
        match fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            removed => removed.at("remove", &path)?,
        }
        sync(&folder)
    }
}

#[cfg(test)]
mod tests {
    use super::super::durable::list_folder;
    use super::super::object_store::tests::{A, B, Note, add, store};
    use super::*;

    fn names(store: &ObjectStore<Note>, id: &str) -> Vec<String> {
        store.names_of(id)
    }

    #[test]
    fn an_object_that_loses_its_only_name_keeps_a_name() {
        let (_folder, store) = store();
        add(&store, A, &["web"]);
        add(&store, B, &[]);
        let spare = spare_name("web", A);
        store.move_name("web", B).unwrap();
        assert_eq!((names(&store, A), names(&store, B)), (vec![spare], vec!["web".to_owned()]));
        assert_eq!(store.replaced().unwrap(), [("web".to_owned(), A.to_owned())]);
        store.settled("web").unwrap();
        store.settled("web").unwrap();
        assert_eq!(store.replaced().unwrap(), []);
        // An object with other names loses this one only, and the same name again is no move.
        store.name("other", B).unwrap();
        store.move_name("web", A).unwrap();
        store.move_name("web", A).unwrap();
        assert_eq!(names(&store, B), ["other"]);
        assert_eq!(store.replaced().unwrap(), []);
    }

    #[test]
    fn a_move_that_was_killed_is_taken_back_or_completed() {
        // Number of writes before the kill: the record, the spare name, the name.
        for writes in 1..=3 {
            let (_folder, store) = store();
            add(&store, A, &["web"]);
            add(&store, B, &[]);
            let spare = spare_name("web", A);
            let steps: [&dyn Fn(); 3] = [
                &|| store.write_id(&store.replaced_folder(), "web", A).unwrap(),
                &|| store.keep_under_spare_name("web", A).unwrap(),
                &|| store.name("web", B).unwrap(),
            ];
            steps[..writes].iter().for_each(|step| step());
            let moved = store.replaced().unwrap();
            if writes < 3 {
                assert_eq!((moved.len(), names(&store, A)), (0, vec!["web".to_owned()]));
                assert_eq!(names(&store, B), Vec::<String>::new());
            } else {
                assert_eq!(moved, [("web".to_owned(), A.to_owned())]);
                assert_eq!(names(&store, A), [spare]);
            }
            assert_eq!(list_folder(&store.replaced_folder()).len(), moved.len());
        }
    }

    #[test]
    fn a_name_is_not_taken_from_a_third_object() {
        let (_folder, store) = store();
        add(&store, A, &["web"]);
        add(&store, B, &[]);
        let (third, spare) = ("cccc000000000003", spare_name("web", A));
        add(&store, third, &[&spare]);
        store.move_name("web", B).unwrap();
        assert_eq!(names(&store, third), [spare]);
        assert_eq!(store.replaced().unwrap().len(), 1);
    }

    #[test]
    fn a_move_that_fails_leaves_no_record() {
        let (_folder, store) = store();
        add(&store, A, &["web"]);
        add(&store, B, &[]);
        // The spare name cannot be written: a folder has its place.
        fs::create_dir(store.names_folder().join(spare_name("web", A))).unwrap();
        store.move_name("web", B).unwrap_err();
        assert_eq!(names(&store, A), ["web"]);
        assert_eq!(list_folder(&store.replaced_folder()), Vec::<String>::new());
    }
}
