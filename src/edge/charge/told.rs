//! What a processor tells by itself: matched to the attempt it is about, and learnt like the answer to a question.
//!
//! An attempt is found by its own reference or by the processor's id of it; what only names the payment is believed if a single
//! operation of that kind can be meant. Nothing that is settled is changed by it, but one thing: an approval that the processor says
//! did not hold is a person's from then on. What it tells of disputes is kept with the charge, which stands as before.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use super::machine::{self, How, Learnt};
use super::send::{self, By, event_about};
use super::{lock, resolve, terms};
use crate::card::id::{AttemptId, ChargeId, EventId};
use crate::card::tenant::TenantId;
use crate::connector;
use crate::edge::App;
use crate::edge::audit::catalogue;
use crate::edge::audit::event::{Actor, EventDraft, EventOutcome, Facts, Origin, Target};
use crate::edge::store::{
    Attempt, AttemptState, Change, ChargeFilter, ChargeRow, DisputeRow, DisputeStatus, Operation,
    OperationKind, RowChange, StoreError,
};
use crate::wire::control::DestinationInfo;
use crate::wire::forwarder::{Answer, Dispute, Notification, Outcome, Says, Sent, Stated, Verdict};
use crate::wire::keeper::Verb;

/// The answer to the request itself says more, and is on its way; a processor waits ten seconds for ours.
const SENDING_WAIT: Duration = Duration::from_secs(2);
const SENDING_LOOK: Duration = Duration::from_millis(50);
/// One transaction of a processor belongs to one charge; a few more are looked at.
const CANDIDATES_MAX: usize = 20;

/// What became of one notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Became {
    /// The attempt is as it says, by it.
    Applied,
    /// The attempt was so already.
    Known,
    /// It is told in the log, and changes nothing.
    Noted,
    /// It says nothing of ours.
    Ignored,
    /// Nothing of ours that it could be about.
    Unmatched,
    /// It is about something of ours, and does not fit to it; the log says why.
    Unapplied,
}

impl Became {
    /// Its word in figures.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Known => "known",
            Self::Noted => "noted",
            Self::Ignored => "ignored",
            Self::Unmatched => "unmatched",
            Self::Unapplied => "unapplied",
        }
    }
}

/// Attempts whose id at the processor is not known yet, and where each belongs.
#[derive(Debug, Default)]
pub(super) struct Unnamed(Mutex<HashMap<AttemptId, (TenantId, ChargeId)>>);

impl Unnamed {
    /// Notes those of a charge.
    pub(super) fn note(&self, charge: &ChargeRow) {
        let mut all = lock(&self.0);
        for (_, attempt) in machine::unsettled(charge).filter(|(_, a)| a.transaction_id.is_none()) {
            all.insert(attempt.id, (charge.tenant, charge.id));
        }
    }

    /// Something was learnt of an attempt: it may be found otherwise from now on, or need not be.
    pub(super) fn learnt(&self, charge: &ChargeRow, attempt: AttemptId) {
        let still = machine::unsettled(charge).any(|(_, a)| a.id == attempt && a.transaction_id.is_none());
        if !still {
            lock(&self.0).remove(&attempt);
        }
    }

    /// Where the attempt of a reference belongs.
    fn find(&self, reference: &str) -> Option<(TenantId, ChargeId)> {
        let all = lock(&self.0);
        if let Some(id) = AttemptId::parse(reference) {
            return all.get(&id).copied();
        }
        all.iter().find(|(id, _)| is_reference(**id, reference)).map(|(_, place)| *place)
    }
}

/// Takes in one notification of a destination; when this returns, what it changes is durable.
pub async fn told(app: &App, to: &DestinationInfo, one: &Notification) -> Result<Became, StoreError> {
    if one.says == Says::Ignored {
        return Ok(Became::Ignored);
    }
    let Some((mut charge, found)) = find(app, to, one).await? else {
        if one.reference.as_deref().is_some_and(|reference| AttemptId::parse(reference).is_some()) {
            tell(app, about_destination(app, to, "unmatched"));
        }
        return Ok(Became::Unmatched);
    };
    if let Says::Disputed(dispute) = one.says {
        return Ok(note_dispute(app, charge, dispute, one).await);
    }
    let Some(attempt) = found else { return Ok(without_attempt(app, &charge, one)) };
    let began = tokio::time::Instant::now();
    while is_sending(&charge, attempt) && began.elapsed() < SENDING_WAIT {
        tokio::time::sleep(SENDING_LOOK).await;
        charge = super::create::as_it_stands(app, charge).await;
    }
    match one.says {
        Says::Answer => Ok(learn(app, charge, attempt, one).await),
        Says::Reversed => Ok(reverse(app, charge, attempt, one).await),
        Says::Noted => {
            tell(app, about(app, &charge, Some(attempt), "noted"));
            Ok(Became::Noted)
        }
        Says::Disputed(_) | Says::Ignored => Ok(Became::Ignored),
    }
}

/// Keeps what is told of a dispute of a charge, once.
async fn note_dispute(app: &App, mut charge: ChargeRow, dispute: Dispute, one: &Notification) -> Became {
    loop {
        let row = DisputeRow {
            status: match dispute {
                Dispute::Opened => DisputeStatus::Opened,
                Dispute::ChargedBack => DisputeStatus::ChargedBack,
                Dispute::Reversed => DisputeStatus::Reversed,
                Dispute::ChargedBackAgain => DisputeStatus::ChargedBackAgain,
            },
            amount: match &one.stated {
                Stated::Amount(minor, currency) if *currency == charge.currency => Some(*minor),
                Stated::Amount(..) | Stated::Nothing | Stated::Unclear => None,
            },
            code: one.answer.processor_code.clone().filter(|code| !code.is_empty()),
            transaction_id: one.answer.transaction_id.clone(),
            at: app.clock.now(),
        };
        let status = row.status.word();
        let Some(next) = machine::disputed(&charge, row) else { return Became::Known };
        if let Ok(mut event) = event_about(app, &next, catalogue::CHARGE_DISPUTE, &by()) {
            event.facts = Facts { note: Some(status.to_owned()), ..Facts::default() };
            let change = Change {
                rows: vec![RowChange::PutCharge(Box::new(next))],
                events: vec![event],
                idempotency: None,
            };
            if app.store.commit(change).await.is_ok() {
                return Became::Applied;
            }
        }
        tokio::time::sleep(SENDING_LOOK).await;
        charge = super::create::as_it_stands(app, charge).await;
    }
}

/// The charge is ours, and nothing that was asked for by us can be meant.
fn without_attempt(app: &App, charge: &ChargeRow, one: &Notification) -> Became {
    if one.says == Says::Noted {
        tell(app, about(app, charge, None, "noted"));
        return Became::Noted;
    }
    let first = charge.operations.first().map(|operation| operation.kind);
    // A sale is captured by the processor itself.
    if first == Some(OperationKind::Sale) && one.of == [Verb::Capture] && one.says == Says::Answer {
        return Became::Ignored;
    }
    tell(app, about(app, charge, None, "not_ours"));
    Became::Unapplied
}

/// The charge that a notification belongs to, and the attempt that it is about.
async fn find(
    app: &App,
    to: &DestinationInfo,
    one: &Notification,
) -> Result<Option<(ChargeRow, Option<AttemptId>)>, StoreError> {
    let mut ours = None;
    if let Some((tenant, id)) = one.reference.as_deref().and_then(|text| app.charges.unnamed.find(text))
        && let Some(charge) = app.store.charge(tenant, &id.to_string()).await?
        && is_there(&charge, &to.name)
    {
        match pick(&charge, &to.name, one) {
            Some(attempt) => return Ok(Some((charge, Some(attempt)))),
            None => ours = Some((charge, None)),
        }
    }
    let tenants = app.directory.tenants();
    let ids = [&one.answer.transaction_id, &one.original];
    for id in ids.into_iter().flatten() {
        let filter = ChargeFilter { processor_transaction_id: Some(id.clone()), ..ChargeFilter::default() };
        for tenant in tenants.values().filter(|tenant| tenant.mode == to.mode) {
            let page = app.store.charges(tenant.id, &filter, None, CANDIDATES_MAX).await?;
            for charge in page.rows.into_iter().filter(|charge| is_there(charge, &to.name)) {
                match pick(&charge, &to.name, one) {
                    Some(attempt) => return Ok(Some((charge, Some(attempt)))),
                    None => ours = ours.or(Some((charge, None))),
                }
            }
        }
    }
    Ok(ours)
}

/// The attempt of a charge that is meant: by its own reference, by the processor's id of it, or as the only one that can be.
fn pick(charge: &ChargeRow, to: &str, one: &Notification) -> Option<AttemptId> {
    let all: Vec<(&Operation, &Attempt)> = charge
        .operations
        .iter()
        .filter(|operation| one.of.contains(&super::follow::verb_of(operation)))
        .flat_map(|operation| operation.attempts.iter().map(move |attempt| (operation, attempt)))
        .filter(|(_, attempt)| place_of(charge, attempt) == to)
        .collect();
    let by_reference = |text: &str| all.iter().find(|(_, attempt)| is_reference(attempt.id, text));
    if let Some((_, attempt)) = one.reference.as_deref().and_then(by_reference) {
        return Some(attempt.id);
    }
    let id = one.answer.transaction_id.as_deref();
    if let Some((_, attempt)) = all.iter().find(|(_, a)| id.is_some() && a.transaction_id.as_deref() == id) {
        return Some(attempt.id);
    }
    let can_be = |(operation, attempt): &&(&Operation, &Attempt)| {
        let stands = match one.says {
            Says::Reversed => attempt.state == AttemptState::Approved,
            Says::Answer | Says::Disputed(_) | Says::Noted | Says::Ignored => {
                attempt.transaction_id.is_none() && !machine::is_settled(attempt.state)
            }
        };
        stands && fits(charge, operation, &one.stated).is_ok()
    };
    let mut open = all.iter().filter(can_be);
    let only = open.next().map(|(_, attempt)| attempt.id);
    only.filter(|_| open.next().is_none())
}

/// Whether any of a charge's attempts went to this destination.
fn is_there(charge: &ChargeRow, to: &str) -> bool {
    let mut attempts = charge.operations.iter().flat_map(|operation| &operation.attempts);
    attempts.any(|attempt| place_of(charge, attempt) == to)
}

fn place_of<'c>(charge: &'c ChargeRow, attempt: &'c Attempt) -> &'c str {
    attempt.destination.as_deref().unwrap_or(&charge.destination)
}

/// Whether a text is one of the ways in which a connector names our attempt.
fn is_reference(attempt: AttemptId, text: &str) -> bool {
    let id = attempt.to_string();
    text == id || text == attempt.reference() || connector::attempt_number(&id).as_deref() == Some(text)
}

fn is_sending(charge: &ChargeRow, attempt: AttemptId) -> bool {
    machine::unsettled(charge).any(|(_, one)| one.id == attempt && one.state == AttemptState::Sending)
}

/// Whether the amount that is told is that of the operation; some name none for a void, or that of the payment. Of a payment less may be
/// approved.
fn fits(charge: &ChargeRow, operation: &Operation, stated: &Stated) -> Result<(), &'static str> {
    match stated {
        _ if operation.kind == OperationKind::Void => Ok(()),
        Stated::Nothing => Ok(()),
        Stated::Unclear => Err("amount_unclear"),
        Stated::Amount(_, currency) if *currency != charge.currency => Err("currency_differs"),
        Stated::Amount(minor, _) if *minor == operation.amount => Ok(()),
        Stated::Amount(minor, _) if is_payment(operation.kind) && (1..operation.amount).contains(minor) => {
            Ok(())
        }
        Stated::Amount(..) => Err("amount_differs"),
    }
}

const fn is_payment(kind: OperationKind) -> bool {
    match kind {
        OperationKind::Sale | OperationKind::Authorize => true,
        OperationKind::Capture | OperationKind::Void | OperationKind::Refund | OperationKind::Verify => false,
    }
}

/// What is told as an answer: less than what was asked for is a partial approval, which the answer that was lost would have said as well.
fn answer_of(operation: &Operation, one: &Notification) -> Answer {
    let less = match &one.stated {
        Stated::Amount(minor, _) if is_payment(operation.kind) && *minor < operation.amount => Some(*minor),
        Stated::Amount(..) | Stated::Nothing | Stated::Unclear => None,
    };
    Answer { amount_approved: less.or(one.answer.amount_approved), ..one.answer.clone() }
}

/// Whether a payment that is settled is told with an amount that it has: what was asked for, or what was approved.
fn is_known_amount(charge: &ChargeRow, operation: &Operation, stated: &Stated) -> bool {
    match stated {
        Stated::Amount(minor, _) if is_payment(operation.kind) => {
            [operation.amount, charge.amount_authorized, charge.amount_offered.unwrap_or_default()]
                .contains(minor)
        }
        Stated::Amount(..) | Stated::Nothing | Stated::Unclear => true,
    }
}

fn attempt_of(charge: &ChargeRow, id: AttemptId) -> Option<(&Operation, &Attempt)> {
    let all = charge.operations.iter().flat_map(|o| o.attempts.iter().map(move |attempt| (o, attempt)));
    all.into_iter().find(|(_, attempt)| attempt.id == id)
}

/// Learns what the processor says of an attempt, as from its answer.
async fn learn(app: &App, charge: ChargeRow, id: AttemptId, one: &Notification) -> Became {
    let unapplied = |charge: &ChargeRow, why| {
        tell(app, about(app, charge, Some(id), why));
        Became::Unapplied
    };
    let Some((operation, attempt)) = attempt_of(&charge, id) else { return Became::Unmatched };
    if let Err(why) = fits(&charge, operation, &one.stated) {
        return unapplied(&charge, why);
    }
    if machine::is_settled(attempt.state) {
        let is_approved = attempt.state == AttemptState::Approved;
        if is_approved && !is_known_amount(&charge, operation, &one.stated) {
            return unapplied(&charge, "amount_differs");
        }
        return match stands_so(attempt.state, one.answer.verdict) {
            Ok(()) => {
                // If the first telling was cut off, what follows from it is begun now.
                resolve::spawn(app, charge);
                Became::Known
            }
            Err(why) => unapplied(&charge, why),
        };
    }
    let outcome = Outcome {
        attempt: id,
        sent: Sent::Yes,
        answer: Some(answer_of(operation, one)),
        error: None,
        credentials_changed: false,
        card_update: None,
        upstream_us: 0,
        forwarded: None,
    };
    let hold_seconds = terms::hold_seconds(app, &charge).await;
    let learnt = Learnt { outcome: &outcome, how: How::Told, now: app.clock.now(), hold_seconds };
    if machine::learn(&charge, id, learnt).is_none() {
        return Became::Known;
    }
    let next = send::record(app, charge, &outcome, How::Told, &by(), None).await;
    let became = match attempt_of(&next, id) {
        Some((_, attempt)) if machine::is_settled(attempt.state) => {
            stands_so(attempt.state, one.answer.verdict)
        }
        Some(_) | None => Ok(()),
    };
    let became = match became {
        Ok(()) => Became::Applied,
        // Another answer came first.
        Err(why) => unapplied(&next, why),
    };
    resolve::spawn(app, next);
    became
}

/// Whether a settled attempt is what is told of it.
fn stands_so(state: AttemptState, verdict: Verdict) -> Result<(), &'static str> {
    match (state, verdict) {
        (AttemptState::Approved, Verdict::Approved)
        | (AttemptState::Declined | AttemptState::Failed, Verdict::Declined)
        // Late news of what has ended since.
        | (_, Verdict::Pending | Verdict::Error | Verdict::NotFound) => Ok(()),
        (AttemptState::Manual, Verdict::Approved) => Err("approved_while_manual"),
        (AttemptState::Manual, Verdict::Declined) => Err("declined_while_manual"),
        (_, Verdict::Approved | Verdict::Declined) => Err("settled_otherwise"),
    }
}

/// An approval did not hold: it is a person's.
async fn reverse(app: &App, mut charge: ChargeRow, id: AttemptId, one: &Notification) -> Became {
    loop {
        let Some((operation, attempt)) = attempt_of(&charge, id) else { return Became::Unmatched };
        let why = match (attempt.state, fits(&charge, operation, &one.stated)) {
            (_, Err(why)) => why,
            (AttemptState::Approved, Ok(())) => "",
            (AttemptState::Manual | AttemptState::Declined | AttemptState::Failed, Ok(())) => {
                return Became::Known;
            }
            (AttemptState::Sending | AttemptState::Unknown | AttemptState::Pending, Ok(())) => {
                "reversed_before_done"
            }
        };
        if !why.is_empty() {
            tell(app, about(app, &charge, Some(id), why));
            return Became::Unapplied;
        }
        let Some(next) = machine::reversed(&charge, id, &one.answer, app.clock.now()) else {
            return Became::Known;
        };
        if send::commit_moved_by(app, (&charge, &next), id, &by()).await {
            return Became::Applied;
        }
        tokio::time::sleep(SENDING_LOOK).await;
        charge = super::create::as_it_stands(app, charge).await;
    }
}

fn by() -> By {
    By { actor: Actor::System("webhook".to_owned()), origin: Origin::default() }
}

/// An event about something of ours that a webhook does not change.
fn about(app: &App, charge: &ChargeRow, attempt: Option<AttemptId>, note: &str) -> Option<EventDraft> {
    let mut event = event_about(app, charge, catalogue::WEBHOOK_UNAPPLIED, &by()).ok()?;
    event.outcome = if note == "noted" { EventOutcome::Ok } else { EventOutcome::Error(note.to_owned()) };
    event.facts = Facts { attempt, note: Some(note.to_owned()), ..Facts::default() };
    Some(event)
}

fn about_destination(app: &App, to: &DestinationInfo, note: &str) -> Option<EventDraft> {
    Some(EventDraft {
        id: EventId::make(app.clock.now()).ok()?,
        tenant: None,
        actor: by().actor,
        origin: Origin::default(),
        action: catalogue::WEBHOOK_UNAPPLIED,
        outcome: EventOutcome::Error(note.to_owned()),
        target: Target { kind: "destination".to_owned(), id: to.name.clone(), version: None },
        keys: Vec::new(),
        facts: Facts { note: Some(note.to_owned()), ..Facts::default() },
    })
}

/// Appends an event, if there are not too many of them; the figures count all.
fn tell(app: &App, event: Option<EventDraft>) {
    if app.denials.check().is_ok()
        && let Some(event) = event
    {
        drop(app.store.append_events(vec![event]));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, charge, learn as answered, said};
    use super::*;
    use crate::card::id::IdBytes;
    use crate::clock::Time;
    use crate::edge::store::ChargeStatus;
    use crate::wire::forwarder::Answer;

    const NOW: Time = Time::from_micros(1_800_000_000_000_000);

    fn id(n: u8) -> AttemptId {
        AttemptId(IdBytes([n; 18]))
    }

    fn named(verdict: Verdict, transaction: Option<&str>) -> Answer {
        Answer { transaction_id: transaction.map(str::to_owned), ..answer(verdict) }
    }

    fn notification(of: &[Verb], says: Says, verdict: Verdict, amount: i64) -> Notification {
        Notification {
            of: of.to_vec(),
            says,
            answer: named(verdict, None),
            reference: None,
            original: None,
            stated: Stated::Amount(amount, "USD".to_owned()),
        }
    }

    /// An authorization, and captures of these amounts that the processor has taken on under these ids.
    fn captured(captures: &[(i64, Option<&str>)]) -> ChargeRow {
        let mut row = answered(
            &charge(OperationKind::Authorize, false),
            &said(1, named(Verdict::Approved, Some("psp_auth"))),
        );
        for (n, (amount, transaction)) in (2..).zip(captures) {
            let operation =
                super::super::create::make_operation((OperationKind::Capture, *amount), id(n), NOW).unwrap();
            row = machine::with_operation(&row, operation, NOW);
            row = answered(&row, &said(n, named(Verdict::Pending, *transaction)));
        }
        row
    }

    #[test]
    fn an_attempt_is_found_by_its_reference_or_the_processor_s_id_or_as_the_only_one() {
        let row = captured(&[(600, Some("psp_a")), (300, Some("psp_b"))]);
        let told = |edit: &dyn Fn(&mut Notification)| {
            let mut one = notification(&[Verb::Capture], Says::Answer, Verdict::Approved, 300);
            edit(&mut one);
            pick(&row, "acquirer", &one)
        };
        for text in
            [id(3).to_string(), id(3).reference(), connector::attempt_number(&id(3).to_string()).unwrap()]
        {
            assert_eq!(told(&|one| one.reference = Some(text.clone())), Some(id(3)));
        }
        // Some name the payment's reference in what they tell of a capture: then the processor's id decides.
        assert_eq!(
            told(&|one| {
                one.reference = Some(id(1).to_string());
                one.answer.transaction_id = Some("psp_a".to_owned());
            }),
            Some(id(2))
        );
        // Both have an id of their own, and it is neither.
        assert_eq!(told(&|one| one.answer.transaction_id = Some("psp_c".to_owned())), None);
        // Another operation, or another destination.
        assert_eq!(told(&|one| one.of = vec![Verb::Refund]), None);
        let mut one = notification(&[Verb::Capture], Says::Answer, Verdict::Approved, 300);
        one.reference = Some(id(3).to_string());
        assert_eq!(pick(&row, "another", &one), None);
        // Without an id of its own a single capture of this amount is meant, and none of several.
        let one = notification(&[Verb::Capture], Says::Answer, Verdict::Approved, 300);
        assert_eq!(pick(&captured(&[(600, None), (300, None)]), "acquirer", &one), Some(id(3)));
        assert_eq!(pick(&captured(&[(300, None), (300, None)]), "acquirer", &one), None);
        assert_eq!(pick(&captured(&[(600, None)]), "acquirer", &one), None);
    }

    #[test]
    fn what_is_told_is_learnt_like_an_answer_and_keeps_the_id_of_the_request() {
        let row = captured(&[(600, Some("psp_a"))]);
        let learn = |row: &ChargeRow, answer: Answer| {
            let outcome = said(2, answer);
            let learnt = Learnt { outcome: &outcome, how: How::Told, now: NOW, hold_seconds: 60 };
            machine::learn(row, id(2), learnt)
        };
        let done = learn(&row, named(Verdict::Approved, Some("evt_1"))).unwrap();
        assert_eq!((done.amount_captured, done.status), (600, ChargeStatus::Authorized));
        assert_eq!(done.operations[1].attempts[0].transaction_id.as_deref(), Some("psp_a"));
        assert_eq!(learn(&done, named(Verdict::Declined, None)), None, "settled stays settled");
        let refused = learn(&row, named(Verdict::Declined, None)).unwrap();
        assert_eq!((refused.amount_captured, refused.operations[1].status), (0, ChargeStatus::Declined));
        // What says nothing of the money changes nothing.
        assert_eq!(learn(&row, named(Verdict::Error, None)), None);
        // An approval that did not hold: the amount is not there, and a person must say why.
        let reversed = machine::reversed(&done, id(2), &named(Verdict::Error, None), NOW).unwrap();
        assert_eq!((reversed.amount_captured, reversed.operations[1].status), (0, ChargeStatus::Manual));
        assert_eq!(reversed.revision, done.revision + 1);
        assert_eq!(machine::reversed(&reversed, id(2), &named(Verdict::Error, None), NOW), None);
        assert_eq!(learn(&reversed, named(Verdict::Approved, None)), None, "old news does not bring it back");
    }

    #[test]
    fn less_than_was_asked_for_is_a_partial_approval_of_a_payment_and_of_nothing_else() {
        let row = charge(OperationKind::Sale, false);
        let asked = row.operations[0].amount;
        let told = |amount| notification(&[Verb::Sale], Says::Answer, Verdict::Approved, amount);
        let usd = |amount| Stated::Amount(amount, "USD".to_owned());
        for (amount, fits_it, less) in [
            (asked, Ok(()), None),
            (asked / 2, Ok(()), Some(asked / 2)),
            (1, Ok(()), Some(1)),
            (0, Err("amount_differs"), Some(0)),
            (asked + 1, Err("amount_differs"), None),
        ] {
            assert_eq!(fits(&row, &row.operations[0], &usd(amount)), fits_it, "{amount}");
            assert_eq!(answer_of(&row.operations[0], &told(amount)).amount_approved, less, "{amount}");
        }
        let part = answer_of(&row.operations[0], &told(asked / 2));
        let partly = answered(&row, &said(1, part));
        // This caller takes no part of it: the machine gives it back.
        assert_eq!((partly.amount_captured, machine::needs_reversal(&partly)), (asked / 2, true));
        let whole = answered(&row, &said(1, named(Verdict::Approved, Some("psp_1"))));
        assert_eq!(whole.amount_captured, asked);
        let operation = &whole.operations[0];
        assert!(is_known_amount(&whole, operation, &usd(asked)));
        assert!(!is_known_amount(&whole, operation, &usd(asked / 2)), "it counts as approved in full");
    }

    #[test]
    fn the_amount_must_be_that_of_the_operation() {
        let row = captured(&[(600, None)]);
        let capture = &row.operations[1];
        let usd = |amount| Stated::Amount(amount, "USD".to_owned());
        assert_eq!(fits(&row, capture, &usd(600)), Ok(()));
        assert_eq!(fits(&row, capture, &Stated::Nothing), Ok(()));
        assert_eq!(fits(&row, capture, &usd(601)), Err("amount_differs"));
        assert_eq!(fits(&row, capture, &Stated::Amount(600, "EUR".to_owned())), Err("currency_differs"));
        assert_eq!(fits(&row, capture, &Stated::Unclear), Err("amount_unclear"));
    }

    #[test]
    fn attempts_without_an_id_are_known_until_they_have_one_or_are_settled() {
        let unnamed = Unnamed::default();
        let row = charge(OperationKind::Sale, false);
        unnamed.note(&row);
        let place = Some((row.tenant, row.id));
        assert_eq!(unnamed.find(&id(1).to_string()), place);
        assert_eq!(unnamed.find(&id(1).reference()), place);
        assert_eq!(unnamed.find(&id(2).to_string()), None);
        let unknown = answered(&row, &said(1, named(Verdict::NotFound, None)));
        unnamed.learnt(&unknown, id(1));
        assert_eq!(unnamed.find(&id(1).to_string()), place);
        unnamed.learnt(&answered(&row, &said(1, named(Verdict::Pending, Some("psp_1")))), id(1));
        assert_eq!(unnamed.find(&id(1).to_string()), None);
    }
}
