//! What a piece of text weighs in tokens, told from its words' lengths and its letters' scripts.
//!
//! Tokenizers of today's models agree in what they do with a text before they look anything up: words with the space
//! before them, digits in threes, runs of punctuation and of white space. How many tokens such a run becomes depends on
//! its length far more than on what it says. The weights were fitted to OpenAI's `o200k_base` over 1,000 pieces of text in
//! 40 languages, program code and data; `docs/limits.md` has the error. They are thousandths of a token.

/// Thousandths of tokens, by what tokenizers differ in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// Latin letters, digits, punctuation and white space.
    pub western: u64,
    /// Other scripts that write letter by letter: Cyrillic, Arabic, Devanagari, Thai and so on.
    pub alphabets: u64,
    /// Chinese, Japanese, Korean.
    pub cjk: u64,
}

/// A word of lower-case ASCII letters, by its length; the last is for twelve letters.
const WORD: [u64; 13] = [0, 1_100, 720, 800, 800, 1_130, 1_260, 1_200, 1_260, 1_630, 1_830, 1_980, 2_150];
/// Each letter beyond the twelfth.
const LONG_WORD: u64 = 600;
/// Each letter of a word in capitals.
const CAPITAL: u64 = 290;
/// Each letter of a word that has an accent.
const ACCENTED: u64 = 450;
/// A run of letters beside digits (hexadecimal numbers, identifiers, base64), and each of its letters.
const MIXED: (u64, u64) = (200, 600);
/// Up to three digits, and the space before them, which no digit takes in.
const DIGITS: u64 = 1_090;
const SPACE_BEFORE_DIGIT: u64 = 850;
/// A run of punctuation, by its length; each character beyond the fourth.
const PUNCTUATION: [u64; 5] = [0, 780, 990, 1_000, 1_650];
const LONG_PUNCTUATION: u64 = 300;
/// Four or more of the same character, as in a ruled line.
const REPEATED: u64 = 1_000;
/// Two spaces or more, as in an indentation.
const SPACES: u64 = 1_050;
/// An end of a line, with the white space around it.
const LINE: u64 = 920;
/// A character that nothing is known of.
const UNKNOWN: u64 = 1_000;

/// What a character outside ASCII belongs to.
#[derive(Clone, Copy)]
enum Script {
    Latin,
    Western(u64),
    Alphabet(u64),
    Cjk(u64),
}

/// Weighs the inside of a JSON string, its escapes being what they stand for. Any bytes will do.
pub fn weigh(text: &[u8]) -> Weight {
    let mut scale = Scale { text, at: 0, after_digit: false, weight: Weight::default() };
    while let Some(&byte) = text.get(scale.at) {
        scale.run(byte);
    }
    scale.weight
}

struct Scale<'a> {
    text: &'a [u8],
    at: usize,
    /// Whether a digit stands just before.
    after_digit: bool,
    weight: Weight,
}

impl Scale<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn advance(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes);
    }

    fn western(&mut self, milli: u64) {
        self.weight.western = self.weight.western.saturating_add(milli);
    }

    /// Weighs the run that begins with this byte.
    fn run(&mut self, byte: u8) {
        let after_digit = std::mem::take(&mut self.after_digit);
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => self.word(after_digit),
            b'0'..=b'9' => {
                let start = self.at;
                while self.peek().is_some_and(|b| b.is_ascii_digit()) {
                    self.advance(1);
                }
                self.after_digit = true;
                self.western(DIGITS.saturating_mul(to_u64(self.at.saturating_sub(start)).div_ceil(3)));
            }
            b' ' => {
                let start = self.at;
                while self.peek() == Some(b' ') {
                    self.advance(1);
                }
                if self.at.saturating_sub(start) > 1 {
                    self.western(SPACES);
                } else if self.peek().is_some_and(|b| b.is_ascii_digit()) {
                    self.western(SPACE_BEFORE_DIGIT);
                }
            }
            0..0x20 => self.line(),
            b'\\' if matches!(self.text.get(self.at.saturating_add(1)), Some(b'n' | b'r' | b't')) => self.line(),
            b'\\' if self.text.get(self.at.saturating_add(1)) == Some(&b'u') => self.character(after_digit),
            0x80.. => self.character(after_digit),
            _ => self.punctuation(byte),
        }
    }

    /// Ends of lines and the white space about them.
    fn line(&mut self) {
        loop {
            match (self.peek(), self.text.get(self.at.saturating_add(1))) {
                (Some(0..=0x20), _) => self.advance(1),
                (Some(b'\\'), Some(b'n' | b'r' | b't')) => self.advance(2),
                _ => break,
            }
        }
        self.western(LINE);
    }

    fn punctuation(&mut self, first: u8) {
        let start = self.at;
        while self.peek() == Some(first) && first != b'\\' {
            self.advance(1);
        }
        if self.at.saturating_sub(start) >= 4 {
            return self.western(REPEATED);
        }
        let mut length = self.at.saturating_sub(start);
        loop {
            match (self.peek(), self.text.get(self.at.saturating_add(1))) {
                (Some(b'\\'), Some(b'n' | b'r' | b't' | b'u')) => break,
                (Some(b'\\'), Some(_)) => self.advance(2),
                (Some(b'!'..=b'/' | b':'..=b'@' | b'['..=b'`' | b'{'..=0x7f), _) => self.advance(1),
                _ => break,
            }
            length = length.saturating_add(1);
        }
        let beyond = LONG_PUNCTUATION.saturating_mul(to_u64(length.saturating_sub(4)));
        self.western(of(&PUNCTUATION, length).saturating_add(beyond));
    }

    fn word(&mut self, after_digit: bool) {
        let (mut letters, mut accents, mut capitals) = (0usize, 0usize, 0usize);
        loop {
            match self.peek() {
                Some(b'a'..=b'z') => self.advance(1),
                // A capital within a word begins another one.
                Some(b'A'..=b'Z') if letters > capitals => break,
                Some(b'A'..=b'Z') => {
                    capitals = capitals.saturating_add(1);
                    self.advance(1);
                }
                Some(b'\\' | 0x80..) => match self.decode() {
                    Some((bytes, code)) if matches!(script(code), Script::Latin) => {
                        accents = accents.saturating_add(1);
                        self.advance(bytes);
                    }
                    _ => break,
                },
                _ => break,
            }
            letters = letters.saturating_add(1);
        }
        let beside_digits = after_digit || self.peek().is_some_and(|b| b.is_ascii_digit());
        let each = |milli: u64| milli.saturating_mul(to_u64(letters));
        self.western(match () {
            () if beside_digits => MIXED.0.saturating_add(each(MIXED.1)),
            () if accents > 0 => each(ACCENTED),
            () if capitals == letters && letters > 1 => each(CAPITAL),
            () => of(&WORD, letters).saturating_add(LONG_WORD.saturating_mul(to_u64(letters.saturating_sub(12)))),
        });
    }

    /// A character outside ASCII, or one that is written as `\uXXXX`.
    fn character(&mut self, after_digit: bool) {
        let Some((bytes, code)) = self.decode() else {
            self.advance(1);
            return self.western(UNKNOWN);
        };
        match script(code) {
            Script::Latin => self.word(after_digit),
            Script::Western(milli) => {
                self.advance(bytes);
                self.western(milli);
            }
            Script::Alphabet(milli) => {
                self.advance(bytes);
                self.weight.alphabets = self.weight.alphabets.saturating_add(milli);
            }
            Script::Cjk(milli) => {
                self.advance(bytes);
                self.weight.cjk = self.weight.cjk.saturating_add(milli);
            }
        }
    }

    /// The character here, and how many bytes it takes. Half a surrogate pair counts as a character beyond the basic
    /// plane, and its other half as nothing.
    fn decode(&self) -> Option<(usize, u32)> {
        let byte = |ahead: usize| self.text.get(self.at.saturating_add(ahead)).copied();
        let rest = |ahead: usize| byte(ahead).filter(|b| b & 0xc0 == 0x80).map(|b| u32::from(b & 0x3f));
        let first = byte(0)?;
        match first {
            b'\\' if byte(1) == Some(b'u') => {
                let digit = |ahead: usize| byte(ahead).and_then(|b| char::from(b).to_digit(16));
                let code = [digit(2)?, digit(3)?, digit(4)?, digit(5)?].iter().fold(0u32, |code, d| (code << 4) | d);
                Some((6, code))
            }
            0xc2..0xe0 => Some((2, (u32::from(first & 0x1f) << 6) | rest(1)?)),
            0xe0..0xf0 => Some((3, (u32::from(first & 0x0f) << 12) | (rest(1)? << 6) | rest(2)?)),
            0xf0..0xf5 => {
                let high = (u32::from(first & 0x07) << 18) | (rest(1)? << 12);
                Some((4, high | (rest(2)? << 6) | rest(3)?))
            }
            _ => None,
        }
    }
}

fn script(code: u32) -> Script {
    match code {
        0..0xc0 => Script::Western(1_000),
        0xc0..0x250 | 0x1e00..0x1f00 => Script::Latin,
        0x250..0x370 => Script::Western(1_000),
        0x370..0x400 | 0x1f00..0x2000 => Script::Alphabet(400),
        0x400..0x530 => Script::Alphabet(320),
        0x530..0x590 | 0x10a0..0x1100 => Script::Alphabet(380),
        0x590..0x600 => Script::Alphabet(380),
        0x600..0x900 => Script::Alphabet(360),
        0x900..0xe00 => Script::Alphabet(420),
        0xe00..0x10a0 => Script::Alphabet(420),
        0x1100..0x1200 | 0xac00..0xd7b0 => Script::Cjk(760),
        0x2000..0x2070 => Script::Western(1_200),
        0x2070..0x3000 => Script::Western(1_100),
        0x3000..0x3040 | 0xff00..0xfff0 => Script::Cjk(900),
        0x3040..0x3100 => Script::Cjk(680),
        0x3400..0xa000 | 0xf900..0xfb00 => Script::Cjk(900),
        // The second half of a surrogate pair.
        0xdc00..0xe000 => Script::Western(0),
        0xd800..0xdc00 | 0x1_0000.. => Script::Western(2_250),
        _ => Script::Western(UNKNOWN),
    }
}

/// The entry for this length, or the last one.
fn of(table: &[u64], length: usize) -> u64 {
    table.get(length).or(table.last()).copied().unwrap_or(0)
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
