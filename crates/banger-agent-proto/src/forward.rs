//! `POST /forward` and `POST /forward/take`: a Unix socket of the guest whose connections the host
//! serves, such as the user's ssh agent.
//!
//! - `POST /forward?user=USER` needs `Upgrade: banger-forward/1`. The agent makes a socket that
//!   only `USER` can connect to. The answer is `101`, then the path of the socket as a line, then
//!   the number of each connection to it as a line. The socket is removed when the host closes the
//!   connection, and with it connections that were not taken.
//! - `POST /forward/take?number=N` with the same `Upgrade` takes connection `N`. The answer is
//!   `101`, after which the connection carries its bytes, without half-close. `404`: there is none.

/// Value of the `Upgrade` header.
pub const UPGRADE: &str = "banger-forward/1";

/// Maximum length of a line of the agent, in bytes.
pub const MAX_LINE: usize = 256;

/// Maximum number of connections to a socket that wait to be taken.
pub const MAX_WAITING: usize = 16;
