//! OpenTelemetry profiles (`v1development`): a message of profiles that share one dictionary. Its spans are in `spans`.
//!
//! Each profile is judged by itself: one that refers to what the dictionary does not have costs none of its neighbours.
//! Left out, since nothing here asks for them: the original payload, units of attributes, attributes of profiles and
//! locations, timestamps of single observations.

mod dictionary;
mod ids;
mod json;
mod spans;

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use buffa::{DecodeError, DecodeOptions};
use foldhash::fast::RandomState;
use spanflame_wire::opentelemetry::proto::collector::profiles::v1development::__buffa::view::ExportProfilesServiceRequestView;
use spanflame_wire::opentelemetry::proto::common::v1::__buffa::view::KeyValueView;
use spanflame_wire::opentelemetry::proto::profiles::v1development::__buffa::view::{
    LocationView, MappingView, ProfileView, ProfilesDictionaryView, SampleView,
};

pub use self::json::{spans_to_protobuf, to_protobuf};
pub use self::spans::{Dropped, ExportedSpans, MAX_SPAN_BYTES, SpanBatch, decode_spans, span_weight};

use self::dictionary::{Attribute, Dictionary, Link, entry};
use super::assemble::{Assembler, Binary, Frame, Header, LabelValue, is_of_span, profile_types};
use super::{Budget, IngestError, Limits, SeriesLabels};
use crate::model::{Profile, same_name};

#[cfg(test)]
mod tests;

type Map<K, V> = HashMap<K, V, RandomState>;

/// How long a profile is taken to have lasted that does not tell, in nanoseconds.
const DEFAULT_DURATION_NANOS: i64 = 10_000_000_000;
/// Attributes that tell a mapping's build id, the best first.
const BUILD_IDS: [&str; 3] = [
    "process.executable.build_id.gnu",
    "process.executable.build_id.go",
    "process.executable.build_id.htlhash",
];

/// One profile of a message.
#[derive(Debug)]
pub struct Exported {
    /// Where it stands, as `resource_profiles[0].scope_profiles[0].profiles[2]`.
    pub place: String,
    /// What it became: a profile for each service and set of labels that its samples have.
    pub profiles: Result<Vec<Profile>, IngestError>,
}

/// Reads an export request in protobuf.
///
/// # Errors
/// When the bytes are no such message, or one that takes more memory than the limits allow. What is wrong with a single
/// profile is told with that profile.
pub fn decode(
    message: &[u8],
    limits: &Limits,
    budget: &mut Budget,
    received_ms: i64,
) -> Result<Vec<Exported>, IngestError> {
    let request = message_in(message, limits)?;
    let empty = ProfilesDictionaryView::default();
    let dictionary = Dictionary(request.dictionary.as_option().unwrap_or(&empty));
    let mut exported = Vec::new();
    let decoder = Decoder { dictionary, limits, received_ms };
    for (of_resource, resource) in request.resource_profiles.iter().enumerate() {
        let own = resource.resource.as_option().map_or(&[][..], |resource| &resource.attributes[..]);
        let attributes = Attributes::default().with("resource", own, &decoder);
        for (of_scope, scope) in resource.scope_profiles.iter().enumerate() {
            let own = scope.scope.as_option().map_or(&[][..], |scope| &scope.attributes[..]);
            let attributes = attributes.clone().and_then(|known| known.with("scope", own, &decoder));
            for (at, profile) in scope.profiles.iter().enumerate() {
                let number = exported.len() + 1;
                let profiles = if number > limits.max_profiles_per_push {
                    Err(IngestError::too_many_profiles(limits, number))
                } else {
                    match &attributes {
                        Ok(attributes) => decoder.profile(profile, attributes, budget),
                        Err(error) => Err(error.clone()),
                    }
                };
                let place =
                    format!("resource_profiles[{of_resource}].scope_profiles[{of_scope}].profiles[{at}]");
                exported.push(Exported { place, profiles });
            }
        }
    }
    Ok(exported)
}

fn message_in<'a>(
    message: &'a [u8],
    limits: &Limits,
) -> Result<ExportProfilesServiceRequestView<'a>, IngestError> {
    let options = DecodeOptions::new().with_element_memory_limit(limits.max_decoded_bytes);
    options.decode_view(message).map_err(|error| match error {
        DecodeError::ElementMemoryLimitExceeded => {
            // How much it would have been is not known: decoding stopped.
            let max = limits.max_decoded_bytes;
            IngestError::over("body", "max_decoded_bytes", max, max.saturating_add(1))
        }
        error => IngestError::invalid("body", format!("is no export request, or a damaged one: {error}")),
    })
}

/// What is said of all samples of a scope.
#[derive(Debug, Clone, Default)]
struct Attributes<'a> {
    /// Of resource and scope. Names are unique.
    labels: Vec<(&'a str, Cow<'a, str>)>,
    service: Option<Cow<'a, str>>,
    executable: Option<Cow<'a, str>>,
}

impl<'a> Attributes<'a> {
    /// These, and those in this list that they do not have.
    fn with(
        mut self,
        part: &str,
        list: &'a [KeyValueView<'a>],
        decoder: &Decoder<'a>,
    ) -> Result<Self, IngestError> {
        for (at, attribute) in list.iter().enumerate() {
            let field = || format!("{part}.attributes[{at}]");
            let (key, value) = decoder.dictionary.direct_attribute(attribute, field)?;
            let Some(value) = value.map(Attribute::to_text).filter(|value| !value.is_empty()) else {
                continue;
            };
            if same_name(key, "service_name") {
                self.service.get_or_insert(value);
                continue;
            }
            if key == "process.executable.name" {
                self.executable.get_or_insert_with(|| value.clone());
            }
            // Private labels and columns are not a resource's to set.
            let taken = key.is_empty() || key.starts_with("__") || is_of_span(key);
            if taken || self.labels.iter().any(|(name, _)| same_name(name, key)) {
                continue;
            }
            self.labels.push((key, value));
            let (max, got) = (decoder.limits.max_labels_per_series, self.labels.len());
            if got > max {
                return Err(IngestError::over(field(), "max_labels_per_series", max, got));
            }
        }
        Ok(self)
    }

    /// The service of samples that name none.
    fn service(&self) -> Cow<'_, str> {
        match (&self.service, &self.executable) {
            (Some(service), _) => Cow::Borrowed(service),
            (None, Some(executable)) => format!("unknown_service:{executable}").into(),
            (None, None) => "unknown_service".into(),
        }
    }
}

/// What a profile counts.
struct Counted<'a> {
    name: &'a str,
    kind: (&'a str, &'a str),
    period: (&'a str, &'a str),
    /// What a value stands for.
    factor: i64,
}

#[derive(Clone, Copy)]
struct Decoder<'a> {
    dictionary: Dictionary<'a>,
    limits: &'a Limits,
    received_ms: i64,
}

impl<'a> Decoder<'a> {
    fn profile(
        &self,
        profile: &'a ProfileView<'a>,
        attributes: &Attributes<'_>,
        budget: &mut Budget,
    ) -> Result<Vec<Profile>, IngestError> {
        if budget.left() == 0 {
            // Nothing of what follows would be kept.
            budget.take(1)?;
        }
        let counted = self.counted(profile)?;
        let types = profile_types(counted.name, &[counted.kind], counted.period)?;
        let duration_nanos = match profile.duration_nano {
            0 => DEFAULT_DURATION_NANOS,
            nanos => i64::try_from(nanos).unwrap_or(i64::MAX),
        };
        let start_nanos = i64::try_from(profile.time_unix_nano).unwrap_or(i64::MAX);
        let header = Header { start_nanos, duration_nanos, period: profile.period };
        let header = header.check("time_unix_nano", self.limits, self.received_ms)?;
        let own = attributes.labels.iter().map(|(name, value)| (*name, &**value));
        let labels: Vec<(&str, &str)> =
            own.chain([("__name__", counted.name), ("__otel__", "true")]).collect();
        let series = SeriesLabels::new(labels.into_iter(), self.limits)?;

        let mut assembler = Assembler::new(&series, types, header, self.limits);
        let mut stacks = Stacks::new(*self);
        let service = attributes.service();
        let added = profile.samples.iter().enumerate().try_for_each(|(at, sample)| {
            self.sample(at, sample, &service, counted.factor, &mut stacks, &mut assembler)
        });
        let profiles = added.and_then(|()| assembler.finish(budget));
        if profiles.is_err() {
            // What is refused has cost its work too. Whether it was the last that there was room for is told to the next.
            let _ = budget.take(stacks.spent);
        }
        profiles
    }

    fn counted(&self, profile: &'a ProfileView<'a>) -> Result<Counted<'a>, IngestError> {
        let kind = self.dictionary.value_type(profile.sample_type.as_option(), "sample_type")?;
        let period = self.dictionary.value_type(profile.period_type.as_option(), "period_type")?;
        Ok(match (kind, period) {
            // As agents that count CPU time in nanoseconds call it.
            (("samples", "count"), ("cpu", "nanoseconds")) if profile.period > 0 => {
                Counted { name: "process_cpu", kind: period, period, factor: profile.period }
            }
            (kind, ("", _)) => Counted { name: kind.0, kind, period, factor: 1 },
            (kind, period) => Counted { name: period.0, kind, period, factor: 1 },
        })
    }

    fn sample(
        &self,
        at: usize,
        sample: &'a SampleView<'a>,
        of_resource: &str,
        factor: i64,
        stacks: &mut Stacks<'a>,
        assembler: &mut Assembler<'_>,
    ) -> Result<(), IngestError> {
        let (max, got) = (self.limits.max_labels_per_sample, sample.attribute_indices.len());
        if got > max {
            let field = format!("samples[{at}].attribute_indices");
            return Err(IngestError::over(field, "max_labels_per_sample", max, got));
        }
        let value = match sample.values.len() {
            // Each observation counts 1.
            0 => i64::try_from(sample.timestamps_unix_nano.len()).unwrap_or(i64::MAX),
            _ => sample.values.iter().fold(0, |sum: i64, &value| sum.saturating_add(value)),
        };
        let mut service = None;
        let mut labels = Vec::with_capacity(got + 3);
        for (of_sample, &index) in sample.attribute_indices.iter().enumerate() {
            let field = || format!("samples[{at}].attribute_indices[{of_sample}]");
            let (key, value) = self.dictionary.attribute(index, field)?;
            match value {
                Some(Attribute::Text(text)) if same_name(key, "service_name") => {
                    service = service.or(Some(text).filter(|text| !text.is_empty()));
                }
                value => labels.extend(value.and_then(Attribute::to_label).map(|value| (key, value))),
            }
        }
        let (link, stack) = stacks.resolve(at, sample, assembler)?;
        let ids = [("span_id", link.span.as_deref()), ("trace_id", link.trace.as_deref())];
        labels.extend(ids.into_iter().filter_map(|(name, id)| Some((name, LabelValue::Text(id?)))));
        labels.push(("service_name", LabelValue::Text(service.unwrap_or(of_resource))));
        assembler.sample(stack, labels, &[value.saturating_mul(factor)])
    }
}

/// What samples of one profile refer to, as its assembler knows it. Each entry of the tables is looked at once.
struct Stacks<'a> {
    decoder: Decoder<'a>,
    links: Map<i32, Link>,
    /// Where each stack trace is in `locations`.
    known: Map<i32, (usize, usize)>,
    locations: Vec<u32>,
    numbers: Map<i32, Option<u32>>,
    frames: Vec<Frame<'a>>,
    /// Bytes of what was looked at: entries are small, and what they name need not be.
    spent: usize,
}

impl<'a> Stacks<'a> {
    fn new(decoder: Decoder<'a>) -> Self {
        Self {
            decoder,
            links: Map::default(),
            known: Map::default(),
            locations: Vec::new(),
            numbers: Map::default(),
            frames: Vec::new(),
            spent: 0,
        }
    }

    fn spend(&mut self, bytes: usize) -> Result<(), IngestError> {
        self.spent = self.spent.saturating_add(bytes);
        let max = self.decoder.limits.max_decoded_bytes;
        if self.spent > max {
            return Err(IngestError::over("stack traces", "max_decoded_bytes", max, self.spent));
        }
        Ok(())
    }

    /// The link and the stack trace of a sample.
    fn resolve(
        &mut self,
        at: usize,
        sample: &SampleView<'_>,
        assembler: &mut Assembler<'_>,
    ) -> Result<(&Link, &[u32]), IngestError> {
        let dictionary = self.decoder.dictionary;
        let index = sample.stack_index;
        let (start, end) = match self.known.get(&index) {
            Some(&range) => range,
            None => self.stack(at, index, assembler)?,
        };
        let link = match self.links.entry(sample.link_index) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                new.insert(dictionary.link(sample.link_index, || format!("samples[{at}].link_index"))?)
            }
        };
        Ok((link, &self.locations[start..end]))
    }

    fn stack(
        &mut self,
        at: usize,
        index: i32,
        assembler: &mut Assembler<'_>,
    ) -> Result<(usize, usize), IngestError> {
        let dictionary = self.decoder.dictionary;
        let stack =
            entry(&dictionary.0.stack_table, "stack_table", index, || format!("samples[{at}].stack_index"))?;
        let all = stack.map_or(&[][..], |stack| &stack.location_indices[..]);
        // The leaf comes first: what is too deep is cut there.
        let cut = all.len().saturating_sub(self.decoder.limits.max_stack_depth);
        let start = self.locations.len();
        self.spend(size_of_val(&all[cut..]))?;
        for (depth, &location) in all.iter().enumerate().skip(cut) {
            let number = match self.numbers.get(&location) {
                Some(&number) => number,
                None => {
                    let field = || format!("dictionary.stack_table[{index}].location_indices[{depth}]");
                    let table = &dictionary.0.location_table;
                    let number = match entry(table, "location_table", location, field)? {
                        Some(entry) => self.location(location, entry, assembler)?,
                        None => None,
                    };
                    self.numbers.insert(location, number);
                    number
                }
            };
            self.locations.extend(number);
        }
        let range = (start, self.locations.len());
        self.known.insert(index, range);
        Ok(range)
    }

    fn location(
        &mut self,
        index: i32,
        location: &LocationView<'_>,
        assembler: &mut Assembler<'_>,
    ) -> Result<Option<u32>, IngestError> {
        let Dictionary(tables) = self.decoder.dictionary;
        let mapping = entry(&tables.mapping_table, "mapping_table", location.mapping_index, || {
            format!("dictionary.location_table[{index}].mapping_index")
        })?;
        let binary = match mapping {
            Some(mapping) => self.binary(location.mapping_index, mapping)?,
            None => Binary::default(),
        };
        let mut frames = std::mem::take(&mut self.frames);
        frames.clear();
        for (at, line) in location.lines.iter().enumerate() {
            let field = || format!("dictionary.location_table[{index}].lines[{at}].function_index");
            let of = line.function_index;
            let Some(function) = entry(&tables.function_table, "function_table", of, field)? else {
                continue;
            };
            let string = |string: i32, part: &str| {
                self.decoder.dictionary.string(string, || format!("dictionary.function_table[{of}].{part}"))
            };
            let frame = Frame {
                name: string(function.name_strindex, "name_strindex")?,
                system_name: string(function.system_name_strindex, "system_name_strindex")?,
                filename: string(function.filename_strindex, "filename_strindex")?,
                start_line: u32::try_from(function.start_line).unwrap_or(0),
                line: u32::try_from(line.line).unwrap_or(0),
            };
            self.spend(
                size_of::<Frame<'_>>() + frame.name.len() + frame.system_name.len() + frame.filename.len(),
            )?;
            if !frame.name.is_empty() || !frame.system_name.is_empty() {
                frames.push(frame);
            }
        }
        let number = assembler.location(&binary, location.address, &frames);
        self.frames = frames;
        Ok(number)
    }

    fn binary(&mut self, index: i32, mapping: &MappingView<'_>) -> Result<Binary<'a>, IngestError> {
        let dictionary = self.decoder.dictionary;
        let field = |part: &str| format!("dictionary.mapping_table[{index}].{part}");
        let filename = dictionary.string(mapping.filename_strindex, || field("filename_strindex"))?;
        let mut best = (BUILD_IDS.len(), "");
        for (at, &attribute) in mapping.attribute_indices.iter().enumerate() {
            self.spend(size_of_val(&attribute))?;
            let attribute = dictionary.attribute(attribute, || field(&format!("attribute_indices[{at}]")))?;
            let (key, Some(Attribute::Text(build_id))) = attribute else { continue };
            if let Some(rank) = BUILD_IDS.iter().position(|name| *name == key).filter(|rank| *rank < best.0) {
                best = (rank, build_id);
            }
        }
        self.spend(filename.len() + best.1.len())?;
        Ok(Binary {
            start: mapping.memory_start,
            limit: mapping.memory_limit,
            offset: mapping.file_offset,
            filename,
            build_id: best.1,
        })
    }
}
