//! What a request used, on its way to its account's ledger.

use serde_json::value::RawValue;
use worker::Env;

use crate::http::shell::sleep;
use crate::limits::usage::UsageEntry;
use crate::objects::call::Object;
use crate::objects::wire::{PostUsage, Pushed};

/// How long the ledger may take, in milliseconds. Nobody waits, but the runtime ends this work 30 s after the reply.
const PATIENCE_MS: u64 = 4_000;

/// Pauses before the entry is sent again, in milliseconds.
const PAUSES_MS: [u64; 3] = [250, 1_000, 4_000];

/// Sends an entry. One that cannot be delivered is logged in full, so that it can be entered by hand. Sending it twice is
/// harmless: the ledger knows it by its id.
pub async fn send(env: &Env, entry: &UsageEntry, flush_ms: u64) {
    let text = match serde_json::to_string(entry) {
        Ok(text) => text,
        Err(error) => {
            let (error, id) = (error.to_string(), entry.id.as_str());
            tracing::error!(target: "usage", message = "a usage entry cannot be written", error, id);
            return;
        }
    };
    let Ok(raw) = RawValue::from_string(text.clone()) else { return };
    let post = PostUsage { flush_ms, entries: vec![raw] };
    let mut pauses = PAUSES_MS.iter();
    loop {
        let ledger = Object::ledger(&entry.account);
        let Err(error) = ledger.call::<Pushed>(env, "POST", "/usage", Some(&post), PATIENCE_MS).await else { return };
        let error = error.to_string();
        match pauses.next() {
            Some(pause) => sleep(*pause).await,
            None => {
                let entry = text.as_str();
                tracing::error!(target: "usage", message = "usage was not delivered: enter it by hand", error, entry);
                return;
            }
        }
    }
}
