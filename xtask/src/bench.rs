//! Placeholder until the bench lands.
use std::path::Path;

/// Not here yet.
pub fn run(_root: &Path, _options: &[&str]) -> anyhow::Result<()> {
    anyhow::bail!("the bench is not part of this version yet")
}
