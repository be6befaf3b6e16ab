//! Packet I/O: the workers that move packets between TUN and UDP.
//!
//! The only part of geneved with `unsafe` code. `engine` is the daemon's handle; `worker` is the loop; `egress` and
//! `ingress` are its two directions; `backend` is the interface to the kernel, implemented by `uring` and `syscalls`.
//! `libgeneve` decides what happens to a packet.

mod backend;
mod buffer_pool;
mod buffer_ring;
mod busy_poll;
mod cmsg;
mod counters;
mod descriptors;
mod device_features;
mod direct;
mod egress;
mod engine;
mod errors;
mod fair;
mod frames;
mod heap;
mod host_features;
mod ingress;
#[cfg(any(test, feature = "testing"))]
mod memory;
mod neighbors;
mod pool_sizes;
mod privilege;
mod progress;
mod read_sizes;
mod reply;
mod rx_interfaces;
mod send_errors;
mod shape;
#[cfg(any(test, feature = "testing"))]
mod simulation;
mod steering;
mod syscalls;
mod tap;
#[cfg(test)]
mod tests;
mod time_slice;
mod train;
mod tun;
mod tunnel_gso;
mod udp;
mod unknown_vnis;
mod uring;
mod worker;

pub use counters::{LinkCounters, TrafficDirection};
pub use descriptors::{DescriptorBudget, connections, raise_limit};
pub use engine::{
    BackendReport, Engine, EngineConfig, EngineEvent, IoBackend, IoChoice, Segmentation,
    SendErrors, SourceSockets, StartError,
};
pub use errors::{ErrorVerdict, UnderlayEvent};
pub use heap::bound_heap;
pub use host_features::{FeatureReport, HostFeature, probe};
#[cfg(any(test, feature = "testing"))]
pub use memory::{FaultPlan, InjectedFault, SentDatagram, WrittenPacket};
pub use privilege::give_up_capabilities;
pub use progress::{PoolUsage, WorkerReport};
pub use rx_interfaces::RxInterfaces;
#[cfg(any(test, feature = "testing"))]
pub use simulation::{REMOTE_HOSTS, SIMULATED_MAC, SIMULATED_MTU, SimulatedLink, Simulation};
pub use tap::{FlowTuple, OuterHeader, RecordLayer, TapConfig, TapFilter, TapReader, TapRecord};
pub use tun::{Tun, TunError, create_tun, create_tun_to_move};
pub use tunnel_gso::TunnelDevice;
pub use udp::{SocketProfile, port_is_taken, sockets_of};
pub use unknown_vnis::UnknownVni;
