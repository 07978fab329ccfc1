//! What the targets share.

/// The bytes of an input behind its first, and the same cut into pieces whose length that first byte says.
pub fn cut(input: &[u8]) -> Option<(&[u8], std::slice::Chunks<'_, u8>)> {
    let (length, bytes) = input.split_first()?;
    Some((bytes, bytes.chunks(usize::from(*length).max(1))))
}
