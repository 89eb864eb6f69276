//! Links in the folder in which OpenSSL finds certificates by their subjects: `banger-NNN.pem`
//! leads to the source file, and `HASH.N` to that link, as update-ca-certificates(8) and
//! openssl-rehash(1) make them.

use rustix::fs::{AtFlags, Dir, OFlags, readlinkat, symlinkat, unlinkat};
use rustix::io::Errno;

use crate::beneath::{Folder, Links, Owner};
use crate::fault::{Context, Fault};
use crate::inside::Inside as _;

/// The folder, on every distribution; a link on some.
pub const FOLDER: &str = "etc/ssl/certs";
/// Most entries of the folder that are looked at.
const MAX_ENTRIES: usize = 20_000;
/// Most certificates with the same hash.
const MAX_SAME: usize = 100;

/// Replaces the links of an earlier start by those to `sources`: paths in the guest with the hashes
/// of their subjects.
pub fn replace(root: &Folder, sources: &[(String, &str)]) -> Result<(), Fault> {
    let what = || format!("cannot change the links of `/{}`", FOLDER);
    if sources.is_empty() && !root.has(FOLDER.as_bytes()) {
        return Ok(());
    }
    let folder = root.make_inside(FOLDER.as_bytes(), Owner::ROOT, 0o755)?;
    let earlier = ours(&folder).context(what)?;
    let wanted = wanted(sources);
    if wanted.len() == earlier.len() && wanted.iter().all(|link| leads_to(&folder, link)) {
        return Ok(());
    }
    for name in earlier {
        unlinkat(&folder, name.as_slice(), AtFlags::empty()).context(what)?;
    }
    for (name, target) in wanted {
        make(&folder, &name, &target).context(what)?;
    }
    Ok(())
}

/// Links and their targets, the first name for each hash.
fn wanted(sources: &[(String, &str)]) -> Vec<(String, String)> {
    let mut links = Vec::new();
    for (number, (source, hash)) in sources.iter().enumerate() {
        let name = format!("banger-{number:03}.pem");
        let same = sources.iter().take(number).filter(|(_, other)| other == hash).count();
        links.push((format!("{hash}.{same}"), name.clone()));
        links.push((name, format!("/{source}")));
    }
    links
}

fn leads_to(folder: &Folder, (name, target): &(String, String)) -> bool {
    readlinkat(folder, name.as_str(), Vec::new())
        .is_ok_and(|found| found.as_bytes() == target.as_bytes())
}

/// Makes a link; a name `HASH.N` that is taken is replaced by the next one that is not.
fn make(folder: &Folder, name: &str, target: &str) -> rustix::io::Result<()> {
    let Some((hash, first)) = name.split_once('.').filter(|(_, end)| *end != "pem") else {
        return symlinkat(target, folder, name);
    };
    let first: usize = first.parse().unwrap_or(0);
    for number in first..MAX_SAME {
        match symlinkat(target, folder, format!("{hash}.{number}")) {
            Err(Errno::EXIST) => {}
            other => return other,
        }
    }
    Err(Errno::EXIST)
}

/// Names of the links of an earlier start.
fn ours(folder: &Folder) -> std::io::Result<Vec<Vec<u8>>> {
    let is_ours = |name: &[u8]| name.starts_with(b"banger-") && name.ends_with(b".pem");
    let handle = folder.open_beneath(b".", OFlags::RDONLY | OFlags::DIRECTORY, Links::Refuse)?;
    let mut names = Vec::new();
    for entry in Dir::new(handle)?.take(MAX_ENTRIES) {
        let entry = entry?;
        let name = entry.file_name();
        let Ok(target) = readlinkat(folder, name, Vec::new()) else { continue };
        if is_ours(name.to_bytes()) || is_ours(target.as_bytes()) {
            names.push(name.to_bytes().to_vec());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn links(folder: &Path) -> Vec<(String, String)> {
        let mut links: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let target = std::fs::read_link(entry.path()).unwrap();
                let text = |name: std::ffi::OsString| name.into_string().unwrap();
                (text(entry.file_name()), text(target.into_os_string()))
            })
            .collect();
        links.sort();
        links
    }

    #[test]
    fn links_of_others_stay_and_ours_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::open(dir.path().to_str().unwrap()).unwrap();
        replace(&root, &[]).unwrap();
        assert!(!dir.path().join("etc").exists(), "nothing to link, nothing made");
        let folder = dir.path().join("etc/ssl/certs");
        std::fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink("Public_CA.pem", folder.join("aaaaaaaa.0")).unwrap();
        let own = links(&folder);
        let source = |number| format!("usr/local/share/ca-certificates/banger-00{number}.crt");
        let pairs = |all: &[(&str, &str)]| {
            let mut all: Vec<_> = all.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
            all.extend(own.clone());
            all.sort();
            all
        };
        for _ in 0..2 {
            replace(&root, &[(source(0), "aaaaaaaa"), (source(1), "bbbbbbbb")]).unwrap();
            let expected = pairs(&[
                ("aaaaaaaa.1", "banger-000.pem"),
                ("bbbbbbbb.0", "banger-001.pem"),
                ("banger-000.pem", "/usr/local/share/ca-certificates/banger-000.crt"),
                ("banger-001.pem", "/usr/local/share/ca-certificates/banger-001.crt"),
            ]);
            assert_eq!(links(&folder), expected);
        }
        replace(&root, &[(source(0), "bbbbbbbb"), (source(1), "bbbbbbbb")]).unwrap();
        let names: Vec<String> = links(&folder).into_iter().map(|(name, _)| name).collect();
        let expected =
            ["aaaaaaaa.0", "banger-000.pem", "banger-001.pem", "bbbbbbbb.0", "bbbbbbbb.1"];
        assert_eq!(names, expected);
        replace(&root, &[]).unwrap();
        assert_eq!(links(&folder), own);
    }
}
