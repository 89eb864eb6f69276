//! Who is admitted: the key of the server, the tokens of sandboxes, and known versions of the SDKs.

use std::io;

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use crate::failure::{Code, Failure};

/// Bytes of entropy in a key or token.
const SECRET_BYTES: usize = 20;

/// A key or token.
pub struct Secret {
    text: String,
    digest: [u8; 32],
}

impl Secret {
    /// A new one: `e2b_` and hexadecimal digits, the form that SDKs accept.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new() -> io::Result<Self> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("e2b_{digits}");
        let digest = digest(&text);
        Ok(Self { text, digest })
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether this is the secret. The time depends on neither: digests are compared, all bytes of
    /// them.
    pub fn is(&self, given: &str) -> bool {
        let pairs = digest(given).into_iter().zip(self.digest);
        pairs.fold(0, |differs, (given, own)| differs | (given ^ own)) == 0
    }

    /// Whether a header has the secret.
    pub fn is_in(&self, headers: &HeaderMap, name: &str) -> bool {
        headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(|text| self.is(text))
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Versions of an SDK that are supported.
struct Sdk {
    /// Its name in `User-Agent`.
    agent: &'static str,
    /// First version.
    first: [u32; 3],
    /// First later version that is not supported.
    before: [u32; 3],
    /// The command that installs a supported version.
    install: &'static str,
}

/// Supported SDKs. Each first and last version has passed the tests of this crate.
const SDKS: &[Sdk] = &[
    Sdk {
        agent: "e2b-python-sdk",
        first: [2, 63, 0],
        before: [2, 64, 0],
        install: "pip install e2b==2.63.0",
    },
    Sdk {
        agent: "e2b-js-sdk",
        first: [2, 51, 0],
        before: [2, 52, 0],
        install: "npm install e2b@2.51.0",
    },
];

/// The supported versions in words.
pub fn supported() -> String {
    let text = |version: &[u32; 3]| version.map(|part| part.to_string()).join(".");
    let range = |sdk: &Sdk| {
        format!("{} from {} and before {}", sdk.agent, text(&sdk.first), text(&sdk.before))
    };
    SDKS.iter().map(range).collect::<Vec<_>>().join(", ")
}

/// Checks the version of the client's SDK.
///
/// # Errors
/// Another version or another program, with the versions that are supported.
pub fn check_version(headers: &HeaderMap) -> Result<(), Failure> {
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let agent = agent.unwrap_or_default();
    let refused = |text: String| Err(Failure::new(Code::FailedPrecondition, text));
    let product = agent.split(' ').next().unwrap_or_default();
    let (name, version) = product.split_once('/').unwrap_or((product, ""));
    let Some(sdk) = SDKS.iter().find(|sdk| sdk.agent == name) else {
        let agent = banger_api::excerpt(agent);
        return refused(format!(
            "`{agent}` is not an SDK that this server knows; it supports {}",
            supported()
        ));
    };
    match numbers(version) {
        Some(version) if sdk.first <= version && version < sdk.before => Ok(()),
        _ => refused(format!(
            "version `{}` of the SDK is not supported by this server, which knows {}: `{}`",
            banger_api::excerpt(version),
            supported(),
            sdk.install
        )),
    }
}

/// `MAJOR.MINOR.PATCH`; a pre-release counts as a version that is not known.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let parts: Vec<u32> = version.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    parts.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_compared_as_a_whole() {
        let secret = Secret::new().unwrap();
        let text = secret.text().to_owned();
        assert!(secret.is(&text) && text.starts_with("e2b_") && text.len() == 44, "{text}");
        assert!(!secret.is("") && !secret.is(&text[..43]) && !secret.is(&format!("{text}0")));
        assert!(!Secret::new().unwrap().is(&text));
    }

    #[test]
    fn only_known_versions_are_admitted() {
        let check = |agent: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, agent.parse().unwrap());
            check_version(&headers)
        };
        for agent in ["e2b-python-sdk/2.63.0", "e2b-python-sdk/2.63.9 e2b-code-interpreter/2.1.0"] {
            check(agent).unwrap();
        }
        for agent in [
            "e2b-python-sdk/2.62.9",
            "e2b-python-sdk/2.64.0",
            "e2b-python-sdk/2.63.0rc1",
            "e2b-python-sdk",
        ] {
            let failure = check(agent).unwrap_err();
            assert!(failure.message.contains("pip install e2b==2.63.0"), "{agent}: {failure:?}");
        }
        check("e2b-js-sdk/2.51.3").unwrap();
        assert!(check("e2b-js-sdk/2.63.0").is_err());
        for agent in ["", "curl/8.0", "e2b-go-sdk/2.63.0"] {
            let failure = check(agent).unwrap_err();
            assert!(failure.message.contains("from 2.63.0"), "{agent}: {failure:?}");
        }
        assert!(check_version(&HeaderMap::new()).is_err());
    }
}
