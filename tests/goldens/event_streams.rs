//! Amazon's event streams as they were recorded.

use std::fs;

use llm_gateway::protocol::event_stream::EventStreamDecoder;
use serde_json::Value;

/// The messages of a stream that comes in these pieces.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<(String, Value)> {
    let mut decoder = EventStreamDecoder::new(1 << 20);
    let mut messages = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        while let Some(message) = decoder.next_message().unwrap() {
            assert!(!message.is_exception);
            let name = String::from_utf8(message.name.to_vec()).unwrap();
            messages.push((name, serde_json::from_slice(message.payload).unwrap()));
        }
    }
    assert!(!decoder.is_unfinished());
    messages
}

#[test]
fn recorded_event_streams_are_read_the_same_wherever_they_are_cut() {
    let Some((root, index)) = crate::recorded::index() else { return };
    let mut streams = 0;
    for entry in &index {
        let file: Value =
            serde_json::from_slice(&fs::read(root.join(entry["file"].as_str().unwrap())).unwrap()).unwrap();
        let Some(name) = file["response"]["body_file"].as_str().filter(|name| name.ends_with(".eventstream")) else {
            continue;
        };
        let bytes = fs::read(root.join(name)).unwrap();
        let whole = decode(std::iter::once(bytes.as_slice()));
        assert!(whole.iter().any(|(event, _)| event == "messageStop"), "{name}");
        for at in 0..bytes.len() {
            let (before, after) = bytes.split_at(at);
            assert_eq!(decode([before, after].into_iter()), whole, "{name} cut at {at}");
        }
        assert_eq!(decode(bytes.chunks(1)), whole, "{name}");
        streams += 1;
    }
    assert!(streams > 0, "no recorded event stream was found");
}
