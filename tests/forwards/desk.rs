//! A vault with a forward destination, and a client that may use it.

use cardvault::card::tenant::Mode;
use cardvault::tools::client::{Answer, Client, Payload};
use serde_json::{Value, json};

use crate::common::{Vault, card, order, store};
use crate::upstream::Upstream;

pub(crate) const VISA: &str = "4242424242424242";
pub(crate) const MASTERCARD: &str = "5555555555554444";
pub(crate) const SCOPES: [&str; 6] =
    ["tokens:create", "tokens:read", "tokens:update", "tokens:erase", "charges:create", "forwards:create"];

/// What the destination declares.
const TAKES: &str = r#"
[forward.shop]
endpoint = "https://ADDRESS/base"
mode = "test"
trust = "tls/ca.pem"
[forward.shop.takes]
methods = ["POST", "GET", "PUT"]
paths = ["/v1/*", "/v1/customers/*/cards"]
query = ["expand"]
bodies = ["json", "form", "xml"]
headers = ["idempotency-key", "x-note"]
card_headers = ["x-card"]
leaves = ["amount", "note", "tags.*", "metadata.**", "order.@id", "order.note", "merchant", "order.merchant.key"]
card_leaves = ["card.**", "order.card.*", "order.card.@year"]
numbers = ["card.year_number"]
answer_headers = ["request-id"]
exempt = ["id"]
timeout_s = 10
[forward.shop.credentials.authorization]
header = "authorization"
prefix = "Bearer "
file = "credentials/shop"
[forward.shop.credentials.key]
leaf = "merchant.key"
file = "credentials/shop_key"
[forward.ledger]
endpoint = "https://ADDRESS/base"
mode = "test"
trust = "tls/ca.pem"
policies = [7]
[forward.ledger.takes]
methods = ["POST"]
paths = ["/v1/*"]
card_leaves = ["card.**"]
[forward.bulk]
endpoint = "https://ADDRESS/base"
mode = "test"
trust = "tls/ca.pem"
[forward.bulk.takes]
methods = ["POST"]
paths = ["/v1/*"]
card_leaves = ["card.**"]
answer_bytes_max = 262144
[forward.xml]
endpoint = "https://ADDRESS/base"
mode = "test"
trust = "tls/ca.pem"
[forward.xml.takes]
methods = ["POST"]
paths = ["/v1/*"]
bodies = ["xml"]
content_type = "text/xml; charset=utf-8"
leaves = ["order.@id", "order.note"]
card_leaves = ["order.card.*", "order.card.@year"]
[forward.xml.credentials.key]
leaf = "order.merchant.key"
file = "credentials/shop_key"
"#;

pub(crate) const CREDENTIAL: &str = "sk_shop_canary_1";
pub(crate) const KEY: &str = "key_canary_22";

pub(crate) struct Desk {
    pub(crate) vault: Vault,
    pub(crate) upstream: Upstream,
    pub(crate) client: Client,
    credential: String,
}

impl Desk {
    pub(crate) fn open() -> Self {
        let mut vault = Vault::make(|config| config);
        let upstream = Upstream::start(&vault.path("tls"));
        let config = std::fs::read_to_string(vault.config()).unwrap();
        let takes = TAKES.replace("ADDRESS", &upstream.address.to_string());
        std::fs::write(vault.config(), config + &takes).unwrap();
        for (name, secret) in [("shop", CREDENTIAL), ("shop_key", KEY)] {
            std::fs::write(vault.path("credentials").join(name), format!("{secret}\n")).unwrap();
        }
        vault.serve();
        vault.tenant("acme", Mode::Test);
        let credential = vault.principal(order("shop", Some("acme"), &SCOPES));
        let client = vault.client(&credential);
        Self { vault, upstream, client, credential }
    }

    /// The same client, after the vault was served anew.
    pub(crate) fn reconnect(&mut self) {
        self.client = self.vault.client(&self.credential);
    }

    /// A card with a zip.
    pub(crate) async fn token(&self, key: &str, number: &str) -> String {
        let mut body = card(number, "c-1");
        body["card"]["exp_month"] = 3.into();
        body["billing"] = json!({"zip": "90210"});
        store(&self.client, key, &body).await["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn forward(&self, key: &str, body: &Value) -> Answer {
        self.client.post("/v1/forwards", key, body).await.unwrap()
    }

    pub(crate) async fn forward_prefer(&self, key: &str, prefer: &str, body: &Value) -> Answer {
        let headers = [("idempotency-key", key), ("prefer", prefer)];
        self.client.request("POST", "/v1/forwards", &headers, Payload::Json(body)).await.unwrap()
    }

    pub(crate) async fn read(&self, id: &str) -> Answer {
        self.client.get(&format!("/v1/forwards/{id}")).await.unwrap()
    }
}

/// A request that fits the destination.
pub(crate) fn request(token: &str) -> Value {
    json!({
        "token": token, "destination": "shop", "method": "POST", "path": "/v1/cards", "query": [["expand", "a&b"]],
        "headers": {"Idempotency-Key": "mine-1", "x-card": "{{ card.exp_month }}"},
        "body": {
            "amount": 1250, "note": "2.50 \"quoted\" & more", "tags": [1.10, true, null, "x"],
            "card": {
                "number": "{{ card.number }}", "exp": "{{ card.exp_month | m }}/{{ card.exp_year | yy }}",
                "year_number": "{{ card.exp_year }}", "month": "{{ card.exp_month | number }}",
                "zip": "{{billing.zip}}",
            },
        },
    })
}

pub(crate) fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Status and code of a problem.
pub(crate) fn refusal(answer: &Answer) -> (u16, String) {
    (answer.status, word(&answer.json(), "code").to_owned())
}
