//! Converts an unpacked package to its published form: `vmlinux`, `modules.ext4`, `boot-modules/`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::bzimage::{self, ELF_BYTES_MAX, KernelFormatError};
use super::deb::Unpacked;
use super::{BOOT_MODULES, KernelError, MODULES, ORDER, VMLINUX, modules};
use crate::ext4::folder::{self, Metadata};
use crate::ext4::{Plan, Purpose, build};
use crate::fetch::{Compression, FetchError, PathContext, Progress, Tools};

/// Maximum size of an unpacked module in bytes.
const MODULE_BYTES_MAX: u64 = 256 << 20;
/// List of the built-in modules, in the folder of the modules.
pub const MODULES_BUILTIN: &str = "modules.builtin";
/// Maximum number of module paths per run of a program.
const BATCH: usize = 500;

/// Extracts the kernel's ELF file, and returns its content.
///
/// # Errors
/// [`KernelError::BadKernel`]; errors of writing.
pub fn kernel(
    packed: &Path,
    target: &Path,
    tools: &Tools,
    progress: &dyn Progress,
) -> Result<Vec<u8>, KernelError> {
    progress.stage("unpack the kernel");
    let file = File::open(packed).at("open", packed)?;
    let mut bytes = Vec::new();
    let bad = |source| KernelError::BadKernel { path: packed.to_owned(), source };
    // A bzImage is smaller than the ELF file in it.
    file.take(ELF_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).at("read", packed)?;
    if bytes.len() > ELF_BYTES_MAX {
        return Err(bad(KernelFormatError::BadElf("too large")));
    }
    let payload = bzimage::payload(&bytes).map_err(bad)?;
    let elf = bzimage::unpack(payload, |stream| xz(stream, packed, tools, progress));
    let elf = elf.map_err(|error| match error {
        KernelError::Format(source) => bad(source),
        other => other,
    })?;
    fs::write(target, &elf).at("write", target)?;
    Ok(elf)
}

/// Decompresses an xz stream with the program `xz`.
fn xz(
    stream: &[u8],
    beside: &Path,
    tools: &Tools,
    progress: &dyn Progress,
) -> Result<Vec<u8>, KernelError> {
    let path = beside.with_extension("xz-payload");
    fs::write(&path, stream).at("write", &path)?;
    let mut tool = tools.command("xz", "xz-utils")?.args(["-dc"]);
    tool.command.stdin(Stdio::from(File::open(&path).at("open", &path)?));
    let mut running = tool.start(progress)?;
    let elf = bzimage::read_limited(&mut running)?;
    running.finish()?;
    fs::remove_file(&path).at("remove", &path)?;
    Ok(elf)
}

/// Decompresses modules in place: neither the guest's loader nor the agent must support
/// compression.
///
/// # Errors
/// Damaged modules; `xz` is needed and missing.
pub fn unpack_modules(
    folder: &Path,
    tools: &Tools,
    progress: &dyn Progress,
) -> Result<(), KernelError> {
    let mut with_xz = Vec::new();
    for path in files_below(folder)? {
        progress.go_on()?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if modules::name_of(name).is_none() || name.ends_with(".ko") {
            continue;
        }
        let mut file = File::open(&path).at("open", &path)?;
        let mut start = [0; 6];
        file.read_exact(&mut start).at("read", &path)?;
        let file = File::open(&path).at("open", &path)?;
        match Compression::of(&start) {
            Compression::Xz => with_xz.push(path),
            Compression::Gzip => replace(&path, flate2::read::GzDecoder::new(file))?,
            Compression::Zstd => {
                replace(&path, zstd::Decoder::new(file).at("read", &path)?)?;
            }
            _ => {
                let why = format!("`{name}` does not have the compression of its file name");
                return Err(KernelError::BadPackage { path, why });
            }
        }
    }
    for batch in with_xz.chunks(BATCH) {
        tools.command("xz", "xz-utils")?.args(["-d", "-T0", "--"]).args(batch).run(progress)?;
    }
    Ok(())
}

/// Writes the output of `unpacked` as the file without its last extension, and removes the
/// original.
fn replace(path: &Path, unpacked: impl Read) -> Result<(), FetchError> {
    let target = path.with_extension("");
    let mut file = File::create_new(&target).at("create", &target)?;
    io::copy(&mut unpacked.take(MODULE_BYTES_MAX), &mut file).at("unpack", path)?;
    fs::remove_file(path).at("remove", path)
}

/// All regular files below a folder, sorted by path.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>, FetchError> {
    let (mut files, mut todo) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).at("read the folder", &folder)? {
            let entry = entry.at("read the folder", &folder)?;
            let kind = entry.file_type().at("look at", &entry.path())?;
            if kind.is_dir() {
                todo.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Creates the indexes for modprobe in the guest, with depmod(8).
///
/// # Errors
/// depmod is missing or fails.
pub fn index_modules(
    unpacked: &Unpacked,
    tools: &Tools,
    progress: &dyn Progress,
) -> Result<(), KernelError> {
    progress.stage("index the modules");
    let depmod = tools.command("depmod", "kmod")?;
    let root = unpacked.root.as_os_str();
    Ok(depmod
        .args(["-a".as_ref(), "-b".as_ref(), root, unpacked.release.as_ref()])
        .run(progress)?)
}

/// Copies the modules that a guest needs at boot, and lists them in loading order, one file name
/// per line.
///
/// # Errors
/// The kernel lacks one of them; errors of copying.
pub fn boot_modules(unpacked: &Unpacked, object: &Path) -> Result<(), KernelError> {
    let folder = unpacked.modules();
    let text = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).at("read", &path)
    };
    let bad = |source| KernelError::Modules { release: unpacked.release.clone(), source };
    let dep = text("modules.dep")?;
    let order = modules::boot_order(&dep, &text(MODULES_BUILTIN)?).map_err(bad)?;
    let target = object.join(BOOT_MODULES);
    fs::create_dir(&target).at("make the folder", &target)?;
    let mut list = String::new();
    for path in order {
        let name = modules::name_of(&path).unwrap_or_default() + ".ko";
        let (from, to) = (folder.join(&path), target.join(&name));
        fs::copy(&from, &to).at("copy", &from)?;
        list.push_str(&name);
        list.push('\n');
    }
    let path = target.join(ORDER);
    Ok(fs::write(&path, list).at("write", &path)?)
}

/// Writes the modules disk: one folder, named after the release.
///
/// # Errors
/// Those of [`build`].
pub fn modules_disk(
    unpacked: &Unpacked,
    object: &Path,
    progress: &dyn Progress,
) -> Result<(), KernelError> {
    progress.stage("write the modules disk");
    let metadata = Metadata::Uniform(unpacked.built_s);
    let (tree, mut contents) = folder::read(&unpacked.modules(), &unpacked.release, metadata)?;
    let mut uuid = *b"banger modules 1";
    // Each kernel's disk has a different UUID, since one guest may have several.
    let release = unpacked.release.bytes().cycle();
    uuid.iter_mut().zip(release.take(64)).for_each(|(a, b)| *a = a.rotate_left(3) ^ b);
    let plan = Plan { purpose: Purpose::ReadOnly, label: "banger-modules".into(), uuid };
    build(&tree, &mut contents, &plan, &object.join(MODULES)).map_err(|error| {
        if progress.cancelled() { FetchError::Cancelled.into() } else { KernelError::from(error) }
    })?;
    Ok(())
}

/// Whether an object's kernel file is complete, according to its size and headers.
///
/// # Errors
/// A description of the defect.
pub fn check_quickly(object: &Path, bytes: u64) -> Result<(), (PathBuf, String)> {
    let path = object.join(VMLINUX);
    let looked = File::open(&path).and_then(|file| {
        let length = file.metadata()?.len();
        let mut head = Vec::new();
        file.take(bzimage::ELF_HEAD_BYTES as u64).read_to_end(&mut head)?;
        Ok((head, length))
    });
    let (head, length) = match looked {
        Ok(looked) => looked,
        Err(error) => return Err((path, format!("cannot be read: {error}"))),
    };
    if length != bytes {
        let why = KernelFormatError::Truncated { has: length as usize, wants: bytes as usize };
        return Err((path, why.to_string()));
    }
    bzimage::check_elf(&head, length).map_err(|why| (path, why.to_string()))
}
