//! Certificates of the host's configuration in the guest's trust store, without a program of the
//! distribution: the bundles get a block, OpenSSL's folder gets links, Java's keystores get
//! entries, and each certificate is a source file that the distribution's own program
//! (update-ca-certificates(8), update-ca-trust(8)) reads whenever it makes the store again.
//! [`CERTIFICATES_FILE`] leads to the bundle.
//!
//! That path is made first and removed last: as long as it is there, a later start knows that
//! certificates may have to be removed. A certificate that the guest trusts on its own account is
//! not added, and so never removed.

mod bundle;
mod hash_links;
mod java;
mod keystores;
mod pkcs12;

use banger_agent_proto::boot::{CERTIFICATES_FILE, GuestCertificate};
use rustix::fs::{AtFlags, OFlags, readlinkat, symlinkat, unlinkat};
use rustix::io::Errno;

use super::identity::put;
use super::log::BootLog;
use crate::beneath::{Folder, Links, Owner, split_last};
use crate::fault::{Context, Fault};
use crate::inside::Inside as _;

/// Bundles by distribution. Several of them may be one file. The first one is made where there is
/// none.
const BUNDLES: [&str; 5] = [
    // Debian, Alpine, Arch, Void, Gentoo.
    "etc/ssl/certs/ca-certificates.crt",
    // Fedora.
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/pki/tls/certs/ca-bundle.crt",
    // openSUSE.
    "etc/ssl/ca-bundle.pem",
    // Users of OpenSSL or LibreSSL on Alpine and Arch.
    "etc/ssl/cert.pem",
];

/// Folders of source files: the first one that is there, or the last one.
const SOURCES: [&str; 4] = [
    "etc/pki/ca-trust/source/anchors",
    "etc/ca-certificates/trust-source/anchors",
    "etc/pki/trust/anchors",
    "usr/local/share/ca-certificates",
];

/// Stores of packages, whose files never change.
const IMMUTABLE: [&str; 2] = ["/nix/store/", "/gnu/store/"];

const MODE: u32 = 0o644;
/// Largest bundle that is read, in bytes.
const BUNDLE_MAX: u64 = 16 << 20;
/// Largest source file that is read, in bytes.
const SOURCE_MAX: u64 = 2 << 20;

/// Adds the certificates, and removes those of an earlier start.
pub fn write(root: &Folder, certificates: &[GuestCertificate], log: &mut BootLog) {
    let link = CERTIFICATES_FILE.trim_start_matches('/');
    let (parent, name) = split_last(link.as_bytes()).unwrap_or((b"", link.as_bytes()));
    if certificates.is_empty() && !root.has(link.as_bytes()) {
        return;
    }
    if let Err(fault) = replace(root, (parent, name), certificates, log) {
        log.warn(fault.chain());
    }
}

fn replace(
    root: &Folder,
    link: (&[u8], &[u8]),
    certificates: &[GuestCertificate],
    log: &mut BootLog,
) -> Result<(), Fault> {
    let [default, ..] = BUNDLES;
    let first = BUNDLES.into_iter().find(|path| root.has(path.as_bytes())).unwrap_or(default);
    let is_fixed = is_immutable(root, first);
    if !certificates.is_empty() && !is_fixed {
        lead_to(root, link, &format!("/{first}"))?;
    }
    let earlier = earlier(root);
    let bare = bundle::without(&read(root, first)?, &earlier);
    let own = bundle::bodies(&bare);
    let is_own = |one: &GuestCertificate| {
        bundle::bodies(one.pem.as_bytes()).first().is_some_and(|body| own.contains(body))
    };
    let added: Vec<&GuestCertificate> = certificates.iter().filter(|one| !is_own(one)).collect();
    for path in BUNDLES {
        // A bundle is made where the guest has none.
        let is_wanted = root.has(path.as_bytes()) || (path == first && !added.is_empty());
        if is_wanted && !is_immutable(root, path) {
            log.note(put_bundle(root, path, (&earlier, &added)));
        }
    }
    let folder = sources_folder(root);
    let paths: Vec<(String, &str)> = (0..)
        .map(|number| format!("{folder}/{}", source(number)))
        .zip(added.iter().map(|one| one.subject_hash.as_str()))
        .collect();
    if !is_immutable(root, hash_links::FOLDER) {
        log.note(hash_links::replace(root, &paths));
    }
    keystores::write(root, &earlier, &added, log);
    // Last: they tell a later start what to remove.
    for path in SOURCES {
        log.note(sources(root, path, if path == folder { &added } else { &[] }));
    }
    let what = || format!("cannot make `{CERTIFICATES_FILE}`");
    let at = root.make_inside(link.0, Owner::ROOT, 0o755)?;
    if certificates.is_empty() {
        let removed = unlinkat(&at, link.1, AtFlags::empty());
        return removed.context(|| format!("cannot remove `{CERTIFICATES_FILE}`"));
    }
    if is_fixed {
        let copy = bundle::with(&bare, added.iter().map(|one| one.pem.as_str()));
        return at.put(link.1, &copy, Owner::ROOT, MODE).context(what);
    }
    Ok(())
}

/// Makes [`CERTIFICATES_FILE`] a link to a bundle.
fn lead_to(root: &Folder, (parent, name): (&[u8], &[u8]), target: &str) -> Result<(), Fault> {
    let what = || format!("cannot make `{CERTIFICATES_FILE}`");
    let folder = root.make_inside(parent, Owner::ROOT, 0o755)?;
    match readlinkat(&folder, name, Vec::new()) {
        Ok(found) if found.as_bytes() == target.as_bytes() => return Ok(()),
        Err(Errno::NOENT) => {}
        Ok(_) | Err(_) => unlinkat(&folder, name, AtFlags::empty()).context(what)?,
    }
    symlinkat(target, &folder, name).context(what)
}

/// Content of a bundle. One that is missing, or whose link leads nowhere, is empty.
fn read(root: &Folder, path: &str) -> Result<Vec<u8>, Fault> {
    match root.read(path.as_bytes(), BUNDLE_MAX) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.context(|| format!("cannot read `/{path}`, which is not changed")),
    }
}

fn put_bundle(
    root: &Folder,
    path: &str,
    (earlier, added): (&[Vec<u8>], &[&GuestCertificate]),
) -> Result<(), Fault> {
    let old = read(root, path)?;
    let bare = bundle::without(&old, earlier);
    let new = bundle::with(&bare, added.iter().map(|one| one.pem.as_str()));
    if new == old {
        return Ok(());
    }
    if new.is_empty() {
        let (folder, name) = root.real_place(path.as_bytes())?;
        let removed = unlinkat(&folder, &name, AtFlags::empty());
        return removed.context(|| format!("cannot remove `/{path}`"));
    }
    put(root, path, &new, MODE)
}

fn source(number: usize) -> String {
    format!("banger-{number:03}.crt")
}

/// The folder of source files of this distribution.
fn sources_folder(root: &Folder) -> &'static str {
    let [.., last] = SOURCES;
    SOURCES.into_iter().find(|path| root.has(path.as_bytes())).unwrap_or(last)
}

/// The certificates of an earlier start.
fn earlier(root: &Folder) -> Vec<Vec<u8>> {
    let content = |path: String| root.read(path.as_bytes(), SOURCE_MAX).ok();
    let files = SOURCES.iter().flat_map(|folder| {
        (0..).map_while(move |number| content(format!("{folder}/{}", source(number))))
    });
    files.flat_map(|pem| bundle::bodies(&pem)).collect()
}

/// One file for each certificate; removes those of a longer list before.
fn sources(root: &Folder, path: &str, added: &[&GuestCertificate]) -> Result<(), Fault> {
    if added.is_empty() && !root.has(path.as_bytes()) {
        return Ok(());
    }
    let folder = root.make_inside(path.as_bytes(), Owner::ROOT, 0o755)?;
    for (number, one) in added.iter().enumerate() {
        put(root, &format!("{path}/{}", source(number)), one.pem.as_bytes(), MODE)?;
    }
    // From the end, so that an interrupted removal leaves a list without gaps.
    let stale = (added.len()..).map(source);
    let stale: Vec<String> =
        stale.take_while(|name| folder.kind_of(name.as_bytes()).is_some()).collect();
    for name in stale.iter().rev() {
        let removed = unlinkat(&folder, name.as_str(), AtFlags::empty());
        removed.context(|| format!("cannot remove `/{path}/{name}`"))?;
    }
    Ok(())
}

fn is_immutable(root: &Folder, path: &str) -> bool {
    use std::os::fd::AsRawFd as _;
    let Ok(file) = root.open_beneath(path.as_bytes(), OFlags::PATH, Links::Inside) else {
        return false;
    };
    let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let real = real.unwrap_or_default();
    IMMUTABLE.iter().any(|store| real.to_string_lossy().contains(store))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    const BEGIN: &str = "# banger ca: replaced at each start, from [ca] of the host\n";
    const END: &str = "# banger ca: end\n";
    const ONE: &str = "-----BEGIN CERTIFICATE-----\nAQ==\n-----END CERTIFICATE-----\n";
    const TWO: &str = "-----BEGIN CERTIFICATE-----\nAg==\n-----END CERTIFICATE-----\n";

    /// An image with these files, as its superuser would have made them; `None` for another user.
    fn image(files: &[(&str, &str)]) -> Option<(tempfile::TempDir, Folder)> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only the superuser can make files of the superuser");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let root = Folder::open(dir.path().to_str().unwrap()).unwrap();
        Some((dir, root))
    }

    fn apply(root: &Folder, certificates: &[&str]) {
        let mut log = BootLog::start();
        let certificate = |pem: &&str| GuestCertificate {
            pem: pem.to_string(),
            subject_hash: if *pem == ONE { "11111111".into() } else { "22222222".into() },
        };
        write(root, &certificates.iter().map(certificate).collect::<Vec<_>>(), &mut log);
        assert_eq!(log.finish().1, Vec::<String>::new());
    }

    fn read(dir: &Path, path: &str) -> Option<String> {
        std::fs::read_to_string(dir.join(path)).ok()
    }

    #[test]
    fn each_distribution_keeps_its_bundle_and_its_sources() {
        for (bundle, sources) in [
            (BUNDLES[0], SOURCES[3]),
            (BUNDLES[1], SOURCES[0]),
            (BUNDLES[0], SOURCES[1]),
            (BUNDLES[3], SOURCES[2]),
        ] {
            let keep = format!("{sources}/keep");
            let Some((dir, root)) = image(&[(bundle, "public\n"), (&keep, "mine")]) else { return };
            apply(&root, &[ONE, TWO]);
            let added = format!("public\n{BEGIN}{ONE}{TWO}{END}");
            assert_eq!(read(dir.path(), bundle), Some(added.clone()), "{bundle}");
            let link = std::fs::read_link(dir.path().join("etc/banger/ca.crt")).unwrap();
            assert_eq!(link.to_str(), Some(format!("/{bundle}").as_str()));
            let source = |number| read(dir.path(), &format!("{sources}/banger-00{number}.crt"));
            assert_eq!((source(0).as_deref(), source(1).as_deref()), (Some(ONE), Some(TWO)));
            let hashed = || std::fs::read_link(dir.path().join("etc/ssl/certs/11111111.0")).ok();
            assert_eq!(hashed().unwrap().to_str(), Some("banger-000.pem"));
            apply(&root, &[ONE, TWO]);
            assert_eq!(read(dir.path(), bundle), Some(added), "a second boot changes nothing");
            apply(&root, &[TWO]);
            assert_eq!(read(dir.path(), bundle), Some(format!("public\n{BEGIN}{TWO}{END}")));
            assert_eq!((source(0).as_deref(), source(1)), (Some(TWO), None));
            apply(&root, &[]);
            assert_eq!(read(dir.path(), bundle).as_deref(), Some("public\n"));
            assert_eq!((source(0), read(dir.path(), &keep).as_deref()), (None, Some("mine")));
            assert!(hashed().is_none() && !dir.path().join("etc/banger/ca.crt").is_symlink());
        }
    }

    #[test]
    fn certificates_leave_a_bundle_that_the_guest_has_made_again() {
        let Some((dir, root)) = image(&[(BUNDLES[0], "public\n")]) else { return };
        apply(&root, &[ONE, TWO]);
        // update-ca-certificates joins all sources.
        let made_again = format!("public\n{ONE}{TWO}");
        std::fs::write(dir.path().join(BUNDLES[0]), &made_again).unwrap();
        apply(&root, &[TWO]);
        assert_eq!(read(dir.path(), BUNDLES[0]), Some(format!("public\n{BEGIN}{TWO}{END}")));
        std::fs::write(dir.path().join(BUNDLES[0]), format!("public\n{TWO}")).unwrap();
        apply(&root, &[]);
        assert_eq!(read(dir.path(), BUNDLES[0]).as_deref(), Some("public\n"));
    }

    #[test]
    fn certificates_that_the_guest_has_of_its_own_stay() {
        let own = format!("public\n{ONE}");
        let Some((dir, root)) = image(&[(BUNDLES[0], &own)]) else { return };
        apply(&root, &[ONE, TWO]);
        assert_eq!(read(dir.path(), BUNDLES[0]), Some(format!("{own}{BEGIN}{TWO}{END}")));
        assert_eq!(read(dir.path(), "etc/ssl/certs/banger-000.pem"), None, "absolute link");
        let source = format!("{}/banger-000.crt", SOURCES[3]);
        assert_eq!(read(dir.path(), &source).as_deref(), Some(TWO));
        for certificates in [[ONE].as_slice(), &[], &[]] {
            apply(&root, certificates);
            assert_eq!(read(dir.path(), BUNDLES[0]).as_ref(), Some(&own), "{certificates:?}");
            assert_eq!(read(dir.path(), &source), None);
        }
    }

    /// Whatever part of an earlier start took place, the next one completes or removes it.
    #[test]
    fn an_interrupted_start_leaves_nothing_behind() {
        let files = [(BUNDLES[0], "public\n")];
        for left in 0..4 {
            let Some((dir, root)) = image(&files) else { return };
            apply(&root, &[ONE, TWO]);
            // What a start with these did not come to, in reverse order of its writes.
            let source =
                |number| dir.path().join(SOURCES[3]).join(format!("banger-00{number}.crt"));
            for number in (0..2).rev().take(left) {
                std::fs::remove_file(source(number)).unwrap();
            }
            if left == 3 {
                std::fs::write(dir.path().join(BUNDLES[0]), "public\n").unwrap();
            }
            apply(&root, &[]);
            assert_eq!(read(dir.path(), BUNDLES[0]).as_deref(), Some("public\n"), "{left}");
            assert!(!source(0).exists() && !source(1).exists(), "{left}");
            let links = std::fs::read_dir(dir.path().join("etc/ssl/certs")).unwrap().count();
            assert_eq!(links, 1, "only the bundle is in the folder");
        }
    }

    #[test]
    fn keystores_of_java_get_the_certificates_and_lose_them() {
        let Some((dir, root)) = image(&[(BUNDLES[0], "public\n"), ("etc/ssl/certs/java/x", "")])
        else {
            return;
        };
        let at = |path: &str| dir.path().join(path);
        let empty = java::empty();
        std::fs::write(at("etc/ssl/certs/java/cacerts"), &empty).unwrap();
        for jdk in ["linked", "own", "other"] {
            std::fs::create_dir_all(at(&format!("usr/lib/jvm/{jdk}/lib/security"))).unwrap();
        }
        let linked = at("usr/lib/jvm/linked/lib/security/cacerts");
        symlink("/etc/ssl/certs/java/cacerts", &linked).unwrap();
        std::fs::write(at("usr/lib/jvm/own/lib/security/cacerts"), &empty).unwrap();
        let keystores = || {
            ["etc/ssl/certs/java/cacerts", "usr/lib/jvm/own/lib/security/cacerts"]
                .map(|path| std::fs::read(at(path)).unwrap())
        };
        apply(&root, &[ONE]);
        let expected = java::edit(&empty, &[], &[vec![1]]).unwrap();
        assert_eq!(keystores(), [expected.clone(), expected]);
        assert!(linked.is_symlink());
        apply(&root, &[]);
        assert_eq!(keystores(), [empty.clone(), empty]);
        // PKCS #12, as a JDK's own since version 18.
        std::fs::write(at("usr/lib/jvm/other/lib/security/cacerts"), "0").unwrap();
        let mut log = BootLog::start();
        let one = GuestCertificate { pem: ONE.into(), subject_hash: "11111111".into() };
        write(&root, &[one], &mut log);
        let (_, warnings) = log.finish();
        assert!(warnings.len() == 1 && warnings[0].contains("neither a JKS file"), "{warnings:?}");
    }

    #[test]
    fn an_image_without_a_bundle_gets_one_and_loses_it() {
        let Some((dir, root)) = image(&[("etc/hostname", "x")]) else { return };
        apply(&root, &[]);
        assert!(!dir.path().join("usr").exists() && !dir.path().join("etc/ssl").exists());
        apply(&root, &[ONE]);
        assert_eq!(read(dir.path(), BUNDLES[0]), Some(format!("{BEGIN}{ONE}{END}")));
        apply(&root, &[]);
        assert_eq!(read(dir.path(), BUNDLES[0]), None);
    }

    #[test]
    fn links_are_followed_and_stores_of_packages_do_not_change() {
        let store = "nix/store/x-cacert/ca.crt";
        let Some((dir, root)) = image(&[(store, "public\n"), ("etc/ssl/certs/x", "")]) else {
            return;
        };
        symlink(format!("/{store}"), dir.path().join(BUNDLES[0])).unwrap();
        apply(&root, &[ONE]);
        assert_eq!(read(dir.path(), store).as_deref(), Some("public\n"));
        let copy = read(dir.path(), "etc/banger/ca.crt");
        assert_eq!(copy, Some(format!("public\n{BEGIN}{ONE}{END}")));
        apply(&root, &[]);
        assert_eq!(read(dir.path(), "etc/banger/ca.crt"), None);
    }

    #[test]
    fn a_link_of_the_guest_leads_no_write_out_of_it() {
        let outside = tempfile::tempdir().unwrap();
        let Some((dir, root)) = image(&[(BUNDLES[0], "public\n"), ("usr/local/x", "")]) else {
            return;
        };
        let target = outside.path().join("share");
        symlink(&target, dir.path().join("usr/local/share")).unwrap();
        symlink(outside.path(), dir.path().join("etc/banger")).unwrap();
        apply(&root, &[ONE]);
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
