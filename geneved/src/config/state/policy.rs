//! Rules: which flows of a link are allowed.

use libgeneve::options::EndpointType;

use super::{DesiredState, presence, required, whole};
use crate::config::args::{ChangeVerb, PolicyArgs};
use crate::config::value::{
    DirectionValue, EndpointTypeValue, IcmpValue, IfName, ObjectName, OptionMatchValue, OrNone,
    PortListValue, ProtocolValue, RuleAction, RulePeerValue,
};
use crate::refusal::Refusal;

/// Default preference of a rule.
pub const DEFAULT_PREF: u32 = 100;

/// A rule. Absent fields match everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySpec {
    /// Direction of the flows, as seen by the link.
    pub direction: DirectionValue,
    /// Preference; lower ones are evaluated first.
    pub pref: u32,
    /// The source.
    pub from: RulePeerValue,
    /// The destination.
    pub to: RulePeerValue,
    /// The protocol.
    pub proto: Option<ProtocolValue>,
    /// Source ports; only for TCP and UDP.
    pub sport: Option<PortListValue>,
    /// Destination ports; only for TCP and UDP.
    pub dport: Option<PortListValue>,
    /// ICMP type and optional code; only with ICMP or without a protocol.
    pub icmp: Option<IcmpValue>,
    /// Required value of an option in the packet.
    pub option: Option<OptionMatchValue>,
    /// Required endpoint type of the destination.
    pub endpoint_type: Option<EndpointType>,
    /// Action of the rule.
    pub action: RuleAction,
    /// Whether its flows are logged.
    pub log: bool,
    /// Class of its flows; belongs to the same link.
    pub class: Option<ObjectName>,
}

impl PolicySpec {
    /// Whether it selects by labels.
    #[must_use]
    pub fn has_selector(&self) -> bool {
        [&self.from, &self.to]
            .iter()
            .any(|who| matches!(who, RulePeerValue::Selector(_)))
    }

    /// Converts to the words that create it.
    #[must_use]
    pub fn words(&self, dev: &IfName, name: &ObjectName) -> PolicyArgs {
        let who = |who: &RulePeerValue| (*who != RulePeerValue::Any).then(|| who.clone());
        PolicyArgs {
            name: name.clone(),
            dev: dev.clone(),
            direction: Some(self.direction),
            pref: Some(self.pref),
            from: who(&self.from),
            to: who(&self.to),
            proto: self.proto,
            sport: self.sport.clone(),
            dport: self.dport.clone(),
            icmp: self.icmp,
            option: self.option.clone(),
            endpoint_type: self.endpoint_type.map(EndpointTypeValue),
            action: Some(self.action),
            log: self.log.then_some(true),
            class: self.class.clone().map(OrNone::Is),
        }
    }

    fn check(&self, object: &str) -> Result<(), Refusal> {
        if let (RulePeerValue::Prefix(from), RulePeerValue::Prefix(to)) = (&self.from, &self.to)
            && from.addr().is_ipv4() != to.addr().is_ipv4()
        {
            return Err(Refusal::new(
                format!("{object}: from {from} and to {to} are of different families"),
                "no packet is of both",
            ));
        }
        let ports = [("sport", &self.sport), ("dport", &self.dport)];
        let ports = ports.iter().find(|(_, ports)| ports.is_some());
        if let (Some((word, _)), false) = (ports, self.proto.is_some_and(ProtocolValue::has_ports))
        {
            return Err(Refusal::new(
                format!("{object}: {word} needs a protocol that has ports"),
                "add \"proto tcp\" or \"proto udp\"",
            ));
        }
        if self.icmp.is_some() && !self.proto.is_none_or(ProtocolValue::is_icmp) {
            return Err(Refusal::new(
                format!("{object}: icmp needs \"proto icmp\", \"proto icmpv6\" or none"),
                "",
            ));
        }
        Ok(())
    }
}

impl DesiredState {
    pub(super) fn change_policy(
        &mut self,
        verb: ChangeVerb,
        words: &PolicyArgs,
    ) -> Result<(), Refusal> {
        let PolicyArgs { name, dev, .. } = words;
        self.link(dev)?;
        let object = format!("policy \"{name}\" dev {dev}");
        let key = (dev.clone(), name.clone());
        let there = self.policies.get(&key);
        let names = self.policies_of(dev).map(|(name, _)| name);
        presence(verb, there.is_some(), &object, ("policy", name), names)?;
        if verb == ChangeVerb::Del {
            self.policies.remove(&key);
            return Ok(());
        }
        let words = whole(verb, there.map(|p| p.words(dev, name)), words.clone());
        let policy = PolicySpec {
            direction: required(&object, "direction", words.direction)?,
            pref: words.pref.unwrap_or(DEFAULT_PREF),
            from: words.from.unwrap_or_default(),
            to: words.to.unwrap_or_default(),
            proto: words.proto,
            sport: words.sport,
            dport: words.dport,
            icmp: words.icmp,
            option: words.option,
            endpoint_type: words.endpoint_type.map(|word| word.0),
            action: required(&object, "action", words.action)?,
            log: words.log == Some(true),
            class: words.class.and_then(OrNone::value),
        };
        policy.check(&object)?;
        if policy.has_selector() {
            self.check_carried(dev, &object, "selector")?;
            self.needs_secret(&object)?;
        }
        if policy.option.is_some() {
            self.check_carried(dev, &object, "option")?;
        }
        if policy.endpoint_type.is_some() {
            self.check_carried(dev, &object, "endpoint-type")?;
        }
        if let Some(class) = &policy.class {
            self.class_of(&object, dev, class)?;
        }
        self.policies.insert(key, policy);
        Ok(())
    }
}
