//! Builds the kernel `fast` from Debian's source package: everything that a microVM needs is built
//! in, so that no module is loaded at boot.
//!
//! ```text
//! <temporary>/banger-<staging>/build/src/    the source, and what make(1) writes
//! <staging>/source/                          the unpacked package
//! <staging>/object/                          the new kernel
//! ```

mod options;
mod tools;

use std::fs::{self, DirBuilder};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use banger_api::images::FAST_KERNEL;
use sha2::{Digest, Sha256};

use super::apt::{Apt, Package, SOURCE};
use super::deb::Unpacked;
use super::{Kernel, KernelError, KernelStore, VMLINUX, built_in, prepare};
use crate::Privilege;
use crate::fetch::{self, Flight, PathContext, Progress};
use crate::images::WorkFolder;

/// Free bytes for the package and its archive, and for the source and the objects.
const STAGING_BYTES: u64 = 1 << 30;
const WORK_BYTES: u64 = 3 << 30;
/// Suffix of the release.
const LOCAL_VERSION: &str = "-banger-fast";
/// Maximum length of a line of make's output.
const LINE_BYTES: u64 = 64 << 10;
/// Maximum size of a `.config`.
const CONFIG_BYTES: u64 = 4 << 20;
/// Files of a build that belong to the folder of its modules.
const LISTS: [&str; 2] = ["modules.builtin", "modules.builtin.modinfo"];

/// The whole output of a build.
pub type BuildLog = Mutex<Box<dyn Write + Send>>;

impl KernelStore {
    /// Builds a kernel by its recipe. Does nothing if the kernel of the newest source package and
    /// of this recipe is stored. Concurrent callers share one build.
    ///
    /// # Errors
    /// An unknown recipe; missing build tools; errors of apt, of the source and of make; no space;
    /// cancellation.
    pub fn build(
        &self,
        name: &str,
        log: Box<dyn Write + Send>,
        progress: &dyn Progress,
    ) -> Result<Kernel, KernelError> {
        if name != FAST_KERNEL {
            return Err(KernelError::NoBuild { name: name.chars().take(140).collect() });
        }
        match self.flight.join(name, progress)? {
            Flight::Done(id) => Ok(self.resolve(&id)?),
            Flight::Leader(lead) => {
                let id = self.build_fast(&Mutex::new(log), progress)?;
                lead.done(&id);
                Ok(self.resolve(&id)?)
            }
        }
    }

    fn build_fast(&self, log: &BuildLog, progress: &dyn Progress) -> Result<String, KernelError> {
        tools::check(&self.tools, progress)?;
        let staging = self.store.stage()?;
        fetch::need_space(staging.path(), STAGING_BYTES)?;
        let mut apt = Apt::new(&self.tools, staging.path(), &SOURCE);
        let package = apt.current(progress)?;
        if let Some(id) = self.built(&package) {
            progress.log(&format!("{} {} is built already", package.name, package.version));
            return Ok(id);
        }
        let (package, deb) = apt.download(package, progress)?;
        let work = WorkFolder::for_anyone(staging.path(), &self.tools)?;
        fetch::need_space(work.path(), WORK_BYTES)?;
        let build = work.path().join("build");
        let made = DirBuilder::new().mode(0o755).create(&build);
        made.at("make the folder", &build)?;
        if Privilege::ours() == Privilege::Root {
            let nobody = Some(tools::NOBODY);
            std::os::unix::fs::chown(&build, nobody, nobody).at("give away", &build)?;
        }
        let run = Run { store: self, build: &build, log, progress };
        let built_s = run.unpack(&deb, staging.path())?;
        run.configure()?;
        run.compile(built_s)?;
        let object = staging.join("object");
        fs::create_dir(&object).at("make the folder", &object)?;
        let unpacked = run.collect(&staging.join("unpacked"), &object, built_s)?;
        let record = self.make(&unpacked, &object, source(&package), package.version, progress)?;
        progress.go_on()?;
        self.publish(FAST_KERNEL, &object, &record)?;
        Ok(record.id)
    }

    /// Id of the kernel of this package and of this configuration, if it is whole.
    fn built(&self, package: &Package) -> Option<String> {
        let kernel = self.resolve(FAST_KERNEL).ok()?;
        let same = kernel.record.source == source(package)
            && kernel.record.package_version == package.version;
        (same && kernel.check().is_ok()).then_some(kernel.record.id)
    }
}

/// The package and the configuration of a build, for users.
fn source(package: &Package) -> String {
    let digest = Sha256::digest(options::FAST);
    let short = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("Debian package {}, configuration {FAST_KERNEL} {short}", package.name)
}

/// A time as RFC 3339, UTC.
fn date(unix_s: i64) -> String {
    let time = jiff::Timestamp::from_second(unix_s).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.to_string()
}

/// A build in progress.
struct Run<'a> {
    store: &'a KernelStore,
    /// Folder of the programs.
    build: &'a Path,
    log: &'a BuildLog,
    progress: &'a dyn Progress,
}

impl Run<'_> {
    fn source(&self) -> PathBuf {
        self.build.join("src")
    }

    /// Unpacks the source; returns the time of the package: seconds since 1970.
    fn unpack(&self, deb: &Path, staging: &Path) -> Result<i64, KernelError> {
        self.progress.stage("unpack the source");
        let package = staging.join("source");
        let dpkg = self.store.tools.command("dpkg-deb", "dpkg")?;
        dpkg.args(["-x".as_ref(), deb.as_os_str(), package.as_os_str()]).run(self.progress)?;
        let bad = |why: &str| KernelError::BadPackage { path: deb.to_owned(), why: why.into() };
        let folder = package.join("usr/src");
        let entries = fs::read_dir(&folder).at("read the folder", &folder)?;
        let archive = entries.flatten().map(|entry| entry.path()).find(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("linux-source-") && name.contains(".tar")
        });
        let archive = archive.ok_or_else(|| bad("it has no archive of the source"))?;
        let meta = fs::symlink_metadata(&archive).at("look at", &archive)?;
        if !meta.is_file() {
            return Err(bad("its archive is not a file"));
        }
        let source = self.source();
        let mkdir = tools::unprivileged(&self.store.tools, "mkdir", "coreutils", self.build)?;
        mkdir.args([&source]).run(self.progress)?;
        let input = ("tar", "tar");
        let tar = tools::unprivileged_with(&self.store.tools, input, self.build, &archive)?;
        let tar = tar.args(["-xJf", "-", "--no-same-owner", "--strip-components=1", "-C"]);
        tar.args([&source]).run(self.progress)?;
        // The space is needed for objects.
        fs::remove_dir_all(&package).at("remove", &package)?;
        fs::remove_file(deb).at("remove", deb)?;
        Ok(meta.mtime())
    }

    /// Writes the configuration, and checks that it has what guests need.
    fn configure(&self) -> Result<(), KernelError> {
        self.progress.stage("configure");
        let fragment = self.build.join("fast.config");
        fs::write(&fragment, options::FAST).at("write", &fragment)?;
        // The daemon's umask keeps its files from others.
        let readable = fs::Permissions::from_mode(0o644);
        fs::set_permissions(&fragment, readable).at("open to others", &fragment)?;
        let setting = format!("KCONFIG_ALLCONFIG={}", fragment.display());
        self.make(&[setting, "allnoconfig".to_owned()])?;
        let path = self.source().join(".config");
        let mut config = String::new();
        let file = fs::File::open(&path).at("open", &path)?;
        file.take(CONFIG_BYTES).read_to_string(&mut config).at("read", &path)?;
        let lacking = options::lacking(options::FAST, &config);
        for option in &lacking.optional {
            self.line(format!("{option} is not available\n").as_bytes());
        }
        if lacking.required.is_empty() {
            return Ok(());
        }
        Err(KernelError::MissingOptions { options: lacking.required })
    }

    fn compile(&self, built_s: i64) -> Result<(), KernelError> {
        self.progress.stage("compile");
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        // The same source gives the same kernel (Documentation/kbuild/reproducible-builds.rst).
        let settings = [
            format!("-j{jobs}"),
            format!("LOCALVERSION={LOCAL_VERSION}"),
            format!("KBUILD_BUILD_TIMESTAMP={}", date(built_s)),
            "KBUILD_BUILD_USER=banger".to_owned(),
            "KBUILD_BUILD_HOST=banger".to_owned(),
            "KBUILD_BUILD_VERSION=1".to_owned(),
            "vmlinux".to_owned(),
        ];
        self.make(&settings)?;
        let source = self.source();
        let strip = tools::unprivileged(&self.store.tools, "objcopy", "binutils", &source)?;
        Ok(strip.args(["-S", "vmlinux", "vmlinux.stripped"]).run(self.progress)?)
    }

    /// Runs make(1); all its output goes to the log.
    fn make(&self, arguments: &[String]) -> Result<(), KernelError> {
        let source = self.source();
        let mut make = tools::unprivileged(&self.store.tools, "make", "make", &source)?;
        make.command.env("ARCH", "x86_64").env_remove("CROSS_COMPILE").env_remove("LLVM");
        let on_line = |line: &str| self.line(format!("{line}\n").as_bytes());
        let mut running = make.args(arguments).start_with(self.progress, Some(&on_line))?;
        let (mut reader, mut files) = (BufReader::new(&mut running), 0_u64);
        loop {
            let mut line = Vec::new();
            let count = (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut line);
            if count.at("read from", Path::new("make"))? == 0 {
                break;
            }
            self.line(&line);
            // `  CC      fs/ext4/super.o`
            if line.starts_with(b"  CC ") || line.starts_with(b"  AS ") {
                files += 1;
                self.progress.items("files compiled", files, None);
            }
        }
        drop(reader);
        Ok(running.finish()?)
    }

    fn line(&self, line: &[u8]) {
        // A build does not depend on its log.
        let _ = self.log.lock().unwrap_or_else(PoisonError::into_inner).write_all(line);
    }

    /// Moves what was built to `object`, and the lists of its drivers below `tree`.
    fn collect(&self, tree: &Path, object: &Path, built_s: i64) -> Result<Unpacked, KernelError> {
        let kernel = self.source().join("vmlinux.stripped");
        let vmlinux = object.join(VMLINUX);
        let elf = prepare::kernel(&kernel, &vmlinux, &self.store.tools, self.progress)?;
        let release = built_in::release(&elf);
        let release = release.ok_or_else(|| KernelError::NoRelease { path: kernel.clone() })?;
        let unpacked = Unpacked { kernel, release, built_s, root: tree.to_owned() };
        let modules = unpacked.modules();
        fs::create_dir_all(&modules).at("make the folder", &modules)?;
        for list in LISTS {
            let (from, to) = (self.source().join(list), modules.join(list));
            fs::copy(&from, &to).at("copy", &from)?;
        }
        let order = modules.join("modules.order");
        fs::write(&order, "").at("write", &order)?;
        Ok(unpacked)
    }
}
