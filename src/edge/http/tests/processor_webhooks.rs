//! What processors tell: who floods one destination's path holds up no other's.

use axum::http::Method;

use super::{Vault, destination};
use crate::wire::control::DestinationInfo;

/// Tries of what another request or a slow machine may come between.
const TRIES: usize = 50;

#[tokio::test]
async fn a_flood_at_one_destination_is_refused_and_leaves_the_others_their_own() {
    let vault = Vault::start().await;
    let takes = |name| DestinationInfo { takes_webhooks: true, ..destination(name) };
    vault.app.directory.set_destinations(vec![takes("adyen"), takes("checkout"), destination("stripe")]);
    let tell = async |name: &str| {
        let path = format!("/v1/webhooks/{name}");
        vault.ask("billing", Method::POST, &path).json("{}").send().await
    };
    let flood = || while vault.app.processor_webhooks.check_key(&"adyen".to_owned()).is_ok() {};
    let mut refused = 0;
    for _ in 0..TRIES {
        flood();
        let got = tell("adyen").await;
        refused += usize::from(got.code() == (429, "rate_limited"));
        flood();
        // Nothing is recovered yet in this edge.
        assert_eq!(tell("checkout").await.code(), (503, "not_ready"));
        flood();
        for nobody in ["stripe", "nobody"] {
            assert_eq!(tell(nobody).await.status, 404);
        }
    }
    assert!(refused > 0);
}
