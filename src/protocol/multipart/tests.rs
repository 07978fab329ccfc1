#![expect(clippy::arithmetic_side_effects, reason = "tests compute offsets")]
#![expect(clippy::panic_in_result_fn, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

const WANTED: &[&str] = &["model", "stream"];

/// A form with a preamble, padding, an epilogue, and content that is nearly a delimiter.
fn form(model: &str) -> Vec<u8> {
    [
        "preamble\r\n--b--\r--b\r\n--B \t\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a;\\\"b\\\".mp3\"\r\n",
        "Content-Type: audio/mpeg\r\n\r\n\r\n--b\r\n-\r\r\n--\r\n\r\n--B\r\nContent-Disposition:form-data;name=stream\r\n\r\n",
        "true\r\n--B\r\nX-Other: \r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n",
        model,
        "\r\n--B\r\ncontent-disposition: form-data; name=\"empty\"\r\n\r\n\r\n--B-- \r\nepilogue\r\n--B\r\n",
    ]
    .concat()
    .into_bytes()
}

type Parts = Vec<(PartHead, Vec<u8>)>;

/// The parts, the bytes of all pieces, and whether the form is complete.
type Read = Result<(Parts, Vec<u8>, bool), MultipartFault>;

/// Reads a form that comes in these pieces, and checks the order of what comes out.
fn read<'a>(boundary: &str, pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut reader = Multipart::new(boundary);
    let (mut parts, mut bytes, mut is_open, mut ended) = (Parts::new(), Vec::new(), false, false);
    for piece in pieces {
        reader.push(piece, &mut |piece| {
            match piece {
                Piece::Between(raw) => {
                    assert!(!is_open);
                    bytes.extend_from_slice(raw);
                }
                Piece::Head { head, raw } => {
                    assert!(!is_open && !ended);
                    is_open = true;
                    bytes.extend_from_slice(raw);
                    parts.push((head, Vec::new()));
                }
                Piece::Content(raw) => {
                    assert!(is_open && !raw.is_empty());
                    bytes.extend_from_slice(raw);
                    parts.last_mut().unwrap().1.extend_from_slice(raw);
                }
                Piece::PartEnd => {
                    assert!(is_open);
                    is_open = false;
                }
                Piece::End => {
                    assert!(!is_open && !ended);
                    ended = true;
                }
            }
            Ok(())
        })?;
    }
    assert_eq!(ended, reader.is_complete());
    Ok((parts, bytes, ended))
}

fn whole(text: &str) -> Read {
    read("B", [text.as_bytes()])
}

/// A form with one part that has this head.
fn with_head(head: &str) -> Result<PartHead, MultipartFault> {
    whole(&format!("--B\r\n{head}\r\n\r\nx\r\n--B--")).map(|(parts, ..)| parts[0].0.clone())
}

fn malformed<T: std::fmt::Debug>(result: Result<T, MultipartFault>) -> bool {
    matches!(result, Err(MultipartFault::Malformed { .. }))
}

#[test]
fn a_form_is_taken_apart_and_every_byte_of_it_is_in_a_piece() {
    let form = form("m");
    let (parts, bytes, ended) = read("B", [form.as_slice()]).unwrap();
    assert_eq!((bytes, ended), (form, true));
    let head = |name: &str, filename: Option<&str>, content_type: Option<&str>| PartHead {
        name: name.to_owned(),
        filename: filename.map(str::to_owned),
        content_type: content_type.map(str::to_owned),
    };
    assert_eq!(
        parts,
        [
            (head("file", Some("a;\"b\".mp3"), Some("audio/mpeg")), b"\r\n--b\r\n-\r\r\n--\r\n".to_vec()),
            (head("stream", None, None), b"true".to_vec()),
            (head("model", None, None), b"m".to_vec()),
            (head("empty", None, None), Vec::new()),
        ]
    );
}

#[test]
fn every_cut_and_every_two_cuts_give_the_same_parts() {
    let form = form("m");
    let expected = read("B", [form.as_slice()]);
    for first in 0..=form.len() {
        for second in first..=form.len() {
            let cut = read("B", [&form[..first], &form[first..second], &form[second..]]);
            assert_eq!(cut, expected, "cut at {first} and {second}");
        }
    }
    assert_eq!(read("B", form.chunks(1)), expected);
}

#[test]
fn a_form_is_complete_from_its_closing_boundary_on() {
    let form = form("m");
    let close = memmem::find(&form, b"\r\n--B--").unwrap() + 7;
    for at in 0..=form.len() {
        let (_, bytes, ended) = read("B", [&form[..at]]).unwrap();
        assert_eq!(ended, at >= close, "{at}");
        assert!(form.starts_with(&bytes));
        let mut pipe = Form::new("B", WANTED).pipe(Some("x".to_owned())).1;
        pipe.pass(&form[..at], &mut Vec::new()).unwrap();
        assert_eq!(pipe.finish(), if at >= close { Ok(()) } else { Err(MultipartFault::Truncated) });
    }
}

#[test]
fn what_readers_disagree_about_is_refused() {
    for form in [
        "--B\ncontent-disposition: form-data; name=\"a\"\r\n\r\n\r\n--B--",
        "--B\rcontent-disposition: form-data; name=\"a\"\r\n\r\n\r\n--B--",
        "--Bx\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n\r\n--B--",
        "--B -\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n\r\n--B--",
        "--B\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\nx\r\n--Bx\r\n--B--",
        "--B\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n--B--\r\n--B--",
        "--B\r\n\r\nno head\r\n--B--",
        "--B--",
    ] {
        assert!(malformed(whole(form)), "{form:?}");
        assert!(malformed(read("B", form.as_bytes().chunks(1))), "{form:?}");
    }
    for head in [
        "content-type: text/plain",
        "content-disposition: attachment; name=\"a\"",
        "content-disposition: form-data",
        "content-disposition: form-data; name",
        "content-disposition: form-data; name=\"a",
        "content-disposition: form-data; name=\"a\"b",
        "content-disposition: form-data; name=\"mod\\el\"",
        "content-disposition: form-data; name=\"a\\\"b\"",
        "content-disposition: form-data; name=\"a\"; name=\"b\"",
        "content-disposition: form-data; name=\"a\"; name*=utf-8''b",
        "content-disposition: form-data; name=\"a\"; filename=b; filename=c",
        "content-disposition: form-data; name=\"a\"\r\nContent-Disposition: form-data; name=\"b\"",
        "content-disposition: form-data;\r\n name=\"a\"",
        "content-disposition : form-data; name=\"a\"",
        "content-disposition: form-data; name=\"a\"\n\nb",
        "content-disposition: form-data; name=\"a\"\r\nContent-Transfer-Encoding: base64",
        "content-disposition: form-data; name=\"a\"\r\nno colon",
    ] {
        assert!(malformed(with_head(head)), "{head:?}");
    }
    assert!(malformed(read("B", [b"--B\r\ncontent-disposition: form-data; name=\"\xff\"\r\n\r\n".as_slice()])));
}

#[test]
fn heads_of_usual_clients_are_read() {
    for (head, name, filename) in [
        ("Content-Disposition: form-data; name=\"file\"; filename=\"C:\\a\\b.wav\"", "file", Some("C:\\a\\b.wav")),
        ("content-disposition: form-data; filename=\"é.wav\"; name=image[]", "image[]", Some("é.wav")),
        ("Content-Disposition: form-data; name=\"file\"; filename=\"\"", "file", Some("")),
        ("Content-Disposition: Form-Data; NAME=\"a b\" ; filename*=UTF-8''%c3%a9", "a b", Some("")),
        ("Content-Disposition: form-data; name=\"a\";\r\ncontent-transfer-encoding: Binary", "a", None),
        ("Content-Length: 3\r\nContent-Disposition: form-data; name=\"\"", "", None),
    ] {
        let read = with_head(head).unwrap();
        assert_eq!((read.name.as_str(), read.filename.as_deref()), (name, filename), "{head}");
    }
}

#[test]
fn bounds_are_kept() {
    let head = "--B\r\ncontent-disposition: form-data; name=\"a\"\r\n";
    let padded = |bytes: usize| format!("{head}x:{}\r\n\r\n\r\n--B--", "y".repeat(bytes));
    let most = MAX_HEAD_BYTES - (head.len() - 5) - 6;
    assert!(whole(&padded(most)).is_ok());
    assert_eq!(whole(&padded(most + 1)).unwrap_err(), MultipartFault::HeadTooLarge);
    let endless = "y".repeat(2 * MAX_HEAD_BYTES);
    assert_eq!(whole(&format!("{head}{endless}")).unwrap_err(), MultipartFault::HeadTooLarge);
    assert_eq!(whole(&format!("--B{}", " ".repeat(MAX_HEAD_BYTES + 1))).unwrap_err(), MultipartFault::HeadTooLarge);

    let parts = |count: u32| (0..count).map(|_| format!("{head}\r\n\r\n")).collect::<String>() + "--B--";
    assert_eq!(whole(&parts(MAX_PARTS)).unwrap().0.len(), MAX_PARTS as usize);
    assert_eq!(whole(&parts(MAX_PARTS + 1)).unwrap_err(), MultipartFault::TooManyParts);

    // However a form is sent, hardly anything but a head or a delimiter is kept back.
    let mut reader = Multipart::new("B");
    reader.push(format!("{head}\r\n").as_bytes(), &mut |_| Ok(())).unwrap();
    for _ in 0..100 {
        reader.push(&[b'\r'; 1_000], &mut |_| Ok(())).unwrap();
        assert_eq!(reader.buffered(), 1);
    }
}

#[test]
fn after_a_fault_nothing_is_read_however_good_it_is() {
    let mut reader = Multipart::new("B");
    let fault = reader.push(b"--Bx\r\n", &mut |_| Ok(())).unwrap_err();
    assert_eq!(reader.push(&form("m"), &mut |_| panic!("a piece")), Err(fault));
    assert!(!reader.is_complete());
}

#[test]
fn the_boundary_is_read_from_the_content_type() {
    for (content_type, expected) in [
        ("multipart/form-data; boundary=----WebKitFormBoundaryA1", "----WebKitFormBoundaryA1"),
        ("Multipart/Form-Data;charset=utf-8; Boundary=\"a b:c\" ", "a b:c"),
        (&format!("multipart/form-data; boundary={}", "x".repeat(70)), &"x".repeat(70)),
    ] {
        assert_eq!(boundary(content_type).as_deref(), Ok(expected));
    }
    for content_type in [
        "",
        "multipart/form-data",
        "multipart/mixed; boundary=a",
        "application/json; boundary=a",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"\"",
        "multipart/form-data; boundary=\"a ",
        "multipart/form-data; boundary=\"a \"",
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=é",
        "multipart/form-data; boundary=\"a\r\nb\"",
        "multipart/form-data; boundary=a<b",
        &format!("multipart/form-data; boundary={}", "x".repeat(71)),
    ] {
        assert_eq!(boundary(content_type), Err(MultipartFault::Boundary), "{content_type:?}");
    }
}

/// Holds so many bytes, pipes the rest in pieces of `chunk`; all that was sent.
fn sent(form: &[u8], hold: usize, chunk: usize, value: &str) -> Result<Vec<u8>, MultipartFault> {
    let mut held = Form::new("B", WANTED);
    held.hold(&form[..hold])?;
    assert_eq!(held.held(), hold);
    let growth = held.growth(value);
    let (mut out, mut pipe) = held.pipe(Some(value.to_owned()));
    for piece in form[hold..].chunks(chunk) {
        pipe.pass(piece, &mut out)?;
    }
    pipe.finish()?;
    if let Some(growth) = growth {
        assert_eq!(i64::try_from(out.len()), Ok(i64::try_from(form.len()).unwrap() + growth));
    }
    Ok(out)
}

#[test]
fn a_form_passes_with_another_model_wherever_holding_ends() {
    for model in ["gpt", "", "a-rather-long-name"] {
        let form = form(model);
        for hold in 0..=form.len() {
            for chunk in [1, 7, 1_000] {
                let out = sent(&form, hold, chunk, "upstream").unwrap();
                assert_eq!(out, self::form("upstream"), "{model:?} held {hold}");
            }
        }
    }
}

#[test]
fn a_form_without_a_model_gets_one_wherever_holding_ends() {
    let form = b"--B\r\ncontent-disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nx\r\n--B--\r\n";
    let expected = b"--B\r\ncontent-disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nx\r\n--B\r\n\
        content-disposition: form-data; name=\"model\"\r\n\r\nupstream\r\n--B--\r\n";
    for hold in 0..=form.len() {
        assert_eq!(sent(form, hold, 3, "upstream").unwrap(), expected, "held {hold}");
    }
}

#[test]
fn fields_are_known_once_all_of_them_has_come_and_a_held_form_can_be_sent_again() {
    let bytes = form("gpt");
    let known_at = memmem::find(&bytes, b"gpt\r\n--B\r\n").unwrap() + 10;
    let mut held = Form::new("B", WANTED);
    for (at, byte) in bytes.iter().enumerate() {
        let model = held.field("model").unwrap();
        assert_eq!(model, (at >= known_at).then_some("gpt"), "{at}");
        assert_eq!(held.growth("gpt-4").is_some(), at >= known_at, "{at}");
        held.hold(&[*byte]).unwrap();
    }
    assert!(held.is_complete());
    assert_eq!(held.field("stream"), Ok(Some("true")));
    assert_eq!(held.field("file"), Ok(None));
    assert_eq!(held.growth("gpt-4"), Some(2));
    assert_eq!(held.with(Some("one")), form("one"));
    assert_eq!(held.with(Some("another")), form("another"));
}

#[test]
fn a_field_that_is_looked_at_is_one_short_text() {
    let part =
        |head: &str, content: &str| format!("--B\r\ncontent-disposition: form-data; {head}\r\n\r\n{content}\r\n");
    let hold = |parts: &[String]| {
        let mut form = Form::new("B", WANTED);
        form.hold(format!("{}--B--", parts.concat()).as_bytes()).map(|()| form)
    };
    let model = part("name=model", "a");
    assert_eq!(hold(&[model.clone(), model]).unwrap_err(), MultipartFault::Duplicate { name: "model" });
    let file = part("name=\"model\"; filename=\"a\"", "a");
    assert_eq!(hold(&[file]).unwrap_err(), MultipartFault::NotText { name: "model" });
    let long = |bytes| part("name=stream", &"x".repeat(bytes));
    assert!(hold(&[long(4_096)]).is_ok());
    assert_eq!(hold(&[long(4_097)]).unwrap_err(), MultipartFault::FieldTooLarge { name: "stream", max: 4_096 });
    // A second one is refused while it is piped, too.
    let twice = [part("name=model", "a"), part("name=model", "b"), "--B--".to_owned()].concat();
    for at in 0..twice.len() - 40 {
        assert_eq!(sent(twice.as_bytes(), at, 5, "c"), Err(MultipartFault::Duplicate { name: "model" }), "{at}");
    }
    let mut form = Form::new("B", WANTED);
    form.hold(b"--B\r\ncontent-disposition: form-data; name=model\r\n\r\n\xff\r\n--B--").unwrap();
    assert_eq!(form.field("model"), Err(MultipartFault::NotText { name: "model" }));
}

/// Content that looks like parts of a delimiter.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\r".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r\n-".to_vec()),
        Just(b"\r\n--".to_vec()),
        Just(b"\r\n--Bo".to_vec()),
        Just(b"--Bound".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..6),
    ];
    let is_content = |bytes: &Vec<u8>| !bytes.starts_with(b"--Bound") && memmem::find(bytes, b"\r\n--Bound").is_none();
    proptest::collection::vec(piece, 0..8)
        .prop_map(|pieces| pieces.concat())
        .prop_filter("it holds a boundary", is_content)
}

proptest! {
    #[test]
    fn any_parts_come_out_as_they_went_in_wherever_the_bytes_are_cut(
        sent in proptest::collection::vec(("[a-z]{1,8}", content()), 1..5),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut bytes = Vec::new();
        for (name, content) in &sent {
            bytes.extend_from_slice(format!("--Bound\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").as_bytes());
            bytes.extend_from_slice(content);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"--Bound--\r\n");
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let (parts, raw, ended) = read("Bound", at.windows(2).map(|pair| &bytes[pair[0]..pair[1]])).unwrap();
        prop_assert!(ended);
        prop_assert_eq!(&raw, &bytes);
        let read: Vec<_> = parts.into_iter().map(|(head, content)| (head.name, content)).collect();
        prop_assert_eq!(read, sent);
    }

    #[test]
    fn anything_is_read_without_a_panic_and_the_same_in_pieces(
        pieces in proptest::collection::vec(prop_oneof![
            Just(&b"--B"[..]), Just(&b"\r\n--B"[..]), Just(&b"--"[..]), Just(&b"\r\n"[..]), Just(&b"\r\n\r\n"[..]),
            Just(&b"content-disposition: form-data; name=\"model\""[..]), Just(&b"; filename=\"a"[..]), Just(&b" \"x\\"[..]),
        ], 0..16),
    ) {
        let bytes = pieces.concat();
        let expected = read("B", [bytes.as_slice()]);
        prop_assert_eq!(&read("B", bytes.chunks(1)), &expected);
        prop_assert_eq!(&read("B", pieces), &expected);
        let held = sent(&bytes, bytes.len(), 1, "x");
        prop_assert_eq!(sent(&bytes, 0, 1, "x"), held);
        let _ = boundary(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn without_a_value_a_form_passes_as_it_is() {
    let bytes = form("gpt");
    for hold in [0, 10, bytes.len()] {
        let mut held = Form::new("B", WANTED);
        held.hold(&bytes[..hold]).unwrap();
        let (mut out, mut pipe) = held.pipe(None);
        pipe.pass(&bytes[hold..], &mut out).unwrap();
        pipe.finish().unwrap();
        assert_eq!(out, bytes, "held {hold}");
    }
}
