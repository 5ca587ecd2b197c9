//! Logs: one JSON object a line on standard error, for every role. Only fields of a list are written, whoever emits them: what a
//! caller sent as a value never becomes a field, and what a library says is not written at all.

use std::fmt::Write as _;
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::clock::{Clock, SystemClock};

/// The fields that are written: our own words, numbers and ids.
const FIELDS: [&str; 20] = [
    "message",
    "request",
    "route",
    "status",
    "code",
    "token",
    "charge",
    "attempt",
    "principal",
    "destination",
    "ms",
    "count",
    "size",
    "role",
    "pid",
    "boot",
    "address",
    "kind",
    "node",
    "reason",
];

/// Starts logging in this process, at most as much as `filter` says (`info`, `cardvault=debug`, …).
pub fn start(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // A second start in one process (tests) leaves the first in place.
    drop(tracing_subscriber::registry().with(filter).with(Lines).try_init());
}

struct Lines;

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !event.metadata().target().starts_with("cardvault") {
            return;
        }
        let line = line_of(event);
        // Nothing can be said about standard error that does not work.
        drop(std::io::stderr().lock().write_all(line.as_bytes()));
    }
}

fn line_of(event: &Event<'_>) -> String {
    let mut line = String::with_capacity(256);
    let level = event.metadata().level();
    let _ = write!(line, "{{\"time\":\"{}\",\"level\":\"{level}\"", SystemClock.now());
    event.record(&mut Writer(&mut line));
    line.push_str("}\n");
    line
}

struct Writer<'a>(&'a mut String);

impl Writer<'_> {
    fn name(&mut self, field: &Field) -> bool {
        let listed = FIELDS.contains(&field.name());
        if listed {
            let _ = write!(self.0, ",\"{}\":", field.name());
        }
        listed
    }

    fn text(&mut self, field: &Field, text: &str) {
        if self.name(field) {
            self.0.push_str(&serde_json::Value::from(text).to_string());
        }
    }
}

impl Visit for Writer<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if self.name(field) {
            let _ = write!(self.0, "{value}");
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if self.name(field) {
            let _ = write!(self.0, "{value}");
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if self.name(field) {
            let _ = write!(self.0, "{value}");
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    struct Kept(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(line_of(event));
        }
    }

    #[test]
    fn a_field_that_is_not_listed_is_not_written() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(Kept(Arc::clone(&lines)));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(route = "create_token", status = 201_u16, body = "secret words", "an \"answer\"");
        });
        let line = lines.lock().unwrap().concat();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["route"], "create_token");
        assert_eq!(value["status"], 201);
        assert_eq!(value["message"], "an \"answer\"");
        assert!(!line.contains("secret"));
    }
}
