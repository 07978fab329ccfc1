//! Stage 6: what a request came to, known once it has ended; its log line, and its entry in its account's ledger.

use worker::Env;

use super::charge;
use crate::http::Exchange;
use crate::protocol::chat::ReplyFault;
use crate::store::usage;
use crate::telemetry::{Outcome, RequestRecord, log};

/// Closes the record of a reply that was streamed, and logs it. `now` and `started` are in milliseconds.
pub fn settle(
    mut record: RequestRecord,
    result: Result<(), ReplyFault>,
    client_closed: bool,
    started: u64,
    now: u64,
) -> RequestRecord {
    record.total_ms = now.saturating_sub(started);
    match result {
        // A caller that left makes the upstream break off: that is no fault of the provider's.
        _ if client_closed => record.outcome = Outcome::ClientClosed,
        Ok(()) => record.outcome = Outcome::Completed,
        Err(fault) => {
            record.outcome = Outcome::Failed;
            record.error_code = fault.code().to_owned();
            record.error_detail = fault.to_string();
        }
    }
    log::request(&record);
    record
}

/// Logs the record of a reply that was sent whole, or that nobody was there any more to be sent.
pub fn settle_whole(mut record: RequestRecord, client_closed: bool, started: u64, now: u64) -> RequestRecord {
    record.total_ms = now.saturating_sub(started);
    if client_closed {
        record.outcome = Outcome::ClientClosed;
        if record.attempts > 0 && record.usage.is_none() {
            record.told_or_estimated(None, 0);
        }
    } else if record.status >= 400 && record.outcome == Outcome::Completed {
        record.outcome = Outcome::Failed;
    }
    log::request(&record);
    record
}

/// Tells the account's ledger what the request used; `started` is in milliseconds.
pub async fn charge(env: &Env, exchange: &Exchange, record: &RequestRecord, started: u64) {
    let Some(loaded) = &exchange.config else { return };
    let metadata = exchange.header("x-gateway-metadata");
    if let Some(entry) = charge::entry(record, &loaded.config.records, started, metadata) {
        usage::send(env, &entry, loaded.config.records.flush_ms).await;
    }
}
