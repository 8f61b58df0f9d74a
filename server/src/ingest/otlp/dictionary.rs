//! The tables that all profiles of a message share, reached by checked index only.

use std::borrow::Cow;

use spanflame_wire::opentelemetry::proto::common::v1::__buffa::view::oneof::any_value::Value;
use spanflame_wire::opentelemetry::proto::common::v1::__buffa::view::{AnyValueView, KeyValueView};
use spanflame_wire::opentelemetry::proto::profiles::v1development::__buffa::view::{
    KeyValueAndUnitView, ProfilesDictionaryView, ValueTypeView,
};

use super::ids::id;
use crate::ingest::IngestError;
use crate::ingest::assemble::LabelValue;
use crate::model::{SpanId, TraceId};

/// A span that samples may be linked to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Link {
    /// 16 hexadecimal characters, or none.
    pub(super) span: Option<String>,
    /// 32 hexadecimal characters, or none.
    pub(super) trace: Option<String>,
}

/// The tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dictionary<'a>(pub(super) &'a ProfilesDictionaryView<'a>);

/// The value of an attribute as far as a label can hold it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Attribute<'a> {
    Text(&'a str),
    Integer(i64),
    Double(f64),
}

impl<'a> Attribute<'a> {
    /// As a label of a series.
    pub(super) fn to_text(self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => text.into(),
            Self::Integer(number) => number.to_string().into(),
            Self::Double(number) => number.to_string().into(),
        }
    }

    /// As a label of a sample, where a number that is no id would only tear series apart.
    pub(super) fn to_label(self) -> Option<LabelValue<'a>> {
        match self {
            Self::Text(text) => Some(LabelValue::Text(text)),
            Self::Integer(number) => Some(LabelValue::Number(number)),
            Self::Double(_) => None,
        }
    }
}

/// The entry that an index in this field names; none for 0 in a table that lacks even the entry for "none".
pub(super) fn entry<'t, T>(
    table: &'t [T],
    name: &str,
    index: i32,
    field: impl FnOnce() -> String,
) -> Result<Option<&'t T>, IngestError> {
    let found = usize::try_from(index).ok().and_then(|index| table.get(index));
    if found.is_none() && index != 0 {
        let message = format!("{index} is not in {name}, which has {} entries", table.len());
        return Err(IngestError::invalid(field(), message));
    }
    Ok(found)
}

impl<'a> Dictionary<'a> {
    /// A string; entry 0 is the empty one.
    pub(super) fn string(&self, index: i32, field: impl FnOnce() -> String) -> Result<&'a str, IngestError> {
        Ok(entry(&self.0.string_table, "string_table", index, field)?.copied().unwrap_or_default())
    }

    /// Type and unit of a value; both empty where it is not set.
    pub(super) fn value_type(
        &self,
        value_type: Option<&ValueTypeView<'_>>,
        field: &str,
    ) -> Result<(&'a str, &'a str), IngestError> {
        let Some(value_type) = value_type else { return Ok(("", "")) };
        let kind = self.string(value_type.type_strindex, || format!("{field}.type_strindex"))?;
        let unit = self.string(value_type.unit_strindex, || format!("{field}.unit_strindex"))?;
        Ok((kind, unit))
    }

    /// An attribute's key and value; no value where it is none that a label can hold.
    pub(super) fn attribute(
        &self,
        index: i32,
        field: impl FnOnce() -> String,
    ) -> Result<(&'a str, Option<Attribute<'a>>), IngestError> {
        let Some(attribute) = entry(&self.0.attribute_table, "attribute_table", index, field)? else {
            return Ok(("", None));
        };
        let field = |part: &str| format!("dictionary.attribute_table[{index}].{part}");
        let KeyValueAndUnitView { key_strindex, value, .. } = attribute;
        let key = self.string(*key_strindex, || field("key_strindex"))?;
        Ok((key, self.value(value.as_option(), || field("value"))?))
    }

    /// The same of an attribute that stands outside the tables.
    pub(super) fn direct_attribute(
        &self,
        attribute: &'a KeyValueView<'a>,
        field: impl Fn() -> String,
    ) -> Result<(&'a str, Option<Attribute<'a>>), IngestError> {
        let key = match attribute.key {
            "" => self.string(attribute.key_strindex, || format!("{}.key_strindex", field()))?,
            key => key,
        };
        Ok((key, self.value(attribute.value.as_option(), || format!("{}.value", field()))?))
    }

    fn value(
        &self,
        value: Option<&'a AnyValueView<'a>>,
        field: impl Fn() -> String,
    ) -> Result<Option<Attribute<'a>>, IngestError> {
        let mut value = value.and_then(|value| value.value.as_ref());
        // A list of one says what its element says. Lists in lists are nothing that a label could show.
        if let Some(Value::ArrayValue(list)) = value {
            value = match list.values.first() {
                Some(only) if list.values.len() == 1 => only.value.as_ref(),
                _ => None,
            };
        }
        Ok(Some(match value {
            Some(Value::StringValue(text)) => Attribute::Text(text),
            Some(Value::StringValueStrindex(index)) => {
                Attribute::Text(self.string(*index, || format!("{}.string_value_strindex", field()))?)
            }
            Some(Value::BoolValue(truth)) => Attribute::Text(if *truth { "true" } else { "false" }),
            Some(Value::IntValue(number)) => Attribute::Integer(*number),
            Some(Value::DoubleValue(number)) => Attribute::Double(*number),
            Some(Value::ArrayValue(_) | Value::KvlistValue(_) | Value::BytesValue(_)) | None => {
                return Ok(None);
            }
        }))
    }

    /// A link; entry 0 is none.
    pub(super) fn link(&self, index: i32, field: impl FnOnce() -> String) -> Result<Link, IngestError> {
        let found = entry(&self.0.link_table, "link_table", index, field)?;
        let Some(link) = found.filter(|_| index != 0) else { return Ok(Link::default()) };
        let id = |bytes: &[u8], want: usize, part: &str| {
            id(bytes, want).ok_or_else(|| {
                let message = format!("expected an id of {want} bytes, got {}", bytes.len());
                IngestError::invalid(format!("dictionary.link_table[{index}].{part}"), message)
            })
        };
        let span = SpanId::new(id(link.span_id, 8, "span_id")? as u64);
        let trace = TraceId::new(id(link.trace_id, 16, "trace_id")?);
        Ok(Link { span: span.map(|id| id.to_string()), trace: trace.map(|id| id.to_string()) })
    }
}
