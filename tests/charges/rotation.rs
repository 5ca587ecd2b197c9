//! Two credentials at once, while they are rotated at the processor.

use cardvault::supervisor::admin::AdminRequest;
use cardvault::wire::control::AdminAnswer;
use serde_json::json;

use crate::common::{Vault, count_of, events};
use crate::desk::{Desk, VISA, sale, word};

const NOW: &str = "credentials.secret_key = \"credentials/sandbox_secret_key\"";
const OLD: &str = "sk_test_that_was_revoked";

#[tokio::test]
async fn the_next_credentials_take_over_once_the_old_ones_are_refused() {
    let mut vault = Vault::make(|config| {
        let two = "credentials.secret_key = \"credentials/old\"\n\
                   next_credentials.secret_key = \"credentials/sandbox_secret_key\"";
        config.replace(NOW, two)
    });
    std::fs::write(vault.path("credentials/old"), OLD).unwrap();
    vault.serve();
    let desk = Desk::at(vault);
    let assessor = desk.vault.assessor();
    let token = desk.token("t-1", VISA).await;
    // What was refused was certainly not processed: it failed, and is not sent again.
    let refused = desk.charge("k-1", &sale(&token, "inv-1")).await.json();
    assert_eq!(word(&refused, "status"), "failed", "{refused}");
    assert_eq!(refused["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(refused["attempts"][0]["tries"], 1);
    // The caller's next try goes out with the others, and so does all that follows.
    let paid = desk.charge("k-2", &sale(&token, "inv-1")).await.json();
    assert_eq!(word(&paid, "status"), "approved", "{paid}");
    let refund = desk.post(&format!("/v1/charges/{}/refunds", word(&paid, "id")), "k-3", &json!({})).await;
    assert_eq!(refund.status, 201);
    assert_eq!(desk.paid("inv-1").len(), 1);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let all = events(&assessor).await;
    assert_eq!(count_of(&all, "credentials.refused"), 1);
    let event = all.iter().find(|event| event["action"] == "credentials.refused").unwrap();
    assert_eq!(event["target"], json!({"id": "sandbox", "kind": "destination"}));
    let figure = "cardvault_credentials_refused_total{destination=\"sandbox\"} 1";
    assert!(desk.vault.plain("/metrics").contains(figure));
    assert!(desk.vault.log().contains("credentials_refused") && !desk.vault.log().contains(OLD));
    // Read again as they are, they stay so: no charge is lost to each reload.
    assert!(matches!(desk.vault.ask(AdminRequest::Reload), AdminAnswer::Done(_)));
    let again = desk.charge("k-4", &sale(&token, "inv-2")).await.json();
    assert_eq!(word(&again, "status"), "approved", "{again}");
}
