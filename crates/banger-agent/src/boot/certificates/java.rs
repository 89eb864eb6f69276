//! Java's keystores of trusted certificates, in the format JKS: big-endian numbers, entries, and a
//! digest. The JDK's `sun.security.provider.JavaKeyStore` describes it:
//!
//! ```text
//! u32 0xFEEDFEED, u32 version (2), u32 number of entries
//! trusted certificate: u32 2, text alias, u64 time, text "X.509", u32 length, DER
//! private key:         u32 1, text alias, u64 time, u32 length, key, u32 number, certificates
//! SHA-1 of the password as UTF-16, "Mighty Aphrodite" and all bytes before
//! ```
//!
//! A text is a u16 length and its bytes. A keystore in the format PKCS #12 becomes a JKS file: a
//! JDK recognises both by their content (`keystore.type.compat` in its `java.security`).

use sha1::{Digest as _, Sha1};

use super::pkcs12;

const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
const TRUSTED: u32 = 2;
/// Password of the keystores of all distributions.
const PASSWORD: &str = "changeit";
const DIGEST: usize = 20;
/// Part of the alias of each entry of ours, also where the distribution's program makes it from the
/// name of the source file.
const OURS: &[u8] = b"banger-";

/// An entry as it is stored, and its parts.
struct Entry<'a> {
    bytes: &'a [u8],
    alias: &'a [u8],
    /// DER of a trusted certificate.
    certificate: Option<&'a [u8]>,
}

/// The keystore with `added` (DER) instead of `earlier`; `None` if it is neither a JKS file with
/// the usual password nor PKCS #12 without encryption. Entries without an alias of ours are removed
/// only where no entry has one: there the distribution has made the keystore again under names of
/// its own.
pub fn edit(store: &[u8], earlier: &[Vec<u8>], added: &[Vec<u8>]) -> Option<Vec<u8>> {
    if let Some(certificates) = pkcs12::certificates(store) {
        return if added.is_empty() { Some(store.into()) } else { extended(&certificates, added) };
    }
    let content = store.get(..store.len().checked_sub(DIGEST)?)?;
    if digest(content) != store.get(content.len()..)? {
        return None;
    }
    let entries = entries(content)?;
    let is_ours = |entry: &Entry<'_>| entry.alias.windows(OURS.len()).any(|part| part == OURS);
    let has_ours = entries.iter().any(is_ours);
    let is_earlier = |entry: &Entry<'_>| {
        entry.certificate.is_some_and(|der| earlier.iter().any(|other| other == der))
    };
    let kept: Vec<&Entry<'_>> = entries
        .iter()
        .filter(|entry| if has_ours { !is_ours(entry) } else { !is_earlier(entry) })
        .collect();
    let count = u32::try_from(kept.len() + added.len()).ok()?;
    let mut new = [MAGIC, VERSION, count].map(u32::to_be_bytes).concat();
    kept.iter().for_each(|entry| new.extend_from_slice(entry.bytes));
    for (number, der) in added.iter().enumerate() {
        put_entry(&mut new, &our_alias(number), der)?;
    }
    Some(signed(new))
}

/// A keystore of these certificates and ours.
fn extended(certificates: &[(String, &[u8])], added: &[Vec<u8>]) -> Option<Vec<u8>> {
    let count = u32::try_from(certificates.len() + added.len()).ok()?;
    let mut new = [MAGIC, VERSION, count].map(u32::to_be_bytes).concat();
    for (alias, der) in certificates {
        // As the JDK converts a name before it looks for it in a JKS file.
        put_entry(&mut new, &alias.to_lowercase(), der)?;
    }
    for (number, der) in added.iter().enumerate() {
        put_entry(&mut new, &our_alias(number), der)?;
    }
    Some(signed(new))
}

fn our_alias(number: usize) -> String {
    format!("banger-{number:03}")
}

fn put_entry(store: &mut Vec<u8>, alias: &str, der: &[u8]) -> Option<()> {
    store.extend_from_slice(&TRUSTED.to_be_bytes());
    put_text(store, alias)?;
    store.extend_from_slice(&0_u64.to_be_bytes());
    put_text(store, "X.509")?;
    store.extend_from_slice(&u32::try_from(der.len()).ok()?.to_be_bytes());
    store.extend_from_slice(der);
    Some(())
}

fn signed(mut content: Vec<u8>) -> Vec<u8> {
    let digest = digest(&content);
    content.extend_from_slice(&digest);
    content
}

fn put_text(store: &mut Vec<u8>, text: &str) -> Option<()> {
    store.extend_from_slice(&u16::try_from(text.len()).ok()?.to_be_bytes());
    store.extend_from_slice(text.as_bytes());
    Some(())
}

fn digest(content: &[u8]) -> [u8; DIGEST] {
    let mut digest = Sha1::new();
    for unit in PASSWORD.encode_utf16() {
        digest.update(unit.to_be_bytes());
    }
    digest.update(b"Mighty Aphrodite");
    digest.update(content);
    digest.finalize().into()
}

fn entries(content: &[u8]) -> Option<Vec<Entry<'_>>> {
    let mut rest = content;
    if number(&mut rest)? != MAGIC || number(&mut rest)? != VERSION {
        return None;
    }
    let count = number(&mut rest)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let start = rest;
        let is_trusted = number(&mut rest)? == TRUSTED;
        let alias = text(&mut rest)?;
        take(&mut rest, 8)?;
        let certificate = if is_trusted {
            text(&mut rest)?;
            Some(block(&mut rest)?)
        } else {
            block(&mut rest)?;
            for _ in 0..number(&mut rest)? {
                text(&mut rest)?;
                block(&mut rest)?;
            }
            None
        };
        let bytes = start.get(..start.len() - rest.len())?;
        entries.push(Entry { bytes, alias, certificate });
    }
    rest.is_empty().then_some(entries)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(taken)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    take(rest, 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take(rest, 2)?.try_into().ok().map(u16::from_be_bytes)?;
    take(rest, length.into())
}

fn block<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(rest)?;
    take(rest, length as usize)
}

/// A keystore without entries.
#[cfg(test)]
pub fn empty() -> Vec<u8> {
    signed([MAGIC, VERSION, 0].map(u32::to_be_bytes).concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A keystore with these trusted certificates.
    fn store(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut content = [MAGIC, VERSION, entries.len() as u32].map(u32::to_be_bytes).concat();
        for (alias, der) in entries {
            content.extend_from_slice(&TRUSTED.to_be_bytes());
            put_text(&mut content, alias).unwrap();
            content.extend_from_slice(&7_u64.to_be_bytes());
            put_text(&mut content, "X.509").unwrap();
            content.extend_from_slice(&(der.len() as u32).to_be_bytes());
            content.extend_from_slice(der);
        }
        signed(content)
    }

    fn shown(store: &[u8]) -> Vec<(String, Vec<u8>)> {
        let entries = entries(&store[..store.len() - DIGEST]).unwrap();
        let show = |entry: &Entry<'_>| {
            (String::from_utf8_lossy(entry.alias).into(), entry.certificate.unwrap().to_vec())
        };
        entries.iter().map(show).collect()
    }

    #[test]
    fn entries_are_replaced_and_those_of_the_guest_stay() {
        let own = store(&[("public", b"p"), ("mine", b"m")]);
        let (one, two) = (b"1".to_vec(), b"2".to_vec());
        let both = edit(&own, &[], &[one.clone(), two.clone()]).unwrap();
        assert_eq!(
            shown(&both)[2..],
            [("banger-000".into(), one.clone()), ("banger-001".into(), two.clone())]
        );
        let earlier = [one.clone(), two.clone()];
        assert_eq!(edit(&both, &earlier, &earlier), Some(both.clone()), "no change");
        assert_eq!(edit(&both, &earlier, &[]), Some(own.clone()));
        // As the distribution's programs make it: from the source files.
        let made_again =
            store(&[("public", b"p"), ("debian:banger-000.pem", b"1"), ("mine", b"m")]);
        assert_eq!(edit(&made_again, &earlier, &[]), Some(own.clone()));
        let made_again = store(&[("public", b"p"), ("corproot", b"1"), ("mine", b"m")]);
        assert_eq!(edit(&made_again, &earlier, &[]), Some(own));
    }

    #[test]
    fn other_files_are_not_changed() {
        let good = store(&[("public", b"p")]);
        for length in 0..good.len() {
            assert_eq!(edit(&good[..length], &[], &[]), None, "{length}");
        }
        let mut other = good.clone();
        other[good.len() - 1] ^= 1;
        assert_eq!(edit(&other, &[], &[]), None, "another password");
        // Lengths and counts that the file does not have, with a right digest.
        for at in 0..good.len() - DIGEST {
            let mut content = good[..good.len() - DIGEST].to_vec();
            content[at] = 0xff;
            let digest = digest(&content);
            content.extend_from_slice(&digest);
            let _ = edit(&content, &[], &[]);
        }
    }

    /// The JDK itself reads the result.
    #[test]
    fn keytool_reads_an_edited_keystore() {
        use std::process::Command;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let keytool = |args: &[&str]| Command::new("keytool").args(args).output();
        let (path, der) = (at("store"), at("der"));
        let password = ["-keystore", &path, "-storepass", PASSWORD, "-keypass", PASSWORD];
        let made = keytool(
            &[
                &["-genkeypair", "-alias", "own", "-dname", "CN=own", "-keyalg", "EC"],
                &password[..],
                &["-storetype", "JKS"],
            ]
            .concat(),
        );
        if made.is_err() {
            eprintln!("skipped: keytool of a JDK is not installed");
            return;
        }
        let export = ["-exportcert", "-alias", "own", "-file", &der];
        assert!(keytool(&[&export, &password[..4]].concat()).unwrap().status.success());
        let store = std::fs::read(&path).unwrap();
        let added = edit(&store, &[], &[std::fs::read(&der).unwrap()]).unwrap();
        std::fs::write(&path, &added).unwrap();
        let list = keytool(&[&["-list"], &password[..4]].concat()).unwrap();
        let text = String::from_utf8_lossy(&list.stdout).into_owned();
        assert!(text.contains("own, ") && text.contains("PrivateKeyEntry"), "{text}");
        assert!(text.contains("banger-000, ") && text.contains("trustedCertEntry"), "{text}");
        assert_eq!(edit(&added, &[], &[]), Some(store));
    }
}
