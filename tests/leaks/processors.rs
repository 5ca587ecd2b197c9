//! Processors that misbehave, each towards cards of its own: down, slow, with a wrong certificate, or answering what nobody expects.

use std::fs;
use std::time::{Duration, Instant};

use cardvault::tools::client::Client;
use serde_json::{Value, json};

use crate::common::numbers::complete;
use crate::common::{Vault, store, text};
use crate::{Answers, CODE, Canaries, body};

/// What the processor does with a card, and the suffix of such numbers.
const BEHAVIOURS: [(&str, u16); 15] = [
    ("approved", 0),
    ("declined", 900),
    ("partial approval", 962),
    ("line dropped", 971),
    ("error of the processor", 973),
    ("garbage", 977),
    ("number echoed", 980),
    ("number echoed in a decline", 981),
    ("number echoed in an error", 982),
    ("promised length too long", 983),
    ("promised length too short", 984),
    ("redirected", 986),
    ("redirected with its body", 987),
    ("huge answer", 988),
    ("unavailable", 990),
];

/// Slower than the destination's time: what becomes of it is found out by a look-up.
const SLOW: [(&str, u16); 2] = [("no answer", 979), ("an answer byte by byte", 985)];

/// Destinations to which nothing is sent; such a charge has failed, and may be tried again.
const UNREACHABLE: [(&str, &str); 2] = [("processor down", "down"), ("wrong certificate", "imposter")];

/// Everything is settled long before; a test that hangs must end.
const SETTLED_MAX: Duration = Duration::from_secs(60);

/// Destinations beside those that `init` writes: one whose time is over soon, one where nobody listens, one that shows a certificate
/// of somebody else.
pub(crate) fn add_destinations(vault: &Vault) {
    let connectors = vault.path("connectors");
    let _ = fs::create_dir(&connectors);
    let hasty = include_str!("../../src/connector/connectors/sandbox.toml");
    let hasty = hasty.replacen("name = \"sandbox\"", "name = \"hasty\"", 1);
    let hasty = hasty.replacen("timeout_s = 30", "timeout_s = 2", 1);
    assert!(hasty.contains("timeout_s = 2"));
    fs::write(connectors.join("hasty.toml"), hasty).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(vault.path("tls/other.pem"), other.cert.pem()).unwrap();

    let config = fs::read_to_string(vault.config()).unwrap();
    let (_, rest) = config.split_once("[destination.sandbox]").unwrap();
    let endpoint = rest.lines().find(|line| line.starts_with("endpoint")).unwrap();
    let mut all = format!("{config}\n[connectors]\ndirectory = \"connectors\"\n");
    for (name, connector, endpoint, trust) in [
        ("hasty", "hasty", endpoint, "ca"),
        ("down", "sandbox", "endpoint = \"https://127.0.0.1:1\"", "ca"),
        ("imposter", "sandbox", endpoint, "other"),
    ] {
        all.push_str(&format!(
            "[destination.{name}]\nconnector = \"{connector}\"\nmode = \"test\"\n{endpoint}\ntrust = \"tls/{trust}.pem\"\n\
             credentials.secret_key = \"credentials/sandbox_secret_key\"\n"
        ));
    }
    fs::write(vault.config(), all).unwrap();
}

/// Charges on cards that behave each in a way of its own, with a verification code and without.
pub(crate) async fn drive_charges(client: &Client, canaries: &mut Canaries, answers: &mut Answers) {
    let mut wanted = Vec::new();
    for (case, suffix) in BEHAVIOURS {
        wanted.extend(["sandbox", "stripe_sandbox"].map(|to| (case, suffix, to)));
    }
    wanted.extend(SLOW.map(|(case, suffix)| (case, suffix, "hasty")));
    wanted.extend(UNREACHABLE.map(|(case, to)| (case, 0, to)));
    // Side by side: those that the processor leaves without an answer take their time.
    let mut tasks = tokio::task::JoinSet::new();
    for (n, (case, suffix, to)) in wanted.into_iter().enumerate() {
        let number = canaries.make(case, suffix);
        let stored =
            store(client, &format!("charged-{n}"), &serde_json::from_str(&body(&number)).unwrap()).await;
        for code in [Some(CODE), None] {
            // Without a code it would be sent again and again, and never be settled: nothing else is wrong with that.
            if code.is_none() && (to == "hasty" || to == "stripe_sandbox") {
                continue;
            }
            let key = format!("charge-{n}-{to}-{}", code.is_some());
            let charge = json!({
                "token": stored["id"], "amount": 1000, "currency": "USD", "destination": to, "invoice": key,
                "initiator": "customer", "cvc": code,
            });
            let client = client.clone();
            tasks.spawn(async move {
                let head = [("idempotency-key", key.as_str()), ("prefer", "wait=4")];
                (case, to, client.request("POST", "/v1/charges", &head, &charge).await.unwrap())
            });
        }
    }
    for (case, to, answer) in tasks.join_all().await {
        let charge = answer.json();
        let word = |name: &str| charge[name].as_str().unwrap_or_default();
        let (status, outbound) = (word("status"), word("outbound"));
        if matches!(to, "down" | "imposter") {
            let stands = (answer.status, status, outbound, &charge["retryable"]);
            assert_eq!(stands, (201, "failed", "not_sent", &json!(true)), "{case}: {charge}");
            assert!(!word("code").is_empty(), "{case}: {charge}");
        } else {
            assert!(
                matches!(answer.status, 201 | 202) && outbound != "not_sent",
                "{case}: {}",
                text(&answer)
            );
        }
        answers.0.extend_from_slice(format!("{:?}", answer.headers).as_bytes());
        answers.0.extend_from_slice(&answer.body);
    }
}

/// Charges of the merchant whose answers tell another number: the processor names it, and the vault stores it.
pub(crate) async fn drive_updates(client: &Client, canaries: &mut Canaries, answers: &mut Answers) {
    for (n, (case, suffix, status)) in
        [("renewed", 950, "approved"), ("renewed and declined", 951, "declined")].into_iter().enumerate()
    {
        let number = canaries.make(case, suffix);
        let new = canaries.keep("what it is renewed to", complete(&format!("{}000", &number[..12])));
        let stored =
            store(client, &format!("renewed-{n}"), &serde_json::from_str(&body(&number)).unwrap()).await;
        let path = format!("/v1/tokens/{}", stored["id"].as_str().unwrap());
        let consent =
            json!({"type": "recurring", "consent": {"by": "shopper", "at": "2026-11-22T00:00:00Z"}});
        let agreed =
            client.post(&format!("{path}/agreements"), &format!("agreed-{n}"), &consent).await.unwrap();
        assert_eq!(agreed.status, 201, "{case}: {}", text(&agreed));
        let charge = json!({
            "token": stored["id"], "amount": 1000, "currency": "USD", "destination": "sandbox",
            "invoice": format!("renewed-{n}"), "initiator": "merchant",
        });
        let answer = client.post("/v1/charges", &format!("charge-renewed-{n}"), &charge).await.unwrap();
        assert_eq!((answer.status, &answer.json()["status"]), (201, &json!(status)), "{}", text(&answer));
        answers.take(&answer);
        let card = client.get(&path).await.unwrap();
        assert_eq!(card.json()["version"], 2, "{case}: {}", text(&card));
        assert_eq!(card.json()["card"]["last4"], new[12..], "{case}");
        answers.take(&card);
    }
}

/// The last answer on its connection, which then waits for the next request: what was quoted in it must not wait with it.
pub(crate) async fn drive_last_answer(client: &Client, canaries: &mut Canaries, answers: &mut Answers) {
    let number = canaries.make("number echoed last", 980);
    let stored = store(client, "last", &serde_json::from_str(&body(&number)).unwrap()).await;
    let charge = json!({
        "token": stored["id"], "amount": 1000, "currency": "USD", "destination": "hasty", "invoice": "last-true",
        "initiator": "customer", "cvc": CODE,
    });
    let answer = client.post("/v1/charges", "last", &charge).await.unwrap();
    assert_eq!((answer.status, &answer.json()["status"]), (201, &json!("approved")), "{}", text(&answer));
    answers.0.extend_from_slice(&answer.body);
}

/// Waits until the vault says that no card is with a processor, nor will be: no attempt is being sent, and every charge that could be
/// sent again (one without a code) is final.
pub(crate) async fn wait_until_nothing_is_sent(client: &Client) {
    let began = Instant::now();
    loop {
        let answer = client.get("/v1/charges?limit=100").await.unwrap();
        assert_eq!(answer.status, 200, "{}", text(&answer));
        let page = answer.json();
        assert_eq!(page["has_more"], false);
        let charges = page["data"].as_array().unwrap();
        let open: Vec<_> = charges.iter().filter(|charge| may_be_sent(charge)).collect();
        if open.is_empty() {
            return;
        }
        assert!(began.elapsed() < SETTLED_MAX, "{} are open: {}", open.len(), open[0]);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn may_be_sent(charge: &Value) -> bool {
    let is_sending =
        charge["attempts"].as_array().unwrap().iter().any(|attempt| attempt["status"] == "sending");
    let is_open = matches!(charge["status"].as_str(), Some("processing" | "unknown" | "pending"));
    let had_code = charge["invoice"].as_str().is_none_or(|invoice| invoice.ends_with("-true"));
    is_sending || (is_open && !had_code)
}
