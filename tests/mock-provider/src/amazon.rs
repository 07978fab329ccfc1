//! Amazon's binary event stream, `application/vnd.amazon.eventstream`.
//!
//! A message is, in big-endian numbers: its length, the length of its headers, the CRC-32 of these eight bytes, the
//! headers, the payload, and the CRC-32 of everything before.

/// The media type of a stream of such messages.
pub const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";
/// Bytes of a message beside its headers and its payload.
const FRAME: usize = 16;
/// The type of a header whose value is a string.
const STRING: u8 = 7;

/// Appends a message whose payload is JSON. `spoiled` gives it a wrong checksum at its end.
pub fn push_message(out: &mut Vec<u8>, fields: &[(&str, &str)], payload: &[u8], spoiled: bool) {
    let mut headers = Vec::with_capacity(96);
    for (name, value) in fields.iter().chain(&[(":content-type", "application/json")]) {
        headers.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        headers.extend_from_slice(name.as_bytes());
        headers.push(STRING);
        headers.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let start = out.len();
    out.extend_from_slice(&length(headers.len() + payload.len() + FRAME));
    out.extend_from_slice(&length(headers.len()));
    let prelude = crc32(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&prelude.to_be_bytes());
    out.extend_from_slice(&headers);
    out.extend_from_slice(payload);
    let message = crc32(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&(message ^ u32::from(spoiled)).to_be_bytes());
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes()
}

/// CRC-32 as in IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A message: headers and payload.
    pub type Read = (Vec<(String, String)>, Vec<u8>);

    /// The messages of a stream; the error is how many came before one that is broken.
    #[expect(clippy::panic_in_result_fn, reason = "a header of another type is a mistake of the test")]
    pub fn read(mut bytes: &[u8]) -> Result<Vec<Read>, usize> {
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            if bytes.len() < 12 || number(&bytes[8..12]) != crc32(&bytes[..8]) {
                return Err(messages.len());
            }
            let (total, headers) = (number(&bytes[..4]) as usize, number(&bytes[4..8]) as usize);
            if bytes.len() < total || number(&bytes[total - 4..total]) != crc32(&bytes[..total - 4]) {
                return Err(messages.len());
            }
            let mut rest = &bytes[12..12 + headers];
            let mut fields = Vec::new();
            while let Some((&name_length, after)) = rest.split_first() {
                let (name, after) = after.split_at(usize::from(name_length));
                assert_eq!(after[0], STRING);
                let (value, after) = after[3..].split_at(usize::from(u16::from_be_bytes([after[1], after[2]])));
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                fields.push((text(name), text(value)));
                rest = after;
            }
            messages.push((fields, bytes[12 + headers..total - 4].to_vec()));
            bytes = &bytes[total..];
        }
        Ok(messages)
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn a_message_reads_as_it_was_written() {
        let mut out = Vec::new();
        push_message(&mut out, &[(":message-type", "event"), (":event-type", "x")], b"{}", false);
        let first = out.len();
        push_message(&mut out, &[], b"", true);
        assert_eq!(read(&out), Err(1));
        let (fields, payload) = read(&out[..first]).unwrap().remove(0);
        assert_eq!(fields[1], (":event-type".to_owned(), "x".to_owned()));
        assert_eq!(fields[2].0, ":content-type");
        assert_eq!(payload, b"{}");
    }

    /// Streams that were recorded read with these checksums, so they are Amazon's.
    #[test]
    fn recorded_streams_have_these_checksums() {
        let mut seen = 0;
        for (_, exchange, body) in crate::recorded::exchanges("bedrock") {
            if exchange["api"] == "converse-stream" && exchange["response"]["status"] == 200 {
                assert!(!read(&body).unwrap().is_empty());
                seen += 1;
            }
        }
        assert!(seen > 0 || !crate::recorded::present());
    }
}
