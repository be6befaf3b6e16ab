//! Re-exports of the TCP and UDP headers.

pub use super::tcp::{TCP_HEADER_LEN, Tcp, TcpFlags, TcpHeader};
pub use super::udp::{UDP_HEADER_LEN, UdpHeader, udp_header};
