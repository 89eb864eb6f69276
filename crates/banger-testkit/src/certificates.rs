//! Certificates by openssl(1).

#![expect(clippy::unwrap_used, reason = "only tests use it, and a test may panic")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs openssl(1); returns its standard output.
pub fn openssl(args: &[&str]) -> String {
    let made = Command::new("openssl").args(args).output().unwrap();
    assert!(made.status.success(), "{args:?}: {}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap()
}

/// A self-signed certificate with this subject and its key.
pub fn authority_of(folder: &Path, name: &str, subject: &str) -> (PathBuf, PathBuf) {
    let (pem, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let request = ["req", "-x509", "-utf8", "-multivalue-rdn", "-days", "2", "-subj", subject];
    let files = ["-keyout", key.to_str().unwrap(), "-out", pem.to_str().unwrap()];
    openssl(&[&request[..], &new_key, &files].concat());
    (pem, key)
}

/// The same with a subject of this name.
pub fn authority(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    authority_of(folder, name, &format!("/O=Example/CN={name}"))
}

/// A certificate of a server and its key, signed by an authority (its certificate and key); `names`
/// as OpenSSL writes alternative names: `DNS:example.test,IP:127.0.0.1`.
pub fn server(
    folder: &Path,
    (authority, authority_key): (&Path, &Path),
    names: &str,
) -> (PathBuf, PathBuf) {
    let (pem, key) = (folder.join("server.pem"), folder.join("server.key"));
    let signer = ["-CA", authority.to_str().unwrap(), "-CAkey", authority_key.to_str().unwrap()];
    let names = format!("subjectAltName={names}");
    let extensions = ["-addext", &names, "-addext", "basicConstraints=CA:FALSE"];
    let files = ["-keyout", key.to_str().unwrap(), "-out", pem.to_str().unwrap()];
    let rest = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"];
    openssl(&[&rest[..], &signer, &extensions, &files].concat());
    (pem, key)
}
