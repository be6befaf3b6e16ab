//! What follows from a state without a secret or a table: routes, and how long options may be.

use ipnet::IpNet;
use libgeneve::label::LabelMap;
use libgeneve::link::{OptionLengths, RouteConfig};
use libgeneve::options::EndpointType;
use libgeneve::route::Origin;

use crate::config::state::{Link, State};
use crate::config::value::NamedData;

/// Whether packets of the link say what labels their source has.
pub(super) fn uses_labels(state: &State, link: &Link) -> bool {
    let labelled = state
        .endpoints_of(&link.name)
        .any(|(_, e)| e.labels.is_some());
    let mut rules = state
        .policies
        .iter()
        .filter(|((dev, _), _)| *dev == link.name);
    labelled || rules.any(|(_, rule)| rule.has_selector())
}

/// Bytes of the longest options that a link sends.
pub(in crate::daemon) fn options_len(state: &State, link: &Link) -> u16 {
    let size = |list: &[NamedData]| -> usize { list.iter().map(|o| 4 + o.data.len()).sum() };
    let local = || {
        state
            .endpoints_of(&link.name)
            .filter(|(_, e)| e.local)
            .map(|(_, e)| e)
    };
    let typed = state
        .endpoints_of(&link.name)
        .any(|(_, e)| e.kind() != EndpointType::Simple)
        || state
            .routes_of(&link.name)
            .any(|(_, r)| r.kind == EndpointType::Gateway);
    let most = local()
        .filter_map(|e| e.labels.as_ref())
        .map(LabelMap::len)
        .max();
    let lengths = OptionLengths {
        link: size(&link.options),
        endpoint: local().map(|e| size(&e.options)).max().unwrap_or(0),
        typed,
        labels: uses_labels(state, link).then(|| most.unwrap_or(0)),
        class: state.classes.keys().any(|(dev, _)| *dev == link.name),
        relays: state.services.keys().any(|(dev, _)| *dev == link.name),
        translates: state.nats.keys().any(|(dev, _)| *dev == link.name),
    };
    u16::try_from(lengths.sum()).unwrap_or(u16::MAX)
}

pub(super) fn routes(state: &State, link: &Link) -> Vec<RouteConfig> {
    let mut routes = Vec::new();
    if let Some(remote) = link.remote {
        for all in ["0.0.0.0/0", "::/0"] {
            routes.push(RouteConfig {
                prefix: all.parse().expect("a valid prefix"),
                hosts: vec![remote],
                origin: Origin::Remote,
                kind: EndpointType::Simple,
                local: false,
            });
        }
    }
    routes.extend(
        state
            .routes_of(&link.name)
            .map(|(prefix, route)| RouteConfig {
                prefix,
                hosts: route.hosts.clone(),
                origin: Origin::Route,
                kind: route.kind,
                local: false,
            }),
    );
    routes.extend(
        state
            .endpoints_of(&link.name)
            .map(|(address, endpoint)| RouteConfig {
                prefix: IpNet::from(address),
                hosts: endpoint.hosts.clone(),
                origin: Origin::Endpoint,
                kind: endpoint.kind(),
                local: endpoint.local || endpoint.hosts.is_empty(),
            }),
    );
    routes
}
