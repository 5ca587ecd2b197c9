//! A request for a processor, rendered by the connector from opened fields, held until its grant comes.

use zeroize::Zeroizing;

use super::charge_body::PassThrough;
use super::envelope::Zip;
use super::{CardVerificationCode, Pan};
use crate::card::brand::Brand;
use crate::card::expiry::Expiry;
use crate::clock::{Clock, SystemClock};
use crate::connector::{
    Amount, Billing, Card, EndpointParts, Initiator, Operation, Previous, Reason, RenderError, Rendered,
    SendMoment, StoredCredential, ThreeDSecure, Use, Values, Word,
};
use crate::keeper::destinations::KeptDestination;
use crate::random;
use crate::wire::forwarder::{Exchange, StepRequest};
use crate::wire::keeper::{LookUp, Prepare, Refusal, RefusalCode, Verb};

/// Shorter values stand in any text by chance: a code, a country, an indicator.
const SCRUBBED_CHARS_MIN: usize = 5;

/// The opened fields of a card, for one rendering.
pub(in crate::keeper) struct ClearCard {
    /// The number.
    pub(in crate::keeper) pan: Pan,
    /// The brand, by the table of ranges or the networks' published ones.
    pub(in crate::keeper) brand: Brand,
    /// Month and year.
    pub(in crate::keeper) expiry: Expiry,
    /// The billing zip.
    pub(in crate::keeper) zip: Option<Zip>,
}

/// A rendered request, and the bytes that its MAC covers.
pub(in crate::keeper) struct RenderedRequest {
    /// What leaves.
    pub(in crate::keeper) exchange: Exchange,
    /// What is hashed: CVC, credentials and volatile leaves blanked.
    pub(in crate::keeper) mac_bytes: Zeroizing<Vec<u8>>,
}

/// Renders a verb.
pub(in crate::keeper) fn render(
    to: &KeptDestination,
    ask: &Prepare,
    card: Option<&ClearCard>,
    pass: &PassThrough,
) -> Result<RenderedRequest, Refusal> {
    let number = card.map(|card| card.pan.expose_digits());
    let cvc = pass.cvc.as_ref().map(CardVerificationCode::expose_digits);
    let (number, cvc) = (number.and_then(as_text), cvc.and_then(as_text));
    let (attempt, reference) = (ask.attempt.to_string(), ask.attempt.reference());
    let previous = ask.previous_attempt.map(|attempt| (attempt.to_string(), attempt.reference()));
    let credentials = to.credentials();
    let moment = ThisSend::make()?;
    let values = Values {
        card: card.zip(number).map(|(card, number)| Card {
            number,
            exp_month: card.expiry.month,
            exp_year: card.expiry.year,
            cvc,
            brand: Some(card.brand.name()),
        }),
        billing: billing(pass, card),
        three_d_secure: three_d_secure(pass),
        amount: (!ask.currency.is_empty()).then_some(Amount { minor: ask.amount, currency: &ask.currency }),
        attempt_id: &attempt,
        attempt_ref: &reference,
        stored_credential: stored_credential(ask),
        credentials: &credentials,
        previous: Previous {
            transaction: ask.previous_transaction.as_deref(),
            amount: ask.previous_amount,
            attempt: previous.as_ref().map(|(attempt, _)| attempt.as_str()),
            reference: previous.as_ref().map(|(_, reference)| reference.as_str()),
            ..Previous::default()
        },
        capture_final: ask.last,
        allow_partial: ask.allow_partial,
        description: ask.description.as_deref(),
        statement_descriptor: ask.statement_descriptor.as_deref(),
        invoice: Some(ask.invoice.as_str()).filter(|i| !i.is_empty()),
        customer: ask.customer.as_deref(),
        moment: moment.of_connector(),
        endpoint: EndpointParts { host: &to.host, prefix: &to.prefix },
    };
    let operation = operation(ask.verb);
    let rendered = to.connector.render(operation, &values).map_err(refusal)?;
    let mac_bytes = to.connector.render_for_mac(operation, &values).map_err(refusal)?;
    let zip = values.billing.zip;
    let passed = passed_through(pass).chain(zip).filter(|value| value.chars().count() >= SCRUBBED_CHARS_MIN);
    let scrub = [number, cvc].into_iter().flatten().chain(passed).map(str::to_owned).collect();
    let exchange = exchange(to, (ask.attempt, ask.verb, false), rendered, &moment, scrub);
    Ok(RenderedRequest { exchange, mac_bytes })
}

/// Renders the question what became of an attempt. Where no look-up sees such attempts it is refused: an answer that found
/// nothing would prove nothing.
pub(in crate::keeper) fn render_look_up(to: &KeptDestination, ask: &LookUp) -> Result<Exchange, Refusal> {
    let look_up = to.connector.lookup_for(operation(ask.verb));
    let look_up = look_up.ok_or(Refusal::of(RefusalCode::OperationUnsupported))?;
    let (attempt, reference) = (ask.attempt.to_string(), ask.attempt.reference());
    let credentials = to.credentials();
    let moment = ThisSend::make()?;
    let values = Values {
        moment: moment.of_connector(),
        endpoint: EndpointParts { host: &to.host, prefix: &to.prefix },
        attempt_id: &attempt,
        attempt_ref: &reference,
        credentials: &credentials,
        previous: Previous {
            transaction: ask.previous_transaction.as_deref().or(ask.transaction.as_deref()),
            attempt: Some(&attempt),
            reference: Some(&reference),
            ..Previous::default()
        },
        ..Values::default()
    };
    let rendered = to.connector.render(look_up, &values).map_err(refusal)?;
    Ok(exchange(to, (ask.attempt, ask.verb, true), rendered, &moment, Vec::new()))
}

/// The connector's word for a verb.
pub(in crate::keeper) const fn operation(verb: Verb) -> Operation {
    match verb {
        Verb::Sale => Operation::Sale,
        Verb::Authorize => Operation::Authorize,
        Verb::Capture => Operation::Capture,
        Verb::Refund => Operation::Refund,
        Verb::Void => Operation::Void,
        Verb::Verify => Operation::Verify,
    }
}

/// What differs from send to send.
struct ThisSend {
    unix_ms: i64,
    nonce: String,
    mark: String,
}

impl ThisSend {
    fn make() -> Result<Self, Refusal> {
        let unready = |_| Refusal::of(RefusalCode::Busy);
        let text = |bytes: [u8; 16]| data_encoding::HEXLOWER.encode(&bytes);
        Ok(Self {
            unix_ms: i64::try_from(SystemClock.now().millis()).unwrap_or(i64::MAX),
            nonce: text(random::make_bytes().map_err(unready)?),
            mark: format!("m{}", text(random::make_bytes().map_err(unready)?)),
        })
    }

    fn of_connector(&self) -> SendMoment<'_> {
        SendMoment { unix_ms: self.unix_ms, nonce: &self.nonce, mark: &self.mark }
    }
}

fn exchange(
    to: &KeptDestination,
    (attempt, verb, look_up): (crate::card::id::AttemptId, Verb, bool),
    rendered: Rendered,
    moment: &ThisSend,
    mut scrub: Vec<String>,
) -> Exchange {
    scrub.extend(to.secrets());
    let steps: Vec<StepRequest> = rendered
        .steps
        .into_iter()
        .map(|(index, step)| StepRequest {
            index,
            method: step.method.to_owned(),
            path: step.path_and_query,
            headers: headers(step.headers),
            body: step.body.to_vec(),
        })
        .collect();
    Exchange {
        destination: to.name.clone(),
        attempt,
        verb,
        look_up,
        method: rendered.method.to_owned(),
        path: rendered.path_and_query,
        headers: headers(rendered.headers),
        body: rendered.body.to_vec(),
        credentials: to.credentials_used(),
        scrub,
        pooled: to.pooled,
        mark: if steps.is_empty() { String::new() } else { moment.mark.clone() },
        steps,
    }
}

fn headers(rendered: Vec<(String, Zeroizing<String>)>) -> Vec<(String, String)> {
    rendered.into_iter().map(|(name, mut value)| (name, std::mem::take(&mut *value))).collect()
}

fn billing<'v>(pass: &'v PassThrough, card: Option<&'v ClearCard>) -> Billing<'v> {
    let held = &pass.billing;
    let text = |secret: &'v Option<Zeroizing<String>>| secret.as_ref().map(|s| s.as_str());
    Billing {
        zip: card.and_then(|card| card.zip.as_ref()).map(|zip| zip.as_str()),
        name: text(&held.name),
        line1: text(&held.line1),
        line2: text(&held.line2),
        city: text(&held.city),
        region: text(&held.region),
        country: text(&held.country),
        email: text(&held.email),
    }
}

fn three_d_secure(pass: &PassThrough) -> Option<ThreeDSecure<'_>> {
    let held = &pass.three_d_secure;
    let text = |secret| Option::<&Zeroizing<String>>::map(secret, |s: &Zeroizing<String>| s.as_str());
    let there =
        [&held.version, &held.eci, &held.cavv, &held.ds_transaction_id].into_iter().any(Option::is_some);
    there.then(|| ThreeDSecure {
        version: text(held.version.as_ref()),
        eci: text(held.eci.as_ref()),
        cavv: text(held.cavv.as_ref()),
        ds_transaction_id: text(held.ds_transaction_id.as_ref()),
    })
}

/// What says something of a person or of an authentication: kept nowhere, also if the processor repeats it.
fn passed_through(pass: &PassThrough) -> impl Iterator<Item = &str> {
    let (billing, secure) = (&pass.billing, &pass.three_d_secure);
    let values =
        [&billing.name, &billing.line1, &billing.line2, &billing.city, &billing.region, &billing.email];
    let values = values.into_iter().chain([&secure.cavv, &secure.ds_transaction_id]);
    values.filter_map(|value| value.as_ref().map(|value| value.as_str()))
}

fn stored_credential(ask: &Prepare) -> Option<StoredCredential<'_>> {
    let facts = ask.stored_credential.as_ref()?;
    Some(StoredCredential {
        usage: Use::parse(&facts.usage)?,
        initiator: Initiator::parse(&facts.initiator)?,
        reason: Reason::parse(&facts.reason)?,
        ntid: facts.network_transaction_id.as_deref(),
        tlid: facts.transaction_link_id.as_deref(),
        original_amount: facts.original_amount,
        previous: facts.previous.as_deref(),
    })
}

fn refusal(error: RenderError) -> Refusal {
    match error {
        RenderError::NoOperation(_) => Refusal::of(RefusalCode::OperationUnsupported),
        RenderError::Missing(name) => Refusal { code: RefusalCode::RequiredByConnector, param: Some(name) },
        RenderError::AmountNotRepresentable => Refusal::about(RefusalCode::AmountInvalid, "amount"),
        RenderError::UnknownCurrency => Refusal::about(RefusalCode::CurrencyInvalid, "currency"),
        RenderError::Unfit(name) | RenderError::Unsendable(name) => {
            Refusal { code: RefusalCode::InvalidValue, param: Some(name) }
        }
        RenderError::TooLarge => Refusal::of(RefusalCode::InvalidValue),
    }
}

fn as_text(digits: &[u8]) -> Option<&str> {
    std::str::from_utf8(digits).ok()
}
