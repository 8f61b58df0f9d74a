use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn aggregator(limits: Limits) -> Aggregator {
    let sets = Box::leak(Box::new(crate::spans::LabelSets::new()));
    Aggregator::new(limits, Editor::new(sets, 10, None))
}

fn span(id: u64) -> SpanLabel {
    SpanLabel { span_id: SpanId(id), local_root: SpanId(id), ..SpanLabel::default() }
}

#[test]
fn a_sample_counts_for_its_span_if_tagged_and_for_the_local_root_if_not() {
    let record = SpanRecord {
        span_id: SpanId(3),
        parent: SpanId(2),
        local_root: SpanId(1),
        trace_id: TraceId(9),
        labels: LabelSetId(30),
        root_labels: LabelSetId(10),
        tagged: true,
    };
    let own = SpanLabel {
        span_id: SpanId(3),
        trace_id: TraceId(9),
        parent: SpanId(2),
        local_root: SpanId(1),
        labels: LabelSetId(30),
        root_labels: LabelSetId(10),
    };
    assert_eq!(SpanLabel::from(&record), own);
    let root = SpanLabel {
        span_id: SpanId(1),
        trace_id: TraceId(9),
        parent: SpanId(0),
        local_root: SpanId(1),
        labels: LabelSetId(30),
        root_labels: LabelSetId(10),
    };
    assert_eq!(SpanLabel::from(&SpanRecord { tagged: false, ..record }), root);
}

#[test]
fn each_bound_refuses_what_is_new_and_still_counts_what_is_known() {
    let mut rows = aggregator(Limits { frames: 100, rows: 2, spans: 100 });
    assert_eq!(rows.add(&[1], None, 1), Added::Whole);
    assert_eq!(rows.add(&[2], None, 1), Added::Whole);
    assert_eq!(rows.add(&[3], None, 1), Added::Nothing);
    assert_eq!(rows.add(&[1], None, 5), Added::Whole);
    assert_eq!(rows.take().samples(), 3);

    let mut frames = aggregator(Limits { frames: 3, rows: 100, spans: 100 });
    assert_eq!(frames.add(&[1, 2], None, 1), Added::Whole);
    assert_eq!(frames.add(&[3, 4], None, 1), Added::Nothing);
    assert_eq!(frames.add(&[5], None, 1), Added::Whole);

    let mut spans = aggregator(Limits { frames: 100, rows: 100, spans: 1 });
    assert_eq!(spans.add(&[1], Some(span(1)), 1), Added::Whole);
    assert_eq!(spans.add(&[1], Some(span(2)), 1), Added::WithoutSpan);
    assert_eq!(spans.add(&[1], None, 1), Added::Whole);
    // A new window has all the room again.
    assert_eq!(spans.take().len(), 2);
    assert_eq!(spans.add(&[1], Some(span(2)), 1), Added::Whole);
    let rows = spans.take();
    assert_eq!(rows.iter().next().expect("one row").span.map(|span| span.label), Some(span(2)));
}

proptest! {
    #[test]
    fn rows_are_the_sums_that_a_plain_map_makes(
        samples in proptest::collection::vec(
            (proptest::collection::vec(0u64..4, 0..4), proptest::option::of(0u64..3), 1u32..5),
            0..200,
        )
    ) {
        let mut aggregator = aggregator(Limits::default());
        let mut model: HashMap<(Vec<u64>, Option<u64>), (u64, u64)> = HashMap::new();
        for (frames, id, weight) in &samples {
            prop_assert_eq!(aggregator.add(frames, id.map(span), *weight), Added::Whole);
            let sum = model.entry((frames.clone(), *id)).or_default();
            sum.0 += 1;
            sum.1 += u64::from(*weight);
        }
        let rows = aggregator.take();
        prop_assert_eq!(rows.len(), model.len());
        prop_assert_eq!(rows.samples(), samples.len() as u64);
        for row in rows.iter() {
            let key = (row.frames.to_vec(), row.span.map(|span| span.label.span_id.0));
            prop_assert_eq!(model.remove(&key), Some((row.samples, row.weight)));
        }
        prop_assert!(model.is_empty());
    }
}
