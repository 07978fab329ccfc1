//! Writes log events: readable lines on the local console, one JSON object a line when deployed.

use std::cell::Cell;
use std::fmt::Write as _;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use wasm_bindgen::JsValue;
use worker::Env;

use super::{RequestRecord, Severity};
use crate::config::LogLevel;

thread_local! {
    static DONE: Cell<bool> = const { Cell::new(false) };
    static FOR_PEOPLE: Cell<bool> = const { Cell::new(false) };
    /// The level that the deployment sets …
    static DEPLOYED: Cell<LevelFilter> = const { Cell::new(LevelFilter::INFO) };
    /// … and the one that counts.
    static LEVEL: Cell<LevelFilter> = const { Cell::new(LevelFilter::INFO) };
}

/// Sets logging up as the deployment's `LOG_FORMAT` (`json`, `console`) and `LOG_LEVEL` say; the first call in an isolate
/// counts.
pub fn init(env: &Env) {
    if DONE.replace(true) {
        return;
    }
    let var = |name: &str| env.var(name).map(|value| value.to_string().to_ascii_lowercase()).unwrap_or_default();
    DEPLOYED.set(match var("LOG_LEVEL").as_str() {
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => LevelFilter::INFO,
    });
    LEVEL.set(DEPLOYED.get());
    let registry = tracing_subscriber::registry().with(Threshold);
    // It fails only if there is one already.
    let _already_set = if var("LOG_FORMAT") == "console" {
        FOR_PEOPLE.set(true);
        let mut config = tracing_wasm::WASMLayerConfigBuilder::new();
        config
            .set_report_logs_in_timings(false)
            .set_console_config(tracing_wasm::ConsoleConfig::ReportWithoutConsoleColor)
            .set_max_level(Level::TRACE);
        tracing::subscriber::set_global_default(registry.with(tracing_wasm::WASMLayer::new(config.build())))
    } else {
        tracing::subscriber::set_global_default(registry.with(JsonLines))
    };
}

/// Sets the least level that is written; without one the deployment's counts.
pub fn set_level(level: Option<LogLevel>) {
    LEVEL.set(match level {
        None => DEPLOYED.get(),
        Some(LogLevel::Error) => LevelFilter::ERROR,
        Some(LogLevel::Warn) => LevelFilter::WARN,
        Some(LogLevel::Info) => LevelFilter::INFO,
        Some(LogLevel::Debug) => LevelFilter::DEBUG,
        Some(LogLevel::Trace) => LevelFilter::TRACE,
    });
}

/// Holds back what is below the level. It is asked about every event anew, since a publication can change the level.
struct Threshold;

impl<S: Subscriber> Layer<S> for Threshold {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= LEVEL.get()
    }
}

/// Writes a request's log event, if it is to be logged. What failed on the gateway's or a provider's side is a warning, so
/// that a filter can find it.
pub fn request(record: &RequestRecord) {
    let Some(severity) = record.severity() else { return };
    if FOR_PEOPLE.get() {
        let line = record.summary();
        match severity {
            Severity::Warning => tracing::warn!(target: "request", "{line}"),
            Severity::Info => tracing::info!(target: "request", "{line}"),
        }
        return;
    }
    let json = serde_json::to_string(record).unwrap_or_default();
    match severity {
        Severity::Warning => tracing::warn!(target: "request", record = json.as_str()),
        Severity::Info => tracing::info!(target: "request", record = json.as_str()),
    }
}

/// One JSON object a line.
struct JsonLines;

impl<S: Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields(Map::new());
        fields.0.insert("level".to_owned(), event.metadata().level().as_str().to_ascii_lowercase().into());
        fields.0.insert("event".to_owned(), event.metadata().target().into());
        event.record(&mut fields);
        web_sys::console::log_1(&JsValue::from_str(&Value::Object(fields.0).to_string()));
    }
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        // A request's record is an object already: its members become the line's.
        match serde_json::from_str(value) {
            Ok(Value::Object(record)) if field.name() == "record" => self.0.extend(record),
            _ => {
                self.0.insert(field.name().to_owned(), value.into());
            }
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let mut text = String::new();
        if write!(text, "{value:?}").is_ok() {
            self.0.insert(field.name().to_owned(), text.into());
        }
    }
}
