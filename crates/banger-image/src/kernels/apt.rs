//! Debian packages through the host's apt: its sources, keys and proxies; apt checks signatures and
//! hashes.
//!
//! Does not change the host: if its package lists are missing or out of date, it fetches separate
//! lists into the staging folder, which needs no privilege.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::KernelError;
use crate::fetch::{CA_INFO, FetchError, PathContext, Progress, Tool, Tools};

/// The meta package that depends on the current kernel package.
pub const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// A meta package, and the prefix of the package that it depends on.
#[derive(Debug)]
pub struct Meta {
    name: &'static str,
    prefix: &'static str,
}

/// Debian's kernel for virtual machines.
pub const KERNEL: Meta = Meta { name: META_PACKAGE, prefix: "linux-image-" };
/// Debian's source of its kernels.
pub const SOURCE: Meta = Meta { name: "linux-source", prefix: "linux-source-" };
/// Maximum size of apt's output in bytes.
const ANSWER_BYTES: u64 = 1 << 20;

/// A version of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The package lists to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lists {
    /// The host's.
    Hosts,
    /// Separate lists, just fetched.
    Own,
}

/// Adds a setting whose value is a path.
fn set(tool: &mut Tool, option: &str, path: &Path) {
    let mut setting = OsString::from(format!("{option}="));
    setting.push(path);
    tool.command.arg("-o").arg(setting);
}

/// apt with a separate working folder.
pub struct Apt<'a> {
    tools: &'a Tools,
    folder: &'a Path,
    meta: &'a Meta,
    lists: Lists,
}

impl<'a> Apt<'a> {
    /// Works in `folder`, with the host's package lists first.
    pub fn new(tools: &'a Tools, folder: &'a Path, meta: &'a Meta) -> Self {
        Self { tools, folder, meta, lists: Lists::Hosts }
    }

    fn tool(&self, name: &'static str) -> Result<Tool, FetchError> {
        let mut tool = self.tools.command(name, "apt")?;
        tool.command.current_dir(self.folder);
        // Requires signatures, even if the host's configuration does not.
        tool.command.args(["-o", "APT::Get::AllowUnauthenticated=false"]);
        tool.command.args(["-o", "Acquire::AllowInsecureRepositories=false"]);
        tool.command.args(["-o", "Acquire::Retries=2", "-q"]);
        if let Some(path) = self.tools.apt_trust(self.folder)? {
            set(&mut tool, CA_INFO, &path);
        }
        if rustix::process::geteuid().is_root() {
            // apt would switch to its own user, who cannot enter the folder, and then warn and
            // continue as root.
            tool.command.args(["-o", "APT::Sandbox::User=root"]);
        }
        if self.lists == Lists::Own {
            for (option, name) in [("Dir::State::lists", "lists"), ("Dir::Cache", "cache")] {
                set(&mut tool, option, &self.folder.join(name));
            }
        }
        Ok(tool)
    }

    /// Fetches separate package lists.
    fn refresh(&mut self, progress: &dyn Progress) -> Result<(), FetchError> {
        progress.stage("refresh package lists");
        self.lists = Lists::Own;
        for name in ["lists/partial", "cache/archives/partial"] {
            let path = self.folder.join(name);
            std::fs::create_dir_all(&path).at("make the folder", &path)?;
        }
        self.tool("apt-get")?.args(["update"]).run(progress)
    }

    /// The current package.
    fn find(&self, progress: &dyn Progress) -> Result<Option<Package>, FetchError> {
        let tool = self.tool("apt-cache")?;
        let shown = tool.args(["show", "--no-all-versions", self.meta.name]);
        match shown.output(ANSWER_BYTES, progress) {
            Ok(text) => Ok(current_package(&String::from_utf8_lossy(&text), self.meta.prefix)),
            // apt fails for "No packages found".
            Err(FetchError::ToolFailed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Finds the current package, with separate package lists if the host's do not contain it.
    ///
    /// # Errors
    /// [`KernelError::NoPackage`]; errors of apt.
    pub fn current(&mut self, progress: &dyn Progress) -> Result<Package, KernelError> {
        progress.stage("find the kernel package");
        if let Some(package) = self.find(progress)? {
            return Ok(package);
        }
        self.refresh(progress)?;
        let found = self.find(progress)?;
        found.ok_or(KernelError::NoPackage { package: self.meta.name })
    }

    /// Downloads a package; returns its path. If the file is no longer on the server, fetches new
    /// lists, which may name a newer version.
    ///
    /// # Errors
    /// Errors of apt.
    pub fn download(
        &mut self,
        package: Package,
        progress: &dyn Progress,
    ) -> Result<(Package, PathBuf), KernelError> {
        match self.download_once(&package, progress) {
            Err(FetchError::ToolFailed { .. }) if self.lists == Lists::Hosts => {}
            result => return Ok((package, result?)),
        }
        self.refresh(progress)?;
        let found = self.find(progress)?;
        let package = found.ok_or(KernelError::NoPackage { package: self.meta.name })?;
        let path = self.download_once(&package, progress)?;
        Ok((package, path))
    }

    fn download_once(
        &self,
        package: &Package,
        progress: &dyn Progress,
    ) -> Result<PathBuf, FetchError> {
        progress.stage("download");
        let wanted = format!("{}={}", package.name, package.version);
        self.tool("apt-get")?.args(["download", &wanted]).run(progress)?;
        let entries = std::fs::read_dir(self.folder).at("read the folder", self.folder)?;
        let downloaded = entries.flatten().map(|entry| entry.path()).find(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(&package.name) && name.ends_with(".deb")
        });
        downloaded.ok_or_else(|| FetchError::ToolFailed {
            tool: "apt-get",
            status: "exit code 0".into(),
            output: vec![format!("nothing was downloaded for {wanted}")],
        })
    }
}

/// The package that a stanza of the meta package depends on (deb-control(5)).
fn current_package(stanza: &str, prefix: &str) -> Option<Package> {
    let field = |name: &str| {
        stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    let of_meta = field("Version")?;
    for alternative in field("Depends")?.split([',', '|']) {
        let alternative = alternative.trim();
        let (name, version) = match alternative.split_once(" (= ") {
            Some((name, version)) => (name, version.trim_end_matches(')')),
            None => (alternative.split(' ').next().unwrap_or_default(), of_meta),
        };
        let is_name = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
        };
        let is_version = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.~:".contains(&b))
        };
        if name.starts_with(prefix) && is_name(name) && is_version(version) {
            return Some(Package { name: name.to_owned(), version: version.to_owned() });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_kernel_is_read_from_the_meta_package() {
        let stanza = "Package: linux-image-cloud-amd64\nSource: linux-signed-amd64 (6.1.192+2)\n\
                      Version: 6.1.192-2\n\
                      Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n";
        let package = current_package(stanza, KERNEL.prefix).unwrap();
        assert_eq!(package.name, "linux-image-6.1.0-56-cloud-amd64");
        assert_eq!(package.version, "6.1.192-2");
        let loose = "Version: 6.12-1\nDepends: initramfs-tools, linux-image-6.12.1-cloud-amd64\n";
        assert_eq!(current_package(loose, KERNEL.prefix).unwrap().version, "6.12-1");
    }

    #[test]
    fn names_that_could_be_options_or_paths_are_refused() {
        for depends in
            ["linux-image-x;rm", "-o=x", "linux-image-../x", "linux-image-x (= -y z)", ""]
        {
            let stanza = format!("Version: 1\nDepends: {depends}\n");
            let found = current_package(&stanza, KERNEL.prefix);
            assert!(found.is_none(), "{depends}: {found:?}");
        }
    }
}
