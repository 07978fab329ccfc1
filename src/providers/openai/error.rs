//! Errors of providers that speak as OpenAI does.

use serde_json::Value;

use super::super::ReportedError;
use super::super::preset::Row;

/// Reads an error's body. Most nest the error; some (vLLM, Cerebras, Mistral) put its fields at the top, some say it in
/// a text beside the code (xAI), some in a list (Cloudflare).
pub(super) fn read(body: &Value, row: &Row) -> ReportedError {
    let listed = body.pointer("/errors/0");
    let error = body.get("error").or(listed).unwrap_or(body);
    let text = |field: &str| [error, body].into_iter().find_map(|place| said(place.get(field)?));
    let own = |field: &str| said(error.get(field)?);
    // Azure's outer word is mostly OpenAI's; what is blocked says so within.
    let code = own("code").or_else(|| own("type")).or_else(|| text("code")).or_else(|| text("type"));
    ReportedError {
        message: own("message")
            .or_else(|| error.as_str().map(str::to_owned))
            .or_else(|| listed_faults(body))
            .or_else(|| said(body.get("detail")?)),
        code: code.map(|code| row.code(code)),
        param: own("param"),
        ..ReportedError::default()
    }
}

fn said(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// What a validation has found, place by place: `{detail: [{loc, msg}]}`, also within `message` (Mistral).
fn listed_faults(body: &Value) -> Option<String> {
    let detail =
        ["/message/detail", "/error/message/detail", "/detail"].iter().find_map(|at| body.pointer(at)?.as_array())?;
    let faults = detail.iter().filter_map(|fault| {
        let place = fault.get("loc").and_then(Value::as_array).into_iter().flatten().filter_map(said);
        let place: Vec<String> = place.filter(|step| step != "body").collect();
        Some(format!("{}: {}", place.join("."), fault.get("msg")?.as_str()?))
    });
    let faults: Vec<String> = faults.collect();
    (!faults.is_empty()).then(|| faults.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Preset;
    use crate::providers::preset;
    use serde_json::json;

    #[test]
    fn every_provider_s_errors_are_read() {
        let read = |preset, body: Value| {
            let read = read(&body, preset::row(preset));
            (read.code.unwrap_or_default(), read.message.unwrap_or_default())
        };
        for (preset, body, code, message) in [
            (Preset::OpenAi, json!({"error": {"message": "m", "type": "t", "code": "c"}}), "c", "m"),
            (Preset::OpenAi, json!({"error": {"message": "m", "type": "t", "code": null}}), "t", "m"),
            (Preset::Xai, json!({"code": "invalid-argument", "error": "m"}), "invalid-argument", "m"),
            (Preset::LmStudio, json!({"error": "m"}), "", "m"),
            (Preset::Vllm, json!({"object": "error", "message": "m", "type": "T", "code": 404}), "404", "m"),
            (Preset::Zhipu, json!({"error": {"code": "1261", "message": "m"}}), "context_length_exceeded", "m"),
            (Preset::Zai, json!({"error": {"code": "1113", "message": "m"}}), "insufficient_quota", "m"),
            (
                Preset::WorkersAi,
                json!({"errors": [{"code": 3036, "message": "m"}], "success": false}),
                "insufficient_quota",
                "m",
            ),
            (
                Preset::Mistral,
                json!({"object": "error", "message": {"detail": [{"loc": ["body", "seed"], "msg": "no"}]}, "type": "t"}),
                "t",
                "seed: no",
            ),
            (Preset::Mistral, json!({"detail": [{"loc": ["body", "x", 1], "msg": "no"}]}), "", "x.1: no"),
            (Preset::OpenAi, json!({"detail": "m"}), "", "m"),
        ] {
            assert_eq!(read(preset, body), (code.to_owned(), message.to_owned()), "{preset:?}");
        }
    }
}
