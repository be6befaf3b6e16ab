//! TCP and UDP under one name.

pub use super::tcp::{TCP_HEADER_LEN, Tcp, TcpFlags, TcpHeader};
pub use super::udp::{UDP_HEADER_LEN, UdpHeader, udp_header};
