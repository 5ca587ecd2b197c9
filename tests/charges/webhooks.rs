//! What a processor tells by itself: Adyen answers captures, refunds and voids with a webhook only, from the sandbox and from nobody.

use std::time::Duration;

use cardvault::tools::client::{Answer, Payload};
use serde_json::{Value, json};

use crate::adyen;
use crate::common::{Vault, count_of, events, text};
use crate::desk::{Desk, VISA, behaving, refusal, word};

const KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
const NEXT_KEY: &str = "DFB1EB5485895CFA84146406857104ABB4CBCABDC8AAF103A624C8F6A3EAAB00";
const OTHER_KEY: &str = "00112233445566778899aabbccddeeff";

/// A port that was free a moment ago: the processor must know it while the vault is down.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A desk with two Adyen destinations over the sandbox, each with a webhook key of its own; the sandbox tells what it does if `tells`.
fn open(tells: bool) -> Desk {
    let port = free_port();
    let mut vault = Vault::make(|config| {
        let sandbox = config.split("[destination.sandbox]").nth(1).unwrap();
        let endpoint = sandbox.lines().find(|line| line.starts_with("endpoint")).unwrap().to_owned();
        let one = |name: &str, key: &str, more: &str| adyen::destination(name, &endpoint, key, more);
        let next = "next_credentials.webhook_hmac_key = \"credentials/adyen_hmac_next\"";
        let both = one("adyen", "adyen_hmac", next) + &one("adyen_other", "adyen_hmac_other", "");
        config.replace("api = \"127.0.0.1:0\"", &format!("api = \"127.0.0.1:{port}\"")) + &both
    });
    let secret = std::fs::read_to_string(vault.path("credentials/sandbox_secret_key")).unwrap();
    let basic = adyen::basic_auth(&secret);
    for (name, text) in [
        ("adyen_basic", basic.as_str()),
        ("adyen_account", "TestMerchant"),
        ("adyen_hmac", KEY),
        ("adyen_hmac_next", NEXT_KEY),
        ("adyen_hmac_other", OTHER_KEY),
    ] {
        std::fs::write(vault.path(&format!("credentials/{name}")), text).unwrap();
    }
    if tells {
        let sandbox = std::fs::read_to_string(vault.beside("sandbox.port")).unwrap().trim().parse().unwrap();
        let key = vault.path("credentials/adyen_hmac").display().to_string();
        let ca = vault.path("tls/ca.pem").display().to_string();
        let url = format!("https://127.0.0.1:{port}/v1/webhooks/adyen");
        let flags =
            ["--adyen-webhook-url", &url, "--adyen-webhook-ca", &ca, "--adyen-webhook-hmac-key-file", &key];
        vault.stop_sandbox();
        vault.start_sandbox_with(sandbox, &flags.map(str::to_owned));
    }
    vault.serve();
    Desk::at(vault)
}

fn order(token: &str, invoice: &str, capture: bool) -> Value {
    json!({
        "token": token, "amount": 1250, "currency": "USD", "invoice": invoice, "initiator": "customer",
        "destination": "adyen", "capture": capture,
    })
}

/// An answer that says `pending`: the processor will tell.
async fn begin(desk: &Desk, charge: &Value, verb: &str, body: &Value) -> Value {
    let path = format!("/v1/charges/{}/{verb}", word(charge, "id"));
    let key = format!("{verb}-{}-{}", word(charge, "id"), body);
    let head = [("idempotency-key", key.as_str()), ("prefer", "wait=1")];
    let answer = desk.client.request("POST", &path, &head, body).await.unwrap();
    assert!(matches!(answer.status, 201 | 202), "{}", text(&answer));
    answer.json()
}

#[tokio::test]
async fn captures_refunds_and_voids_end_as_the_processor_tells_whatever_dies_meanwhile() {
    let mut desk = open(true);
    let token = desk.token("t-1", VISA).await;
    let mut held = Vec::new();
    for n in 0..3 {
        let charge = desk.charge(&format!("a-{n}"), &order(&token, &format!("inv-{n}"), false)).await.json();
        assert_eq!(word(&charge, "status"), "authorized", "{charge}");
        held.push(charge);
    }
    let sold = desk.charge("s-1", &order(&token, "inv-s", true)).await.json();
    assert_eq!(word(&sold, "status"), "approved", "{sold}");
    begin(&desk, &held[0], "captures", &json!({})).await;
    begin(&desk, &held[1], "void", &json!({})).await;
    begin(&desk, &sold, "refunds", &json!({"amount": 250})).await;
    // What is told while nobody listens is told again.
    desk.vault.kill();
    desk.vault.serve();
    desk.reconnect();
    begin(&desk, &held[2], "captures", &json!({})).await;
    desk.vault.kill_role("edge");
    desk.reconnect();
    let captured = desk.until(word(&held[0], "id"), "captured", |c| c["amount_captured"] == 1250).await;
    assert_eq!(
        (word(&captured, "status"), &captured["captures"][0]["status"]),
        ("approved", &"approved".into())
    );
    let again = desk.until(word(&held[2], "id"), "captured", |c| c["amount_captured"] == 1250).await;
    assert_eq!(word(&again, "status"), "approved");
    desk.until(word(&held[1], "id"), "voided", |c| c["status"] == "voided").await;
    desk.until(word(&sold, "id"), "refunded", |c| c["amount_refunded"] == 250).await;
    // A charge with a code cannot be sent again, and there is no look-up: only a webhook tells what became of it.
    desk.script(&json!({ "fault": "drop", "count": 1, "charges": true })).await;
    let mut lost = order(&token, "inv-lost", true);
    lost["cvc"] = "123".into();
    let lost = desk.charge_prefer("lost", "wait=1", &lost).await.json();
    let found = desk.until(word(&lost, "id"), "known", |c| c["status"] == "approved").await;
    assert_eq!(found["attempts"][0]["tries"], 1);
    assert!(found["processor_transaction_id"].is_string(), "{found}");
    let ledger = desk.ledger();
    let done = |kind: &str| ledger.iter().filter(|e| e["kind"] == kind && e["status"] != "error").count();
    assert_eq!((done("capture"), done("void"), done("refund")), (2, 1, 1));
    desk.vault.stop();
    let (code, said) = desk.vault.verify();
    assert_eq!(code, 0, "{said}");
}

/// A webhook of Adyen's about something that was begun.
struct Hook {
    item: Value,
    key: &'static str,
    to: &'static str,
}

impl Hook {
    /// That `event` went well, about this attempt.
    fn of(event: &str, attempt: &str, amount: i64) -> Self {
        Self { item: adyen::item(event, attempt, amount), key: KEY, to: "adyen" }
    }

    /// Of this payment: its id at the processor stands in every modification.
    fn about(self, charge: &Value) -> Self {
        self.with("originalReference", word(charge, "processor_transaction_id"))
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.item[name] = value.into();
        self
    }

    fn signed_with(mut self, key: &'static str) -> Self {
        self.key = key;
        self
    }

    fn body(&self) -> Value {
        adyen::webhook(self.item.clone(), self.key)
    }

    async fn send(&self, desk: &Desk) -> Answer {
        post(desk, self.to, self.body().to_string().as_bytes()).await
    }

    async fn is_taken(&self, desk: &Desk) {
        let answer = self.send(desk).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"[accepted]"[..]), "{}", text(&answer));
    }
}

async fn post(desk: &Desk, to: &str, body: &[u8]) -> Answer {
    let path = format!("/v1/webhooks/{to}");
    let head = [("content-type", "application/json")];
    desk.client.request("POST", &path, &head, Payload::Bytes(body)).await.unwrap()
}

/// The ids of a charge's attempts of this operation, oldest first.
async fn attempts(desk: &Desk, charge: &Value, operation: &str) -> Vec<String> {
    let now = desk.get(&format!("/v1/charges/{}", word(charge, "id"))).await;
    let all = now["attempts"].as_array().unwrap();
    all.iter().filter(|one| one["operation"] == operation).map(|one| word(one, "id").to_owned()).collect()
}

#[tokio::test]
async fn only_what_the_processor_surely_said_changes_anything() {
    let desk = open(false);
    let assessor = desk.vault.assessor();
    let token = desk.token("t-1", VISA).await;
    let charge = desk.charge("a-1", &order(&token, "inv-1", false)).await.json();
    let id = word(&charge, "id").to_owned();
    let pending = begin(&desk, &charge, "captures", &json!({})).await;
    assert_eq!(word(&pending, "status"), "pending", "{pending}");
    let capture = attempts(&desk, &charge, "capture").await.remove(0);
    let right = || Hook::of("CAPTURE", &capture, 1250).about(&charge);

    for (hook, status) in [
        (right().signed_with(OTHER_KEY), (403, "webhook_untrusted")),
        (Hook { to: "sandbox", ..right() }, (404, "not_found")),
        (Hook { to: "nobody", ..right() }, (404, "not_found")),
    ] {
        let refused = hook.send(&desk).await;
        assert_eq!(refusal(&refused), (status.0, status.1.to_owned()));
    }
    let altered = right().body().to_string().replace("1250", "1251");
    assert_eq!(refusal(&post(&desk, "adyen", altered.as_bytes()).await).0, 403);
    for body in [&b""[..], b"{", b"[]", b"{\"notificationItems\":[]}", b"\xff\xfe"] {
        assert_eq!(refusal(&post(&desk, "adyen", body).await), (422, "webhook_unreadable".to_owned()));
    }
    let large = vec![b' '; (64 << 10) + 1];
    assert_eq!(refusal(&post(&desk, "adyen", &large).await), (413, "body_too_large".to_owned()));
    // Signed, and not what was asked for, or not ours: taken, so that it is not told again and again, and nothing changes.
    let other = Hook { to: "adyen_other", ..right().signed_with(OTHER_KEY) };
    for hook in [
        right().with("amount", json!({ "value": 1251, "currency": "USD" })),
        right().with("amount", json!({ "value": 1250, "currency": "EUR" })),
        Hook::of("CAPTURE", "att_038g5cqxv56ee64z0v3swtkyk0vmm0nq", 1250),
        Hook::of("CAPTURE", "an order of somebody else", 1250),
        Hook::of("REPORT_AVAILABLE", &capture, 1250),
        other,
    ] {
        hook.is_taken(&desk).await;
    }
    assert_eq!(desk.get(&format!("/v1/charges/{id}")).await["captures"][0]["status"], "pending");

    right().is_taken(&desk).await;
    let done = desk.get(&format!("/v1/charges/{id}")).await;
    assert_eq!((word(&done, "status"), &done["amount_captured"]), ("approved", &1250.into()), "{done}");
    // Told again, told late, told otherwise: it stays as it is.
    right().is_taken(&desk).await;
    right().with("success", "false").is_taken(&desk).await;
    assert_eq!(desk.get(&format!("/v1/charges/{id}")).await, done);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let all = events(&assessor).await;
    let notes: Vec<&str> = all
        .iter()
        .filter(|event| event["action"] == "webhook.unapplied")
        .filter_map(|event| event.pointer("/facts/note")?.as_str())
        .collect();
    let wanted = ["amount_differs", "currency_differs", "unmatched", "unmatched", "settled_otherwise"];
    assert_eq!(notes, wanted, "{all:#?}");
    assert_eq!(count_of(&all, "webhook.refused"), 7);
    let by_webhook =
        |event: &&Value| event["action"] == "charge.outcome" && event["actor"]["id"] == "webhook";
    assert_eq!(all.iter().filter(by_webhook).count(), 1, "{all:#?}");
    let figures = desk.vault.plain("/metrics");
    for (result, count) in
        [("applied", 1), ("known", 1), ("unmatched", 2), ("unapplied", 3), ("ignored", 1), ("refused", 7)]
    {
        let line = format!(
            "cardvault_processor_webhooks_total{{destination=\"adyen\",result=\"{result}\"}} {count}\n"
        );
        assert!(figures.contains(&line), "{line}{figures}");
    }
}

#[tokio::test]
async fn two_keys_are_believed_while_they_are_rotated_and_a_number_in_a_webhook_goes_nowhere() {
    let desk = open(false);
    let token = desk.token("t-1", &behaving(1, 0)).await;
    let number = behaving(1, 0);
    let mut held = Vec::new();
    for key in ["a-1", "a-2"] {
        let charge = desk.charge(key, &order(&token, key, false)).await.json();
        let pending = begin(&desk, &charge, "captures", &json!({"amount": 500})).await;
        assert_eq!(word(&pending, "status"), "pending", "{pending}");
        let capture = attempts(&desk, &charge, "capture").await.remove(0);
        held.push((charge, capture));
    }
    let [(first, one), (second, two)] = held.as_slice() else { panic!("two") };
    Hook::of("CAPTURE", one, 500).about(first).signed_with(NEXT_KEY).is_taken(&desk).await;
    let refused = Hook::of("CAPTURE", two, 500)
        .about(second)
        .with("success", "false")
        .with("reason", format!("Refused for {number}"))
        .with("pspReference", number.clone());
    refused.is_taken(&desk).await;
    let captured = desk.get(&format!("/v1/charges/{}", word(first, "id"))).await;
    assert_eq!((word(&captured, "status"), &captured["amount_captured"]), ("approved", &500.into()));
    let now = desk.get(&format!("/v1/charges/{}", word(second, "id"))).await;
    assert_eq!(
        (word(&now, "status"), &now["captures"][0]["status"]),
        ("authorized", &"declined".into()),
        "{now}"
    );
    let kept: Vec<String> = {
        let database = desk.vault.database();
        let mut statement = database.prepare("select doc from charges").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert!(
        kept.iter().all(|doc| !doc.contains(&number)) && kept.iter().any(|doc| doc.contains("Refused for"))
    );
    assert!(!desk.vault.log().contains(&number) && !now.to_string().contains(&number));
}

#[tokio::test]
async fn what_did_not_hold_after_all_is_a_person_s() {
    let desk = open(false);
    let assessor = desk.vault.assessor();
    let token = desk.token("t-1", VISA).await;
    let sold = desk.charge("s-1", &order(&token, "inv-1", true)).await.json();
    let id = word(&sold, "id").to_owned();
    let pending = begin(&desk, &sold, "refunds", &json!({"amount": 400})).await;
    assert_eq!(word(&pending, "status"), "pending", "{pending}");
    let refund = attempts(&desk, &sold, "refund").await.remove(0);
    let of = |event: &str| Hook::of(event, &refund, 400).about(&sold);
    of("REFUND_FAILED").is_taken(&desk).await;
    assert_eq!(
        desk.get(&format!("/v1/charges/{id}")).await["refunds"][0]["status"],
        "pending",
        "it was never done"
    );
    of("REFUND").is_taken(&desk).await;
    assert_eq!(desk.get(&format!("/v1/charges/{id}")).await["amount_refunded"], 400);
    of("REFUND_FAILED").with("reason", "Account closed").is_taken(&desk).await;
    let now = desk.get(&format!("/v1/charges/{id}")).await;
    assert_eq!(
        (&now["refunds"][0]["status"], &now["amount_refunded"]),
        (&"manual".into(), &0.into()),
        "{now}"
    );
    // The old news that it was done does not bring it back.
    of("REFUND").is_taken(&desk).await;
    assert_eq!(desk.get(&format!("/v1/charges/{id}")).await, now);
    // What the issuer takes back is kept with the charge, which stands as before; it names the payment only.
    let dispute = |event: &str| Hook::of(event, "", 1250).about(&sold).with("reason", "Not as described");
    for event in ["NOTIFICATION_OF_CHARGEBACK", "CHARGEBACK", "CHARGEBACK", "PREARBITRATION_LOST"] {
        dispute(event).is_taken(&desk).await;
    }
    let mut disputed = desk.get(&format!("/v1/charges/{id}")).await;
    let told = disputed.as_object_mut().unwrap().remove("disputes").unwrap();
    let told: Vec<_> =
        told.as_array().unwrap().iter().map(|one| (&one["status"], &one["amount"], &one["code"])).collect();
    let why = json!("Not as described");
    assert_eq!(told, [(&json!("opened"), &json!(1250), &why), (&json!("charged_back"), &json!(1250), &why)]);
    disputed["updated_at"] = now["updated_at"].clone();
    assert_eq!(disputed, now);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let all = events(&assessor).await;
    let noted = |event: &&Value| event["action"] == "webhook.unapplied" && event["facts"]["note"] == "noted";
    let noted: Vec<&Value> = all.iter().filter(noted).collect();
    assert_eq!((noted.len(), &noted[0]["target"]["id"]), (1, &id.as_str().into()), "{all:#?}");
    assert_eq!(count_of(&all, "charge.dispute"), 2);
}
