//! The operator's table of issuer ranges: what a card's answer says by it, and what becomes of one that is wrong.

use cardvault::card::tenant::Mode;
use cardvault::supervisor::admin::AdminRequest;
use cardvault::tools::client::{Client, Payload};
use cardvault::wire::control::AdminAnswer;
use serde_json::{Value, json};

use crate::common::{Vault, card, store};

const HEADER: &str = "range_start,range_end,brand,funding,country";
const VISA: &str = "4242424242424242";

async fn read(client: &Client, token: &Value) -> Value {
    client.get(&format!("/v1/tokens/{}", token.as_str().unwrap())).await.unwrap().json()["card"].clone()
}

#[tokio::test]
async fn a_card_says_what_its_range_says() {
    let mut vault = Vault::make(|config| format!("{config}\n[ranges]\nfile = \"ranges.csv\"\n"));
    let file = vault.path("ranges.csv");
    let write = |lines: &str| std::fs::write(&file, format!("{HEADER}\n{lines}")).unwrap();
    write("42424242,42424242,visa,prepaid,US\n55555555,55555555,maestro,,DE\n");
    vault.serve();
    vault.tenant("acme", Mode::Test);
    let client = vault.application("billing", "acme", &["tokens:create", "tokens:read", "tokens:update"]);
    let known = store(&client, "k-1", &card(VISA, "c-1")).await;
    assert_eq!((&known["card"]["funding"], &known["card"]["country"]), (&"prepaid".into(), &"US".into()));
    assert_eq!(known["card"]["first6"], "424242");
    let half = store(&client, "k-2", &card("5555555555554444", "c-1")).await;
    assert_eq!((&half["card"]["brand"], &half["card"]["country"]), (&"maestro".into(), &"DE".into()));
    assert!(half["card"].get("funding").is_none());
    let unknown = store(&client, "k-3", &card("378282246310005", "c-1")).await;
    assert!(unknown["card"].get("funding").is_none() && unknown["card"].get("country").is_none());
    // It is kept with the card, and a new number brings what is said of that.
    assert_eq!(read(&client, &known["id"]).await, known["card"]);
    let change = json!({"card": {"number": "5555555555554444"}});
    let path = format!("/v1/tokens/{}", known["id"].as_str().unwrap());
    let changed = client.request("PATCH", &path, &[], Payload::Json(&change)).await.unwrap().json();
    assert_eq!((&changed["card"]["brand"], &changed["card"]["country"]), (&"maestro".into(), &"DE".into()));
    assert!(changed["card"].get("funding").is_none());
    // A table that is wrong is refused as a whole, and the one before goes on.
    write("42424242,42424242,visa,credit,FR\n42424242,canary,,,\n");
    let refused = vault.ask(AdminRequest::Reload);
    let says = |why: &str| why.contains("line 3: range_end is not eight digits") && !why.contains("canary");
    assert!(matches!(&refused, AdminAnswer::Refused(why) if says(why)), "{refused:?}");
    let again = store(&client, "k-4", &card(VISA, "c-1")).await;
    assert_eq!(again["card"]["funding"], "prepaid");
    // Another is used from the reload on, and cards that are stored keep what was said.
    write("42424242,42424242,visa,credit,FR\n");
    assert!(matches!(vault.ask(AdminRequest::Reload), AdminAnswer::Done(_)));
    let later = store(&client, "k-5", &card(VISA, "c-1")).await;
    assert_eq!((&later["card"]["funding"], &later["card"]["country"]), (&"credit".into(), &"FR".into()));
    assert_eq!(read(&client, &again["id"]).await["funding"], "prepaid");
    // A keeper that was started again has it too.
    vault.stop();
    vault.serve();
    let client = vault.application("billing-2", "acme", &["tokens:create"]);
    assert_eq!(store(&client, "k-6", &card(VISA, "c-1")).await["card"]["funding"], "credit");
    assert!(!vault.log().contains("canary"));
}
