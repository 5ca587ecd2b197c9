//! `/v1/webhooks/{destination}`: what processors tell by themselves. Nobody calls with a credential of ours here: what proves a webhook
//! is the processor's signature, which the forwarder checks. The answer says that it was taken only when what it changes is durable.

use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::code::Code;
use super::extract::{PathIds, WebhookBody};
use super::guard::Peer;
use super::problem::Problem;
use super::reply;
use crate::card::id::EventId;
use crate::edge::App;
use crate::edge::audit::catalogue;
use crate::edge::audit::event::{Actor, EventDraft, EventOutcome, Facts, Origin, Target};
use crate::edge::charge::{self, Became};
use crate::wire::control::DestinationInfo;
use crate::wire::forwarder::{Notification, WebhookRead};
use crate::wire::keeper::ReadWebhook;

/// More headers than any processor sends.
const HEADERS_MAX: usize = 64;
/// Adyen waits ten seconds for an answer; what is not done by then is told again.
const WITHIN: Duration = Duration::from_secs(8);
/// The forwarder's word for what is signed and cannot be read.
const UNREADABLE: &str = "unreadable";

/// `POST /v1/webhooks/{destination}`: takes in what a processor tells.
pub(super) async fn receive(
    State(app): State<App>,
    peer: Option<Extension<Peer>>,
    path: PathIds,
    WebhookBody(headers, body): WebhookBody,
) -> Result<Response, Problem> {
    let destinations = app.directory.destinations();
    let to = destinations.iter().find(|to| to.name == path.text("destination") && to.takes_webhooks);
    let to = to.ok_or_else(|| Problem::of(Code::NotFound))?;
    if app.processor_webhooks.check_key(&to.name).is_err() {
        return Err(Problem::of(Code::RateLimited).retry_after(1));
    }
    if !app.is_recovered() {
        return Err(Problem::of(Code::NotReady));
    }
    let ask = ReadWebhook { destination: to.name.clone(), headers: texts(&headers), body: body.to_vec() };
    match *app.keeper.read_webhook(Box::new(ask)).await? {
        WebhookRead::Said { notifications, answer } => {
            let learnt = tokio::time::timeout(WITHIN, learn(&app, to, &notifications)).await;
            learnt.unwrap_or_else(|_| Err(Problem::of(Code::Busy)))?;
            Ok(reply::text("text/plain; charset=utf-8", answer))
        }
        WebhookRead::Untrusted(why) => {
            app.metrics.processor_webhook(&to.name, "refused");
            log_refused(&app, to, peer.map(|Extension(peer)| peer), &why);
            Err(Problem::of(if why == UNREADABLE { Code::WebhookUnreadable } else { Code::WebhookUntrusted }))
        }
        WebhookRead::Failed(_) => Err(Problem::of(Code::Busy)),
    }
}

/// Each is learnt by itself: one that cannot be now has all of them told again, and those that are learnt stay so.
async fn learn(app: &App, to: &DestinationInfo, all: &[Notification]) -> Result<(), Problem> {
    for one in all {
        let became: Became = charge::told(app, to, one).await?;
        app.metrics.processor_webhook(&to.name, became.word());
    }
    Ok(())
}

/// The headers that are text; others prove nothing.
fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &axum::http::HeaderValue| value.to_str().map(str::to_owned).ok();
    let all = headers.iter().filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?)));
    all.take(HEADERS_MAX).collect()
}

/// Whoever tries keys is seen in the log; a flood is counted in the figures only.
fn log_refused(app: &App, to: &DestinationInfo, peer: Option<Peer>, why: &str) {
    if app.denials.check().is_err() {
        return;
    }
    let Ok(id) = EventId::make(app.clock.now()) else { return };
    let event = EventDraft {
        id,
        tenant: None,
        actor: Actor::Unknown("webhook".to_owned()),
        origin: Origin { ip: peer.map(|peer| peer.0.ip().to_string()), request: None },
        action: catalogue::WEBHOOK_REFUSED,
        outcome: EventOutcome::Denied(why.to_owned()),
        target: Target { kind: "destination".to_owned(), id: to.name.clone(), version: None },
        keys: Vec::new(),
        facts: Facts::default(),
    };
    drop(app.store.append_events(vec![event]));
}
