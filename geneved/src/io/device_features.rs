//! Offload features of the underlay device, as `ethtool -k` shows them.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;

use super::tun::interface_request;

// linux/ethtool.h
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETH_SS_FEATURES: u32 = 4;
const STRING: usize = 32;

nix::ioctl_readwrite_bad!(ethtool, libc::SIOCETHTOOL, libc::ifreq);

/// Whether the device segments encapsulated super-packets, or passes them on unsegmented.
pub(super) fn cuts_tunnels(device: &str) -> io::Result<bool> {
    let wanted = ["tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"];
    let names = names(device)?;
    let active = active(device, names.len())?;
    let on = |name: &str| {
        let bit = names.iter().position(|n| n == name);
        bit.is_some_and(|bit| {
            active
                .get(bit / 32)
                .is_some_and(|word| word >> (bit % 32) & 1 == 1)
        })
    };
    Ok(wanted.into_iter().all(on))
}

/// Returns the interface that has this address.
pub(super) fn device_of(addr: IpAddr) -> Option<String> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    interfaces
        .filter(|i| {
            i.address
                .as_ref()
                .and_then(|a| a.as_sockaddr_in())
                .is_some_and(|a| IpAddr::V4(a.ip()) == addr)
        })
        .map(|i| i.interface_name)
        .next()
}

/// Returns the names of the feature bits.
fn names(device: &str) -> io::Result<Vec<String>> {
    // struct ethtool_sset_info: command, reserved, mask, one count for the requested set.
    let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
    // SAFETY: the answer is as long as the request and has one count, for the only bit that is set.
    unsafe { call(device, &mut info) }?;
    let count = info[4] as usize;
    if count == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // struct ethtool_gstrings: command, set, length, strings of 32 bytes.
    let mut strings = vec![0u32; 3 + count * STRING / 4];
    strings[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count as u32]);
    // SAFETY: the kernel writes as many strings as the set has, which is the count it just returned: the set of
    // features is part of the kernel and the same for all devices.
    unsafe { call(device, &mut strings) }?;
    let bytes: Vec<u8> = strings[3..]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let text = |name: &[u8]| {
        String::from_utf8_lossy(name)
            .trim_end_matches('\0')
            .to_owned()
    };
    Ok(bytes.chunks_exact(STRING).map(text).collect())
}

/// Returns the words of active feature bits.
fn active(device: &str, features: usize) -> io::Result<Vec<u32>> {
    // struct ethtool_gfeatures: command, size, blocks of available, requested, active, never changed.
    let blocks = features.div_ceil(32);
    let mut request = vec![0u32; 2 + 4 * blocks];
    request[..2].copy_from_slice(&[ETHTOOL_GFEATURES, blocks as u32]);
    // SAFETY: the kernel writes no more blocks than `size` says, and there is room for that many.
    unsafe { call(device, &mut request) }?;
    Ok(request[2..].chunks_exact(4).map(|block| block[2]).collect())
}

/// `SIOCETHTOOL`; `data` begins with the command.
///
/// # Safety
/// `data` must be as long as what the kernel reads and writes for the command.
unsafe fn call(device: &str, data: &mut [u32]) -> io::Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    let mut request = interface_request(device)?;
    request.ifr_ifru.ifru_data = data.as_mut_ptr().cast();
    // SAFETY: the request and `data`, to which it points, live until the call returns; the caller vouches for the
    // length of `data`.
    unsafe { ethtool(socket.as_raw_fd(), &raw mut request) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_an_address_and_features() {
        let device = device_of("127.0.0.1".parse().unwrap());
        assert_eq!(device.as_deref(), Some("lo"));
        assert!(
            names("lo")
                .unwrap()
                .iter()
                .any(|n| n == "tx-udp_tnl-segmentation")
        );
        assert!(!active("lo", 64).unwrap().is_empty());
        assert!(cuts_tunnels("no-such-device").is_err());
    }
}
