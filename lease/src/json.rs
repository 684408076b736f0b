//! JSON objects read as Go's `encoding/json` reads them, because flanneld does: keys match without regard to case, unknown
//! keys are passed over, the last of several wins, and a null counts as absent.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A string, borrowed from the document wherever it has no escapes in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(TextVisitor)
    }
}

/// Declares a struct that mirrors a JSON object: every field optional, each with its key's canonical spelling.
/// What borrows from the document does so for `'a`.
macro_rules! object {
    ($(#[$meta:meta])* $name:ident $(<$borrow:lifetime>)? { $($key:literal => $field:ident: $type:ty,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub(crate) struct $name $(<$borrow>)? { $(pub(crate) $field: Option<$type>,)+ }

        impl<'a> serde::Deserialize<'a> for $name $(<$borrow>)? {
            fn deserialize<D: serde::Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
                struct Fields;
                impl<'a> serde::de::Visitor<'a> for Fields {
                    type Value = $name $(<$borrow>)?;
                    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        out.write_str("an object")
                    }
                    fn visit_map<M: serde::de::MapAccess<'a>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                        let mut read = Self::Value::default();
                        while let Some($crate::json::Text(key)) = map.next_key()? {
                            $(if key.eq_ignore_ascii_case($key) {
                                let value = map.next_value::<Option<$type>>();
                                let value = value.map_err(|error| serde::de::Error::custom(format_args!("{}: {error}", $key)))?;
                                if value.is_some() {
                                    read.$field = value;
                                }
                                continue;
                            })+
                            map.next_value::<serde::de::IgnoredAny>()?;
                        }
                        Ok(read)
                    }
                }
                from.deserialize_map(Fields)
            }
        }
    };
}
pub(crate) use object;

#[cfg(test)]
mod tests {
    use super::*;

    object! {
        Sample<'a> {
            "Name" => name: Text<'a>,
            "Size" => size: u8,
        }
    }

    #[test]
    fn keys_match_in_any_case_unknown_ones_are_passed_over_and_the_last_wins() {
        let read: Sample<'_> = serde_json::from_str(r#"{"NAME":"a","other":{"Size":[1]},"name":"b","Name":null,"\u0053ize":7}"#).unwrap();
        assert_eq!((read.name.unwrap().0.as_ref(), read.size), ("b", Some(7)));
    }

    #[test]
    fn a_wrong_type_is_named_with_its_key_and_place() {
        let error = serde_json::from_str::<Sample<'_>>("{\"size\":\"7\"}").unwrap_err().to_string();
        assert!(error.starts_with("Size: invalid type: string \"7\"") && error.contains("line 1 column"), "{error}");
    }
}
