//! A card's life over the API.

use cardvault::card::tenant::Mode;
use serde_json::json;

use crate::common::{BILLING, Vault, card, count_of, events, numbers, store, text};

const FIVES: &str = "5555555555554444";

#[tokio::test]
async fn each_answer_is_what_is_written_here() {
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let client = vault.application("billing", "acme", &BILLING);
    let body = json!({
        "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 30},
        "billing": {"zip": "94103"},
        "customer": "c-1",
        "metadata": {"plan": "gold"},
    });
    let made = client.post("/v1/tokens", "first", &body).await.unwrap();
    assert_eq!((made.status, made.header("content-type")), (201, Some("application/json")));
    assert_eq!(made.header("cache-control"), Some("no-store"));
    assert!(made.header("request-id").unwrap().starts_with("req_"));
    let value = made.json();
    let part = |name: &str| value[name].as_str().unwrap().to_owned();
    let (id, fp, at) = (part("id"), part("fingerprint"), part("created_at"));
    assert!(id.starts_with("tok_") && fp.starts_with("fp_") && at.ends_with('Z'));
    let expected = format!(
        r#"{{"id":"{id}","card":{{"brand":"visa","first6":"424242","last4":"4242","exp_month":12,"exp_year":2030}},"fingerprint":"{fp}","customer":"c-1","metadata":{{"plan":"gold"}},"version":1,"status":"active","created_at":"{at}","updated_at":"{at}"}}"#
    );
    assert_eq!(made.body, expected);
    let read = client.get(&format!("/v1/tokens/{id}")).await.unwrap();
    assert_eq!((read.status, read.body), (200, expected.clone().into()));
    let listed = client.get("/v1/tokens?customer=c-1").await.unwrap();
    assert_eq!(listed.body, format!(r#"{{"data":[{expected}],"has_more":false}}"#));

    let erased = client.request("DELETE", &format!("/v1/tokens/{id}"), &[], None).await.unwrap();
    let when = erased.json()["erased_at"].as_str().unwrap().to_owned();
    let expected = format!(
        r#"{{"id":"{id}","status":"erased","erased_at":"{when}","scrubbed_at":null,"erasure_certificate":"/v1/erasures/{id}"}}"#
    );
    assert_eq!((erased.status, erased.body), (200, expected.into()));

    let gone =
        client.request("GET", "/v1/tokens/tok_x", &[("request-id", "my-request-1")], None).await.unwrap();
    assert_eq!((gone.status, gone.header("content-type")), (404, Some("application/problem+json")));
    assert_eq!(
        gone.body,
        r#"{"type":"urn:cardvault:problem:token_not_found","title":"There is no such token.","status":404,"detail":"It may belong to another tenant; both look the same.","code":"token_not_found","retryable":false,"outbound":"not_sent","request_id":"my-request-1"}"#
    );
}

#[tokio::test]
async fn the_same_request_again_gets_the_same_answer_until_the_card_is_erased() {
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let client = vault.application("billing", "acme", &BILLING);
    let body = card(FIVES, "c-1");
    let first = client.post("/v1/tokens", "k-1", &body).await.unwrap();
    let path = format!("/v1/tokens/{}", first.json()["id"].as_str().unwrap());
    let again = client.post("/v1/tokens", "k-1", &body).await.unwrap();
    assert_eq!((again.status, &again.body), (201, &first.body));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(first.header("idempotent-replayed"), None);

    // The key belongs to this body: another one is refused, and one that differs in the number only is another.
    for other in [card("4242424242424242", "c-1"), card(FIVES, "c-2")] {
        let refused = client.post("/v1/tokens", "k-1", &other).await.unwrap();
        assert_eq!((refused.status, refused.json()["code"].as_str()), (422, Some("idempotency_key_reused")));
    }
    // What was answered is answered, whatever the card has become since.
    let change = json!({"card": {"exp_month": 1, "exp_year": 2031}});
    let changed = client.request("PATCH", &path, &[], &change).await.unwrap();
    assert_eq!((changed.status, &changed.json()["version"]), (200, &json!(2)), "{}", text(&changed));
    let again = client.post("/v1/tokens", "k-1", &body).await.unwrap();
    assert_eq!((again.status, &again.body), (201, &first.body));

    let erased = client.request("DELETE", &path, &[], None).await.unwrap();
    assert_eq!(erased.status, 200);
    for _ in 0..2 {
        let gone = client.post("/v1/tokens", "k-1", &body).await.unwrap();
        assert_eq!((gone.status, gone.json()["code"].as_str()), (410, Some("token_erased")));
    }
    // Keys are a tenant's own, and each route's.
    vault.tenant("other", Mode::Test);
    let other = vault.application("other", "other", &BILLING);
    let theirs = other.post("/v1/tokens", "k-1", &card("4242424242424242", "c-1")).await.unwrap();
    assert_eq!(theirs.status, 201);
    // A refusal that changed nothing is not kept.
    let wrong = client.post("/v1/tokens", "k-2", &card("4242424242424241", "c-1")).await.unwrap();
    assert_eq!(wrong.status, 422);
    store(&client, "k-2", &card("4242424242424242", "c-1")).await;
}

#[tokio::test]
async fn a_card_that_is_there_is_made_anew_returned_or_updated_as_asked() {
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let client = vault.application("billing", "acme", &BILLING);
    let with = |what: &str, year: u16, customer: &str| {
        let mut body = card(FIVES, customer);
        body["on_duplicate"] = json!(what);
        body["card"]["exp_year"] = json!(year);
        body
    };
    let first = store(&client, "k-0", &card(FIVES, "c-1")).await;
    let second = store(&client, "k-1", &with("new", 2030, "c-1")).await;
    assert_ne!(first["id"], second["id"]);
    assert_eq!(first["fingerprint"], second["fingerprint"]);

    let found = client.post("/v1/tokens", "k-2", &with("return_existing", 2032, "c-1")).await.unwrap();
    assert_eq!(found.status, 200, "{}", text(&found));
    let found = found.json();
    assert!(found["id"] == first["id"] || found["id"] == second["id"]);
    assert_eq!((&found["card"]["exp_year"], &found["differs"]), (&json!(2030), &json!(["expiry"])));
    assert_eq!(found["version"], 1);

    let renewed = client.post("/v1/tokens", "k-3", &with("update_existing", 2033, "c-1")).await.unwrap();
    assert_eq!(renewed.status, 200, "{}", text(&renewed));
    let renewed = renewed.json();
    assert!(renewed["id"] == first["id"] || renewed["id"] == second["id"]);
    assert_eq!((&renewed["version"], &renewed["card"]["exp_year"]), (&json!(2), &json!(2033)));

    // The same card of another customer is another card; of another tenant, nobody's business.
    let apart = store(&client, "k-4", &with("return_existing", 2030, "c-2")).await;
    assert!(apart["id"] != first["id"] && apart["id"] != second["id"]);
    // What was erased is not found.
    for token in [&first["id"], &second["id"]] {
        let path = format!("/v1/tokens/{}", token.as_str().unwrap());
        assert_eq!(client.request("DELETE", &path, &[], None).await.unwrap().status, 200);
    }
    let anew = store(&client, "k-5", &with("return_existing", 2030, "c-1")).await;
    assert!(anew["id"] != first["id"] && anew["id"] != second["id"]);
}

#[tokio::test]
async fn a_card_that_is_returned_is_told_from_the_submitted_one_by_its_zip_as_well() {
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let (client, assessor) = (vault.application("billing", "acme", &BILLING), vault.assessor());
    let with = |zip: Option<&str>, year: u16| {
        let mut body = card(FIVES, "c-1");
        body["on_duplicate"] = json!("return_existing");
        body["card"]["exp_year"] = json!(year);
        if let Some(zip) = zip {
            body["billing"] = json!({"zip": zip});
        }
        body
    };
    let first = store(&client, "k", &with(Some("94103"), 2030)).await;
    let cases = [
        (with(Some("94103"), 2030), json!([])),
        (with(Some("94104"), 2030), json!(["zip"])),
        (with(Some("94104"), 2031), json!(["expiry", "zip"])),
        (with(None, 2030), json!(["zip"])),
    ];
    for (n, (body, differs)) in cases.iter().enumerate() {
        // Asked again under the key, the same is told again.
        for replayed in [None, Some("true")] {
            let found = client.post("/v1/tokens", &format!("k-{n}"), body).await.unwrap();
            assert_eq!(found.status, 200, "{}", text(&found));
            assert_eq!(found.header("idempotent-replayed"), replayed);
            assert_eq!((&found.json()["id"], &found.json()["differs"]), (&first["id"], differs), "{n}");
        }
    }
    // Nobody finds a zip by trying.
    let mut refused = None;
    for n in 0..200 {
        let body = with(Some(&format!("{n:05}")), 2030);
        let answer = client.post("/v1/tokens", &format!("try-{n}"), &body).await.unwrap();
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.unwrap();
    let problem = refused.json();
    assert_eq!((refused.status, &problem["code"]), (429, &json!("zip_budget")), "{problem}");
    assert_eq!(problem["param"], "billing.zip");
    let right = client.post("/v1/tokens", "right", &with(Some("94103"), 2030)).await.unwrap();
    assert_eq!((right.status, &right.json()["code"]), (429, &json!("zip_budget")));
    let patch = json!({"billing": {"zip": "94105"}});
    let path = format!("/v1/tokens/{}", first["id"].as_str().unwrap());
    assert_eq!(client.request("PATCH", &path, &[], &patch).await.unwrap().status, 200);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let events = events(&assessor).await;
    assert_eq!(count_of(&events, "zip.limit"), 2);
    assert!(
        events.iter().all(|event| event.pointer("/facts/opening").is_none_or(serde_json::Value::is_null))
    );
}

#[tokio::test]
async fn sixty_four_at_once_get_one_token_and_no_error() {
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let client = vault.application("billing", "acme", &BILLING);
    let mut body = card(FIVES, "c-1");
    body["on_duplicate"] = json!("return_existing");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64 {
        let (client, body) = (client.clone(), body.clone());
        tasks.spawn(async move { client.post("/v1/tokens", &format!("k-{n}"), &body).await.unwrap() });
    }
    let answers = tasks.join_all().await;
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 201)));
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    let tokens: std::collections::BTreeSet<_> =
        answers.iter().map(|answer| answer.json()["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(vault.count("cards"), 1);
}

#[tokio::test]
async fn a_change_in_place_keeps_the_token_and_opens_no_number() {
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let (client, assessor) = (vault.application("billing", "acme", &BILLING), vault.assessor());
    let made = store(&client, "k-1", &card(FIVES, "c-1")).await;
    let id = made["id"].as_str().unwrap();
    let path = format!("/v1/tokens/{id}");
    for (change, version) in [
        (json!({"card": {"exp_month": 6, "exp_year": 2031}}), 2),
        (json!({"billing": {"zip": "10001"}}), 3),
        (json!({"card": {"number": "4242424242424242"}}), 4),
        (json!({"customer": "c-9", "metadata": {"a": "b"}}), 5),
        // Nothing new: nothing changes.
        (json!({"customer": "c-9"}), 5),
    ] {
        let answer = client.request("PATCH", &path, &[], &change).await.unwrap();
        assert_eq!(answer.status, 200, "{}", text(&answer));
        let now = answer.json();
        assert_eq!((&now["id"], &now["version"]), (&made["id"], &json!(version)));
    }
    let now = client.get(&path).await.unwrap().json();
    assert_eq!(
        now["card"],
        json!({"brand": "visa", "first6": "424242", "last4": "4242", "exp_month": 6, "exp_year": 2031})
    );
    assert_ne!(now["fingerprint"], made["fingerprint"]);
    assert_eq!(client.get("/v1/tokens?customer=c-1").await.unwrap().json()["data"], json!([]));

    // Suspended: kept, readable, and active again when asked.
    for status in ["suspended", "active"] {
        let answer = client.request("PATCH", &path, &[], &json!({"status": status})).await.unwrap();
        assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some(status)));
    }
    // Reads are told within a second; by then nothing of an opening has been.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let events = events(&assessor).await;
    assert_eq!(count_of(&events, "card.update"), 4);
    assert_eq!((count_of(&events, "card.suspend"), count_of(&events, "card.activate")), (1, 1));
    assert!(
        events.iter().all(|event| event.pointer("/facts/opening").is_none_or(|opening| opening.is_null()))
    );
}

#[tokio::test]
async fn a_list_goes_page_by_page_from_the_newest() {
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let client = vault.application("billing", "acme", &BILLING);
    let mut made = Vec::new();
    for n in 0..7 {
        let body = card(&numbers::volume(n), "c-1");
        made.push(store(&client, &format!("k-{n}"), &body).await["id"].clone());
        store(&client, &format!("other-{n}"), &card(&numbers::volume(n), "c-2")).await;
    }
    made.reverse();
    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/v1/tokens?customer=c-1&limit=3{after}")).await.unwrap();
        assert_eq!(page.status, 200, "{}", text(&page));
        let page = page.json();
        let data = page["data"].as_array().unwrap();
        assert!(data.len() <= 3);
        listed.extend(data.iter().map(|card| card["id"].clone()));
        after = format!("&starting_after={}", listed.last().unwrap().as_str().unwrap());
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(listed, made);
}
