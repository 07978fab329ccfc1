//! Server-sent events: cuts make no difference, and no byte is lost or doubled.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llm_gateway::protocol::sse::SseDecoder;

/// Name and data of each event, what is left, and the bytes of it all.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<(Vec<u8>, Option<Vec<u8>>)>, Option<Vec<u8>>, Vec<u8>) {
    let mut decoder = SseDecoder::new(1 << 20);
    let (mut events, mut raw) = (Vec::new(), Vec::new());
    for piece in pieces {
        decoder.push(piece).expect("the input is smaller than the bound");
        while let Some(frame) = decoder.next_frame() {
            raw.extend_from_slice(frame.raw);
            events.push((frame.name.to_vec(), frame.data.map(|data| data.into_owned())));
        }
    }
    let rest = decoder.unfinished().and_then(|(bytes, data)| {
        raw.extend_from_slice(&bytes);
        data
    });
    (events, rest, raw)
}

fuzz_target!(|input: &[u8]| {
    let Some((bytes, pieces)) = llm_gateway_fuzz::cut(input) else { return };
    let (events, rest, raw) = decode(std::iter::once(bytes));
    assert_eq!(raw, bytes);
    let (in_pieces, rest_in_pieces, raw) = decode(pieces);
    assert_eq!((in_pieces, rest_in_pieces), (events, rest));
    assert_eq!(raw, bytes);
});
