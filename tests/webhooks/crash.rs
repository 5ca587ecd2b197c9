//! Processes that are killed in the middle: nothing is lost, and what comes twice has the same id and the same bytes.

use std::collections::BTreeMap;

use crate::common::wait_for;
use crate::desk::{Desk, VISA, word};
use crate::receiver::Behaviour;

/// Charges of each round.
const CHARGES: usize = 12;

#[tokio::test]
async fn whatever_is_killed_each_event_arrives_with_one_id() {
    let mut desk = Desk::open("[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]", "");
    let (_, secret) = desk.endpoint("/hook", &["charge.approved"]).await;
    let token = desk.token("t", VISA).await;
    let mut charged = Vec::new();
    for (round, role) in ["courier", "edge", "keeper", "supervisor", "line"].into_iter().enumerate() {
        // Nothing is taken until all of them wait or are on their way.
        desk.receiver.behave("/hook", if round % 2 == 0 { Behaviour::Close } else { Behaviour::Answer(500) });
        for n in 0..CHARGES {
            charged.push(word(&desk.charge(&token, &format!("inv-{round}-{n}")).await, "id").to_owned());
        }
        if role == "line" {
            // Nobody dies, and what is on its way is answered to nobody.
            desk.receiver.behave("/hook", Behaviour::Hang);
            let before = (desk.vault.processes(), desk.receiver.at("/hook").len());
            desk.arrived("/hook", |all| all.len() > before.1).await;
            if desk.vault.break_line_of("courier") {
                wait_for("a fresh line", || {
                    desk.vault.log().contains("edge and courier ended and is made again").then_some(())
                });
            }
            assert_eq!(desk.vault.processes(), before.0);
        } else if role == "supervisor" {
            desk.vault.kill();
            desk.vault.serve();
            desk.reconnect();
        } else {
            desk.vault.kill_role(role);
            desk.reconnect();
        }
        desk.receiver.behave("/hook", Behaviour::Answer(200));
    }
    let is_all = |all: &[crate::receiver::Arrived]| {
        charged.iter().all(|id| all.iter().any(|one| one.body()["object"]["id"] == id.as_str()))
    };
    let all = desk.arrived("/hook", is_all).await;
    let mut by_charge: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for one in &all {
        assert_eq!(one.signed_with(&secret), 1);
        let charge = word(&one.body()["object"], "id").to_owned();
        by_charge.entry(charge).or_default().push((one.id().to_owned(), one.text.clone()));
    }
    assert_eq!(by_charge.len(), charged.len());
    for told in by_charge.values() {
        assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "another id or body: {told:?}");
    }
    desk.vault.stop();
    let (code, said) = desk.vault.verify();
    assert_eq!(code, 0, "{said}");
}
