//! A careful caller: every request has a key, and is made again under it until it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cardvault::tools::client::{Answer, Client, Payload};
use serde_json::{Value, json};
use tokio::sync::RwLock;

use super::plan::{Lane, Step, Story};
use crate::common::{card, text};

/// A vault that was killed is back long before.
const ANSWERED_MAX: Duration = Duration::from_secs(90);
/// A caller asks so long for an outcome before he turns to something else.
const FINAL_MAX: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_millis(50);

/// A story as far as it got.
pub(super) struct Told {
    pub(super) story: Story,
    token: String,
    /// The steps that are still to come.
    left: Vec<Step>,
    /// The charges that were made, newest last.
    pub(super) charges: Vec<String>,
    /// How many operations were done.
    pub(super) done: usize,
}

impl Told {
    /// Whether more is to come when everything has settled.
    pub(super) fn waits(&self) -> bool {
        !self.left.is_empty()
    }
}

/// Who tells the stories.
pub(super) struct Caller {
    pub(super) client: Arc<RwLock<Client>>,
    pub(super) done: AtomicUsize,
}

/// How a request ended.
enum Ended {
    /// It is final.
    Done,
    /// It was refused for how the charge stands: nothing was done.
    Refused,
    /// It is not known for too long: the story goes no further.
    Stuck,
}

impl Caller {
    /// Stores the card; every story begins so.
    pub(super) async fn begin(&self, story: Story) -> Told {
        let customer = format!("c-{}", story.at);
        let body = card(&story.number, &customer);
        let key = format!("t-{}", story.at);
        let stored = self.insist("POST", "/v1/tokens", &key, Some(&body), ANSWERED_MAX).await;
        assert_eq!(stored.status, 201, "{}", text(&stored));
        let token = stored.json()["id"].as_str().unwrap().to_owned();
        let left = story.steps.clone();
        Told { story, token, left, charges: Vec::new(), done: 0 }
    }

    /// Goes on with a story until its end, or to where it has to wait for the processor to settle: Authorize.Net refunds only what
    /// has settled.
    pub(super) async fn go_on(&self, mut told: Told, has_settled: bool) -> Told {
        while let Some(step) = told.left.first().copied() {
            let must_wait = told.story.lane == Lane::None && matches!(step, Step::Refund { .. });
            if must_wait && !has_settled {
                return told;
            }
            told.left.remove(0);
            match self.step(&mut told, step).await {
                Ended::Done => {
                    told.done += 1;
                    self.done.fetch_add(1, Ordering::SeqCst);
                }
                Ended::Refused => {}
                Ended::Stuck => told.left.clear(),
            }
        }
        told
    }

    async fn step(&self, told: &mut Told, step: Step) -> Ended {
        let token = format!("/v1/tokens/{}", told.token);
        match step {
            Step::Sale { .. } | Step::Authorize { .. } | Step::Verify => self.charge(told, step).await,
            Step::Capture { .. } | Step::Refund { .. } | Step::Void => self.follow(told, step).await,
            Step::Renumber { suffix } => {
                let number = told.story.new_number(suffix);
                let body = json!({"card": {"number": number, "exp_month": 11, "exp_year": 2033}});
                self.patch(&token, &body).await
            }
            Step::Extend { exp_year } => {
                self.patch(&token, &json!({"card": {"exp_month": 10, "exp_year": exp_year}})).await
            }
            Step::Erase => {
                // Authorize.Net wants the card for a refund: there is none afterwards.
                let path = format!("{token}?forgo_refunds=true");
                let erased = self.insist("DELETE", &path, "-", None, ANSWERED_MAX).await;
                // What was erased before the answer came is gone.
                assert!(matches!(erased.status, 200 | 202 | 410), "{}", text(&erased));
                Ended::Done
            }
        }
    }

    async fn patch(&self, token: &str, body: &Value) -> Ended {
        let patched = self.insist("PATCH", token, "-", Some(body), ANSWERED_MAX).await;
        assert_eq!(patched.status, 200, "{}", text(&patched));
        Ended::Done
    }

    async fn charge(&self, told: &mut Told, step: Step) -> Ended {
        let name = format!("{}-{}", told.story.at, told.left.len());
        let to = told.story.lane.destination();
        let (path, body) = match step {
            Step::Sale { amount, allow_partial, with_cvc } => {
                let mut body = json!({
                    "token": told.token, "amount": amount, "currency": "USD", "invoice": format!("inv-{name}"),
                    "initiator": "customer", "destination": to, "allow_partial": allow_partial,
                });
                if with_cvc {
                    body["cvc"] = "123".into();
                }
                ("/v1/charges", body)
            }
            Step::Authorize { amount } => {
                let body = json!({
                    "token": told.token, "amount": amount, "currency": "USD", "invoice": format!("inv-{name}"),
                    "initiator": "customer", "destination": to, "capture": false,
                });
                ("/v1/charges", body)
            }
            Step::Verify
            | Step::Capture { .. }
            | Step::Refund { .. }
            | Step::Void
            | Step::Renumber { .. }
            | Step::Extend { .. }
            | Step::Erase => ("/v1/verifications", json!({"token": told.token, "destination": to})),
        };
        let answer = self.until_final(path, &format!("c-{name}"), &body).await;
        assert!(matches!(answer.status, 201 | 202), "{name}: {}", text(&answer));
        let charge = answer.json();
        told.charges.push(charge["id"].as_str().unwrap().to_owned());
        let goes_on = matches!(charge["status"].as_str(), Some("approved" | "authorized"));
        // What comes after a card's sale needs none; a verification or a decline ends nothing but what would follow it.
        if !goes_on {
            told.left.retain(|step| !matches!(step, Step::Capture { .. } | Step::Refund { .. } | Step::Void));
        }
        if answer.status == 201 { Ended::Done } else { Ended::Stuck }
    }

    async fn follow(&self, told: &Told, step: Step) -> Ended {
        let Some(id) = told.charges.last() else { return Ended::Stuck };
        let path = format!("/v1/charges/{id}");
        let charge = self.insist("GET", &path, "-", None, ANSWERED_MAX).await.json();
        let amount = |name: &str| charge[name].as_i64().unwrap();
        let part = |of: i64, hundredths: i64| (of * hundredths / 100).max(1);
        let (verb, body) = match step {
            Step::Capture { hundredths, last } => {
                let left = amount("amount_authorized") - amount("amount_captured");
                ("captures", json!({"amount": part(left, hundredths), "final": last}))
            }
            Step::Refund { hundredths } => {
                let left = amount("amount_captured") - amount("amount_refunded");
                ("refunds", json!({"amount": part(left, hundredths)}))
            }
            Step::Void
            | Step::Sale { .. }
            | Step::Authorize { .. }
            | Step::Verify
            | Step::Renumber { .. }
            | Step::Extend { .. }
            | Step::Erase => ("void", json!({})),
        };
        let key = format!("f-{}-{}", told.story.at, told.left.len());
        let answer = self.until_final(&format!("{path}/{verb}"), &key, &body).await;
        match answer.status {
            201 => Ended::Done,
            // It was captured for good, nothing is left of it, or its card is gone and wanted: the plan does not look so far.
            409 | 410 | 422 => Ended::Refused,
            202 => Ended::Stuck,
            _ => panic!("{path} {verb}: {}", text(&answer)),
        }
    }

    /// Asks under the same key until the answer is final, or for too long.
    async fn until_final(&self, path: &str, key: &str, body: &Value) -> Answer {
        let began = Instant::now();
        loop {
            let answer = self.insist("POST", path, key, Some(body), ANSWERED_MAX).await;
            if answer.status != 202 || began.elapsed() > FINAL_MAX {
                return answer;
            }
            tokio::time::sleep(2 * AGAIN).await;
        }
    }

    /// Asks until there is an answer, whatever the vault does meanwhile.
    pub(super) async fn insist(
        &self,
        method: &str,
        path: &str,
        key: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Answer {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < patience, "{method} {path} is not answered");
            let client = self.client.read().await.clone();
            let headers = [("idempotency-key", key), ("prefer", "wait=3")];
            let headers = if method == "POST" { headers.as_slice() } else { &[] };
            let payload = body.map_or(Payload::None, Payload::Json);
            if let Ok(answer) = client.request(method, path, headers, payload).await {
                let code = answer.json()["code"].clone();
                let is_passing = answer.status >= 500
                    || matches!(
                        code.as_str(),
                        Some("request_in_progress" | "busy" | "conflict" | "log_lagging")
                    );
                if !is_passing {
                    return answer;
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
