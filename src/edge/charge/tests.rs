//! The machine against all that can be learnt: a table of single steps, and random walks that may never break its rules.

use proptest::prelude::*;

use super::machine::{self, How, Learnt};
use super::{Error, again, create, route, rules, schedule, send};
use crate::card::id::{AgreementId, AttemptId, ChargeId, IdBytes, Token};
use crate::card::tenant::{Mode, TenantId};
use crate::clock::Time;
use crate::edge::store::{
    AgreementRow, AttemptState, ChargeRow, ChargeStatus, DisputeRow, DisputeStatus, FirstPayment, Operation,
    OperationKind, Outbound, Plan, RetryState, RouteLeft,
};
use crate::wire::control::DestinationInfo;
use crate::wire::forwarder::{Answer, Outcome, Sent, Verdict};
use crate::wire::keeper::Verb;

const NOW: Time = Time::from_micros(1_800_000_000_000_000);
const AMOUNT: i64 = 1_000;

fn id(n: u8) -> AttemptId {
    AttemptId(IdBytes([n; 18]))
}

fn operation(kind: OperationKind, amount: i64, attempt: u8) -> Operation {
    create::make_operation((kind, amount), id(attempt), NOW).unwrap()
}

pub(in crate::edge) fn charge(kind: OperationKind, allow_partial: bool) -> ChargeRow {
    let amount = if kind == OperationKind::Verify { 0 } else { AMOUNT };
    ChargeRow {
        id: ChargeId(IdBytes([1; 18])),
        tenant: TenantId(1),
        revision: 1,
        token: Token(IdBytes([2; 18])),
        card_version: 1,
        customer: None,
        destination: "acquirer".to_owned(),
        amount,
        currency: "USD".to_owned(),
        invoice: "inv-1".to_owned(),
        period: String::new(),
        initiator: "merchant".to_owned(),
        principal: None,
        run: None,
        agreement: None,
        capture: kind == OperationKind::Sale,
        allow_partial,
        description: None,
        statement_descriptor: None,
        metadata: std::collections::BTreeMap::new(),
        status: ChargeStatus::Processing,
        code: None,
        amount_offered: None,
        amount_authorized: 0,
        amount_captured: 0,
        amount_refunded: 0,
        created_at: NOW,
        updated_at: NOW,
        expires_at: None,
        refund_needs_card: false,
        operations: vec![operation(kind, amount, 1)],
        disputes: Vec::new(),
        plan: None,
    }
}

/// The destination of [`charge`].
pub(in crate::edge) fn destination() -> DestinationInfo {
    DestinationInfo {
        name: "acquirer".to_owned(),
        connector: "acquirer".to_owned(),
        connector_version: [7; 32],
        mode: Mode::Test,
        idempotency: "replay".to_owned(),
        idempotency_later: "replay".to_owned(),
        idempotency_seconds: 1_000,
        can_look_up: true,
        settle_seconds: 5,
        timeout_seconds: 30,
        network_codes: false,
        until_seconds: None,
        can_verify: true,
        smallest_amounts: std::collections::BTreeMap::new(),
        undo_sale: Some(Verb::Void),
        undo_authorize: Some(Verb::Void),
        captures_once: false,
        refund_needs_card: false,
        refunds_capture: false,
        later_needs_transaction: true,
        takes_webhooks: false,
        authorization_hours: 168,
        merchant_hours: std::collections::BTreeMap::new(),
    }
}

pub(super) fn answer(verdict: Verdict) -> Answer {
    Answer { transaction_id: Some("pay_1".to_owned()), ..Answer::of(verdict, 200) }
}

pub(super) fn said(attempt: u8, answer: Answer) -> Outcome {
    Outcome {
        attempt: id(attempt),
        sent: Sent::Yes,
        answer: Some(answer),
        error: None,
        credentials_changed: false,
        card_update: None,
        upstream_us: 5,
        forwarded: None,
    }
}

pub(super) fn silent(attempt: u8, sent: Sent) -> Outcome {
    Outcome {
        attempt: id(attempt),
        sent,
        answer: None,
        error: Some("timeout".to_owned()),
        credentials_changed: false,
        card_update: None,
        upstream_us: 0,
        forwarded: None,
    }
}

fn learn_as(charge: &ChargeRow, outcome: &Outcome, how: How) -> Option<ChargeRow> {
    machine::learn(charge, outcome.attempt, Learnt { outcome, how, now: NOW, hold_seconds: 7 * 86_400 })
}

pub(super) fn learn(charge: &ChargeRow, outcome: &Outcome) -> ChargeRow {
    learn_as(charge, outcome, How::Sent).unwrap()
}

fn then(charge: &ChargeRow, kind: OperationKind, amount: i64, attempt: u8) -> ChargeRow {
    machine::with_operation(charge, operation(kind, amount, attempt), NOW)
}

/// A refund names the authorization, or the capture where that has an id of its own; the attempt behind it is known.
#[test]
fn what_a_refund_is_about() {
    let named = |id: &str| Answer { transaction_id: Some(id.to_owned()), ..answer(Verdict::Approved) };
    let authorized = learn(&charge(OperationKind::Authorize, false), &said(1, named("auth_1")));
    let captured = learn(&then(&authorized, OperationKind::Capture, 600, 2), &said(2, named("cap_1")));
    let captured = learn(&then(&captured, OperationKind::Capture, 300, 3), &said(3, named("cap_2")));
    let about = |charge: &ChargeRow, kind, of_capture| rules::previous(charge, kind, of_capture).0;
    assert_eq!(about(&captured, OperationKind::Refund, false).as_deref(), Some("auth_1"));
    assert_eq!(
        rules::previous(&captured, OperationKind::Refund, true),
        (Some("cap_2".to_owned()), Some(300))
    );
    assert_eq!(about(&captured, OperationKind::Capture, true).as_deref(), Some("auth_1"));
    // Nothing was captured apart: the payment itself.
    let sold = learn(&charge(OperationKind::Sale, false), &said(1, named("sale_1")));
    assert_eq!(about(&sold, OperationKind::Refund, true).as_deref(), Some("sale_1"));
    assert_eq!(rules::attempt_of(&captured, "cap_2"), Some(id(3)));
    assert_eq!(rules::attempt_of(&captured, "other"), None);
}

/// What was declined before it, here or elsewhere, is not what stands.
#[test]
fn no_operation_names_the_transaction_of_another_attempt() {
    let named = |id: &str| Answer { transaction_id: Some(id.to_owned()), ..answer(Verdict::Declined) };
    let declined = learn(&charge(OperationKind::Sale, false), &said(1, named("t_1")));
    let again = again::with_attempt(&declined, id(2), "second", NOW);
    let lost = learn(&again, &silent(2, Sent::Maybe));
    for kind in [OperationKind::Void, OperationKind::Refund] {
        assert_eq!(rules::previous(&lost, kind, false), (None, Some(AMOUNT)));
    }
    let found = Answer { transaction_id: Some("t_2".to_owned()), ..answer(Verdict::Approved) };
    let found = learn_as(&lost, &said(2, found), How::LookedUp { settled: true }).unwrap();
    assert_eq!(rules::previous(&found, OperationKind::Refund, false).0.as_deref(), Some("t_2"));
}

#[test]
fn each_first_outcome_has_its_status_and_outbound() {
    let unknown = Answer { unknown: true, ..answer(Verdict::Error) };
    let held = Answer { held_for_review: true, ..answer(Verdict::Approved) };
    for (outcome, sale, authorize, outbound) in [
        (silent(1, Sent::Not), ChargeStatus::Failed, ChargeStatus::Failed, Outbound::NotSent),
        (silent(1, Sent::Maybe), ChargeStatus::Unknown, ChargeStatus::Unknown, Outbound::MaybeSent),
        (silent(1, Sent::Yes), ChargeStatus::Unknown, ChargeStatus::Unknown, Outbound::Sent),
        (
            said(1, answer(Verdict::Approved)),
            ChargeStatus::Approved,
            ChargeStatus::Authorized,
            Outbound::Sent,
        ),
        (said(1, answer(Verdict::Declined)), ChargeStatus::Declined, ChargeStatus::Declined, Outbound::Sent),
        (said(1, answer(Verdict::Pending)), ChargeStatus::Pending, ChargeStatus::Pending, Outbound::Sent),
        (said(1, held), ChargeStatus::Pending, ChargeStatus::Pending, Outbound::Sent),
        (said(1, answer(Verdict::Error)), ChargeStatus::Failed, ChargeStatus::Failed, Outbound::Sent),
        (said(1, answer(Verdict::NotFound)), ChargeStatus::Unknown, ChargeStatus::Unknown, Outbound::Sent),
        (said(1, unknown), ChargeStatus::Unknown, ChargeStatus::Unknown, Outbound::Sent),
    ] {
        for (kind, status) in [(OperationKind::Sale, sale), (OperationKind::Authorize, authorize)] {
            let after = learn(&charge(kind, false), &outcome);
            assert_eq!(after.status, status, "{outcome:?}");
            assert_eq!(after.operations[0].attempts[0].outbound, outbound);
            assert_eq!(after.revision, 2);
        }
    }
}

#[test]
fn a_check_that_is_held_for_review_is_declined_and_a_hold_is_to_be_released() {
    for verdict in [Verdict::Approved, Verdict::Pending] {
        let held = || said(1, Answer { held_for_review: true, ..answer(verdict) });
        let check = charge(OperationKind::Verify, false);
        let declined = learn(&check, &held());
        let attempt = &declined.operations[0].attempts[0];
        assert_eq!(
            (declined.status, declined.code.as_deref()),
            (ChargeStatus::Declined, Some("held_for_review"))
        );
        assert_eq!(
            (attempt.decline_class.as_deref(), machine::is_held_hold(&declined.operations[0])),
            (Some("risk"), false)
        );
        // One that waits since before, and is looked up.
        let waits = learn(&check, &said(1, answer(Verdict::Pending)));
        assert_eq!(waits.status, ChargeStatus::Pending);
        let found = learn_as(&waits, &held(), How::LookedUp { settled: true }).unwrap();
        assert_eq!(found.status, ChargeStatus::Declined);
        let mut hold = check;
        (hold.amount, hold.operations[0].amount) = (100, 100);
        let waits = learn(&hold, &held());
        assert_eq!(waits.status, ChargeStatus::Pending);
        assert!(machine::is_held_hold(&waits.operations[0]));
        let released = learn(&then(&waits, OperationKind::Void, 100, 2), &said(2, answer(Verdict::Approved)));
        assert_eq!((released.status, released.amount_authorized), (ChargeStatus::Voided, 0));
        let sale = learn(&charge(OperationKind::Sale, false), &held());
        assert_eq!((sale.status, machine::is_held_hold(&sale.operations[0])), (ChargeStatus::Pending, false));
    }
}

#[test]
fn amounts_follow_from_what_was_approved() {
    let sold = learn(&charge(OperationKind::Sale, false), &said(1, answer(Verdict::Approved)));
    assert_eq!((sold.amount_authorized, sold.amount_captured, sold.expires_at), (AMOUNT, AMOUNT, None));
    let held = learn(&charge(OperationKind::Authorize, false), &said(1, answer(Verdict::Approved)));
    assert_eq!((held.amount_authorized, held.amount_captured), (AMOUNT, 0));
    assert_eq!(held.expires_at, Some(NOW.plus_seconds(7 * 86_400)));
    let part = learn(&then(&held, OperationKind::Capture, 400, 2), &said(2, answer(Verdict::Approved)));
    assert_eq!((part.status, part.amount_captured), (ChargeStatus::Authorized, 400));
    let all = learn(&then(&part, OperationKind::Capture, 600, 3), &said(3, answer(Verdict::Approved)));
    assert_eq!((all.status, all.amount_captured), (ChargeStatus::Approved, AMOUNT));
    let back = learn(&then(&all, OperationKind::Refund, 250, 4), &said(4, answer(Verdict::Approved)));
    assert_eq!((back.status, back.amount_refunded), (ChargeStatus::Approved, 250));
    let refused = learn(&then(&back, OperationKind::Refund, 750, 5), &said(5, answer(Verdict::Declined)));
    assert_eq!((refused.status, refused.amount_refunded), (ChargeStatus::Approved, 250));
}

#[test]
fn a_dispute_is_kept_once_and_changes_nothing_else() {
    let sold = learn(&charge(OperationKind::Sale, false), &said(1, answer(Verdict::Approved)));
    let dispute = |status, seconds| DisputeRow {
        status,
        amount: Some(AMOUNT),
        code: Some("4853".to_owned()),
        transaction_id: Some("dp_1".to_owned()),
        at: NOW.plus_seconds(seconds),
    };
    let opened = machine::disputed(&sold, dispute(DisputeStatus::Opened, 1)).unwrap();
    let taken = machine::disputed(&opened, dispute(DisputeStatus::ChargedBack, 2)).unwrap();
    assert_eq!(machine::disputed(&taken, dispute(DisputeStatus::Opened, 3)), None, "told again");
    let words: Vec<_> = taken.disputes.iter().map(|dispute| dispute.status.word()).collect();
    assert_eq!(words, ["opened", "charged_back"]);
    assert_eq!((taken.status, taken.amount_captured), (sold.status, sold.amount_captured));
    assert_eq!((taken.revision, taken.updated_at), (sold.revision + 2, NOW.plus_seconds(2)));
}

#[test]
fn a_final_capture_closes_an_authorization() {
    let held = learn(&charge(OperationKind::Authorize, false), &said(1, answer(Verdict::Approved)));
    let mut closing = then(&held, OperationKind::Capture, 100, 2);
    closing.operations[1].last = true;
    assert!(matches!(rules::capture_amount(&closing, None), Err(Error::State)));
    let closed = learn(&closing, &said(2, answer(Verdict::Approved)));
    assert_eq!((closed.status, closed.amount_captured), (ChargeStatus::Approved, 100));
    assert!(matches!(rules::refund_amount(&closed, None), Ok(100)));
}

#[test]
fn a_part_that_nobody_wanted_is_given_back_and_reported_declined() {
    let part = Answer { partial: true, amount_approved: Some(300), ..answer(Verdict::Approved) };
    let kept = learn(&charge(OperationKind::Sale, true), &said(1, part.clone()));
    assert_eq!((kept.status, kept.amount_captured), (ChargeStatus::Approved, 300));
    assert!(!machine::needs_reversal(&kept));

    let offered = learn(&charge(OperationKind::Sale, false), &said(1, part));
    assert_eq!((offered.status, offered.amount_offered), (ChargeStatus::Processing, Some(300)));
    assert!(machine::needs_reversal(&offered));
    assert!(matches!(rules::refund_amount(&offered, None), Err(Error::State)));
    let voiding = then(&offered, OperationKind::Void, 300, 2);
    assert!(!machine::needs_reversal(&voiding));
    assert_eq!(learn(&voiding, &silent(2, Sent::Maybe)).status, ChargeStatus::Unknown);
    let not_left = learn(&voiding, &silent(2, Sent::Not));
    assert_eq!(not_left.status, ChargeStatus::Processing);
    assert!(machine::needs_reversal(&not_left));
    // Refused before anybody looked into it: it is made again.
    for http_status in [401, 403, 429] {
        let refused = learn(&voiding, &said(2, Answer { http_status, ..answer(Verdict::Error) }));
        assert_eq!(refused.status, ChargeStatus::Processing);
        assert!(machine::needs_reversal(&refused));
    }
    assert_eq!(learn(&voiding, &said(2, answer(Verdict::Error))).status, ChargeStatus::Manual);
    assert_eq!(learn(&voiding, &said(2, answer(Verdict::Declined))).status, ChargeStatus::Manual);
    let done = learn(&voiding, &said(2, answer(Verdict::Approved)));
    assert_eq!((done.status, done.code.as_deref()), (ChargeStatus::Declined, Some("partial_approval")));
    assert_eq!((done.amount_authorized, done.amount_captured, done.amount_offered), (0, 0, Some(300)));
}

#[test]
fn a_sale_that_cannot_be_voided_is_given_back_by_a_refund_that_counts_for_nothing_else() {
    let part = Answer { partial: true, amount_approved: Some(300), ..answer(Verdict::Approved) };
    let offered = learn(&charge(OperationKind::Sale, false), &said(1, part));
    let undo = |charge: &ChargeRow| {
        let refund = Operation { undoes: true, ..operation(OperationKind::Refund, 300, 2) };
        machine::with_operation(charge, refund, NOW)
    };
    let giving_back = undo(&offered);
    assert!(!machine::needs_reversal(&giving_back));
    let later = learn(&giving_back, &said(2, answer(Verdict::Pending)));
    assert_eq!((later.status, later.code.as_deref()), (ChargeStatus::Pending, Some("partial_approval")));
    assert_eq!(learn(&giving_back, &said(2, answer(Verdict::Declined))).status, ChargeStatus::Manual);
    let done = learn(&giving_back, &said(2, answer(Verdict::Approved)));
    assert_eq!((done.status, done.code.as_deref()), (ChargeStatus::Declined, Some("partial_approval")));
    assert_eq!((done.amount_authorized, done.amount_captured, done.amount_refunded), (0, 0, 0));
    // Of an unknown sale as well: what was given back moves no money.
    let lost = learn(&charge(OperationKind::Sale, false), &silent(1, Sent::Maybe));
    let undone = learn(&undo(&lost), &said(2, answer(Verdict::Approved)));
    assert_eq!((undone.status, undone.amount_captured), (ChargeStatus::Voided, 0));
    assert_eq!(machine::unsettled(&undone).count(), 0);
}

#[test]
fn a_second_send_and_a_look_up_prove_less_than_the_first() {
    let lost = learn(&charge(OperationKind::Sale, false), &silent(1, Sent::Maybe));
    let refused = said(1, answer(Verdict::Error));
    let missing = said(1, answer(Verdict::NotFound));
    // A refusal of the second send says nothing of the first.
    for how in [How::Resent, How::LookedUp { settled: true }] {
        assert!(learn_as(&lost, &refused, how).is_none());
        assert!(learn_as(&lost, &silent(1, Sent::Not), how).is_none());
        assert!(learn_as(&lost, &silent(1, Sent::Maybe), how).is_none());
        let found = learn_as(&lost, &said(1, answer(Verdict::Approved)), how).unwrap();
        assert_eq!((found.status, found.amount_captured), (ChargeStatus::Approved, AMOUNT));
    }
    // Not even a decline counts that came from the door, from an outage, or because the processor has it already.
    let declined =
        |http_status, duplicate| said(1, Answer { http_status, duplicate, ..answer(Verdict::Declined) });
    for how in [How::Resent, How::Sent, How::LookedUp { settled: true }] {
        let lost =
            if how == How::Sent { machine::with_resend(&lost, id(1), NOW).unwrap() } else { lost.clone() };
        for http_status in [401, 403, 408, 409, 429, 500, 502, 503, 504] {
            assert!(learn_as(&lost, &declined(http_status, false), how).is_none(), "{http_status}");
        }
        assert!(learn_as(&lost, &declined(200, true), how).is_none());
        assert_eq!(learn_as(&lost, &declined(402, false), how).unwrap().status, ChargeStatus::Declined);
    }
    let duplicate = learn(&charge(OperationKind::Sale, false), &declined(200, true));
    assert_eq!(duplicate.status, ChargeStatus::Unknown);
    assert!(learn_as(&lost, &missing, How::Resent).is_none());
    assert!(learn_as(&lost, &missing, How::LookedUp { settled: false }).is_none());
    let gone = learn_as(&lost, &missing, How::LookedUp { settled: true }).unwrap();
    assert_eq!((gone.status, gone.code.as_deref()), (ChargeStatus::Failed, Some("not_found")));
    // A late outcome of one of several sends is as good as a resend's.
    let again = machine::with_resend(&lost, id(1), NOW).unwrap();
    assert!(learn_as(&again, &silent(1, Sent::Not), How::Sent).is_none());
    assert!(learn_as(&again, &refused, How::Sent).is_none());
}

#[test]
fn less_than_was_asked_for_is_a_part_without_a_rule_that_says_so() {
    for (says, authorized, offered) in [(600, 600, Some(600)), (AMOUNT, AMOUNT, None), (0, AMOUNT, None)] {
        let answer = Answer { amount_approved: Some(says), ..answer(Verdict::Approved) };
        for kind in [OperationKind::Sale, OperationKind::Authorize] {
            let wanted = learn(&charge(kind, true), &said(1, answer.clone()));
            assert_eq!((wanted.amount_authorized, wanted.amount_offered), (authorized, None));
            let unwanted = learn(&charge(kind, false), &said(1, answer.clone()));
            assert_eq!((unwanted.amount_authorized, unwanted.amount_offered), (authorized, offered));
        }
    }
}

/// A void that got lost before it left, as a look-up shows, undid nothing: it is made again, not left to a person.
#[test]
fn an_undo_that_its_processor_does_not_have_is_made_again() {
    let part = Answer { partial: true, amount_approved: Some(400), ..answer(Verdict::Approved) };
    let sold = learn(&charge(OperationKind::Sale, false), &said(1, part));
    let lost = learn(&then(&sold, OperationKind::Void, 400, 2), &silent(2, Sent::Maybe));
    assert!(machine::is_undoing(&lost) && !machine::needs_reversal(&lost));
    let missing = said(2, answer(Verdict::NotFound));
    let gone = learn_as(&lost, &missing, How::LookedUp { settled: true }).unwrap();
    assert_eq!((gone.status, gone.operations[1].status), (ChargeStatus::Processing, ChargeStatus::Failed));
    assert!(machine::needs_reversal(&gone));
    let done = learn(&then(&gone, OperationKind::Void, 400, 3), &said(3, answer(Verdict::Approved)));
    assert_eq!((done.status, done.amount_captured), (ChargeStatus::Declined, 0));
    // One that was refused undid nothing either, and would not the next time.
    let refused = learn(&then(&sold, OperationKind::Void, 400, 2), &said(2, answer(Verdict::Declined)));
    assert_eq!(refused.status, ChargeStatus::Manual);
}

#[test]
fn what_was_being_sent_when_the_process_died_is_unknown() {
    let after = machine::restarted(&charge(OperationKind::Sale, false), NOW).unwrap();
    assert_eq!((after.status, after.revision), (ChargeStatus::Unknown, 2));
    assert_eq!(after.operations[0].attempts[0].outbound, Outbound::MaybeSent);
    assert!(machine::restarted(&after, NOW).is_none());
    let given_up = machine::give_up(&after, id(1), NOW).unwrap();
    assert_eq!(given_up.status, ChargeStatus::Manual);
    assert!(machine::give_up(&given_up, id(1), NOW).is_none());
}

/// While nobody knew of a payment its undo left; then it is found approved.
#[test]
fn what_is_found_approved_after_its_undo_left_is_what_the_undo_says() {
    for (kind, stands) in [
        (OperationKind::Sale, (ChargeStatus::Approved, AMOUNT)),
        (OperationKind::Authorize, (ChargeStatus::Authorized, 0)),
    ] {
        let lost = learn(&charge(kind, false), &silent(1, Sent::Maybe));
        for by in [OperationKind::Void, OperationKind::Refund] {
            let undo = Operation { undoes: true, ..operation(by, AMOUNT, 2) };
            let undoing = machine::with_operation(&lost, undo, NOW);
            let undoing = learn(&undoing, &silent(2, Sent::Maybe));
            let sendable = |charge: &ChargeRow| {
                [0, 1].map(|at: usize| machine::may_be_sent_again(charge, &charge.operations[at]))
            };
            assert_eq!(sendable(&undoing), [false, true]);
            let approved = said(1, answer(Verdict::Approved));
            let found = learn_as(&undoing, &approved, How::LookedUp { settled: true }).unwrap();
            assert_eq!((found.status, found.amount_captured), (ChargeStatus::Unknown, 0));
            assert_eq!(sendable(&found), [false, false]);
            let looked = |verdict| {
                let learnt = learn_as(&found, &said(2, answer(verdict)), How::LookedUp { settled: true });
                learnt.map(|row| (row.status, row.amount_captured)).unwrap()
            };
            assert_eq!(looked(Verdict::Approved), (ChargeStatus::Voided, 0));
            assert_eq!(looked(Verdict::Declined), stands);
            assert_eq!(looked(Verdict::NotFound), stands);
            let manual = machine::give_up(&found, id(2), NOW).unwrap();
            assert_eq!((manual.status, manual.amount_captured), (ChargeStatus::Manual, 0));
        }
    }
    // What a caller wants undone, or nobody wants, is undone still.
    let held = learn(&charge(OperationKind::Authorize, false), &said(1, answer(Verdict::Approved)));
    let voiding = learn(&then(&held, OperationKind::Void, AMOUNT, 2), &silent(2, Sent::Maybe));
    assert_eq!(voiding.status, ChargeStatus::Authorized);
    assert!(machine::may_be_sent_again(&voiding, &voiding.operations[1]));
    let part = Answer { partial: true, amount_approved: Some(300), ..answer(Verdict::Approved) };
    let offered = learn(&charge(OperationKind::Sale, false), &said(1, part));
    let undo = Operation { undoes: true, ..operation(OperationKind::Void, 300, 2) };
    let undoing = machine::with_operation(&offered, undo, NOW);
    assert!(machine::may_be_sent_again(&undoing, &undoing.operations[1]));
}

#[test]
fn an_unknown_authorization_that_is_voided_moves_no_money() {
    let lost = learn(&charge(OperationKind::Authorize, false), &silent(1, Sent::Maybe));
    let voided = learn(&then(&lost, OperationKind::Void, 0, 2), &said(2, answer(Verdict::Approved)));
    assert_eq!((voided.status, voided.amount_authorized), (ChargeStatus::Voided, 0));
    assert_eq!(machine::unsettled(&voided).count(), 0);
}

#[test]
fn the_hold_of_a_verification_is_released() {
    let mut row = charge(OperationKind::Verify, false);
    row.operations[0].amount = 100;
    let held = learn(&row, &said(1, answer(Verdict::Approved)));
    assert_eq!((held.status, held.amount_authorized), (ChargeStatus::Processing, 100));
    assert!(machine::needs_reversal(&held));
    let voiding = then(&held, OperationKind::Void, 100, 2);
    let done = learn(&voiding, &said(2, answer(Verdict::Approved)));
    assert_eq!((done.status, done.amount_authorized), (ChargeStatus::Approved, 0));
    let kept = learn(&voiding, &said(2, answer(Verdict::Declined)));
    assert_eq!((kept.status, kept.code.as_deref()), (ChargeStatus::Approved, Some("hold_not_released")));
    let plain = learn(&charge(OperationKind::Verify, false), &said(1, answer(Verdict::Approved)));
    assert_eq!((plain.status, plain.amount_authorized), (ChargeStatus::Approved, 0));
}

#[test]
fn what_may_still_happen_counts_as_if_it_had() {
    let sold = learn(&charge(OperationKind::Sale, false), &said(1, answer(Verdict::Approved)));
    let lost = learn(&then(&sold, OperationKind::Refund, 700, 2), &silent(2, Sent::Maybe));
    assert!(matches!(rules::refund_amount(&lost, Some(301)), Err(Error::AmountTooLarge)));
    assert!(matches!(rules::refund_amount(&lost, None), Ok(300)));
    assert!(matches!(rules::refund_amount(&lost, Some(0)), Err(Error::AmountInvalid)));
    assert!(matches!(rules::capture_amount(&sold, None), Err(Error::State)));
    assert!(matches!(rules::may_void(&sold), Err(Error::State)));
    let held = learn(&charge(OperationKind::Authorize, false), &said(1, answer(Verdict::Approved)));
    assert!(rules::may_void(&held).is_ok());
    let capturing = then(&held, OperationKind::Capture, 400, 2);
    assert!(matches!(rules::may_void(&capturing), Err(Error::State)));
    assert!(matches!(rules::capture_amount(&capturing, Some(601)), Err(Error::AmountTooLarge)));
    let voiding = then(&held, OperationKind::Void, AMOUNT, 2);
    assert!(matches!(rules::capture_amount(&voiding, None), Err(Error::State)));
}

#[test]
fn a_first_attempt_counts_one_try() {
    assert_eq!(send::make_attempt(id(1), NOW).tries, 1);
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Learn(usize, Verdict, bool, bool, u8, u8),
    Silent(usize, Sent, u8),
    Capture(i64, bool),
    Refund(i64),
    Void,
    Undo(bool),
    Restart,
    GiveUp(usize),
    Resend(usize),
}

fn moves() -> impl Strategy<Value = Move> {
    let verdict = prop_oneof![
        Just(Verdict::Approved),
        Just(Verdict::Declined),
        Just(Verdict::Pending),
        Just(Verdict::Error),
        Just(Verdict::NotFound),
    ];
    let sent = prop_oneof![Just(Sent::Not), Just(Sent::Maybe), Just(Sent::Yes)];
    prop_oneof![
        6 => (0..8_usize, verdict, any::<bool>(), any::<bool>(), any::<u8>(), 0..5_u8)
            .prop_map(|(at, verdict, unknown, partial, part, how)| Move::Learn(at, verdict, unknown, partial, part, how)),
        2 => (0..8_usize, sent, 0..5_u8).prop_map(|(at, sent, how)| Move::Silent(at, sent, how)),
        2 => (1..1_200_i64, any::<bool>()).prop_map(|(amount, last)| Move::Capture(amount, last)),
        2 => (1..1_200_i64).prop_map(Move::Refund),
        1 => Just(Move::Void),
        1 => any::<bool>().prop_map(Move::Undo),
        1 => Just(Move::Restart),
        1 => (0..8_usize).prop_map(Move::GiveUp),
        1 => (0..8_usize).prop_map(Move::Resend),
    ]
}

const fn how_of(n: u8) -> How {
    match n {
        0 => How::Sent,
        1 => How::Resent,
        2 => How::LookedUp { settled: false },
        3 => How::Told,
        _ => How::LookedUp { settled: true },
    }
}

fn attempt_at(charge: &ChargeRow, at: usize) -> Option<AttemptId> {
    let all: Vec<_> = charge.operations.iter().flat_map(|o| &o.attempts).map(|a| a.id).collect();
    all.get(at % all.len()).copied()
}

fn step(charge: &ChargeRow, step: Move, next: u8) -> Option<ChargeRow> {
    let outcome = |attempt, sent, answer| Outcome {
        attempt,
        sent,
        answer,
        error: None,
        credentials_changed: false,
        card_update: None,
        upstream_us: 1,
        forwarded: None,
    };
    match step {
        Move::Learn(at, verdict, unknown, partial, part, how) => {
            let amount_approved = partial.then(|| i64::from(part) * 5);
            let answer = Answer { unknown, partial, amount_approved, ..answer(verdict) };
            learn_as(charge, &outcome(attempt_at(charge, at)?, Sent::Yes, Some(answer)), how_of(how))
        }
        Move::Silent(at, sent, how) => {
            learn_as(charge, &outcome(attempt_at(charge, at)?, sent, None), how_of(how))
        }
        Move::Capture(amount, last) => {
            let amount = rules::capture_amount(charge, Some(amount)).ok()?;
            let capture = Operation { last, ..operation(OperationKind::Capture, amount, next) };
            Some(machine::with_operation(charge, capture, NOW))
        }
        Move::Refund(amount) => {
            let amount = rules::refund_amount(charge, Some(amount)).ok()?;
            Some(then(charge, OperationKind::Refund, amount, next))
        }
        Move::Void => {
            let allowed = rules::may_void(charge).is_ok() || machine::needs_reversal(charge);
            allowed.then(|| then(charge, OperationKind::Void, charge.amount_authorized, next))
        }
        Move::Undo(by_refund) => {
            let unknown = charge.operations[0].status == ChargeStatus::Unknown;
            let amount = if unknown { charge.amount } else { charge.amount_authorized };
            let kind = if by_refund { OperationKind::Refund } else { OperationKind::Void };
            let undo = Operation { undoes: true, ..operation(kind, amount, next) };
            let allowed = !machine::is_undoing(charge) && (unknown || machine::needs_reversal(charge));
            allowed.then(|| machine::with_operation(charge, undo, NOW))
        }
        Move::Restart => machine::restarted(charge, NOW),
        Move::GiveUp(at) => machine::give_up(charge, attempt_at(charge, at)?, NOW),
        Move::Resend(at) => machine::with_resend(charge, attempt_at(charge, at)?, NOW),
    }
}

proptest! {
    #[test]
    fn no_walk_breaks_the_rules(
        authorize: bool,
        allow_partial: bool,
        undone: Option<bool>,
        walk in proptest::collection::vec(moves(), 0..40),
    ) {
        let kind = if authorize { OperationKind::Authorize } else { OperationKind::Sale };
        let mut now = charge(kind, allow_partial);
        if let Some(by_refund) = undone {
            // Few walks come there by themselves: nobody knows of the payment, and an undo of it has left.
            now = step(&learn(&now, &silent(1, Sent::Maybe)), Move::Undo(by_refund), 200).unwrap();
        }
        for (at, one) in walk.into_iter().enumerate() {
            let Some(next) = step(&now, one, u8::try_from(at).unwrap() + 2) else { continue };
            prop_assert_eq!(next.revision, now.revision + 1);
            prop_assert!(next.amount_authorized >= 0 && next.amount_authorized <= AMOUNT);
            prop_assert!(next.amount_captured >= 0 && next.amount_captured <= next.amount_authorized);
            prop_assert!(next.amount_refunded >= 0 && next.amount_refunded <= next.amount_captured);
            prop_assert!(next.amount_refunded >= now.amount_refunded);
            // What is settled stays, and nobody forgets an operation.
            for (before, after) in now.operations.iter().zip(&next.operations) {
                prop_assert_eq!(&before.id, &after.id);
                for (old, new) in before.attempts.iter().zip(&after.attempts) {
                    if machine::is_settled(old.state) {
                        prop_assert_eq!(old.state, new.state);
                        prop_assert_eq!(&old.transaction_id, &new.transaction_id);
                    }
                }
            }
            prop_assert!(next.operations.len() >= now.operations.len());
            // A charge that moved no money stays so: its invoice may have been charged again.
            let freed = |s| matches!(s, ChargeStatus::Declined | ChargeStatus::Failed | ChargeStatus::Voided);
            if freed(now.status) {
                prop_assert_eq!(next.status, now.status);
                prop_assert_eq!(next.amount_captured, 0);
            }
            // What was undone is not paid, whenever it was found that it had been approved.
            let is_undo = |o: &&Operation| o.undoes || o.kind == OperationKind::Void;
            if next.operations.iter().rfind(is_undo).is_some_and(|undo| undo.status == ChargeStatus::Approved) {
                prop_assert_eq!(next.amount_captured, 0);
                prop_assert!(freed(next.status), "{:?}", next);
            }
            if next.status == ChargeStatus::Approved {
                prop_assert!(next.amount_captured > 0 || next.amount_authorized == 0);
            }
            // As long as the outcome of the charge itself is open, nothing is said to be paid.
            if !machine::is_settled(next.operations[0].attempts[0].state) {
                prop_assert_eq!(next.amount_captured, 0);
                prop_assert!(!freed(next.status));
            }
            let mut again = next.clone();
            machine::restate(&mut again);
            prop_assert_eq!(&again, &next);
            now = next;
        }
    }

    /// However outcomes, restarts and persons come: there is another attempt only where none before it can have moved money.
    #[test]
    fn no_walk_tries_again_what_may_have_moved_money(
        after_soft_decline: bool,
        walk in proptest::collection::vec((moves(), any::<bool>(), 0..3_usize), 0..40),
    ) {
        let mut now = charge(OperationKind::Sale, false);
        let policy = crate::charging::RetriesConfig::default().policy().unwrap();
        let destinations = vec!["second".to_owned(), "third".to_owned()];
        now.plan = Some(Box::new(Plan {
            retries: Some(schedule::begin(&policy, NOW)),
            route: Some(RouteLeft { destinations, after_soft_decline }),
        }));
        for (at, (one, tries, class)) in walk.into_iter().enumerate() {
            let id_of_next = u8::try_from(at).unwrap() + 2;
            let due = route::goes_on(&now) || now.retry_due().is_some();
            if tries && due && again::has_moved_nothing(&now) {
                let mut next = again::with_attempt(&now, id(id_of_next), "second", NOW);
                route::pass_over(&mut next);
                next.retries_mut().unwrap().state = RetryState::Running;
                machine::restate(&mut next);
                prop_assert_eq!(next.status, ChargeStatus::Processing);
                now = next;
            } else if let Some(mut next) = step(&now, one, id_of_next) {
                for attempt in &mut next.operations[0].attempts {
                    if attempt.state == AttemptState::Declined {
                        attempt.decline_class.get_or_insert_with(|| ["soft", "generic", "hard"][class].to_owned());
                    }
                }
                machine::restate(&mut next);
                schedule::proceed(&mut next, &policy, NOW);
                now = next;
            }
            let (last, before) = now.operations[0].attempts.split_last().unwrap();
            let nothing = |state| matches!(state, AttemptState::Declined | AttemptState::Failed);
            prop_assert!(before.iter().all(|attempt| nothing(attempt.state)), "{:?}", now);
            prop_assert!(now.amount_captured <= AMOUNT);
            if !nothing(last.state) {
                prop_assert!(!route::goes_on(&now) && now.retry_due().is_none());
            }
            // Nothing is due of a charge that somebody could take for undecided or paid.
            if now.retry_due().is_some() {
                prop_assert!(matches!(now.status, ChargeStatus::Declined | ChargeStatus::Failed), "{:?}", now);
            }
        }
    }

    #[test]
    fn an_attempt_that_is_settled_learns_nothing(
        first in moves(), second in moves(), authorize: bool,
    ) {
        let kind = if authorize { OperationKind::Authorize } else { OperationKind::Sale };
        let start = charge(kind, false);
        if let Some(after) = step(&start, first, 2)
            && matches!(
                after.operations[0].attempts[0].state,
                AttemptState::Approved | AttemptState::Declined | AttemptState::Failed | AttemptState::Manual
            )
            && let Move::Learn(0, ..) | Move::Silent(0, ..) = second
            && after.operations.len() == 1
        {
            prop_assert!(step(&after, second, 3).is_none());
        }
    }
}

/// A processor that wants its own reference of the first payment gets it, and no other processor's; a new number has none.
#[test]
fn a_merchant_charge_names_the_first_payment() {
    let now = NOW;
    let first = FirstPayment { transaction_id: "2762".into(), amount: 1500, currency: "USD".into() };
    let mut agreement = AgreementRow {
        id: AgreementId(IdBytes([1; 18])),
        tenant: TenantId(1),
        token: Token(IdBytes([2; 18])),
        kind: "recurring".into(),
        consent_by: "jane".into(),
        consent_at: now,
        consent_text_sha256: None,
        network_transaction_id: None,
        transaction_link_id: None,
        created_at: now,
        ended_at: None,
        ended_reason: None,
        revision: 1,
        first_payments: [("nmi".to_owned(), first)].into(),
    };
    let facts = |row: &AgreementRow, by_customer, place| {
        let facts = super::create::stored_credential(row, by_customer, place, now);
        (facts.usage, facts.previous, facts.original_amount)
    };
    let subsequent = "subsequent".to_owned();
    let named = Some("2762".to_owned());
    assert_eq!(facts(&agreement, false, ("nmi", "USD")), (subsequent.clone(), named.clone(), Some(1500)));
    assert_eq!(facts(&agreement, false, ("nmi", "EUR")), (subsequent.clone(), named, None));
    assert_eq!(facts(&agreement, false, ("other", "USD")), (subsequent.clone(), None, None));
    assert_eq!(facts(&agreement, true, ("nmi", "USD")).0, subsequent);
    assert_eq!(facts(&agreement, true, ("other", "USD")).0, "initial");
    (agreement.ended_at, agreement.ended_reason) = (Some(now), Some(AgreementRow::NUMBER_CHANGED.into()));
    assert_eq!(facts(&agreement, true, ("nmi", "USD")), ("initial".to_owned(), None, None));
}
