//! Azure's addresses.

use super::super::Target;
use super::responses_request::RESPONSES_PATH;

/// A path below the base URL: as it is, with the version that the operator has named, or, below an address that does not
/// end in `/v1`, that of the model's deployment.
pub(super) fn path(target: Target<'_>, path: &str) -> String {
    let Some(version) = &target.provider.api_version else { return path.to_owned() };
    match path {
        _ if target.provider.by_deployment().is_none() => format!("{path}?api-version={version}"),
        // Responses, and what is below them, name their model in the body or not at all.
        _ if path.strip_prefix(RESPONSES_PATH).is_some_and(|more| more.is_empty() || more.starts_with('/')) => {
            format!("/openai{path}?api-version={version}")
        }
        _ => {
            let deployment: String = url::form_urlencoded::byte_serialize(target.upstream_model.as_bytes()).collect();
            let deployment = deployment.replace('+', "%20");
            format!("/openai/deployments/{deployment}{path}?api-version={version}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Provider, StructuredOutput};
    use serde_json::json;

    #[test]
    fn a_deployment_has_an_address_of_its_own() {
        let found = |base: &str, version: Option<&str>, at: &str| {
            let provider = json!({"preset": "azure", "base_url": base, "api_version": version});
            let provider: Provider = serde_json::from_value(provider).unwrap();
            let structured_output = StructuredOutput::Native;
            let target = Target {
                provider: &provider,
                upstream_model: "my dep",
                max_output_tokens: 1,
                structured_output,
                strict_params: false,
            };
            path(target, at)
        };
        let (v1, classic) = ("https://r.openai.azure.com/openai/v1/", "https://r.openai.azure.com");
        assert_eq!(found(v1, None, "/chat/completions"), "/chat/completions");
        assert_eq!(found(v1, Some("preview"), "/responses"), "/responses?api-version=preview");
        let deployed = "/openai/deployments/my%20dep/chat/completions?api-version=2024-10-21";
        assert_eq!(found(classic, Some("2024-10-21"), "/chat/completions"), deployed);
        let responses = "/openai/responses?api-version=2025-04-01-preview";
        assert_eq!(found(classic, Some("2025-04-01-preview"), RESPONSES_PATH), responses);
        let cancel = "/openai/responses/resp_1/cancel?api-version=2025-04-01-preview";
        assert_eq!(found(classic, Some("2025-04-01-preview"), "/responses/resp_1/cancel"), cancel);
    }
}
