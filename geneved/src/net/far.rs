//! Who takes packets off the far end of an underlay device: a network card, the receiver's kernel, or a program.
//!
//! A veth claims to have every offload, and passes on uncut and with unfinished checksums what is sent through it. The
//! kernel of the receiver does the rest, but a program that reads the veth's other end does not: a switch in user
//! space, such as Open vSwitch's, drops such packets.

use std::io;

use futures_util::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::link::{
    InfoKind, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};

use super::{first, netlink_error};

/// Devices on top of devices are followed this far.
const DEPTH: usize = 4;

/// Who takes packets off the far end; the later ones need more care.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum FarEnd {
    /// A network card or a kernel, which finishes what is left to it.
    #[default]
    Finishes,
    /// It is not seen who, for this reason.
    Unseen(String),
    /// A program that gets packets as they were sent, for this reason.
    Program(String),
}

/// Who takes packets off the far end of the device with number `index` in the caller's namespace.
///
/// # Errors
/// The device is gone, or netlink fails.
pub async fn far_end(handle: &Handle, index: u32) -> io::Result<FarEnd> {
    let mut all = None;
    let mut worst = FarEnd::Finishes;
    let mut ahead = vec![(index, 0)];
    while let Some((index, depth)) = ahead.pop() {
        let device = look(handle, index, None).await?;
        let lower = match &device.kind {
            Some(InfoKind::Veth) => {
                worst = worst.max(behind_veth(handle, &device).await);
                continue;
            }
            Some(InfoKind::Vlan | InfoKind::MacVlan | InfoKind::IpVlan | InfoKind::MacSec) => {
                match (device.link, device.link_netns) {
                    (Some(lower), None) => vec![lower],
                    _ => {
                        let why = format!("dev {} is on one of another namespace", device.name);
                        worst = worst.max(FarEnd::Unseen(why));
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
        if depth < DEPTH {
            ahead.extend(lower.into_iter().map(|lower| (lower, depth + 1)));
        }
    }
    Ok(worst)
}

async fn behind_veth(handle: &Handle, device: &Device) -> FarEnd {
    let Some(peer) = device.link else {
        return FarEnd::Unseen(format!("the other end of dev {} is hidden", device.name));
    };
    match look(handle, peer, device.link_netns).await {
        Ok(peer) => peer.as_far_end(&device.name),
        Err(error) => FarEnd::Unseen(format!(
            "the other end of dev {} cannot be looked at: {error}",
            device.name
        )),
    }
}

/// What counts of a device.
#[derive(Clone, Debug, Default)]
struct Device {
    index: u32,
    name: String,
    kind: Option<InfoKind>,
    /// The device below, or the other end.
    link: Option<u32>,
    /// The namespace of `link`, where it is another one.
    link_netns: Option<i32>,
    controller: Option<u32>,
    port: Option<InfoPortKind>,
    /// A program asked for all packets, whoever they are for; one that is a port does not show it.
    promiscuous: bool,
    xdp: bool,
}

impl Device {
    fn read(message: LinkMessage) -> Self {
        let mut device = Device {
            index: message.header.index,
            promiscuous: message.header.flags.contains(LinkFlags::Promisc),
            ..Device::default()
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

    /// As the other end of the veth `near`.
    fn as_far_end(&self, near: &str) -> FarEnd {
        let end = format!("the other end of dev {near}, {},", self.name);
        match (&self.port, self.controller) {
            _ if self.xdp => FarEnd::Program(format!("{end} has an XDP program")),
            _ if self.promiscuous => {
                FarEnd::Program(format!("{end} is promiscuous, so a program reads it"))
            }
            // Its packets go to the kernel's IP all the same.
            (Some(InfoPortKind::Vrf), _) | (_, None) => FarEnd::Finishes,
            (Some(kind), _) => FarEnd::Unseen(format!("{end} is a port of a {kind}")),
            (None, Some(_)) => FarEnd::Unseen(format!("{end} is a port")),
        }
    }
}

/// The device with this number, in the caller's namespace or in one that it has a number for.
async fn look(handle: &Handle, index: u32, netns: Option<i32>) -> io::Result<Device> {
    let mut request = handle.link().get().match_index(index);
    if let Some(netns) = netns {
        let attributes = &mut request.message_mut().attributes;
        attributes.push(LinkAttribute::IfNetnsId(netns));
    }
    first(request.execute()).await.map(Device::read)
}

async fn list(handle: &Handle) -> io::Result<Vec<Device>> {
    let stream = handle.link().get().execute();
    let messages: Vec<_> = stream.try_collect().await.map_err(netlink_error)?;
    Ok(messages.into_iter().map(Device::read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Device {
        Device {
            name: "p0".into(),
            kind: Some(InfoKind::Veth),
            ..Device::default()
        }
    }

    #[test]
    fn a_program_shows_itself_and_a_port_hides_who_is_behind() {
        assert_eq!(peer().as_far_end("u0"), FarEnd::Finishes);
        let read = Device {
            promiscuous: true,
            ..peer()
        };
        assert_eq!(
            read.as_far_end("u0"),
            FarEnd::Program(
                "the other end of dev u0, p0, is promiscuous, so a program reads it".into()
            )
        );
        let xdp = Device {
            xdp: true,
            controller: Some(7),
            ..peer()
        };
        assert!(matches!(xdp.as_far_end("u0"), FarEnd::Program(_)));
        let port = |port| Device {
            controller: Some(7),
            port: Some(port),
            ..peer()
        };
        assert_eq!(
            port(InfoPortKind::Bridge).as_far_end("u0"),
            FarEnd::Unseen("the other end of dev u0, p0, is a port of a bridge".into())
        );
        assert_eq!(port(InfoPortKind::Vrf).as_far_end("u0"), FarEnd::Finishes);
    }

    #[test]
    fn a_program_is_worse_than_the_unknown() {
        let (unseen, program) = (FarEnd::Unseen("z".into()), FarEnd::Program("a".into()));
        assert!(FarEnd::Finishes < unseen && unseen < program);
    }
}
