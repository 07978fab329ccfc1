//! How large a picture is, told from the first bytes of its file, and how many tokens that makes by each provider's
//! published rule.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A picture in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture {
    /// Width and height in pixels; `None` where they cannot be told (a link, an unknown format).
    pub size: Option<(u32, u32)>,
    /// Whether the caller asks for it to be looked at in low resolution.
    pub low: bool,
}

/// A provider's rule for what a picture counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// OpenAI's larger models: fitted into 2,048 × 2,048, then scaled to 768 on the shorter side; so many tokens, and so
    /// many for each tile of 512 × 512. Low resolution is the first number alone.
    Tiles(u64, u64),
    /// OpenAI's smaller models: patches of 32 × 32, at most 1,536 of them, each so many hundredths of a token.
    Patches(u64),
    /// Anthropic: width × height / 750, fitted into 1,568 on the longer side, at most 1,600.
    Area,
    /// Google: 258 for a picture of up to 384 on both sides, else 258 for each tile of 768 × 768.
    Crops,
}

/// Decoded bytes of a file that are looked at for its size. A JPEG may carry a preview before it says its own.
const HEADER_BYTES: usize = 160 * 1024;

/// Most tiles that Google's rule is followed to.
const MAX_CROPS: u64 = 16;

impl Rule {
    /// Tokens of a picture; where its size is not known, the most that the rule allows.
    pub fn tokens(self, picture: Picture) -> u64 {
        let size = picture.size.map(|(width, height)| (u64::from(width.max(1)), u64::from(height.max(1))));
        match self {
            Self::Tiles(base, _) if picture.low => base,
            Self::Tiles(base, tile) => {
                // Two tiles by four: 768 on one side and the 2,048 that the other is fitted into.
                let tiles = size.map_or(8, |size| {
                    let (width, height) = fit_short(fit_long(size, 2_048), 768);
                    width.div_ceil(512).saturating_mul(height.div_ceil(512))
                });
                base.saturating_add(tile.saturating_mul(tiles))
            }
            Self::Patches(hundredths) => {
                let patches = size
                    .map_or(1_536, |(width, height)| width.div_ceil(32).saturating_mul(height.div_ceil(32)).min(1_536));
                patches.saturating_mul(hundredths).div_ceil(100)
            }
            Self::Area => size.map_or(1_600, |size| {
                let (width, height) = fit_long(size, 1_568);
                width.saturating_mul(height).div_ceil(750).min(1_600)
            }),
            Self::Crops => match size {
                Some((..=384, ..=384)) => 258,
                size => {
                    let tiles = size.map_or(MAX_CROPS, |(width, height)| {
                        width.div_ceil(768).saturating_mul(height.div_ceil(768)).min(MAX_CROPS)
                    });
                    tiles.saturating_mul(258)
                }
            },
        }
    }
}

/// Scales a size down until its longer side is so long.
fn fit_long(size: (u64, u64), long: u64) -> (u64, u64) {
    scale(size, size.0.max(size.1), long)
}

/// Scales a size down until its shorter side is so long.
fn fit_short(size: (u64, u64), short: u64) -> (u64, u64) {
    scale(size, size.0.min(size.1), short)
}

fn scale((width, height): (u64, u64), from: u64, to: u64) -> (u64, u64) {
    if from <= to {
        return (width, height);
    }
    let scaled = |side: u64| side.saturating_mul(to).checked_div(from).unwrap_or(side).max(1);
    (scaled(width), scaled(height))
}

/// The size of the picture in a file, of which this is the base64.
pub(super) fn size(base64: &[u8]) -> Option<(u32, u32)> {
    match decoded(base64, 32)?.as_slice() {
        [0xff, 0xd8, ..] => jpeg(&decoded(base64, HEADER_BYTES)?),
        head => of_header(head),
    }
}

/// The first bytes of what this is the base64 of. JSON may write a `/` as `\/`.
pub(super) fn decoded(base64: &[u8], bytes: usize) -> Option<Vec<u8>> {
    let characters = bytes.div_ceil(3).saturating_mul(4);
    let mut clean: Vec<u8> = base64.iter().copied().filter(|b| *b != b'\\').take(characters).collect();
    while clean.last() == Some(&b'=') {
        clean.pop();
    }
    let whole = clean.len().saturating_sub(clean.len().checked_rem(4).unwrap_or(0));
    STANDARD.decode(clean.get(..whole)?).ok()
}

fn of_header(head: &[u8]) -> Option<(u32, u32)> {
    let byte = |at: usize| head.get(at).copied().map(u32::from);
    let big = |at: usize| Some(u32::from_be_bytes(*head.get(at..)?.first_chunk()?));
    let little = |at: usize| Some(u32::from(u16::from_le_bytes(*head.get(at..)?.first_chunk()?)));
    let three = |at: usize| Some(byte(at)? | (byte(at.saturating_add(1))? << 8) | (byte(at.saturating_add(2))? << 16));
    if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Some((big(16)?, big(20)?));
    }
    if head.starts_with(b"GIF8") {
        return Some((little(6)?, little(8)?));
    }
    if !head.starts_with(b"RIFF") || head.get(8..12) != Some(b"WEBP") {
        return None;
    }
    match head.get(12..16)? {
        b"VP8 " => Some((little(26)? & 0x3fff, little(28)? & 0x3fff)),
        b"VP8L" => {
            let bits = u32::from_le_bytes(*head.get(21..)?.first_chunk()?);
            Some(((bits & 0x3fff).saturating_add(1), ((bits >> 14) & 0x3fff).saturating_add(1)))
        }
        b"VP8X" => Some((three(24)?.saturating_add(1), three(27)?.saturating_add(1))),
        _ => None,
    }
}

/// A JPEG says its size in the first "start of frame" segment (ITU T.81, B.2.2).
fn jpeg(file: &[u8]) -> Option<(u32, u32)> {
    let two = |at: usize| Some(u32::from(u16::from_be_bytes(*file.get(at..)?.first_chunk()?)));
    let mut at = 2usize;
    loop {
        if file.get(at) != Some(&0xff) {
            return None;
        }
        let kind = *file.get(at.saturating_add(1))?;
        match kind {
            0xff => at = at.saturating_add(1),
            0x01 | 0xd0..=0xd8 => at = at.saturating_add(2),
            0xc4 | 0xc8 | 0xcc | 0x00..=0xbf | 0xd9..=0xfe => {
                let length = usize::try_from(two(at.saturating_add(2))?).ok()?;
                at = at.saturating_add(2).saturating_add(length.max(2));
            }
            0xc0..=0xcf => return Some((two(at.saturating_add(7))?, two(at.saturating_add(5))?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(file: &[u8]) -> Option<(u32, u32)> {
        size(STANDARD.encode(file).as_bytes())
    }

    #[test]
    fn the_size_is_read_from_the_header() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend([0, 0, 2, 0x80, 0, 0, 1, 0xe0, 8, 6, 0, 0, 0, 9, 9, 9]);
        assert_eq!(of(&png), Some((640, 480)));
        assert_eq!(of(b"GIF89a\x40\x01\xf0\0............................"), Some((320, 240)));
        let webp = |rest: &[u8]| of(&[b"RIFF....WEBP", rest, &[0; 24]].concat());
        assert_eq!(webp(b"VP8X....\0\0\0\0\x7f\x07\0\x37\x04\0"), Some((1920, 1080)));
        assert_eq!(webp(b"VP8L....\x2f\x7f\x02\x78\0"), Some((640, 481)));
        assert_eq!(webp(b"VP8 ....\0\0\0\x9d\x01\x2a\x80\x02\xe0\x01"), Some((640, 480)));
        let preview = [&[0xff, 0xe1, 0x40, 0x02][..], &[0; 0x4000]].concat();
        let mut jpeg = [&[0xff, 0xd8][..], &preview, &[0xff, 0xc2, 0, 17, 8, 1, 0xe0, 2, 0x80, 3, 1, 0x22, 0]].concat();
        assert_eq!(of(&jpeg), Some((640, 480)));
        jpeg.truncate(100);
        assert_eq!(of(&jpeg), None);
        assert_eq!((of(b"%PDF-1.4 ..............................."), of(b"")), (None, None));
        let escaped = STANDARD.encode(&png).replace('/', "\\/");
        assert_eq!(size(escaped.as_bytes()), Some((640, 480)));
    }

    #[test]
    fn the_providers_rules_are_followed() {
        let of = |rule: Rule, width, height| rule.tokens(Picture { size: Some((width, height)), low: false });
        let unknown = |rule: Rule| rule.tokens(Picture { size: None, low: false });
        let large = Rule::Tiles(85, 170);
        assert_eq!((of(large, 1024, 1024), of(large, 2048, 4096), of(large, 512, 512)), (765, 1105, 255));
        assert_eq!((unknown(large), large.tokens(Picture { size: None, low: true })), (1445, 85));
        let small = Rule::Patches(162);
        assert_eq!((of(small, 1024, 1024), of(small, 1800, 2400), unknown(small)), (1659, 2489, 2489));
        assert_eq!(
            (of(Rule::Area, 1000, 1000), of(Rule::Area, 200, 200), of(Rule::Area, 9000, 9000)),
            (1334, 54, 1600)
        );
        assert_eq!((of(Rule::Crops, 384, 384), of(Rule::Crops, 1000, 700), unknown(Rule::Crops)), (258, 516, 4128));
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), start in 0..5usize) {
            let magic: [&[u8]; 5] = [b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBPVP8 ", b"GIF8"];
            let _ = size(&bytes);
            let _ = of(&[magic[start], &bytes].concat());
        }

        #[test]
        fn no_picture_exceeds_the_rules_maximum(width: u32, height: u32) {
            for rule in [Rule::Tiles(85, 170), Rule::Patches(246), Rule::Area, Rule::Crops] {
                let most = rule.tokens(Picture { size: None, low: false });
                let tokens = rule.tokens(Picture { size: Some((width, height)), low: false });
                prop_assert!(tokens <= most);
            }
        }
    }
}
