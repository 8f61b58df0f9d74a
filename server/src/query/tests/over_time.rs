//! Series and heatmaps.

use super::*;

/// Profiles of 10 s: pod a with spans 1 and 2, later span 1 again; pod b without spans.
fn spans_over_time() -> Fixture {
    let span = |n: u64, name: &str, count: i64, builder: PprofBuilder| {
        let labels = [("span_id", &*hex(n)), ("trace_id", TRACE), ("span_name", name)];
        builder.sample(&["main", "work"], count, &labels).sample(&["main", "wait"], 1, &labels)
    };
    let first = span(1, "GET /", 4, span(2, "POST /", 9, PprofBuilder::new())).at(START_MS + 1_000, 10_000);
    let second = span(1, "GET /", 20, PprofBuilder::new()).at(START_MS + 5_000, 10_000);
    let third = span(1, "GET /", 2, PprofBuilder::new()).at(START_MS + 20_000, 10_000);
    let other = PprofBuilder::new().sample(&["main"], 30, &[]).at(START_MS + 2_000, 10_000);
    Fixture::of(&[
        (&first, &[("pod", "a")]),
        (&second, &[("pod", "a")]),
        (&third, &[("pod", "a")]),
        (&other, &[("pod", "b")]),
    ])
}

struct Asked {
    kind: ProfileType,
    selector: LabelSelector,
    stacks: StackFilter,
    group_by: Vec<String>,
}

impl Asked {
    fn new(selector: &str, group_by: &[&str]) -> Self {
        Self {
            kind: cpu(),
            selector: LabelSelector::parse(selector).unwrap(),
            stacks: StackFilter::default(),
            group_by: group_by.iter().map(|name| name.to_string()).collect(),
        }
    }

    fn query(&self) -> TimeQuery<'_> {
        TimeQuery {
            kind: &self.kind,
            selector: &self.selector,
            stacks: &self.stacks,
            range: around(0, 60_000).unwrap(),
            step_ms: 15_000,
            group_by: &self.group_by,
            limit: 0,
        }
    }
}

fn points(series: &TimeSeries) -> Vec<(i64, f64)> {
    series.points.iter().map(|point| ((point.at_ms - START_MS) / 1000, point.value / MS as f64)).collect()
}

#[test]
fn averages_are_means_of_profiles() {
    let fixture = spans_over_time();
    let asked = Asked::new("{}", &["pod"]);
    let series = fixture.engine.select_series(&asked.query(), Aggregation::Average, None).unwrap();
    assert_eq!(points(&series[0]), [(15, 18.0), (30, 3.0)], "15 and 21 are 18 on average");
    assert_eq!(points(&series[1]), [(15, 30.0)]);
    let all = Asked::new("{}", &[]);
    let all = fixture.engine.select_series(&all.query(), Aggregation::Average, None).unwrap();
    assert_eq!(points(&all[0]), [(15, 22.0), (30, 3.0)]);
}

#[test]
fn stack_traces_narrow_series() {
    let fixture = spans_over_time();
    let mut asked = Asked::new("{}", &[]);
    asked.stacks.include = vec!["wait".to_owned()];
    let series = fixture.engine.select_series(&asked.query(), Aggregation::Sum, None).unwrap();
    assert_eq!(points(&series[0]), [(15, 3.0), (30, 1.0)]);
    asked.stacks =
        StackFilter { call_site: vec!["main".to_owned(), "work".to_owned()], ..StackFilter::default() };
    let series = fixture.engine.select_series(&asked.query(), Aggregation::Sum, None).unwrap();
    assert_eq!(points(&series[0]), [(15, 33.0), (30, 2.0)]);
    asked.stacks.call_site = vec!["nowhere".to_owned()];
    assert!(fixture.engine.select_series(&asked.query(), Aggregation::Sum, None).unwrap().is_empty());
}

#[test]
fn the_largest_profile_of_a_step_is_its_exemplar() {
    let fixture = spans_over_time();
    let asked = Asked::new("{}", &["pod"]);
    let series =
        fixture.engine.select_series(&asked.query(), Aggregation::Sum, Some(Grain::Profile)).unwrap();
    let exemplar = series[0].points[0].exemplar.clone().unwrap();
    assert_eq!((exemplar.value, exemplar.at_ms), (21 * MS, START_MS + 5_000));
    assert_eq!((exemplar.span_id, exemplar.trace_id), (None, None));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(exemplar.labels, [pair("service_name", "checkout")], "labels that the series does not tell");
    let found = Selection { profiles: exemplar.profile_id.into_iter().collect(), ..Selection::of(cpu()) };
    assert_eq!(fixture.merged(&found).total(), 21 * MS, "the exemplar leads to its profile");
    let without = fixture.engine.select_series(&asked.query(), Aggregation::Sum, None).unwrap();
    assert!(without[0].points.iter().all(|point| point.exemplar.is_none()));
}

#[test]
fn the_largest_span_of_a_step_is_its_exemplar() {
    let fixture = spans_over_time();
    let asked = Asked::new("{}", &["pod"]);
    let series = fixture.engine.select_series(&asked.query(), Aggregation::Sum, Some(Grain::Span)).unwrap();
    assert_eq!(points(&series[0]), [(15, 36.0), (30, 3.0)], "sums are of all samples");
    let exemplar = series[0].points[0].exemplar.clone().unwrap();
    // Five in the first profile and 21 in the second.
    assert_eq!((exemplar.value, exemplar.span_id, exemplar.profile_id), (26 * MS, Some(id(1)), None));
    assert_eq!(exemplar.trace_id.unwrap().to_string(), TRACE);
    assert_eq!(exemplar.at_ms, START_MS + 1_000);
    assert!(exemplar.labels.contains(&("span_name".to_owned(), "GET /".to_owned())));
    assert_eq!(series[1].points[0].exemplar, None, "samples without a span stand for none");
}

#[test]
fn a_heatmap_counts_profiles_by_size() {
    let fixture = spans_over_time();
    let asked = Asked::new("{}", &[]);
    let heatmaps = fixture.engine.heatmap(&asked.query(), Grain::Profile, true).unwrap();
    let [heatmap] = &heatmaps[..] else { panic!("one group") };
    // 15, 21 and 30 in one step, 3 in another: 20 ranges from 3 to 30.
    let [first, second] = &heatmap.slots[..] else { panic!("two slots") };
    assert_eq!((first.starts.len(), first.starts[0]), (20, (3 * MS) as f64));
    assert_eq!(first.starts, second.starts);
    let filled = |slot: &HeatmapSlot| -> Vec<(usize, u32)> {
        slot.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect()
    };
    assert_eq!((filled(first), filled(second)), (vec![(8, 1), (13, 1), (19, 1)], vec![(0, 1)]));
    let values: Vec<i64> = first.exemplars.iter().map(|exemplar| exemplar.value / MS).collect();
    assert_eq!(values, [15, 21, 30]);
    assert!(first.exemplars.iter().all(|exemplar| exemplar.profile_id.is_some()));
    let grouped = Asked::new("{}", &["pod"]);
    let limited = TimeQuery { limit: 1, ..grouped.query() };
    let heatmaps = fixture.engine.heatmap(&limited, Grain::Profile, false).unwrap();
    assert_eq!(heatmaps.len(), 1);
    assert_eq!(heatmaps[0].labels, [("pod".to_owned(), "a".to_owned())]);
    assert!(heatmaps[0].slots.iter().all(|slot| slot.exemplars.is_empty()));
    assert_eq!(heatmaps[0].slots[0].starts.last(), Some(&((3 * MS) as f64 + 19.0 * (18 * MS) as f64 / 20.0)));
}

#[test]
fn a_heatmap_of_spans_adds_up_each_span() {
    let fixture = spans_over_time();
    let asked = Asked::new("{}", &[]);
    let heatmaps = fixture.engine.heatmap(&asked.query(), Grain::Span, true).unwrap();
    let slots = &heatmaps[0].slots;
    let values = |slot: &HeatmapSlot| -> Vec<(i64, Option<SpanId>)> {
        slot.exemplars.iter().map(|exemplar| (exemplar.value / MS, exemplar.span_id)).collect()
    };
    assert_eq!(values(&slots[0]), [(10, Some(id(2))), (26, Some(id(1)))]);
    assert_eq!(values(&slots[1]), [(3, Some(id(1)))]);
    assert_eq!(slots[0].counts.iter().sum::<u32>(), 2, "samples without a span are no span");
    let by_name = Asked::new(r#"{span_name="GET /"}"#, &["span_name"]);
    let heatmaps = fixture.engine.heatmap(&by_name.query(), Grain::Span, false).unwrap();
    assert_eq!(heatmaps.len(), 1);
    assert_eq!(heatmaps[0].labels, [("span_name".to_owned(), "GET /".to_owned())]);
    let nothing = Asked::new(r#"{pod="c"}"#, &[]);
    assert_eq!(fixture.engine.heatmap(&nothing.query(), Grain::Span, true).unwrap(), []);
}

#[test]
fn points_must_be_apart() {
    let fixture = Fixture::new();
    let asked = Asked::new("{}", &[]);
    let query = TimeQuery { step_ms: 0, ..asked.query() };
    assert!(fixture.engine.heatmap(&query, Grain::Profile, false).is_err());
}

#[test]
fn what_a_question_may_hold_at_a_time_is_bounded() {
    let named = |count: u64| {
        let labels = [("span_id", &*hex(1)), ("span_name", "GET /0")];
        let mut builder = PprofBuilder::new().sample(&["f"], 2, &labels);
        let pprof = &mut builder.pprof;
        for at in 1..count {
            let mut sample = pprof.sample[0].clone();
            sample.value = vec![1, MS];
            for (label, text) in sample.label.iter_mut().zip([hex(at + 1), format!("GET /{at}")]) {
                label.str = pprof.string_table.len() as i64;
                pprof.string_table.push(text);
            }
            pprof.sample.push(sample);
        }
        Fixture::of(&[(&builder, &[])])
    };
    let asked = Asked::new("{}", &["span_name"]);
    let refusal = |error: QueryError| error.to_string();
    // Ranges of values that are told though they are empty make an answer large, if not its making.
    let many = named(25_001);
    let heatmap = |limit| many.engine.heatmap(&TimeQuery { limit, ..asked.query() }, Grain::Span, true);
    let error = refusal(heatmap(0).unwrap_err());
    assert!(error.contains("500000 points") && error.contains("a longer step"), "{error}");
    let largest = heatmap(2).unwrap();
    assert_eq!((largest.len(), largest[0].labels[0].1.as_str()), (2, "GET /0"));
    assert_eq!(many.engine.select_series(&asked.query(), Aggregation::Sum, None).unwrap().len(), 25_001);
    let too_many = named(50_001);
    let limited = TimeQuery { limit: 1, ..asked.query() };
    let error = refusal(too_many.engine.select_series(&limited, Aggregation::Sum, None).unwrap_err());
    assert!(error.contains("50000 groups") && error.contains("labels of fewer values"), "{error}");
    assert!(too_many.engine.heatmap(&limited, Grain::Profile, false).is_err());
}

#[test]
fn what_began_before_the_first_point_and_reaches_into_the_range_is_at_that_point() {
    let profile = PprofBuilder::new().sample(&["main"], 3, &[]).at(START_MS, 10_000);
    let fixture = Fixture::of(&[(&profile, &[("pod", "a")])]);
    let asked = Asked::new("{}", &[]);
    let range = |from, until| around(from, until).unwrap();
    for (from, until, expected) in
        [(9_000, 12_000, vec![(9, 3.0)]), (0, 3_000, vec![(0, 3.0)]), (11_000, 15_000, vec![])]
    {
        let query = TimeQuery { range: range(from, until), step_ms: 1_000, ..asked.query() };
        let merged = fixture.engine.select_series(&query, Aggregation::Sum, None).unwrap();
        let found: Vec<_> = merged.iter().flat_map(points).collect();
        assert_eq!(found, expected, "{from} to {until}");
    }
}
