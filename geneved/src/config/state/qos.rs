//! Classes: shared rates and DSCP marking of flows.

use super::link::{burst_needs_rate, limit};
use super::{DesiredState, presence, put, required};
use crate::config::args::{ChangeVerb, QosArgs};
use crate::config::value::{
    DscpValue, IfName, NONE_WORD, ObjectName, OrNone, RateValue, SizeValue,
};
use crate::refusal::Refusal;

/// A class of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassSpec {
    /// ID on the wire, unique on its link.
    pub id: u8,
    /// Rate that its flows share.
    pub rate: Option<RateValue>,
    /// Burst; only with a rate.
    pub burst: Option<SizeValue>,
    /// Outer DSCP.
    pub dscp: Option<DscpValue>,
}

impl ClassSpec {
    /// Converts to the words that create it.
    #[must_use]
    pub fn words(&self, dev: &IfName, name: &ObjectName) -> QosArgs {
        QosArgs {
            name: name.clone(),
            dev: dev.clone(),
            id: Some(self.id),
            rate: self.rate.map(OrNone::Is),
            burst: self.burst.map(OrNone::Is),
            dscp: self.dscp.map(OrNone::Is),
        }
    }
}

impl DesiredState {
    pub(super) fn change_class(
        &mut self,
        verb: ChangeVerb,
        words: &QosArgs,
    ) -> Result<(), Refusal> {
        let QosArgs { name, dev, .. } = words;
        self.link(dev)?;
        let object = format!("class \"{name}\" dev {dev}");
        let key = (dev.clone(), name.clone());
        let there = self.classes.get(&key).copied();
        let names = self.classes_of(dev).map(|(name, _)| name);
        presence(verb, there.is_some(), &object, ("qos", name), names)?;
        if verb == ChangeVerb::Del {
            if let Some(user) = self.user_of_class(dev, name) {
                return Err(Refusal::new(
                    format!("{object} is in use by {user}"),
                    "change or delete that first",
                ));
            }
            self.classes.remove(&key);
            return Ok(());
        }
        if name.as_str() == NONE_WORD {
            return Err(Refusal::new(
                format!("{object}: \"{NONE_WORD}\" is the word for no class"),
                "choose another name",
            ));
        }
        let mut class = match there.filter(|_| verb == ChangeVerb::Set) {
            Some(class) => class,
            None => ClassSpec {
                id: required(&object, "id", words.id)?,
                rate: None,
                burst: None,
                dscp: None,
            },
        };
        put(&mut class.id, words.id);
        limit(
            (&mut class.rate, &mut class.burst),
            (words.rate, words.burst),
        );
        put(&mut class.dscp, words.dscp.map(OrNone::value));
        burst_needs_rate(&object, class.rate, class.burst)?;
        let taken = self
            .classes_of(dev)
            .find(|(other, c)| *other != name && c.id == class.id);
        if let Some((other, _)) = taken {
            return Err(Refusal::new(
                format!(
                    "{object}: id {} is already that of class \"{other}\"",
                    class.id
                ),
                "choose another id, the same on every host of the VPC",
            ));
        }
        self.classes.insert(key, class);
        Ok(())
    }

    fn user_of_class(&self, dev: &IfName, class: &ObjectName) -> Option<String> {
        let rule = self
            .policies_of(dev)
            .find(|(_, p)| p.class.as_ref() == Some(class));
        let endpoint = self
            .endpoints_of(dev)
            .find(|(_, e)| e.class.as_ref() == Some(class));
        rule.map(|(name, _)| format!("policy \"{name}\" dev {dev}"))
            .or_else(|| endpoint.map(|(addr, _)| format!("endpoint \"{addr}\" dev {dev}")))
    }
}
