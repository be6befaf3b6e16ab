//! Configures the device for tunnel GSO by netlink: `/proc/sys` would do as well, if services could write there.

use std::io;

use rtnetlink::packet_core::{DefaultNla, Emitable};
use rtnetlink::packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec};

use libgeneve::wire::ethernet::Mac;

use super::{first, netlink_error};

// linux/if_link.h and linux/netlink.h
const IFLA_INET_CONF: u16 = 1;
const NLA_F_NESTED: u16 = 1 << 15;
// linux/ip.h
const IPV4_DEVCONF_FORWARDING: u16 = 1;
const IPV4_DEVCONF_RP_FILTER: u16 = 8;
const IPV4_DEVCONF_ACCEPT_LOCAL: u16 = 23;

/// Enables forwarding of packets that the device `name` of the caller's namespace delivers, including those with the
/// host's own source addresses, keeps IPv6 from generating an address on it, and brings it up. Returns its MAC
/// address.
///
/// # Errors
/// The kernel's error: there is no such device, or `CAP_NET_ADMIN` is missing.
pub async fn set_up(handle: &Handle, name: &str) -> io::Result<Mac> {
    let request = handle.link().get().match_name(name.to_owned());
    let device = first(request.execute()).await?;
    let mac = device.attributes.iter().find_map(|a| match a {
        LinkAttribute::Address(mac) => mac.as_slice().try_into().ok().map(Mac),
        _ => None,
    });
    let mac = mac.ok_or_else(|| io::Error::other("it has no MAC address"))?;
    let index = device.header.index;
    let forwarding = settings(&[
        (IPV4_DEVCONF_FORWARDING, 1),
        (IPV4_DEVCONF_ACCEPT_LOCAL, 1),
        (IPV4_DEVCONF_RP_FILTER, 0),
    ]);
    change(handle, family(index, forwarding)).await?;
    let no_address = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    // A kernel without IPv6 generates none anyway.
    let _ = change(handle, family(index, AfSpecUnspec::Inet6(vec![no_address]))).await;
    change(handle, LinkUnspec::new_with_index(index).up()).await?;
    Ok(mac)
}

/// IPv4 settings of a device, as pairs of the number and the value of `net.ipv4.conf`. The crate's own request leaves
/// out zeros.
fn settings(values: &[(u16, u32)]) -> AfSpecUnspec {
    let mut nested = Vec::new();
    for (number, value) in values {
        let setting = DefaultNla::new(*number, value.to_ne_bytes().to_vec());
        let at = nested.len();
        nested.resize(at + setting.buffer_len(), 0);
        setting.emit(&mut nested[at..]);
    }
    let all = DefaultNla::new(IFLA_INET_CONF | NLA_F_NESTED, nested);
    AfSpecUnspec::Inet(vec![AfSpecInet::Other(all)])
}

fn family(index: u32, settings: AfSpecUnspec) -> LinkMessageBuilder<LinkUnspec> {
    let settings = LinkAttribute::AfSpecUnspec(vec![settings]);
    LinkUnspec::new_with_index(index).append_extra_attribute(settings)
}

async fn change(handle: &Handle, change: LinkMessageBuilder<LinkUnspec>) -> io::Result<()> {
    let done = handle.link().set(change.build()).execute().await;
    done.map_err(netlink_error)
}
