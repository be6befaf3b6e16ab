//! Wire formats and offloads of overlay networks, and the packet processing of geneved.
//!
//! Bytes in, verdicts and bytes out. This crate has no sockets, no clock, no async, no logging and no unsafe code:
//! the caller provides the packets, the tables and the time.
//!
//! Without the feature `datapath`, which is on by default, there are only [`wire`] and [`offload`].
//!
//! - [`wire`]: one file per protocol: checked views over bytes, and builders.
//! - [`offload`]: `virtio_net_hdr`, segmentation of super-packets, and merging packets into super-packets.
//! - [`route`], [`vpc`]: the tables of a VPC: hosts, prefixes and encapsulation.
//! - [`mtu`], [`ecn`]: tunnel MTU arithmetic, MSS clamp; RFC 6040 and RFC 2983.
//! - [`flow`]: flow keys, the flow table, TCP state, fragments; the keyed flow hash.
//! - [`l2`]: the FDB and the neighbour cache of Ethernet links.
//! - [`nat`]: source, destination and static NAT, ports, ICMP errors.
//! - [`label`], [`options`]: labels, and the meaning of Geneve options.
//! - [`policy`]: rules that allow or deny flows.
//! - [`service`]: virtual addresses, and the choice of a backend for a new flow.
//! - [`qos`]: classes and token buckets.
//! - [`recent_sends`]: recently sent datagrams, to judge ICMP errors of the underlay.
//! - [`time`]: time, which is an argument.
//! - [`datapath`]: the path of a packet, egress and ingress, readable from top to bottom.
//! - [`drop`](mod@drop): the table of all drop reasons.
#![forbid(unsafe_code)]

// Runs the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

// Unit tests share the packets of the integration tests, which refer to the crate by its name.
#[cfg(all(test, feature = "datapath"))]
extern crate self as libgeneve;

#[cfg(feature = "datapath")]
pub mod datapath;
#[cfg(feature = "datapath")]
pub mod drop;
#[cfg(feature = "datapath")]
pub mod ecn;
#[cfg(feature = "datapath")]
pub mod flow;
#[cfg(feature = "datapath")]
mod host;
#[cfg(feature = "datapath")]
pub mod l2;
#[cfg(feature = "datapath")]
pub mod label;
#[cfg(feature = "datapath")]
mod link_index;
#[cfg(feature = "datapath")]
pub mod mtu;
#[cfg(feature = "datapath")]
pub mod nat;
pub mod offload;
#[cfg(feature = "datapath")]
pub mod options;
#[cfg(feature = "datapath")]
pub mod policy;
#[cfg(feature = "datapath")]
pub mod qos;
#[cfg(feature = "datapath")]
pub mod recent_sends;
#[cfg(feature = "datapath")]
pub mod route;
#[cfg(feature = "datapath")]
pub mod service;
#[cfg(feature = "datapath")]
mod sync;
#[cfg(feature = "datapath")]
pub mod time;
#[cfg(feature = "datapath")]
pub mod vpc;
pub mod wire;
