//! The service option: the virtual address that a client connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The service option: 8 bytes of data for an IPv4 address, 20 for an IPv6 address.
///
/// Address, port (16 bits, big-endian), protocol (8 bits), 8 reserved bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceOption {
    /// The virtual address.
    pub addr: IpAddr,
    /// The port.
    pub port: u16,
    /// The IP protocol number.
    pub protocol: u8,
}

impl ServiceOption {
    /// Bytes of data with an IPv4 address.
    pub const LEN_V4: usize = 8;
    /// Bytes of data with an IPv6 address.
    pub const LEN_V6: usize = 20;

    /// Parses the option's data; `None` unless it has 8 or 20 bytes. Reserved bits are ignored.
    #[must_use]
    pub fn from_wire(data: &[u8]) -> Option<ServiceOption> {
        let (addr, rest) = match data.len() {
            Self::LEN_V4 => {
                let (addr, rest) = data.split_first_chunk::<4>()?;
                (IpAddr::V4(Ipv4Addr::from(*addr)), rest)
            }
            Self::LEN_V6 => {
                let (addr, rest) = data.split_first_chunk::<16>()?;
                (IpAddr::V6(Ipv6Addr::from(*addr)), rest)
            }
            _ => return None,
        };
        let &[high, low, protocol, _] = rest else {
            return None;
        };
        Some(ServiceOption {
            addr,
            port: u16::from_be_bytes([high, low]),
            protocol,
        })
    }

    /// Writes the option's data to the start of `buffer` and returns it; reserved bits are zero.
    pub fn write<'b>(&self, buffer: &'b mut [u8; Self::LEN_V6]) -> &'b [u8] {
        let [high, low] = self.port.to_be_bytes();
        let tail = [high, low, self.protocol, 0];
        let len = self.wire_len();
        match self.addr {
            IpAddr::V4(addr) => buffer[..4].copy_from_slice(&addr.octets()),
            IpAddr::V6(addr) => buffer[..16].copy_from_slice(&addr.octets()),
        }
        buffer[len - tail.len()..len].copy_from_slice(&tail);
        &buffer[..len]
    }

    /// Returns the length of the option's data: 8 or 20.
    #[must_use]
    pub const fn wire_len(&self) -> usize {
        match self.addr {
            IpAddr::V4(_) => Self::LEN_V4,
            IpAddr::V6(_) => Self::LEN_V6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_have_their_bytes() {
        let mut buffer = [0xee; 20];
        let v4 = ServiceOption {
            addr: "192.0.2.1".parse().unwrap(),
            port: 0x1234,
            protocol: 6,
        };
        assert_eq!(v4.write(&mut buffer), [192, 0, 2, 1, 0x12, 0x34, 6, 0]);
        let v6 = ServiceOption {
            addr: "2001:db8::1".parse().unwrap(),
            ..v4
        };
        let mut expected = [0; 20];
        expected[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        expected[15..19].copy_from_slice(&[1, 0x12, 0x34, 6]);
        assert_eq!(v6.write(&mut buffer), expected);
        for option in [v4, v6] {
            let data = option.write(&mut buffer);
            assert_eq!(ServiceOption::from_wire(data), Some(option));
            let reserved = data.len() - 1;
            let mut data = data.to_vec();
            data[reserved] = 0xff;
            assert_eq!(ServiceOption::from_wire(&data), Some(option));
        }
        for len in [0, 4, 12, 16, 24] {
            assert_eq!(ServiceOption::from_wire(&[0; 24][..len]), None, "{len}");
        }
    }
}
