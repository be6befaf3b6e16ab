//! Peer devices of the underlay: whether packets end up at a network card, the receiver's kernel, or a program.
//!
//! A veth advertises every offload, and passes packets on uncut and with unfinished checksums. The receiver's kernel
//! copes with that, but a program that reads the veth's other end does not: a userspace switch, such as that of Open
//! vSwitch, drops such packets.

use std::io;

use futures_util::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::link::{
    InfoKind, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};

use super::{first, netlink_error};

/// Maximum depth of stacked devices that are followed.
const MAX_STACKED_DEVICES: usize = 4;

/// What takes packets off the far end; later variants need more care.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerDevice {
    /// A network card or a kernel, which finishes checksums and segmentation.
    #[default]
    Finishes,
    /// Unknown, for this reason.
    Unseen(String),
    /// A program that gets packets as they were sent, for this reason.
    Program(String),
}

/// Finds what takes packets off the far end of the device with index `index` in the caller's namespace.
///
/// # Errors
/// If the device is gone, or netlink fails.
pub async fn peer_device(handle: &Handle, index: u32) -> io::Result<PeerDevice> {
    let mut all = None;
    let mut worst = PeerDevice::Finishes;
    let mut ahead = vec![(index, 0)];
    while let Some((index, depth)) = ahead.pop() {
        let device = query(handle, index, None).await?;
        let lower = match &device.kind {
            Some(InfoKind::Veth) => {
                worst = worst.max(veth_peer(handle, &device).await);
                continue;
            }
            Some(InfoKind::Vlan | InfoKind::MacVlan | InfoKind::IpVlan | InfoKind::MacSec) => {
                match (device.link, device.link_netns) {
                    (Some(lower), None) => vec![lower],
                    _ => {
                        let why = format!("dev {} is on one of another namespace", device.name);
                        worst = worst.max(PeerDevice::Unseen(why));
                        continue;
                    }
                }
            }
            Some(InfoKind::Bridge | InfoKind::Bond | InfoKind::Team) => {
                if all.is_none() {
                    all = Some(list(handle).await?);
                }
                let ports = all.iter().flatten();
                let ports = ports.filter(|port| port.controller == Some(device.index));
                ports.map(|port| port.index).collect()
            }
            _ => continue,
        };
        if depth < MAX_STACKED_DEVICES {
            ahead.extend(lower.into_iter().map(|lower| (lower, depth + 1)));
        }
    }
    Ok(worst)
}

async fn veth_peer(handle: &Handle, device: &NeighborDevice) -> PeerDevice {
    let Some(peer) = device.link else {
        return PeerDevice::Unseen(format!("the other end of dev {} is hidden", device.name));
    };
    match query(handle, peer, device.link_netns).await {
        Ok(peer) => peer.as_peer(&device.name),
        Err(error) => PeerDevice::Unseen(format!(
            "the other end of dev {} cannot be looked at: {error}",
            device.name
        )),
    }
}

/// Relevant attributes of a device.
#[derive(Clone, Debug, Default)]
struct NeighborDevice {
    index: u32,
    name: String,
    kind: Option<InfoKind>,
    /// The device below, or the other end.
    link: Option<u32>,
    /// Namespace of `link`, if it is another one.
    link_netns: Option<i32>,
    controller: Option<u32>,
    port: Option<InfoPortKind>,
    /// A program has set promiscuous mode. The kernel does not show this flag for being a mere bridge port.
    promiscuous: bool,
    xdp: bool,
}

impl NeighborDevice {
    fn read(message: LinkMessage) -> Self {
        let mut device = NeighborDevice {
            index: message.header.index,
            promiscuous: message.header.flags.contains(LinkFlags::Promisc),
            ..NeighborDevice::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => device.name = name,
                LinkAttribute::Link(index) if index > 0 => device.link = Some(index),
                LinkAttribute::LinkNetNsId(id) => device.link_netns = Some(id),
                LinkAttribute::Controller(index) if index > 0 => device.controller = Some(index),
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        match info {
                            LinkInfo::Kind(kind) => device.kind = Some(kind),
                            LinkInfo::PortKind(kind) => device.port = Some(kind),
                            _ => {}
                        }
                    }
                }
                LinkAttribute::Xdp(xdp) => {
                    let attached = |x: &LinkXdp| matches!(x, LinkXdp::Attached(how) if *how != XdpAttached::None);
                    device.xdp = xdp.iter().any(attached);
                }
                _ => {}
            }
        }
        device
    }

    /// Classifies it as the other end of the veth `near`.
    fn as_peer(&self, near: &str) -> PeerDevice {
        let end = format!("the other end of dev {near}, {},", self.name);
        match (&self.port, self.controller) {
            _ if self.xdp => PeerDevice::Program(format!("{end} has an XDP program")),
            _ if self.promiscuous => {
                PeerDevice::Program(format!("{end} is promiscuous, so a program reads it"))
            }
            // The kernel's IP stack receives its packets all the same.
            (Some(InfoPortKind::Vrf), _) | (_, None) => PeerDevice::Finishes,
            (Some(kind), _) => PeerDevice::Unseen(format!("{end} is a port of a {kind}")),
            (None, Some(_)) => PeerDevice::Unseen(format!("{end} is a port")),
        }
    }
}

/// Reads the device with this index, in the caller's namespace or in one that has an ID there.
async fn query(handle: &Handle, index: u32, netns: Option<i32>) -> io::Result<NeighborDevice> {
    let mut request = handle.link().get().match_index(index);
    if let Some(netns) = netns {
        let attributes = &mut request.message_mut().attributes;
        attributes.push(LinkAttribute::IfNetnsId(netns));
    }
    first(request.execute()).await.map(NeighborDevice::read)
}

async fn list(handle: &Handle) -> io::Result<Vec<NeighborDevice>> {
    let stream = handle.link().get().execute();
    let messages: Vec<_> = stream.try_collect().await.map_err(netlink_error)?;
    Ok(messages.into_iter().map(NeighborDevice::read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> NeighborDevice {
        NeighborDevice {
            name: "p0".into(),
            kind: Some(InfoKind::Veth),
            ..NeighborDevice::default()
        }
    }

    #[test]
    fn a_program_shows_itself_and_a_port_hides_who_is_behind() {
        assert_eq!(peer().as_peer("u0"), PeerDevice::Finishes);
        let read = NeighborDevice {
            promiscuous: true,
            ..peer()
        };
        assert_eq!(
            read.as_peer("u0"),
            PeerDevice::Program(
                "the other end of dev u0, p0, is promiscuous, so a program reads it".into()
            )
        );
        let xdp = NeighborDevice {
            xdp: true,
            controller: Some(7),
            ..peer()
        };
        assert!(matches!(xdp.as_peer("u0"), PeerDevice::Program(_)));
        let port = |port| NeighborDevice {
            controller: Some(7),
            port: Some(port),
            ..peer()
        };
        assert_eq!(
            port(InfoPortKind::Bridge).as_peer("u0"),
            PeerDevice::Unseen("the other end of dev u0, p0, is a port of a bridge".into())
        );
        assert_eq!(port(InfoPortKind::Vrf).as_peer("u0"), PeerDevice::Finishes);
    }

    #[test]
    fn a_program_is_worse_than_the_unknown() {
        let (unseen, program) = (
            PeerDevice::Unseen("z".into()),
            PeerDevice::Program("a".into()),
        );
        assert!(PeerDevice::Finishes < unseen && unseen < program);
    }
}
