//! References to images in registries, as Docker writes them: `[HOST/]REPOSITORY[:TAG|@DIGEST]`
//! (distribution/reference, `reference.go`).

use std::fmt;
use std::str::FromStr;

use crate::images::is_ref_name;

/// Registry of references without a host.
const DEFAULT_HOST: &str = "docker.io";
/// Folder of that registry's own images, which is left out of references.
const OWN_FOLDER: &str = "library";
/// Tag of references without one.
const DEFAULT_TAG: &str = "latest";
/// Pattern of all texts that may refer to an image, for the API's description.
pub const REFERENCE_PATTERN: &str = r"^[A-Za-z0-9\[][A-Za-z0-9._:/@\[\]-]{0,254}$";
/// Maximum length, so that a reference is the name of a file.
const MAX_LENGTH: usize = 255;
const MAX_TAG: usize = 128;
const MAX_HOST: usize = 253;
/// Digits of a SHA-256.
const DIGEST_DIGITS: usize = 64;

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerRef {
    host: String,
    repository: String,
    version: Version,
}

/// What of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Version {
    Tag(String),
    /// Hexadecimal digits of a SHA-256.
    Digest(String),
}

/// Reason why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image of a registry: {problem}")]
pub struct BadContainerRef {
    text: String,
    problem: &'static str,
}

impl ContainerRef {
    /// Host and port of the registry.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Path of the repository.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, or `sha256:` and the digest, as the registry's API takes it.
    pub fn version(&self) -> String {
        match &self.version {
            Version::Tag(tag) => tag.clone(),
            Version::Digest(digits) => format!("sha256:{digits}"),
        }
    }

    /// Hexadecimal digits of the digest, in a reference by digest.
    pub fn digest(&self) -> Option<&str> {
        match &self.version {
            Version::Tag(_) => None,
            Version::Digest(digits) => Some(digits),
        }
    }

    /// Whether a text can only be a reference, not the name of another image: it has a host, a
    /// folder, a tag or a digest.
    pub fn is_explicit(text: &str) -> bool {
        text.contains(['/', ':', '@'])
    }
}

/// The name of the image on this host: without `docker.io` and `library`, with the tag or digest.
impl fmt::Display for ContainerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = (self.host == DEFAULT_HOST)
            .then(|| self.repository.strip_prefix(OWN_FOLDER)?.strip_prefix('/'))
            .flatten();
        match own {
            Some(name) if !name.contains('/') => f.write_str(name)?,
            _ if self.host == DEFAULT_HOST => f.write_str(&self.repository)?,
            _ => write!(f, "{}/{}", self.host, self.repository)?,
        }
        match &self.version {
            Version::Tag(tag) => write!(f, ":{tag}"),
            Version::Digest(digits) => write!(f, "@sha256:{digits}"),
        }
    }
}

impl FromStr for ContainerRef {
    type Err = BadContainerRef;

    fn from_str(text: &str) -> Result<Self, BadContainerRef> {
        parse(text).map_err(|problem| BadContainerRef { text: crate::excerpt(text), problem })
    }
}

fn parse(text: &str) -> Result<ContainerRef, &'static str> {
    if text.len() > MAX_LENGTH {
        return Err("it is longer than 255 characters");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digits(digest)?)),
        None => (text, None),
    };
    let last = rest.rfind('/').map_or(0, |at| at + 1);
    let (path, tag) = match rest[last..].split_once(':') {
        // A host with a port, and nothing else.
        Some((name, tag)) => (&rest[..last + name.len()], Some(tag)),
        None => (rest, None),
    };
    let (host, repository) = match path.split_once('/') {
        Some((host, repository)) if host.contains(['.', ':']) || host == "localhost" => {
            (host.to_ascii_lowercase(), repository.to_owned())
        }
        Some(_) => (DEFAULT_HOST.to_owned(), path.to_owned()),
        None => (DEFAULT_HOST.to_owned(), format!("{OWN_FOLDER}/{path}")),
    };
    check_host(&host)?;
    if !repository.split('/').all(is_component) {
        return Err("a repository has a-z, 0-9 and inner dots, underscores and hyphens");
    }
    if !tag.is_none_or(is_tag) {
        return Err("a tag has at most 128 letters, digits, dots, underscores and hyphens");
    }
    let host = if host == "index.docker.io" { DEFAULT_HOST.to_owned() } else { host };
    let repository = match repository.contains('/') || host != DEFAULT_HOST {
        true => repository,
        false => format!("{OWN_FOLDER}/{repository}"),
    };
    let version = match (digest, tag) {
        // The digest says more than the tag.
        (Some(digits), _) => Version::Digest(digits),
        (None, tag) => Version::Tag(tag.unwrap_or(DEFAULT_TAG).to_owned()),
    };
    let made = ContainerRef { host, repository, version };
    if made.to_string().len() > MAX_LENGTH {
        return Err("it is longer than 255 characters");
    }
    Ok(made)
}

fn digits(digest: &str) -> Result<String, &'static str> {
    let digits = digest.strip_prefix("sha256:").filter(|digits| {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        digits.len() == DIGEST_DIGITS && digits.bytes().all(digit)
    });
    digits.map(str::to_owned).ok_or("a digest is `sha256:` and 64 hexadecimal digits")
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let bad = Err("its host is not a host name or address, with a port or without");
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if is_ipv6(address) => {
                (None, port.strip_prefix(':').or((port.is_empty()).then_some("1")))
            }
            _ => return bad,
        },
        None => {
            let (name, port) = host.split_once(':').unwrap_or((host, "1"));
            (Some(name), Some(port))
        }
    };
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let digits = port.filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let has_port = digits.and_then(|port| port.parse::<u16>().ok()).is_some_and(|port| port > 0);
    let has_name = name.is_none_or(|name| name.len() <= MAX_HOST && name.split('.').all(is_label));
    if has_port && has_name { Ok(()) } else { bad }
}

/// Whether a text has the characters of an IPv6 address; who connects parses it.
fn is_ipv6(text: &str) -> bool {
    text.contains(':') && text.bytes().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte))
}

fn is_component(part: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes.iter().all(|byte| plain(byte) || b"._-".contains(byte))
}

fn is_tag(tag: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.bytes().next().is_some_and(plain)
        && tag.len() <= MAX_TAG
        && tag.bytes().all(|byte| plain(byte) || b".-".contains(&byte))
}

/// Whether this is the name of an image: a plain name ([`is_ref_name`]), or that of an image of a
/// registry, which always has a tag or a digest.
pub fn is_image_name(name: &str) -> bool {
    is_ref_name(name)
        || ContainerRef::is_explicit(name)
            && name.parse::<ContainerRef>().is_ok_and(|parsed| parsed.to_string() == name)
}

/// Whether this may refer to an image: its name or id, or an image of a registry in any spelling.
pub fn is_image_reference(text: &str) -> bool {
    is_ref_name(text) || text.parse::<ContainerRef>().is_ok()
}

/// The name of the image that a text refers to: of an image of a registry the usual spelling, other
/// text as it is.
pub fn image_name(text: &str) -> String {
    match text.parse::<ContainerRef>() {
        Ok(parsed) if ContainerRef::is_explicit(text) => parsed.to_string(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn references_have_defaults_and_one_spelling() {
        let digest = format!("ghcr.io/acme/app@sha256:{HEX}");
        for (text, host, repository, version, name) in [
            ("alpine", "docker.io", "library/alpine", "latest", "alpine:latest"),
            ("alpine:3.23", "docker.io", "library/alpine", "3.23", "alpine:3.23"),
            ("acme/app", "docker.io", "acme/app", "latest", "acme/app:latest"),
            ("docker.io/alpine", "docker.io", "library/alpine", "latest", "alpine:latest"),
            ("docker.io/library/debian", "docker.io", "library/debian", "latest", "debian:latest"),
            ("index.docker.io/a/b:T", "docker.io", "a/b", "T", "a/b:T"),
            ("GHCR.io/acme/app:1", "ghcr.io", "acme/app", "1", "ghcr.io/acme/app:1"),
            ("127.0.0.1:5000/x", "127.0.0.1:5000", "x", "latest", "127.0.0.1:5000/x:latest"),
            ("localhost/x", "localhost", "x", "latest", "localhost/x:latest"),
            ("[::1]:5000/x:a", "[::1]:5000", "x", "a", "[::1]:5000/x:a"),
            ("[::1]/x", "[::1]", "x", "latest", "[::1]/x:latest"),
            (&digest, "ghcr.io", "acme/app", &format!("sha256:{HEX}"), &digest),
            (
                &format!("a:1@sha256:{HEX}"),
                "docker.io",
                "library/a",
                &format!("sha256:{HEX}"),
                &format!("a@sha256:{HEX}"),
            ),
        ] {
            let parsed: ContainerRef = text.parse().unwrap();
            assert_eq!((parsed.host(), parsed.repository()), (host, repository), "{text}");
            assert_eq!((parsed.version().as_str(), parsed.to_string().as_str()), (version, name));
            assert_eq!(name.parse(), Ok(parsed), "{name}");
            assert!(is_image_name(name) && is_image_reference(text), "{text}");
        }
        assert!(!is_image_name("docker.io/library/debian:latest") && !is_image_name("acme/app"));
        assert_eq!(image_name("acme/app"), "acme/app:latest");
        assert_eq!(image_name("debian"), "debian");
    }

    #[test]
    fn bad_references_name_the_problem() {
        for text in [
            "",
            "/x",
            "x/",
            "a//b",
            "Alpine",
            "ghcr.io/Acme/app",
            "x:",
            "x:-a",
            "x:a b",
            "../x",
            "a/../b",
            "ghcr.io:0/x",
            "ghcr.io:x/y",
            "-a.b/x",
            "a..b/x",
            "[::g]:1/x",
            "x@sha256:00",
            "x@sha512:00",
            "x%2f",
            "x\0",
            "http://x/y",
            &"x".repeat(256),
            &format!("x:{}", "y".repeat(129)),
        ] {
            let error = text.parse::<ContainerRef>().unwrap_err().to_string();
            assert!(error.contains(" is not an image of a registry: "), "{error}");
            assert!(!is_image_name(text));
        }
    }
}
