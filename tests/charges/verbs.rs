//! What the verbs do when all goes well.

use cardvault::clock::Time;
use cardvault::tools::client::Payload;
use serde_json::{Value, json};

use crate::common::{count_of, events};
use crate::desk::{Desk, VISA, behaving, refusal, sale, word};

#[tokio::test]
async fn a_charge_is_made_once_and_answers_the_same_for_ever() {
    let mut desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let made = desk.charge("k-1", &sale(&token, "inv-1")).await;
    let charge = made.json();
    assert_eq!((made.status, word(&charge, "status")), (201, "approved"), "{charge}");
    assert_eq!((&charge["amount_captured"], word(&charge, "outbound")), (&1250.into(), "sent"));
    assert_eq!((charge["attempts"].as_array().unwrap().len(), word(&charge, "customer")), (1, "c-1"));
    assert!(made.header("vault-upstream-ms").is_some());
    for of_the_card in ["\"card\"", "first6", "last4", "brand", "exp_", "424242"] {
        assert!(!charge.to_string().contains(of_the_card), "{of_the_card}");
    }
    let replay = desk.charge("k-1", &sale(&token, "inv-1")).await;
    assert_eq!((replay.status, &replay.body), (201, &made.body));
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
    let other = desk.charge("k-1", &sale(&token, "inv-2")).await;
    assert_eq!(refusal(&other), (422, "idempotency_key_reused".to_owned()));
    let again = desk.charge("k-2", &sale(&token, "inv-1")).await;
    assert_eq!(refusal(&again), (409, "already_charged".to_owned()));
    assert_eq!(again.json()["subject"], charge["id"]);
    let mut dearer = sale(&token, "inv-1");
    dearer["amount"] = 1251.into();
    assert_eq!(refusal(&desk.charge("k-3", &dearer).await), (409, "invoice_taken".to_owned()));
    let paid = desk.paid("inv-1");
    assert_eq!((paid.len(), &paid[0]["reference"]), (1, &charge["attempts"][0]["id"]));

    let poor = desk.token("t-2", "4000000000009995").await;
    let declined = desk.charge("k-4", &sale(&poor, "inv-4")).await;
    assert_eq!((declined.status, word(&declined.json(), "status")), (201, "declined"));
    assert_eq!(declined.json()["decline_class"], "soft");
    assert_eq!(desk.charge("k-5", &sale(&token, "inv-4")).await.json()["status"], "approved");

    let erased = desk.client.request("DELETE", &format!("/v1/tokens/{token}"), &[], Payload::None).await;
    assert_eq!(erased.unwrap().status, 200);
    for (key, invoice) in [("k-1", "inv-1"), ("k-6", "inv-6")] {
        let gone = desk.charge(key, &sale(&token, invoice)).await;
        assert_eq!(refusal(&gone), (410, "token_erased".to_owned()));
    }
    let refunds = format!("/v1/charges/{}/refunds", word(&charge, "id"));
    let refunded = desk.post(&refunds, "k-7", &json!({})).await;
    assert_eq!((refunded.status, word(&refunded.json(), "status")), (201, "approved"));
    assert_eq!(desk.post(&refunds, "k-7", &json!({})).await.body, refunded.body);
    desk.vault.stop();
    let (code, said) = desk.vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn captures_refunds_and_voids_never_exceed() {
    let desk = Desk::open();
    for destination in ["sandbox", "stripe_sandbox"] {
        let token = desk.token(destination, VISA).await;
        let hold = |invoice: &str| {
            let mut body = sale(&token, &format!("{destination}-{invoice}"));
            body["capture"] = false.into();
            body["destination"] = destination.into();
            body
        };
        let key = |n: u8| format!("{destination}-{n}");
        let held = desk.charge(&key(1), &hold("a")).await.json();
        assert_eq!(held["status"], "authorized", "{held}");
        assert!(held["expires_at"].is_string());
        let path = format!("/v1/charges/{}", word(&held, "id"));
        let captures = format!("{path}/captures");
        let over = desk.post(&captures, &key(2), &json!({"amount": 1251})).await;
        assert_eq!(refusal(&over), (422, "amount_too_large".to_owned()));
        let body = json!({"amount": 500, "final": true});
        let part = desk.post(&captures, &key(3), &body).await;
        assert_eq!((part.status, word(&part.json(), "status")), (201, "approved"), "{}", part.json());
        assert_eq!(desk.post(&captures, &key(3), &body).await.body, part.body);
        let closed = desk.post(&captures, &key(4), &json!({})).await;
        assert_eq!(refusal(&closed), (409, "charge_state".to_owned()));
        assert_eq!(desk.get(&path).await["amount_captured"], 500);
        let refunds = format!("{path}/refunds");
        let back = desk.post(&refunds, &key(5), &json!({"amount": 200})).await.json();
        assert_eq!((word(&back, "status"), &back["amount_refunded"]), ("approved", &200.into()), "{back}");
        let over = desk.post(&refunds, &key(6), &json!({"amount": 301})).await;
        assert_eq!(refusal(&over), (422, "amount_too_large".to_owned()));
        assert_eq!(desk.post(&refunds, &key(7), &json!({})).await.json()["amount"], 300);
        let refund = desk.get(&format!("/v1/refunds/{}", word(&back, "id"))).await;
        assert_eq!((&refund["charge"], &refund["amount"]), (&held["id"], &200.into()));
        let listed = desk.get(&format!("/v1/refunds?invoice={destination}-a")).await;
        assert_eq!(listed["data"].as_array().unwrap().len(), 2);

        let held = desk.charge(&key(8), &hold("b")).await.json();
        let path = format!("/v1/charges/{}", word(&held, "id"));
        let voided = desk.post(&format!("{path}/void"), &key(9), &json!({})).await.json();
        assert_eq!(voided["charge_status"], "voided", "{voided}");
        assert_eq!(desk.post(&format!("{path}/captures"), &key(10), &json!({})).await.status, 409);
        let again = desk.charge(&key(11), &hold("b")).await.json();
        assert_eq!(again["status"], "authorized", "a voided charge frees its invoice");
    }
}

#[tokio::test]
async fn what_a_capture_leaves_is_captured_later_or_released() {
    let desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let hold = async |destination: &str| {
        let mut body = sale(&token, destination);
        body["capture"] = false.into();
        body["destination"] = destination.into();
        let held = desk.charge(destination, &body).await.json();
        assert_eq!(held["status"], "authorized", "{held}");
        format!("/v1/charges/{}", word(&held, "id"))
    };
    let path = hold("sandbox").await;
    let capture = async |key: &str, body: Value| desk.post(&format!("{path}/captures"), key, &body).await;
    for (key, amount, taken) in [("c-1", 500, 500), ("c-2", 300, 800)] {
        let part = capture(key, json!({ "amount": amount })).await.json();
        assert_eq!((word(&part, "status"), &part["final"]), ("approved", &false.into()), "{part}");
        assert_eq!((word(&part, "charge_status"), &part["amount_captured"]), ("authorized", &taken.into()));
    }
    for (amount, code) in
        [(json!(451), "amount_too_large"), (json!(0), "amount_invalid"), (json!(1.5), "wrong_type")]
    {
        let refused = capture("c-3", json!({ "amount": amount })).await;
        assert_eq!(refusal(&refused), (422, code.to_owned()));
    }
    // A refund of what is captured so far, and the rest.
    let back = desk.post(&format!("{path}/refunds"), "r-1", &json!({"amount": 801})).await;
    assert_eq!(refusal(&back), (422, "amount_too_large".to_owned()));
    let rest = capture("c-3", json!({})).await.json();
    assert_eq!((&rest["amount"], word(&rest, "charge_status")), (&450.into(), "approved"), "{rest}");
    let shown = desk.get(&path).await;
    assert_eq!((shown["captures"].as_array().unwrap().len(), &shown["amount_captured"]), (3, &1250.into()));

    // Stripe releases what its one capture leaves, and the charge says so.
    let path = hold("stripe_sandbox").await;
    let part = desk.post(&format!("{path}/captures"), "s-1", &json!({"amount": 500})).await.json();
    assert_eq!((word(&part, "status"), &part["final"]), ("approved", &true.into()), "{part}");
    assert_eq!((word(&part, "charge_status"), &part["amount_captured"]), ("approved", &500.into()));
    let more = desk.post(&format!("{path}/captures"), "s-2", &json!({})).await;
    assert_eq!(refusal(&more), (409, "charge_state".to_owned()));
}

#[tokio::test]
async fn an_authorization_holds_as_long_as_its_processor_and_brand_say() {
    let desk = Desk::open();
    for (brand, number) in [("visa", VISA), ("mastercard", "5555555555554444")] {
        let token = desk.token(brand, number).await;
        let consent = json!({
            "type": "unscheduled", "consent": {"by": "shopper", "at": "2026-11-01T00:00:00Z"},
            "network_transaction_id": "123456789012345",
        });
        assert_eq!(desk.post(&format!("/v1/tokens/{token}/agreements"), brand, &consent).await.status, 201);
        for (destination, initiator) in
            [("sandbox", "merchant"), ("stripe_sandbox", "customer"), ("stripe_sandbox", "merchant")]
        {
            let name = format!("{brand}-{destination}-{initiator}");
            let mut body = sale(&token, &name);
            body["capture"] = false.into();
            body["destination"] = destination.into();
            body["initiator"] = initiator.into();
            let held = desk.charge(&name, &body).await.json();
            assert_eq!(held["status"], "authorized", "{held}");
            let at = |field: &str| Time::parse(word(&held, field)).unwrap().seconds();
            let hours = (at("expires_at") - at("created_at")) / 3_600;
            let short = (brand, destination, initiator) == ("visa", "stripe_sandbox", "merchant");
            assert_eq!(hours, if short { 114 } else { 168 }, "{name}");
        }
    }
}

#[tokio::test]
async fn a_merchant_charges_only_under_an_agreement() {
    let desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let mut body = sale(&token, "inv-1");
    body["initiator"] = "merchant".into();
    let none = desk.charge("k-1", &body).await;
    assert_eq!(refusal(&none), (422, "agreement_required".to_owned()));
    let consent = json!({"type": "recurring", "consent": {"by": "shopper", "at": "2026-11-01T00:00:00Z"}});
    let path = format!("/v1/tokens/{token}/agreements");
    let agreement = desk.post(&path, "a-1", &consent).await.json();
    let verification = json!({
        "token": token, "destination": "sandbox", "cvc": "123", "agreement": agreement["id"],
    });
    let verified = desk.post("/v1/verifications", "v-1", &verification).await;
    let answer = verified.json();
    assert_eq!((verified.status, word(&answer, "status")), (201, "approved"), "{answer}");
    let agreements = desk.get(&path).await;
    let kept = &agreements["data"][0]["network_transaction_id"];
    assert_eq!(kept, &answer["network_transaction_id"], "{agreements}");
    assert!(kept.is_string());
    let charged = desk.charge("k-1", &body).await.json();
    assert_eq!(
        (word(&charged, "status"), &charged["agreement"]),
        ("approved", &agreement["id"]),
        "{charged}"
    );
    let end = format!("{path}/{}/end", word(&agreement, "id"));
    assert_eq!(desk.post(&end, "e-1", &json!({})).await.status, 200);
    body["invoice"] = "inv-2".into();
    let ended = desk.charge("k-2", &body).await;
    assert_eq!(refusal(&ended), (422, "agreement_required".to_owned()));
}

#[tokio::test]
async fn a_new_number_ends_an_agreement_until_its_customer_has_paid_with_it() {
    let mut desk = Desk::open();
    let assessor = desk.vault.assessor();
    let token = desk.token("t-1", VISA).await;
    let (card, path) = (format!("/v1/tokens/{token}"), format!("/v1/tokens/{token}/agreements"));
    let consent = json!({
        "type": "recurring", "consent": {"by": "shopper", "at": "2026-11-01T00:00:00Z"},
        "network_transaction_id": "MCC123456", "transaction_link_id": "aB3-_6789012345678901Z",
    });
    let agreement = desk.post(&path, "a-1", &consent).await.json();
    let by = |initiator: &str, invoice: &str, agreement: &Value| {
        let mut body = sale(&token, invoice);
        body["initiator"] = initiator.into();
        body["agreement"] = agreement.clone();
        body
    };
    let merchant = |invoice: &str| by("merchant", invoice, &agreement["id"]);
    assert_eq!(desk.charge("k-1", &merchant("inv-1")).await.json()["status"], "approved");
    let renumber = async |number: &str| {
        let change = json!({"card": {"number": number}});
        assert_eq!(desk.client.request("PATCH", &card, &[], &change).await.unwrap().status, 200);
    };
    renumber("5555555555554444").await;
    assert_eq!(
        refusal(&desk.charge("k-2", &merchant("inv-2")).await),
        (422, "agreement_required".to_owned())
    );
    // A customer who pays without it has not agreed to it again; nor has one whose card was declined.
    assert_eq!(desk.charge("k-3", &by("customer", "inv-3", &Value::Null)).await.status, 201);
    renumber("4000000000000002").await;
    let declined = desk.charge("k-4", &by("customer", "inv-4", &agreement["id"])).await.json();
    assert_eq!(word(&declined, "status"), "declined", "{declined}");
    assert_eq!(
        refusal(&desk.charge("k-2", &merchant("inv-2")).await),
        (422, "agreement_required".to_owned())
    );
    renumber("5555555555554444").await;
    let paid = desk.charge("k-5", &by("customer", "inv-5", &agreement["id"])).await.json();
    assert_eq!((word(&paid, "status"), &paid["agreement"]), ("approved", &agreement["id"]), "{paid}");
    // What the network called the old number's transaction is nothing to the new one.
    let kept = desk.get(&path).await["data"][0].clone();
    assert_eq!((word(&kept, "status"), &kept["ended_reason"]), ("active", &Value::Null), "{kept}");
    assert_eq!(kept["network_transaction_id"], paid["network_transaction_id"]);
    assert_eq!(kept["transaction_link_id"], Value::Null);
    assert_eq!(desk.charge("k-2", &merchant("inv-2")).await.json()["status"], "approved");
    assert_eq!(count_of(&events(&assessor).await, "agreement.renew"), 1);
    // What its owner ended stays ended.
    renumber(VISA).await;
    let end = format!("{path}/{}/end", word(&agreement, "id"));
    assert_eq!(desk.post(&end, "e-1", &json!({})).await.json()["ended_reason"], "requested");
    let over = desk.charge("k-6", &by("customer", "inv-6", &agreement["id"])).await;
    assert_eq!(refusal(&over), (422, "agreement_required".to_owned()));
    desk.vault.stop();
    let (code, said) = desk.vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn where_zero_is_unsupported_a_verification_holds_the_smallest_amount_and_releases_it() {
    let without_verify = |text: String| {
        let (from, to) = (text.find("[op.verify]").unwrap(), text.find("[op.capture]").unwrap());
        let smallest = "[currency]\nsmallest = { EUR = 50, JPY = 60 }\n\n[lookup]";
        let text = format!("{}{}", &text[..from], &text[to..]).replace("\"verify\", ", "");
        text.replacen("[lookup]", smallest, 1)
    };
    let desk = Desk::open_with(without_verify);
    let token = desk.token("t-1", VISA).await;
    let verification = |currency: Option<&str>| {
        let mut body = json!({ "token": token, "destination": "sandbox", "cvc": "123" });
        if let Some(currency) = currency {
            body["currency"] = currency.into();
        }
        body
    };
    let verify = "/v1/verifications";
    let none = desk.post(verify, "v-1", &verification(None)).await;
    assert_eq!(refusal(&none), (422, "missing_field".to_owned()), "which of the two?");
    let other = desk.post(verify, "v-1", &verification(Some("USD"))).await;
    assert_eq!(refusal(&other), (422, "currency_invalid".to_owned()));
    assert_eq!(desk.ledger(), Vec::<Value>::new());
    for (currency, amount) in [("EUR", 50), ("JPY", 60)] {
        let verified = desk.post(verify, currency, &verification(Some(currency))).await;
        let answer = verified.json();
        assert_eq!((verified.status, word(&answer, "status")), (201, "approved"), "{answer}");
        assert_eq!((&answer["amount_authorized"], &answer["code"]), (&0.into(), &Value::Null));
        let entries = desk.ledger();
        let held = entries.iter().find(|e| e["kind"] == "authorize" && e["currency"] == currency).unwrap();
        assert_eq!(held["amount"], amount);
        let released = |e: &&Value| e["kind"] == "void" && e["parent"] == held["id"];
        assert_eq!(entries.iter().filter(released).count(), 1, "{entries:?}");
    }
}

#[tokio::test]
async fn a_network_that_says_stop_ends_the_agreement() {
    let desk = Desk::open();
    let token = desk.token("t-1", &behaving(1, 914)).await;
    let consent = json!({
        "type": "recurring", "consent": {"by": "shopper", "at": "2026-11-01T00:00:00Z"},
        "network_transaction_id": "MCC123456",
    });
    let path = format!("/v1/tokens/{token}/agreements");
    assert_eq!(desk.post(&path, "a-1", &consent).await.status, 201);
    let mut body = sale(&token, "inv-1");
    body["initiator"] = "merchant".into();
    assert_eq!(desk.charge("k-1", &body).await.json()["status"], "declined");
    let agreements = desk.get(&path).await;
    assert_eq!(agreements["data"][0]["ended_reason"], "network_stop", "{agreements}");
    let stopped = desk.charge("k-2", &body).await;
    assert_eq!(refusal(&stopped), (422, "agreement_required".to_owned()));
}

#[tokio::test]
async fn charges_are_found_and_exported() {
    let desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    for n in 0..5 {
        assert_eq!(desk.charge(&format!("k-{n}"), &sale(&token, &format!("inv-{n}"))).await.status, 201);
    }
    let page = desk.get("/v1/charges?limit=2").await;
    assert_eq!((&page["has_more"], &page["data"][0]["invoice"]), (&true.into(), &"inv-4".into()));
    let after = word(&page["data"][1], "id");
    let next = desk.get(&format!("/v1/charges?limit=10&starting_after={after}")).await;
    assert_eq!(next["data"].as_array().unwrap().len(), 3);
    let found = desk.get("/v1/charges?invoice=inv-2").await;
    assert_eq!(found["data"].as_array().unwrap().len(), 1);
    let transaction = word(&found["data"][0], "processor_transaction_id");
    let same = desk.get(&format!("/v1/charges?processor_transaction_id={transaction}")).await;
    assert_eq!(same["data"], found["data"]);
    let query = "customer=c-1&status=approved&created%5Bgte%5D=2026-01-01T00:00:00Z";
    let approved = desk.get(&format!("/v1/charges?{query}")).await;
    assert_eq!(approved["data"].as_array().unwrap().len(), 5);
    for none in [
        "status=declined",
        "destination=stripe_sandbox",
        "customer=c-2",
        "created%5Bgte%5D=2999-01-01T00:00:00Z",
    ] {
        assert_eq!(desk.get(&format!("/v1/charges?{none}")).await["data"], json!([]), "{none}");
    }
    let there = desk.get("/v1/charges?destination=sandbox&created%5Blt%5D=2999-01-01T00:00:00Z").await;
    assert_eq!(there["data"].as_array().unwrap().len(), 5);
    let refunds = format!("/v1/charges/{}/refunds", word(&found["data"][0], "id"));
    for (key, amount) in [("r-1", 100), ("r-2", 200)] {
        assert_eq!(desk.post(&refunds, key, &json!({"amount": amount})).await.status, 201);
    }
    let refunded = desk.get("/v1/refunds?customer=c-1&destination=sandbox&status=approved").await;
    let amounts: Vec<_> = refunded["data"].as_array().unwrap().iter().map(|r| r["amount"].clone()).collect();
    assert_eq!(amounts, [200, 100]);
    let own = word(&refunded["data"][1], "processor_transaction_id");
    let one = desk.get(&format!("/v1/refunds?processor_transaction_id={own}")).await;
    assert_eq!(one["data"], json!([refunded["data"][1]]));
    let csv = desk.client.get("/v1/charges?format=csv").await.unwrap();
    let text = String::from_utf8(csv.body.to_vec()).unwrap();
    assert_eq!((text.lines().count(), csv.header("vault-has-more")), (6, Some("false")));
    let lines = desk.client.get("/v1/charges?format=ndjson&limit=3").await.unwrap();
    let lines = String::from_utf8(lines.body.to_vec()).unwrap();
    assert_eq!(lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).count(), 3);
    let bad = desk.client.get("/v1/charges?status=paid").await.unwrap();
    assert_eq!(refusal(&bad), (400, "invalid_parameter".to_owned()));
}
