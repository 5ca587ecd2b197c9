//! Figures for Prometheus. Labels are our own words and the operator's: routes, statuses, destinations, never a caller's.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::Edge;
use super::http::routes::Route;
use super::keys::Keys;
use super::retention::Report;
use crate::clock::Time;

/// Seconds; from a cached read to a slow processor.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0, 90.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct At {
    destination: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Told {
    destination: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Key {
    key: u32,
    purpose: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Became {
    status: &'static str,
}

/// All figures of the edge.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Answered, Counter>,
    seconds: Family<Of, Histogram, fn() -> Histogram>,
    charges: Family<Became, Counter>,
    retries: Family<Became, Counter>,
    forwards: Family<Became, Counter>,
    connections: Gauge,
    connections_total: Counter,
    handshakes_failed: Counter,
    panics: Counter,
    keeper_calls: Gauge<i64, AtomicI64>,
    keeper_micros: Gauge<i64, AtomicI64>,
    keeper_failures: Gauge<i64, AtomicI64>,
    store: StoreFigures,
    checkpoint_size: Gauge<u64, AtomicU64>,
    erasures_overdue: Gauge,
    erased_keys_overdue: Gauge,
    retention_overdue: Gauge,
    retention_held: Gauge,
    retention_erased: Counter,
    retention_records_overdue: Gauge,
    retention_records_erased: Counter,
    retention_last_run: Gauge,
    credentials_refused: Family<At, Counter>,
    processor_webhooks: Family<Told, Counter>,
    webhooks: Family<Became, Counter>,
    webhooks_waiting: Gauge,
    courier_connected: Gauge,
    keys: Family<Key, Gauge>,
    reseal_left: Gauge,
}

#[derive(Debug, Default)]
struct StoreFigures {
    commits: Gauge,
    changes: Gauge,
    commit_micros: Gauge,
    changes_waiting: Gauge,
    event_lag_ms: Gauge,
    scrub_waiting: Gauge,
    writable: Gauge,
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers all figures.
    pub fn new() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("cardvault")),
            requests: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            charges: Family::default(),
            retries: Family::default(),
            forwards: Family::default(),
            connections: Gauge::default(),
            connections_total: Counter::default(),
            handshakes_failed: Counter::default(),
            panics: Counter::default(),
            keeper_calls: Gauge::default(),
            keeper_micros: Gauge::default(),
            keeper_failures: Gauge::default(),
            store: StoreFigures::default(),
            checkpoint_size: Gauge::default(),
            erasures_overdue: Gauge::default(),
            erased_keys_overdue: Gauge::default(),
            retention_overdue: Gauge::default(),
            retention_held: Gauge::default(),
            retention_erased: Counter::default(),
            retention_records_overdue: Gauge::default(),
            retention_records_erased: Counter::default(),
            retention_last_run: Gauge::default(),
            credentials_refused: Family::default(),
            webhooks: Family::default(),
            webhooks_waiting: Gauge::default(),
            courier_connected: Gauge::default(),
            keys: Family::default(),
            reseal_left: Gauge::default(),
            processor_webhooks: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let r = &mut *registry;
        r.register("requests", "Requests answered, by route and status", self.requests.clone());
        let help = "Time from the request's head to the answer's, by route";
        r.register_with_unit("request", help, Unit::Seconds, self.seconds.clone());
        let help = "Changes of a charge's status, by the new one; `manual` waits for a person, as may a capture, refund or void of it";
        r.register("charges", help, self.charges.clone());
        let help = "Retries that a schedule made, by the status of the charge after it";
        r.register("retries", help, self.retries.clone());
        let help = "What became of forwards, by their final status";
        r.register("forwards", help, self.forwards.clone());
        r.register("connections", "Connections open now", self.connections.clone());
        r.register("connections_accepted", "Connections accepted", self.connections_total.clone());
        let help = "TLS handshakes that failed";
        r.register("handshakes_failed", help, self.handshakes_failed.clone());
        r.register("panics", "Faults that ended one request", self.panics.clone());
        r.register("keeper_calls", "Calls of the keeper so far", self.keeper_calls.clone());
        let help = "Sum of the keeper's round trips in microseconds";
        r.register("keeper_micros", help, self.keeper_micros.clone());
        let help = "Calls that the keeper did not answer";
        r.register("keeper_failures", help, self.keeper_failures.clone());
        let store = &self.store;
        r.register("store_commits", "Commits so far", store.commits.clone());
        r.register("store_changes", "Changes committed so far", store.changes.clone());
        let help = "Sum of the commits' time in microseconds";
        r.register("store_commit_micros", help, store.commit_micros.clone());
        r.register("store_changes_waiting", "Changes that wait", store.changes_waiting.clone());
        let help = "Age of the oldest event that is not durable, in milliseconds";
        r.register("event_lag_ms", help, store.event_lag_ms.clone());
        let help = "Erased cards whose bytes may still be on disk";
        r.register("scrub_waiting", help, store.scrub_waiting.clone());
        r.register("store_writable", "1 if commits are taken", store.writable.clone());
        let help = "Size of the tree that was signed last";
        r.register("checkpoint_size", help, self.checkpoint_size.clone());
        let help = "Cards that wait to be erased for longer than anything can need them";
        r.register("erasures_overdue", help, self.erasures_overdue.clone());
        let help =
            "Keys that may have sealed what is erased and are not destroyed in the time that is configured";
        r.register("erased_keys_overdue", help, self.erased_keys_overdue.clone());
        let help = "Cards past the limit of their tenant's retention that could not be erased; must be 0";
        r.register("retention_overdue", help, self.retention_overdue.clone());
        let help = "Cards past the limit of their tenant's retention that a legal hold keeps";
        r.register("retention_held", help, self.retention_held.clone());
        r.register("retention_erased", "Cards that retention has erased", self.retention_erased.clone());
        let help = "Charges and agreements past the limit of their tenant's retention that could not be erased; must be 0";
        r.register("retention_records_overdue", help, self.retention_records_overdue.clone());
        let help = "Charges, agreements and answers about them that retention has erased";
        r.register("retention_records_erased", help, self.retention_records_erased.clone());
        let help = "When retention last looked through all cards, in seconds since 1970; 0 if not since the edge started";
        r.register("retention_last_run_seconds", help, self.retention_last_run.clone());
        let help = "Times that a processor refused the operator's credentials and the other ones took over, by destination";
        r.register("credentials_refused", help, self.credentials_refused.clone());
        let help =
            "What processors told by webhook, by destination and what became of it; `refused` proved nothing";
        r.register("processor_webhooks", help, self.processor_webhooks.clone());
        let help = "Attempts to deliver a webhook, by what became of the delivery; `put_off` is no fault of the endpoint's";
        r.register("webhooks", help, self.webhooks.clone());
        let help = "Webhooks that wait for an attempt, at most 10,000 counted for an endpoint";
        r.register("webhooks_waiting", help, self.webhooks_waiting.clone());
        r.register("courier_connected", "1 if there is a courier", self.courier_connected.clone());
        r.register(
            "key_seconds_left",
            "Until a key in use protects nothing more; not of one whose successor waits",
            self.keys.clone(),
        );
        r.register(
            "reseal_left",
            "Records that are yet to be sealed under another key",
            self.reseal_left.clone(),
        );
    }

    /// Counts an answer.
    pub fn request(&self, route: &'static Route, status: u16, took: Duration) {
        self.requests.get_or_create(&Answered { route: route.operation, status }).inc();
        self.seconds.get_or_create(&Of { route: route.operation }).observe(took.as_secs_f64());
    }

    /// Counts that a forward came to its final status.
    pub fn forward(&self, status: &'static str) {
        self.forwards.get_or_create(&Became { status }).inc();
    }

    /// Counts that a charge came to a status.
    pub fn charge(&self, status: &'static str) {
        self.charges.get_or_create(&Became { status }).inc();
    }

    /// Counts an attempt to deliver a webhook.
    pub fn webhook(&self, status: &'static str) {
        self.webhooks.get_or_create(&Became { status }).inc();
    }

    /// So many webhooks wait.
    pub fn webhooks_waiting(&self, count: u64) {
        self.webhooks_waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a retry that a schedule made.
    pub fn retry(&self, status: &'static str) {
        self.retries.get_or_create(&Became { status }).inc();
    }

    /// Counts a connection; it ends when the guard is dropped.
    pub fn connection(&self) -> Connection {
        self.connections_total.inc();
        self.connections.inc();
        Connection(self.connections.clone())
    }

    /// Counts a TLS handshake that failed.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }

    /// Counts a fault that ended one request.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// A checkpoint was signed.
    pub fn checkpoint(&self, size: u64) {
        self.checkpoint_size.set(size);
    }

    /// So many cards wait too long to be erased.
    pub fn erasures_overdue(&self, count: usize) {
        self.erasures_overdue.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// So many keys are not destroyed in time.
    pub fn erased_keys_overdue(&self, count: usize) {
        self.erased_keys_overdue.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// How many keys were not destroyed in time, when it was looked last.
    pub fn erased_keys_overdue_now(&self) -> i64 {
        self.erased_keys_overdue.get()
    }

    /// What retention did in a look through all cards.
    pub(super) fn retention(&self, report: &Report) {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.retention_overdue.set(signed(report.overdue));
        self.retention_held.set(signed(report.held));
        self.retention_erased.inc_by(report.erased);
        self.retention_records_overdue.set(signed(report.records.overdue));
        self.retention_records_erased.inc_by(report.records.erased);
        self.retention_last_run.set(report.ended_at.map_or(0, Time::seconds));
    }

    /// A destination refused the operator's credentials; others are used from now on.
    pub fn credentials_refused(&self, destination: &str) {
        self.credentials_refused.get_or_create(&At { destination: destination.to_owned() }).inc();
    }

    /// A processor told something by itself, or somebody did who says to be one.
    pub fn processor_webhook(&self, destination: &str, result: &'static str) {
        self.processor_webhooks.get_or_create(&Told { destination: destination.to_owned(), result }).inc();
    }

    /// For how long each key in use still protects, unless its successor waits already.
    fn write_keys(&self, keys: &Keys, now: Time) {
        self.keys.clear();
        for key in keys.to_be_rotated() {
            let label = Key { key: key.order.id, purpose: key.order.purpose.name() };
            let left = key.protects_until.seconds().saturating_sub(now.seconds());
            self.keys.get_or_create(&label).set(left);
        }
        self.reseal_left.set(i64::try_from(keys.progress().left()).unwrap_or(i64::MAX));
    }

    /// All figures as Prometheus reads them.
    pub fn write(&self, app: &Edge) -> String {
        let (keeper, courier, store) = (&app.keeper, &app.courier, app.store.as_ref());
        self.write_keys(&app.keys, app.clock.now());
        self.courier_connected.set(i64::from(courier.is_connected()));
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let stats = keeper.stats();
        self.keeper_calls.set(signed(stats.calls.load(Ordering::Relaxed)));
        self.keeper_micros.set(signed(stats.micros.load(Ordering::Relaxed)));
        self.keeper_failures.set(signed(stats.failures.load(Ordering::Relaxed)));
        let health = store.health();
        self.store.commits.set(signed(health.commits));
        self.store.changes.set(signed(health.changes));
        self.store.commit_micros.set(signed(health.commit_micros));
        self.store.changes_waiting.set(signed(health.changes_waiting));
        self.store.event_lag_ms.set(signed(health.event_lag_ms));
        self.store.scrub_waiting.set(signed(health.scrub_waiting));
        self.store.writable.set(i64::from(health.writable));
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if encode(&mut text, &registry).is_err() {
            text.clear();
        }
        text
    }
}

/// A connection that is counted while it lives.
#[derive(Debug)]
pub struct Connection(Gauge);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
