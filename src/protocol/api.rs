//! The APIs that callers speak.

/// An API that callers speak and providers serve. The paths are the gateway's; a provider's is the same below a base URL
/// that ends in `/v1`, where it speaks the API itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Api {
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `POST /v1/messages`
    Messages,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/messages/count_tokens`
    CountTokens,
    /// `POST /v1/responses/input_tokens`
    InputTokens,
    /// `POST /v1/embeddings`
    Embeddings,
    /// `POST /v1/moderations`
    Moderations,
    /// `POST /v1/rerank`
    Rerank,
    /// `POST /v1/images/generations`
    ImageGeneration,
    /// `POST /v1/images/edits`
    ImageEdit,
    /// `POST /v1/audio/speech`
    Speech,
    /// `POST /v1/audio/transcriptions`
    Transcription,
    /// `POST /v1/audio/translations`
    Translation,
}

impl Api {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::ChatCompletions,
        Self::Messages,
        Self::Responses,
        Self::Completions,
        Self::CountTokens,
        Self::InputTokens,
        Self::Embeddings,
        Self::Moderations,
        Self::Rerank,
        Self::ImageGeneration,
        Self::ImageEdit,
        Self::Speech,
        Self::Transcription,
        Self::Translation,
    ];

    /// The gateway's path.
    pub fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Messages => "/v1/messages",
            Self::Responses => "/v1/responses",
            Self::Completions => "/v1/completions",
            Self::CountTokens => "/v1/messages/count_tokens",
            Self::InputTokens => "/v1/responses/input_tokens",
            Self::Embeddings => "/v1/embeddings",
            Self::Moderations => "/v1/moderations",
            Self::Rerank => "/v1/rerank",
            Self::ImageGeneration => "/v1/images/generations",
            Self::ImageEdit => "/v1/images/edits",
            Self::Speech => "/v1/audio/speech",
            Self::Transcription => "/v1/audio/transcriptions",
            Self::Translation => "/v1/audio/translations",
        }
    }

    /// The path below a provider's base URL that ends in `/v1`.
    pub fn upstream_path(self) -> &'static str {
        self.path().strip_prefix("/v1").unwrap_or_default()
    }

    /// Whether a model converses in it, so that it can be translated from and to every other one of which that is true.
    pub fn is_chat(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Messages | Self::Responses | Self::Completions)
    }

    /// Whether it is one of those of OpenAI's that are neither chat nor about it.
    pub fn is_side(self) -> bool {
        !self.is_chat() && !self.is_count()
    }

    /// Whether it tells how many tokens a request has, and no more.
    pub fn is_count(self) -> bool {
        matches!(self, Self::CountTokens | Self::InputTokens)
    }

    /// The API whose requests it takes: for one that counts, the one whose tokens are counted.
    pub fn of_requests(self) -> Self {
        match self {
            Self::CountTokens => Self::Messages,
            Self::InputTokens => Self::Responses,
            api => api,
        }
    }

    /// Whether its requests may come as forms.
    pub fn takes_forms(self) -> bool {
        matches!(self, Self::ImageEdit | Self::Transcription | Self::Translation)
    }

    fn bit(self) -> u16 {
        1u16.checked_shl(u32::from(self as u8)).unwrap_or_default()
    }
}

/// Several of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Apis(u16);

impl Apis {
    /// Each of them, in the order of [`Api::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Api> {
        Api::ALL.into_iter().filter(move |api| self.0 & api.bit() != 0)
    }

    /// These and the others.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

impl FromIterator<Api> for Apis {
    fn from_iter<I: IntoIterator<Item = Api>>(apis: I) -> Self {
        Self(apis.into_iter().fold(0, |bits, api| bits | api.bit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_path_of_its_own() {
        let paths: std::collections::BTreeSet<_> = Api::ALL.iter().map(|api| api.path()).collect();
        assert_eq!(paths.len(), Api::ALL.len());
        assert!(paths.iter().all(|path| path.starts_with("/v1/")));
        assert_eq!(Api::Speech.upstream_path(), "/audio/speech");
        let sides = Api::ALL.into_iter().filter(|api| api.is_side());
        assert_eq!(sides.count(), 8);
        assert_eq!(Api::ALL.into_iter().filter(|api| api.takes_forms()).count(), 3);
        let some: Apis = [Api::Translation, Api::Rerank].into_iter().collect();
        let more = some.and(Api::ALL.into_iter().filter(|api| api.is_chat()).collect());
        assert_eq!(some.iter().collect::<Vec<_>>(), [Api::Rerank, Api::Translation]);
        assert_eq!(more.iter().count(), 6);
    }
}
