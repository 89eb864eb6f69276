//! The configuration: one TOML file and the environment, resolved in one place.
//!
//! The environment takes precedence over the file, and the file over the defaults. Every key can be
//! set by a variable: `BANGER_` and the key in capitals, with dots as underscores
//! (`vm_defaults.memory` is `BANGER_VM_DEFAULTS_MEMORY`). `doctor` shows the origin of each value.

pub mod collector;
pub mod file;
mod trust;
pub mod values;

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use banger_api::hint::SetupAdvice;
use banger_api::images::DEFAULT_IMAGE;
use banger_api::limits::VmDefaults;
use banger_api::{ApiError, ErrorCode};
use banger_image::ca::CaSettings;
use banger_image::proxy::ProxySettings;
use banger_image::trust::TrustSettings;

use crate::dns;
use collector::Collector;
use file::{FileConfig, FileSync};
use values::{
    AbsolutePath, DiskSize, ImageName, Level, NetworkDriver, Number, OnOff, PathList, Storage,
    Vcpus, Vmm, WebListen,
};

/// Origin of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The default.
    Default,
    /// The configuration file.
    File,
    /// An environment variable.
    Variable(String),
}

/// A value with its origin, for `doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Key, such as `vm_defaults.memory`.
    pub key: &'static str,
    /// The value in the syntax of the file; absent if there is none.
    pub value: Option<String>,
    /// Origin.
    pub origin: Origin,
}

/// The configuration of a daemon.
#[derive(Debug, Clone)]
pub struct Config {
    /// Minimum level of logged events.
    pub log_level: Level,
    /// VMM; absent = the best available.
    pub vmm: Option<String>,
    /// Storage driver; absent = the best available.
    pub storage: Option<String>,
    /// Network driver to use; absent = the best one.
    pub network: Option<String>,
    /// Path of Firecracker; absent = found in `PATH`.
    pub firecracker_bin: Option<PathBuf>,
    /// Path of the jailer; absent = found in `PATH`.
    pub jailer_bin: Option<PathBuf>,
    /// Number of idle TAPs in the pool, if set.
    pub tap_pool_size: Option<u32>,
    /// Name of the bridge, if set.
    pub bridge: Option<String>,
    /// Subnet of the bridge, if set.
    pub subnet: Option<ipnet::Ipv4Net>,
    /// Path of QEMU; absent = found in `PATH`.
    pub qemu_bin: Option<PathBuf>,
    /// Path of QEMU's vsock companion; absent = beside the daemon.
    pub vhost_device_vsock_bin: Option<PathBuf>,
    /// The user's ssh key, which root of every VM accepts; absent = one in the state folder.
    pub ssh_key_path: Option<PathBuf>,
    /// Default image of a VM.
    pub default_image: String,
    /// Time limit for a guest to become ready, in seconds.
    pub boot_timeout_s: u32,
    /// Address and port of the web page, if set.
    pub web_listen: Option<SocketAddr>,
    /// Port of the DNS server; 0 = any free port.
    pub dns_port: u16,
    /// Whether guests can reach networks outside of the host by default.
    pub nat: bool,
    /// Proxies of the host and its guests.
    pub proxy: ProxySettings,
    /// Files of certificates that guests and downloads trust.
    pub ca: CaSettings,
    /// Catalogs and signatures.
    pub trust: TrustSettings,
    /// The collector that spans are sent to; absent = none are.
    pub collector: Option<Collector>,
    /// Default number of vCPUs, if set.
    pub vcpus: Option<u32>,
    /// Default memory in MiB, if set.
    pub memory_mib: Option<u64>,
    /// Default size of the root disk in bytes, if set.
    pub root_bytes: Option<u64>,
    /// Default size of the work disk in bytes, if set.
    pub work_bytes: Option<u64>,
    /// Files that guests receive.
    pub file_sync: Vec<FileSync>,
    /// All values with their origins, in documentation order.
    pub settings: Vec<Setting>,
}

/// Default port of the DNS server.
const DEFAULT_DNS_PORT: Number<0, 65_535> = Number(dns::DEFAULT_PORT as u32);
/// Maximum size of the configuration file in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Reads the file, if it exists, and combines it with the environment.
///
/// # Errors
/// [`ErrorCode::BadRequest`] naming file, line and column, or the variable.
pub fn load(
    path: &Path,
    env: impl Fn(&str) -> Option<std::ffi::OsString>,
) -> Result<Config, ApiError> {
    let text = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Ok(found) if found.len() > MAX_FILE => {
            let text = format!("`{}` is larger than 1 MiB", path.display());
            return Err(ApiError::new(ErrorCode::BadRequest, text));
        }
        Err(error) => return Err(crate::failure::io_failure("read", path, &error)),
        Ok(_) => std::fs::read_to_string(path)
            .map_err(|error| crate::failure::io_failure("read", path, &error))?,
    };
    let file = file::parse(&text).map_err(|bad| {
        let place = format!("`{}` line {}, column {}", path.display(), bad.line, bad.column);
        ApiError::new(ErrorCode::BadRequest, format!("{place}: {}", bad.problem))
            .with_hint(SetupAdvice::CorrectConfig)
    })?;
    resolve(file, env)
}

/// Combines file, environment and defaults.
///
/// # Errors
/// `BadRequest` for a variable with an invalid value.
pub fn resolve(
    file: FileConfig,
    env: impl Fn(&str) -> Option<std::ffi::OsString>,
) -> Result<Config, ApiError> {
    let mut meet = Resolver { env, settings: Vec::new() };
    let (network, proxy) = (file.network, file.proxy);
    let ca = file.ca;
    let vm = file.vm_defaults;
    let program = |path: AbsolutePath| path.0;
    let mut config = Config {
        log_level: meet.pick("log_level", file.log_level, Level::default())?,
        vmm: meet.pick("vmm", file.vmm, Vmm::default())?.wanted(),
        storage: meet.pick("storage", file.storage, Storage::default())?.wanted(),
        firecracker_bin: meet.optional("firecracker_bin", file.firecracker_bin)?.map(program),
        jailer_bin: meet.optional("jailer_bin", file.jailer_bin)?.map(program),
        tap_pool_size: meet.optional("tap_pool_size", file.tap_pool_size)?.map(|size| size.0),
        network: meet.pick("network.driver", network.driver, NetworkDriver::default())?.wanted(),
        bridge: meet.optional("network.bridge", network.bridge)?.map(|name| name.0),
        subnet: meet.optional("network.subnet", network.subnet)?.map(|subnet| subnet.network()),
        qemu_bin: meet.optional("qemu_bin", file.qemu_bin)?.map(program),
        vhost_device_vsock_bin: meet
            .optional("vhost_device_vsock_bin", file.vhost_device_vsock_bin)?
            .map(program),
        ssh_key_path: meet.optional("ssh_key_path", file.ssh_key_path)?.map(program),
        default_image: meet
            .pick("default_image", file.default_image, ImageName(DEFAULT_IMAGE.into()))?
            .0,
        web_listen: meet.optional("web_listen", file.web_listen)?.map(|WebListen(listen)| listen),
        boot_timeout_s: meet.pick("boot_timeout_s", file.boot_timeout_s, Number(120))?.0,
        dns_port: meet.pick("dns_port", file.dns_port, DEFAULT_DNS_PORT)?.port(),
        nat: meet.pick("network.nat", network.nat, OnOff(true))?.0,
        proxy: ProxySettings {
            http: meet.optional("proxy.http", proxy.http)?,
            https: meet.optional("proxy.https", proxy.https)?,
            ftp: meet.optional("proxy.ftp", proxy.ftp)?,
            no_proxy: meet.optional("proxy.no_proxy", proxy.no_proxy)?.unwrap_or_default(),
        },
        ca: CaSettings {
            files: meet.optional("ca.files", ca.files)?.map_or_else(Vec::new, PathList::paths),
        },
        trust: trust::settings(&mut meet, file.trust)?,
        collector: meet.optional("tracing.otlp_endpoint", file.tracing.otlp_endpoint)?,
        vcpus: meet.optional("vm_defaults.vcpus", vm.vcpus)?.map(|Vcpus(vcpus)| vcpus),
        memory_mib: meet.optional("vm_defaults.memory", vm.memory)?.map(|size| size.mib()),
        root_bytes: meet.optional("vm_defaults.disk_size", vm.disk_size)?.map(|DiskSize(b)| b),
        work_bytes: meet.optional("vm_defaults.work_size", vm.work_size)?.map(|DiskSize(b)| b),
        file_sync: Vec::new(),
        settings: Vec::new(),
    };
    meet.files(&file.file_sync);
    config.file_sync = file.file_sync;
    config.settings = meet.settings;
    Ok(config)
}

impl Config {
    /// Defaults of a new VM on a host with these CPUs and bytes of memory.
    pub fn vm_defaults(&self, cpus: u32, memory_bytes: u64) -> VmDefaults {
        let host = VmDefaults::for_host(cpus, memory_bytes);
        VmDefaults {
            image: self.default_image.clone(),
            nat: self.nat,
            vcpus: self.vcpus.unwrap_or(host.vcpus),
            memory_mib: self.memory_mib.unwrap_or(host.memory_mib),
            root_bytes: self.root_bytes.unwrap_or(host.root_bytes),
            work_bytes: self.work_bytes.unwrap_or(host.work_bytes),
            ..host
        }
    }
}

/// Name of the variable that sets a key.
pub fn variable(key: &str) -> String {
    format!("BANGER_{}", key.replace('.', "_").to_uppercase())
}

struct Resolver<E> {
    env: E,
    settings: Vec<Setting>,
}

impl<E: Fn(&str) -> Option<std::ffi::OsString>> Resolver<E> {
    fn optional<T: FromStr<Err = String> + Display>(
        &mut self,
        key: &'static str,
        file: Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let name = variable(key);
        let set = (self.env)(&name).filter(|value| !value.is_empty());
        let (value, origin) = match (set, file) {
            (Some(set), _) => {
                let text = set.to_str().ok_or_else(|| "the value is not UTF-8".to_owned());
                let value = text.and_then(str::parse::<T>).map_err(|problem| {
                    let problem = file::without_credentials(&problem);
                    ApiError::new(ErrorCode::BadRequest, format!("`{name}`: {problem}"))
                })?;
                (Some(value), Origin::Variable(name))
            }
            (None, Some(value)) => (Some(value), Origin::File),
            (None, None) => (None, Origin::Default),
        };
        let shown = value.as_ref().map(T::to_string);
        self.settings.push(Setting { key, value: shown, origin });
        Ok(value)
    }

    fn files(&mut self, files: &[FileSync]) {
        let pairs: Vec<String> =
            files.iter().map(|file| format!("{} to {}", file.host, file.guest)).collect();
        let origin = if pairs.is_empty() { Origin::Default } else { Origin::File };
        let value = (!pairs.is_empty()).then(|| pairs.join(", "));
        self.settings.push(Setting { key: "file_sync", value, origin });
    }

    fn pick<T: FromStr<Err = String> + Display>(
        &mut self,
        key: &'static str,
        file: Option<T>,
        default: T,
    ) -> Result<T, ApiError> {
        let value = self.optional(key, file)?.unwrap_or(default);
        if let Some(setting) = self.settings.last_mut() {
            setting.value = Some(value.to_string());
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str, env: &[(&str, &str)]) -> Result<Config, ApiError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let get = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into());
        load(&path, get)
    }

    fn problem(text: &str) -> String {
        let message = with(text, &[]).unwrap_err().message;
        message.split_once("config.toml` ").unwrap().1.to_owned()
    }

    fn origin(config: &Config, key: &str) -> Setting {
        config.settings.iter().find(|setting| setting.key == key).unwrap().clone()
    }

    #[test]
    fn all_keys_are_optional() {
        let config = load(Path::new("/nonexistent/config.toml"), |_| None).unwrap();
        assert_eq!(config.default_image, "debian");
        assert_eq!((config.boot_timeout_s, config.nat, config.vmm.clone()), (120, true, None));
        assert_eq!(config.dns_port, 42069);
        assert_eq!(config.vm_defaults(8, 16 << 30), VmDefaults::for_host(8, 16 << 30));
        assert!(config.settings.iter().all(|setting| setting.origin == Origin::Default));
    }

    #[test]
    fn environment_overrides_file_overrides_defaults() {
        let file = "log_level = \"warn\"\nvmm = \"qemu\"\nboot_timeout_s = 9\n\
            [vm_defaults]\nvcpus = 3\nmemory = \"2G\"\ndisk_size = \"1GiB\"\n";
        let env = [("BANGER_LOG_LEVEL", "debug"), ("BANGER_VM_DEFAULTS_VCPUS", "5")];
        let config = with(file, &env).unwrap();
        assert_eq!(config.log_level.to_string(), "debug");
        assert_eq!(config.vmm.as_deref(), Some("qemu"));
        assert_eq!(config.boot_timeout_s, 9);
        let defaults = config.vm_defaults(8, 16 << 30);
        assert_eq!((defaults.vcpus, defaults.memory_mib), (5, 2048));
        assert_eq!((defaults.root_bytes, defaults.work_bytes), (1 << 30, 8 << 30));
        let from = |key| origin(&config, key).origin;
        assert_eq!(from("log_level"), Origin::Variable("BANGER_LOG_LEVEL".into()));
        assert_eq!(from("vm_defaults.memory"), Origin::File);
        assert_eq!(origin(&config, "vm_defaults.memory").value.as_deref(), Some("2GiB"));
        assert_eq!(from("vm_defaults.work_size"), Origin::Default);
    }

    #[test]
    fn all_documented_keys_are_known() {
        let file = "log_level = \"info\"\nvmm = \"auto\"\nstorage = \"overlay\"\n\
            firecracker_bin = \"/f\"\njailer_bin = \"/j\"\nqemu_bin = \"/q\"\n\
            vhost_device_vsock_bin = \"/v\"\nssh_key_path = \"/k\"\ndefault_image = \"alpine\"\n\
            tap_pool_size = 4\nweb_listen = \"127.0.0.1:8080\"\ndns_port = 5353\n\
            [network]\nbridge = \"br0\"\nsubnet = \"10.1.0.0/16\"\nnat = false\n\
            [vm_defaults]\nwork_size = \"1G\"\n\
            [[file_sync]]\nhost = \"~/.npmrc\"\nguest = \"/root/.npmrc\"\nmode = \"0600\"\n";
        let config = with(file, &[]).unwrap();
        assert!(!config.nat);
        assert_eq!(config.dns_port, 5353);
        assert_eq!((config.tap_pool_size, config.bridge.as_deref()), (Some(4), Some("br0")));
        assert_eq!(config.subnet, Some("10.1.0.0/16".parse().unwrap()));
        assert_eq!(config.web_listen, Some("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(origin(&config, "web_listen").value.as_deref(), Some("127.0.0.1:8080"));
        let error = with("web_listen = \"0.0.0.0:80\"\n", &[]).unwrap_err().to_string();
        assert!(error.contains("`0.0.0.0:80` is not an address of the loopback"), "{error}");
        let files = origin(&config, "file_sync");
        assert_eq!(files.value.as_deref(), Some("~/.npmrc to /root/.npmrc"));
        assert_eq!(config.file_sync[0].mode, Some(values::FileMode(0o600)));
        assert_eq!(config.storage.as_deref(), Some("overlay"));
    }

    #[test]
    fn proxies_are_set_and_shown_without_their_password() {
        let file =
            "[proxy]\nhttp = \"http://me:secret@proxy:3128\"\nno_proxy = [\".corp\", \"x\"]\n";
        let env = [("BANGER_PROXY_HTTPS", "http://you:hidden@other:1")];
        let config = with(file, &env).unwrap();
        let variables = config.proxy.variables();
        assert_eq!(variables["http_proxy"], "http://me:secret@proxy:3128");
        assert_eq!(variables["HTTPS_PROXY"], "http://you:hidden@other:1");
        assert!(variables["no_proxy"].ends_with(",.corp,x"));
        let shown = |key| origin(&config, key).value;
        assert_eq!(shown("proxy.http").as_deref(), Some("http://***@proxy:3128"));
        assert_eq!(shown("proxy.no_proxy").as_deref(), Some(".corp,x"));
        let debug = format!("{config:?}");
        assert!(!debug.contains("secret") && !debug.contains("hidden"), "{debug}");
        let text = with("[proxy]\nno_proxy = \"a, b\"", &[]).unwrap();
        assert_eq!(text.proxy.no_proxy.to_string(), "a,b");
    }

    #[test]
    fn files_of_certificates_are_absolute_paths() {
        let config = with("[ca]\nfiles = [\"/a.pem\", \"/b\"]", &[]).unwrap();
        assert_eq!(config.ca.files, [Path::new("/a.pem"), Path::new("/b")]);
        assert_eq!(origin(&config, "ca.files").value.as_deref(), Some("/a.pem:/b"));
        let config = with("", &[("BANGER_CA_FILES", "/x:/y")]).unwrap();
        assert_eq!(config.ca.files, [Path::new("/x"), Path::new("/y")]);
        for (file, problem_at) in [
            ("[ca]\nfiles = [\"/a\", \"b\"]", "line 2, column 16: `b` is not an absolute path"),
            ("[ca]\nfiles = \"/a\"", "line 2, column 9: "),
            ("[ca]\nfile = []", "line 2, column 1: unknown field `file`"),
        ] {
            assert!(problem(file).starts_with(problem_at), "{}", problem(file));
        }
    }

    #[test]
    fn no_error_contains_the_password_of_a_proxy() {
        for (file, place) in [
            ("[proxy]\nhttp = \"http://me:secret@proxy:x\"", "line 2, column 8: "),
            ("[proxy]\nhttp = \"me:secret@proxy\"", "line 2, column 8: "),
            ("[proxy]\nhttps = [\"http://me:secret@proxy\"]", "line 2, column 9: "),
            ("[proxy]\nhttp_proxy = \"http://me:secret@proxy\"", "line 2, column 1: "),
            ("[proxy]\n\"http://me:secret@proxy\" = 1", "line 2, column 1: "),
            ("proxy = \"http://me:secret@proxy\"", "line 1, column 9: "),
            ("[proxy]\nno_proxy = \"http://me:secret@proxy\"", "line 2, column 12: "),
            ("[proxy]\nno_proxy = 7", "line 2, column 12: "),
            ("[proxy]\nhttp = http://me:secret@proxy", "line 2, column "),
        ] {
            let problem = problem(file);
            assert!(problem.starts_with(place), "{file}: {problem}");
            assert!(!problem.contains("secret"), "{problem}");
        }
        let env = [("BANGER_PROXY_HTTP", "http://me:secret@proxy:port")];
        let error = with("", &env).unwrap_err().message;
        assert!(error.starts_with("`BANGER_PROXY_HTTP`: the port"), "{error}");
        assert!(!error.contains("secret"));
    }

    #[test]
    fn bad_values_are_refused_with_their_position() {
        assert!(problem("\nvm = 1\n").starts_with("line 2, column 1: unknown field `vm`"));
        assert!(problem("[network]\nnot = 1").starts_with("line 2, column 1: unknown field `not`"));
        assert_eq!(
            problem("log_level = \"loud\""),
            "line 1, column 13: `loud` is not one of error, warn, info, debug, trace"
        );
        assert!(problem("vmm = \"xen\"").contains("`xen` is not one of auto, firecracker, qemu"));
        assert!(problem("boot_timeout_s = 0").starts_with("line 1, column 18: `0` is not a whole"));
        assert!(problem("boot_timeout_s = -1").starts_with("line 1, column 18: "));
        assert!(problem("dns_port = 65536").contains("from 0 to 65535"));
        assert!(problem("qemu_bin = \"qemu\"").contains("`qemu` is not an absolute path"));
        assert!(problem("[vm_defaults]\nvcpus = 99").contains("99 vCPUs: a VM has 1 to 32"));
        assert!(problem("[vm_defaults]\nmemory = \"1M\"").contains("1 MiB of memory"));
        assert!(problem("[vm_defaults]\ndisk_size = \"0G\"").contains("more than zero"));
        assert!(problem("[network]\nnat = \"yes\"").starts_with("line 2, column 7: "));
        assert!(problem("[network]\nsubnet = \"10.0.0.0/99\"").contains("is not a subnet"));
        assert!(problem("log_level = ").starts_with("line 1, column 13: "));
        assert!(problem("[[file_sync]]\nhost = \"/x\"").contains("missing field `guest`"));
        for guest in ["/etc/x", "/root", "/root/", "/root/../x", "/root//x", "/root/./x", "root/x"]
        {
            let file = format!("[[file_sync]]\nhost = \"/x\"\nguest = \"{guest}\"");
            assert!(problem(&file).contains("is not a path below /root"), "{guest}");
        }
        for mode in ["4755", "rw", "+600", "8", "6", "00600", ""] {
            let file = "[[file_sync]]\nhost = \"/x\"\nguest = \"/root/x\"\nmode = ";
            assert!(problem(&format!("{file}\"{mode}\"")).contains("is not a mode"), "{mode}");
        }
        let variable = with("", &[("BANGER_VMM", "xen")]).unwrap_err();
        assert_eq!(variable.message, "`BANGER_VMM`: `xen` is not one of auto, firecracker, qemu");
    }
}
