//! Parts of the configuration that need neither secrets nor tables: routes, and the maximum length of options.

use ipnet::IpNet;
use libgeneve::label::LabelMap;
use libgeneve::options::EndpointType;
use libgeneve::route::RouteOrigin;
use libgeneve::vpc::{OptionLengths, RouteConfig};

use crate::config::state::{DesiredState, LinkSpec, options_size};
use crate::config::value::ModeValue;

/// Length in bytes of the longest options that a link sends.
pub(in crate::daemon) fn options_len(state: &DesiredState, link: &LinkSpec) -> u16 {
    if !link.encapsulation.has_options() {
        return 0;
    }
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
        link: options_size(&link.options),
        endpoint: local().map(|e| options_size(&e.options)).max().unwrap_or(0),
        typed,
        labels: state.uses_labels(&link.name).then(|| most.unwrap_or(0)),
        class: state.classes_of(&link.name).next().is_some(),
        relays: state.services_of(&link.name).next().is_some(),
        translates: state.nats_of(&link.name).next().is_some(),
    };
    u16::try_from(lengths.sum()).unwrap_or(u16::MAX)
}

pub(super) fn routes(state: &DesiredState, link: &LinkSpec) -> Vec<RouteConfig> {
    let mut routes = Vec::new();
    // A bridge forwards by MAC address.
    if link.mode == ModeValue::Ethernet {
        return routes;
    }
    if let Some(remote) = link.remote {
        for all in ["0.0.0.0/0", "::/0"] {
            routes.push(RouteConfig {
                prefix: all.parse().expect("a valid prefix"),
                hosts: vec![remote],
                origin: RouteOrigin::Remote,
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
                origin: RouteOrigin::Route,
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
                origin: RouteOrigin::Endpoint,
                kind: endpoint.kind(),
                local: endpoint.local || endpoint.hosts.is_empty(),
            }),
    );
    routes
}
