//! What is told: by a processor to the vault, with numbers wherever a processor might echo them, signed and not; and by the vault to its
//! callers' receiver.

use std::fs;

use cardvault::tools::client::Client;
use serde_json::{Value, json};

use crate::common::{Vault, store, text};
use crate::receiver::Receiver;
use crate::{Answers, Canaries, JSON, adyen, body};

const KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
const OTHER_KEY: &str = "00112233445566778899aabbccddeeff";
const TOLD: &str = "/v1/webhooks/adyen";
const ENDPOINTS: &str = "/v1/webhook_endpoints";

/// A destination whose processor tells by itself, and a receiver of what the vault tells.
pub(crate) fn add(vault: &Vault) -> Receiver {
    let receiver = Receiver::start(&vault.path("tls"));
    let config = fs::read_to_string(vault.config()).unwrap();
    let (_, rest) = config.split_once("[destination.sandbox]").unwrap();
    let endpoint = rest.lines().find(|line| line.starts_with("endpoint")).unwrap();
    let adyen = adyen::destination("adyen", endpoint, "adyen_hmac", "");
    let secret = fs::read_to_string(vault.path("credentials/sandbox_secret_key")).unwrap();
    let basic = adyen::basic_auth(&secret);
    for (name, text) in [("basic", basic.as_str()), ("account", "TestMerchant"), ("hmac", KEY)] {
        fs::write(vault.path(&format!("credentials/adyen_{name}")), text).unwrap();
    }
    let hosts = format!("\n[webhooks]\nhosts = [\"{}\"]\ntrust = \"tls/ca.pem\"\n", receiver.address);
    fs::write(vault.config(), config + &adyen + &hosts).unwrap();
    receiver
}

/// An endpoint that is told of everything; and such as say a number where none belongs.
pub(crate) async fn drive_endpoints(
    client: &Client,
    receiver: &Receiver,
    canaries: &mut Canaries,
    answers: &mut Answers,
) -> String {
    let url = format!("https://{}/told", receiver.address);
    let made = client.post(ENDPOINTS, "endpoint", &json!({"url": url, "events": ["*"]})).await.unwrap();
    assert_eq!(made.status, 201, "{}", text(&made));
    let id = made.json()["id"].as_str().unwrap().to_owned();
    for (case, method, path, sent) in [
        ("URL of an endpoint", "POST", "", json!({"url": format!("{url}/#"), "events": ["*"]})),
        ("host of an endpoint", "POST", "", json!({"url": "https://#/", "events": ["*"]})),
        ("events", "POST", "", json!({"url": url, "events": ["#"]})),
        ("description", "POST", "", json!({"url": url, "events": ["*"], "description": "x #"})),
        ("name in an endpoint", "POST", "", json!({"url": url, "events": ["*"], "#": 1})),
        ("changed description", "PATCH", "/ID", json!({"description": "#"})),
        ("hours", "POST", "/ID/rotate_secret", json!({"keep_old_hours": "#"})),
        ("replayed event", "POST", "/ID/replay", json!({"event": "#"})),
        ("replayed since", "POST", "/ID/replay", json!({"since": "#"})),
        ("tried out", "POST", "/ID/test", json!({"#": 1})),
        ("status of deliveries", "GET", "/ID/deliveries?status=#", Value::Null),
        ("id of an endpoint", "GET", "/#", Value::Null),
    ] {
        let number = canaries.make(case, 0);
        let path = format!("{ENDPOINTS}{}", path.replace("ID", &id)).replace('#', &number);
        let sent = if sent.is_null() { String::new() } else { sent.to_string().replace('#', &number) };
        let head = [JSON, ("idempotency-key", "told")];
        let head = if sent.is_empty() { &[][..] } else { &head[..] };
        let answer = client.request(method, &path, head, sent.as_bytes()).await.unwrap();
        assert!((400..500).contains(&answer.status), "{case}: {}", text(&answer));
        answers.take(&answer);
    }
    id
}

/// A processor's webhooks: such as are believed, and such as are not.
pub(crate) async fn drive_processor(client: &Client, canaries: &mut Canaries, answers: &mut Answers) {
    let (capture, payment) = capture(client, canaries).await;
    // Believed, but about nothing of ours: the log says so.
    let item = |reference: &str| adyen::item("CAPTURE", reference, 1000);
    for (case, pointer, value) in [
        ("told reference", "/merchantReference", "#"),
        ("told reference with words", "/merchantReference", "order # of today"),
        ("told reference in groups", "/merchantReference", "~"),
        ("told id", "/pspReference", "#"),
        ("told id with words", "/pspReference", "psp-#-x"),
        ("told payment", "/originalReference", "#"),
        ("told reason", "/reason", "refused for #"),
        ("told reason in groups", "/reason", "refused for ~, sorry"),
        ("told event", "/eventCode", "#"),
        ("told success", "/success", "#"),
        ("told account", "/merchantAccountCode", "#"),
        ("told currency", "/amount/currency", "#"),
        ("told beside", "/additionalData/cardNumber", "#"),
    ] {
        let number = canaries.make(case, 0);
        let groups: Vec<&str> = (0..4).map(|at| &number[at * 4..at * 4 + 4]).collect();
        let value = value.replace('#', &number).replace('~', &groups.join(" "));
        let mut item = item("att_038g5cqxv56ee64z0v3swtkyk0vmm0nq");
        match pointer.strip_prefix("/additionalData/") {
            Some(name) => item["additionalData"][name] = value.into(),
            None => *item.pointer_mut(pointer).unwrap() = value.into(),
        }
        let sent = adyen::webhook(item, KEY).to_string();
        let head = [JSON, ("x-card", &number), ("user-agent", &number)];
        answers.ask(client, ("POST", TOLD), &head, &sent, 200).await;
    }
    drive_unbelieved(client, &capture, canaries, answers).await;
    // Believed, and learnt: what it says of its capture is kept.
    let number = canaries.make("told of a capture", 0);
    let mut item = adyen::item("CAPTURE", &capture, 1000);
    item["originalReference"] = payment.into();
    item["success"] = "false".into();
    item["reason"] = format!("refused for {number}").into();
    let sent = adyen::webhook(item, KEY).to_string();
    answers.ask(client, ("POST", TOLD), &[JSON], &sent, 200).await;
    let charges = client.get("/v1/charges?invoice=told").await.unwrap();
    assert_eq!(charges.json()["data"][0]["captures"][0]["status"], "declined", "{}", text(&charges));
    answers.take(&charges);
}

/// Webhooks that are signed with another key, cut, too long, or no webhooks.
async fn drive_unbelieved(client: &Client, capture: &str, canaries: &mut Canaries, answers: &mut Answers) {
    for (case, key, head, edit, status) in [
        (
            "told without the key",
            OTHER_KEY,
            "x-card",
            &(|body: String| body) as &dyn Fn(String) -> String,
            403,
        ),
        ("told with a credential", OTHER_KEY, "authorization", &|body| body, 403),
        ("told cut", KEY, "x-card", &|body| body[..body.len() - 3].to_owned(), 422),
        ("told twice", KEY, "x-card", &|body| format!("{body}{body}"), 422),
        ("told no JSON", KEY, "x-card", &|body| body.replace(['{', '"'], " "), 422),
        ("told at length", KEY, "x-card", &|body| format!("{body}{}", " ".repeat(64 << 10)), 413),
    ] {
        let number = canaries.make(case, 0);
        let mut item = adyen::item("CAPTURE", capture, 1000);
        item["reason"] = format!("refused for {number}").into();
        let sent = edit(adyen::webhook(item, key).to_string());
        answers.ask(client, ("POST", TOLD), &[JSON, (head, &number)], &sent, status).await;
    }
    let number = canaries.make("told to nobody", 0);
    let answer =
        client.request("POST", &format!("{TOLD}{number}"), &[JSON], number.as_bytes()).await.unwrap();
    assert!((400..500).contains(&answer.status), "{}", text(&answer));
    answers.take(&answer);
}

/// A capture that waits for its processor's word: its attempt, and the payment at the processor.
async fn capture(client: &Client, canaries: &mut Canaries) -> (String, String) {
    let number = canaries.make("captured later", 0);
    let stored = store(client, "told", &serde_json::from_str(&body(&number)).unwrap()).await;
    let charge = json!({
        "token": stored["id"], "amount": 1000, "currency": "USD", "destination": "adyen", "invoice": "told",
        "initiator": "customer", "capture": false,
    });
    let charge = client.post("/v1/charges", "told", &charge).await.unwrap();
    assert_eq!(charge.json()["status"], "authorized", "{}", text(&charge));
    let charge = charge.json();
    let path = format!("/v1/charges/{}", charge["id"].as_str().unwrap());
    let head = [JSON, ("idempotency-key", "told"), ("prefer", "wait=1")];
    let begun = client.request("POST", &format!("{path}/captures"), &head, &b"{}"[..]).await.unwrap();
    assert_eq!((begun.status, &begun.json()["status"]), (202, &json!("pending")), "{}", text(&begun));
    let now = client.get(&path).await.unwrap().json();
    let attempts = now["attempts"].as_array().unwrap();
    let capture = attempts.iter().find(|one| one["operation"] == "capture").unwrap()["id"].clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&capture), text(&charge["processor_transaction_id"]))
}

/// What the vault told, once the last of it is there: the endpoint is tried out.
pub(crate) async fn all_that_was_told(client: &Client, receiver: &Receiver, endpoint: &str) -> Vec<u8> {
    let test = format!("{ENDPOINTS}/{endpoint}/test");
    assert_eq!(client.post(&test, "the-last", &json!({})).await.unwrap().status, 202);
    for _ in 0..600 {
        let told = receiver.at("/told");
        let waiting = client.get(&format!("{ENDPOINTS}/{endpoint}/deliveries?status=waiting")).await.unwrap();
        if waiting.json()["data"] == json!([]) && told.iter().any(|one| one.kind() == "webhook_endpoint.test")
        {
            return told
                .iter()
                .flat_map(|one| format!("{}\n{}\n", one.head, one.text).into_bytes())
                .collect();
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("what was told did not arrive");
}
