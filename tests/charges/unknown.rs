//! Processors that leave us without an answer: in the end the money is known, and nothing was done twice.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::text;
use crate::desk::{Desk, VISA, behaving, refusal, sale, word};

#[tokio::test]
async fn whatever_becomes_of_the_answer_the_money_is_known_in_the_end() {
    let mut desk = Desk::open();
    let mut open = Vec::new();
    let suffixes =
        [962, 970, 971, 972, 973, 974, 975, 976, 977, 978, 980, 981, 982, 983, 984, 986, 988, 989, 990];
    for (at, suffix) in suffixes.into_iter().enumerate() {
        let invoice = format!("inv-{suffix}");
        let token = desk.token(&invoice, &behaving(at, suffix)).await;
        let answer = desk.charge_prefer(&invoice, "wait=1", &sale(&token, &invoice)).await;
        assert!(matches!(answer.status, 201 | 202), "{suffix}: {}", text(&answer));
        assert!(answer.header("location").is_some());
        open.push((suffix, invoice, answer));
    }
    for (suffix, invoice, answer) in open {
        let charge = desk.settled(&answer).await;
        let status = word(&charge, "status");
        assert!(matches!(status, "approved" | "declined" | "failed"), "{suffix}: {charge}");
        let paid = desk.paid(&invoice).len();
        assert_eq!(paid, usize::from(status == "approved"), "{suffix}: {charge}");
        if suffix == 962 {
            assert_eq!((word(&charge, "code"), &charge["amount_offered"]), ("partial_approval", &625.into()));
            assert_eq!(charge["amount_captured"], 0);
        }
    }
    desk.vault.stop();
    let (code, said) = desk.vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn what_a_second_send_meets_is_not_what_became_of_the_first() {
    let desk = Desk::open();
    let mut at = 0;
    for destination in ["sandbox", "stripe_sandbox"] {
        for fault in ["unauthorized", "rate_limited", "unavailable", "error_500"] {
            at += 1;
            let invoice = format!("{destination}-{fault}");
            let token = desk.token(&invoice, &behaving(at, 971)).await;
            desk.script(&json!({ "fault": fault, "count": 1, "repeats": true })).await;
            let mut body = sale(&token, &invoice);
            body["destination"] = destination.into();
            let answer = desk.charge_prefer(&invoice, "wait=20", &body).await;
            let charge = desk.settled(&answer).await;
            assert_eq!(word(&charge, "status"), "approved", "{charge}");
            assert_eq!((desk.paid(&invoice).len(), &charge["attempts"][0]["tries"]), (1, &2.into()));
        }
    }
}

#[tokio::test]
async fn a_captured_sale_that_is_not_wanted_is_refunded_where_no_void_undoes_it() {
    let mut desk = Desk::open();
    // The refund's own answer is lost once, and once the vault dies over it.
    for (at, fault) in [(1, "none"), (2, "drop"), (3, "hang")] {
        let invoice = format!("inv-{fault}");
        let token = desk.token(&invoice, &behaving(at, 962)).await;
        let script = json!({ "fault": fault, "count": u8::from(fault != "none"), "operation": "refund" });
        desk.script(&script).await;
        let mut body = sale(&token, &invoice);
        body["destination"] = "stripe_sandbox".into();
        let prefer = if fault == "hang" { "wait=1" } else { "wait=30" };
        let answer = desk.charge_prefer(&invoice, prefer, &body).await;
        if fault == "hang" {
            assert_eq!(answer.status, 202, "{}", text(&answer));
            desk.vault.kill();
            desk.vault.serve();
            desk.reconnect();
        }
        let charge = desk.settled(&answer).await;
        assert_eq!(
            (word(&charge, "status"), word(&charge, "code")),
            ("declined", "partial_approval"),
            "{charge}"
        );
        assert_eq!((&charge["amount_offered"], &charge["amount_captured"]), (&625.into(), &0.into()));
        assert_eq!(
            (&charge["refunds"][0]["amount"], &charge["refunds"][0]["reversal"]),
            (&625.into(), &true.into())
        );
        let entries = desk.ledger();
        let of = |kind: &str| -> Vec<_> {
            let fits =
                |e: &&Value| e["kind"] == kind && e["invoice"] == invoice.as_str() && e["status"] != "error";
            entries.iter().filter(fits).map(|e| e["amount_approved"].clone()).collect()
        };
        assert_eq!(
            (of("sale"), of("refund"), of("void")),
            (vec![625.into()], vec![625.into()], vec![]),
            "{fault}"
        );
    }
}

#[tokio::test]
async fn what_is_pending_is_asked_for_until_it_is_answered_whatever_dies_meanwhile() {
    let mut desk = Desk::open();
    let mut open = Vec::new();
    for (at, suffix, destination) in [(1, 960, "sandbox"), (2, 961, "sandbox"), (3, 960, "stripe_sandbox")] {
        let invoice = format!("{destination}-{suffix}");
        let token = desk.token(&invoice, &behaving(at, suffix)).await;
        let mut body = sale(&token, &invoice);
        body["destination"] = destination.into();
        let answer = desk.charge_prefer(&invoice, "wait=1", &body).await;
        assert_eq!((answer.status, word(&answer.json(), "status")), (202, "pending"), "{}", text(&answer));
        open.push((if suffix == 960 { "approved" } else { "declined" }, invoice, answer));
    }
    // One life of the edge has the answer before it, the next one gets it.
    desk.vault.kill_role("edge");
    desk.vault.kill();
    desk.vault.serve();
    desk.reconnect();
    for (status, invoice, answer) in open {
        let charge = desk.settled(&answer).await;
        assert_eq!(word(&charge, "status"), status, "{charge}");
        assert_eq!(charge["attempts"][0]["tries"], 1);
        assert_eq!(desk.paid(&invoice).len(), usize::from(status == "approved"));
    }
}

#[tokio::test]
async fn what_is_pending_is_not_asked_for_while_its_processor_asks_to_be_left_alone() {
    let desk = Desk::open();
    let token = desk.token("t-1", &behaving(1, 960)).await;
    let script = |count: u32, seconds: u32| json!({"fault": "unavailable", "operation": "lookup", "count": count, "retry_after": {"seconds": seconds}});
    desk.script(&script(1, 4)).await;
    let began = Instant::now();
    let answer = desk.charge_prefer("k-1", "wait=1", &sale(&token, "i-1")).await;
    assert_eq!((answer.status, word(&answer.json(), "status")), (202, "pending"), "{}", text(&answer));
    // The processor has the answer now; without its wish it would be there in less than two seconds more.
    desk.at_the_sandbox("/sandbox/clock", &json!({"advance_s": 10})).await;
    let charge = desk.settled(&answer).await;
    assert_eq!(word(&charge, "status"), "approved", "{charge}");
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn operations_whose_answer_is_lost_are_carried_out_once() {
    let desk = Desk::open();
    for (at, suffix, capture, verb) in
        [(1, 991, false, "captures"), (2, 992, true, "refunds"), (3, 993, false, "void")]
    {
        let token = desk.token(verb, &behaving(at, suffix)).await;
        let mut body = sale(&token, verb);
        body["capture"] = capture.into();
        let charge = desk.charge(&format!("c-{suffix}"), &body).await.json();
        let path = format!("/v1/charges/{}/{verb}", word(&charge, "id"));
        let done = desk.post(&path, &format!("o-{suffix}"), &json!({})).await;
        assert_eq!((done.status, word(&done.json(), "status")), (201, "approved"), "{}", text(&done));
    }
    let entries = desk.ledger();
    for kind in ["capture", "refund", "void"] {
        let done: Vec<_> = entries.iter().filter(|e| e["kind"] == kind && e["status"] != "error").collect();
        assert_eq!(done.len(), 1, "{kind}: {done:?}");
    }
}

#[tokio::test]
async fn a_charge_with_a_cvc_is_never_sent_again() {
    let desk = Desk::open();
    for (at, suffix, status) in [(1, 971, "approved"), (2, 972, "failed")] {
        let token = desk.token(status, &behaving(at, suffix)).await;
        let mut body = sale(&token, status);
        body["cvc"] = "123".into();
        let answer = desk.charge_prefer(status, "wait=30", &body).await;
        let charge = desk.settled(&answer).await;
        assert_eq!(word(&charge, "status"), status, "{charge}");
        assert_eq!(charge["attempts"][0]["tries"], 1);
        assert_eq!(desk.paid(status).len(), usize::from(status == "approved"));
    }
}

#[tokio::test]
async fn a_processor_that_is_down_costs_nothing_and_a_caller_need_not_wait() {
    let mut desk = Desk::open();
    let slow = desk.token("t-2", &behaving(1, 970)).await;
    let body = sale(&slow, "inv-3");
    let begun = desk.charge_prefer("k-3", "respond-async", &body).await;
    assert_eq!((begun.status, word(&begun.json(), "status")), (202, "processing"));
    let again = desk.charge("k-3", &body).await;
    assert_eq!(refusal(&again), (409, "request_in_progress".to_owned()));
    assert!(again.header("retry-after").is_some());
    let other = desk.charge("k-4", &body).await;
    assert_eq!(refusal(&other), (409, "in_flight".to_owned()));
    assert_eq!(desk.settled(&begun).await["status"], "approved");
    let replay = desk.charge("k-3", &body).await;
    assert_eq!((replay.status, word(&replay.json(), "status")), (201, "approved"));
    assert_eq!(desk.paid("inv-3").len(), 1);

    let token = desk.token("t-1", VISA).await;
    desk.vault.stop_sandbox();
    for key in ["k-1", "k-2"] {
        let failed = desk.charge(key, &sale(&token, "inv-1")).await;
        let charge = failed.json();
        assert_eq!((failed.status, word(&charge, "status")), (201, "failed"), "{charge}");
        assert_eq!((word(&charge, "outbound"), &charge["retryable"]), ("not_sent", &true.into()));
    }
}
