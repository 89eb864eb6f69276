//! Certificates of authorities that guests and downloads trust besides the public ones: the files
//! of `[ca]`, read and checked as a whole. A file that cannot be used is an error, never skipped.

mod pem;
mod x509;

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

pub use x509::{Certificate, Validity};

/// Largest file in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Most certificates of all files.
const MAX_CERTIFICATES: usize = 500;
/// Largest size of all certificates as PEM, in bytes.
const MAX_TOTAL: usize = 4 << 20;
/// Most files of a folder that are looked at.
const MAX_ENTRIES: usize = 10_000;
/// Endings of the files that are read in a folder.
const ENDINGS: [&str; 3] = ["pem", "crt", "cer"];
/// Bundles of trusted certificates of this host, by distribution; the first one is used.
const HOST_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Largest bundle of this host that is read, in bytes.
const MAX_HOST_BUNDLE: u64 = 16 << 20;

/// Errors of `[ca]`.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read.
    #[error("cannot read the certificates `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The content of a file is not a list of certificates.
    #[error("`{}` {why}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// The defect, with the number of the certificate in the file and its line.
        why: String,
    },
    /// All files together are too many or too large.
    #[error(
        "`ca.files` leads to more than {MAX_CERTIFICATES} certificates or {} MiB",
        MAX_TOTAL >> 20
    )]
    TooMany,
}

/// `[ca]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaSettings {
    /// Files with one or more certificates, and folders of such files.
    pub files: Vec<PathBuf>,
}

impl CaSettings {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Reads all files; each certificate once, in order.
    ///
    /// # Errors
    /// [`CaError`] of the first file that cannot be used.
    pub fn load(&self) -> Result<Vec<Certificate>, CaError> {
        let mut all: Vec<Certificate> = Vec::new();
        let mut size = 0;
        for path in self.paths()? {
            let content =
                read(&path, MAX_FILE).map_err(|source| CaError::Io { path: path.clone(), source });
            let certificates = pem::parse(&content?).map_err(|why| CaError::Bad { path, why })?;
            for certificate in certificates {
                if all.iter().any(|other| other.pem == certificate.pem) {
                    continue;
                }
                size += certificate.pem.len();
                all.push(certificate);
                if all.len() > MAX_CERTIFICATES || size > MAX_TOTAL {
                    return Err(CaError::TooMany);
                }
            }
        }
        Ok(all)
    }

    /// The files, with those of folders by name.
    fn paths(&self) -> Result<Vec<PathBuf>, CaError> {
        let mut paths = Vec::new();
        for path in &self.files {
            let io = |source| CaError::Io { path: path.clone(), source };
            if std::fs::metadata(path).map_err(io)?.is_dir() {
                paths.extend(entries(path).map_err(io)?);
            } else {
                paths.push(path.clone());
            }
        }
        Ok(paths)
    }

    /// The host's trusted certificates with those of `[ca]`, as PEM, for programs that take one
    /// file only; `None` without `[ca]`.
    ///
    /// # Errors
    /// As [`Self::load`]; the host's bundle cannot be read.
    pub fn with_hosts(&self) -> Result<Option<Vec<u8>>, CaError> {
        if self.is_empty() {
            return Ok(None);
        }
        let mut bundle = Vec::new();
        if let Some(path) = HOST_BUNDLES.map(Path::new).into_iter().find(|path| path.exists()) {
            bundle = read(path, MAX_HOST_BUNDLE)
                .map_err(|source| CaError::Io { path: path.to_owned(), source })?;
        }
        if bundle.last().is_some_and(|last| *last != b'\n') {
            bundle.push(b'\n');
        }
        bundle.extend(self.load()?.into_iter().flat_map(|one| one.pem.into_bytes()));
        Ok(Some(bundle))
    }
}

/// The files of certificates in a folder, sorted; a folder without any is an error.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for (count, entry) in std::fs::read_dir(folder)?.enumerate() {
        if count == MAX_ENTRIES {
            return Err(invalid("a folder with more than 10000 files"));
        }
        let path = entry?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| ENDINGS.contains(&ending)) {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(invalid("a folder without files `*.pem`, `*.crt` or `*.cer`"));
    }
    paths.sort();
    Ok(paths)
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text.to_owned())
}

fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // Opening a FIFO would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(invalid("not a regular file"));
    }
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(invalid(&format!("larger than {} MiB", limit >> 20)));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use banger_testkit::certificates::{authority, openssl};

    use super::*;

    fn load(files: &[&Path]) -> Result<Vec<Certificate>, CaError> {
        CaSettings { files: files.iter().map(|path| path.to_path_buf()).collect() }.load()
    }

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn certificates_are_read_once_each_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (one, _) = authority(folder.path(), "one");
        let (two, _) = authority(folder.path(), "two");
        let bundle = folder.path().join("bundle");
        let dos = text(&two).replace('\n', "\r\n");
        let full_text = openssl(&["x509", "-text", "-in", one.to_str().unwrap()]);
        std::fs::write(&bundle, format!("\u{feff}{full_text}# caf\u{e9}\n\n{dos}")).unwrap();
        let settings = CaSettings { files: vec![two.clone(), bundle] };
        let all = settings.load().unwrap();
        let pems: Vec<&str> = all.iter().map(|one| one.pem.as_str()).collect();
        assert_eq!(pems, [text(&two), text(&one)]);
        assert!(all[0].subject.contains("CN=two"), "{}", all[0].subject);
        let now = SystemTime::now();
        let days = |count: u64| Duration::from_secs(count * 86_400);
        assert_eq!(all[0].validity(now), Validity::Valid);
        assert_eq!(all[0].validity(now + days(3)), Validity::Expired);
        assert_eq!(all[0].validity(now - days(1)), Validity::NotYet);
        let combined = settings.with_hosts().unwrap().unwrap();
        assert!(combined.ends_with((text(&two) + &text(&one)).as_bytes()));
        assert_eq!(CaSettings::default().with_hosts().unwrap(), None);
    }

    #[test]
    fn a_folder_stands_for_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let error = load(&[folder.path()]).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.starts_with("a folder without files"), "{source}");
        let (b, _) = authority(folder.path(), "b");
        let (a, _) = authority(folder.path(), "a");
        std::fs::rename(&a, at("a.crt")).unwrap();
        std::fs::write(at("README"), "no certificate").unwrap();
        let all = load(&[folder.path()]).unwrap();
        let pems: Vec<&str> = all.iter().map(|one| one.pem.as_str()).collect();
        assert_eq!(pems, [text(&at("a.crt")), text(&b)]);
        std::fs::write(at("c.cer"), "no certificate").unwrap();
        let error = load(&[folder.path()]).unwrap_err().to_string();
        assert!(error.contains("/c.cer` contains no certificate"), "{error}");
        std::fs::remove_file(at("c.cer")).unwrap();
        std::fs::create_dir(at("d.pem")).unwrap();
        assert!(matches!(load(&[folder.path()]), Err(CaError::Io { .. })));
    }

    #[test]
    fn too_many_certificates_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (one, _) = authority(folder.path(), "one");
        let der = pem::tests::der(&text(&one));
        // Certificates that differ in the last bytes of the signature.
        let other = |number: usize| {
            let (head, tail) = der.split_at(der.len() - 8);
            assert_eq!(tail.len(), number.to_be_bytes().len());
            pem::encode(&[head, &number.to_be_bytes()].concat())
        };
        let many: String = (0..=MAX_CERTIFICATES).map(other).collect();
        let path = folder.path().join("many");
        std::fs::write(&path, many).unwrap();
        assert!(matches!(load(&[&path]), Err(CaError::TooMany)));
    }

    #[test]
    fn files_that_are_not_certificates_are_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let (good, key) = authority(folder.path(), "one");
        let good_text = text(&good);
        let half = &good_text[..good_text.len() / 2];
        let der = pem::tests::der(&good_text);
        let damaged = good_text.clone() + &pem::encode(&der[..der.len() - 1]);
        let trailing = pem::encode(&[der.as_slice(), b"x"].concat());
        let trusted = good_text.replace("CERTIFICATE", "TRUSTED CERTIFICATE");
        for (content, why) in [
            (b"".to_vec(), "contains no certificate in PEM"),
            (b"hello\n".to_vec(), "contains no certificate in PEM"),
            ((good_text.clone() + &text(&key)).into_bytes(), "contains a private key (line "),
            (b"-----BEGIN RSA PRIVATE KEY-----\n".to_vec(), "contains a private key (line 1)"),
            (trusted.into_bytes(), "contains `TRUSTED CERTIFICATE` (line 1)"),
            (half.into(), "certificate 1 (line 1) has no end"),
            (damaged.into_bytes(), "certificate 2 (line "),
            (trailing.into_bytes(), "certificate 1 (line 1) is not valid X.509: "),
            (good_text.replacen('M', "*", 1).into_bytes(), "certificate 1 (line 1) is not base64"),
            (der, "is not PEM: convert it"),
            (vec![0xff; 100], "contains no certificate in PEM"),
            (vec![b'\n'; 2 << 20], "larger than 1 MiB"),
        ] {
            let path = folder.path().join("bad");
            std::fs::write(&path, content).unwrap();
            let error = load(&[&good, &path]).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let shown = format!("{error}: {}", source.unwrap_or_default());
            assert!(shown.contains(why) && shown.contains("/bad`"), "{shown}");
        }
        let missing = load(&[&folder.path().join("missing")]);
        assert!(matches!(missing, Err(CaError::Io { .. })));
    }
}
