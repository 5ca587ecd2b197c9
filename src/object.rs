//! Structs that are read from a JSON object and nothing else. serde's own reading takes an array of the fields as well, in the
//! order in which our code happens to have them: that would make the order a part of the API.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

/// Reads a `T` from an object.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        required(from).map(Self)
    }
}

/// For a field that is an object.
pub fn required<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    from.deserialize_map(Fields(PhantomData))
}

/// For a field that is an object, or not there.
pub fn optional<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(from)?.map(|object| object.0))
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(default, deserialize_with = "optional")]
        inner: Option<Inner>,
        last: Option<u8>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        one: u8,
    }

    fn read(text: &str) -> Result<Outer, serde_json::Error> {
        serde_json::from_str::<Object<Outer>>(text).map(|object| object.0)
    }

    #[test]
    fn an_object_is_read_and_an_array_of_its_fields_is_not() {
        let whole = Outer { inner: Some(Inner { one: 1 }), last: Some(2) };
        assert_eq!(read(r#"{"last":2,"inner":{"one":1}}"#).unwrap(), whole);
        assert_eq!(read(r#"{"inner":null}"#).unwrap(), Outer { inner: None, last: None });
        for array in [r#"[{"one":1},2]"#, r#"{"inner":[1]}"#, "[]", "null"] {
            assert!(read(array).unwrap_err().to_string().starts_with("invalid type"), "{array}");
        }
        assert!(read(r#"{"other":1}"#).unwrap_err().to_string().starts_with("unknown field"));
    }
}
