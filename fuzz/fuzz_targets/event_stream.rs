//! Amazon's event stream: cuts make no difference. Each input is read as it is and with its checksums mended, for hardly
//! any change of an input gets past them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llm_gateway::protocol::event_stream::{EventStreamDecoder, EventStreamFault};

/// Messages by name, kind, words and payload, and whether one is unfinished or what is wrong.
type Read = (Vec<(Vec<u8>, bool, Vec<u8>, Vec<u8>)>, Result<bool, EventStreamFault>);

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut decoder = EventStreamDecoder::new(1 << 20);
    let mut messages = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next_message() {
                Ok(Some(it)) => {
                    messages.push((it.name.to_vec(), it.is_exception, it.error_message.to_vec(), it.payload.to_vec()))
                }
                Ok(None) => break,
                Err(fault) => {
                    assert_eq!(decoder.next_message(), Err(fault));
                    return (messages, Err(fault));
                }
            }
        }
    }
    (messages, Ok(decoder.is_unfinished()))
}

fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

/// Gives every message of a stream the checksums that it should have.
fn mend(stream: &mut [u8]) {
    let mut rest = stream;
    while rest.len() >= 12 {
        let total = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        let prelude = crc32(&rest[..8]);
        rest[8..12].copy_from_slice(&prelude.to_be_bytes());
        if total < 16 || total > rest.len() {
            return;
        }
        let (message, others) = rest.split_at_mut(total);
        let (checked, checksum) = message.split_at_mut(total - 4);
        checksum.copy_from_slice(&crc32(checked).to_be_bytes());
        rest = others;
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((bytes, pieces)) = llm_gateway_fuzz::cut(input) else { return };
    assert_eq!(decode(pieces), decode(std::iter::once(bytes)));
    let mut mended = input.to_vec();
    mend(&mut mended[1..]);
    let Some((bytes, pieces)) = llm_gateway_fuzz::cut(&mended) else { return };
    assert_eq!(decode(pieces), decode(std::iter::once(bytes)));
});
