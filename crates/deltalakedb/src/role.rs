//! What logins may do.

/// What a login does with a catalog. Neither makes or upgrades tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads, commits and publishes.
    Writer,
    /// Reads.
    Reader,
}
