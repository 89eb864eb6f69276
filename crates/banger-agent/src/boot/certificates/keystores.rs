//! Java's keystores in an image: those of distributions, and those of JDKs of their own.

use banger_agent_proto::boot::GuestCertificate;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::fs::{Dir, OFlags};

use super::super::identity::put;
use super::super::log::BootLog;
use super::{MODE, bundle, is_immutable, java};
use crate::beneath::{Folder, Links};
use crate::fault::{Context, Fault};

/// Keystores by distribution. A JDK of the distribution links to its keystore.
const KEYSTORES: [&str; 4] = [
    // Debian, Alpine, Arch.
    "etc/ssl/certs/java/cacerts",
    // Fedora.
    "etc/pki/ca-trust/extracted/java/cacerts",
    // openSUSE.
    "var/lib/ca-certificates/java-cacerts",
    // Images of Eclipse Temurin.
    "opt/java/openjdk/lib/security/cacerts",
];
/// Folder of the JDKs, and the keystore in each of them: since version 9, before.
const JDKS: &str = "usr/lib/jvm";
const IN_JDK: [&str; 2] = ["lib/security/cacerts", "jre/lib/security/cacerts"];
/// Most JDKs that are looked at.
const MAX_JDKS: usize = 64;
/// Largest keystore that is read, in bytes.
const KEYSTORE_MAX: u64 = 16 << 20;

/// Replaces the certificates of an earlier start in all keystores.
pub fn write(root: &Folder, earlier: &[Vec<u8>], added: &[&GuestCertificate], log: &mut BootLog) {
    let decode = |body: &Vec<u8>| BASE64.decode(body).ok();
    let earlier: Vec<Vec<u8>> = earlier.iter().filter_map(decode).collect();
    let bodies = added.iter().flat_map(|one| bundle::bodies(one.pem.as_bytes()));
    let added: Vec<Vec<u8>> = bodies.filter_map(|body| decode(&body)).collect();
    let paths = KEYSTORES.iter().map(ToString::to_string).chain(in_jdks(root));
    for path in paths.filter(|path| root.has(path.as_bytes()) && !is_immutable(root, path)) {
        log.note(edit(root, &path, &earlier, &added));
    }
}

fn edit(root: &Folder, path: &str, earlier: &[Vec<u8>], added: &[Vec<u8>]) -> Result<(), Fault> {
    let old = match root.read(path.as_bytes(), KEYSTORE_MAX) {
        // A link to a keystore that is not made yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.context(|| format!("cannot read `/{path}`, which is not changed"))?,
    };
    match java::edit(&old, earlier, added) {
        Some(new) => put(root, path, &new, MODE),
        None if added.is_empty() => Ok(()),
        None => Err(Fault::new(format!(
            "`/{path}` is neither a JKS file with the password `changeit` nor PKCS #12 without \
             encryption: Java does not trust the certificates of `[ca]`"
        ))),
    }
}

fn in_jdks(root: &Folder) -> Vec<String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let Ok(jdks) = root.open_beneath(JDKS.as_bytes(), flags, Links::Inside) else {
        return Vec::new();
    };
    let names = Dir::new(jdks).into_iter().flatten().flatten().take(MAX_JDKS);
    let names = names.filter_map(|entry| entry.file_name().to_str().map(str::to_owned).ok());
    let names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names
        .iter()
        .flat_map(|name| IN_JDK.map(|keystore| format!("{JDKS}/{name}/{keystore}")))
        .collect()
}
