//! Embeddings of Google's models: the Gemini API's `batchEmbedContents`, Vertex AI's `predict` and, for the newer models
//! there, `embedContent`.

use serde_json::{Map, Value, json};

use super::embeddings::{self, Asked};
use super::{Side, SideAsked};
use crate::error::Problem;
use crate::protocol::chat::ReplyFault;
use crate::protocol::usage::{Told, Usage};
use crate::providers::gemini::Host;
use crate::providers::notes::Notes;
use crate::providers::{Target, UpstreamRequest};

/// Members of Google's own that callers may send.
const EXTRAS: &[&str] = &["task_type", "title"];

/// Embeddings of a model.
pub fn embeddings(host: Host, upstream_model: &str) -> &'static dyn Side {
    let name = upstream_model.rsplit('/').next().unwrap_or_default();
    match host {
        Host::GeminiApi => &Google { form: Form::Batch, most: 100 },
        Host::Vertex if name.starts_with("gemini-embedding-2") => &Google { form: Form::Content, most: 1 },
        Host::Vertex => &Google { form: Form::Predict, most: 250 },
    }
}

struct Google {
    form: Form,
    /// Texts in one request.
    most: usize,
}

#[derive(Clone, Copy)]
enum Form {
    Batch,
    Content,
    Predict,
}

impl Side for Google {
    fn request(&self, body: &Value, target: Target<'_>, notes: &mut Notes) -> Result<UpstreamRequest, Problem> {
        let asked = Asked::read(body, self.most, EXTRAS, notes)?;
        let (task, title, dimensions) = (asked.text("task_type")?, asked.text("title")?, asked.dimensions);
        let model = target.upstream_model;
        let content = |text: &str| {
            let mut one = json!({"content": {"parts": [{"text": text}]}});
            set(&mut one, [("taskType", task.map(Value::from)), ("title", title.map(Value::from))]);
            set(&mut one, [("outputDimensionality", dimensions.map(Value::from))]);
            one
        };
        let (method, body) = match self.form {
            Form::Batch => {
                let name = if model.contains('/') { model.to_owned() } else { format!("models/{model}") };
                let one = |text: &&str| {
                    let mut one = content(text);
                    set(&mut one, [("model", Some(json!(name)))]);
                    one
                };
                ("batchEmbedContents", json!({"requests": asked.texts.iter().map(one).collect::<Vec<_>>()}))
            }
            Form::Content => ("embedContent", asked.texts.first().map(|text| content(text)).unwrap_or_default()),
            Form::Predict => {
                let one = |text: &&str| {
                    let mut one = json!({"content": text});
                    set(&mut one, [("task_type", task.map(Value::from)), ("title", title.map(Value::from))]);
                    one
                };
                let mut body = json!({"instances": asked.texts.iter().map(one).collect::<Vec<_>>()});
                let parameters = dimensions.map(|dimensions| json!({"outputDimensionality": dimensions}));
                set(&mut body, [("parameters", parameters)]);
                ("predict", body)
            }
        };
        let host = if matches!(self.form, Form::Batch) { "/models" } else { "/publishers/google/models" };
        let path = if model.contains('/') { format!("/{model}:{method}") } else { format!("{host}/{model}:{method}") };
        Ok(UpstreamRequest::post(path, body.to_string().into_bytes()))
    }

    fn reply(&self, body: &Value, asked: &SideAsked<'_>) -> Result<(Value, Option<Told>), ReplyFault> {
        let list = |name: &str| body.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let vectors: Vec<&Value> = match self.form {
            Form::Batch => list("embeddings").iter().filter_map(|it| it.get("values")).collect(),
            Form::Content => body.pointer("/embedding/values").into_iter().collect(),
            Form::Predict => list("predictions").iter().filter_map(|it| it.pointer("/embeddings/values")).collect(),
        };
        let usage = match self.form {
            Form::Predict => {
                let count = |it: &Value| it.pointer("/embeddings/statistics/token_count")?.as_f64();
                let counts: Option<Vec<f64>> = list("predictions").iter().map(count).collect();
                counts.map(|counts| Usage { input: counts.iter().sum::<f64>().max(0.0) as u64, ..Usage::default() })
            }
            Form::Batch | Form::Content => body.get("usageMetadata").and_then(Usage::from_gemini),
        };
        embeddings::reply(&vectors, usage.map(Told::from), asked)
    }

    fn echo(&self, body: &Value) -> Map<String, Value> {
        embeddings::echo(body)
    }
}

/// Adds the members that have a value.
fn set<const N: usize>(object: &mut Value, members: [(&str, Option<Value>); N]) {
    if let Some(object) = object.as_object_mut() {
        let given = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        object.extend(given);
    }
}
