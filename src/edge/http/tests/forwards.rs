//! Forwards whose answers the keeper would have no room for: refused while that is so, before anything is opened.

use std::time::Duration;

use axum::http::Method;

use super::{Vault, card};
use crate::card::tenant::Mode;
use crate::wire::control::ForwardInfo;

const ANSWER_BYTES_MAX: u32 = 256 << 10;

#[tokio::test]
async fn a_forward_without_room_for_its_answer_is_refused_and_sent_once_there_is_room() {
    let vault = Vault::start().await;
    let to = ForwardInfo { name: "echo".to_owned(), mode: Mode::Test, answer_bytes_max: ANSWER_BYTES_MAX };
    vault.app.directory.set_forwards(vec![to]);
    let token = vault.create("billing", "t-1", &card("4242424242424242", "")).await.id();
    let forward = async |key: &str| {
        let body = format!(r#"{{"token":"{token}"}}"#);
        vault.ask("billing", Method::POST, "/v1/forwards").key(key).json(&body).send().await
    };
    let all = || {
        let take = || vault.app.forwards.room.take(ANSWER_BYTES_MAX);
        std::iter::repeat_with(take).map_while(|room| room).collect::<Vec<_>>()
    };
    let mut taken = all();
    let many = taken.len();
    let refused = forward("f-1").await;
    assert_eq!(refused.code(), (503, "busy"));
    assert_eq!((&refused.body["retryable"], &refused.body["outbound"]), (&true.into(), &"not_sent".into()));
    assert!(refused.head.contains_key("retry-after"));
    assert!(vault.actions().await.iter().all(|action| !action.starts_with("forward.")));
    // The same request, under the same key.
    taken.pop();
    let sent = forward("f-1").await;
    assert_eq!((sent.status, &sent.body["status"]), (201, &"answered".into()), "{}", sent.text);
    drop(taken);
    // Its own room is free again once the keeper has heard that it is recorded.
    for _ in 0..200 {
        if all().len() == many {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("its room was not given back");
}
