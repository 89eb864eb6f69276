//! Kernel configurations: options of a fragment, and the check of the resulting `.config`.
//!
//! Format: Documentation/kbuild/kconfig-language.rst; `CONFIG_X=value`, or `# CONFIG_X is not set`.

use std::collections::BTreeMap;

/// The fragment of the kernel `fast`.
pub const FAST: &str = include_str!("fast.config");
/// Options after this line may be missing.
const OPTIONAL: &str = "\n## optional\n";

/// Options of a fragment that the resulting configuration lacks.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// Those that guests need.
    pub required: Vec<String>,
    /// Others, which this version may not have.
    pub optional: Vec<String>,
}

/// An option as a name and a value; `n` if it is not set.
fn option(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if let Some(name) = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set")) {
        return name.starts_with("CONFIG_").then_some((name, "n"));
    }
    let (name, value) = line.split_once('=')?;
    name.starts_with("CONFIG_").then_some((name, value))
}

/// Compares the configuration that kconfig made with the fragment that it was made from.
pub fn lacking(fragment: &str, config: &str) -> Lacking {
    let set: BTreeMap<&str, &str> = config.lines().filter_map(option).collect();
    let (required, optional) = fragment.split_once(OPTIONAL).unwrap_or((fragment, ""));
    let missing = |part: &str| {
        part.lines()
            .filter_map(option)
            // An option that does not exist is not in the configuration at all.
            .filter(|(name, value)| set.get(name).copied().unwrap_or("n") != *value)
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    };
    Lacking { required: missing(required), optional: missing(optional) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_options_are_named_by_their_importance() {
        let fragment = "# text\n# CONFIG_E is not set\nCONFIG_A=y\nCONFIG_B=\"b\"\n\
                        ## optional\nCONFIG_C=y\nCONFIG_N=64\n";
        let all = "CONFIG_A=y\nCONFIG_B=\"b\"\nCONFIG_C=y\nCONFIG_N=64\n# CONFIG_E is not set\n";
        assert_eq!(lacking(fragment, all), Lacking::default());
        let some = "CONFIG_A=m\nCONFIG_B=\"b\"\nCONFIG_E=y\nCONFIG_N=8\n# CONFIG_C is not set\n";
        let found = lacking(fragment, some);
        assert_eq!(found.required, ["CONFIG_E=n", "CONFIG_A=y"]);
        assert_eq!(found.optional, ["CONFIG_C=y", "CONFIG_N=64"]);
        assert_eq!(lacking(fragment, "").required.len(), 2);
    }

    #[test]
    fn each_option_is_there_once_and_guests_have_their_drivers_built_in() {
        let mut names: Vec<&str> = FAST.lines().filter_map(option).map(|(name, _)| name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "an option is there twice");
        let lines = FAST.lines().map(str::trim).filter(|line| !line.is_empty());
        let odd: Vec<&str> =
            lines.filter(|line| option(line).is_none() && !line.starts_with('#')).collect();
        assert_eq!(odd, [""; 0]);
        let (required, _) = FAST.split_once(OPTIONAL).unwrap();
        for name in ["VIRTIO_MMIO", "VIRTIO_BLK", "VIRTIO_NET", "VIRTIO_VSOCKETS", "EXT4_FS"]
            .into_iter()
            .chain(["OVERLAY_FS", "PVH", "HW_RANDOM_VIRTIO", "NF_NAT", "MEMCG", "BPF_SYSCALL"])
        {
            assert!(required.contains(&format!("CONFIG_{name}=y\n")), "{name}");
        }
        assert!(!FAST.contains("=m\n"), "a module");
    }
}
