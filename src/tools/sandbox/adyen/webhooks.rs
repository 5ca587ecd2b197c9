//! Adyen's standard webhooks: what became of payments and modifications, told later to whoever listens, signed.
//!
//! The signature is HMAC-SHA-256, in base64, over eight fields joined by colons, as
//! <https://docs.adyen.com/development-resources/webhooks/verify-hmac-signatures> says (looked up 2026-11-25). A
//! receiver that answers anything but 2xx is told again, later and later. What was not told is forgotten when the
//! sandbox ends.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ring::hmac;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::faults::Occasion;
use super::super::ledger::{Entry, Kind, Status, Wire};
use super::super::numbers::{self, Fault};
use super::super::processor::Sandbox;
use super::shape::scheme;
use crate::tools::client::Client;

/// New events are looked for so often.
const LOOK: Duration = Duration::from_millis(50);
/// A webhook that is late is late by this.
const DELAY: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(60);
const TRIES_MAX: u32 = 50;

/// Somebody who listens, and the key he checks signatures with.
#[derive(Clone)]
pub struct Webhooks {
    client: Client,
    path: String,
    key: Arc<hmac::Key>,
}

impl std::fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Webhooks(REDACTED)")
    }
}

/// One event, and how far it got.
#[derive(Clone, Debug)]
pub(in crate::tools::sandbox) struct Told {
    entry: Entry,
    delivered: bool,
    tries: u32,
    next: Instant,
}

impl Told {
    /// An event that nobody was told of yet.
    pub(in crate::tools::sandbox) fn new(entry: Entry) -> Self {
        Self { entry, delivered: false, tries: 0, next: Instant::now() }
    }

    /// Whether it needs no more care.
    pub(in crate::tools::sandbox) fn is_over(&self) -> bool {
        self.delivered || self.tries >= TRIES_MAX
    }

    /// As the sandbox's own verb shows it, unsigned.
    pub(in crate::tools::sandbox) fn shown(&self) -> Value {
        let body = notification(&self.entry, None);
        json!({ "delivered": self.delivered, "tries": self.tries, "body": body })
    }
}

impl Webhooks {
    /// Webhooks to this URL. The file holds the key in hex, as Adyen shows it.
    pub fn new(url: &str, authority: Option<&Path>, key_file: &Path) -> io::Result<Self> {
        let wrong = |message| io::Error::new(io::ErrorKind::InvalidInput, message);
        let scheme_end =
            url.find("://").map(|at| at + 3).ok_or_else(|| wrong("the webhook URL has no scheme"))?;
        let path_at = url.get(scheme_end..).and_then(|rest| rest.find('/')).map(|at| scheme_end + at);
        let (base, path) = url.split_at(path_at.unwrap_or(url.len()));
        let authority = authority.map(std::fs::read).transpose()?;
        let client = Client::new(base, authority.as_deref(), None).map_err(io::Error::other)?;
        let key = std::fs::read_to_string(key_file)?;
        let key = data_encoding::HEXUPPER_PERMISSIVE
            .decode(key.trim().as_bytes())
            .map_err(|_| wrong("the webhook key must be in hex"))?;
        let path = if path.is_empty() { "/" } else { path }.to_owned();
        let key = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &key));
        Ok(Self { client: client.with_timeout(Duration::from_secs(10)), path, key })
    }

    /// Tells, for as long as the future is polled.
    pub(in crate::tools::sandbox) async fn deliver(self, sandbox: Arc<Sandbox>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let due = sandbox.due_events(Instant::now());
            let end = sandbox.book().end();
            if sandbox.until_durable(end).await.is_err() {
                return;
            }
            for at in due {
                let Some(entry) = sandbox.event(at, |told| told.entry.clone()) else { continue };
                let fault = sandbox.meets(Occasion::Webhook, Some(Wire::Adyen)).fault;
                if fault == Fault::Delay {
                    tokio::time::sleep(DELAY).await;
                }
                let body = notification(&entry, Some(&self.key));
                let is_taken =
                    self.tell(&body).await && (fault != Fault::Duplicate || self.tell(&body).await);
                sandbox.event(at, |told| {
                    told.delivered = is_taken;
                    told.tries += 1;
                    told.next = Instant::now() + (LOOK * 2_u32.pow(told.tries.min(16))).min(PAUSE_MAX);
                });
            }
        }
    }
}

impl Webhooks {
    /// Whether it was taken.
    async fn tell(&self, body: &Value) -> bool {
        let answer = self.client.request("POST", &self.path, &[], body).await;
        answer.is_ok_and(|answer| (200..300).contains(&answer.status))
    }
}

impl Told {
    /// Whether it is time to tell.
    pub(in crate::tools::sandbox) fn is_due(&self, now: Instant) -> bool {
        !self.is_over() && self.next <= now
    }
}

/// One notification, signed if there is a key.
pub(in crate::tools::sandbox) fn notification(entry: &Entry, key: Option<&hmac::Key>) -> Value {
    let fields = entry.family.clone().unwrap_or_default();
    let event = match entry.kind {
        Kind::Sale | Kind::Authorize | Kind::Verify => "AUTHORISATION",
        Kind::Capture => "CAPTURE",
        Kind::Refund => "REFUND",
        Kind::Void => "CANCELLATION",
    };
    let success = if entry.status == Status::Declined { "false" } else { "true" };
    let row = numbers::row_of(entry.behaviour, &entry.code).and_then(|row| row.adyen.as_deref());
    let reason = match (entry.status, row) {
        (Status::Declined, Some(code)) => numbers::text_of("adyen", code),
        (Status::Declined, None) => "Insufficient balance on payment",
        (_, _) => "",
    };
    let original = entry.parent.as_deref().unwrap_or_default();
    // Signed, as what additionalData has is not: of a partial approval it is what was approved.
    let is_partial =
        matches!(entry.status, Status::Approved | Status::Authorized) && entry.amount_approved > 0;
    let amount = if is_partial { entry.amount_approved.min(entry.amount) } else { entry.amount };
    let mut item = json!({
        "additionalData": { "expiryDate": fields.expiry, "cardSummary": entry.last4 },
        "amount": { "currency": entry.currency, "value": amount },
        "eventCode": event, "eventDate": entry.at, "merchantAccountCode": fields.merchant,
        "merchantReference": entry.reference, "originalReference": original,
        "paymentMethod": scheme(&fields.brand), "pspReference": entry.id, "reason": reason, "success": success,
    });
    if let (Some(key), Some(data)) = (key, item.pointer_mut("/additionalData").and_then(Value::as_object_mut))
    {
        let value = amount.to_string();
        let signed = [
            entry.id.as_str(),
            original,
            &fields.merchant,
            &entry.reference,
            &value,
            &entry.currency,
            event,
            success,
        ];
        let tag = hmac::sign(key, signed.join(":").as_bytes());
        data.insert("hmacSignature".into(), data_encoding::BASE64.encode(tag.as_ref()).into());
    }
    json!({ "live": "false", "notificationItems": [{ "NotificationRequestItem": item }] })
}
