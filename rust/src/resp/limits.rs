//! The protocol's limits, as Redis has them (`server.h`, `networking.c` of 7.0).

/// Longest inline request and longest count line.
pub const INLINE_MAX: usize = 64 * 1024;
/// Most arguments of one command.
pub const ARGS_MAX: i64 = i32::MAX as i64;
/// Most arguments while the session has not authenticated.
pub const ARGS_MAX_UNAUTHENTICATED: i64 = 10;
/// Longest argument while the session has not authenticated.
pub const BULK_MAX_UNAUTHENTICATED: i64 = 16 * 1024;
/// Deepest nesting of a reply: more than a script can return (Lua's own stack ends it, `LUAI_MAXCSTACK`).
pub const DEPTH_MAX: usize = 10_000;
/// Most elements one aggregate of a reply may announce: a count is a promise, not memory, so this only keeps sums
/// from overflowing.
pub const ELEMENTS_MAX: u64 = 1 << 40;
