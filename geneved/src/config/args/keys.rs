//! Which keys an object has, as its type says it.

use serde::de::value::Error;
use serde::de::{Deserialize, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::{ObjectArgs, ObjectChange};

/// The keys of a struct, in its own order.
#[must_use]
pub fn keys_of<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut keys: &'static [&'static str] = &[];
    // It is only asked what it would read.
    let _ = T::deserialize(KeyCollector(&mut keys));
    keys
}

/// The keys of the one object of a change.
#[must_use]
pub fn keys(change: &ObjectChange) -> &'static [&'static str] {
    match change.subject() {
        Some(ObjectArgs::Link(_)) => keys_of::<super::LinkArgs>(),
        Some(ObjectArgs::Address(_)) => keys_of::<super::AddressArgs>(),
        Some(ObjectArgs::Route(_)) => keys_of::<super::RouteArgs>(),
        Some(ObjectArgs::Fdb(_)) => keys_of::<super::FdbArgs>(),
        Some(ObjectArgs::Endpoint(_)) => keys_of::<super::EndpointArgs>(),
        Some(ObjectArgs::Policy(_)) => keys_of::<super::PolicyArgs>(),
        Some(ObjectArgs::Nat(_)) => keys_of::<super::NatArgs>(),
        Some(ObjectArgs::Service(_)) => keys_of::<super::ServiceArgs>(),
        Some(ObjectArgs::Qos(_)) => keys_of::<super::QosArgs>(),
        Some(ObjectArgs::Option(_)) => keys_of::<super::OptionArgs>(),
        None => &[],
    }
}

/// Reads nothing, but keeps the keys that it is asked for.
struct KeyCollector<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for KeyCollector<'_> {
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
    use super::super::{LinkArgs, PolicyArgs};
    use super::keys_of;

    #[test]
    fn keys_are_those_of_the_file() {
        assert_eq!(keys_of::<LinkArgs>()[..3], ["name", "type", "id"]);
        assert!(keys_of::<PolicyArgs>().contains(&"endpoint-type"));
        assert!(keys_of::<u8>().is_empty());
    }
}
