//! The webhook key: another takes over, each endpoint keeps its secret until its owner rotates it, and then the key before can go.

use serde_json::{Value, json};

use crate::common::{run, text};
use crate::desk::{Desk, VISA, word};

const ENDPOINTS: &str = "/v1/webhook_endpoints";

/// `cardvault keys …`: whether it was done, and what it printed.
fn keys(desk: &Desk, args: &[&str]) -> (bool, String) {
    let config = desk.vault.config();
    let (code, said) = run(&[&["keys", "--config", config.to_str().unwrap()], args].concat());
    (code == 0, said)
}

/// The id of the webhook key in this state.
fn webhook_key(desk: &Desk, state: &str) -> String {
    let (_, said) = keys(desk, &["list"]);
    let is_it = |line: &&str| line.contains(" webhook ") && line.contains(state);
    let line = said.lines().find(is_it).unwrap_or_else(|| panic!("no {state} webhook key: {said}"));
    line.split_whitespace().next().unwrap().to_owned()
}

async fn rotate(desk: &Desk, id: &str, key: &str, hours: i64) -> String {
    let path = format!("{ENDPOINTS}/{id}/rotate_secret");
    let answer = desk.post(&path, key, &json!({"keep_old_hours": hours})).await;
    assert_eq!(answer.status, 200, "{}", text(&answer));
    word(&answer.json(), "secret").to_owned()
}

#[tokio::test]
async fn a_webhook_key_takes_over_and_goes_once_no_endpoint_needs_it() {
    let desk = Desk::open("[1]", "");
    let token = desk.token("t", VISA).await;
    let (id, first) = desk.endpoint("/hook", &["charge.*"]).await;
    let old = webhook_key(&desk, "active");
    let (done, said) = keys(&desk, &["rotate", "webhook", "--tenant", "acme"]);
    assert!(done, "{said}");
    assert_eq!(webhook_key(&desk, "retired"), old);
    // The endpoint keeps its secret, and whoever made it is shown the same one again.
    let body = json!({"url": desk.url("/hook"), "events": ["charge.*"]});
    assert_eq!(word(&desk.post(ENDPOINTS, "endpoint-/hook", &body).await.json(), "secret"), first);
    desk.charge(&token, "inv-1").await;
    let one = desk.arrived("/hook", |all| all.len() == 1).await;
    assert_eq!((one[0].signatures(), one[0].signed_with(&first)), (1, 1));
    let (done, said) = keys(&desk, &["destroy", &old]);
    assert!(!done && said.contains("1 webhook endpoints have a secret of this key"), "{said}");
    // While the endpoint's secret rotates both sign, one under each key, and the old key is needed yet.
    let second = rotate(&desk, &id, "r-1", 1).await;
    desk.charge(&token, "inv-2").await;
    let two = desk.arrived("/hook", |all| all.len() == 2).await;
    assert_eq!((two[1].signed_with(&first), two[1].signed_with(&second)), (1, 1));
    let (done, said) = keys(&desk, &["destroy", &old]);
    assert!(!done && said.contains("1 webhook endpoints"), "{said}");
    let third = rotate(&desk, &id, "r-2", 0).await;
    let (done, said) = keys(&desk, &["destroy", &old]);
    assert!(done, "{said}");
    desk.charge(&token, "inv-3").await;
    let three = desk.arrived("/hook", |all| all.len() == 3).await;
    assert_eq!((three[2].signatures(), three[2].signed_with(&third)), (1, 1));
}

#[tokio::test]
async fn under_a_webhook_key_that_others_know_nothing_is_posted_and_nothing_is_lost() {
    let desk = Desk::open("[1]", "");
    let token = desk.token("t", VISA).await;
    let (id, first) = desk.endpoint("/hook", &["charge.*"]).await;
    let old = webhook_key(&desk, "active");
    let (done, said) = keys(&desk, &["compromise", &old]);
    assert!(done && said.contains("rotate_secret"), "{said}");
    desk.charge(&token, "inv-1").await;
    let (_, spy) = desk.endpoint("/spy", &["charge.*"]).await;
    desk.charge(&token, "inv-2").await;
    let spied = desk.arrived("/spy", |all| !all.is_empty()).await;
    assert_eq!(spied[0].signed_with(&spy), 1);
    assert!(desk.receiver.at("/hook").is_empty());
    // The old secret does not sign, however long its owner would have kept it.
    let second = rotate(&desk, &id, "r-1", 1).await;
    let arrived = desk.arrived("/hook", |all| all.len() == 2).await;
    for one in &arrived {
        assert_eq!((one.signatures(), one.signed_with(&first), one.signed_with(&second)), (1, 0, 1));
    }
    assert!(!rotate(&desk, &id, "r-2", 0).await.is_empty());
    let (done, said) = keys(&desk, &["destroy", &old]);
    assert!(done, "{said}");
    assert_ne!(desk.get(&format!("{ENDPOINTS}/{id}")).await["enabled"], Value::Bool(false));
}
