//! The parts of an X.509 certificate (RFC 5280) that banger uses: subject, validity, and the hash
//! of the subject by which OpenSSL finds a certificate in a folder (openssl-rehash(1)).

use std::time::SystemTime;

use sha1::{Digest as _, Sha1};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::asn1::Any;
use x509_cert::der::{Decode as _, Encode as _, Tag, Tagged as _};
use x509_cert::name::{Name, RelativeDistinguishedName};

/// Longest subject that is shown, in characters.
const MAX_SUBJECT: usize = 200;

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// As PEM, ending in a newline.
    pub pem: String,
    /// Its subject (RFC 4514), without control characters.
    pub subject: String,
    /// Hash of the subject as of `openssl x509 -subject_hash`, 8 hex digits.
    pub subject_hash: String,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// Validity of a certificate at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// It is valid.
    Valid,
    /// Its time has passed.
    Expired,
    /// Its time has not begun.
    NotYet,
}

impl Certificate {
    /// Whether it is valid at this time.
    pub fn validity(&self, at: SystemTime) -> Validity {
        if at < self.not_before {
            Validity::NotYet
        } else if at > self.not_after {
            Validity::Expired
        } else {
            Validity::Valid
        }
    }
}

/// Decodes a certificate; the defect if there is one.
pub fn certificate(der: &[u8], pem: String) -> Result<Certificate, String> {
    // Serial numbers of old authorities do not follow RFC 5280; `Raw` accepts them.
    let parsed = CertificateInner::<Raw>::from_der(der).map_err(|error| error.to_string())?;
    let parsed = parsed.tbs_certificate;
    let subject = parsed.subject.to_string();
    Ok(Certificate {
        pem,
        subject: subject.chars().filter(|c| !c.is_control()).take(MAX_SUBJECT).collect(),
        subject_hash: hash(&parsed.subject).map_err(|error| error.to_string())?,
        not_before: parsed.validity.not_before.to_system_time(),
        not_after: parsed.validity.not_after.to_system_time(),
    })
}

/// `X509_NAME_hash` of OpenSSL since 1.0: the first four bytes, little-endian, of the SHA-1 digest
/// of the name in canonical form.
fn hash(name: &Name) -> x509_cert::der::Result<String> {
    let mut digest = Sha1::new();
    for part in &name.0 {
        let values: x509_cert::der::Result<Vec<_>> = part.0.iter().map(canonical).collect();
        digest.update(RelativeDistinguishedName::try_from(values?)?.to_der()?);
    }
    let [a, b, c, d, ..] = <[u8; 20]>::from(digest.finalize());
    Ok(format!("{:08x}", u32::from_le_bytes([a, b, c, d])))
}

/// A value in canonical form: text as UTF-8 in lower case (ASCII only) with single spaces, and
/// other values as they are.
fn canonical(part: &AttributeTypeAndValue) -> x509_cert::der::Result<AttributeTypeAndValue> {
    let bytes = part.value.value();
    let text = match part.value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::VisibleString => {
            String::from_utf8_lossy(bytes).into_owned()
        }
        // Read as ISO 8859-1.
        Tag::TeletexString => bytes.iter().map(|byte| char::from(*byte)).collect(),
        Tag::BmpString => {
            let units = bytes.as_chunks().0.iter().map(|unit| u16::from_be_bytes(*unit));
            char::decode_utf16(units).map(|unit| unit.unwrap_or('\u{fffd}')).collect()
        }
        _ => return Ok(part.clone()),
    };
    let space = |c: char| matches!(c, ' ' | '\t'..='\r');
    let words: Vec<&str> = text.split(space).filter(|word| !word.is_empty()).collect();
    let text = words.join(" ").to_ascii_lowercase();
    Ok(AttributeTypeAndValue { oid: part.oid, value: Any::new(Tag::Utf8String, text.as_bytes())? })
}

#[cfg(test)]
mod tests {
    use super::super::CaSettings;
    use banger_testkit::certificates::{authority_of, openssl};

    #[test]
    fn subjects_have_the_hash_of_openssl() {
        let folder = tempfile::tempdir().unwrap();
        for (number, subject) in [
            "/CN=plain",
            "/C=DE/O=Example GmbH/OU=IT  Security /CN=  ROOT   ca ",
            "/CN=K\u{f6}ln \u{c4}\u{3a9}/emailAddress=Ca@Example.ORG",
            "/O=a+CN=b+OU=A very long unit/DC=example/serialNumber=00 1",
            "/",
        ]
        .into_iter()
        .enumerate()
        {
            let (pem, _) = authority_of(folder.path(), &number.to_string(), subject);
            let expected =
                openssl(&["x509", "-noout", "-subject_hash", "-in", pem.to_str().unwrap()]);
            let found = CaSettings { files: vec![pem] }.load().unwrap();
            assert_eq!(found[0].subject_hash, expected.trim(), "{subject}");
        }
    }

    /// Names as public authorities have them.
    #[test]
    fn public_authorities_have_the_hash_of_openssl() {
        let bundle = std::path::Path::new("/etc/ssl/certs/ca-certificates.crt");
        if !bundle.exists() {
            eprintln!("skipped: this host has no bundle of public certificates");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let files = vec![bundle.to_owned()];
        let settings = CaSettings { files };
        for certificate in settings.load().unwrap().into_iter().step_by(8) {
            let path = folder.path().join("one.pem");
            std::fs::write(&path, &certificate.pem).unwrap();
            let expected =
                openssl(&["x509", "-noout", "-subject_hash", "-in", path.to_str().unwrap()]);
            assert_eq!(certificate.subject_hash, expected.trim(), "{}", certificate.subject);
        }
    }
}
