//! Two hosts in network namespaces on this machine, joined by a veth: the demonstration.
//!
//! Owns the namespaces, the daemons started in them and the table at the end. What it sends, it
//! sends with [`crate::traffic`]. The scenario tests and benchmarks build on [`net`] and [`daemon`].

pub mod daemon;
pub mod interrupt;
pub mod net;
