//! The build of a kernel with the real make, tar and dpkg-deb, from a package with a source that
//! takes no time to compile: its Makefile copies the kernel that all tests share.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use banger_image::fetch::{FetchError, NoProgress, Tools};
use banger_image::kernels::{KernelError, KernelStore};

use crate::support::{Watch, cache, half_made, tools, with_causes};

/// Keeps what is written.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A Makefile with the targets that a build uses. `config` makes the configuration, `kernel` the
/// kernel.
fn makefile(config: &str, kernel: &str) -> String {
    format!(
        "allnoconfig:\n\t{config}\n\nvmlinux:\n\t@echo '  CC      init/main.o'\n\
         \t@echo a warning >&2\n\t@test \"$$(id -u)\" != 0\n\t{kernel}\n\
         \tprintf 'kernel/%s.ko\\n' virtio_mmio virtio_blk virtio_net vmw_vsock_virtio_transport \
         ext4 overlay >modules.builtin\n\t: >modules.builtin.modinfo\n"
    )
}

/// Programs as on a host whose package sources have a source package with this Makefile.
fn host(folder: &Path, makefile: &str) -> Tools {
    let at = |path: &str| folder.join(path);
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(at("package/DEBIAN")).unwrap();
    fs::create_dir_all(at("package/usr/src")).unwrap();
    fs::create_dir_all(at("linux-source-6.1")).unwrap();
    fs::create_dir_all(at("bin")).unwrap();
    fs::write(at("linux-source-6.1/Makefile"), makefile).unwrap();
    let control = "Package: linux-source-6.1\nVersion: 6.1.192-3\nArchitecture: all\n\
                   Maintainer: nobody <nobody@example.org>\nDescription: a test\n";
    fs::write(at("package/DEBIAN/control"), control).unwrap();
    let run = |command: &str| {
        let status = Command::new("sh").args(["-ec", command]).current_dir(folder).status();
        assert!(status.unwrap().success(), "{command}");
    };
    run("chmod 755 package/DEBIAN && tar -cJf package/usr/src/linux-source-6.1.tar.xz \
         linux-source-6.1 && dpkg-deb -Znone -b package linux-source-6.1_6.1.192-3_all.deb");
    let stanza = "Package: linux-source\\nVersion: 6.1.192-3\\n\
                  Depends: linux-source-6.1 (= 6.1.192-3)\\n";
    let deb = at("linux-source-6.1_6.1.192-3_all.deb");
    fs::write(at("bin/apt-cache"), format!("#!/bin/sh\nprintf '{stanza}'\n")).unwrap();
    fs::write(at("bin/apt-get"), format!("#!/bin/sh\ncp {} .\n", deb.display())).unwrap();
    run("chmod 755 bin/*");
    Tools::new(format!("{}:{}", at("bin").display(), std::env::var("PATH").unwrap()))
}

/// The kernel that all tests share, where `nobody` can read it.
fn shared_kernel(folder: &Path) -> PathBuf {
    let (data, _lock) = cache();
    let store = KernelStore::new(data.join("data/kernels"), tools());
    let kernel = store.pull("debian-cloud", &NoProgress).unwrap();
    let copy = folder.join("vmlinux");
    fs::copy(kernel.vmlinux(), &copy).unwrap();
    copy
}

fn folders_of_builds() -> Vec<PathBuf> {
    let entries = fs::read_dir(std::env::temp_dir()).unwrap();
    let entries = entries.flatten().map(|entry| entry.path());
    let is_ours = |path: &PathBuf| {
        let makefile = fs::read_to_string(path.join("build/src/Makefile"));
        makefile.is_ok_and(|text| text.contains("echo a warning"))
    };
    entries.filter(is_ours).collect()
}

#[test]
fn a_kernel_is_built_from_a_source_package() {
    let temp = tempfile::tempdir().unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let vmlinux = shared_kernel(temp.path());
    fs::set_permissions(&vmlinux, fs::Permissions::from_mode(0o644)).unwrap();
    // As the daemon does.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let root = temp.path().join("kernels");
    let host_folder = temp.path().join("host");
    let store = |makefile: &str| KernelStore::new(root.clone(), host(&host_folder, makefile));
    let build = |store: &KernelStore, watch: &Watch| {
        let log = Log::default();
        (store.build("fast", Box::new(log.clone()), watch), log.text())
    };
    let copy = format!("cp {} vmlinux", vmlinux.display());
    let config = "cp $(KCONFIG_ALLCONFIG) .config";

    let (built, log) = build(&store(&makefile(config, &copy)), &Watch::default());
    let kernel = built.unwrap();
    kernel.verify(&NoProgress).unwrap();
    assert_eq!(
        (kernel.names.as_slice(), kernel.boot_order().unwrap().len()),
        (&["fast".into()][..], 0)
    );
    assert!(kernel.record.source.starts_with("Debian package linux-source-6.1, configuration"));
    assert!(log.contains("  CC      init/main.o\n") && log.contains("a warning\n"), "{log}");
    let again = Watch::default();
    let (built, _) = build(&store(&makefile(config, "false")), &again);
    assert_eq!(built.unwrap().record, kernel.record, "the same package and configuration");
    assert_eq!(again.saw_stage("compile"), 0);
    store(&makefile(config, "false")).delete("fast", &[]).unwrap();

    let (failed, log) = build(&store(&makefile(config, "echo an error; false")), &Watch::default());
    assert!(with_causes(&failed.unwrap_err()).contains("make"), "make is named");
    assert!(log.contains("an error\n"), "{log}");
    let without = "grep -v 'CONFIG_EXT4_FS=\\|CONFIG_FUSE_FS=' $(KCONFIG_ALLCONFIG) >.config";
    let (failed, log) = build(&store(&makefile(without, &copy)), &Watch::default());
    let error = failed.unwrap_err();
    assert_eq!(error.to_string(), "this version of Linux does not have CONFIG_EXT4_FS=y");
    assert!(log.contains("CONFIG_FUSE_FS=y is not available\n"), "{log}");
    let before = std::time::Instant::now();
    for stage in ["unpack the source", "configure", "compile"] {
        let store = store(&makefile(config, "sleep 1000"));
        let (stopped, _) = build(&store, &Watch::cancelling_at(stage));
        let stopped = stopped.unwrap_err();
        let cancelled = matches!(stopped, KernelError::Fetch(FetchError::Cancelled));
        assert!(cancelled, "{stage}: {stopped:?}");
    }
    assert!(before.elapsed().as_secs() < 60);
    assert!(half_made(&root).is_empty());
    assert_eq!(folders_of_builds(), Vec::<PathBuf>::new());
    let unknown = store("").build("slow", Box::new(std::io::sink()), &NoProgress).unwrap_err();
    assert!(matches!(unknown, KernelError::NoBuild { .. }));
}

#[test]
fn all_missing_build_tools_are_named_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let bin = temp.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["gcc", "make", "tar", "xz", "ld", "objcopy", "setpriv", "perl"] {
        std::os::unix::fs::symlink(tools().find(name).unwrap(), bin.join(name)).unwrap();
    }
    let store = KernelStore::new(temp.path().join("kernels"), Tools::only(&bin));
    let error = store.build("fast", Box::new(std::io::sink()), &NoProgress).unwrap_err();
    let KernelError::MissingBuildTools { packages } = &error else { panic!("{error:?}") };
    for package in ["flex", "bison", "bc"] {
        assert!(packages.iter().any(|known| known == package), "{packages:?}");
    }
    assert!(!packages.iter().any(|known| known == "gcc"), "{packages:?}");
    assert!(half_made(&temp.path().join("kernels")).is_empty());
}
