//! Amazon's binary event stream (`application/vnd.amazon.eventstream`), fed in pieces that may break anywhere.
//!
//! A message is, in big-endian numbers: its length, the length of its headers, a checksum of these eight bytes, the
//! headers, the payload, and a checksum of everything before
//! (<https://smithy.io/2.0/aws/amazon-eventstream.html>). What does not add up ends the stream: behind it nobody knows
//! where a message begins.

use serde_json::json;

use super::chat::ReplyFault;
use super::frames::{Framing, MAX_EVENT_BYTES, RawEvent, TakeEvent};

/// Bytes before the headers: two lengths and their checksum.
const PRELUDE: usize = 12;

/// The checksum at the end.
const TRAILER: usize = 4;

/// Headers of a message at most, in bytes.
const MAX_HEADER_BYTES: usize = 128 * 1024;

/// Splits a byte stream into messages.
#[derive(Debug)]
pub struct EventStreamDecoder {
    buffer: Vec<u8>,
    /// Start of the message being read.
    start: usize,
    max_message_bytes: usize,
    /// What has ended the stream.
    fault: Option<EventStreamFault>,
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is: `:event-type`, or of an exception `:exception-type` or `:error-code`; empty if it does not say.
    pub name: &'a [u8],
    /// Whether it says that something went wrong: its `:message-type` is there and is not `event`.
    pub is_exception: bool,
    /// Its `:error-message`: an error that the service does not model has its words here and no payload.
    pub error_message: &'a [u8],
    /// Its payload, as a rule a JSON object.
    pub payload: &'a [u8],
}

/// Bytes that are no event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventStreamFault {
    /// A message is larger than the decoder will hold.
    #[error("a message of the upstream's event stream is larger than {max} bytes")]
    TooLarge {
        /// The bound in bytes.
        max: usize,
    },
    /// A checksum is wrong.
    #[error("a checksum of the upstream's event stream is wrong")]
    Checksum,
    /// Lengths or headers contradict each other.
    #[error("a message of the upstream's event stream is malformed")]
    Malformed,
}

impl EventStreamDecoder {
    /// A decoder that holds at most `max_message_bytes` of a message.
    pub fn new(max_message_bytes: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, max_message_bytes, fault: None }
    }

    /// Takes in the next bytes. Call [`Self::next_message`] until it has no more before pushing again.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start.min(self.buffer.len()));
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete message, if the bytes pushed so far hold one.
    ///
    /// # Errors
    /// [`EventStreamFault`], and the same from then on.
    pub fn next_message(&mut self) -> Result<Option<Message<'_>>, EventStreamFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        match split(rest, self.max_message_bytes) {
            Ok(None) => Ok(None),
            Ok(Some((message, length))) => {
                self.start = self.start.saturating_add(length);
                Ok(Some(message))
            }
            Err(fault) => {
                self.fault = Some(fault);
                Err(fault)
            }
        }
    }

    /// Whether a message has begun that is not complete.
    pub fn is_unfinished(&self) -> bool {
        self.start < self.buffer.len()
    }
}

impl Default for EventStreamDecoder {
    fn default() -> Self {
        Self::new(MAX_EVENT_BYTES)
    }
}

impl Framing for EventStreamDecoder {
    fn push(&mut self, bytes: &[u8], take: &mut TakeEvent<'_>) -> Result<(), ReplyFault> {
        Self::push(self, bytes);
        while let Some(message) = self.next_message().map_err(|fault| ReplyFault::Malformed(fault.to_string()))? {
            let data = if message.payload.is_empty() && !message.error_message.is_empty() {
                // As the errors that a service models say it.
                json!({"message": String::from_utf8_lossy(message.error_message)}).to_string().into_bytes().into()
            } else {
                message.payload.into()
            };
            take(&RawEvent { name: message.name, data, exception: message.is_exception })?;
        }
        Ok(())
    }

    fn finish(&mut self, _: &mut TakeEvent<'_>) -> Result<(), ReplyFault> {
        if self.is_unfinished() { Err(ReplyFault::Truncated) } else { Ok(()) }
    }
}

/// The message at the beginning of the bytes, and its length.
fn split(bytes: &[u8], max: usize) -> Result<Option<(Message<'_>, usize)>, EventStreamFault> {
    let Some(prelude) = bytes.first_chunk::<PRELUDE>() else { return Ok(None) };
    let [a, b, c, d, e, f, g, h, checksum @ ..] = *prelude;
    if crc32(&[a, b, c, d, e, f, g, h]) != u32::from_be_bytes(checksum) {
        return Err(EventStreamFault::Checksum);
    }
    let length = |bytes: [u8; 4]| usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX);
    let (total, headers) = (length([a, b, c, d]), length([e, f, g, h]));
    if total > max {
        return Err(EventStreamFault::TooLarge { max });
    }
    let payload_at = PRELUDE.saturating_add(headers);
    let checksum_at = total.checked_sub(TRAILER).ok_or(EventStreamFault::Malformed)?;
    if payload_at > checksum_at || headers > MAX_HEADER_BYTES {
        return Err(EventStreamFault::Malformed);
    }
    let Some(message) = bytes.get(..total) else { return Ok(None) };
    let (checked, checksum) = message.split_at_checked(checksum_at).ok_or(EventStreamFault::Malformed)?;
    if checksum.first_chunk().copied().map(u32::from_be_bytes) != Some(crc32(checked)) {
        return Err(EventStreamFault::Checksum);
    }
    let (head, payload) = checked.split_at_checked(payload_at).ok_or(EventStreamFault::Malformed)?;
    let message = head.get(PRELUDE..).and_then(|headers| read(headers, payload)).ok_or(EventStreamFault::Malformed)?;
    Ok(Some((message, total)))
}

/// Reads what is needed of the headers. Each is the length of its name, the name, the type of its value, and the value.
fn read<'a>(mut headers: &'a [u8], payload: &'a [u8]) -> Option<Message<'a>> {
    let (mut kind, mut event, mut exception, mut error_message) = (&b"event"[..], &b""[..], &b""[..], &b""[..]);
    while !headers.is_empty() {
        let name = take_counted::<1>(&mut headers)?;
        let [value_type] = *take(&mut headers, 1)?.first_chunk::<1>()?;
        let value = match value_type {
            // True and false are their types.
            0 | 1 => &[][..],
            2 => take(&mut headers, 1)?,
            3 => take(&mut headers, 2)?,
            4 => take(&mut headers, 4)?,
            5 | 8 => take(&mut headers, 8)?,
            6 | 7 => take_counted::<2>(&mut headers)?,
            9 => take(&mut headers, 16)?,
            _ => return None,
        };
        match name {
            b":message-type" => kind = value,
            b":event-type" => event = value,
            b":exception-type" | b":error-code" => exception = value,
            b":error-message" => error_message = value,
            _ => {}
        }
    }
    let is_exception = kind != b"event";
    Some(Message { name: if is_exception { exception } else { event }, is_exception, error_message, payload })
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// What follows its own length, a number of `N` bytes.
fn take_counted<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let count = take(bytes, N)?.iter().fold(0_usize, |count, byte| (count << 8) | usize::from(*byte));
    take(bytes, count)
}

/// CRC-32 as in gzip.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let [low, ..] = (crc ^ u32::from(*byte)).to_le_bytes();
        (crc >> 8) ^ CRC_TABLE.get(usize::from(low)).copied().unwrap_or(0)
    };
    !bytes.iter().fold(u32::MAX, step)
}

/// What each byte adds to a checksum.
static CRC_TABLE: [u32; 256] = {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    let mut table = [0_u32; 256];
    let mut byte = 0_u32;
    let mut rest: &mut [u32] = &mut table;
    while let Some((entry, others)) = rest.split_first_mut() {
        let mut crc = byte;
        let mut bit = 0_u32;
        while bit < u8::BITS {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit = bit.saturating_add(1);
        }
        *entry = crc;
        byte = byte.saturating_add(1);
        rest = others;
    }
    table
};

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests compute offsets")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message as Amazon would send it.
    fn message(headers: &[(&str, u8, &[u8])], payload: &[u8]) -> Vec<u8> {
        let mut head = Vec::new();
        for (name, value_type, value) in headers {
            head.push(u8::try_from(name.len()).unwrap());
            head.extend_from_slice(name.as_bytes());
            head.push(*value_type);
            if matches!(value_type, 6 | 7) {
                head.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
            }
            head.extend_from_slice(value);
        }
        let total = u32::try_from(PRELUDE + head.len() + payload.len() + TRAILER);
        let mut bytes = [total.unwrap().to_be_bytes(), u32::try_from(head.len()).unwrap().to_be_bytes()].concat();
        bytes.extend_from_slice(&crc32(&bytes).to_be_bytes());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(&crc32(&bytes).to_be_bytes());
        bytes
    }

    fn event(name: &str, payload: &[u8]) -> Vec<u8> {
        message(&[(":event-type", 7, name.as_bytes()), (":message-type", 7, b"event")], payload)
    }

    type Read = (Vec<(Vec<u8>, bool, Vec<u8>)>, Result<bool, EventStreamFault>);

    /// All messages, and whether one is unfinished in the end or what is wrong.
    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
        let mut decoder = EventStreamDecoder::new(1 << 20);
        let mut messages = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            loop {
                match decoder.next_message() {
                    Ok(Some(it)) => messages.push((it.name.to_vec(), it.is_exception, it.payload.to_vec())),
                    Ok(None) => break,
                    Err(fault) => return (messages, Err(fault)),
                }
            }
        }
        (messages, Ok(decoder.is_unfinished()))
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn headers_of_every_type_are_passed_over_and_exceptions_have_names() {
        let odd = message(
            &[
                ("a", 0, b""),
                ("b", 1, b""),
                ("c", 2, b"1"),
                ("d", 3, b"12"),
                ("e", 4, b"1234"),
                ("f", 5, b"12345678"),
                ("g", 6, b"bytes"),
                ("h", 8, b"12345678"),
                ("i", 9, b"1234567812345678"),
                (":exception-type", 7, b"throttlingException"),
                (":message-type", 7, b"exception"),
            ],
            b"{}",
        );
        let error = [(":message-type", 7, &b"error"[..]), (":error-code", 7, b"500"), (":error-message", 7, b"words")];
        let mut decoder = EventStreamDecoder::new(1 << 20);
        decoder.push(&[odd, message(&error, b"")].concat());
        let exception =
            Message { name: b"throttlingException", is_exception: true, error_message: b"", payload: b"{}" };
        assert_eq!(decoder.next_message(), Ok(Some(exception)));
        let error = Message { name: b"500", is_exception: true, error_message: b"words", payload: b"" };
        assert_eq!(decoder.next_message(), Ok(Some(error)));
        assert_eq!(decoder.next_message(), Ok(None));
    }

    /// Name, data, whether it is an exception.
    type Events = Vec<(Vec<u8>, Vec<u8>, bool)>;

    #[test]
    fn as_a_framing_it_tells_exceptions_damage_and_that_the_end_is_missing() {
        fn run(bytes: &[u8]) -> (Events, Result<(), ReplyFault>) {
            let mut events = Events::new();
            let mut framing = EventStreamDecoder::default();
            let mut take = |event: &RawEvent<'_>| {
                events.push((event.name.to_vec(), event.data.to_vec(), event.exception));
                Ok(())
            };
            let end = Framing::push(&mut framing, bytes, &mut take).and_then(|()| framing.finish(&mut take));
            (events, end)
        }
        let good = event("e", b"{}");
        let error =
            [(":message-type", 7, &b"error"[..]), (":error-code", 7, b"500"), (":error-message", 7, b"a \"b\"")];
        let bytes = [good.clone(), message(&error, b"")].concat();
        let told = (b"500".to_vec(), br#"{"message":"a \"b\""}"#.to_vec(), true);
        let first = (b"e".to_vec(), b"{}".to_vec(), false);
        assert_eq!(run(&bytes), (vec![first.clone(), told], Ok(())));
        assert_eq!(run(&bytes[..bytes.len() - 1]), (vec![first.clone()], Err(ReplyFault::Truncated)));
        let (events, end) = run(&[good, vec![0; 20]].concat());
        assert!(events == [first] && matches!(end, Err(ReplyFault::Malformed(_))));
    }

    #[test]
    fn after_a_fault_nothing_is_read_however_good_it_is() {
        let mut bad = event("e", b"{}");
        *bad.last_mut().unwrap() ^= 1;
        let mut decoder = EventStreamDecoder::new(1 << 20);
        decoder.push(&bad);
        assert_eq!(decoder.next_message(), Err(EventStreamFault::Checksum));
        decoder.push(&event("e", b"{}"));
        assert_eq!(decoder.next_message(), Err(EventStreamFault::Checksum));
    }

    #[test]
    fn a_message_that_says_too_large_a_length_is_refused_by_its_first_twelve_bytes() {
        let mut decoder = EventStreamDecoder::new(100);
        let large = event("e", &[b' '; 100]);
        decoder.push(&large[..PRELUDE - 1]);
        assert_eq!(decoder.next_message(), Ok(None));
        decoder.push(&large[PRELUDE - 1..PRELUDE]);
        assert_eq!(decoder.next_message(), Err(EventStreamFault::TooLarge { max: 100 }));
    }

    #[test]
    fn every_cut_and_every_two_cuts_give_the_same_messages() {
        let bytes = [event("messageStart", br#"{"p":"ab"}"#), event("e", b""), event("metadata", b"{}")].concat();
        let whole = decode([bytes.as_slice()]);
        assert_eq!((whole.0.len(), &whole.1), (3, &Ok(false)));
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let cut = decode([&bytes[..first], &bytes[first..second], &bytes[second..]]);
                assert_eq!(cut, whole, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn what_does_not_add_up_ends_the_stream() {
        let good = event("e", b"{}");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            let (messages, end) = decode([bad.as_slice()]);
            assert!(messages.is_empty() && end.is_err(), "byte {at}");
        }
        let prelude = |total: u32, headers: u32| {
            let mut bytes = [total.to_be_bytes(), headers.to_be_bytes()].concat();
            bytes.extend_from_slice(&crc32(&bytes).to_be_bytes());
            decode([bytes.as_slice()]).1
        };
        assert_eq!(prelude(2 << 20, 0), Err(EventStreamFault::TooLarge { max: 1 << 20 }));
        assert_eq!(prelude(u32::MAX, u32::MAX), Err(EventStreamFault::TooLarge { max: 1 << 20 }));
        for (total, headers) in [(0, 0), (15, 0), (100, 85), (100, u32::MAX), (1 << 20, 200 << 10)] {
            assert_eq!(prelude(total, headers), Err(EventStreamFault::Malformed), "{total} {headers}");
        }
        assert_eq!(decode([message(&[("a", 10, b"")], b"").as_slice()]).1, Err(EventStreamFault::Malformed));
        assert_eq!(decode([message(&[("a", 9, b"short")], b"").as_slice()]).1, Err(EventStreamFault::Malformed));
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_makes_no_difference(
            sent in proptest::collection::vec(("[a-zA-Z]{1,12}", "[ -~]{0,40}"), 1..5),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(|(name, payload)| event(name, payload.as_bytes())).collect();
            let expected: Vec<_> =
                sent.iter().map(|(name, payload)| (name.clone().into_bytes(), false, payload.clone().into_bytes())).collect();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(decode(pieces), (expected.clone(), Ok(false)));
            prop_assert_eq!(decode(bytes.chunks(1)), (expected, Ok(false)));
        }

        #[test]
        fn a_stream_that_is_cut_is_never_complete(payload in "[ -~]{0,40}", cut in any::<prop::sample::Index>()) {
            let bytes = event("e", payload.as_bytes());
            let at = cut.index(bytes.len() - 1) + 1;
            prop_assert_eq!(decode([&bytes[..at]]), (Vec::new(), Ok(true)));
        }

        #[test]
        fn anything_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode([bytes.as_slice()]);
        }
    }
}
