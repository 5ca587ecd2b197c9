//! Lists of charges in every form: whole, in order, nothing twice, however many pages of the store they take.

use std::collections::HashSet;

use super::Vault;
use crate::card::id::{AttemptId, ChargeId, RefundId, Token};
use crate::card::tenant::TenantId;
use crate::clock::Clock;
use crate::edge::charge::tests;
use crate::edge::store::{Change, ChargeRow, ChargeStatus, Operation, OperationKind, RowChange};

/// More than three pages of an export.
const CHARGES: usize = 11;

/// Charges with one or two refunds each, except the first and the last; those of another tenant between them.
async fn fill(vault: &Vault) -> Vec<ChargeRow> {
    let now = vault.clock.now();
    let mut charges = Vec::new();
    for number in 0..CHARGES * 2 {
        let mut charge = tests::charge(OperationKind::Sale, false);
        charge.id = ChargeId::make(now).unwrap();
        charge.token = Token::make(now).unwrap();
        charge.tenant = TenantId(if number % 2 == 0 { 1 } else { 2 });
        charge.invoice = format!("inv-{number}");
        charge.status = ChargeStatus::Approved;
        let sale = charge.operations[0].clone();
        let refunds = if (2..CHARGES * 2 - 2).contains(&number) { 1 + number % 4 / 2 } else { 0 };
        charge.operations = std::iter::once(OperationKind::Sale)
            .chain(std::iter::repeat_n(OperationKind::Refund, refunds))
            .map(|kind| {
                let mut operation = Operation { kind, ..sale.clone() };
                operation.id = RefundId::make(now).unwrap().to_string();
                operation.attempts[0].id = AttemptId::make(now).unwrap();
                operation.attempts[0].state = crate::edge::store::AttemptState::Approved;
                operation
            })
            .collect();
        let rows = vec![RowChange::PutCharge(Box::new(charge.clone()))];
        vault.app.store.commit(Change { rows, ..Change::default() }).await.unwrap();
        charges.push(charge);
    }
    charges.retain(|charge| charge.tenant == TenantId(1));
    charges.sort_by_key(|charge| std::cmp::Reverse(charge.id));
    charges
}

#[tokio::test]
async fn an_export_holds_every_charge_once_and_in_order() {
    let vault = Vault::start().await;
    let charges = fill(&vault).await;
    let ids: Vec<String> = charges.iter().map(|charge| charge.id.to_string()).collect();
    for who in ["billing", "person"] {
        let csv = vault.get(who, "/v1/charges?format=csv").await;
        assert_eq!((csv.status, csv.head["vault-has-more"].as_bytes()), (200, b"false".as_slice()));
        let mut lines = csv.text.split_terminator("\r\n");
        assert!(lines.next().unwrap().starts_with("id,status,"));
        let found: Vec<&str> = lines.map(|line| line.split(',').next().unwrap()).collect();
        assert_eq!(found, ids);
        let ndjson = vault.get(who, "/v1/charges?format=ndjson").await;
        assert_eq!(ids_of(&ndjson.text), ids);
    }
    let after = vault.get("billing", &format!("/v1/charges?format=ndjson&starting_after={}", ids[4])).await;
    assert_eq!(ids_of(&after.text), ids[5..]);
    let some = vault.get("billing", "/v1/charges?format=ndjson&limit=7").await;
    assert_eq!(
        (ids_of(&some.text), some.head["vault-has-more"].as_bytes()),
        (ids[..7].to_vec(), b"true".as_slice())
    );
    let none = vault.get("billing", "/v1/charges?format=ndjson&customer=nobody").await;
    assert_eq!((none.status, none.text.as_str()), (200, ""));
    let page = vault.get("billing", "/v1/charges?limit=4").await;
    assert_eq!(page.body["data"].as_array().unwrap().len(), 4);
    // A person's look at each page is in the log.
    let looks = vault.actions().await.iter().filter(|action| *action == "charge.list").count();
    assert!(looks >= 2 * CHARGES.div_ceil(3), "{looks}");
}

#[tokio::test]
async fn an_export_holds_every_refund_once() {
    let vault = Vault::start().await;
    let charges = fill(&vault).await;
    let refunds = charges.iter().flat_map(|charge| charge.operations[1..].iter().rev());
    let expected: Vec<String> = refunds.map(|refund| refund.id.clone()).collect();
    let all = vault.get("billing", "/v1/refunds?format=ndjson").await;
    assert_eq!(ids_of(&all.text), expected);
    let csv = vault.get("billing", "/v1/refunds?format=csv").await;
    assert_eq!(csv.text.lines().count(), 1 + expected.len());
    assert_eq!(expected.iter().collect::<HashSet<_>>().len(), expected.len());
}

/// What is asked of a refund is not asked of its charge, which may be older and stand elsewhere.
#[tokio::test]
async fn refunds_are_found_by_what_is_theirs() {
    let vault = Vault::start().await;
    let mut charge = fill(&vault).await.remove(4);
    charge.revision += 1;
    let late = charge.created_at.plus_seconds(86_400);
    let sale = charge.operations[0].clone();
    charge.operations[0].attempts[0].transaction_id = Some("pay-1".to_owned());
    charge.operations.truncate(1);
    for (id, status, created_at) in
        [("one", ChargeStatus::Approved, charge.created_at), ("two", ChargeStatus::Declined, late)]
    {
        let mut refund = Operation { kind: OperationKind::Refund, status, created_at, ..sale.clone() };
        refund.id = RefundId::make(created_at).unwrap().to_string();
        refund.attempts[0].id = AttemptId::make(created_at).unwrap();
        refund.attempts[0].transaction_id = Some(format!("back-{id}"));
        charge.operations.push(refund);
    }
    let [one, two] = [1, 2].map(|at| charge.operations[at].id.clone());
    let rows = vec![RowChange::PutCharge(Box::new(charge.clone()))];
    vault.app.store.commit(Change { rows, ..Change::default() }).await.unwrap();
    let found = async |query: &str| {
        let query = format!("/v1/refunds?invoice={}&{query}", charge.invoice);
        let got = vault.get("billing", &query).await;
        assert_eq!(got.status, 200, "{}", got.text);
        let data = got.body["data"].as_array().unwrap();
        data.iter().map(|refund| refund["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("status=approved").await, [one.as_str()]);
    assert_eq!(found("status=declined").await, [two.as_str()]);
    assert_eq!(found(&format!("created%5Bgte%5D={late}")).await, [two.as_str()]);
    assert_eq!(found(&format!("created%5Blt%5D={late}")).await, [one.as_str()]);
    assert_eq!(found("processor_transaction_id=back-one").await, [one.as_str()]);
    assert_eq!(found("processor_transaction_id=pay-1").await, [two.as_str(), one.as_str()]);
    assert_eq!(found("processor_transaction_id=pay-2").await, Vec::<String>::new());
    assert_eq!(found("destination=elsewhere").await, Vec::<String>::new());
}

fn ids_of(ndjson: &str) -> Vec<String> {
    let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    ndjson.lines().map(|text| line(text)["id"].as_str().unwrap().to_owned()).collect()
}
