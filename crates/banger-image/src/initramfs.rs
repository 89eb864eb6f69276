//! The boot initramfs: the agent as `/init` and the modules that it loads. One archive for each
//! pair of kernel and agent.
//!
//! Format: Documentation/driver-api/early-userspace/buffer-format.rst ("newc" cpio), uncompressed,
//! because decompression takes longer than reading, in particular under emulation.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::fetch::{self, FetchError, PathContext, Staging};
use crate::kernels::Kernel;

/// Version of the content; a change invalidates cached archives.
const RECIPE: u32 = 1;
/// Mount points of the agent.
const FOLDERS: [&str; 8] = ["proc", "sys", "dev", "newroot", "image", "layer", "run", "modules"];

/// Writes a cpio archive.
struct Cpio<W> {
    out: W,
    next_inode: u32,
    written: u64,
}

/// File types and modes, as in stat(2).
const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const DEVICE: u32 = 0o020_600;

impl<W: Write> Cpio<W> {
    fn new(out: W) -> Self {
        Self { out, next_inode: 1, written: 0 }
    }

    /// Adds an entry owned by root with time zero.
    fn add(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        let too_large = |_| io::Error::new(io::ErrorKind::FileTooLarge, "more than 4 GiB");
        let size = u32::try_from(content.len()).map_err(too_large)?;
        let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
        let name_bytes = u32::try_from(name.len() + 1).map_err(too_large)?;
        let fields =
            [self.next_inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_bytes, 0];
        self.next_inode += 1;
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        header.push_str(name);
        header.push('\0');
        self.write(header.as_bytes())?;
        self.write(content)
    }

    /// Writes, and pads to a multiple of four bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        let padding = (self.written.wrapping_neg() % 4) as usize;
        self.out.write_all(&[0; 3][..padding])?;
        self.written += padding as u64;
        Ok(())
    }

    fn finish(mut self) -> io::Result<W> {
        self.next_inode = 0;
        self.add("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Attributes of the agent's file at the last read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct AgentFile {
    path: PathBuf,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
    sha256: String,
}

/// Cached archives.
#[derive(Debug)]
pub struct Initramfs {
    cache: PathBuf,
    agent: Mutex<Option<AgentFile>>,
    making: Mutex<()>,
}

impl Initramfs {
    /// Archives in this folder.
    pub fn new(cache: PathBuf) -> Self {
        Self { cache, agent: Mutex::new(None), making: Mutex::new(()) }
    }

    /// Path of the archive for this kernel and agent; it is created if necessary.
    ///
    /// # Errors
    /// An unreadable agent or module; errors of writing.
    pub fn get(&self, kernel: &Kernel, agent: &Path) -> Result<PathBuf, FetchError> {
        let sha256 = self.digest(agent)?;
        let path = self.of(&kernel.record.id, &sha256);
        if path.exists() {
            return Ok(path);
        }
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if path.exists() {
            return Ok(path);
        }
        let staging = Staging::new(&self.cache.join("staging"))?;
        let staged = staging.join("cpio");
        write(kernel, agent, &staged)?;
        // The file may have been replaced during the read: the name must match the content.
        if self.digest(agent)? != sha256 {
            let error = io::Error::other("it changed while it was read");
            return Err(FetchError::io("read", agent, error));
        }
        fs::rename(&staged, &path).at("write", &path)?;
        Ok(path)
    }

    /// Path of the archive for the kernel with this id and this agent, whether or not it exists.
    ///
    /// # Errors
    /// An unreadable agent.
    pub fn path(&self, kernel_id: &str, agent: &Path) -> Result<PathBuf, FetchError> {
        Ok(self.of(kernel_id, &self.digest(agent)?))
    }

    fn of(&self, kernel_id: &str, agent_sha256: &str) -> PathBuf {
        self.cache.join(format!("{kernel_id}-{}-{RECIPE}.cpio", &agent_sha256[..16]))
    }

    /// The agent's digest; its file is read only if it has changed.
    fn digest(&self, agent: &Path) -> Result<String, FetchError> {
        let file = File::open(agent).at("open", agent)?;
        let meta = file.metadata().at("look at", agent)?;
        let mut seen = AgentFile {
            path: agent.to_owned(),
            inode: meta.ino(),
            bytes: meta.len(),
            changed: (meta.ctime(), meta.ctime_nsec()),
            sha256: String::new(),
        };
        let mut memo = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = memo.as_ref() {
            seen.sha256.clone_from(&known.sha256);
            if *known == seen {
                return Ok(seen.sha256);
            }
        }
        seen.sha256 = fetch::digest_of_file(file).at("read", agent)?;
        let sha256 = seen.sha256.clone();
        *memo = Some(seen);
        Ok(sha256)
    }

    /// Removes archives of kernels that are not in `kernels` (ids), and temporary files of a crash.
    /// Returns the freed bytes.
    ///
    /// # Errors
    /// unlink(2).
    pub fn prune(&self, kernels: &[String]) -> Result<u64, FetchError> {
        let mut freed = fetch::clean(&self.cache.join("staging"), &|_| Ok(()))?;
        let Ok(entries) = fs::read_dir(&self.cache) else { return Ok(freed) };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some((id, rest)) = name.split_once('-') else { continue };
            let current = rest.ends_with(&format!("-{RECIPE}.cpio"));
            if name.ends_with(".cpio") && !(current && kernels.iter().any(|kernel| kernel == id)) {
                freed += fetch::used_bytes(&path);
                fs::remove_file(&path).at("remove", &path)?;
            }
        }
        Ok(freed)
    }
}

fn write(kernel: &Kernel, agent: &Path, target: &Path) -> Result<(), FetchError> {
    let file = File::create_new(target).at("create", target)?;
    let mut cpio = Cpio::new(io::BufWriter::with_capacity(1 << 20, file));
    let order = kernel.boot_order()?;
    let read = |path: &Path| fs::read(path).at("read", path);
    let program = read(agent)?;
    let mut add = |name: &str, mode, device, content: &[u8]| {
        cpio.add(name, mode, device, content).at("write", target)
    };
    for folder in FOLDERS {
        add(folder, FOLDER, (0, 0), &[])?;
    }
    // The kernel opens it for init before any mount.
    add("dev/console", DEVICE, (5, 1), &[])?;
    add("init", PROGRAM, (0, 0), &program)?;
    for name in &order {
        let content = read(&kernel.boot_modules().join(name))?;
        add(&format!("modules/{name}"), FILE, (0, 0), &content)?;
    }
    let list: String = order.iter().map(|name| format!("{name}\n")).collect();
    add("modules/order", FILE, (0, 0), list.as_bytes())?;
    let file = cpio.finish().at("write", target)?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error).at("write", target)?;
    file.sync_all().at("write", target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::KernelRecord;
    use proptest::prelude::*;

    /// Name, mode, device, content.
    type Entry = (String, u32, (u32, u32), Vec<u8>);

    /// Parses an archive according to the format's description.
    fn read(mut archive: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&archive[..6], b"070701");
            let field = |at: usize| {
                let text = std::str::from_utf8(&archive[6 + at * 8..14 + at * 8]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_bytes) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(archive[110..110 + name_bytes - 1].to_vec()).unwrap();
            assert_eq!(archive[110 + name_bytes - 1], 0);
            let device = (field(9), field(10));
            let start = (110 + name_bytes).next_multiple_of(4);
            let content = archive[start..start + size].to_vec();
            if name == "TRAILER!!!" {
                return entries;
            }
            entries.push((name, mode, device, content));
            archive = &archive[(start + size).next_multiple_of(4)..];
        }
    }

    proptest! {
        #[test]
        fn written_archives_are_read_back(files in proptest::collection::vec(
            ("[a-z/.]{1,300}", proptest::collection::vec(any::<u8>(), 0..50)), 0..20)) {
            let mut cpio = Cpio::new(Vec::new());
            for (name, content) in &files {
                cpio.add(name, FILE, (1, 2), content).unwrap();
            }
            let entries = read(&cpio.finish().unwrap());
            let back: Vec<_> =
                entries.into_iter().map(|(name, _, _, content)| (name, content)).collect();
            prop_assert_eq!(back, files);
        }
    }

    fn kernel(folder: &Path, id: &str) -> Kernel {
        let folder = folder.join(id);
        fs::create_dir_all(folder.join("boot-modules")).unwrap();
        for (name, text) in [("order", "b.ko\na.ko\n"), ("a.ko", "A"), ("b.ko", "BB")] {
            fs::write(folder.join("boot-modules").join(name), text).unwrap();
        }
        let record = KernelRecord {
            id: id.into(),
            release: "6.1".into(),
            source: String::new(),
            package_version: String::new(),
            created_at: String::new(),
            fingerprint: String::new(),
            files: vec![],
        };
        Kernel { record, names: vec![], folder }
    }

    #[test]
    fn the_archive_contains_the_files_of_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = kernel(folder.path(), "0123456789abcdef");
        let agent = folder.path().join("agent");
        fs::write(&agent, "program").unwrap();
        let cache = Initramfs::new(folder.path().join("cache"));
        let path = cache.get(&kernel, &agent).unwrap();
        let entries = read(&fs::read(&path).unwrap());
        let find = |name: &str| entries.iter().find(|entry| entry.0 == name).unwrap();
        assert_eq!(find("init").1, 0o100_755);
        assert_eq!(find("init").3, b"program");
        assert_eq!(find("dev/console").1, 0o020_600);
        assert_eq!(find("dev/console").2, (5, 1));
        assert_eq!(find("modules/order").3, b"b.ko\na.ko\n");
        assert_eq!(find("modules/b.ko").3, b"BB");
        for name in FOLDERS {
            assert_eq!(find(name).1, 0o040_755, "{name}");
        }
    }

    #[test]
    fn it_is_made_once_for_each_agent_and_pruned_with_its_kernel() {
        let folder = tempfile::tempdir().unwrap();
        let kernels =
            [kernel(folder.path(), &"a".repeat(16)), kernel(folder.path(), &"b".repeat(16))];
        let agent = folder.path().join("agent");
        fs::write(&agent, "one").unwrap();
        let cache = Initramfs::new(folder.path().join("cache"));
        let first = cache.get(&kernels[0], &agent).unwrap();
        let inode = fs::metadata(&first).unwrap().ino();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(cache.get(&kernels[0], &agent).unwrap(), first));
            }
        });
        assert_eq!(fs::metadata(&first).unwrap().ino(), inode, "made again");
        fs::write(&agent, "two").unwrap();
        let second = cache.get(&kernels[0], &agent).unwrap();
        let other = cache.get(&kernels[1], &agent).unwrap();
        assert!(first != second && second != other);
        let staging = fs::read_dir(folder.path().join("cache/staging")).unwrap();
        assert_eq!(staging.count(), 0);
        assert!(cache.prune(&["b".repeat(16)]).unwrap() > 0);
        assert!(!first.exists() && !second.exists() && other.exists());
    }

    #[test]
    fn a_missing_agent_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = kernel(folder.path(), &"a".repeat(16));
        let cache = Initramfs::new(folder.path().join("cache"));
        let error = cache.get(&kernel, Path::new("/nowhere/agent")).unwrap_err();
        assert_eq!(error.to_string(), "cannot open `/nowhere/agent`");
    }
}
