//! The bytes and the JSON that Grafana's clients exchange, against the generated messages.

use buffa::Message;
use spanflame_wire::google::v1::Profile;
use spanflame_wire::querier::v1::{
    FlameGraph, Level, ProfileTypesRequest, SelectMergeSpanProfileRequest, SelectMergeSpanProfileResponse,
    SelectMergeStacktracesRequest,
};

const CPU: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).expect("the goldens are hexadecimal") as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

#[test]
fn health_check_request() {
    let request = ProfileTypesRequest { start: 1000, end: 4000, ..Default::default() };
    assert_eq!(request.encode_to_vec(), bytes("08e80710a01f"));
}

#[test]
fn span_request() {
    let golden = bytes(
        "0a2b70726f636573735f6370753a6370753a6e616e6f7365636f6e64733a6370753a6e616e6f7365636f6e647312197b736572766963655f6e\
         616d653d22636865636b6f7574227d1a103030663036376161306261393032623720d0e5e8b6b7332898c2ecb6b733",
    );
    let request = SelectMergeSpanProfileRequest {
        profile_typeID: CPU.into(),
        label_selector: r#"{service_name="checkout"}"#.into(),
        span_selector: vec!["00f067aa0ba902b7".into()],
        start: 1_767_225_570_000,
        end: 1_767_225_631_000,
        ..Default::default()
    };
    assert_eq!(SelectMergeSpanProfileRequest::decode_from_slice(&golden).unwrap(), request);
    assert_eq!(request.encode_to_vec(), golden);
}

#[test]
fn flame_graph_response() {
    let level = |values: &[i64]| Level { values: values.to_vec(), ..Default::default() };
    let response = SelectMergeSpanProfileResponse {
        flamegraph: FlameGraph {
            names: ["total", "handler", "hash"].map(String::from).to_vec(),
            levels: vec![
                level(&[0, 30_000_000, 0, 0]),
                level(&[0, 30_000_000, 10_000_000, 1]),
                level(&[10_000_000, 20_000_000, 20_000_000, 2]),
            ],
            total: 30_000_000,
            max_self: 20_000_000,
            ..Default::default()
        }
        .into(),
        ..Default::default()
    };
    assert_eq!(
        response.encode_to_vec(),
        bytes(
            "0a4a0a05746f74616c0a0768616e646c65720a046861736812090a07008087a70e0000120c0a0a008087a70e80ade20401120f0a0d80ade204\
             80dac40980dac40902188087a70e2080dac409"
        )
    );
    assert_eq!(
        serde_json::to_string(&response).unwrap(),
        concat!(
            r#"{"flamegraph":{"names":["total","handler","hash"],"levels":[{"values":["0","30000000","0","0"]},"#,
            r#"{"values":["0","30000000","10000000","1"]},{"values":["10000000","20000000","20000000","2"]}],"#,
            r#""total":"30000000","maxSelf":"20000000"}}"#
        )
    );
}

#[test]
fn json_takes_either_spelling_and_unknown_fields() {
    let mixed = r#"{"profile_typeID":"a","labelSelector":"{}","start":1,"end":"2","max_nodes":"16384","spanSelector":["x"],
        "stack_trace_selector":{"call_site":[{"name":"handler"}],"frameFilter":{}},"noSuchField":[1]}"#;
    let request: SelectMergeStacktracesRequest = serde_json::from_str(mixed).unwrap();
    assert_eq!((request.start, request.end, request.max_nodes), (1, 2, Some(16384)));
    assert_eq!(request.profile_typeID, "a");
    assert_eq!(request.span_selector, ["x"]);
    assert_eq!(request.stack_trace_selector.call_site[0].name, "handler");
}

#[test]
fn pprof_survives_a_round_trip() {
    // A sample type {1, 2} and a sample {location 1, value 7, label {3: 4}} whose numbers are not packed.
    let profile = Profile::decode_from_slice(&bytes("0a0408011002120a080110071a0408031004")).unwrap();
    assert_eq!((profile.sample[0].location_id[0], profile.sample[0].value[0]), (1, 7));
    assert_eq!((profile.sample[0].label[0].key, profile.sample[0].label[0].str), (3, 4));
    assert_eq!(Profile::decode_from_slice(&profile.encode_to_vec()).unwrap(), profile);
}
