//! Wire formats and offloads of overlay networks, and the deciding half of geneved.
//!
//! Bytes in, verdicts and bytes out. This crate has no sockets, no clock, no async, no logging and
//! no unsafe code: whoever calls it brings the packets, the tables and the time.
//!
//! Without the feature `datapath`, which is on by default, there are only [`wire`] and [`offload`].
//!
//! - [`wire`]: one protocol a file, views over bytes that were checked, and builders.
//! - [`offload`]: `virtio_net_hdr`, split of super-packets into trains, merge of trains.
//! - [`route`], [`link`]: what a VPC knows: its hosts, prefixes and encapsulation.
//! - [`mtu`], [`ecn`]: tunnel MTU arithmetic, MSS clamp; RFC 6040 and RFC 2983.
//! - [`flow`]: flow keys, the flow table, TCP state, fragments; the keyed hash of a flow.
//! - [`bridge`]: MAC addresses: where they are, and which addresses they have.
//! - [`nat`]: source, destination and static NAT, ports, ICMP errors.
//! - [`label`], [`options`]: what Geneve options mean.
//! - [`policy`]: which flows a link lets through.
//! - [`service`]: virtual addresses, and which backend a new flow gets.
//! - [`qos`]: classes and token buckets.
//! - [`sent`]: what was sent lately, by which ICMP errors of the underlay are judged.
//! - [`time`]: time, which is an argument.
//! - [`datapath`]: the packet's journey, egress and ingress, readable from top to bottom.
//! - [`drop`](mod@drop): the one table of reasons for which a packet is not forwarded.
#![forbid(unsafe_code)]

// What the README shows is tried.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

// Unit tests share the packets of the integration tests, which know the crate by its name.
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
