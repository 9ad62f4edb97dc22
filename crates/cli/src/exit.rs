//! Exit statuses that are ours, as `env` and `timeout` use them.

/// Bindery itself failed: a bad option, a bad platform, a machine that lacks something.
pub(crate) const OURS: u8 = 125;
/// The program was found and cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// The program was not found.
pub(crate) const NOT_FOUND: u8 = 127;
/// Wrong arguments of a subcommand that runs no program.
pub(crate) const USAGE: u8 = 2;
