//! What is kept of a charge and for how long: keys as hashes, what is passed through nowhere, a card until nothing needs it.

use std::path::Path;

use cardvault::tools::client::Client;
use serde_json::{Value, json};

use crate::common::{Vault, card, count_of, events, order, store, text};
use crate::desk::{Desk, SCOPES, VISA, behaving, refusal, sale, word};

/// Files below a directory that hold one of these texts, by what they hold.
fn holders(directory: &Path, texts: &[Vec<u8>]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holders(&path, texts));
        } else if let Ok(bytes) = std::fs::read(&path) {
            let holds = |text: &Vec<u8>| bytes.windows(text.len()).any(|window| window == text.as_slice());
            let of = |(at, _): (usize, &Vec<u8>)| (path.display().to_string(), at);
            found.extend(texts.iter().enumerate().filter(|(_, text)| holds(text)).map(of));
        }
    }
    found
}

/// Every text as it is, and as its plain hash: that of a key can be searched for.
fn traces(texts: &[&str]) -> Vec<Vec<u8>> {
    let hash = |text: &&str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref().to_vec();
    let hex = |text: &&str| data_encoding::HEXLOWER.encode(&hash(text)).into_bytes();
    let plain = texts.iter().map(|text| text.as_bytes().to_vec());
    plain.chain(texts.iter().map(hash)).chain(texts.iter().map(hex)).collect()
}

#[tokio::test]
async fn what_a_caller_says_is_kept_only_as_it_may_be() {
    let vault = Vault::start_with(|config| format!("{config}\n[log]\nlevel = \"trace\"\n"));
    let mut desk = Desk::at(vault);
    let assessor = desk.vault.assessor();
    let mut stored = card(&behaving(1, 971), "canary-customer");
    stored["metadata"] = json!({"note": "canary-metadata"});
    let token = store(&desk.client, "canary-key-of-card", &stored).await["id"].as_str().unwrap().to_owned();
    let passed = [
        "Canary Bird",
        "7 Canary Row",
        "Canary Loft",
        "Canaryton",
        "Canaryshire",
        "bird@canary.example",
        "AAABCanaryCAVV==",
        "c4na7y00-aaaa-bbbb-cccc-ddddeeeeffff",
    ];
    let [name, line1, line2, city, region, email, cavv, ds] = passed;
    for (at, destination) in ["sandbox", "stripe_sandbox"].into_iter().enumerate() {
        let mut body = sale(&token, destination);
        body["destination"] = destination.into();
        body["billing"] = json!({
            "name": name, "line1": line1, "line2": line2, "city": city, "region": region, "country": "IC", "email": email,
        });
        body["three_d_secure"] =
            json!({"version": "2.2.0", "eci": "05", "cavv": cavv, "ds_transaction_id": ds});
        // Its answer is lost: what cannot be rendered again is not sent again.
        let made = desk.charge_prefer(&format!("canary-key-of-charge-{at}"), "wait=1", &body).await;
        if destination == "sandbox" {
            let charge = desk.settled(&made).await;
            assert_eq!((word(&charge, "status"), &charge["attempts"][0]["tries"]), ("approved", &1.into()));
            let refunds = format!("/v1/charges/{}/refunds", word(&charge, "id"));
            assert_eq!(desk.post(&refunds, "canary-key-of-refund", &json!({})).await.status, 201);
        }
    }
    let consent = json!({"type": "recurring", "consent": {"by": "shopper", "at": "2026-11-01T00:00:00Z"}});
    let agreements = format!("/v1/tokens/{token}/agreements");
    assert_eq!(desk.post(&agreements, "canary-key-of-agreement", &consent).await.status, 201);
    desk.get("/v1/tokens?customer=canary-customer").await;
    desk.get("/v1/charges?customer=canary-customer").await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let all = events(&assessor).await;
    let told = serde_json::to_string(&all).unwrap();
    for canary in ["canary-customer", "canary-metadata", "canary-key", "Canary"] {
        assert!(!told.contains(canary) && !desk.vault.log().contains(canary), "{canary}");
    }
    // A customer has one name in the log, and it is not his own.
    let pseudonym =
        |event: &&Value| event["action"] == "card.create" && event["facts"]["customer"].is_string();
    assert_eq!(all.iter().filter(pseudonym).count(), 1, "{told}");
    desk.vault.stop();
    let keys = [
        "canary-key-of-card",
        "canary-key-of-charge-0",
        "canary-key-of-charge-1",
        "canary-key-of-refund",
        "canary-key-of-agreement",
    ];
    let found = holders(&desk.vault.path(""), &traces(&keys));
    assert_eq!(found, []);
    assert_eq!(holders(&desk.vault.path(""), &traces(&passed)), []);
    // The search finds what is there.
    assert!(!holders(&desk.vault.path(""), &traces(&["canary-customer"])).is_empty());
}

#[tokio::test]
async fn a_charge_under_way_is_answered_with_as_it_stands_after_a_restart() {
    let mut desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    desk.script(&json!({ "fault": "hang", "count": 1, "operation": "sale" })).await;
    let body = sale(&token, "inv-1");
    let begun = desk.charge_prefer("k-1", "wait=1", &body).await;
    assert_eq!((begun.status, word(&begun.json(), "status")), (202, "processing"), "{}", text(&begun));
    desk.vault.kill();
    // Nobody can say what became of it.
    desk.vault.stop_sandbox();
    desk.vault.serve();
    desk.reconnect();
    let again = desk.charge("k-1", &body).await;
    let charge = again.json();
    assert_eq!((again.status, word(&charge, "status")), (202, "unknown"), "{charge}");
    assert_eq!((&charge["id"], word(&charge, "outbound")), (&begun.json()["id"], "maybe_sent"));
    assert_eq!(again.header("location"), Some(format!("/v1/charges/{}", word(&charge, "id")).as_str()));
    let other = desk.charge("k-1", &sale(&token, "inv-2")).await;
    assert_eq!(refusal(&other), (422, "idempotency_key_reused".to_owned()));
}

#[tokio::test]
async fn a_capture_under_way_is_answered_with_as_it_stands_after_a_restart() {
    let mut desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let mut hold = sale(&token, "inv-1");
    hold["capture"] = false.into();
    let held = desk.charge("k-1", &hold).await.json();
    let path = format!("/v1/charges/{}", word(&held, "id"));
    desk.script(&json!({ "fault": "hang", "count": 1, "operation": "capture" })).await;
    let headers = [("idempotency-key", "c-1"), ("prefer", "wait=1")];
    let body = json!({"amount": 500});
    let captures = format!("{path}/captures");
    let begun = desk.client.request("POST", &captures, &headers, &body).await.unwrap();
    assert_eq!((begun.status, word(&begun.json(), "status")), (202, "processing"), "{}", text(&begun));
    desk.vault.kill();
    desk.vault.stop_sandbox();
    desk.vault.serve();
    desk.reconnect();
    let again = desk.post(&captures, "c-1", &body).await;
    assert_eq!((again.status, word(&again.json(), "status")), (202, "unknown"), "{}", text(&again));
    assert_eq!(again.json()["id"], begun.json()["id"]);
    assert_eq!(again.header("location"), Some(path.as_str()));
    // What it may have taken counts as taken, and nothing is voided under it.
    let more = desk.post(&captures, "c-2", &json!({"amount": 751})).await;
    assert_eq!(refusal(&more), (422, "amount_too_large".to_owned()));
    let void = desk.post(&format!("{path}/void"), "v-1", &json!({})).await;
    assert_eq!(refusal(&void), (409, "charge_state".to_owned()));
}

#[tokio::test]
async fn the_first_final_answer_is_the_one_that_is_replayed() {
    let desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let body = sale(&token, "inv-1");
    let first = desk.charge("k-1", &body).await;
    let refunds = format!("/v1/charges/{}/refunds", word(&first.json(), "id"));
    let refund = desk.post(&refunds, "r-1", &json!({"amount": 250})).await;
    assert_eq!((refund.status, &refund.json()["amount_refunded"]), (201, &250.into()));
    assert_eq!(desk.post(&refunds, "r-2", &json!({})).await.json()["amount_refunded"], 1250);
    // What became of it since is in the charge, not in the answer of then.
    assert_eq!(desk.charge("k-1", &body).await.body, first.body);
    assert_eq!(desk.post(&refunds, "r-1", &json!({"amount": 250})).await.body, refund.body);
    let other = desk.post(&refunds, "r-1", &json!({"amount": 251})).await;
    assert_eq!(refusal(&other), (422, "idempotency_key_reused".to_owned()));
}

/// However many ask at once: one key is one charge, one invoice is charged once, and a day's sum is never exceeded.
#[tokio::test]
async fn many_at_once_charge_what_one_would() {
    let desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let mut limited = order("limited", Some("acme"), &SCOPES);
    limited.day_max.insert("USD".to_owned(), 5 * 1250 + 1249);
    let limited = desk.vault.client(&desk.vault.principal(limited));
    let at_once = async |client: &Client, name: fn(usize) -> (String, String)| {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..24 {
            let ((key, invoice), client) = (name(n), client.clone());
            let body = sale(&token, &invoice);
            tasks.spawn(async move { client.post("/v1/charges", &key, &body).await.unwrap() });
        }
        let mut count = std::collections::BTreeMap::new();
        for answer in tasks.join_all().await {
            let said = answer.json();
            let word_of_it = said["code"].as_str().or(said["status"].as_str()).unwrap_or_default().to_owned();
            *count.entry((answer.status, word_of_it)).or_insert(0) += 1;
        }
        count
    };
    let of = |count: &std::collections::BTreeMap<(u16, String), i32>, status, word_of_it: &str| {
        count.get(&(status, word_of_it.to_owned())).copied().unwrap_or(0)
    };
    let one_key = at_once(&desk.client, |_| ("k-1".to_owned(), "inv-1".to_owned())).await;
    let busy = of(&one_key, 409, "request_in_progress");
    assert_eq!(of(&one_key, 201, "approved") + busy, 24, "{one_key:?}");
    assert_eq!(desk.paid("inv-1").len(), 1);
    let one_invoice = at_once(&desk.client, |n| (format!("i-{n}"), "inv-2".to_owned())).await;
    let taken = of(&one_invoice, 409, "in_flight") + of(&one_invoice, 409, "already_charged");
    assert_eq!((of(&one_invoice, 201, "approved"), taken), (1, 23), "{one_invoice:?}");
    assert_eq!(desk.paid("inv-2").len(), 1);
    let one_day = at_once(&limited, |n| (format!("d-{n}"), format!("day-{n}"))).await;
    let over = of(&one_day, 403, "limit_exceeded");
    assert_eq!((of(&one_day, 201, "approved"), over), (5, 19), "{one_day:?}");
    let paid: usize = (0..24).map(|n| desk.paid(&format!("day-{n}")).len()).sum();
    assert_eq!(paid, 5);
}

/// A card that is erased while many charge it: each charge was made or refused, and what was made is on both sides.
#[tokio::test]
async fn an_erase_meets_charges_halfway() {
    let mut desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..24 {
        let (client, body) = (desk.client.clone(), sale(&token, &format!("inv-{n}")));
        tasks.spawn(async move { (n, client.post("/v1/charges", &format!("k-{n}"), &body).await.unwrap()) });
    }
    let path = format!("/v1/tokens/{token}");
    let erased = desk.client.request("DELETE", &path, &[], None).await.unwrap();
    assert!(matches!(erased.status, 200 | 202), "{}", text(&erased));
    for (n, answer) in tasks.join_all().await {
        let said = answer.json();
        let made = match answer.status {
            201 => usize::from(said["status"] == "approved"),
            409 | 410 => 0,
            _ => panic!("{}", text(&answer)),
        };
        assert_eq!(desk.paid(&format!("inv-{n}")).len(), made, "{said}");
    }
    assert_eq!(desk.client.get(&path).await.unwrap().status, 410);
    desk.vault.stop();
    let (code, said) = desk.vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_card_is_erased_once_nothing_needs_it() {
    let mut desk = Desk::open();
    let assessor = desk.vault.assessor();
    let number = behaving(1, 970);
    let token = desk.token("t-1", &number).await;
    let path = format!("/v1/tokens/{token}");
    let erase = async || desk.client.request("DELETE", &path, &[], None).await.unwrap();
    let body = sale(&token, "inv-1");
    let begun = desk.charge_prefer("k-1", "respond-async", &body).await;
    assert_eq!((begun.status, word(&begun.json(), "status")), (202, "processing"));
    let waits = erase().await;
    assert_eq!(refusal(&waits), (202, "erasing".to_owned()), "{}", text(&waits));
    assert!(waits.json()["deadline"].is_string());
    // No new use of any kind, and nobody is given it as the card that is there.
    assert_eq!(refusal(&desk.charge("k-2", &sale(&token, "inv-2")).await), (409, "token_erasing".to_owned()));
    let change = json!({"customer": "c-2"});
    let changed = desk.client.request("PATCH", &path, &[], &change).await.unwrap();
    assert_eq!(refusal(&changed), (409, "token_erasing".to_owned()));
    let mut same = card(&number, "c-1");
    same["on_duplicate"] = "return_existing".into();
    assert_ne!(store(&desk.client, "t-2", &same).await["id"], token.as_str());

    let charge = desk.settled(&begun).await;
    assert_eq!(word(&charge, "status"), "approved", "{charge}");
    assert_eq!(refusal(&desk.client.get(&path).await.unwrap()), (410, "token_erased".to_owned()));
    assert_eq!(erase().await.json()["status"], "erased");
    assert_eq!(refusal(&desk.charge("k-1", &body).await), (410, "token_erased".to_owned()));
    let refunds = format!("/v1/charges/{}/refunds", word(&charge, "id"));
    assert_eq!(desk.post(&refunds, "r-1", &json!({})).await.json()["status"], "approved");
    assert_eq!(count_of(&events(&assessor).await, "card.erase"), 1);
    desk.vault.stop();
    let (code, said) = desk.vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn what_a_connector_requires_is_asked_for_before_anything_is_sent() {
    let requires = |text: String| {
        text.replacen("[op.sale]\n", "[op.sale]\nrequires = [\"billing.name\", \"three_d_secure.eci\"]\n", 1)
    };
    let mut desk = Desk::open_with(requires);
    let token = desk.token("t-1", VISA).await;
    let mut body = sale(&token, "inv-1");
    for (field, value, missing) in [
        ("billing", json!({"city": "Berlin"}), Some("billing.name")),
        ("billing", json!({"name": "Jane Roe"}), Some("three_d_secure.eci")),
        ("three_d_secure", json!({"version": "2.2.0", "eci": "05"}), None),
    ] {
        body[field] = value;
        let answer = desk.charge("k-1", &body).await;
        match missing {
            Some(param) => {
                assert_eq!(refusal(&answer), (422, "required_by_connector".to_owned()), "{}", text(&answer));
                assert_eq!((word(&answer.json(), "param"), desk.ledger().len()), (param, 0));
            }
            None => assert_eq!(answer.status, 201, "{}", text(&answer)),
        }
    }
    // Amounts that Stripe cannot express: three decimals end in 0 there.
    let mut dinar = sale(&token, "inv-2");
    dinar["destination"] = "stripe_sandbox".into();
    for (amount, currency, status) in [
        (5124, "KWD", 422),
        (5120, "KWD", 201),
        (5, "ISK", 201),
        (500, "JPY", 201),
        (500, "CLP", 201),
        (5, "UGX", 201),
    ] {
        dinar["invoice"] = format!("{currency}-{amount}").into();
        (dinar["amount"], dinar["currency"]) = (amount.into(), currency.into());
        let before = desk.ledger().len();
        let answer = desk.charge(&format!("{currency}-{amount}"), &dinar).await;
        assert_eq!(answer.status, status, "{}", text(&answer));
        if status == 422 {
            assert_eq!((refusal(&answer).1.as_str(), desk.ledger().len()), ("amount_invalid", before));
        } else {
            assert_eq!(answer.json()["amount_captured"], amount, "{}", text(&answer));
        }
    }
    desk.vault.stop();
    let (code, said) = desk.vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_charge_past_its_period_is_forgotten_and_never_made_again() {
    const POLICY: &str = "\n[retention.acme]\ndays_after_last_agreement = 3000\ncharges_days = 540\n";
    let mut desk = Desk::at(Vault::start_with(|config| config + POLICY));
    let token = desk.token("k-1", VISA).await;
    let body = sale(&token, "i-1");
    let first = desk.charge("c-1", &body).await;
    assert_eq!(first.status, 201);
    desk.vault.stop();
    // As if it had been two years ago: the vault's own clock cannot be moved.
    let aged = "update charges set created = created - 63072000000000, \
                doc = json_set(doc, '$.created_at', created - 63072000000000, '$.updated_at', created - 63072000000000)";
    assert_eq!(desk.vault.database().execute(aged, []).unwrap(), 1);
    desk.vault.serve();
    desk.reconnect();
    let path = format!("/v1/charges/{}", word(&first.json(), "id"));
    let mut gone = false;
    for _ in 0..200 {
        gone = desk.client.get(&path).await.unwrap().status == 404;
        if gone {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(gone);
    // The answer goes a moment after the charge.
    let mut replayed = desk.charge("c-1", &body).await;
    for _ in 0..200 {
        if replayed.status != 201 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        replayed = desk.charge("c-1", &body).await;
    }
    assert_eq!(refusal(&replayed), (410, "record_forgotten".to_owned()));
    assert_eq!(refusal(&desk.charge("c-2", &body).await), (409, "invoice_taken".to_owned()));
}
