//! The Geneve options that geneved speaks: what their data means.
//!
//! How options lie in a packet is [`wire::option`](crate::wire::option)'s; what is done because of
//! them is decided in [`datapath`](crate::datapath).

mod endpoint;

pub use endpoint::EndpointType;
