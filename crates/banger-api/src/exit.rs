//! Exit codes of the CLI, stable for scripts.

/// Success.
pub const OK: u8 = 0;
/// A failure; also of any item of a batch.
pub const FAILED: u8 = 1;
/// Usage error.
pub const USAGE: u8 = 2;
/// The named object does not exist.
pub const NOT_FOUND: u8 = 3;
/// Refused in the present state of the object.
pub const REFUSED: u8 = 4;
/// The host lacks a program, device or privilege.
pub const HOST_NOT_READY: u8 = 5;
/// `run` and `exec`: a failure of banger, as opposed to one of the command.
pub const RUN_FAILED: u8 = 125;
/// `run` and `exec`: the command was found but could not be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// `run` and `exec`: the command was not found.
pub const COMMAND_NOT_FOUND: u8 = 127;
