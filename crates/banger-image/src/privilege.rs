//! The privilege of this process.

/// What the daemon may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Everything: VMMs are given a uid of their own.
    Root,
    /// What an ordinary user may.
    User,
}

impl Privilege {
    /// That of this process, geteuid(2).
    pub fn ours() -> Self {
        if rustix::process::geteuid().is_root() { Self::Root } else { Self::User }
    }
}
