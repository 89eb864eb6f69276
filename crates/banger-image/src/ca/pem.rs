//! PEM (RFC 7468): blocks `CERTIFICATE` with any text between them. Each block is decoded as X.509
//! (RFC 5280) and written again, so a guest gets certificates and nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::x509::{self, Certificate};

/// Characters of base64 in a line.
const LINE: usize = 64;
/// First byte of DER and of PKCS #12: a SEQUENCE.
const SEQUENCE: u8 = 0x30;

/// The certificates of a file, at least one; the defect if there is one.
pub fn parse(content: &[u8]) -> Result<Vec<Certificate>, String> {
    let text = String::from_utf8_lossy(content);
    let mut certificates = Vec::new();
    let mut lines = text.lines().map(str::trim).enumerate();
    while let Some((index, line)) = lines.next() {
        let at = index + 1;
        let Some(label) = mark(line, "-----BEGIN ") else { continue };
        check_label(label, at)?;
        let number = certificates.len() + 1;
        let defect = |why: &str| format!("certificate {number} (line {at}) {why}");
        let mut base64 = String::new();
        loop {
            match lines.next() {
                Some((_, line)) if mark(line, "-----END ") == Some(label) => break,
                Some((_, line)) if !line.starts_with("-----") => base64.push_str(line),
                _ => return Err(defect("has no end")),
            }
        }
        let der = BASE64.decode(&base64).map_err(|_| defect("is not base64"))?;
        let certificate = x509::certificate(&der, encode(&der))
            .map_err(|why| defect(&format!("is not valid X.509: {why}")))?;
        certificates.push(certificate);
    }
    match (certificates.is_empty(), content.first()) {
        (false, _) => Ok(certificates),
        (true, Some(&SEQUENCE)) => Err("is not PEM: convert it, \
            `openssl x509 -inform der -in FILE -out FILE.pem`"
            .into()),
        (true, _) => Err("contains no certificate in PEM".into()),
    }
}

fn check_label(label: &str, at: usize) -> Result<(), String> {
    if label.contains("PRIVATE KEY") {
        return Err(format!("contains a private key (line {at}): list certificates only"));
    }
    if label != "CERTIFICATE" && label != "X509 CERTIFICATE" {
        let label: String = label.chars().take(40).flat_map(char::escape_debug).collect();
        return Err(format!("contains `{label}` (line {at}), which is not `CERTIFICATE`"));
    }
    Ok(())
}

fn mark<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
    line.strip_prefix('\u{feff}').unwrap_or(line).strip_prefix(prefix)?.strip_suffix("-----")
}

/// A certificate as PEM, ending in a newline.
pub fn encode(der: &[u8]) -> String {
    let encoded = BASE64.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(LINE.min(rest.len()));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// The bytes of the one certificate in a PEM file.
    pub fn der(pem: &str) -> Vec<u8> {
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        BASE64.decode(base64).unwrap()
    }
}
