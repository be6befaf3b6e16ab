//! The control socket: a versioned Varlink interface that `varlink` tools can introspect.
//!
//! Owns the protocol, its server and its client. What a request does is [`crate::daemon`]'s.

pub mod client;
pub mod protocol;
pub mod server;
pub mod yielding;

#[cfg(test)]
mod tests;
