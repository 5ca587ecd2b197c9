//! Steps before an exchange: what a connector must have from a processor before it can send the request itself.
//!
//! Invariant: a step that fails ends the exchange before a byte of the request itself was written; the outcome says so.

use std::sync::Arc;
use std::time::Instant;

use hyper::body::Bytes;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::answer;
use super::exchange::{self, Ended};
use super::fault::{Fault, failed};
use super::routes::{Route, Target};
use crate::connector::{Connector, Operation, Part, StepOutputs};
use crate::wire::forwarder::{Exchange, Outcome, Sent, StepRequest};

/// Shorter values stand in any text by chance.
const SCRUBBED_CHARS_MIN: usize = 8;

/// A step of a destination: where it goes, and what it gave last.
pub(super) struct Step {
    /// Where it goes, if not where the operations go.
    pub(super) target: Option<Arc<Target>>,
    /// One exchange asks for a new token, the others wait for it.
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    outputs: Arc<StepOutputs>,
    until: Instant,
}

impl Step {
    pub(super) fn new(target: Option<Arc<Target>>) -> Self {
        Self { target, kept: Mutex::new(None) }
    }

    /// Forgets what it gave: the processor does not take it any more.
    pub(super) async fn forget(&self) {
        *self.kept.lock().await = None;
    }
}

/// Carries out the steps and fills what they gave into the request.
pub(super) async fn carry_out(
    route: &Route,
    connector: &Connector,
    exchange: &mut Exchange,
) -> Result<(), Outcome> {
    let operation = answer::operation_of(connector, exchange);
    let mut given: Vec<Arc<StepOutputs>> = Vec::with_capacity(exchange.steps.len());
    for mut step in std::mem::take(&mut exchange.steps) {
        let (whose, mark) = ((operation, Some(step.index)), exchange.mark.as_str());
        (step.path, step.headers, step.body) =
            filled(connector, whose, mark, (&step.path, &step.headers, &step.body), &given)
                .ok_or_else(|| failed(exchange.attempt, Sent::Not, Fault::Request, 0))?;
        given.push(outputs_of((route, connector), exchange, step).await?);
    }
    let mark = exchange.mark.clone();
    (exchange.path, exchange.headers, exchange.body) = filled(
        connector,
        (operation, None),
        &mark,
        (&exchange.path, &exchange.headers, &exchange.body),
        &given,
    )
    .ok_or_else(|| failed(exchange.attempt, Sent::Not, Fault::Request, 0))?;
    let secrets = given.iter().flat_map(|outputs| &outputs.values);
    exchange.scrub.extend(secrets.filter(|v| v.len() >= SCRUBBED_CHARS_MIN).map(|v| v.to_string()));
    Ok(())
}

async fn outputs_of(
    (route, connector): (&Route, &Connector),
    exchange: &Exchange,
    request: StepRequest,
) -> Result<Arc<StepOutputs>, Outcome> {
    let not_loaded = || failed(exchange.attempt, Sent::Not, Fault::Destination, 0);
    let step = route.steps.get(request.index).ok_or_else(not_loaded)?;
    let mut kept = step.kept.lock().await;
    if let Some(kept) = kept.as_ref().filter(|kept| Instant::now() < kept.until) {
        return Ok(Arc::clone(&kept.outputs));
    }
    let (index, outputs) =
        ask((route, connector), step, exchange, request).await.map(|(i, o)| (i, Arc::new(o)))?;
    if let Some(keep) = outputs.keep.filter(|_| !connector.step_has_card(index)) {
        *kept = Some(Kept { outputs: Arc::clone(&outputs), until: Instant::now() + keep });
    }
    Ok(outputs)
}

async fn ask(
    (route, connector): (&Route, &Connector),
    step: &Step,
    exchange: &Exchange,
    mut request: StepRequest,
) -> Result<(usize, StepOutputs), Outcome> {
    let target = step.target.as_ref().unwrap_or(&route.target);
    let index = request.index;
    let body = Bytes::from(std::mem::take(&mut request.body));
    let built = exchange::build(target, (&request.method, &request.path, &request.headers), body);
    let Some(built) = built else {
        return Err(failed(exchange.attempt, Sent::Not, Fault::Request, 0));
    };
    let Ended { got, first_write } = exchange::send(target, route.limits(), built, true).await;
    let has_card = connector.step_has_card(index);
    let sent = |sent| if has_card { sent } else { Sent::Not };
    match got {
        Ok(got) => connector.read_step(index, got.status, &got.body).map(|outputs| (index, outputs)).map_err(
            |mapped| {
                let answer = answer::of_a_step(*mapped, &got, &exchange.scrub);
                let outcome = failed(exchange.attempt, sent(Sent::Yes), Fault::Step, 0);
                Outcome { answer: Some(answer), ..outcome }
            },
        ),
        Err(fault) => {
            let sent = sent(if first_write.is_some() { Sent::Maybe } else { Sent::Not });
            // Perhaps the card left; the charge itself certainly did not.
            let answer = (sent != Sent::Not).then(answer::not_charged);
            let outcome = failed(exchange.attempt, sent, fault, 0);
            Err(Outcome { answer, ..outcome })
        }
    }
}

type Filled = (String, Vec<(String, String)>, Vec<u8>);

/// A request with what earlier steps gave in the place of its marks; `None` if that is no text where it must be one.
fn filled(
    connector: &Connector,
    whose: (Operation, Option<usize>),
    mark: &str,
    (path, headers, body): (&str, &[(String, String)], &[u8]),
    given: &[Arc<StepOutputs>],
) -> Option<Filled> {
    let given: Vec<&StepOutputs> = given.iter().map(AsRef::as_ref).collect();
    let place = |part, text: &[u8]| connector.place_outputs(whose, part, text, mark, &given);
    let text = |mut bytes: Zeroizing<Vec<u8>>| String::from_utf8(std::mem::take(&mut *bytes)).ok();
    let headers: Option<Vec<_>> = headers
        .iter()
        .map(|(name, value)| Some((name.clone(), text(place(Part::Header, value.as_bytes()))?)))
        .collect();
    let mut body = place(Part::Body, body);
    Some((text(place(Part::Path, path.as_bytes()))?, headers?, std::mem::take(&mut *body)))
}
