//! Proofs of reasoning that belong to a call or to a text (Gemini's). The API has no place for them but the signature
//! of a thinking block: they stand in one without text, followed by what they belong to.

use crate::protocol::chat::{Lineage, Signature};

/// What a proof belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// The call at this position among the message's calls.
    Call(u32),
    /// The text before it.
    Text,
}

/// The signature that tells the proof and what it belongs to; `None` for a family that has no such proofs.
pub(super) fn write(proof: &Signature, of: Of) -> Option<String> {
    let envelope = (proof.family != Lineage::Anthropic).then(|| proof.write(Lineage::Anthropic))?;
    Some(match of {
        Of::Call(nth) => format!("{envelope}.c{nth}"),
        Of::Text => format!("{envelope}.t"),
    })
}

/// Reads what [`write`] wrote; `None` for any other signature.
pub(super) fn read(signature: &str) -> Option<(Signature, Of)> {
    let (envelope, of) = signature.rsplit_once('.')?;
    let of = match of.strip_prefix('c') {
        Some(nth) => Of::Call(nth.parse().ok()?),
        None if of == "t" => Of::Text,
        None => return None,
    };
    let proof = Signature::read(envelope, Lineage::Anthropic);
    (proof.family != Lineage::Anthropic).then_some((proof, of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_proof_finds_back_to_what_it_belongs_to(value in any::<String>(), nth in any::<Option<u32>>()) {
            let proof = Signature { family: Lineage::Gemini, value };
            let of = nth.map_or(Of::Text, Of::Call);
            prop_assert_eq!(read(&write(&proof, of).unwrap()), Some((proof.clone(), of)));
            prop_assert_eq!(read(&proof.write(Lineage::Anthropic)), None);
        }

        #[test]
        fn other_signatures_are_no_such_proofs(signature in "[A-Za-z0-9+/=]{0,80}") {
            prop_assert_eq!(read(&signature), None);
        }
    }
}
