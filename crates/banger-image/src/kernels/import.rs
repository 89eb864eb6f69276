//! Imports kernels from files: a Debian package, or a bzImage or vmlinux with a folder of modules.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use banger_api::images::TakenName;

use super::deb::{self, BYTES_MAX, FILES_MAX, Unpacked};
use super::prepare::MODULES_BUILTIN;
use super::{Kernel, KernelError, KernelStore, PULL_BYTES, VMLINUX, built_in, prepare};
use crate::fetch::{self, FetchError, Flight, PathContext, Progress};
use crate::registry;
use crate::trust::Listed;

/// Beginning of a Debian package: an ar archive whose first member is `debian-binary` (deb(5)).
const PACKAGE: &[u8] = b"!<arch>\ndebian-binary";

/// Files of a kernel.
#[derive(Debug, Clone, Copy)]
pub struct KernelFiles<'a> {
    /// Debian package, bzImage or vmlinux.
    pub file: &'a Path,
    /// Folder of modules: `lib/modules/<release>`, or one above it.
    pub modules: Option<&'a Path>,
}

impl KernelStore {
    /// Imports a kernel. `taken` decides whether the name moves from another kernel.
    ///
    /// # Errors
    /// A bad or a taken name; files that are not a kernel that boots guests; cancellation.
    pub fn import(
        &self,
        files: KernelFiles<'_>,
        name: &str,
        taken: TakenName,
        progress: &dyn Progress,
    ) -> Result<Kernel, KernelError> {
        self.store.check_name(name)?;
        let source = format!("file {}", files.file.display());
        loop {
            // Imports under the same name run one after the other; the last one gets the name.
            if let Flight::Leader(_lead) = self.flight.join(name, progress)? {
                let id = self.import_alone(files, name, (taken, source.clone()), progress)?;
                return Ok(self.resolve(&id)?);
            }
        }
    }

    /// Imports a kernel of a catalog; its signature is part of the source.
    pub(super) fn pull_listed(
        &self,
        name: &str,
        listed: &Listed,
        progress: &dyn Progress,
    ) -> Result<Kernel, KernelError> {
        self.store.check_name(name)?;
        match self.flight.join(name, progress)? {
            Flight::Done(id) => Ok(self.resolve(&id)?),
            Flight::Leader(lead) => {
                let signature = &listed.signature;
                let (catalog, key) = (&signature.signed, &signature.key);
                let hex = listed.digest.hex();
                let source = format!("catalog {catalog}, signed by {key}, SHA-256 {hex}");
                let known = self
                    .resolve(name)
                    .ok()
                    .filter(|known| known.record.source == source && known.check().is_ok());
                if let Some(known) = known {
                    progress.log("it is here already");
                    lead.done(&known.record.id);
                    return Ok(known);
                }
                let own = registry::Cache::new(self.store.folder("").with_file_name("layers"));
                let cache = self.catalogs.cache.as_ref().unwrap_or(&own);
                let staging = self.store.stage()?;
                let path = staging.join("download");
                registry::fetch(listed, cache, &self.catalogs.registries, &path, progress)?;
                let files = KernelFiles { file: &path, modules: None };
                let id = self.import_alone(files, name, (TakenName::Replace, source), progress)?;
                lead.done(&id);
                Ok(self.resolve(&id)?)
            }
        }
    }

    fn import_alone(
        &self,
        files: KernelFiles<'_>,
        name: &str,
        (taken, source): (TakenName, String),
        progress: &dyn Progress,
    ) -> Result<String, KernelError> {
        let staging = self.store.stage()?;
        fetch::need_space(staging.path(), PULL_BYTES)?;
        let (object, tree) = (staging.join("object"), staging.join("unpacked"));
        for path in [&object, &tree] {
            fs::create_dir(path).at("make the folder", path)?;
        }
        let file = files.file;
        let (unpacked, version) = if is_package(file)? {
            if files.modules.is_some() {
                return Err(KernelError::SecondModules { path: file.to_owned() });
            }
            let unpacked = deb::unpack(file, &tree, &self.tools, progress)?;
            prepare::kernel(&unpacked.kernel, &object.join(VMLINUX), &self.tools, progress)?;
            let version = deb::version(file, &self.tools, progress)?;
            (unpacked, version)
        } else {
            let unpacked = self.plain(files, &tree, &object, progress)?;
            let version = unpacked.release.clone();
            (unpacked, version)
        };
        let record = self.make(&unpacked, &object, source, version, progress)?;
        progress.go_on()?;
        if let (TakenName::Refuse, Ok(owner)) = (taken, self.store.find(name))
            && owner != record.id
        {
            return Err(KernelError::NameTaken { name: name.to_owned(), owner });
        }
        self.publish(name, &object, &record)?;
        Ok(record.id)
    }

    /// Unpacks a kernel file to `object`, and copies its modules below `tree`.
    fn plain(
        &self,
        files: KernelFiles<'_>,
        tree: &Path,
        object: &Path,
        progress: &dyn Progress,
    ) -> Result<Unpacked, KernelError> {
        // A copy, because the file may change meanwhile.
        let kernel = tree.join("vmlinuz");
        fs::copy(files.file, &kernel).at("copy", files.file)?;
        let vmlinux = object.join(VMLINUX);
        let elf = prepare::kernel(&kernel, &vmlinux, &self.tools, progress);
        let elf = elf.map_err(|error| match error {
            KernelError::BadKernel { source, .. } => {
                KernelError::BadKernel { path: files.file.to_owned(), source }
            }
            other => other,
        })?;
        let release = built_in::release(&elf)
            .ok_or_else(|| KernelError::NoRelease { path: files.file.to_owned() })?;
        let built_s = fs::metadata(files.file).at("look at", files.file)?.mtime();
        let unpacked = Unpacked { kernel, release, built_s, root: tree.to_owned() };
        let target = unpacked.modules();
        fs::create_dir_all(&target).at("make the folder", &target)?;
        if let Some(given) = files.modules {
            progress.stage("copy the modules");
            copy(&folder_of(given, &unpacked.release)?, &target, progress)?;
        }
        // A kernel without modules has no list of its built-in drivers.
        let list = target.join(MODULES_BUILTIN);
        if !list.exists() {
            fs::write(&list, built_in::modules_builtin(&elf)).at("write", &list)?;
        }
        Ok(unpacked)
    }
}

fn is_package(file: &Path) -> Result<bool, FetchError> {
    let mut start = Vec::new();
    // A pipe would block.
    let opened = File::options()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(file)
        .at("open", file)?;
    if !opened.metadata().at("look at", file)?.is_file() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
        return Err(FetchError::io("read", file, error));
    }
    opened.take(PACKAGE.len() as u64).read_to_end(&mut start).at("read", file)?;
    Ok(start == PACKAGE)
}

/// The folder `lib/modules/<release>` that a user means by `given`.
fn folder_of(given: &Path, release: &str) -> Result<PathBuf, KernelError> {
    // `/lib/modules/<release>/.` and links name the folder too.
    let given = fs::canonicalize(given).at("read the folder", given)?;
    let below = ["lib/modules", "usr/lib/modules", ""].map(|part| given.join(part).join(release));
    if let Some(found) = below.into_iter().find(|path| path.is_dir()) {
        return Ok(found);
    }
    if given.file_name() == Some(OsStr::new(release)) && given.is_dir() {
        return Ok(given);
    }
    Err(KernelError::OtherModules { path: given, release: release.to_owned() })
}

/// Copies regular files and folders; `build`, `source` and other symbolic links are left out.
fn copy(from: &Path, to: &Path, progress: &dyn Progress) -> Result<(), KernelError> {
    let (mut files, mut bytes) = (0_u64, 0_u64);
    let mut todo = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = todo.pop() {
        fs::create_dir_all(&to).at("make the folder", &to)?;
        for entry in fs::read_dir(&from).at("read the folder", &from)? {
            progress.go_on()?;
            let entry = entry.at("read the folder", &from)?;
            let (path, target) = (entry.path(), to.join(entry.file_name()));
            let meta = entry.metadata().at("look at", &path)?;
            files += 1;
            bytes += meta.len();
            if files > FILES_MAX || bytes > BYTES_MAX {
                let why = "it has more files than a kernel".to_owned();
                return Err(KernelError::BadPackage { path: from, why });
            }
            if meta.is_dir() {
                todo.push((path, target));
            } else if meta.is_file() {
                fs::copy(&path, &target).at("copy", &path)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_in_and_above_their_folder() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let real = |path: &str| fs::canonicalize(at(path)).unwrap();
        fs::create_dir_all(at("lib/modules/6.1-x")).unwrap();
        fs::create_dir_all(at("usr/lib/modules/6.2")).unwrap();
        let wanted = real("lib/modules/6.1-x");
        for given in ["", "lib/modules", "lib/modules/6.1-x", "lib/modules/6.1-x/."] {
            assert_eq!(folder_of(&at(given), "6.1-x").unwrap(), wanted, "{given}");
        }
        assert_eq!(folder_of(&at(""), "6.2").unwrap(), real("usr/lib/modules/6.2"));
        let other = folder_of(&at("lib/modules/6.1-x"), "6.2").unwrap_err();
        assert!(matches!(other, KernelError::OtherModules { .. }), "{other}");
        assert!(matches!(folder_of(&at("nope"), "6.2"), Err(KernelError::Fetch(_))));
    }
}
