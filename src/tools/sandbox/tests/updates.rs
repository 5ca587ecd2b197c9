//! The account updater's word: in the answer to a merchant's charge without a verification code, and in no other.

use super::family::adyen_sale;
use super::*;

fn by_merchant(reference: &str, number: &str) -> Value {
    let mut body = sale(reference, number, 100);
    body["stored_credential"] = json!({ "use": "subsequent", "initiator": "merchant", "reason": "recurring", "network_transaction_id": "1" });
    body
}

#[test]
fn a_merchants_charge_learns_what_the_card_has_become() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let post = |key: &str, body: &Value| sandbox.post("/v1/payments", key, body).unwrap();
    let new = number(0, 3, Behaviour::Approve);
    let expiry = json!("2033-12");
    for (behaviour, status, update) in [
        (Behaviour::CardChanged, 200, json!({ "result": "A", "number": new, "expiry": expiry })),
        (Behaviour::CardChangedDeclined, 402, json!({ "result": "A", "number": new, "expiry": expiry })),
        (Behaviour::ExpiryChanged, 200, json!({ "result": "E", "expiry": expiry })),
        (Behaviour::AccountClosed, 402, json!({ "result": "C" })),
        (Behaviour::ContactCardholder, 402, json!({ "result": "Q" })),
    ] {
        let (key, old) = (format!("{behaviour:?}"), number(0, 3, behaviour));
        let body = by_merchant(&key, &old);
        let got = post(&key, &body);
        assert_eq!((got.status, &got.json["card_update"]), (status, &update), "{behaviour:?}");
        // The same again says the same again.
        assert_eq!(post(&key, &body).json["card_update"], update, "{behaviour:?}");
        // With the customer there, with a code, and in a look-up nobody says a word.
        let present = post(&format!("{key}-c"), &sale(&format!("{key}-c"), &old, 100));
        let mut coded = by_merchant(&format!("{key}-v"), &old);
        coded["card"]["cvc"] = "123".into();
        for got in [present, post(&format!("{key}-v"), &coded)] {
            assert_eq!((got.status, got.json.get("card_update")), (200, None), "{behaviour:?}");
        }
        let found = sandbox.get(&format!("/v1/payments?reference={key}"));
        assert!(found.json["data"][0]["id"].is_string() && !found.text.contains("card_update"));
    }
    assert!(!std::fs::read_to_string(&path).unwrap().contains(&new), "the ledger holds no number");
}

#[test]
fn adyen_says_so_to_who_charges_a_card_on_file_and_keeps_the_number() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    for (behaviour, result, status, year) in [
        (Behaviour::CardChanged, "Authorised", "CardChanged", "12/2033"),
        (Behaviour::CardChangedDeclined, "Refused", "CardChanged", "12/2033"),
        (Behaviour::ExpiryChanged, "Authorised", "CardExpiryChanged", "12/2033"),
        (Behaviour::AccountClosed, "Refused", "CloseAccount", "12/2030"),
        (Behaviour::ContactCardholder, "Refused", "ContactCardAccountHolder", "12/2030"),
    ] {
        let key = format!("{behaviour:?}");
        let mut body = adyen_sale(&key, &number(0, 3, behaviour));
        let got = sandbox.post("/v71/payments", &key, &body).unwrap();
        let data = &got.json["additionalData"];
        assert_eq!((&got.json["resultCode"], &data["expiryDate"]), (&result.into(), &year.into()), "{key}");
        assert_eq!(data["realtimeAccountUpdaterStatus"], status, "{key}");
        assert!(!got.text.contains(&number(0, 3, Behaviour::Approve)), "{key}");
        body["shopperInteraction"] = "Ecommerce".into();
        body["reference"] = format!("{key}-e").into();
        let present = sandbox.post("/v71/payments", &format!("{key}-e"), &body).unwrap();
        assert_eq!(present.json["resultCode"], "Authorised", "{key}");
        assert!(present.json["additionalData"].get("realtimeAccountUpdaterStatus").is_none(), "{key}");
    }
}
