//! Keystores in the format PKCS #12 (RFC 7292) without encryption, as JDKs since version 18 and
//! images of Eclipse Temurin have them.
//!
//! ```text
//! PFX             SEQUENCE { 3, ContentInfo, MAC of the password, if there is one }
//! ContentInfo     SEQUENCE { data, [0] OCTET STRING of SEQUENCE OF ContentInfo }
//! each of them    SEQUENCE { data, [0] OCTET STRING of SEQUENCE OF SafeBag }
//! SafeBag         SEQUENCE { certBag, [0] SEQUENCE { x509Certificate, [0] OCTET STRING },
//!                            SET OF SEQUENCE { friendlyName, SET { BMPString } } }
//! ```

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OBJECT: u8 = 0x06;
const BMP_STRING: u8 = 0x1e;
const EXPLICIT: u8 = 0xa0;

/// 1.2.840.113549.1.7.1
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
/// 1.2.840.113549.1.12.10.1.3
const CERT_BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1, 3];
/// 1.2.840.113549.1.9.22.1
const X509_CERTIFICATE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 22, 1];
/// 1.2.840.113549.1.9.20
const FRIENDLY_NAME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 20];

/// The certificates of a keystore: alias and DER; `None` if it is not PKCS #12, or has something
/// encrypted or other than certificates.
pub fn certificates(store: &[u8]) -> Option<Vec<(String, &[u8])>> {
    let mut outer = store;
    let mut pfx = element(&mut outer, SEQUENCE)?;
    if element(&mut pfx, INTEGER)? != [3] {
        return None;
    }
    let mut safes = element(&mut content(&mut pfx)?, SEQUENCE)?;
    let mut found = Vec::new();
    while !safes.is_empty() {
        let mut bags = element(&mut content(&mut safes)?, SEQUENCE)?;
        while !bags.is_empty() {
            let (alias, der) = certificate(&mut bags)?;
            let alias = alias.unwrap_or_else(|| format!("certificate-{:03}", found.len()));
            found.push((alias, der));
        }
    }
    Some(found)
}

/// The octets of a `ContentInfo` of the type `data`.
fn content<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut info = element(rest, SEQUENCE)?;
    if element(&mut info, OBJECT)? != DATA {
        return None;
    }
    element(&mut element(&mut info, EXPLICIT)?, OCTETS)
}

/// A `SafeBag` with a certificate.
fn certificate<'a>(rest: &mut &'a [u8]) -> Option<(Option<String>, &'a [u8])> {
    let mut bag = element(rest, SEQUENCE)?;
    if element(&mut bag, OBJECT)? != CERT_BAG {
        return None;
    }
    let mut value = element(&mut element(&mut bag, EXPLICIT)?, SEQUENCE)?;
    if element(&mut value, OBJECT)? != X509_CERTIFICATE {
        return None;
    }
    let der = element(&mut element(&mut value, EXPLICIT)?, OCTETS)?;
    let mut attributes = if bag.is_empty() { bag } else { element(&mut bag, SET)? };
    let mut alias = None;
    while !attributes.is_empty() {
        let mut attribute = element(&mut attributes, SEQUENCE)?;
        if element(&mut attribute, OBJECT)? == FRIENDLY_NAME {
            let text = element(&mut element(&mut attribute, SET)?, BMP_STRING)?;
            let units = text.chunks_exact(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]]));
            alias = Some(char::decode_utf16(units).map(|unit| unit.unwrap_or('_')).collect());
        }
    }
    Some((alias, der))
}

/// The content of the next element if it has this tag (ITU-T X.690, definite lengths).
fn element<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (head, after) = rest.split_first_chunk::<2>()?;
    let (length, after) = match head[1] {
        short @ 0..=0x7f => (usize::from(short), after),
        long @ 0x81..=0x84 => {
            let (bytes, after) = after.split_at_checked(usize::from(long & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), after)
        }
        _ => return None,
    };
    if head[0] != tag {
        return None;
    }
    let (content, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::super::java;
    use super::*;

    /// keytool makes the file, and reads what it becomes.
    #[test]
    fn a_keystore_of_a_jdk_becomes_one_with_more_certificates() {
        use std::process::Command;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let (path, der, plain) = (at("store"), at("der"), at("plain"));
        let keytool = |store: &str, args: &[&str]| {
            let plain = ["certProtectionAlgorithm=NONE", "macAlgorithm=NONE"];
            let plain = plain.map(|option| format!("-J-Dkeystore.pkcs12.{option}"));
            let mut command = Command::new("keytool");
            command.args(args).args(["-keystore", store, "-storepass", "changeit"]).args(plain);
            command.output()
        };
        let pair = ["-genkeypair", "-alias", "own", "-dname", "CN=own", "-keyalg", "EC"];
        if keytool(&path, &pair).is_err() {
            eprintln!("skipped: keytool of a JDK is not installed");
            return;
        }
        let export = ["-exportcert", "-alias", "own", "-file", &der];
        assert!(keytool(&path, &export).unwrap().status.success());
        let store = std::fs::read(&path).unwrap();
        assert_eq!(certificates(&store), None, "a private key is encrypted");
        for alias in ["one", "Zwei \u{e4}"] {
            let import = ["-importcert", "-noprompt", "-storetype", "PKCS12", "-alias", alias];
            let import = [&import[..], &["-file", &der]].concat();
            assert!(keytool(&plain, &import).unwrap().status.success());
        }
        let (store, der) = (std::fs::read(&plain).unwrap(), std::fs::read(&der).unwrap());
        let found = certificates(&store).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.iter().any(|(alias, found)| alias == "one" && *found == der), "{found:?}");

        let new = java::edit(&store, &[], &[der]).unwrap();
        std::fs::write(&plain, new).unwrap();
        let list = keytool(&plain, &["-list"]).unwrap();
        let text = String::from_utf8_lossy(&list.stdout).into_owned();
        assert!(text.contains("banger-000, ") && text.contains("one, "), "{text}");
        assert_eq!(text.matches("trustedCertEntry").count(), 3, "{text}");

        for length in 0..store.len() {
            assert_eq!(certificates(&store[..length]), None, "{length}");
            let mut wrong = store.clone();
            wrong[length] ^= 0x80;
            let _ = certificates(&wrong);
        }
    }
}
