//! Installed packages of an image: as its build listed them, or from the database of dpkg or apk on
//! its disk. Other package managers have databases that only they read.

use std::fs::File;

use super::rootfs::FACT_BYTES;
use super::{Image, ImageError, ImageStore};
use crate::ext4::volume::{Volume, Window};
use crate::fetch::PathContext;

/// Databases; a merged `/usr` has the last one.
const DPKG: &str = "var/lib/dpkg/status";
const APK: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];
/// Maximum number of packages in a list, and of characters of each.
const MAX_PACKAGES: usize = 100_000;
const MAX_PACKAGE: usize = 300;

impl ImageStore {
    /// Packages with their versions, sorted; empty if the image has no list that can be read.
    ///
    /// # Errors
    /// No such image; a disk that cannot be read.
    pub fn packages(&self, wanted: &str) -> Result<Vec<String>, ImageError> {
        let image = self.resolve(wanted)?;
        let installed = image.record.built.as_ref().map(|built| built.installed.clone());
        match installed.filter(|list| !list.is_empty()) {
            Some(list) => Ok(list),
            None => from_disk(&image),
        }
    }
}

fn from_disk(image: &Image) -> Result<Vec<String>, ImageError> {
    image.check()?;
    let path = image.root_disk();
    let file = File::open(&path).at("open", &path)?;
    let window = Window::new(file, 0, u64::MAX).at("look at", &path)?;
    let bad = |error: crate::ext4::volume::VolumeError| ImageError::BadArchive {
        path: path.clone(),
        source: error.into(),
    };
    let volume = Volume::open(window).map_err(bad)?;
    let read = |path: &str| volume.read_file(path.as_bytes(), FACT_BYTES).map_err(bad);
    let mut list = match read(DPKG)? {
        Some(status) => dpkg(&String::from_utf8_lossy(&status)),
        None => Vec::new(),
    };
    for database in APK {
        if let Some(installed) = read(database)? {
            list.extend(apk(&String::from_utf8_lossy(&installed)));
        }
    }
    list.sort();
    list.dedup();
    list.truncate(MAX_PACKAGES);
    Ok(list)
}

fn shown(name: &str, version: &str) -> String {
    let printable = |c: &char| !c.is_control();
    format!("{name} {version}").trim().chars().filter(printable).take(MAX_PACKAGE).collect()
}

/// Installed packages of `/var/lib/dpkg/status` (deb822(5)).
fn dpkg(status: &str) -> Vec<String> {
    let mut list = Vec::new();
    for stanza in status.split("\n\n").take(MAX_PACKAGES) {
        let field = |name: &str| {
            let mut lines = stanza.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
        };
        if field("Status").ends_with(" installed") {
            list.push(shown(field("Package"), field("Version")));
        }
    }
    list
}

/// Packages of apk's database: lines `P:NAME` and `V:VERSION` in stanzas.
fn apk(installed: &str) -> Vec<String> {
    let stanzas = installed.split("\n\n").take(MAX_PACKAGES);
    let of = |stanza: &str| {
        let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name));
        Some(shown(field("P:")?, field("V:").unwrap_or_default()))
    };
    stanzas.filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_read() {
        let status = "Package: b\nStatus: install ok installed\nVersion: 2:1-1\n\n\
            Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
            Package: a\nDescription: x\n Version: 9\nStatus: hold ok installed\nVersion: 3\n";
        assert_eq!(dpkg(status), ["b 2:1-1", "a 3"]);
        assert_eq!(dpkg(""), [""; 0]);
        let installed = "C:Q1\nP:musl\nV:1.2.5-r0\n\nP:odd\n\nX:1\n";
        assert_eq!(apk(installed), ["musl 1.2.5-r0", "odd"]);
    }
}
