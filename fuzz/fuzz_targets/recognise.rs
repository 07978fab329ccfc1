//! Replies that are passed on as they are: how they are cut makes no difference to what is read of them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llm_gateway::gateway::recognise::Recogniser;
use llm_gateway_fuzz::cut;

const TYPES: [&str; 4] =
    ["text/event-stream", "application/x-ndjson", "application/vnd.amazon.eventstream", "application/json"];

fuzz_target!(|input: &[u8]| {
    let Some((bytes, pieces)) = cut(input) else { return };
    for content_type in TYPES {
        let (mut whole, mut in_pieces) =
            (Recogniser::new(Some(content_type), true), Recogniser::new(Some(content_type), true));
        whole.read(bytes);
        pieces.clone().for_each(|piece| in_pieces.read(piece));
        assert_eq!(in_pieces.finish(), whole.finish(), "{content_type}");
        assert_eq!((in_pieces.bytes(), in_pieces.estimate()), (whole.bytes(), whole.estimate()), "{content_type}");
    }
});
