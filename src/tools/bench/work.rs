//! The kinds of work: each request has its own card, customer and Idempotency-Key.

use std::io::Write;
use std::time::Duration;

use super::histogram::Histogram;
use super::load::{Answer, Work, value_of};
use crate::tools::sandbox::numbers::{self, Behaviour};

/// So many different last three digits spread the numbers, which keeps each below the fingerprint budget of test numbers.
const SUFFIXES: u32 = 900;
const NUMBERS_OF_SUFFIX: u32 = 1_000_000;

/// Where requests go, and as whom.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) credential: String,
    /// Tells the keys of one run from those of another.
    pub(super) run: String,
}

/// `POST /v1/tokens`.
pub(super) struct Tokens {
    caller: Caller,
    next: u32,
    /// The tokens that came back, if they are wanted.
    pub(super) kept: Option<Vec<String>>,
}

impl Tokens {
    pub(super) const fn new(caller: Caller) -> Self {
        Self { caller, next: 0, kept: None }
    }
}

impl Work for Tokens {
    fn request(&mut self, out: &mut Vec<u8>) {
        let n = self.next;
        self.next += 1;
        let number = number_of(n);
        let key = format_args!("{}-{n:09}", self.caller.run);
        let body = format!(
            r#"{{"card":{{"number":"{number}","exp_month":12,"exp_year":2030}},"billing":{{"zip":"94107"}},"customer":"customer-{n:010}"}}"#
        );
        post(out, "/v1/tokens", &self.caller.credential, key, &body);
    }

    fn answer(&mut self, answer: &Answer<'_>) -> bool {
        if answer.status == 201
            && let Some(kept) = &mut self.kept
            && let Some(token) = id_of(answer.body)
        {
            kept.push(token);
        }
        answer.status == 201
    }
}

/// `POST /v1/tokens/{token}/agreements`, one for each card.
pub(super) struct Agreements {
    caller: Caller,
    tokens: Vec<String>,
    next: usize,
}

impl Agreements {
    pub(super) const fn new(caller: Caller, tokens: Vec<String>) -> Self {
        Self { caller, tokens, next: 0 }
    }
}

impl Work for Agreements {
    fn request(&mut self, out: &mut Vec<u8>) {
        let n = self.next;
        self.next += 1;
        let path = format!("/v1/tokens/{}/agreements", self.tokens.get(n).map_or("", String::as_str));
        let key = format_args!("{}-{n:09}", self.caller.run);
        let body = r#"{"type":"recurring","consent":{"by":"customer","at":"2026-01-01T00:00:00Z"},"network_transaction_id":"000000000000001"}"#;
        post(out, &path, &self.caller.credential, key, body);
    }

    fn answer(&mut self, answer: &Answer<'_>) -> bool {
        answer.status == 201
    }
}

/// `GET /v1/tokens/{token}`, card after card.
pub(super) struct Reads {
    caller: Caller,
    tokens: Vec<String>,
    next: usize,
}

impl Reads {
    pub(super) const fn new(caller: Caller, tokens: Vec<String>) -> Self {
        Self { caller, tokens, next: 0 }
    }
}

impl Work for Reads {
    fn request(&mut self, out: &mut Vec<u8>) {
        // A step that meets every token and no neighbour.
        self.next = self.next.wrapping_add(7_919);
        let token = self.tokens.get(self.next % self.tokens.len().max(1)).map_or("", String::as_str);
        let credential = &self.caller.credential;
        // Writing to memory does not fail.
        let _ = write!(
            out,
            "GET /v1/tokens/{token} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {credential}\r\n\r\n"
        );
    }

    fn answer(&mut self, answer: &Answer<'_>) -> bool {
        answer.status == 200
    }
}

/// `POST /v1/charges`, each on a card of its own.
pub(super) struct Charges {
    caller: Caller,
    tokens: Vec<String>,
    next: usize,
    /// Client time less what the processor measured.
    pub(super) added: Histogram,
    /// Whether times are kept: not during the warm-up, and never the floor's.
    measures: bool,
}

impl Charges {
    pub(super) fn new(caller: Caller, tokens: Vec<String>) -> Self {
        Self { caller, tokens, next: 0, added: Histogram::default(), measures: false }
    }
}

impl Work for Charges {
    fn request(&mut self, out: &mut Vec<u8>) {
        let n = self.next;
        self.next += 1;
        let token = self.tokens.get(n % self.tokens.len().max(1)).map_or("", String::as_str);
        let key = format_args!("{}-c{n:09}", self.caller.run);
        let body = format!(
            r#"{{"token":"{token}","amount":1999,"currency":"USD","destination":"sandbox","initiator":"customer","capture":true,"invoice":"invoice-{n:09}"}}"#
        );
        post(out, "/v1/charges", &self.caller.credential, key, &body);
    }

    fn answer(&mut self, answer: &Answer<'_>) -> bool {
        if !self.measures || answer.status != 201 {
            return answer.status == 201;
        }
        let processor = value_of(answer.head, b"vault-processor-ms: ");
        let processor = processor.and_then(|text| std::str::from_utf8(text).ok()?.parse::<f64>().ok());
        let Some(processor) = processor.filter(|ms| ms.is_finite() && *ms >= 0.0) else { return false };
        self.added.count(answer.took.saturating_sub(Duration::from_secs_f64(processor / 1e3)));
        true
    }

    fn measure(&mut self) {
        self.measures = true;
    }
}

fn post(out: &mut Vec<u8>, path: &str, credential: &str, key: std::fmt::Arguments<'_>, body: &str) {
    let length = body.len();
    // Writing to memory does not fail.
    let _ = write!(
        out,
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {credential}\r\n\
         Content-Type: application/json\r\nIdempotency-Key: {key}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
}

/// The number of the n-th card.
pub(super) fn number_of(n: u32) -> String {
    numbers::number(0, number_at(n), Behaviour::Approve)
}

/// The sequence that [`numbers::number`] makes the n-th card of.
const fn number_at(n: u32) -> u32 {
    (n % SUFFIXES) * NUMBERS_OF_SUFFIX + (n / SUFFIXES) % NUMBERS_OF_SUFFIX
}

/// The `id` of an answer about a card, which is its first member.
fn id_of(body: &[u8]) -> Option<String> {
    let rest = body.strip_prefix(br#"{"id":""#)?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    String::from_utf8(rest.get(..end)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Caller {
        Caller { credential: "secret".into(), run: "r".into() }
    }

    #[test]
    fn every_request_has_its_own_card_customer_and_key() {
        let mut work = Tokens::new(caller());
        let mut seen = [(); 3].map(|()| std::collections::HashSet::new());
        for _ in 0..5_000 {
            let mut out = Vec::new();
            work.request(&mut out);
            let text = String::from_utf8(out).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}", body.len())));
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            let key = head.split("Idempotency-Key: ").nth(1).unwrap().split('\r').next().unwrap();
            let values = [body["card"]["number"].as_str().unwrap(), body["customer"].as_str().unwrap(), key];
            for (seen, value) in seen.iter_mut().zip(values) {
                assert!(seen.insert(value.to_owned()));
            }
        }
    }

    #[test]
    fn added_is_client_time_less_the_processors() {
        let mut work = Charges::new(caller(), vec!["tok_a".into()]);
        work.measure();
        let head = b"HTTP/1.1 201 Created\r\nvault-processor-ms: 20.5\r";
        let mut answer = Answer { status: 201, head, body: b"{}", took: Duration::from_millis(22) };
        assert!(work.answer(&answer));
        assert!((work.added.quantile_ms(0.5) - 1.5).abs() < 0.02);
        answer.head = b"HTTP/1.1 201 Created\r";
        assert!(!work.answer(&answer), "an answer without the processor's time measures nothing");
    }

    #[test]
    fn the_token_of_an_answer_is_found() {
        assert_eq!(id_of(br#"{"id":"tok_x","card":{}}"#).as_deref(), Some("tok_x"));
        assert_eq!(id_of(br#"{"error":"x"}"#), None);
    }
}
