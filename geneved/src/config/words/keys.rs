//! Which keys an object has, as its type says it.

use serde::de::value::Error;
use serde::de::{Deserialize, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::{Change, Subject};

/// The keys of a struct, in its own order.
#[must_use]
pub fn keys_of<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut keys: &'static [&'static str] = &[];
    // It is only asked what it would read.
    let _ = T::deserialize(Asked(&mut keys));
    keys
}

/// The keys of the one object of a change.
#[must_use]
pub fn keys(change: &Change) -> &'static [&'static str] {
    match change.subject() {
        Some(Subject::Link(_)) => keys_of::<super::LinkWords>(),
        Some(Subject::Address(_)) => keys_of::<super::AddressWords>(),
        Some(Subject::Route(_)) => keys_of::<super::RouteWords>(),
        Some(Subject::Fdb(_)) => keys_of::<super::FdbWords>(),
        Some(Subject::Endpoint(_)) => keys_of::<super::EndpointWords>(),
        Some(Subject::Policy(_)) => keys_of::<super::PolicyWords>(),
        Some(Subject::Nat(_)) => keys_of::<super::NatWords>(),
        Some(Subject::Service(_)) => keys_of::<super::ServiceWords>(),
        Some(Subject::Qos(_)) => keys_of::<super::QosWords>(),
        Some(Subject::Option(_)) => keys_of::<super::OptionWords>(),
        None => &[],
    }
}

/// Reads nothing, but keeps the keys that it is asked for.
struct Asked<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("there is nothing to read"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LinkWords, PolicyWords};
    use super::keys_of;

    #[test]
    fn keys_are_those_of_the_file() {
        assert_eq!(keys_of::<LinkWords>()[..3], ["name", "type", "id"]);
        assert!(keys_of::<PolicyWords>().contains(&"endpoint-type"));
        assert!(keys_of::<u8>().is_empty());
    }
}
