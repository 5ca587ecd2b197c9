//! Forwards, to a destination that does with each card what its suffix says, and such as are refused with a number in them.

use std::fs;

use cardvault::tools::client::Client;
use serde_json::{Value, json};

use crate::common::{Vault, store, text};
use crate::{Answers, CODE, Canaries, body};

/// What the destination does with a card, and the suffix of such numbers.
const BEHAVIOURS: [(&str, u16); 9] = [
    ("forwarded", 0),
    ("forwarded, number echoed", 980),
    ("forwarded, number echoed in a decline", 981),
    ("forwarded, number echoed in an error", 982),
    ("forwarded, garbage", 977),
    ("forwarded, promised length too long", 983),
    ("forwarded, no answer", 979),
    ("forwarded, redirected with its body", 987),
    ("forwarded, huge answer", 988),
];

/// The sandbox, as a forward destination.
pub(crate) fn add_destination(vault: &Vault) {
    let config = fs::read_to_string(vault.config()).unwrap();
    let (_, rest) = config.split_once("[destination.sandbox]").unwrap();
    let endpoint = rest.lines().find(|line| line.starts_with("endpoint")).unwrap();
    let forward = format!(
        r#"
[forward.echo]
{endpoint}
mode = "test"
trust = "tls/ca.pem"
[forward.echo.takes]
methods = ["POST"]
paths = ["/v1/payments"]
bodies = ["json", "form", "xml"]
headers = ["idempotency-key"]
card_headers = ["x-card"]
leaves = ["reference", "operation", "amount", "currency", "invoice"]
card_leaves = ["card.*", "billing.zip", "payment.**"]
timeout_s = 2
[forward.echo.credentials.authorization]
file = "credentials/sandbox_secret_key"
header = "authorization"
prefix = "Bearer "
"#
    );
    fs::write(vault.config(), config + &forward).unwrap();
}

fn request(token: &str, key: &str) -> Value {
    json!({
        "token": token, "destination": "echo", "method": "POST", "path": "/v1/payments",
        "headers": {"idempotency-key": key, "x-card": "n {{ card.number }}"},
        "body": {
            "reference": key, "operation": "sale", "amount": 1000, "currency": "USD", "invoice": key,
            "card": {
                "number": "{{ card.number }}", "exp_month": "{{ card.exp_month | number }}",
                "exp_year": "{{ card.exp_year | number }}",
            },
            "billing": {"zip": "{{ billing.zip }}"},
        },
    })
}

/// Cards that are forwarded, in each encoding, and shown in a dry run; then forwards that say a number where none belongs.
pub(crate) async fn drive_forwards(client: &Client, canaries: &mut Canaries, answers: &mut Answers) {
    for (n, (case, suffix)) in BEHAVIOURS.into_iter().enumerate() {
        let number = canaries.make(case, suffix);
        let card = serde_json::from_str(&body(&number)).unwrap();
        let stored = store(client, &format!("forwarded-{n}"), &card).await;
        let token = stored["id"].as_str().unwrap();
        let json = request(token, &format!("fwd-{n}"));
        let mut form = json.clone();
        form.as_object_mut().unwrap().remove("body");
        let mut xml = form.clone();
        form["body_form"] =
            json!([["card[number]", "{{ card.number }}"], ["billing[zip]", "{{ billing.zip }}"]]);
        xml["body_xml"] =
            "<payment n=\"{{ card.number }}\"><z>{{ billing.zip }}</z><c>x{{ card.number }}</c></payment>"
                .into();
        let mut dry = json.clone();
        dry["dry_run"] = true.into();
        for (kind, sent) in [("json", &json), ("form", &form), ("xml", &xml), ("dry", &dry), ("json", &json)]
        {
            let answer = client.post("/v1/forwards", &format!("{kind}-{n}"), sent).await.unwrap();
            let expected = if kind == "dry" { 200 } else { 201 };
            assert_eq!(answer.status, expected, "{case}, {kind}: {}", text(&answer));
            if kind == "json" && matches!(suffix, 0 | 980 | 981) {
                assert_eq!(answer.json()["status"], "answered", "{case}: {}", text(&answer));
            }
            answers.take(&answer);
            if let Some(id) = answer.json()["id"].as_str() {
                answers.take(&client.get(&format!("/v1/forwards/{id}")).await.unwrap());
            }
        }
    }
    for (case, at) in [
        ("forward's token", "/token"),
        ("forward's destination", "/destination"),
        ("forward's method", "/method"),
        ("forward's path", "/path"),
        ("forward's header", "/headers/idempotency-key"),
        ("forward's card header", "/headers/x-card"),
        ("forward's leaf", "/body/reference"),
        ("forward's card leaf", "/body/card/number"),
        ("forward's body", "/body"),
    ] {
        let number = canaries.make(case, 0);
        let mut sent = request("tok_x", "wrong");
        *sent.pointer_mut(at).unwrap() =
            if at == "/path" { format!("/v1/{number}").into() } else { number.into() };
        let answer = client.post("/v1/forwards", "wrong", &sent).await.unwrap();
        assert!((400..500).contains(&answer.status), "{case}: {}", text(&answer));
        answers.take(&answer);
    }
    for (case, member, wrong) in [
        ("forward's name", "body", json!({"#": 1})),
        ("forward's number", "body", json!({"amount": "#", "card": {"number": ["#"]}})),
        ("forward's placeholder", "body", json!({"reference": "{{ # }}"})),
        ("forward's form", "body_form", json!([["#", "#"]])),
        ("forward's XML", "body_xml", json!("<payment><#/></payment>")),
        ("forward's XML text", "body_xml", json!("<payment><c>#</c>&#; </payment>")),
        ("forward's code", "body", json!({"card": {"cvc": CODE, "number": "#"}})),
    ] {
        let number = canaries.make(case, 0);
        let mut sent = request("tok_x", "wrong");
        sent.as_object_mut().unwrap().remove("body");
        sent[member] = serde_json::from_str(&wrong.to_string().replace('#', &number)).unwrap();
        let answer = client.post("/v1/forwards", "wrong", &sent).await.unwrap();
        assert!((400..500).contains(&answer.status), "{case}: {}", text(&answer));
        answers.take(&answer);
    }
}
