//! Policy, NAT, services, classes and options, as shown by the control socket.
//!
//! Configuration comes from the state, counters from `live`.

use std::cmp::Reverse;

use super::core::{Core, CoreState};
use super::gateway;
use super::show::{check, wants};
use crate::config::state::{ClassSpec, DefinedOption, NatSpec, PolicySpec, ServiceSpec};
use crate::config::value::{IfName, ObjectName, RuleAction};
use crate::control::protocol::{
    BackendHealth, BackendInfo, ClassInfo, ClassesReply, NatInfo, NatsReply, OptionInfo,
    OptionsReply, PoliciesReply, PolicyInfo, ServiceInfo, ServicesReply,
};
use crate::control::yielding::Yielder;
use crate::refusal::Refusal;

impl Core {
    pub(super) async fn list_policies(
        &self,
        dev: Option<IfName>,
    ) -> Result<PoliciesReply, Refusal> {
        let inner = self.inner().await;
        check(&inner, dev.as_ref())?;
        let all = inner.state.policies.iter();
        let mut wanted: Vec<_> = all.filter(|((on, _), _)| wants(dev.as_ref(), on)).collect();
        // At equal preference the stricter rule is evaluated first.
        wanted.sort_by_key(|((on, _), policy)| {
            let strictness = strictness(policy.action);
            (on, policy.direction, policy.pref, Reverse(strictness))
        });
        let mut policies = Vec::with_capacity(wanted.len());
        let mut steps = Yielder::default();
        for ((on, name), policy) in wanted {
            policies.push(self.policy_info(&inner, on, name, policy));
            steps.yield_if_due().await;
        }
        Ok(PoliciesReply { policies })
    }

    pub(super) async fn list_nats(&self, dev: Option<IfName>) -> Result<NatsReply, Refusal> {
        let inner = self.inner().await;
        check(&inner, dev.as_ref())?;
        let mut nats = Vec::new();
        let links = inner.state.links.values();
        for link in links.filter(|link| wants(dev.as_ref(), &link.name)) {
            let of_link: Vec<_> = inner.state.nats_of(&link.name).collect();
            let rules: Vec<_> = of_link.iter().map(|(_, nat)| *nat).collect();
            let missing = gateway::missing(link, &rules).await;
            nats.extend(
                of_link
                    .iter()
                    .zip(missing)
                    .map(|((name, nat), missing)| NatInfo {
                        missing,
                        ..self.nat_info(&inner, &link.name, name, nat)
                    }),
            );
        }
        Ok(NatsReply { nats })
    }

    pub(super) async fn list_services(
        &self,
        dev: Option<IfName>,
    ) -> Result<ServicesReply, Refusal> {
        let inner = self.inner().await;
        check(&inner, dev.as_ref())?;
        let all = inner.state.services.iter();
        let mut services = Vec::new();
        let mut steps = Yielder::default();
        for ((on, name), service) in all.filter(|((on, _), _)| wants(dev.as_ref(), on)) {
            services.push(self.service_info(&inner, on, name, service));
            steps.yield_if_due().await;
        }
        Ok(ServicesReply { services })
    }

    pub(super) async fn list_classes(&self, dev: Option<IfName>) -> Result<ClassesReply, Refusal> {
        let inner = self.inner().await;
        check(&inner, dev.as_ref())?;
        let all = inner.state.classes.iter();
        let mut classes = Vec::new();
        let mut steps = Yielder::default();
        for ((on, name), class) in all.filter(|((on, _), _)| wants(dev.as_ref(), on)) {
            classes.push(self.class_info(&inner, on, name, class));
            steps.yield_if_due().await;
        }
        Ok(ClassesReply { classes })
    }

    pub(super) async fn list_options(&self) -> OptionsReply {
        let inner = self.inner().await;
        let all = inner.state.options.iter();
        let options = all.map(|(name, option)| self.option_info(&inner, name, option));
        OptionsReply {
            options: options.collect(),
        }
    }
}

impl Core {
    pub(super) fn policy_info(
        &self,
        inner: &CoreState,
        on: &IfName,
        name: &ObjectName,
        policy: &PolicySpec,
    ) -> PolicyInfo {
        PolicyInfo {
            policy: policy.words(on, name),
            hits: self.policy_hits(inner, on, name),
        }
    }

    pub(super) fn nat_info(
        &self,
        inner: &CoreState,
        on: &IfName,
        name: &ObjectName,
        nat: &NatSpec,
    ) -> NatInfo {
        let (in_use, total) = self.nat_ports(inner, on, name);
        NatInfo {
            nat: nat.words(on, name),
            in_use,
            total,
            missing: Vec::new(),
        }
    }

    pub(super) fn service_info(
        &self,
        inner: &CoreState,
        on: &IfName,
        name: &ObjectName,
        service: &ServiceSpec,
    ) -> ServiceInfo {
        let backends = service.targets().map(|(address, port, weight)| {
            let (health, reason) = match weight {
                0 => (BackendHealth::Draining, None),
                _ => self.backend_health(inner, on, service, (address, port)),
            };
            BackendInfo {
                address,
                port,
                weight,
                health,
                reason,
            }
        });
        ServiceInfo {
            service: service.words(on, name),
            backends: backends.collect(),
        }
    }

    pub(super) fn class_info(
        &self,
        inner: &CoreState,
        on: &IfName,
        name: &ObjectName,
        class: &ClassSpec,
    ) -> ClassInfo {
        let tallied = self.class_bytes(inner, on, name);
        ClassInfo {
            class: class.words(on, name),
            passed_bytes: tallied.passed,
            dropped_bytes: tallied.refused,
            marked_bytes: tallied.marked,
            backlog_bytes: tallied.waiting,
        }
    }

    pub(super) fn option_info(
        &self,
        inner: &CoreState,
        name: &ObjectName,
        option: &DefinedOption,
    ) -> OptionInfo {
        let (rx, tx) = self.option_packets(inner, name);
        OptionInfo {
            option: option.words(name),
            rx,
            tx,
        }
    }
}

fn strictness(action: RuleAction) -> u8 {
    match action {
        RuleAction::Deny => 2,
        RuleAction::Reject => 1,
        RuleAction::Allow => 0,
    }
}
