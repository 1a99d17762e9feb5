//! What logins may do.

/// What a login does with a catalog. None of them makes or upgrades tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads, commits and publishes, and changes the registry.
    Admin,
    /// Reads, also the registry, commits and publishes.
    Writer,
    /// Reads all but the registry.
    Reader,
}
