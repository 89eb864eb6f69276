//! The list of effects of a pull, written down before the first of them, and how each is undone.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use banger_api::{ApiError, ErrorCode, Hint};
use banger_archive::beneath::Folder;

use crate::place::{make_folder, remove_folder, rename, stamp, write_durably};
use crate::store::of_file;

/// First field.
const FORMAT: &str = "banger pull 1";

/// Inode, size and time of a file: what a rename leaves alone.
pub(crate) type Identity = (u64, i64, (i64, i64));

/// One effect in the work tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// A file goes to `old/`, under the number of this effect.
    Take { path: Vec<u8>, was: Identity },
    /// An empty folder goes.
    RemoveFolder { path: Vec<u8>, mode: u32 },
    /// A folder comes.
    MakeFolder { path: Vec<u8> },
    /// A file comes from `new/`.
    Put { path: Vec<u8>, new: Identity },
}

/// The effects in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Journal {
    pub(crate) effects: Vec<Effect>,
}

impl Journal {
    /// Reads the journal of unfinished effects; none if there are no such.
    pub(crate) fn read(aside: &Path) -> Result<Option<Self>, ApiError> {
        let path = aside.join("journal");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(of_file(&path, &error)),
        };
        let parsed = Self::parse(&bytes).ok_or_else(|| {
            let text = format!("`{}` is not a journal that this version reads", path.display());
            ApiError::new(ErrorCode::Corrupt, text)
        })?;
        Ok(Some(parsed))
    }

    /// Writes the journal, in one step.
    pub(crate) fn write(&self, aside: &Path) -> Result<(), ApiError> {
        let (new, path) = (aside.join("journal.new"), aside.join("journal"));
        let written = write_durably(&new, &self.bytes())
            .and_then(|()| fs::rename(&new, &path))
            .and_then(|()| File::open(aside)?.sync_all());
        written.map_err(|error| of_file(&path, &error))
    }

    /// All effects are done, and stay.
    pub(crate) fn finish(aside: &Path) -> Result<(), ApiError> {
        let path = aside.join("journal");
        let renamed = fs::rename(&path, aside.join("done"));
        renamed.map_err(|error| of_file(&path, &error))
    }

    /// Does the effects.
    ///
    /// # Errors
    /// The first that fails; those before it are done.
    pub(crate) fn run(
        &self,
        top: &Folder,
        aside: &Path,
        before: &dyn Fn(),
    ) -> Result<(), ApiError> {
        let (old, new) = folders(aside)?;
        for (number, effect) in self.effects.iter().enumerate() {
            before();
            let name = number.to_string();
            let done = match effect {
                Effect::Take { path, was } => {
                    let moved = rename((top, path), (&old, name.as_bytes()));
                    moved.and_then(|()| match stamp(&old, name.as_bytes())? {
                        Some(found) if found.identity() == *was => Ok(()),
                        _ => Err(io::Error::other("the file was changed at the same time")),
                    })
                }
                Effect::RemoveFolder { path, .. } => remove_folder(top, path),
                Effect::MakeFolder { path } => make_folder(top, path, 0o777),
                Effect::Put { path, .. } => rename((&new, path), (top, path)),
            };
            done.map_err(|error| {
                let path = String::from_utf8_lossy(effect.path());
                let text = format!("`{path}` cannot be changed; nothing was");
                ApiError::new(ErrorCode::of_io(&error), text).caused_by(&error)
            })?;
        }
        Ok(())
    }

    /// Undoes the effects that were done, in reverse order.
    ///
    /// # Errors
    /// Files that were changed since: they stay as they are, and `aside` with the earlier content.
    pub(crate) fn undo(&self, top: &Folder, aside: &Path) -> Result<(), ApiError> {
        let (old, new) = folders(aside)?;
        let mut kept = Vec::new();
        for (number, effect) in self.effects.iter().enumerate().rev() {
            let name = number.to_string();
            let undone = match effect {
                Effect::Put { path, new: identity } => {
                    match (stamp(&new, path), stamp(top, path)) {
                        (Ok(None), Ok(Some(found))) if found.identity() == *identity => {
                            rename((top, path), (&new, path))
                        }
                        _ => Ok(()),
                    }
                }
                Effect::MakeFolder { path } => {
                    // It stays if it has files of somebody else.
                    let _ = remove_folder(top, path);
                    Ok(())
                }
                Effect::RemoveFolder { path, mode } => match make_folder(top, path, *mode) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    made => made,
                },
                Effect::Take { path, .. } => match stamp(&old, name.as_bytes()) {
                    Ok(None) => Ok(()),
                    Ok(Some(_)) => rename((&old, name.as_bytes()), (top, path)),
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = undone {
                let path = String::from_utf8_lossy(effect.path()).into_owned();
                kept.push(format!("`{path}` (`old/{number}`): {error}"));
            }
        }
        if kept.is_empty() {
            return Ok(());
        }
        let text = format!(
            "an interrupted pull cannot be undone: files were changed since; the earlier ones are \
             in `{}`",
            aside.display()
        );
        let mut error = ApiError::new(ErrorCode::WrongState, text);
        error.causes = kept;
        Err(error.with_hint(Hint::text("keep what you want of them, and remove that folder")))
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut field = |field: &[u8]| {
            bytes.extend_from_slice(field);
            bytes.push(0);
        };
        field(FORMAT.as_bytes());
        for effect in &self.effects {
            let (word, facts) = match effect {
                Effect::Take { was, .. } => ("take", identity(was)),
                Effect::RemoveFolder { mode, .. } => ("rmdir", mode.to_string()),
                Effect::MakeFolder { .. } => ("mkdir", String::new()),
                Effect::Put { new, .. } => ("put", identity(new)),
            };
            field(word.as_bytes());
            field(facts.as_bytes());
            field(effect.path());
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.strip_suffix(b"\0")?;
        let mut fields = bytes.split(|byte| *byte == 0);
        if fields.next()? != FORMAT.as_bytes() {
            return None;
        }
        let mut effects = Vec::new();
        while let Some(word) = fields.next() {
            let facts = std::str::from_utf8(fields.next()?).ok()?;
            let path = fields.next()?.to_vec();
            effects.push(match word {
                b"take" => Effect::Take { path, was: parse_identity(facts)? },
                b"rmdir" => Effect::RemoveFolder { path, mode: facts.parse().ok()? },
                b"mkdir" => Effect::MakeFolder { path },
                b"put" => Effect::Put { path, new: parse_identity(facts)? },
                _ => return None,
            });
        }
        Some(Self { effects })
    }
}

impl Effect {
    fn path(&self) -> &[u8] {
        match self {
            Self::Take { path, .. }
            | Self::RemoveFolder { path, .. }
            | Self::MakeFolder { path }
            | Self::Put { path, .. } => path,
        }
    }
}

fn identity((inode, size, (seconds, nanoseconds)): &Identity) -> String {
    format!("{inode} {size} {seconds} {nanoseconds}")
}

fn parse_identity(text: &str) -> Option<Identity> {
    let mut words = text.split(' ');
    let inode = words.next()?.parse().ok()?;
    let mut number = || words.next()?.parse::<i64>().ok();
    Some((inode, number()?, (number()?, number()?)))
}

fn folders(aside: &Path) -> Result<(Folder, Folder), ApiError> {
    let open = |name: &str| {
        let path = aside.join(name);
        Folder::open(&path).map_err(|error| of_file(&path, &error))
    };
    Ok((open("old")?, open("new")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let (was, new) = ((7, -1, (1, 999)), (u64::MAX, 0, (-5, 0)));
        let journal = Journal {
            effects: vec![
                Effect::Take { path: b"a\n b".to_vec(), was },
                Effect::RemoveFolder { path: b"d".to_vec(), mode: 0o750 },
                Effect::MakeFolder { path: b"\xff".to_vec() },
                Effect::Put { path: b"\xff/x".to_vec(), new },
            ],
        };
        assert_eq!(Journal::read(folder.path()).unwrap(), None);
        journal.write(folder.path()).unwrap();
        assert_eq!(Journal::read(folder.path()).unwrap(), Some(journal.clone()));
        Journal::finish(folder.path()).unwrap();
        assert_eq!(Journal::read(folder.path()).unwrap(), None);
        for bytes in ["", "banger pull 1", "banger pull 1\0take\0", "banger pull 1\0x\0\0y\0"] {
            fs::write(folder.path().join("journal"), bytes).unwrap();
            assert!(Journal::read(folder.path()).is_err(), "{bytes}");
        }
    }
}
