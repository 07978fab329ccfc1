//! What a Hub knows. Everything is pushed with a number and kept only if it is higher than what is known: a push that
//! comes late, twice or out of order changes nothing.

use serde_json::value::RawValue;

use super::wire::{Have, HubStatus, Numbered, State};

/// The documents that a Hub has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The configuration's snapshot.
    Config,
    /// The sealed provider credentials.
    Credentials,
    /// The public keys of the gateway's own tokens.
    Keys,
    /// What operators have set of providers: [`ProviderStates`](super::wire::ProviderStates).
    ProviderStates,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Config, Self::Credentials, Self::Keys, Self::ProviderStates];

    /// The name in storage and in paths.
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Credentials => "credentials",
            Self::Keys => "keys",
            Self::ProviderStates => "provider_states",
        }
    }

    /// The kind of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A document as it was pushed.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its sequence or revision; from 1.
    pub number: u64,
    /// Its version, where it has one.
    pub version: String,
    /// The document.
    pub json: Box<RawValue>,
}

/// A Hub's documents.
#[derive(Debug, Default)]
pub struct HubState {
    config: Option<Document>,
    credentials: Option<Document>,
    keys: Option<Document>,
    provider_states: Option<Document>,
    purge_epoch: u64,
}

impl HubState {
    /// Takes a document in; whether it was news. The result is the number that counts now.
    pub fn put(&mut self, kind: Kind, document: Document) -> (bool, u64) {
        let slot = match kind {
            Kind::Config => &mut self.config,
            Kind::Credentials => &mut self.credentials,
            Kind::Keys => &mut self.keys,
            Kind::ProviderStates => &mut self.provider_states,
        };
        let known = slot.as_ref().map_or(0, |known| known.number);
        if document.number <= known {
            return (false, known);
        }
        let number = document.number;
        *slot = Some(document);
        (true, number)
    }

    /// Takes a purge epoch in; whether it was news. The result is the epoch that counts now.
    pub fn purge(&mut self, epoch: u64) -> (bool, u64) {
        let news = epoch > self.purge_epoch;
        self.purge_epoch = self.purge_epoch.max(epoch);
        (news, self.purge_epoch)
    }

    /// What the asker does not have.
    pub fn state(&self, have: &Have) -> State {
        let numbered = |document: &Document| Numbered { number: document.number, document: document.json.clone() };
        let other_than = |document: &Option<Document>, number: u64| {
            document.as_ref().filter(|document| document.number != number).map(numbered)
        };
        State {
            config_sequence: self.config.as_ref().map_or(0, |config| config.number),
            config: self.config.as_ref().filter(|config| config.version != have.config).map(numbered),
            credentials: other_than(&self.credentials, have.credentials),
            keys: other_than(&self.keys, have.keys),
            provider_states: other_than(&self.provider_states, have.provider_states),
            purge_epoch: self.purge_epoch,
        }
    }

    /// What it is at.
    pub fn status(&self, stored_bytes: u64) -> HubStatus {
        let number = |document: &Option<Document>| document.as_ref().map_or(0, |document| document.number);
        HubStatus {
            config_version: self.config.as_ref().map(|config| config.version.clone()).unwrap_or_default(),
            config_sequence: number(&self.config),
            credentials_revision: number(&self.credentials),
            keys_revision: number(&self.keys),
            provider_states_revision: number(&self.provider_states),
            purge_epoch: self.purge_epoch,
            stored_bytes,
        }
    }
}

/// Divides a text into parts of at most `bytes` bytes, for storage whose cells are bounded.
pub fn parts(text: &str, bytes: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        // A character has four bytes at most, so with eight or more there is always progress.
        let mut at = bytes.max(8).min(rest.len());
        while !rest.is_char_boundary(at) {
            at = at.saturating_sub(1);
        }
        let (part, more) = rest.split_at_checked(at).unwrap_or((rest, ""));
        parts.push(part);
        rest = more;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn document(number: u64) -> Document {
        let json = RawValue::from_string(format!("{{\"n\":{number}}}")).unwrap();
        Document { number, version: format!("v{number}"), json }
    }

    #[test]
    fn only_what_differs_is_told() {
        let mut hub = HubState::default();
        let nothing = hub.state(&Have::default());
        assert!(nothing.config.is_none() && nothing.credentials.is_none() && nothing.config_sequence == 0);
        hub.put(Kind::Config, document(2));
        hub.put(Kind::Credentials, document(5));
        let all = hub.state(&Have::default());
        assert_eq!(all.config.unwrap().document.get(), "{\"n\":2}");
        assert_eq!(all.credentials.unwrap().number, 5);
        let have = Have { config: "v2".into(), credentials: 5, ..Have::default() };
        assert_eq!(
            serde_json::to_string(&hub.state(&have)).unwrap(),
            "{\"config_sequence\":2,\"purge_epoch\":0}",
            "an isolate that is up to date gets a short answer"
        );
        assert!(hub.state(&Have { config: "of another deployment".into(), ..have }).config.is_some());
    }

    #[test]
    fn the_purge_epoch_only_grows() {
        let mut hub = HubState::default();
        assert_eq!((hub.purge(3), hub.purge(2), hub.purge(3)), ((true, 3), (false, 3), (false, 3)));
    }

    proptest! {
        #[test]
        fn the_highest_number_wins_in_any_order(numbers in proptest::collection::vec(1..20u64, 1..20)) {
            let mut hub = HubState::default();
            for number in &numbers {
                hub.put(Kind::Keys, document(*number));
            }
            prop_assert_eq!(hub.status(0).keys_revision, *numbers.iter().max().unwrap());
        }

        #[test]
        fn parts_are_bounded_and_make_the_whole(text in "\\PC{0,200}", bytes in 1..64usize) {
            let parts = parts(&text, bytes);
            prop_assert_eq!(&parts.concat(), &text);
            prop_assert!(parts.iter().all(|part| !part.is_empty() && part.len() <= bytes.max(8)));
        }
    }
}
