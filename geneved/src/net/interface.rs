//! TUN and TAP interfaces by netlink: creation, changes and status, in the link's own namespace.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol,
};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, State};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec};

use libgeneve::wire::ethernet::Mac;

use super::netlink_error;
use super::netlink_watch;
use super::netns::{self, NetnsError, within};
use crate::io::{Tun, TunError, create_tun, create_tun_to_move};

/// Largest super-packet that fits one UDP send together with the tunnel headers.
pub const GSO_MAX_SIZE: u32 = 61_440;
/// Maximum number of segments of `UDP_SEGMENT`.
const GSO_MAX_SEGS: u32 = 128;
/// Queue length of an interface in packets.
pub const TX_QUEUE_LEN: u32 = 1000;

/// Desired configuration of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceSpec {
    /// Its name.
    pub name: String,
    /// Its MAC address, if it is a TAP interface; a TUN interface has none.
    pub tap: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// All its addresses.
    pub addresses: Vec<IpNet>,
    /// Whether it is up.
    pub up: bool,
    /// Whether its packets can be sent anywhere; without a carrier it is like an interface without a cable.
    pub carrier: bool,
}

/// An interface that geneved created. Another one that took over its name is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnInterface {
    /// Its network namespace, if not the daemon's own.
    pub netns: Option<String>,
    /// Its name.
    pub name: String,
    /// Its interface index.
    pub ifindex: u32,
}

/// A newly created interface.
#[derive(Debug)]
pub struct CreatedInterface {
    /// Its queues.
    pub tun: Tun,
    /// Its interface index.
    pub ifindex: u32,
}

/// Whether an interface with this MTU can have the address: the kernel has no IPv6 below 1280 (RFC 8200, section 5).
#[must_use]
pub fn can_have(address: &IpNet, mtu: u16) -> bool {
    matches!(address, IpNet::V4(_)) || mtu >= 1280
}

/// Status of an interface as reported by the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Its interface index.
    pub ifindex: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its queue length in packets.
    pub txqlen: u32,
    /// Its flags, as `ip link` names them.
    pub flags: Vec<String>,
    /// Its operational state, as `ip link` names it.
    pub operstate: String,
    /// Its MAC address, if it has one.
    pub lladdr: Option<Mac>,
    /// Its addresses, except for the link-local one that the kernel generates.
    pub addresses: Vec<IpNet>,
    /// The link-local address that the kernel generated.
    pub link_local: Option<IpNet>,
}

impl InterfaceStatus {
    /// Whether it is administratively up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.flags.iter().any(|flag| flag == "UP")
    }
}

/// Why an interface could not be configured.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// Entering the namespace failed.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Creating the TUN device failed.
    #[error("{0}")]
    Tun(#[from] TunError),
    /// A setting was refused.
    #[error("{what}: {error}{}", hint(what, error))]
    Setting {
        /// The setting.
        what: String,
        /// The kernel's error.
        error: io::Error,
    },
    /// Another interface has the name.
    #[error(
        "another interface is named \"{0}\" now, and is left alone; rename or remove it, then \"geneved reload\" makes the link's own anew"
    )]
    Another(String),
}

fn hint(what: &str, error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(nix::libc::EACCES | nix::libc::EOPNOTSUPP) if what.contains(':') => {
            "; is IPv6 disabled there (sysctl net.ipv6.conf.*.disable_ipv6)?"
        }
        Some(nix::libc::ENODEV) if what == "interface" => {
            "; it was renamed or moved to another namespace: \"ip link set\" gives its name back"
        }
        Some(nix::libc::EINVAL) if what.contains(':') => "; IPv6 needs an MTU of at least 1280",
        _ => "",
    }
}

/// Creates TUN devices in one namespace and configures them; bringing them up is the last step. The results are in
/// the order of `wanted`. With `all_or_none` it stops at the first error; without, an interface is created even if
/// the kernel refuses an address.
///
/// # Errors
/// If the namespace cannot be entered.
pub async fn create(
    netns: Option<String>,
    wanted: Vec<InterfaceSpec>,
    queues: usize,
    all_or_none: bool,
) -> Result<Vec<Result<CreatedInterface, InterfaceError>>, NetnsError> {
    let target = netns.as_deref().map(netns::open).transpose()?;
    // The kernel would notice only after the device was created, and this may be called every second.
    let taken = match &netns {
        None => Vec::new(),
        Some(_) => {
            let names = wanted.iter().map(|w| w.name.clone()).collect();
            observe(netns.clone(), names).await?
        }
    };
    let (wanted, made) = within(None, move |handle| async move {
        if let Some(target) = &target
            && let Err(error) = netlink_watch::number(&handle, target).await
        {
            tracing::debug!(%error, "changes in a network namespace will not be heard of");
        }
        let mut made = Vec::with_capacity(wanted.len());
        for wanted in &wanted {
            let tap = wanted.tap.is_some();
            let one = match &target {
                None => create_tun(&wanted.name, queues, tap).map_err(InterfaceError::from),
                Some(_) if taken.iter().any(|seen| seen.name == wanted.name) => {
                    Err(TunError::Exists(wanted.name.clone()).into())
                }
                Some(target) => move_in(&handle, &wanted.name, target, queues, tap).await,
            };
            let failed = one.is_err();
            made.push(one);
            if failed && all_or_none {
                break;
            }
        }
        (wanted, made)
    })
    .await?;
    within(netns, move |handle| async move {
        let mut ready = Vec::with_capacity(made.len());
        for (wanted, tun) in wanted.iter().zip(made) {
            let one = match tun {
                Ok(tun) => {
                    let ready = set_up(&handle, wanted, all_or_none).await;
                    ready.map(|ifindex| CreatedInterface { tun, ifindex })
                }
                Err(error) => Err(error),
            };
            let failed = one.is_err();
            ready.push(one);
            if failed && all_or_none {
                break;
            }
        }
        ready
    })
    .await
}

/// Creates a TUN device here, and moves it to another namespace under its own name.
async fn move_in(
    handle: &Handle,
    name: &str,
    target: &File,
    queues: usize,
    tap: bool,
) -> Result<Tun, InterfaceError> {
    let mut tun = create_tun_to_move(queues, tap)?;
    let index = query(handle, &tun.name).await?.ifindex;
    let change = by_index(index)
        .setns_by_fd(target.as_raw_fd())
        .name(name.to_owned());
    match handle.link().set(change.build()).execute().await {
        Ok(()) => {}
        Err(error) if is(&error, nix::libc::EEXIST) => {
            return Err(TunError::Exists(name.to_owned()).into());
        }
        Err(error) => return Err(setting("network namespace".into(), error)),
    }
    name.clone_into(&mut tun.name);
    Ok(tun)
}

/// Changes addresses, MTU and state of an existing interface. Only addresses in `before` are geneved's and may be
/// removed; those that others assigned stay.
///
/// # Errors
/// The first thing that the kernel refused.
pub async fn update(
    own: OwnInterface,
    wanted: InterfaceSpec,
    before: Vec<IpNet>,
) -> Result<(), InterfaceError> {
    within(own.netns.clone(), move |handle| async move {
        let seen = find_own(&handle, &own).await?;
        adjust_mtu(&handle, &seen, wanted.mtu).await?;
        // Setting the MAC address flushes the kernel's neighbours, even if it is the same.
        if let Some(mac) = wanted.tap.filter(|mac| seen.lladdr != Some(*mac)) {
            set_lladdr(&handle, seen.ifindex, mac).await?;
        }
        if seen.is_up() != wanted.up {
            let index = by_index(seen.ifindex);
            match wanted.up {
                true => set(&handle, index.up(), || "state up".to_owned()).await?,
                false => set(&handle, index.down(), || "state down".to_owned()).await?,
            }
        }
        let gone =
            |address: &IpNet| before.contains(address) && !wanted.addresses.contains(address);
        let there = addresses(&handle, seen.ifindex).await?;
        let (go, stay): (Vec<_>, Vec<_>) = there.into_iter().partition(|(a, _)| gone(a));
        let mut all = wanted.addresses.clone();
        let others = stay.into_iter().map(|(address, _)| address);
        all.extend(others.filter(|address| !wanted.addresses.contains(address)));
        for (address, message) in go {
            match handle.address().del(message).execute().await {
                // Removing the first address of a network removes its others (ip-sysctl, `promote_secondaries`).
                Err(error) if is(&error, nix::libc::EADDRNOTAVAIL) => {}
                deleted => deleted.map_err(|e| setting(format!("address {address}"), e))?,
            }
        }
        let there = addresses(&handle, seen.ifindex).await?;
        for address in all {
            if !there.iter().any(|(a, _)| *a == address) {
                add_address(&handle, &seen, address).await?;
            }
        }
        Ok(())
    })
    .await?
}

/// Changes only the MTU of an existing interface.
///
/// # Errors
/// What the kernel refused.
pub async fn set_mtu(own: OwnInterface, mtu: u16) -> Result<(), InterfaceError> {
    within(own.netns.clone(), move |handle| async move {
        let seen = find_own(&handle, &own).await?;
        adjust_mtu(&handle, &seen, mtu).await
    })
    .await?
}

/// Restores what somebody removed from an interface: its MTU, if given, and as many of these addresses as it can
/// have.
///
/// # Errors
/// The first thing that the kernel refused.
pub async fn restore(
    own: OwnInterface,
    mtu: Option<u16>,
    missing: Vec<IpNet>,
) -> Result<(), InterfaceError> {
    within(own.netns.clone(), move |handle| async move {
        let seen = find_own(&handle, &own).await?;
        if let Some(mtu) = mtu {
            adjust_mtu(&handle, &seen, mtu).await?;
        }
        let mut result = Ok(());
        for address in missing {
            match add_address(&handle, &seen, address).await {
                // Somebody else restored it first.
                Err(InterfaceError::Setting { error, .. })
                    if error.raw_os_error() == Some(nix::libc::EEXIST) => {}
                added => result = result.and(added),
            }
        }
        result
    })
    .await?
}

/// Sets the carrier: whether an interface's packets can be sent anywhere.
///
/// # Errors
/// What the kernel refused.
pub async fn set_carrier(own: OwnInterface, on: bool) -> Result<(), InterfaceError> {
    within(own.netns.clone(), move |handle| async move {
        let index = find_own(&handle, &own).await?.ifindex;
        carrier(&handle, index, on).await
    })
    .await?
}

async fn carrier(handle: &Handle, index: u32, on: bool) -> Result<(), InterfaceError> {
    let word = if on { "on" } else { "off" };
    let change = by_index(index).carrier(on);
    set(handle, change, || format!("carrier {word}")).await
}

async fn set_lladdr(handle: &Handle, index: u32, mac: Mac) -> Result<(), InterfaceError> {
    let change = by_index(index).address(mac.0.to_vec());
    set(handle, change, || format!("lladdr {mac}")).await
}

async fn adjust_mtu(
    handle: &Handle,
    seen: &InterfaceStatus,
    mtu: u16,
) -> Result<(), InterfaceError> {
    if seen.mtu == u32::from(mtu) {
        return Ok(());
    }
    let change = by_index(seen.ifindex).mtu(mtu.into());
    set(handle, change, || format!("mtu {mtu}")).await
}

/// Reads the status of these interfaces of one namespace; missing ones are left out.
///
/// # Errors
/// If the namespace cannot be entered.
pub async fn observe(
    netns: Option<String>,
    names: Vec<String>,
) -> Result<Vec<InterfaceStatus>, NetnsError> {
    within(netns, move |handle| async move {
        let mut all = Vec::with_capacity(names.len());
        for name in names {
            if let Ok(seen) = query(&handle, &name).await {
                all.push(seen);
            }
        }
        let mut found = HashMap::<u32, Vec<IpNet>>::new();
        let mut made = HashMap::<u32, IpNet>::new();
        let mut stream = std::pin::pin!(handle.address().get().execute());
        while let Ok(Some(message)) = stream.try_next().await {
            let index = message.header.index;
            match address_of(&message) {
                Some((address, false)) => found.entry(index).or_default().push(address),
                Some((address, true)) => drop(made.insert(index, address)),
                None => {}
            }
        }
        for seen in &mut all {
            seen.link_local = made.remove(&seen.ifindex);
            seen.addresses = found.remove(&seen.ifindex).unwrap_or_default();
        }
        all
    })
    .await
}

/// Removes these interfaces of one namespace in one request: the kernel waits for its other CPUs once per request,
/// which would take seconds for a thousand single ones. Missing interfaces are skipped.
///
/// # Errors
/// If the namespace cannot be entered, or the kernel refuses.
pub async fn remove(netns: Option<String>, all: Vec<OwnInterface>) -> Result<(), InterfaceError> {
    // A group number that nobody else is likely to use; "ip link" shows it for a moment.
    let group = LinkAttribute::Group(0x6e76_0000 | (std::process::id() & 0xffff));
    within(netns, move |handle| async move {
        let mut any = false;
        for own in all {
            if let Ok(seen) = find_own(&handle, &own).await {
                let change = by_index(seen.ifindex).append_extra_attribute(group.clone());
                set(&handle, change, || "group".to_owned()).await?;
                any = true;
            }
        }
        if any {
            let mut request = handle.link().del(0);
            request.message_mut().attributes.push(group);
            let deleted = request.execute().await;
            deleted.map_err(|e| setting("deletion".into(), e))?;
        }
        Ok(())
    })
    .await?
}

/// Configures a new interface as desired; returns its index.
async fn set_up(
    handle: &Handle,
    wanted: &InterfaceSpec,
    all_or_none: bool,
) -> Result<u32, InterfaceError> {
    let seen = query(handle, &wanted.name).await?;
    let index = seen.ifindex;
    let change = by_index(index)
        .mtu(wanted.mtu.into())
        .txqueuelen(TX_QUEUE_LEN);
    set(handle, change, || format!("mtu {}", wanted.mtu)).await?;
    if let Some(mac) = wanted.tap {
        set_lladdr(handle, index, mac).await?;
    }
    if !wanted.carrier {
        carrier(handle, index, false).await?;
    }
    for limit in [
        LinkAttribute::GsoMaxSegs(GSO_MAX_SEGS),
        LinkAttribute::GsoMaxSize(GSO_MAX_SIZE),
        LinkAttribute::GsoIpv4MaxSize(GSO_MAX_SIZE),
    ] {
        // These only affect speed, and older kernels do not know all of them.
        let change = by_index(index).append_extra_attribute(limit.clone());
        if let Err(error) = set(handle, change, || format!("{limit:?}")).await {
            tracing::debug!(link = wanted.name, %error, "this kernel does not take a GSO limit");
        }
    }
    for address in &wanted.addresses {
        match add_address(handle, &seen, *address).await {
            Err(error) if all_or_none => return Err(error),
            // The next check of the interface finds it missing and reports it.
            _ => {}
        }
    }
    if wanted.up {
        set(handle, by_index(index).up(), || "state up".to_owned()).await?;
    }
    Ok(index)
}

fn by_index(index: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index)
}

async fn set(
    handle: &Handle,
    change: LinkMessageBuilder<LinkUnspec>,
    what: impl FnOnce() -> String,
) -> Result<(), InterfaceError> {
    handle
        .link()
        .set(change.build())
        .execute()
        .await
        .map_err(|e| setting(what(), e))
}

async fn add_address(
    handle: &Handle,
    seen: &InterfaceStatus,
    address: IpNet,
) -> Result<(), InterfaceError> {
    let mut request = handle
        .address()
        .add(seen.ifindex, address.addr(), address.prefix_len());
    // Without neighbours there are no duplicates to detect, but the kernel would still mark the address tentative for
    // a moment, and nothing could bind to it.
    if seen.flags.iter().any(|flag| flag == "NOARP") {
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    }
    request
        .execute()
        .await
        .map_err(|e| setting(format!("address {address}"), e))
}

async fn addresses(
    handle: &Handle,
    index: u32,
) -> Result<Vec<(IpNet, AddressMessage)>, InterfaceError> {
    let mut found = Vec::new();
    let mut stream = std::pin::pin!(
        handle
            .address()
            .get()
            .set_link_index_filter(index)
            .execute()
    );
    while let Some(message) = stream
        .try_next()
        .await
        .map_err(|e| setting("its addresses".into(), e))?
    {
        if let Some((net, false)) = address_of(&message) {
            found.push((net, message));
        }
    }
    Ok(found)
}

/// The address in the message, and whether it is the link-local one that the kernel generates.
fn address_of(message: &AddressMessage) -> Option<(IpNet, bool)> {
    let by_kernel = AddressAttribute::Protocol(AddressProtocol::LinkLocal);
    let made = message.attributes.contains(&by_kernel);
    // Local and Address differ on interfaces with a peer address; Local is ours.
    let of = |local: bool| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(ip) if local => Some(*ip),
            AddressAttribute::Address(ip) if !local => Some(*ip),
            _ => None,
        })
    };
    let ip = of(true).or_else(|| of(false))?;
    let address = IpNet::new(ip, message.header.prefix_len).ok()?;
    Some((address, made))
}

/// Reads the status of an interface of geneved; fails if another one has its name.
async fn find_own(handle: &Handle, own: &OwnInterface) -> Result<InterfaceStatus, InterfaceError> {
    let seen = query(handle, &own.name).await?;
    match own.ifindex == seen.ifindex {
        true => Ok(seen),
        false => Err(InterfaceError::Another(own.name.clone())),
    }
}

async fn query(handle: &Handle, name: &str) -> Result<InterfaceStatus, InterfaceError> {
    let mut stream = std::pin::pin!(handle.link().get().match_name(name.to_owned()).execute());
    match stream.try_next().await {
        Ok(Some(message)) => Ok(read(name, &message)),
        Ok(None) => {
            let error = io::Error::from_raw_os_error(nix::libc::ENODEV);
            Err(InterfaceError::Setting {
                what: "interface".into(),
                error,
            })
        }
        Err(e) => Err(setting("interface".into(), e)),
    }
}

fn read(name: &str, message: &LinkMessage) -> InterfaceStatus {
    let mut seen = InterfaceStatus {
        name: name.to_owned(),
        ifindex: message.header.index,
        operstate: "UNKNOWN".into(),
        ..InterfaceStatus::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => seen.mtu = *mtu,
            LinkAttribute::Address(mac) => {
                seen.lladdr = mac.as_slice().try_into().ok().map(Mac);
            }
            LinkAttribute::TxQueueLen(len) => seen.txqlen = *len,
            LinkAttribute::OperState(State::Up) => seen.operstate = "UP".into(),
            LinkAttribute::OperState(State::Down) => seen.operstate = "DOWN".into(),
            _ => {}
        }
    }
    // In the order of `ip link`.
    let names = [
        (LinkFlags::Broadcast, "BROADCAST"),
        (LinkFlags::Pointopoint, "POINTOPOINT"),
        (LinkFlags::Multicast, "MULTICAST"),
        (LinkFlags::Noarp, "NOARP"),
        (LinkFlags::Up, "UP"),
        (LinkFlags::LowerUp, "LOWER_UP"),
    ];
    let flags = message.header.flags;
    if flags.contains(LinkFlags::Up) && !flags.contains(LinkFlags::Running) {
        seen.flags.push("NO-CARRIER".into());
    }
    seen.flags.extend(
        names
            .iter()
            .filter(|(f, _)| flags.contains(*f))
            .map(|(_, n)| (*n).into()),
    );
    seen
}

fn is(error: &rtnetlink::Error, code: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -code)
}

fn setting(what: String, error: rtnetlink::Error) -> InterfaceError {
    let error = netlink_error(error);
    InterfaceError::Setting { what, error }
}
