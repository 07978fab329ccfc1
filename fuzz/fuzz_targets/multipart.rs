//! Forms with the boundary `B`: cuts make no difference, every byte is in a piece, and a form in which a value is
//! replaced is a form that has this value.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llm_gateway::protocol::multipart::{Form, Multipart, MultipartFault, PartHead, Piece, boundary};

const WANTED: &[&str] = &["model", "stream"];

type Read = Result<(Vec<(PartHead, Vec<u8>)>, bool), MultipartFault>;

fn read<'a>(bytes: &[u8], pieces: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut reader = Multipart::new("B");
    let (mut parts, mut raw) = (Vec::<(PartHead, Vec<u8>)>::new(), Vec::new());
    for piece in pieces {
        reader.push(piece, &mut |piece| {
            match piece {
                Piece::Between(bytes) => raw.extend_from_slice(bytes),
                Piece::Head { head, raw: bytes } => {
                    raw.extend_from_slice(bytes);
                    parts.push((head, Vec::new()));
                }
                Piece::Content(bytes) => {
                    raw.extend_from_slice(bytes);
                    parts.last_mut().expect("content comes behind a head").1.extend_from_slice(bytes);
                }
                Piece::PartEnd | Piece::End => {}
            }
            Ok(())
        })?;
    }
    assert_eq!(raw.len() + reader.buffered(), bytes.len());
    assert!(bytes.starts_with(&raw));
    Ok((parts, reader.is_complete()))
}

/// What is sent of a form of which so many bytes are held first.
fn sent(bytes: &[u8], hold: usize, chunk: usize) -> Result<Vec<u8>, MultipartFault> {
    let mut form = Form::new("B", WANTED);
    form.hold(&bytes[..hold])?;
    let (mut out, mut pipe) = form.pipe(Some("another".to_owned()));
    for piece in bytes[hold..].chunks(chunk) {
        pipe.pass(piece, &mut out)?;
    }
    pipe.finish().map(|()| out)
}

fuzz_target!(|input: &[u8]| {
    let Some((bytes, pieces)) = llm_gateway_fuzz::cut(input) else { return };
    let whole = read(bytes, std::iter::once(bytes));
    assert_eq!(read(bytes, pieces), whole);
    let _ = boundary(&String::from_utf8_lossy(bytes));

    let length = usize::from(input[0]);
    let held = sent(bytes, bytes.len(), 1);
    assert_eq!(sent(bytes, length.min(bytes.len()), length.max(1)), held);
    if let (Ok(out), Ok((parts, _))) = (held, whole) {
        let (again, complete) = read(&out, std::iter::once(out.as_slice())).expect("what is sent is a form");
        assert!(complete);
        let others = |parts: &[(PartHead, Vec<u8>)]| {
            parts.iter().filter(|(head, _)| head.name != "model").cloned().collect::<Vec<_>>()
        };
        assert_eq!(others(&again), others(&parts));
        let models: Vec<_> = again.iter().filter(|(head, _)| head.name == "model").map(|(_, value)| value).collect();
        assert_eq!(models, [b"another"]);
    }
});
