//! How long recorded sound lasts, by the beginning of its file and its size: for what is charged by its time where nobody
//! tells it.

/// How much of a file's beginning is needed at most, in bytes.
pub const HEAD_BYTES: usize = 4 * 1024;

/// Of formats whose beginning does not tell, bytes a second: speech at 16 kbit/s, which is as little as recorders make.
/// What is recorded better lasts shorter than this says, and is never held to be shorter than it is.
const SPEECH: u64 = 2_000;

/// No sound has more bytes a second than two channels of 32 bits at 48 kHz, whatever a file says of itself.
const MOST: u64 = 384_000;

/// About how long the sound in a file of so many bytes lasts, in milliseconds. WAV and FLAC say it, MP3 by its bit rate.
pub fn length_ms(start: &[u8], bytes: u64) -> u64 {
    let by = |rate: u64| bytes.saturating_mul(1_000).div_ceil(rate.clamp(1, MOST));
    let told = wav(start).or_else(|| mp3(start)).map(by).or_else(|| flac(start));
    told.unwrap_or_else(|| by(SPEECH)).max(by(MOST))
}

/// Bytes a second of a RIFF file (<https://www.mmsp.ece.mcgill.ca/Documents/AudioFormats/WAVE/WAVE.html>).
fn wav(start: &[u8]) -> Option<u64> {
    let mut rest = start.strip_prefix(b"RIFF")?.get(4..)?.strip_prefix(b"WAVE")?;
    loop {
        let (id, size, content) = (rest.get(..4)?, le(rest.get(4..8)?), rest.get(8..)?);
        if id == b"fmt " {
            let (samples, block) = (le(content.get(4..8)?), le(content.get(12..14)?));
            return Some(samples.saturating_mul(block)).filter(|rate| *rate > 0);
        }
        // Chunks begin at even places.
        rest = content.get(usize::try_from(size.saturating_add(size % 2)).ok()?..)?;
    }
}

fn le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Milliseconds of a FLAC file, which has the number of its samples at its beginning (RFC 9639, section 8.2).
fn flac(start: &[u8]) -> Option<u64> {
    let told = start.strip_prefix(b"fLaC")?.get(14..22)?;
    let told = told.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let (rate, samples) = (told >> 44, told & 0xF_FFFF_FFFF);
    samples.saturating_mul(1_000).checked_div(rate).filter(|millis| *millis > 0)
}

/// Bytes a second of an MP3 file, by the header of its first frame; behind an ID3 tag, if there is one.
fn mp3(start: &[u8]) -> Option<u64> {
    const KBITS_1: [u64; 16] = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0];
    const KBITS_2: [u64; 16] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0];
    let frame = match start.strip_prefix(b"ID3") {
        None => start,
        Some(tag) => {
            let size = tag.get(3..7)?.iter().fold(0_usize, |sum, byte| sum << 7 | usize::from(byte & 0x7F));
            start.get(size.saturating_add(10)..)?
        }
    };
    let [0xFF, kind, rates, ..] = *frame else { return None };
    // Eleven bits of synchronisation, two of the version, two of the layer (01: the third).
    if kind & 0b1110_0110 != 0b1110_0010 {
        return None;
    }
    let table = if kind & 0b0001_1000 == 0b0001_1000 { KBITS_1 } else { KBITS_2 };
    let kbits = table.get(usize::from(rates >> 4)).copied().filter(|kbits| *kbits > 0)?;
    Some(kbits.saturating_mul(125))
}

/// Where the last cue of subtitles ends, in milliseconds: SubRip's or WebVTT's. `None` if these are none.
pub fn subtitles_ms(text: &str) -> Option<u64> {
    let ends = text.lines().filter_map(|line| timestamp(line.split_once("-->")?.1.split_whitespace().next()?));
    ends.max()
}

/// `[hours:]minutes:seconds` with a fraction behind a comma or a point.
fn timestamp(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once([',', '.'])?;
    let millis = format!("{fraction:0<3}").get(..3)?.parse::<u64>().ok()?;
    let parts: Vec<&str> = whole.split(':').collect();
    let seconds = match parts.len() {
        2 | 3 => parts.iter().try_fold(0_u64, |sum, part| sum.checked_mul(60)?.checked_add(part.parse().ok()?))?,
        _ => return None,
    };
    seconds.checked_mul(1_000)?.checked_add(millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wave(samples: u32, block: u16) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0\x01\0\x01\0".to_vec();
        file.extend(samples.to_le_bytes());
        file.extend(9_u32.to_le_bytes());
        file.extend(block.to_le_bytes());
        file
    }

    #[test]
    fn files_that_say_how_long_they_are_are_believed() {
        assert_eq!(length_ms(&wave(16_000, 2), 64_000), 2_000);
        // 44.1 kHz, 441,000 samples.
        let told: u64 = 44_100 << 44 | 441_000;
        let flac = [b"fLaC\0\0\0\x22".as_slice(), &[0; 10], &told.to_be_bytes()].concat();
        assert_eq!(length_ms(&flac, 900_000), 10_000);
        // MPEG 1 layer III at 128 kbit/s, MPEG 2 layer III at 64 kbit/s behind a tag of five bytes.
        assert_eq!(length_ms(&[0xFF, 0xFB, 0x90, 0x64], 160_000), 10_000);
        let tagged = [b"ID3\x04\0\0\0\0\0\x05abcde".as_slice(), &[0xFF, 0xF3, 0x80, 0xC4]].concat();
        assert_eq!(length_ms(&tagged, 80_000), 10_000);
    }

    #[test]
    fn others_are_held_to_be_rather_too_long_than_too_short() {
        for start in [&b""[..], b"OggS", b"\x1aE\xdf\xa3", &[0xFF, 0xF1, 0x50, 0x80], &[0xFF, 0xFB, 0xF0, 0], b"ID3"] {
            assert_eq!(length_ms(start, 20_000), 10_000, "{start:?}");
        }
        assert_eq!(length_ms(&wave(0, 2), 20_000), 10_000);
        // A file cannot make itself next to nothing.
        assert_eq!(length_ms(&wave(u32::MAX, u16::MAX), 384_000), 1_000);
        let short: u64 = 44_100 << 44 | 45;
        let flac = [b"fLaC\0\0\0\x22".as_slice(), &[0; 10], &short.to_be_bytes()].concat();
        assert_eq!(length_ms(&flac, 384_000), 1_000);
        assert_eq!(length_ms(b"", 0), 0);
    }

    #[test]
    fn subtitles_end_with_their_last_cue() {
        let srt = "1\n00:00:00,000 --> 00:00:03,200\nHello --> there\n\n2\n01:00:03,200 --> 01:00:08,47\nBye\n";
        assert_eq!(subtitles_ms(srt), Some(3_608_470));
        let vtt = "WEBVTT\r\n\r\n00:00.000 --> 00:03.200 align:start\r\nHello\r\n";
        assert_eq!(subtitles_ms(vtt), Some(3_200));
        for none in ["Hello.", "", "a --> b", "0 --> 99999999999999999999:00:00.0"] {
            assert_eq!(subtitles_ms(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_some_sound(start in proptest::collection::vec(any::<u8>(), 0..80), kind in 0..4_usize, bytes in any::<u64>()) {
            let start = [[&b"RIFF\0\0\0\0WAVE"[..], b"fLaC", b"ID3", b"\xFF"][kind], &start].concat();
            prop_assert!(length_ms(&start, bytes) >= bytes.saturating_mul(1_000) / MOST);
        }

        #[test]
        fn any_text_may_be_subtitles(text in "[0-9:,. >-]{0,40}") {
            let _ = subtitles_ms(&text);
        }
    }
}
