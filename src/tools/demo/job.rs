//! The main job, over the public API: billing stores cards, invoicing charges them. An invoice whose answer is lost is asked for
//! again under the same key until it has a final answer; that is all that a caller has to do.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::plan::{self, Invoice, Plan, PlannedCard};
use super::vault::Caller;
use crate::clock::{Clock, SystemClock};
use crate::tools::client::{Answer, Client, ClientError, Payload};
use crate::tools::sandbox::numbers::Behaviour;

/// How long an invoice may take to get a final answer, restart and all.
const SETTLE_MAX: Duration = Duration::from_secs(120);
/// The answer of a charge says here what the processor took, in milliseconds.
const PROCESSOR_MS: &str = "vault-processor-ms";
/// A caller that is held longer is answered with 202, and asks again.
const PREFER: (&str, &str) = ("prefer", "wait=3");
const POLL_EVERY: Duration = Duration::from_millis(100);

/// A stored card.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) token: String,
    pub(super) agreement: String,
}

/// An invoice that has its final answer.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    pub(super) charge: String,
    /// What the sandbox does with the card.
    pub(super) behaviour: Behaviour,
    pub(super) status: String,
    /// When the vault wrote the charge down, as it says.
    pub(super) created_at: String,
    /// Whether the charge was on its way, without an answer, when the vault was killed.
    pub(super) in_flight_at_kill: bool,
    /// What the caller waited beyond the processor's own time, in milliseconds; only where the first request was answered.
    pub(super) added_ms: Option<f64>,
    /// Asked for more than once, or answered with "not yet".
    pub(super) took_patience: bool,
}

/// Stores all cards, each with an agreement to charge it later.
pub(super) async fn store_cards(
    caller: &Caller,
    cards: &[PlannedCard],
    on_one: impl Fn() + Clone + Send + 'static,
) -> Result<Vec<Stored>, String> {
    let next = Arc::new(AtomicUsize::new(0));
    let all: Arc<[PlannedCard]> = cards.into();
    let stored = Arc::new(Mutex::new(vec![None; cards.len()]));
    let mut workers = JoinSet::new();
    for _ in 0..plan::CONCURRENCY {
        let (mut caller, next, all) = (caller.clone(), Arc::clone(&next), Arc::clone(&all));
        let (stored, on_one) = (Arc::clone(&stored), on_one.clone());
        workers.spawn(async move {
            let client = caller.client().await?;
            while let Some((at, card)) = take(&next, &all) {
                let made = store_card(&client, card).await?;
                if let Some(slot) = stored.lock().unwrap_or_else(PoisonError::into_inner).get_mut(at) {
                    *slot = Some(made);
                }
                on_one();
            }
            Ok::<(), String>(())
        });
    }
    join_all(&mut workers).await?;
    let stored = std::mem::take(&mut *stored.lock().unwrap_or_else(PoisonError::into_inner));
    stored.into_iter().collect::<Option<_>>().ok_or_else(|| "a card was left out".to_owned())
}

async fn store_card(client: &Client, card: &PlannedCard) -> Result<Stored, String> {
    let lost = |_: ClientError| "the vault did not answer while cards were stored".to_owned();
    let body = json!({
        "card": { "number": card.number, "exp_month": 11, "exp_year": 2031 },
        "billing": { "zip": "10001" },
        "customer": card.customer,
    });
    let key = format!("store-{}", card.customer);
    let answer = client.post("/v1/tokens", &key, &body).await.map_err(lost)?;
    let token = text_of(&refused_unless(&answer, &[201], "a card")?, "id");
    // Later charges are the merchant's doing: the customer agrees to them once.
    let consent = json!({
        "type": "recurring",
        "consent": { "by": card.customer, "at": SystemClock.now().to_string() },
        "network_transaction_id": "000000000000001",
    });
    let path = format!("/v1/tokens/{token}/agreements");
    let key = format!("agree-{}", card.customer);
    let answer = client.post(&path, &key, &consent).await.map_err(lost)?;
    let agreement = text_of(&refused_unless(&answer, &[201], "an agreement")?, "id");
    Ok(Stored { token, agreement })
}

/// The invoice job and how far it is.
pub(super) struct Job {
    caller: Caller,
    plan: Arc<Plan>,
    stored: Arc<[Stored]>,
    killed: AtomicBool,
    in_flight: AtomicUsize,
    settled: Mutex<Vec<(usize, Settled)>>,
    on_one: Box<dyn Fn(&str) + Send + Sync>,
}

impl Job {
    /// A job on these cards; `on_one` hears of each final answer.
    pub(super) fn new(
        caller: Caller,
        plan: Arc<Plan>,
        stored: Vec<Stored>,
        on_one: impl Fn(&str) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            caller,
            plan,
            stored: stored.into(),
            killed: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            settled: Mutex::new(Vec::new()),
            on_one: Box::new(on_one),
        })
    }

    /// Opens the connections that will be used, so that no charge is measured with a handshake.
    pub(super) async fn warm_up(&self) -> Result<(), String> {
        let client = self.caller.clone().client().await?;
        let mut looks = JoinSet::new();
        for _ in 0..plan::CONCURRENCY {
            let client = client.clone();
            looks.spawn(async move { client.get("/readyz").await.map(|_| ()).map_err(|e| e.to_string()) });
        }
        join_all(&mut looks).await
    }

    /// Charges these invoices, several at a time, until each has a final answer.
    pub(super) async fn charge(
        self: &Arc<Self>,
        range: std::ops::Range<usize>,
        concurrency: usize,
    ) -> Result<(), String> {
        let next = Arc::new(AtomicUsize::new(range.start));
        let mut workers = JoinSet::new();
        for _ in 0..concurrency {
            let (job, next, end) = (Arc::clone(self), Arc::clone(&next), range.end);
            workers.spawn(async move {
                let mut caller = job.caller.clone();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let invoice = job.plan.invoices.get(at).filter(|_| at < end);
                    let Some(invoice) = invoice else { return Ok(()) };
                    let settled = job.settle(&mut caller, invoice).await?;
                    (job.on_one)(&settled.status);
                    job.settled.lock().unwrap_or_else(PoisonError::into_inner).push((at, settled));
                }
            });
        }
        join_all(&mut workers).await
    }

    /// How many charges wait for their answer now.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// From now on a lost answer is one that the kill took.
    pub(super) fn mark_kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
    }

    /// What has its final answer, in the order of the plan.
    pub(super) fn settled(&self) -> Vec<Settled> {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner).clone();
        settled.sort_by_key(|(at, _)| *at);
        settled.into_iter().map(|(_, settled)| settled).collect()
    }

    /// One invoice, from its first request to its final answer.
    async fn settle(&self, caller: &mut Caller, invoice: &Invoice) -> Result<Settled, String> {
        let card = self.plan.cards.get(invoice.card).zip(self.stored.get(invoice.card));
        let Some((card, stored)) = card else { return Err("a card is missing".to_owned()) };
        let body = json!({
            "token": stored.token,
            "agreement": stored.agreement,
            "initiator": "merchant",
            "destination": "sandbox",
            "amount": invoice.amount,
            "currency": invoice.currency,
            "invoice": invoice.name,
        });
        let until = Instant::now() + SETTLE_MAX;
        let mut in_flight_at_kill = false;
        let mut asked = 0;
        while Instant::now() < until {
            let client = caller.client().await?;
            let was_killed = self.killed.load(Ordering::Relaxed);
            asked += 1;
            let began = Instant::now();
            let answer = self.send(&client, &invoice.name, &body).await;
            let waited = began.elapsed();
            match answer {
                Err(ClientError::Lost) => {
                    in_flight_at_kill |= !was_killed && self.killed.load(Ordering::Relaxed);
                    tokio::time::sleep(POLL_EVERY / 10).await;
                }
                Err(ClientError::NotSent) => tokio::time::sleep(POLL_EVERY).await,
                // Busy, being worked on by another request, or not ready yet: nothing was done, ask again.
                Ok(answer) if matches!(answer.status, 409 | 429 | 500..=599) => {
                    tokio::time::sleep(pause(&answer)).await;
                }
                Ok(answer) => {
                    let at_once = answer.status == 201 && asked == 1;
                    let charge = refused_unless(&answer, &[200, 201, 202], "a charge")?;
                    let last = self.poll(caller, charge, until).await?;
                    let mut settled = Settled::of(&last, card.behaviour);
                    settled.in_flight_at_kill = in_flight_at_kill;
                    settled.took_patience = !at_once;
                    settled.added_ms = processor_ms(&answer)
                        .filter(|_| at_once)
                        .map(|processor| waited.as_secs_f64() * 1_000.0 - processor);
                    return Ok(settled);
                }
            }
        }
        Err(format!("{} had no final answer within {} s", invoice.name, SETTLE_MAX.as_secs()))
    }

    async fn send(&self, client: &Client, key: &str, body: &Value) -> Result<Answer, ClientError> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let headers = [("idempotency-key", key), PREFER];
        let answer = client.request("POST", "/v1/charges", &headers, Payload::Json(body)).await;
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        answer
    }

    /// Looks at a charge until it is final.
    async fn poll(&self, caller: &mut Caller, mut charge: Value, until: Instant) -> Result<Value, String> {
        let path = format!("/v1/charges/{}", text_of(&charge, "id"));
        while !is_final(&text_of(&charge, "status")) {
            if Instant::now() > until {
                return Err(format!("a charge stayed {}", text_of(&charge, "status")));
            }
            tokio::time::sleep(POLL_EVERY).await;
            let client = caller.client().await?;
            if let Ok(answer) = client.get(&path).await
                && answer.status == 200
            {
                charge = answer.json();
            }
        }
        Ok(charge)
    }
}

impl Settled {
    fn of(charge: &Value, behaviour: Behaviour) -> Self {
        Self {
            charge: text_of(charge, "id"),
            behaviour,
            status: text_of(charge, "status"),
            created_at: text_of(charge, "created_at"),
            in_flight_at_kill: false,
            added_ms: None,
            took_patience: false,
        }
    }
}

/// Whether nothing more is going to happen to a sale by itself.
fn is_final(status: &str) -> bool {
    matches!(status, "approved" | "declined" | "failed" | "voided" | "manual")
}

fn processor_ms(answer: &Answer) -> Option<f64> {
    answer.header(PROCESSOR_MS)?.parse().ok()
}

/// As long as the answer asks for, within reason.
fn pause(answer: &Answer) -> Duration {
    let asked = answer.header("retry-after").and_then(|seconds| seconds.parse().ok());
    asked.map_or(POLL_EVERY, Duration::from_secs).clamp(POLL_EVERY, Duration::from_secs(1))
}

/// The answer's JSON, or a sentence that says what was refused and why. A problem quotes nothing, so it may be shown.
pub(super) fn refused_unless(answer: &Answer, good: &[u16], what: &str) -> Result<Value, String> {
    let body = answer.json();
    if good.contains(&answer.status) {
        return Ok(body);
    }
    let detail = text_of(&body, "detail");
    Err(format!("{what} was refused with {} {}: {detail}", answer.status, text_of(&body, "code")))
}

/// A member that is text; empty if it is none.
pub(super) fn text_of(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn take<'a, T>(next: &AtomicUsize, all: &'a [T]) -> Option<(usize, &'a T)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    Some((at, all.get(at)?))
}

/// Waits for all; the first that fails ends the others.
async fn join_all(tasks: &mut JoinSet<Result<(), String>>) -> Result<(), String> {
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|_| "a part of the demo broke".to_owned())??;
    }
    Ok(())
}
