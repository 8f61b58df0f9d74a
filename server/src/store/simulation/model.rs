//! What must be there: every profile that was sent, and what became of it as far as whoever sent it can know.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::super::StoreError;
use super::super::source::{Chunk, NO_SPAN, Source, SpanLookup};
use crate::model::{Profile, ProfileId, SpanRef, Symbols, TenantId, TimeRange};

/// What became of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its append was refused: it is not seen until the next start.
    Refused,
    /// Its append was refused or never answered, and there was a start since: it may be there.
    Unknown,
    /// It was acknowledged.
    Kept,
    /// It expired or was deleted, or a start did not find it although it was never acknowledged.
    Gone,
}

#[derive(Debug)]
pub(super) struct Sent {
    pub(super) tenant: TenantId,
    pub(super) append: u64,
    /// The data directory that took it.
    pub(super) home: u64,
    /// Every server has it.
    pub(super) published: bool,
    pub(super) profile: Profile,
    pub(super) fate: Fate,
    /// Something was begun that lets it go, and it is not known whether that was done.
    pub(super) going: bool,
    /// Bytes were flipped in a file that holds it.
    pub(super) at_risk: bool,
}

impl Sent {
    pub(super) fn range(&self) -> TimeRange {
        self.profile.interval()
    }

    /// Whether the server with this data directory must have it.
    fn must_be_there(&self, home: u64) -> bool {
        let here = self.published || self.home == home;
        here && self.fate == Fate::Kept && !self.going && !self.at_risk
    }

    fn may_be_there(&self) -> bool {
        matches!(self.fate, Fate::Kept | Fate::Unknown)
    }

    /// The sum of its first column over samples that a look-up finds.
    fn sum(&self, lookup: SpanLookup) -> Option<i64> {
        let Profile { spans, row_spans, .. } = &self.profile;
        let rows = row_spans.iter().zip(self.profile.column(0));
        let found = rows.filter(|(span, _)| lookup.finds(&spans[**span as usize]));
        found.map(|(_, value)| *value).reduce(|a, b| a + b)
    }
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) sent: Vec<Sent>,
    by_id: HashMap<ProfileId, usize>,
    appends: u64,
}

/// How often each profile was seen, by its number.
pub(super) type Seen = BTreeMap<usize, u32>;

impl Model {
    /// Takes note of an append that is about to be tried.
    pub(super) fn add(
        &mut self,
        tenant: &TenantId,
        profiles: &[Profile],
        home: u64,
    ) -> std::ops::Range<usize> {
        let first = self.sent.len();
        self.appends += 1;
        for profile in profiles {
            self.by_id.insert(profile.id, self.sent.len());
            self.sent.push(Sent {
                tenant: tenant.clone(),
                append: self.appends,
                home,
                published: false,
                profile: profile.clone(),
                fate: Fate::Unknown,
                going: false,
                at_risk: false,
            });
        }
        first..self.sent.len()
    }

    /// The number of the profile that has this id.
    ///
    /// # Panics
    /// When nobody ever sent it.
    pub(super) fn number(&self, chunk: &Chunk) -> usize {
        *self.by_id.get(&chunk.id).unwrap_or_else(|| panic!("profile {} was never sent", chunk.id))
    }

    /// All profiles that these sources of a tenant have in this time, checked against what was sent.
    pub(super) fn read(
        &self,
        tenant: &TenantId,
        sources: &[Arc<dyn Source>],
        range: Option<TimeRange>,
        deep: bool,
    ) -> Result<Seen, StoreError> {
        let mut seen = Seen::new();
        for source in sources {
            let series = source.series(None)?;
            let numbers: Vec<u32> = series.iter().map(|series| series.id).collect();
            for chunk in source.chunks(&numbers, range)? {
                let number = self.number(&chunk);
                let Sent { tenant: of, profile, .. } = &self.sent[number];
                assert_eq!(of, tenant, "profile {number} is another tenant's");
                assert_eq!(series[chunk.series as usize].labels, profile.labels, "profile {number}");
                let times = (chunk.start_nanos, chunk.duration_nanos, chunk.period);
                assert_eq!(times, (profile.start_nanos, profile.duration_nanos, profile.period));
                let totals: Vec<i64> =
                    (0..profile.types.len()).map(|at| profile.column(at).iter().sum()).collect();
                assert_eq!(*chunk.totals, *totals, "profile {number}");
                if deep {
                    assert_eq!(
                        rows_of_chunk(&**source, &chunk)?,
                        rows_of_profile(profile),
                        "profile {number}"
                    );
                }
                *seen.entry(number).or_default() += 1;
            }
        }
        Ok(seen)
    }

    /// Checks what was seen of a tenant in a time against what must be and may be there on the server with this data
    /// directory.
    pub(super) fn check(&self, tenant: &TenantId, seen: &Seen, range: Option<TimeRange>, home: u64) {
        for (number, times) in seen {
            let sent = &self.sent[*number];
            assert_eq!(*times, 1, "profile {number} is there more than once: {:?}", sent.fate);
            assert!(sent.may_be_there(), "profile {number} must not be there: {:?}", sent.fate);
        }
        let within = |sent: &Sent| range.is_none_or(|range| range.overlaps(&sent.range()));
        for (number, sent) in self.sent.iter().enumerate() {
            if sent.tenant == *tenant && within(sent) && sent.must_be_there(home) {
                assert!(seen.contains_key(&number), "profile {number} was acknowledged and is lost");
            }
        }
    }

    /// Takes note of what was seen of a tenant in segments: there every server finds it from now on.
    pub(super) fn publish(&mut self, seen: &Seen) {
        for number in seen.keys() {
            let sent = &mut self.sent[*number];
            sent.published = true;
            if sent.fate == Fate::Unknown {
                sent.fate = Fate::Kept;
            }
        }
    }

    /// Takes note of what somebody who knows all that was published did not see of a tenant: it does not come back.
    pub(super) fn miss(&mut self, tenant: &TenantId, seen: &Seen) {
        for (number, sent) in self.sent.iter_mut().enumerate() {
            if sent.tenant == *tenant && sent.published && sent.going && !seen.contains_key(&number) {
                sent.fate = Fate::Gone;
            }
        }
    }

    /// Checks that an append is there whole or not at all, as far as nothing lets go of parts of it.
    pub(super) fn check_whole(&self, tenant: &TenantId, seen: &Seen) {
        for (number, pair) in self.sent.windows(2).enumerate() {
            let [a, b] = pair else { continue };
            let parted = |sent: &Sent| sent.going || sent.at_risk || sent.fate == Fate::Gone;
            if a.append == b.append && a.tenant == *tenant && !parted(a) && !parted(b) {
                let there = [number, number + 1].map(|number| seen.contains_key(&number));
                assert_eq!(
                    there[0], there[1],
                    "of the append of profile {number} some is there and some is not"
                );
            }
        }
    }

    /// Looks something up in these sources of a tenant and compares what is found.
    pub(super) fn look_up(
        &self,
        tenant: &TenantId,
        sources: &[Arc<dyn Source>],
        lookup: SpanLookup,
        home: u64,
    ) -> Result<(), StoreError> {
        let mut found: BTreeMap<usize, i64> = BTreeMap::new();
        for source in sources {
            let mut entries = Vec::new();
            source.spans(lookup, &mut |entry| entries.push(entry.id))?;
            for run in source.runs(&entries)? {
                let number = self.number(&run.chunk);
                let values = &run.chunk.column(0)[run.chunk.rows(run.run)];
                *found.entry(number).or_default() += values.iter().sum::<i64>();
            }
        }
        for (number, sum) in &found {
            let sent = &self.sent[*number];
            assert!(sent.tenant == *tenant && sent.may_be_there(), "{lookup:?} found profile {number}");
            assert_eq!(sent.sum(lookup), Some(*sum), "{lookup:?} in profile {number}");
        }
        for (number, sent) in self.sent.iter().enumerate() {
            if sent.tenant == *tenant && sent.must_be_there(home) && sent.sum(lookup).is_some() {
                assert!(found.contains_key(&number), "{lookup:?} does not find profile {number}");
            }
        }
        Ok(())
    }

    /// Profiles of a tenant that the server with this data directory must have.
    pub(super) fn certain(&self, tenant: &TenantId, home: u64) -> BTreeSet<usize> {
        let of = |(_, sent): &(usize, &Sent)| sent.tenant == *tenant && sent.must_be_there(home);
        self.sent.iter().enumerate().filter(of).map(|(number, _)| number).collect()
    }

    /// What a start makes certain: what it did not find is not there, and what was begun before was done or was not. An
    /// append is there whole or not at all. If the disk failed it meanwhile, what was refused may be found later still.
    pub(super) fn started(&mut self, seen: &Seen, disk_failed: bool) {
        let mut appends: BTreeMap<u64, BTreeSet<bool>> = BTreeMap::new();
        for (number, sent) in self.sent.iter_mut().enumerate() {
            let there = seen.contains_key(&number);
            if matches!(sent.fate, Fate::Refused | Fate::Unknown) && !sent.at_risk && !sent.going {
                appends.entry(sent.append).or_default().insert(there);
            }
            match sent.fate {
                Fate::Refused if there => sent.fate = Fate::Unknown,
                Fate::Refused | Fate::Unknown if !there && !sent.at_risk => {
                    sent.fate = if disk_failed { Fate::Unknown } else { Fate::Gone };
                }
                Fate::Kept if sent.going && !there && !sent.at_risk => sent.fate = Fate::Gone,
                _ => {}
            }
            // One that cannot be read may have gone or not.
            sent.going &= sent.at_risk && !there;
        }
        let torn = appends.iter().find(|(_, there)| there.len() > 1);
        assert!(torn.is_none(), "some profiles of an append are there and some are not: {torn:?}");
    }

    /// Something that lets go of profiles was done for certain.
    pub(super) fn let_go(&mut self, seen: &Seen) {
        for (number, sent) in self.sent.iter_mut().enumerate().filter(|(_, sent)| sent.going) {
            let there = seen.contains_key(&number);
            // What was refused is not seen, but its bytes may be in the log.
            if !there && !sent.at_risk && sent.fate != Fate::Refused {
                sent.fate = Fate::Gone;
            }
            sent.going &= sent.at_risk && !there;
        }
    }
}

fn rows_of_profile(profile: &Profile) -> Vec<String> {
    let rows = 0..profile.rows();
    let row = |row: usize| {
        let span = &profile.spans[profile.row_spans[row] as usize];
        let symbols = &profile.symbols;
        let values: Vec<i64> = (0..profile.types.len()).map(|at| profile.column(at)[row]).collect();
        let stack = frames(symbols, symbols.stack(profile.row_stacks[row]));
        let names = [symbols.string(span.name), symbols.string(span.local_root_name)];
        in_words(span, names, &stack, &values)
    };
    let mut rows: Vec<String> = rows.map(row).collect();
    rows.sort_unstable();
    rows
}

fn rows_of_chunk(source: &dyn Source, chunk: &Chunk) -> Result<Vec<String>, StoreError> {
    let mut stacks = vec![String::new(); chunk.stacks.len()];
    source.stacks(&chunk.stacks, &mut |row, symbols, stack| stacks[row] = frames(symbols, stack))?;
    let mut rows = Vec::new();
    for (run, of) in chunk.runs.iter().enumerate() {
        let entry = if of.entry == NO_SPAN { None } else { source.entries(&[of.entry])?.pop() };
        let span = entry.map(|entry| entry.span).unwrap_or_default();
        let names = [source.string(span.name)?, source.string(span.local_root_name)?];
        for row in chunk.rows(run) {
            let values: Vec<i64> = (0..chunk.totals.len()).map(|at| chunk.column(at)[row]).collect();
            rows.push(in_words(&span, names.each_ref().map(String::as_str), &stacks[row], &values));
        }
    }
    rows.sort_unstable();
    Ok(rows)
}

fn frames(symbols: &Symbols, stack: &[u32]) -> String {
    let lines = stack.iter().flat_map(|location| symbols.lines(symbols.location(*location)));
    lines.map(|line| symbols.string(symbols.function_name(line.function))).collect::<Vec<_>>().join(";")
}

fn in_words(span: &SpanRef, names: [&str; 2], stack: &str, values: &[i64]) -> String {
    let SpanRef { span_id, trace_id, parent, local_root, .. } = span;
    format!("{span_id:?} {trace_id:?} {parent:?} {local_root:?} {names:?} {stack} {values:?}")
}
