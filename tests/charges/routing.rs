//! Routes: where a charge goes that names no destination, and that it moves on only where it cannot be charged twice.

use serde_json::{Value, json};

use crate::common::{Vault, order, text};
use crate::desk::{Desk, SCOPES, VISA, behaving, refusal, sale, word};

/// `dead` refuses every connection; euros go on after a soft decline too, pounds by shares.
const ROUTES: &str = r#"
[destination.dead]
connector = "sandbox"
mode = "test"
endpoint = "https://127.0.0.1:1"
trust = "tls/ca.pem"
credentials.secret_key = "credentials/sandbox_secret_key"
[[route]]
currencies = ["USD"]
destinations = ["dead", "sandbox", "stripe_sandbox"]
[[route]]
currencies = ["EUR"]
destinations = ["sandbox", "stripe_sandbox"]
failover = "soft_decline"
[[route]]
currencies = ["GBP"]
share = 40
destinations = ["sandbox"]
[[route]]
currencies = ["GBP"]
destinations = ["stripe_sandbox"]
[[route]]
currencies = ["CHF"]
destinations = ["dead", "sandbox"]
failover = "never"
"#;

fn routed(token: &str, invoice: &str, currency: &str) -> Value {
    let mut body = sale(token, invoice);
    body["currency"] = currency.into();
    body.as_object_mut().unwrap().remove("destination");
    body
}

fn went(charge: &Value) -> Vec<(String, String)> {
    let attempts = charge["attempts"].as_array().unwrap().iter();
    let last = word(charge, "destination");
    let to = |attempt: &Value| attempt["destination"].as_str().unwrap_or(last).to_owned();
    attempts.map(|attempt| (to(attempt), word(attempt, "status").to_owned())).collect()
}

fn steps(steps: &[(&str, &str)]) -> Vec<(String, String)> {
    steps.iter().map(|(to, status)| ((*to).to_owned(), (*status).to_owned())).collect()
}

#[tokio::test]
async fn a_route_moves_on_where_nothing_was_sent_and_after_a_soft_decline_if_so_configured() {
    let mut desk = Desk::at(Vault::start_with(|config| config + ROUTES));
    let token = desk.token("good", VISA).await;
    let body = routed(&token, "usd", "USD");
    let answer = desk.charge("usd", &body).await;
    let charge = answer.json();
    assert_eq!((answer.status, word(&charge, "status")), (201, "approved"), "{charge}");
    assert_eq!(went(&charge), steps(&[("dead", "failed"), ("sandbox", "approved")]));
    let ids: Vec<&str> = charge["attempts"].as_array().unwrap().iter().map(|a| word(a, "id")).collect();
    assert!(ids[0] != ids[1] && desk.paid("usd").len() == 1);
    assert_eq!(desk.charge("usd", &body).await.body, answer.body, "what is replayed is the end");
    let refund = desk.post(&format!("/v1/charges/{}/refunds", word(&charge, "id")), "r", &json!({})).await;
    assert_eq!(refund.json()["status"], "approved", "{}", text(&refund));

    let poor = desk.token("poor", &behaving(1, 902)).await;
    let charge = desk.charge("eur", &routed(&poor, "eur", "EUR")).await.json();
    assert_eq!(went(&charge), steps(&[("sandbox", "declined"), ("stripe_sandbox", "declined")]), "{charge}");
    let charge = desk.charge("usd-poor", &routed(&poor, "usd-poor", "USD")).await.json();
    assert_eq!(went(&charge), steps(&[("dead", "failed"), ("sandbox", "declined")]), "{charge}");
    let generic = desk.token("generic", &behaving(1, 901)).await;
    let charge = desk.charge("eur-generic", &routed(&generic, "eur-generic", "EUR")).await.json();
    assert_eq!(went(&charge), steps(&[("sandbox", "declined")]), "{charge}");
    let charge = desk.charge("chf", &routed(&token, "chf", "CHF")).await.json();
    assert_eq!(
        (word(&charge, "status"), went(&charge)),
        ("failed", steps(&[("dead", "failed")])),
        "{charge}"
    );
    // A code is wiped with the first send: there is no second destination for it.
    let mut with_code = routed(&token, "usd-code", "USD");
    with_code["cvc"] = "123".into();
    let charge = desk.charge("usd-code", &with_code).await.json();
    assert_eq!(
        (word(&charge, "status"), went(&charge)),
        ("failed", steps(&[("dead", "failed")])),
        "{charge}"
    );
    // Of what was lost on the way nobody knows: it is looked up, and goes nowhere else.
    for (at, suffix) in [971, 972, 973].into_iter().enumerate() {
        let name = format!("eur-{suffix}");
        let token = desk.token(&name, &behaving(at, suffix)).await;
        let charge = desk.settled(&desk.charge(&name, &routed(&token, &name, "EUR")).await).await;
        assert_eq!(went(&charge), steps(&[("sandbox", "approved")]), "{charge}");
        assert_eq!(desk.paid(&name).len(), 1);
    }
    // No route for it, and more than one destination.
    let refused = desk.charge("jpy", &routed(&token, "jpy", "JPY")).await;
    assert_eq!(refusal(&refused), (422, "destination_required".to_owned()));
    desk.vault.stop();
    let (code, said) = desk.vault.verify();
    assert_eq!(code, 0, "{said}");
}

/// What a payment is to the network it is at every processor: a charge by the merchant that moves on names the first payment's id
/// there, and the new processor's own answer does not take its place.
#[tokio::test]
async fn a_charge_that_moves_on_takes_the_networks_id_of_the_first_payment_along() {
    let desk = Desk::at(Vault::start_with(|config| config + ROUTES));
    let token = desk.token("moves", &behaving(1, 902)).await;
    let good = desk.token("good", VISA).await;
    let agree = async |token: &str, id: Option<&str>| {
        let consent = json!({
            "type": "recurring", "consent": {"by": "shopper", "at": "2026-11-01T00:00:00Z"},
            "network_transaction_id": id,
        });
        let (path, key) = (format!("/v1/tokens/{token}/agreements"), format!("a-{token}"));
        desk.post(&path, &key, &consent).await.json()["id"].clone()
    };
    let by_merchant = |token: &str, invoice: &str, currency: &str, agreement: &Value| {
        let mut body = routed(token, invoice, currency);
        body["initiator"] = "merchant".into();
        body["agreement"] = agreement.clone();
        body
    };
    let named = |invoice: &str, wire: &str| {
        let is = |entry: &&Value| entry["invoice"] == invoice && entry["wire"] == wire;
        desk.ledger().iter().find(is).unwrap()["named_network_transaction_id"].clone()
    };
    // The first payment was elsewhere; declined softly at one processor, it is tried at the other.
    let agreement = agree(&token, Some("481516234230815")).await;
    let charge = desk.charge("eur", &by_merchant(&token, "eur", "EUR", &agreement)).await.json();
    assert_eq!(went(&charge), steps(&[("sandbox", "declined"), ("stripe_sandbox", "declined")]), "{charge}");
    for wire in ["json", "stripe"] {
        assert_eq!(named("eur", wire), "481516234230815", "{wire}");
    }
    // The first payment was at one processor; the next, whose route begins with one that is down, goes by it all the same.
    let agreement = agree(&good, None).await;
    let mut first = routed(&good, "first", "EUR");
    first["agreement"] = agreement.clone();
    let first = desk.charge("first", &first).await.json();
    assert_eq!(word(&first, "status"), "approved", "{first}");
    let charge = desk.charge("usd", &by_merchant(&good, "usd", "USD", &agreement)).await.json();
    assert_eq!(went(&charge), steps(&[("dead", "failed"), ("sandbox", "approved")]), "{charge}");
    let network_id = first["network_transaction_id"].clone();
    assert_eq!((named("usd", "json"), network_id.is_string()), (network_id.clone(), true));
    // At another processor it names the same: not its own, nor the second payment's.
    let mut elsewhere = by_merchant(&good, "elsewhere", "USD", &agreement);
    elsewhere["destination"] = "stripe_sandbox".into();
    let charge = desk.charge("elsewhere", &elsewhere).await.json();
    assert_eq!(word(&charge, "status"), "approved", "{charge}");
    assert_eq!(named("elsewhere", "stripe"), network_id);
    assert_ne!(charge["network_transaction_id"], network_id);
}

#[tokio::test]
async fn shares_are_kept_and_an_invoice_always_goes_the_same_way() {
    let desk = Desk::at(Vault::start_with(|config| config + ROUTES));
    let poor = desk.token("poor", &behaving(1, 901)).await;
    let mut to_sandbox = 0;
    for n in 0..60 {
        let name = format!("gbp-{n}");
        let body = routed(&poor, &name, "GBP");
        let first = desk.charge(&name, &body).await.json();
        // The invoice is free again: another charge of it goes where the first one went.
        let second = desk.charge(&format!("{name}-again"), &body).await.json();
        assert_eq!(word(&first, "destination"), word(&second, "destination"), "{first} {second}");
        to_sandbox += u32::from(word(&first, "destination") == "sandbox");
    }
    assert!((12..=36).contains(&to_sandbox), "{to_sandbox} of 60 where 40 of 100 should go");
}

#[test]
fn a_route_that_cannot_be_is_refused_at_the_start() {
    let vault = Vault::make(|config| config + "\n[[route]]\ndestinations = [\"nowhere\"]\n");
    let config = vault.config();
    let (code, said) = crate::common::run(&["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("route 1: destinations:") && !said.contains("nowhere"), "{said}");
}

/// A charge that moves on along its route counts once.
#[tokio::test]
async fn a_route_that_moves_on_counts_once_against_the_day() {
    let mut desk = Desk::at(Vault::start_with(|config| config + ROUTES));
    let token = desk.token("good", VISA).await;
    let mut limited = order("limited", Some("acme"), &SCOPES);
    limited.day_max.insert("USD".to_owned(), 2 * 1250);
    desk.client = desk.vault.client(&desk.vault.principal(limited));
    for invoice in ["one", "two"] {
        let charge = desk.charge(invoice, &routed(&token, invoice, "USD")).await.json();
        assert_eq!(went(&charge), steps(&[("dead", "failed"), ("sandbox", "approved")]), "{charge}");
    }
    let over = desk.charge("three", &routed(&token, "three", "USD")).await;
    assert_eq!(refusal(&over), (403, "limit_exceeded".to_owned()));
}
