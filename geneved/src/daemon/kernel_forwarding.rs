//! Warns about links of several VPCs in one network namespace whose kernel forwards between them.

use std::collections::BTreeMap;

use crate::config::state::LinkSpec;
use crate::config::value::{IfName, ModeValue};
use crate::net::gateway::{ForwardedFamilies, forwarding};

/// A link and its namespace.
pub(super) type LinkPlace<'a> = (&'a IfName, Option<&'a str>);

/// Returns the link if the kernel routes its packets, as opposed to a bridge taking its frames.
pub(super) fn routed(link: &LinkSpec) -> Option<LinkPlace<'_>> {
    let routed = link.mode == ModeValue::Ip || !link.addresses.is_empty();
    routed.then_some((&link.name, link.netns.as_deref()))
}

/// Returns a warning with the remedies for each namespace that has two or more links and a forwarding kernel.
pub(super) async fn between_links<'a>(links: impl Iterator<Item = LinkPlace<'a>>) -> Vec<String> {
    let mut by_netns: BTreeMap<Option<&str>, Vec<&IfName>> = BTreeMap::new();
    for (name, netns) in links {
        by_netns.entry(netns).or_default().push(name);
    }
    let mut all = Vec::new();
    for (netns, names) in by_netns.into_iter().filter(|(_, names)| names.len() > 1) {
        let texts = names.iter().map(ToString::to_string).collect();
        // A missing namespace forwards nothing; that its links do not run is reported elsewhere.
        if let Ok(forwarding) = forwarding(netns.map(str::to_owned), texts).await {
            all.extend(sentence(netns, &names, forwarding));
        }
    }
    all
}

fn sentence(
    netns: Option<&str>,
    names: &[&IfName],
    forwarding: ForwardedFamilies,
) -> Option<String> {
    let (families, settings) = match (forwarding.v4, forwarding.v6) {
        (false, false) => return None,
        (true, false) => ("IPv4", "net.ipv4.ip_forward=0"),
        (false, true) => ("IPv6", "net.ipv6.conf.all.forwarding=0"),
        (true, true) => (
            "IPv4 and IPv6",
            "net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0",
        ),
    };
    let links = match names {
        [first, second] => format!("links \"{first}\" and \"{second}\" are"),
        [first, others @ ..] => format!("link \"{first}\" and {} others are", others.len()),
        [] => return None,
    };
    let (place, inside) = match netns {
        Some(netns) => (
            format!("network namespace \"{netns}\""),
            format!("ip netns exec {netns} "),
        ),
        None => ("the host's network namespace".to_owned(), String::new()),
    };
    Some(format!(
        "{links} in {place}, whose kernel forwards {families}: it may pass on packets of one VPC to another; give each link a namespace of its own (\"netns\"), or \"{inside}sysctl -w {settings}\""
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forwarded_between_links_is_told_with_the_remedy() {
        let names: Vec<IfName> = ["blue", "green", "red"].map(|n| n.parse().unwrap()).into();
        let names: Vec<_> = names.iter().collect();
        let none = ForwardedFamilies::default();
        assert_eq!(sentence(None, &names, none), None);
        let v4 = ForwardedFamilies {
            v4: true,
            v6: false,
        };
        assert_eq!(
            sentence(None, &names[..2], v4).unwrap(),
            "links \"blue\" and \"green\" are in the host's network namespace, whose kernel forwards IPv4: it may pass on packets of \
             one VPC to another; give each link a namespace of its own (\"netns\"), or \"sysctl -w net.ipv4.ip_forward=0\""
        );
        let both = ForwardedFamilies { v4: true, v6: true };
        let said = sentence(Some("tenants"), &names, both).unwrap();
        assert!(said.starts_with("link \"blue\" and 2 others are in network namespace \"tenants\", whose kernel forwards IPv4 and IPv6"));
        assert!(said.ends_with("\"ip netns exec tenants sysctl -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0\""));
    }
}
