//! A request to Workers AI by the Worker's binding, which is a function and not an address.

use js_sys::{JSON, Object, Reflect};
use serde_json::json;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{ResponseInit, StreamPipeOptions};
use worker::{AbortSignal, Env, Response};

use crate::error::{Kind, Problem};
use crate::gateway::attempt::Failed;
use crate::gateway::streams::IdentityTransformStream;
use crate::routing::outcome::Fault;

/// The binding's name.
const BINDING: &str = "AI";

#[wasm_bindgen]
extern "C" {
    /// The binding.
    pub type Ai;

    #[wasm_bindgen(method, catch)]
    async fn run(this: &Ai, model: &str, input: JsValue, options: &Object) -> Result<JsValue, JsValue>;
}

/// The binding.
///
/// # Errors
/// [`Failed`] if this deployment has none.
pub(super) fn binding(env: &Env) -> Result<Ai, Failed> {
    match Reflect::get(env.as_ref(), &BINDING.into()) {
        Ok(binding) if binding.is_object() => Ok(binding.unchecked_into()),
        _ => {
            let message = "The provider of this model is Workers AI, for which this deployment has no binding `AI`. \
                           Tell the operator of the gateway.";
            let problem = Problem::new(Kind::Unavailable, "provider_misconfigured", message).final_answer();
            tracing::error!(target: "dispatch", message = "the Worker has no binding AI");
            Err(Failed::without_reply(Fault::Auth, problem))
        }
    }
}

/// Asks a model. What the platform throws with a number is an error reply of the provider's.
///
/// # Errors
/// The platform's words for why there is no reply.
pub(super) async fn run(ai: Ai, model: &str, input: &[u8], signal: &AbortSignal) -> worker::Result<Response> {
    let input = JSON::parse(&String::from_utf8_lossy(input))?;
    let options = Object::new();
    // Status and headers, and the body as it comes.
    Reflect::set(&options, &"returnRawResponse".into(), &JsValue::TRUE)?;
    match ai.run(model, input, &options).await {
        Ok(reply) => {
            let no_response = |_| worker::Error::RustError("the binding gave no response".to_owned());
            let reply: web_sys::Response = reply.dyn_into().map_err(no_response)?;
            Ok(Response::from(ending_with(reply, signal)?))
        }
        Err(thrown) => {
            let told = |error: &js_sys::Error| String::from(error.message());
            let text = thrown.dyn_ref().map_or_else(|| format!("{thrown:?}"), told);
            if !text.chars().any(|letter| letter.is_ascii_digit()) {
                return Err(worker::Error::JsError(text));
            }
            let (body, init) = (json!({"error": text}).to_string(), ResponseInit::new());
            init.set_status(500);
            Ok(Response::from(web_sys::Response::new_with_opt_str_and_init(Some(&body), &init)?))
        }
    }
}

/// The reply, whose body ends with the signal: the binding itself takes none.
fn ending_with(reply: web_sys::Response, signal: &AbortSignal) -> Result<web_sys::Response, JsValue> {
    let Some(body) = reply.body() else { return Ok(reply) };
    let pipe = IdentityTransformStream::new()?;
    let options = StreamPipeOptions::new();
    options.set_signal(signal);
    let piped = JsFuture::from(body.pipe_to_with_options(&pipe.writable(), &options));
    wasm_bindgen_futures::spawn_local(async move {
        // Who reads the other side learns of it there.
        let _ended = piped.await;
    });
    let init = ResponseInit::new();
    init.set_status(reply.status());
    init.set_headers(&reply.headers());
    web_sys::Response::new_with_opt_readable_stream_and_init(Some(&pipe.readable()), &init)
}
