//! Confines the reader of foreign images: Landlock for files, seccomp for system calls, no
//! capability, limits of resources (decision 33).
//!
//! The reader may read its source, write into two folders of its own, and run [`PROGRAMS`] with
//! their libraries, which are confined with it. On a kernel without Landlock or seccomp that part
//! is left out, and `banger doctor` reports it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use banger_sys::landlock::{self, Rights, Ruleset};
use banger_sys::seccomp;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::fetch::Tools;

/// Programs that read images: decompressors, and readers of disks and file systems.
const PROGRAMS: [&str; 9] =
    ["bzip2", "e2fsck", "gzip", "lz4", "lzip", "lzop", "qemu-img", "sqfs2tar", "xz"];
/// Folders with libraries: of the file system hierarchy, of NixOS and of Guix.
const LIBRARIES: [&str; 7] =
    ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store", "/gnu/store"];
/// Other files that programs read when they start.
const SETTINGS: [&str; 3] = ["/etc/ld.so.cache", "/etc/e2fsck.conf", "/dev/urandom"];
/// Standard input of programs, and where they discard output.
const NULL: &str = "/dev/null";

/// Longest path of an interpreter in bytes, with its end: PATH_MAX.
const PATH_BYTES: usize = 4096;
/// Maximum number of program headers of an ELF file that are looked at.
const HEADERS: u16 = 64;

/// Largest file in bytes: an ext4 file system with blocks of 4 KiB.
const FILE_BYTES: u64 = 16 << 40;
/// Open files; an import has a few, and a folder one for each level of its path.
const OPEN_FILES: u64 = 4096;
/// Writable memory in bytes: a tree at its limits (`ext4/tree.rs`) and the writer's tables. The
/// address space is not limited, because C libraries reserve much more of it than they use.
const DATA_BYTES: u64 = 8 << 30;

/// What a reader needs.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The files or folders that it reads.
    pub sources: &'a [&'a Path],
    /// The folders that it writes into; they exist.
    pub targets: [&'a Path; 2],
    /// Finds [`PROGRAMS`].
    pub tools: &'a Tools,
}

/// Confines the calling thread and everything that it starts, irreversibly.
///
/// # Errors
/// capset(2), landlock(7), seccomp(2), except that the kernel does not have the last two.
pub fn confine(view: View<'_>) -> io::Result<()> {
    let ruleset = ruleset(view)?;
    drop_capabilities()?;
    ruleset.restrict_self()?;
    if seccomp::is_supported() { seccomp::allow_files_only() } else { Ok(()) }
}

/// Limits of this process. More memory or a larger file than any image needs ends it.
///
/// # Errors
/// setrlimit(2).
pub fn limit_resources() -> io::Result<()> {
    let limits = [
        (Resource::Fsize, FILE_BYTES),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Data, DATA_BYTES),
        // The contents of an image do not belong into a core dump.
        (Resource::Core, 0),
    ];
    for (resource, wanted) in limits {
        let had = rustix::process::getrlimit(resource).maximum;
        let limit = Some(had.map_or(wanted, |had| had.min(wanted)));
        setrlimit(resource, Rlimit { current: limit, maximum: limit })?;
    }
    Ok(())
}

/// The parts of the confinement that this kernel does not support, as a list for a sentence.
pub fn unsupported() -> Option<&'static str> {
    match (landlock::is_enforced(), seccomp::is_supported()) {
        (true, true) => None,
        (false, true) => Some("Landlock"),
        (true, false) => Some("seccomp filters"),
        (false, false) => Some("Landlock and seccomp filters"),
    }
}

fn ruleset(view: View<'_>) -> io::Result<Ruleset> {
    let mut rules = Ruleset::without_network()?.grant_path(Path::new(NULL), Rights::ReadWrite)?;
    for source in view.sources {
        rules = rules.grant_path(source, Rights::Read)?;
    }
    for target in view.targets {
        rules = rules.grant_path(target, Rights::ReadWrite)?;
    }
    for path in LIBRARIES.iter().chain(&SETTINGS) {
        rules = rules.grant_path(Path::new(path), Rights::Read)?;
    }
    for program in PROGRAMS.iter().filter_map(|name| view.tools.find(name)) {
        if let Some(interpreter) = interpreter(&program) {
            // Of a script: its own interpreter is a program.
            if let Some(next) = self::interpreter(&interpreter) {
                rules = rules.grant_path(&next, Rights::ReadExecute)?;
            }
            rules = rules.grant_path(&interpreter, Rights::ReadExecute)?;
        }
        rules = rules.grant_path(&program, Rights::ReadExecute)?;
    }
    Ok(rules)
}

/// Of root's capabilities only the one to read the files of others is left, for the source; an
/// ordinary user has none. execve(2) gives none back, because no_new_privs is set.
fn drop_capabilities() -> io::Result<()> {
    let had = rustix::thread::capabilities(None)?;
    let kept = had.permitted & CapabilitySet::DAC_READ_SEARCH;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    rustix::thread::set_capabilities(None, sets)?;
    Ok(())
}

/// The program that the kernel runs for a file: of a script the one in its first line, of an ELF
/// file the dynamic loader (`PT_INTERP`; elf(5)).
fn interpreter(program: &Path) -> Option<PathBuf> {
    let file = File::open(program).ok()?;
    let mut start = Vec::new();
    (&file).take(PATH_BYTES as u64).read_to_end(&mut start).ok()?;
    if let Some(line) = start.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next()?;
        let mut words = line.split(|byte| b" \t".contains(byte));
        return words.find(|word| !word.is_empty()).map(path);
    }
    // 64-bit, little-endian.
    if !start.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (first, size, count) = (long(&start, 32)?, short(&start, 54)?, short(&start, 56)?);
    for index in 0..count.min(HEADERS) {
        let mut header = [0; 56];
        let offset = u64::from(index).checked_mul(u64::from(size))?.checked_add(first)?;
        file.read_exact_at(&mut header, offset).ok()?;
        if header[..4] == 3_u32.to_le_bytes() {
            let length = usize::try_from(long(&header, 32)?).ok()?.min(PATH_BYTES);
            let mut text = vec![0; length];
            file.read_exact_at(&mut text, long(&header, 8)?).ok()?;
            return text.split(|byte| *byte == 0).next().map(path);
        }
    }
    None
}

fn path(bytes: &[u8]) -> PathBuf {
    OsString::from_vec(bytes.to_vec()).into()
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn interpreters_of_scripts_and_programs_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        fs::write(&script, "#! /bin/sh -e\nexit\n").unwrap();
        assert_eq!(interpreter(&script), Some("/bin/sh".into()));
        let loader = interpreter(Path::new("/bin/sh")).unwrap();
        assert!(loader.is_file(), "{loader:?}");
        assert_eq!(interpreter(&loader), None, "the loader is static");
        for bytes in
            [&b""[..], b"#!", b"\x7fELF\x02\x01", &[b"\x7fELF\x02\x01", &[0xff; 90][..]].concat()]
        {
            fs::write(&script, bytes).unwrap();
            assert_eq!(interpreter(&script), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_confined_thread_has_no_capability_to_change_anything() {
        let confined = std::thread::spawn(|| {
            drop_capabilities().unwrap();
            rustix::thread::capabilities(None).unwrap()
        });
        let left = confined.join().unwrap();
        let allowed = CapabilitySet::DAC_READ_SEARCH;
        assert!(allowed.contains(left.permitted) && allowed.contains(left.effective));
    }

    #[test]
    fn programs_run_confined_and_see_their_source_only() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["object", "scratch"] {
            fs::create_dir(at(name)).unwrap();
        }
        for name in ["source.xz", "other.xz"] {
            let plain = at(name).with_extension("");
            fs::write(&plain, "hello").unwrap();
            let packed = std::process::Command::new("xz").arg(&plain).status().unwrap();
            assert!(packed.success());
        }
        let tools = Tools::new("");
        let confined = std::thread::spawn(move || {
            let at = |name: &str| folder.path().join(name);
            let (object, scratch) = (at("object"), at("scratch"));
            let targets = [object.as_path(), &scratch];
            confine(View { sources: &[&at("source.xz")], targets, tools: &tools }).unwrap();
            let xz = |name: &str| {
                let tool = tools.command("xz", "xz-utils").unwrap().args(["-dc"]);
                tool.args([at(name)]).output(100, &crate::fetch::NoProgress)
            };
            assert_eq!(xz("source.xz").unwrap(), b"hello");
            let reads_only_its_own = xz("other.xz").is_err() && File::open(at("other.xz")).is_err();
            let shell = std::process::Command::new("/bin/sh").arg("-c").arg("exit").status();
            (reads_only_its_own, shell.is_err())
        });
        let found = confined.join().unwrap();
        if landlock::is_enforced() {
            assert_eq!(found, (true, true));
        } else {
            eprintln!("SKIPPED in part: this kernel has no Landlock");
        }
    }
}
