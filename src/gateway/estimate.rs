//! How many tokens a request is about to use, before anybody has counted them.

/// Bytes of JSON that make a token, roughly.
pub const BYTES_PER_TOKEN: u64 = 4;

/// A run of so many characters of base64 is no text but an image, a sound or a file.
const ATTACHMENT_BYTES: u64 = 1024;

/// What is known of a request's input.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Its body.
    Body(&'a [u8]),
    /// Its number of tokens.
    Tokens(u64),
}

impl Input<'_> {
    /// About how many tokens it is. What is attached in base64 is left out: how much it counts only the provider knows.
    pub fn tokens(self) -> u64 {
        match self {
            Self::Body(body) => text_bytes(body).div_ceil(BYTES_PER_TOKEN),
            Self::Tokens(tokens) => tokens,
        }
    }
}

fn text_bytes(body: &[u8]) -> u64 {
    let (mut text, mut run) = (0u64, 0u64);
    let of_a_run = |run: u64| if run >= ATTACHMENT_BYTES { 0 } else { run };
    for byte in body {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=' | b'\\') {
            run = run.saturating_add(1);
        } else {
            text = text.saturating_add(of_a_run(run)).saturating_add(1);
            run = 0;
        }
    }
    text.saturating_add(of_a_run(run))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_counted_and_attachments_are_not() {
        assert_eq!(Input::Body(b"").tokens(), 0);
        assert_eq!(Input::Body(b"one two three four").tokens(), 5);
        let image = format!("{{\"url\": \"data:image/png;base64,{}\"}}", "iVBORw0KGgo+/".repeat(1000));
        assert!(Input::Body(image.as_bytes()).tokens() < 15);
        let words = "word ".repeat(4000);
        assert_eq!(Input::Body(words.as_bytes()).tokens(), 5000);
        assert_eq!(Input::Tokens(7).tokens(), 7);
    }
}
