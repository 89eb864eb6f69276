//! Which images of registries must be signed, and by whom.

use std::path::PathBuf;

use super::{PublicKey, TrustError};

/// What is demanded of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// A signature by one of the keys of the rule.
    Required,
    /// Nothing.
    Off,
}

/// A rule for some images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `HOST/REPOSITORY`, in which `*` stands for any text.
    pub name: String,
    /// What is demanded.
    pub signature: Requirement,
    /// Files with public keys.
    pub keys: Vec<PathBuf>,
}

impl Rule {
    /// Whether the rule is for a repository, as `HOST/REPOSITORY`.
    pub fn fits(&self, repository: &str) -> bool {
        let mut parts = self.name.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = repository.strip_prefix(first) else { return false };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else { return rest.is_empty() };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.len() >= last.len() && rest.ends_with(last)
    }

    /// Reads the keys.
    ///
    /// # Errors
    /// The first one that cannot be used.
    pub fn load(&self) -> Result<Vec<PublicKey>, TrustError> {
        self.keys.iter().map(|path| PublicKey::load(path)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_repositories() {
        for (name, repository, fits) in [
            ("ghcr.io/acme/app", "ghcr.io/acme/app", true),
            ("ghcr.io/acme/app", "ghcr.io/acme/app2", false),
            ("ghcr.io/acme/*", "ghcr.io/acme/a/b", true),
            ("ghcr.io/acme/*", "ghcr.io.evil/acme/a", false),
            ("*", "docker.io/library/debian", true),
            ("*/debian", "docker.io/library/debian", true),
            ("*/debian", "docker.io/library/debian-x", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("ab*ba", "aba", false),
            ("", "x", false),
        ] {
            let rule = Rule { name: name.into(), signature: Requirement::Off, keys: Vec::new() };
            assert_eq!(rule.fits(repository), fits, "{name} {repository}");
        }
    }
}
