//! JSON with arrays where objects belong. Derived readers take an array for the message's fields in their order,
//! which is no form of a message: whoever sends it means something else.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Fields of messages that are sent to the server which hold one message, and not many of them.
const SINGLE: &[&str] = &[
    "arrayValue",
    "dictionary",
    "frameFilter",
    "goPgo",
    "kvlistValue",
    "left",
    "periodType",
    "resource",
    "right",
    "sampleType",
    "scope",
    "setting",
    "stackTraceSelector",
    "value",
];

/// Whether each message is an object. What is no JSON at all is for its reader to refuse.
///
/// # Errors
/// With the field that is an array instead.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'[') {
        return Err(refusal(""));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    match Place::Field("").deserialize(&mut json) {
        Err(error) if error.is_data() => {
            let text = error.to_string();
            // The reader adds where it stopped, after what is said here.
            let end = text.find(" at line ").unwrap_or(text.len());
            Err(text[..end].to_owned())
        }
        _ => Ok(()),
    }
}

fn refusal(field: &str) -> String {
    let colon = if field.is_empty() { "" } else { ": " };
    format!("{field}{colon}expected a JSON object, got an array")
}

/// A struct that is read from an object, and from nothing else.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Where a value stands.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// It is that of a field.
    Field(&'a str),
    /// It is one of several of a field, which may be messages but no lists.
    Element(&'a str),
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            map.next_value_seed(Place::Field(&name))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let (Self::Field(name) | Self::Element(name)) = self;
        if matches!(self, Self::Element(_)) || is_single(name) {
            return Err(A::Error::custom(refusal(name)));
        }
        while list.next_element_seed(Place::Element(name))?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

/// Whether a field, spelled in either of the two ways of protobuf's JSON, holds one message.
fn is_single(name: &str) -> bool {
    let plain = |name: &str| -> String { name.chars().filter(|c| *c != '_').collect() };
    let name = plain(name);
    SINGLE.iter().any(|single| single.eq_ignore_ascii_case(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_objects_at_every_depth() {
        for good in [
            "{}",
            r#"{"a":[1,"x",null,true,{"b":[{}]}],"left":{"matchers":["{}"]}}"#,
            r#"{"a":[1"#,
            "nonsense",
            "7",
            "",
        ] {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
        }
        for (bad, field) in [
            (" [1]", ""),
            (r#"{"left":[1],"right":{}}"#, "left: "),
            (r#"{"stackTraceSelector":[[]]}"#, "stackTraceSelector: "),
            (r#"{"stack_trace_selector":[]}"#, "stack_trace_selector: "),
            (r#"{"series":[[[],[]]]}"#, "series: "),
            (r#"{"series":[{"labels":[["a","b"]]}]}"#, "labels: "),
            (r#"{"attributes":[{"key":"a","value":["b"]}]}"#, "value: "),
        ] {
            assert_eq!(
                check(bad.as_bytes()),
                Err(format!("{field}expected a JSON object, got an array")),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_struct_of_ours_is_no_array() {
        #[derive(Deserialize, Debug)]
        struct Pair<'a> {
            a: &'a str,
            b: u8,
        }

        let read = |json| serde_json::from_str::<Vec<Object<Pair<'_>>>>(json);
        let Object(Pair { a, b }) = &read(r#"[{"a":"x","b":1}]"#).expect("an object")[0];
        assert_eq!((*a, *b), ("x", 1));
        let error = read(r#"[["x",1]]"#).err().expect("an array").to_string();
        assert!(error.starts_with("invalid type: sequence, expected a JSON object"), "{error}");
    }
}
