//! A disk that runs full under the vault.

use cardvault::tools::client::{Answer, Client};
use serde_json::{Value, json};

use super::text;

/// Stores the cards that `body` makes, under the keys `k-0`, `k-1` and so on, until one is refused for want of room: gives all answers,
/// that refusal last.
pub(crate) async fn store_until_full(client: &Client, mut body: impl FnMut(usize) -> Value) -> Vec<Answer> {
    let mut answers = Vec::new();
    for n in 0..2_000 {
        answers.push(client.post("/v1/tokens", &format!("k-{n}"), &body(n)).await.unwrap());
        let answer = &answers[n];
        if answer.status == 201 {
            continue;
        }
        let problem = answer.json();
        assert_eq!((answer.status, &problem["code"]), (503, &json!("disk_full")), "{}", text(answer));
        assert_eq!((&problem["retryable"], &problem["outbound"]), (&json!(true), &json!("not_sent")));
        return answers;
    }
    panic!("the disk was never full");
}
