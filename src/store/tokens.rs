//! Access tokens that are minted from providers' credentials, as long as the isolate lives.
//!
//! Each is fetched in the context of a request that needs it: no request waits for another's I/O. What is to be done about
//! a token is decided by its [`TokenSlot`].

use std::cell::RefCell;
use std::collections::HashMap;

use futures::StreamExt as _;
use js_sys::{Array, Object, Reflect, Uint8Array};
use wasm_bindgen::{JsCast as _, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, AbortSignal, Crypto, CryptoKey};
use worker::{Fetch, Headers, Method, Request, RequestInit, RequestRedirect};

use super::routing::random;
use crate::http::shell::{now_ms, within};
use crate::providers::auth::minted::{AuthFault, Minting, SigningInput, read_token, token_request};
use crate::providers::auth::slot::{Token, TokenSlot, Want};
use crate::providers::auth::{AuthKind, Renewal, Scheme, scheme};
use crate::secret::Secret;

/// Tokens that an isolate remembers.
const SLOTS: usize = 1_000;

/// Longest answer of a token endpoint, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// How long a token endpoint may take at most, in milliseconds.
pub const PATIENCE_MS: u64 = 10_000;

#[derive(Default)]
struct Slot {
    state: TokenSlot,
    /// Why the last fetch came to nothing, while nobody tries again.
    fault: Option<TokenFault>,
}

thread_local! {
    static TOKENS: RefCell<HashMap<[u8; 32], Slot>> = RefCell::new(HashMap::new());
}

/// A token that a request is sent with.
#[derive(Debug, Clone)]
pub struct Used {
    /// The token.
    pub secret: Secret<String>,
    /// Whether the request is to have it renewed.
    pub renews: bool,
    slot: [u8; 32],
}

/// Why there is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// What the token endpoint said, or what is wrong with what it would be asked.
    Told(AuthFault),
    /// It cannot be reached, or says nothing in time.
    Unreachable,
}

/// No token, and when to ask again, in milliseconds from now, if that is known.
#[derive(Debug, Clone, Copy)]
pub struct NoToken {
    /// Why.
    pub fault: TokenFault,
    /// When to ask again.
    pub retry_after_ms: Option<u64>,
}

/// A token for a request, fetched within `wait_ms` and as long as `client` is there, if there is none yet.
///
/// # Errors
/// [`NoToken`].
pub async fn token(from: &Minting<'_>, wait_ms: u64, client: &AbortSignal) -> Result<Used, NoToken> {
    let slot = from.id();
    let used = |secret, renews| Ok(Used { secret, renews, slot });
    match with_slot(slot, |slot| slot.state.want(now_ms())) {
        Want::Use(secret) => used(secret, false),
        Want::UseAndRefresh(secret) => used(secret, true),
        Want::Wait { ms } => {
            let fault = with_slot(slot, |slot| slot.fault).unwrap_or(TokenFault::Unreachable);
            Err(NoToken { fault, retry_after_ms: Some(ms) })
        }
        Want::Fetch => match fetch_into(slot, from, wait_ms, client).await {
            Ok(secret) => used(secret, false),
            Err(fault) => Err(NoToken { fault, retry_after_ms: None }),
        },
    }
}

/// Fetches the next token beside a request that uses the one before.
pub async fn renew(renewal: &Renewal) {
    let Ok(Scheme::Minted { from, .. }) = scheme(&renewal.provider, AuthKind::Bearer, &renewal.credential) else {
        return;
    };
    let Ok(controller) = AbortController::new() else { return };
    let renewed = fetch_into(from.id(), &from, PATIENCE_MS, &controller.signal()).await;
    if let Err(fault) = renewed {
        tracing::warn!(target: "tokens", message = "an access token could not be renewed", error = fault.words());
    }
}

/// The provider did not accept this token: nobody uses it again.
pub fn refused(used: &Used) {
    with_slot(used.slot, |slot| slot.state.refused(&used.secret));
}

/// Nor did it accept the one that was fetched in its place: nobody fetches another one for a while.
pub fn refused_again(used: &Used) {
    with_slot(used.slot, |slot| {
        slot.state.refused(&used.secret);
        slot.state.failed(now_ms(), random());
        slot.fault = Some(TokenFault::Told(AuthFault::Useless));
    });
}

impl TokenFault {
    /// Whether the operator has to act.
    pub fn is_about_the_credential(self) -> bool {
        matches!(self, Self::Told(fault) if fault.is_about_the_credential())
    }

    /// In words, for the log.
    pub fn words(self) -> String {
        match self {
            Self::Told(fault) => fault.to_string(),
            Self::Unreachable => "the token endpoint cannot be reached".to_owned(),
        }
    }
}

fn with_slot<T>(id: [u8; 32], work: impl FnOnce(&mut Slot) -> T) -> T {
    TOKENS.with_borrow_mut(|slots| {
        if slots.len() >= SLOTS && !slots.contains_key(&id) {
            slots.clear();
        }
        work(slots.entry(id).or_default())
    })
}

async fn fetch_into(
    slot: [u8; 32],
    from: &Minting<'_>,
    wait_ms: u64,
    client: &AbortSignal,
) -> Result<Secret<String>, TokenFault> {
    let begun = now_ms();
    let fetched = fetch(from, wait_ms, client).await;
    let now = now_ms();
    match fetched {
        Ok(token) => {
            let secret = token.secret.clone();
            with_slot(slot, |slot| {
                slot.state.got(token, now);
                slot.fault = None;
            });
            Ok(secret)
        }
        Err(fault) => {
            // A caller who leaves, or who is in a hurry, says nothing of the endpoint.
            let hurried = wait_ms < PATIENCE_MS && now.saturating_sub(begun) >= wait_ms;
            if !client.aborted() && !hurried {
                with_slot(slot, |slot| {
                    slot.state.failed(now, random());
                    slot.fault = Some(fault);
                });
            }
            Err(fault)
        }
    }
}

async fn fetch(from: &Minting<'_>, wait_ms: u64, client: &AbortSignal) -> Result<Token, TokenFault> {
    let asked = now_ms();
    let request = token_request(*from, asked).map_err(TokenFault::Told)?;
    let signature = match &request.sign {
        Some(input) => Some(sign(input).await.map_err(TokenFault::Told)?),
        None => None,
    };
    let (url, body) = request.message(signature.as_deref());
    let controller = AbortController::new().map_err(|_| TokenFault::Unreachable)?;
    let signal = AbortSignal::any(&Array::of2(client, &controller.signal()));
    // The platform's words for what goes wrong may quote the address, and that the secret.
    let answer = within(wait_ms, ask(url, body, worker::AbortSignal::from(signal))).await;
    controller.abort();
    let (status, body) = answer.and_then(Result::ok).ok_or(TokenFault::Unreachable)?;
    read_token(status, &body, asked).map_err(TokenFault::Told)
}

async fn ask(url: Secret<String>, body: Secret<String>, signal: worker::AbortSignal) -> worker::Result<(u16, Vec<u8>)> {
    let headers = Headers::new();
    headers.set("content-type", "application/x-www-form-urlencoded")?;
    headers.set("accept", "application/json")?;
    let mut init = RequestInit::new();
    init.with_method(Method::Post)
        .with_headers(headers)
        .with_body(Some(JsValue::from_str(body.expose())))
        .with_redirect(RequestRedirect::Manual);
    let request = Request::new_with_init(url.expose(), &init)?;
    let mut reply = Fetch::Request(request).send_with_signal(&signal).await?;
    let status = reply.status_code();
    let mut answer = Vec::new();
    let mut pieces = reply.stream()?;
    while let Some(piece) = pieces.next().await {
        answer.extend_from_slice(&piece?);
        if answer.len() > MAX_ANSWER_BYTES {
            return Err("too long".into());
        }
    }
    Ok((status, answer))
}

/// Signs an assertion with the platform's own RSA.
async fn sign(input: &SigningInput) -> Result<Vec<u8>, AuthFault> {
    const ALGORITHM: &str = "RSASSA-PKCS1-v1_5";
    let signed = async {
        let crypto = Reflect::get(&js_sys::global(), &"crypto".into())?.unchecked_into::<Crypto>().subtle();
        let algorithm = Object::new();
        Reflect::set(&algorithm, &"name".into(), &ALGORITHM.into())?;
        Reflect::set(&algorithm, &"hash".into(), &"SHA-256".into())?;
        let der = Uint8Array::from(input.key.expose().as_slice());
        let usages = Array::of1(&"sign".into());
        let key = JsFuture::from(crypto.import_key_with_object("pkcs8", &der, &algorithm, false, &usages)?).await?;
        let text = Uint8Array::from(input.text.as_bytes());
        let key = key.unchecked_into::<CryptoKey>();
        let signature = crypto.sign_with_str_and_buffer_source(ALGORITHM, &key, &text)?;
        Ok::<_, JsValue>(Uint8Array::new(&JsFuture::from(signature).await?).to_vec())
    };
    signed.await.map_err(|_| AuthFault::Credential { what: "private_key is not a usable RSA key" })
}
