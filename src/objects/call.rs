//! Asks an object, within bounded time.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::JsValue;
use web_sys::AbortController;
use worker::{Env, Request};

use crate::http::shell::within;

/// The binding of the accounts' ledgers.
pub const LEDGER: &str = "LEDGER";
/// The binding of the Hub.
pub const HUB: &str = "HUB";

/// The binding of the providers' gauges.
pub const GAUGE: &str = "GAUGE";

/// Why an object gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// It could not be reached.
    Unreachable(String),
    /// It did not answer in time; the milliseconds.
    TooSlow(u64),
    /// It answered with an error.
    Refused(u16, String),
    /// Its answer cannot be read.
    Unreadable(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "unreachable: {error}"),
            Self::TooSlow(millis) => write!(f, "no answer within {millis} ms"),
            Self::Refused(status, text) => write!(f, "answered {status}: {text}"),
            Self::Unreadable(error) => write!(f, "unreadable answer: {error}"),
        }
    }
}

/// An object.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    /// The binding of its class.
    pub binding: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl<'a> Object<'a> {
    /// The ledger of an account.
    pub fn ledger(account: &'a str) -> Self {
        Self { binding: LEDGER, name: account }
    }

    /// A gauge, by the name that [`Pools::gauge`](super::pool::Pools::gauge) gives.
    pub fn gauge(name: &'a str) -> Self {
        Self { binding: GAUGE, name }
    }

    /// Sends JSON and reads JSON.
    ///
    /// # Errors
    /// [`CallError`]; what the object did is then unknown.
    pub async fn call<T: DeserializeOwned>(
        self,
        env: &Env,
        method: &str,
        path: &str,
        body: Option<&impl Serialize>,
        within_ms: u64,
    ) -> Result<T, CallError> {
        let body = body
            .map(serde_json::to_string)
            .transpose()
            .map_err(|error| CallError::Unreachable(format!("the question cannot be written: {error}")))?;
        self.call_text(env, method, path, body.as_deref(), within_ms).await
    }

    /// As [`Self::call`], with a body that is text already.
    ///
    /// # Errors
    /// Likewise.
    pub async fn call_text<T: DeserializeOwned>(
        self,
        env: &Env,
        method: &str,
        path: &str,
        body: Option<&str>,
        within_ms: u64,
    ) -> Result<T, CallError> {
        let unreachable = |error: &JsValue| CallError::Unreachable(format!("{error:?}"));
        let controller = AbortController::new().map_err(|error| unreachable(&error))?;
        let init = web_sys::RequestInit::new();
        init.set_method(method);
        init.set_signal(Some(&controller.signal()));
        if let Some(body) = body {
            init.set_body(&JsValue::from_str(body));
        }
        // The host means nothing: the stub leads to the object.
        let url = format!("https://object{path}");
        let request = web_sys::Request::new_with_str_and_init(&url, &init).map_err(|error| unreachable(&error))?;
        let asked = async {
            let stub = env.durable_object(self.binding)?.get_by_name(self.name)?;
            let mut response = stub.fetch_with_request(Request::from(request)).await?;
            Ok((response.status_code(), response.text().await?))
        };
        let answer: Option<worker::Result<(u16, String)>> = within(within_ms, asked).await;
        match answer {
            None => {
                controller.abort();
                Err(CallError::TooSlow(within_ms))
            }
            Some(Err(error)) => Err(CallError::Unreachable(error.to_string())),
            Some(Ok((200, text))) => {
                serde_json::from_str(&text).map_err(|error| CallError::Unreadable(error.to_string()))
            }
            Some(Ok((status, text))) => Err(CallError::Refused(status, text)),
        }
    }
}

/// How many Hubs there are: the deployment's `HUB_SHARDS`, 1 to 32.
pub fn hub_shards(env: &Env) -> u32 {
    env.var("HUB_SHARDS").ok().and_then(|text| text.to_string().trim().parse().ok()).unwrap_or(1).clamp(1, 32)
}

/// The name of a Hub.
pub fn hub_name(shard: u32) -> String {
    format!("hub-{shard}")
}
