//! The kernel that an image contains, with its modules, for `--kernel image`.
//!
//! Read from the image's file system without mounting it, unpacked as an imported kernel is, and
//! stored under a name that is derived from the image's id ([`own_kernel_name`]), so that the next
//! use finds it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use banger_api::images::own_kernel_name;

use super::boot_files::{self, Found};
use super::bzimage::ELF_BYTES_MAX;
use super::deb::{BYTES_MAX, FILES_MAX, Unpacked};
use super::prepare::MODULES_BUILTIN;
use super::{Kernel, KernelError, KernelStore, PULL_BYTES, VMLINUX, built_in, prepare};
use crate::ext4::volume::{Volume, Window};
use crate::ext4::{Content, Ext4Error, Tree};
use crate::fetch::{self, FetchError, Flight, PathContext, Progress};

/// The root disk of an image.
#[derive(Debug, Clone, Copy)]
pub struct ImageDisk<'a> {
    /// Id of the image.
    pub id: &'a str,
    /// Its name for messages.
    pub name: &'a str,
    /// File with an ext4 file system, unmounted.
    pub disk: &'a Path,
}

impl KernelStore {
    /// The kernel of an image; unpacked and stored at its first use. Concurrent callers share the
    /// work.
    ///
    /// # Errors
    /// [`KernelError::NoKernelInImage`]; [`KernelError::OfImage`] for a kernel that cannot boot a
    /// guest; a damaged image; no space; cancellation.
    pub fn of_image(
        &self,
        image: ImageDisk<'_>,
        progress: &dyn Progress,
    ) -> Result<Kernel, KernelError> {
        let name = own_kernel_name(image.id);
        let known = |kernel: &Kernel| kernel.check().is_ok();
        if let Some(kernel) = self.resolve(&name).ok().filter(known) {
            return Ok(kernel);
        }
        match self.flight.join(&name, progress)? {
            Flight::Done(id) => Ok(self.resolve(&id)?),
            Flight::Leader(lead) => {
                let unpacked = self.unpack_own(image, &name, progress);
                let id = unpacked.map_err(|error| error.of_image(image.name))?;
                lead.done(&id);
                Ok(self.resolve(&id)?)
            }
        }
    }

    fn unpack_own(
        &self,
        image: ImageDisk<'_>,
        name: &str,
        progress: &dyn Progress,
    ) -> Result<String, KernelError> {
        let staging = self.store.stage()?;
        fetch::need_space(staging.path(), PULL_BYTES)?;
        let (object, tree) = (staging.join("object"), staging.join("unpacked"));
        for path in [&object, &tree] {
            fs::create_dir(path).at("make the folder", path)?;
        }
        progress.stage("read the image's kernel");
        let found = extract(image, &tree, progress)?;
        let elf =
            prepare::kernel(&tree.join("vmlinuz"), &object.join(VMLINUX), &self.tools, progress)?;
        let path = PathBuf::from(format!("/{}", found.path));
        let release = built_in::release(&elf).ok_or(KernelError::NoRelease { path })?;
        if release != found.release {
            let path = Path::new("/lib/modules").join(&found.release);
            return Err(KernelError::OtherModules { path, release });
        }
        let built_s = found.built_s;
        let unpacked = Unpacked { kernel: tree.join("vmlinuz"), release, built_s, root: tree };
        let target = unpacked.modules();
        fs::create_dir_all(&target).at("make the folder", &target)?;
        let list = target.join(MODULES_BUILTIN);
        if !list.exists() {
            fs::write(&list, built_in::modules_builtin(&elf)).at("write", &list)?;
        }
        let (source, version) = (format!("image {}", image.id), unpacked.release.clone());
        let record = self.make(&unpacked, &object, source, version, progress)?;
        progress.go_on()?;
        self.publish(name, &object, &record)?;
        Ok(record.id)
    }
}

/// Writes the kernel of an image as `vmlinuz`, and its modules as `lib/modules/<release>`, below
/// `target`.
fn extract(
    image: ImageDisk<'_>,
    target: &Path,
    progress: &dyn Progress,
) -> Result<Found, KernelError> {
    let file = File::open(image.disk).at("open", image.disk)?;
    let bytes = file.metadata().at("look at", image.disk)?.len();
    let window = Window::new(file, 0, bytes).at("look at", image.disk)?;
    let bad = |error: Ext4Error| match error {
        Ext4Error::Fetch(error) => KernelError::Fetch(error),
        source => KernelError::BadImage { path: image.disk.to_owned(), source },
    };
    let volume = Volume::open(window).map_err(|error| bad(error.into()))?;
    let mut heads = BTreeMap::new();
    let walked = volume.walk(&mut |path, _, content| {
        progress.go_on()?;
        if boot_files::may_be_kernel(path) {
            let mut head = Vec::new();
            let limit = boot_files::HEAD_BYTES;
            content.take(limit).read_to_end(&mut head).map_err(read_failed)?;
            heads.insert(path.to_vec(), head);
        }
        Ok(())
    });
    let tree = walked.map_err(bad)?.tree;
    let found = boot_files::find(&tree, &heads)
        .ok_or_else(|| KernelError::NoKernelInImage { image: image.name.to_owned() })?;
    let mut wanted = Wanted::default();
    wanted.all(&found, &tree, image.disk, target, progress)?;
    let inodes = wanted.inodes();
    let copied = volume.contents(&inodes, &mut |index, reader| {
        progress.go_on()?;
        Ok(wanted.write(index, reader)?)
    });
    copied.map_err(bad)?;
    Ok(found)
}

/// Files to write, by the number of their inode.
#[derive(Default)]
struct Wanted(BTreeMap<u64, Vec<(PathBuf, Content)>>);

impl Wanted {
    /// Adds the kernel and its modules, within limits.
    fn all(
        &mut self,
        found: &Found,
        tree: &Tree,
        disk: &Path,
        target: &Path,
        progress: &dyn Progress,
    ) -> Result<(), KernelError> {
        let bad = |why: String| KernelError::BadPackage { path: disk.to_owned(), why };
        if found.kernel.bytes() > ELF_BYTES_MAX as u64 {
            return Err(bad(format!("`/{}` is too large for a kernel", found.path)));
        }
        self.add(target.join("vmlinuz"), &found.kernel)?;
        let folder = target.join("lib/modules").join(&found.release);
        let (mut files, mut bytes) = (0_u64, 0_u64);
        for (path, content) in found.modules(tree) {
            progress.go_on()?;
            files += 1;
            bytes = bytes.saturating_add(content.bytes());
            if files > FILES_MAX || bytes > BYTES_MAX {
                let why = format!("`/lib/modules/{}` is larger than a kernel's", found.release);
                return Err(bad(why));
            }
            let path = folder.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).at("make the folder", parent)?;
            }
            self.add(path, content)?;
        }
        // The files, unpacked ones, and the disk with them.
        Ok(fetch::need_space(target, bytes.saturating_mul(3))?)
    }

    fn add(&mut self, path: PathBuf, content: &Content) -> Result<(), FetchError> {
        match content {
            Content::Source { index, .. } | Content::Sparse { index, .. } => {
                self.0.entry(*index).or_default().push((path, content.clone()));
                Ok(())
            }
            Content::Inline(bytes) => fs::write(&path, bytes).at("write", &path),
        }
    }

    fn inodes(&self) -> Vec<u32> {
        self.0.keys().filter_map(|index| u32::try_from(*index).ok()).collect()
    }

    /// Writes a file under all its names.
    fn write(&self, index: u64, reader: &mut dyn Read) -> Result<(), FetchError> {
        let mut names = self.0.get(&index).into_iter().flatten();
        let Some((first, content)) = names.next() else { return Ok(()) };
        write(first, content, reader)?;
        names.try_for_each(|(other, _)| fs::hard_link(first, other).at("link", other))
    }
}

fn read_failed(error: io::Error) -> Ext4Error {
    FetchError::io("read from", Path::new("the image"), error).into()
}

/// Writes a file; the reader yields only the data between its holes.
fn write(path: &Path, content: &Content, reader: &mut dyn Read) -> Result<(), FetchError> {
    let mut file = File::create_new(path).at("create", path)?;
    let Content::Sparse { bytes, data, .. } = content else {
        io::copy(reader, &mut file).at("write", path)?;
        return Ok(());
    };
    file.set_len(*bytes).at("write", path)?;
    for extent in data {
        file.seek(SeekFrom::Start(extent.offset)).at("write", path)?;
        io::copy(&mut reader.take(extent.bytes), &mut file).at("write", path)?;
    }
    Ok(())
}
