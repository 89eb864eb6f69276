//! The configuration file: TOML, every key optional, unknown keys rejected.

use banger_image::proxy::{NoProxy, ProxyUrl};
use serde::Deserialize;

use super::collector::Collector;
use super::values::{
    AbsolutePath, DiskSize, FileMode, GuestFile, HostFile, ImageName, InterfaceName, Level,
    MemorySize, NetworkDriver, Number, OnOff, PathList, Signature, Storage, Subnet, Vcpus, Vmm,
    WebListen,
};

/// The file. [`super::Config`] describes the fields.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileConfig {
    pub(super) log_level: Option<Level>,
    pub(super) vmm: Option<Vmm>,
    pub(super) storage: Option<Storage>,
    pub(super) firecracker_bin: Option<AbsolutePath>,
    pub(super) jailer_bin: Option<AbsolutePath>,
    pub(super) qemu_bin: Option<AbsolutePath>,
    pub(super) vhost_device_vsock_bin: Option<AbsolutePath>,
    pub(super) ssh_key_path: Option<AbsolutePath>,
    pub(super) default_image: Option<ImageName>,
    pub(super) tap_pool_size: Option<Number<0, 256>>,
    pub(super) web_listen: Option<WebListen>,
    pub(super) dns_port: Option<Number<0, 65_535>>,
    pub(super) boot_timeout_s: Option<Number<1, 86_400>>,
    pub(super) network: Network,
    pub(super) proxy: Proxy,
    pub(super) ca: Ca,
    pub(super) trust: Trust,
    pub(super) tracing: Tracing,
    pub(super) vm_defaults: VmDefaults,
    pub(super) file_sync: Vec<FileSync>,
}

/// `[network]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    pub(super) driver: Option<NetworkDriver>,
    pub(super) bridge: Option<InterfaceName>,
    pub(super) subnet: Option<Subnet>,
    pub(super) nat: Option<OnOff>,
}

/// `[proxy]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Proxy {
    pub(super) http: Option<ProxyUrl>,
    pub(super) https: Option<ProxyUrl>,
    pub(super) ftp: Option<ProxyUrl>,
    pub(super) no_proxy: Option<NoProxy>,
}

/// `[ca]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ca {
    pub(super) files: Option<PathList>,
}

/// `[trust]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trust {
    pub(super) catalogs: Option<PathList>,
    pub(super) keys: Option<PathList>,
    pub(super) registries: Vec<RegistryRule>,
}

/// `[[trust.registries]]`: what is demanded of some images of registries.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryRule {
    pub(super) name: String,
    pub(super) signature: Signature,
    #[serde(default)]
    pub(super) keys: Vec<AbsolutePath>,
}

/// `[tracing]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tracing {
    pub(super) otlp_endpoint: Option<Collector>,
}

/// `[vm_defaults]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VmDefaults {
    pub(super) vcpus: Option<Vcpus>,
    pub(super) memory: Option<MemorySize>,
    pub(super) disk_size: Option<DiskSize>,
    pub(super) work_size: Option<DiskSize>,
}

/// `[[file_sync]]`: a file or folder of the host that is copied to guests. `host` is absolute or
/// below `~/`, `guest` below `/root`; `mode` is that of the files, in octal.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSync {
    /// On the host.
    pub host: HostFile,
    /// In the guest.
    pub guest: GuestFile,
    /// Permission bits of the files; those of the host if absent.
    pub mode: Option<FileMode>,
}

/// Whether a path of a guest is normalised and below `/root`.
pub fn is_below_root(text: &str) -> bool {
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= 255;
    let rest = text.strip_prefix("/root/").filter(|rest| rest.split('/').all(is_part));
    rest.is_some() && text.len() <= 4000 && !text.contains(char::is_control)
}

/// A syntax or value error with its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFile {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Description in one line.
    pub problem: String,
}

/// Parses the text of a file.
///
/// # Errors
/// Invalid TOML, an unknown key or an invalid value.
pub fn parse(text: &str) -> Result<FileConfig, BadFile> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let before = text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        BadFile {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            problem: without_credentials(&error.message().lines().collect::<Vec<_>>().join(", ")),
        }
    })
}

/// The text with `***` for what precedes an `@` in each word: a refused value may be the address of
/// a proxy with a password.
pub fn without_credentials(text: &str) -> String {
    let is_end = |c: char| c.is_whitespace() || matches!(c, '`' | '"' | '\'');
    let hide = |word: &str| match word.rsplit_once('@') {
        Some((hidden, rest)) => {
            let scheme = hidden.split_once("://").map(|(scheme, _)| format!("{scheme}://"));
            format!("{}***@{rest}", scheme.unwrap_or_default())
        }
        None => word.to_owned(),
    };
    let words = text.split_inclusive(is_end);
    words.map(hide).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_hidden_in_errors() {
        for (text, shown) in [
            (
                "invalid type: string \"http://u:p@h:1\", x",
                "invalid type: string \"http://***@h:1\", x",
            ),
            ("unknown field `u:p@h`, expected", "unknown field `***@h`, expected"),
            ("`a@b@c` d", "`***@c` d"),
            ("nothing here", "nothing here"),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
    }
}
