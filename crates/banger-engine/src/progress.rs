//! Progress of long work of a driver.

/// Receives the progress of a fetch.
pub trait Progress: Send + Sync {
    /// A stage started.
    fn stage(&self, name: &str);
    /// Bytes transferred.
    fn bytes(&self, done: u64, total: Option<u64>);
    /// Progress in a unit other than bytes, such as `packages unpacked`.
    fn items(&self, unit: &str, done: u64, total: Option<u64>);
    /// An informational line.
    fn note(&self, text: &str);
    /// A warning; the work continues.
    fn warning(&self, text: &str);
    /// Whether a cancel was requested.
    fn cancelled(&self) -> bool;
}
