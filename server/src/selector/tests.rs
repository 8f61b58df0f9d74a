use proptest::prelude::*;

use super::*;

fn series() -> (Labels, ProfileType) {
    let labels = Labels::new([("service_name", "checkout"), ("k8s.pod", "pod-1"), ("path", "C:\\x \"y\"")]);
    (labels, "process_cpu:cpu:nanoseconds:cpu:nanoseconds".parse().unwrap())
}

fn selects(text: &str) -> bool {
    let (labels, kind) = series();
    LabelSelector::parse(text).unwrap().matches_series(&labels, &kind)
}

#[test]
fn everything_is_selected_by_nothing() {
    for text in ["", "  ", "{}", " { } "] {
        assert!(selects(text), "{text:?}");
    }
}

#[test]
fn matchers_compare() {
    for (text, expected) in [
        (r#"{service_name="checkout"}"#, true),
        (r#"{ service_name = 'checkout' , }"#, true),
        (r#"{service_name="checkout", service_name="other"}"#, false),
        (r#"{service_name!="checkout"}"#, false),
        (r#"{service_name=~"check.*|x"}"#, true),
        (r#"{service_name=~"check"}"#, false),
        (r#"{service_name!~"check"}"#, true),
        (r#"{service_name=~"a|checkout"}"#, true),
        (r#"{absent=""}"#, true),
        (r#"{absent!=""}"#, false),
        (r#"{absent=~".*"}"#, true),
        (r#"{service.name="checkout"}"#, true),
        (r#"{k8s_pod="pod-1"}"#, true),
        (r#"{"k8s.pod"="pod-1"}"#, true),
        (r#"{path="C:\\x \"y\""}"#, true),
        (r#"{path=`C:\x "y"`}"#, true),
        (r#"{service_name="\x63\150\u0065ckout"}"#, true),
        (r#"process_cpu{service_name="checkout"}"#, true),
        (r#"memory{}"#, false),
        ("process_cpu", true),
        (r#"{"process_cpu", service_name="checkout"}"#, true),
        (r#"process_cpu:cpu:nanoseconds:cpu:nanoseconds{}"#, true),
        (r#"process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta{}"#, true),
        (r#"process_cpu:samples:count:cpu:nanoseconds{}"#, false),
        (r#"{__profile_type__="process_cpu:cpu:nanoseconds:cpu:nanoseconds"}"#, true),
        (r#"{__type__="cpu",__unit__="nanoseconds",__name__="process_cpu"}"#, true),
        (r#"{__service_name__="checkout",__period_type__="cpu",__period_unit__="nanoseconds"}"#, true),
    ] {
        assert_eq!(selects(text), expected, "{text}");
    }
}

#[test]
fn what_grafana_sends_is_read() {
    for (text, expected) in [
        // Traces to profiles: values as they are, a comma and a space between.
        (r#"{service_name="checkout"}"#, true),
        (r#"{service_name="checkout", service_namespace="shop"}"#, false),
        (r#"{service_name="checkout", service_name="checkout"}"#, true),
        // A tag that is mapped to no name keeps its dots.
        (r#"{service.name="checkout", k8s.pod="pod-1"}"#, true),
        // The query editor, ad-hoc filters, variables, Drilldown.
        (r#"{service_name="checkout",k8s_pod!="x"}"#, true),
        (r#"{"service.name"="checkout"}"#, true),
        (r#"{"k8s.pod"=~"pod-[0-9]+","service_name"!~"pay.*"}"#, true),
        (
            r#"{__profile_type__="process_cpu:cpu:nanoseconds:cpu:nanoseconds", service_name="checkout"}"#,
            true,
        ),
        (r#"{service_name=~"checkout|payments",}"#, true),
        ("{\n  service_name=\"checkout\",\n  k8s_pod=\"pod-1\"\n}", true),
        (r#"process_cpu:cpu:nanoseconds:cpu:nanoseconds{service_name="checkout"}"#, true),
        (r#"{service_name=~".+", k8s_pod=~".*"}"#, true),
    ] {
        assert_eq!(selects(text), expected, "{text}");
    }
    // Values are not escaped: what breaks out of its quotes is refused, not misread.
    for text in [r#"{service_name="a"b"}"#, r#"{service_name="a\"}"#, r#"{method="${__span.tags.method}}"#] {
        assert!(LabelSelector::parse(text).is_err(), "{text}");
    }
}

#[test]
fn regular_expressions_are_anchored_at_both_ends() {
    let matches = |pattern: &str, value: &str| {
        let text = format!("{{a=~{pattern:?}}}");
        LabelSelector::parse(&text).unwrap().series[0].matches(value)
    };
    assert!(matches("a|b", "a") && matches("a|b", "b") && !matches("a|b", "ab"));
    assert!(!matches("check", "checkout") && !matches("out", "checkout") && matches("check.*", "checkout"));
    assert!(matches(".*", "") && matches("a.b", "a\nb") && matches("(?i)CHECKOUT", "checkout"));
    assert!(matches("", "") && !matches("", "x"));
}

#[test]
fn span_names_are_told_apart_from_labels() {
    let selector = LabelSelector::parse(r#"{span_name=~"GET .*", service_name="checkout"}"#).unwrap();
    let (labels, kind) = series();
    assert!(selector.matches_series(&labels, &kind));
    assert!(selector.selects_span_names());
    assert!(selector.matches_span_name("GET /pay"));
    assert!(!selector.matches_span_name(""));
    assert!(LabelSelector::parse(r#"{span.name!="x"}"#).unwrap().matches_span_name(""));
}

#[test]
fn selectors_combine() {
    let both = LabelSelector::parse("{a=\"\"}").unwrap().and(LabelSelector::parse("{b!=\"\"}").unwrap());
    let (labels, kind) = series();
    assert!(!both.matches_series(&labels, &kind));
}

#[test]
fn errors_name_the_place_and_the_fix() {
    for (text, position, part) in [
        ("{", 2, "a label name"),
        ("{a}", 3, "one of = != =~ !~"),
        ("{a=}", 4, "a value in quotes"),
        ("{a=b}", 4, "a value in quotes"),
        ("{a=\"b\"", 7, "`,` or `}`"),
        ("{a=\"b\"\"c\"}", 7, "`,` or `}`"),
        ("{a=\"b}", 4, "never closed"),
        ("{ä=\"b\"}", 2, "a label name"),
        ("{1a=\"b\"}", 4, "a label name"),
        ("{\"ä\"=\"\\q\"}", 7, "unknown escape"),
        ("{a=\"\\xff\"}", 4, "not UTF-8"),
        ("{a=~\"(\"}", 5, "regular expression"),
        ("{a=~\")|(\"}", 5, "regular expression"),
        ("{a=~\"(\\\\w{1000}){1000}\"}", 5, "regular expression"),
        ("{} x", 4, "the end of the selector"),
        ("method=\"GET\"", 7, "matchers in braces"),
        ("{\"\"=\"b\"}", 4, "empty"),
        ("{a=\"\\", 5, "unknown escape"),
    ] {
        let error = LabelSelector::parse(text).unwrap_err();
        assert!(error.to_string().contains(part), "{text}: {error}");
        assert_eq!(error.position, position, "{text}: {error}");
    }
    assert!(LabelSelector::parse(&" ".repeat(MAX_SELECTOR_BYTES + 1)).is_err());
    assert!(LabelSelector::parse(&format!("{{{}}}", "a=\"b\",".repeat(MAX_MATCHERS + 1))).is_err());
}

proptest! {
    #[test]
    fn no_text_panics(text in ".*") {
        let _ = LabelSelector::parse(&text);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = LabelSelector::parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_escape_panics(escape in r#"\\[abfnrtvxuU0-9"'\\]?[0-9a-fA-Fä]{0,9}"#) {
        let _ = LabelSelector::parse(&format!("{{a=\"{escape}\"}}"));
    }

    #[test]
    fn a_refusal_names_a_place_in_the_text(text in r#"[{}a=~!"',\\(ä. ]{0,12}"#) {
        if let Err(error) = LabelSelector::parse(&text) {
            prop_assert!((1..=text.chars().count() + 1).contains(&error.position), "{text:?}: {error}");
        }
    }

    #[test]
    fn nothing_that_looks_like_a_selector_panics(text in r#"[a-z_]{0,3}\{([a-z."'`\\]{1,4}(=|!=|=~|!~)["'`][a-zä\\"x0-9(){}|.*]{0,6}["'`],?){0,3}\}?"#) {
        let _ = LabelSelector::parse(&text);
    }

    #[test]
    fn every_value_can_be_written(value in any::<String>()) {
        let escaped: String = value
            .chars()
            .map(|c| match c {
                '"' | '\\' => format!("\\{c}"),
                c if c.is_control() => format!("\\U{:08x}", u32::from(c)),
                c => c.to_string(),
            })
            .collect();
        let text = format!("{{a=\"{escaped}\"}}");
        if let Ok(selector) = LabelSelector::parse(&text) {
            prop_assert_eq!(&selector.series[0].value, &value);
        } else {
            prop_assert!(false, "{}", text);
        }
    }
}

#[test]
fn regular_expressions_are_few() {
    let of = |count: usize| {
        let matchers: Vec<String> = (0..count).map(|at| format!("l{at}=~\"a.*\"")).collect();
        LabelSelector::parse(&format!("{{{}}}", matchers.join(",")))
    };
    assert_eq!(of(16).unwrap().regexes(), 16);
    let error = of(17).unwrap_err().to_string();
    assert!(error.contains("at most 16 regular expressions"), "{error}");
}
