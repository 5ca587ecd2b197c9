//! Legal holds: set and released by a person; what is erased under one is kept until its release, and erased then.

use cardvault::card::tenant::Mode;
use cardvault::supervisor::admin::AdminRequest;
use cardvault::tools::client::{Answer, Client};
use cardvault::wire::control::{AdminAnswer, PrincipalOrder};
use serde_json::{Value, json};

use crate::common::{BILLING, Vault, card, count_of, events, order, store, text};

const VISA: &str = "4242424242424242";

struct Held {
    vault: Vault,
    billing: Client,
    lawyer: Client,
}

fn person(name: &str, tenant: &str) -> PrincipalOrder {
    PrincipalOrder { person: true, ..order(name, Some(tenant), &["tokens:hold"]) }
}

impl Held {
    fn start() -> Self {
        let vault = Vault::start();
        vault.tenant("acme", Mode::Test);
        let scopes: Vec<_> =
            BILLING.into_iter().chain(["charges:create", "charges:read", "charges:refund"]).collect();
        let billing = vault.application("billing", "acme", &scopes);
        let lawyer = vault.client(&vault.principal(person("lawyer", "acme")));
        Self { vault, billing, lawyer }
    }

    async fn card(&self, key: &str) -> String {
        let made = store(&self.billing, key, &card(VISA, key)).await;
        format!("/v1/tokens/{}", made["id"].as_str().unwrap())
    }

    async fn hold(&self, path: &str) -> Answer {
        self.lawyer.request("PUT", &format!("{path}/legal_hold"), &[], None).await.unwrap()
    }

    async fn release(&self, path: &str) -> Answer {
        self.lawyer.request("DELETE", &format!("{path}/legal_hold"), &[], None).await.unwrap()
    }

    async fn erase(&self, path: &str) -> Answer {
        self.billing.request("DELETE", path, &[], None).await.unwrap()
    }

    async fn charge(&self, path: &str, key: &str, capture: bool) -> Answer {
        let body = json!({
            "token": path.trim_start_matches("/v1/tokens/"), "amount": 100, "currency": "USD",
            "destination": "sandbox", "invoice": key, "initiator": "customer", "capture": capture,
        });
        self.billing.post("/v1/charges", key, &body).await.unwrap()
    }
}

/// (status, legal_hold, status of the card, erase_asked) of an answer to a hold or its release.
fn standing(answer: &Answer) -> (u16, bool, String, bool) {
    let body = answer.json();
    let flag = |name: &str| body[name].as_bool().unwrap();
    let status = body["status"].as_str().unwrap().to_owned();
    (answer.status, flag("legal_hold"), status, flag("erase_asked"))
}

fn told(status: u16, held: bool, card: &str, erase_asked: bool) -> (u16, bool, String, bool) {
    (status, held, card.to_owned(), erase_asked)
}

fn refusal(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn what_is_erased_under_a_hold_is_kept_until_its_release() {
    let mut held = Held::start();
    let assessor = held.vault.assessor();
    let path = held.card("c-1").await;
    assert_eq!(standing(&held.hold(&path).await), told(200, true, "active", false));
    // A hold is no suspension, and who reads the card sees it.
    assert_eq!(held.charge(&path, "i-1", true).await.status, 201);
    assert_eq!(held.billing.get(&path).await.unwrap().json()["legal_hold"], true);
    for _ in 0..2 {
        let asked = held.erase(&path).await;
        assert_eq!(refusal(&asked), (202, "legal_hold".to_owned()), "{}", text(&asked));
        assert_eq!(
            (&asked.json()["status"], &asked.json()["erased_at"]),
            (&json!("suspended"), &Value::Null)
        );
    }
    assert_eq!(refusal(&held.charge(&path, "i-2", true).await), (409, "token_suspended".to_owned()));
    let revive = json!({"status": "active"});
    let revived = held.billing.request("PATCH", &path, &[], &revive).await.unwrap();
    assert_eq!(refusal(&revived), (409, "legal_hold".to_owned()));
    assert_eq!(held.billing.get(&path).await.unwrap().status, 200);
    assert_eq!(standing(&held.release(&path).await), told(200, false, "erased", false));
    assert_eq!(refusal(&held.billing.get(&path).await.unwrap()), (410, "token_erased".to_owned()));
    // Asked again it says how the card stands; what is gone takes no hold.
    assert_eq!(standing(&held.release(&path).await), told(200, false, "erased", false));
    assert_eq!(refusal(&held.hold(&path).await), (410, "token_erased".to_owned()));
    let events = events(&assessor).await;
    let id = path.trim_start_matches("/v1/tokens/");
    let of_card: Vec<(&str, &str)> = events
        .iter()
        .filter(|event| event["target"]["id"] == id && event["actor"]["type"] != "system")
        .map(|event| {
            (
                event["action"].as_str().unwrap(),
                event.pointer("/facts/note").and_then(Value::as_str).unwrap_or(""),
            )
        })
        .filter(|(action, _)| action.starts_with("card.") && *action != "card.read")
        .collect();
    assert_eq!(
        of_card,
        [
            ("card.create", ""),
            ("card.hold", "set"),
            ("card.suspend", "legal_hold"),
            ("card.hold", "released"),
            ("card.erase", ""),
        ]
    );
    held.vault.stop();
    let (code, said) = held.vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_hold_belongs_to_a_person_of_the_tenant_and_changes_nothing_else() {
    let held = Held::start();
    let path = held.card("c-1").await;
    let before = held.billing.get(&path).await.unwrap().json();
    for _ in 0..2 {
        assert_eq!(standing(&held.hold(&path).await), told(200, true, "active", false));
    }
    for _ in 0..2 {
        assert_eq!(standing(&held.release(&path).await), told(200, false, "active", false));
    }
    let mut after = held.billing.get(&path).await.unwrap().json();
    after["updated_at"] = before["updated_at"].clone();
    assert_eq!(after, before);
    // What was said twice happened once.
    assert_eq!(count_of(&events(&held.vault.assessor()).await, "card.hold"), 2);

    held.vault.tenant("other", Mode::Test);
    let stranger = held.vault.client(&held.vault.principal(person("stranger", "other")));
    let hold = format!("{path}/legal_hold");
    for method in ["PUT", "DELETE"] {
        let unknown = stranger.request(method, &hold, &[], None).await.unwrap();
        assert_eq!(refusal(&unknown), (404, "token_not_found".to_owned()));
        let lacks = held.billing.request(method, &hold, &[], None).await.unwrap();
        assert_eq!(refusal(&lacks), (403, "scope_missing".to_owned()));
    }
    let application = order("robot", Some("acme"), &["tokens:hold"]);
    let AdminAnswer::Refused(why) = held.vault.ask(AdminRequest::PrincipalAdd(application)) else {
        panic!("an application may hold")
    };
    assert!(why.contains("for persons only"), "{why}");
}

#[tokio::test]
async fn a_hold_stops_an_erase_that_waits_for_an_authorization() {
    let mut held = Held::start();
    let path = held.card("c-1").await;
    let charge = held.charge(&path, "i-1", false).await;
    assert_eq!(
        (charge.status, charge.json()["status"].as_str()),
        (201, Some("authorized")),
        "{}",
        text(&charge)
    );
    let id = charge.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(refusal(&held.erase(&path).await), (202, "erasing".to_owned()));
    assert_eq!(standing(&held.hold(&path).await), told(200, true, "suspended", true));
    let void = held.billing.post(&format!("/v1/charges/{id}/void"), "void-1", &json!({})).await.unwrap();
    assert_eq!(void.status, 201, "{}", text(&void));
    // Nothing needs it any more, and still it is kept.
    assert_eq!(held.billing.get(&path).await.unwrap().json()["status"], "suspended");
    assert_eq!(standing(&held.release(&path).await), told(200, false, "erased", false));
    held.vault.stop();
    let (code, said) = held.vault.verify();
    assert_eq!(code, 0, "{said}");
}
