//! How objects are read: every field by one piece of code for its type.
//!
//! What serde derives has such code in each struct for each of its fields: it was a twentieth of the agent.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A struct whose fields are read one by one.
pub trait Fields: Default {
    /// Their names: as the API has them, or as Rust has them (`host_ip` is `hostIp`).
    const NAMES: &'static [&'static str];

    /// Reads the value that comes next into field number `at`.
    ///
    /// # Errors
    /// When it is none of the field's.
    fn set<'de, A: MapAccess<'de>>(&mut self, at: usize, map: &mut A) -> Result<(), A::Error>;
}

/// Reads a value; `null` is the default.
///
/// # Errors
/// When it is none of this type.
#[inline(never)]
pub fn field<'de, T, A>(map: &mut A, slot: &mut T) -> Result<(), A::Error>
where
    T: Default + Deserialize<'de>,
    A: MapAccess<'de>,
{
    *slot = map.next_value::<Option<T>>()?.unwrap_or_default();
    Ok(())
}

/// Reads a struct: what is not there has its default, and what it does not know is left alone.
///
/// # Errors
/// When it is none.
#[inline(never)]
pub fn read<'de, T: Fields, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_map(Whole(PhantomData))
}

struct Whole<T>(PhantomData<T>);

impl<'de, T: Fields> Visitor<'de> for Whole<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut whole = T::default();
        while let Some(known) = map.next_key_seed(Key(T::NAMES))? {
            match known {
                Some(at) => whole.set(at, &mut map)?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(whole)
    }
}

/// Finds a key among names.
struct Key(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|name| is_called(key, name)))
    }
}

/// Is `key` what a field of this name is called?
fn is_called(key: &str, name: &str) -> bool {
    let mut key = key.bytes();
    let mut name = name.bytes();
    while let Some(byte) = name.next() {
        let wanted = match byte {
            b'_' => name.next().map(|byte| byte.to_ascii_uppercase()),
            byte => Some(byte),
        };
        if key.next() != wanted {
            return false;
        }
    }
    key.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::is_called;

    #[test]
    fn keys_are_camels() {
        for (key, name) in [("name", "name"), ("hostIP", "hostIP"), ("initContainers", "init_containers")] {
            assert!(is_called(key, name), "{key}");
        }
        for (key, name) in
            [("nam", "name"), ("names", "name"), ("init_containers", "init_containers"), ("", "a")]
        {
            assert!(!is_called(key, name), "{key}");
        }
    }
}
