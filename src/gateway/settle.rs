//! Stage 7: what a request came to, known once it has ended; its log line, and its entry in its account's ledger.

use futures::future::join;
use worker::Env;

use super::charge;
use super::fault::fault_of;
use super::reservation::{Admission, Reservation};
use crate::http::Exchange;
use crate::http::shell::now_ms;
use crate::limits::usage::UsageEntry;
use crate::protocol::chat::ReplyFault;
use crate::store::{limits, usage};
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
            record.broken_off = Some(fault_of(&fault));
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
    record.charge_what_is_lost();
    log::request(&record);
    record
}

/// Tells the account's ledger what the request used, and settles what was reserved for it; `started` is in milliseconds.
pub async fn charge(
    env: &Env,
    exchange: &Exchange,
    record: &RequestRecord,
    started: u64,
    reservation: Option<Reservation>,
) {
    let settings = &exchange.settings().records;
    let metadata = exchange.header("x-gateway-metadata");
    let mut entry = charge::entry(record, settings, started, metadata, reservation.as_ref());
    let now = now_ms();
    if let (Some(reservation), Some(entry)) = (&reservation, entry.as_mut()) {
        entry.lease = limits::settled(&reservation.id);
        if let Admission::Fallback(_) = reservation.admission {
            limits::settled_without_ledger(&reservation.account, &reservation.id, &entry.settlement(), now);
        }
    }
    let gauge = async {
        if let Some(hold) = reservation.as_ref().and_then(|reservation| reservation.hold.as_ref()) {
            // A place that was never taken up counts for nothing.
            let entry = entry.as_ref().filter(|_| hold.used);
            usage::release(env, hold, entry.map(UsageEntry::settlement).unwrap_or_default()).await;
        }
    };
    let how = usage::How { flush_ms: settings.flush_ms, thresholds: &exchange.settings().limits.alert_thresholds };
    let ledger = async {
        match &entry {
            Some(entry) if entry.lease.is_some() => usage::send_with_others(env, entry, how).await,
            Some(entry) => usage::send(env, entry, how).await,
            None => {}
        }
        usage::give_back(env, how).await;
    };
    join(ledger, gauge).await;
    if let Some(Reservation { watches: Some(lease), account, .. }) = &reservation {
        usage::watch_over(env, account, lease, how).await;
    }
}
