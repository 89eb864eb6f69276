//! Selects the modules for the boot initramfs, in loading order.
//!
//! File formats: modules.dep(5), modules.builtin (Documentation/kbuild/kbuild.rst).

use std::collections::{BTreeMap, BTreeSet};

/// A module that a guest needs before its root file system is mounted.
///
/// A kernel may have it built in, as a module, or not at all.
struct BootModule {
    name: &'static str,
    need: Need,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Required for disks, network or the connection to the host.
    Required,
    /// Loaded if it exists.
    Optional,
}

const WANTED: [BootModule; 9] = [
    BootModule { name: "virtio_mmio", need: Need::Required },
    BootModule { name: "virtio_blk", need: Need::Required },
    BootModule { name: "virtio_net", need: Need::Required },
    BootModule { name: "vmw_vsock_virtio_transport", need: Need::Required },
    // ext4 requests the checksum by an alias that only modprobe resolves.
    BootModule { name: "crc32c_generic", need: Need::Optional },
    BootModule { name: "ext4", need: Need::Required },
    BootModule { name: "overlay", need: Need::Required },
    BootModule { name: "virtio_rng", need: Need::Optional },
    BootModule { name: "virtio_balloon", need: Need::Optional },
];

/// Reason why the modules cannot be determined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModulesError {
    /// The kernel has neither the module nor the built-in code.
    #[error("the kernel has no `{0}`")]
    Missing(&'static str),
    /// modules.dep is invalid.
    #[error("modules.dep is invalid at `{0}`")]
    BadDep(String),
}

/// A module's name from its path: the file name without `.ko` and compression, `-` as `_`.
pub fn name_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let (name, rest) = file.split_once(".ko")?;
    let known = matches!(rest, "" | ".gz" | ".xz" | ".zst");
    (known && !name.is_empty()).then(|| name.replace('-', "_"))
}

/// Paths of the modules to load at boot, each after its dependencies.
///
/// `dep` is the text of modules.dep, `builtin` that of modules.builtin.
///
/// # Errors
/// A required module is missing.
pub fn boot_order(dep: &str, builtin: &str) -> Result<Vec<String>, ModulesError> {
    let mut modules: BTreeMap<String, (&str, Vec<&str>)> = BTreeMap::new();
    for line in dep.lines().filter(|line| !line.trim().is_empty()) {
        let bad = || ModulesError::BadDep(line.chars().take(100).collect());
        let (path, needs) = line.split_once(':').ok_or_else(bad)?;
        let name = name_of(path).ok_or_else(bad)?;
        modules.insert(name, (path, needs.split_whitespace().collect()));
    }
    let builtin: BTreeSet<String> = builtin.lines().filter_map(name_of).collect();
    let mut order: Vec<String> = Vec::new();
    for wanted in &WANTED {
        let Some((path, needs)) = modules.get(wanted.name) else {
            if builtin.contains(wanted.name) || wanted.need == Need::Optional {
                continue;
            }
            return Err(ModulesError::Missing(wanted.name));
        };
        // modules.dep lists all dependencies, nearest first, so loading starts at the end
        // (modprobe(8)).
        for path in needs.iter().rev().chain(std::iter::once(path)) {
            let name = name_of(path).unwrap_or_default();
            if !modules.contains_key(&name) {
                return Err(ModulesError::BadDep((*path).to_owned()));
            }
            if !order.iter().any(|known| known == path) {
                order.push((*path).to_owned());
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Creates a modules.dep in depmod's format: each module with all dependencies, nearest first.
    fn dep() -> String {
        let virtio = ["virtio", "virtio_ring"];
        let vsock = ["vmw_vsock_virtio_transport_common", "vsock"];
        let net = ["net_failover", "failover", "virtio", "virtio_ring"];
        let all: [(&str, &[&str]); 13] = [
            ("virtio", &virtio[1..]),
            ("virtio_ring", &[]),
            ("virtio_mmio", &virtio),
            ("virtio_blk", &virtio),
            ("failover", &[]),
            ("net_failover", &["failover"]),
            ("virtio_net", &net),
            ("vsock", &[]),
            ("vmw_vsock_virtio_transport_common", &vsock[1..]),
            ("vmw_vsock_virtio_transport", &vsock),
            ("overlay", &[]),
            ("virtio-rng", &virtio),
            ("other", &[]),
        ];
        let path = |name: &&str| format!("kernel/drivers/x/{name}.ko");
        all.iter()
            .map(|(name, needs)| {
                let needs: Vec<String> = needs.iter().map(path).collect();
                format!("{}: {}\n", path(name), needs.join(" "))
            })
            .collect()
    }

    const BUILTIN: &str = "kernel/fs/ext4/ext4.ko\nkernel/fs/jbd2/jbd2.ko\n";

    #[test]
    fn modules_load_once_after_their_dependencies() {
        let order = boot_order(&dep(), BUILTIN).unwrap();
        let names: Vec<_> = order.iter().map(|path| name_of(path).unwrap()).collect();
        assert_eq!(
            names,
            [
                "virtio_ring",
                "virtio",
                "virtio_mmio",
                "virtio_blk",
                "failover",
                "net_failover",
                "virtio_net",
                "vsock",
                "vmw_vsock_virtio_transport_common",
                "vmw_vsock_virtio_transport",
                "overlay",
                "virtio_rng"
            ]
        );
    }

    #[test]
    fn built_in_modules_are_not_loaded_and_a_missing_one_is_named() {
        let builtin: String = WANTED.iter().map(|w| format!("kernel/x/{}.ko\n", w.name)).collect();
        assert_eq!(boot_order("", &builtin), Ok(vec![]));
        assert_eq!(boot_order(&dep(), ""), Err(ModulesError::Missing("ext4")));
        let broken = dep().replace("kernel/drivers/x/failover.ko: \n", "");
        assert!(matches!(boot_order(&broken, BUILTIN), Err(ModulesError::BadDep(_))));
    }

    #[test]
    fn names_are_as_the_kernel_sees_them() {
        assert_eq!(name_of("kernel/a/virtio-rng.ko.zst").as_deref(), Some("virtio_rng"));
        assert_eq!(name_of("virtio.ko").as_deref(), Some("virtio"));
        for bad in ["", ".ko", "x", "x.ko.rar", "x.kopf", "a.ko/"] {
            assert_eq!(name_of(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(dep in "([a-z/.:ko -]{0,40}\n){0,10}", builtin in ".{0,100}") {
            let _ = boot_order(&dep, &builtin);
        }
    }
}
