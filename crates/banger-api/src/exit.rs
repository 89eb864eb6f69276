//! Exit codes of the CLI: part of the contract with scripts.

/// All went well.
pub const OK: u8 = 0;
/// Something failed; also a batch in which anything failed.
pub const FAILED: u8 = 1;
/// Wrong usage.
pub const USAGE: u8 = 2;
/// The named thing does not exist.
pub const NOT_FOUND: u8 = 3;
/// Refused in the present state of the thing.
pub const REFUSED: u8 = 4;
/// The host lacks something.
pub const HOST_NOT_READY: u8 = 5;
/// `run` and `exec`: banger's own failure, so that it is not taken for the command's.
pub const RUN_FAILED: u8 = 125;
/// `run` and `exec`: the command was found but could not be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// `run` and `exec`: the command was not found.
pub const COMMAND_NOT_FOUND: u8 = 127;
