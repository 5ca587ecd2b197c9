//! What the connectors of JSON interfaces send and look for: Adyen, Checkout.com, CyberSource, Braintree.

use serde_json::{Value, json};

use super::super::{
    Amount, Card, EndpointParts, IdempotencyKind, Initiator, Operation, Outcome, Part, Previous, Reason,
    RenderError, Rendered, SendMoment, StoredCredential, ThreeDSecure, Use, Values, builtin,
};
use super::{NUMBER, merchant, sale};

fn body(rendered: &Rendered) -> Value {
    serde_json::from_slice(&rendered.body).unwrap()
}

fn sent(name: &str, operation: Operation, values: &Values<'_>) -> Value {
    body(&builtin(name).unwrap().render(operation, values).unwrap())
}

fn header<'r>(rendered: &'r Rendered, name: &str) -> Option<&'r str> {
    rendered.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// The charge that makes an agreement.
fn customer<'v>(reason: Reason) -> Values<'v> {
    let stored = StoredCredential {
        usage: Use::Initial,
        initiator: Initiator::Customer,
        reason,
        ntid: None,
        original_amount: None,
        ..merchant().stored_credential.unwrap()
    };
    Values { stored_credential: Some(stored), ..sale() }
}

fn with_reason<'v>(values: Values<'v>, reason: Reason) -> Values<'v> {
    Values {
        stored_credential: values.stored_credential.map(|stored| StoredCredential { reason, ..stored }),
        ..values
    }
}

fn after<'v>(transaction: &'v str) -> Values<'v> {
    let previous = Previous {
        transaction: Some(transaction),
        amount: Some(2020),
        ntid: Some("0123"),
        ..Previous::default()
    };
    Values { previous, card: None, ..sale() }
}

fn with_mark<'v>(values: Values<'v>) -> Values<'v> {
    Values { moment: SendMoment { mark: "m0123456789abcdef", ..SendMoment::default() }, ..values }
}

#[test]
fn adyen_sales() {
    let adyen = builtin("adyen").unwrap();
    let rendered = adyen.render(Operation::Sale, &sale()).unwrap();
    assert_eq!(
        (rendered.method, rendered.path_and_query.as_str()),
        ("POST", "/pal/servlet/Payment/v68/authorise")
    );
    assert_eq!(header(&rendered, "Authorization"), Some("Basic dXNlcjpjYW5hcnk="));
    assert_eq!(header(&rendered, "Idempotency-Key"), Some("att_test"));
    assert_eq!(
        body(&rendered),
        json!({
            "merchantAccount": "MerchantAccount",
            "reference": "att_test",
            "amount": { "value": 2020, "currency": "USD" },
            "card": { "expiryMonth": 3, "expiryYear": 2030, "holderName": "Not Provided", "number": NUMBER },
            "billingAddress": { "street": "NA", "houseNumberOrName": "NA", "postalCode": "94107", "city": "NA",
                "stateOrProvince": "NA", "country": "ZZ" },
            "captureDelayHours": 0,
            "shopperInteraction": "Ecommerce",
        })
    );
    let held = sent("adyen", Operation::Authorize, &sale());
    assert_eq!(
        (&held["additionalData"]["manualCapture"], held.get("captureDelayHours")),
        (&json!("true"), None)
    );
    let checked = sent("adyen", Operation::Verify, &sale());
    assert_eq!((&checked["amount"]["value"], checked.get("captureDelayHours")), (&json!(0), None));
}

#[test]
fn adyen_agreements() {
    let kind = |values: &Values<'_>| {
        let sent = sent("adyen", Operation::Sale, values);
        let word = |name: &str| sent[name].as_str().unwrap_or_default().to_owned();
        let ntid = sent["additionalData"]["networkTxReference"].as_str().map(str::to_owned);
        (word("shopperInteraction"), word("recurringProcessingModel"), ntid)
    };
    let of = |interaction: &str, model: &str, ntid: Option<&str>| {
        (interaction.to_owned(), model.to_owned(), ntid.map(str::to_owned))
    };
    let ntid = Some("1098510912210968");
    assert_eq!(kind(&customer(Reason::Recurring)), of("Ecommerce", "Subscription", None));
    assert_eq!(kind(&customer(Reason::Unscheduled)), of("Ecommerce", "CardOnFile", None));
    assert_eq!(kind(&merchant()), of("ContAuth", "Subscription", ntid));
    assert_eq!(kind(&with_reason(merchant(), Reason::Installment)), of("ContAuth", "Subscription", ntid));
    assert_eq!(
        kind(&with_reason(merchant(), Reason::Unscheduled)),
        of("ContAuth", "UnscheduledCardOnFile", ntid)
    );
    let by_hand = with_reason(merchant(), Reason::Unscheduled).stored_credential.unwrap();
    let by_hand = StoredCredential { initiator: Initiator::Customer, ..by_hand };
    assert_eq!(
        kind(&Values { stored_credential: Some(by_hand), ..sale() }),
        of("ContAuth", "CardOnFile", ntid)
    );
}

#[test]
fn what_follows_at_adyen() {
    let values = after("853623109930081E");
    let common = |more: Value| {
        let mut all = json!({ "merchantAccount": "MerchantAccount", "reference": "att_test",
            "originalReference": "853623109930081E" });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let amount = json!({ "value": 2020, "currency": "USD" });
    assert_eq!(
        sent("adyen", Operation::Capture, &values),
        common(json!({ "modificationAmount": amount, "additionalData": { "networkTxReference": "0123" } }))
    );
    assert_eq!(sent("adyen", Operation::Refund, &values), common(json!({ "modificationAmount": amount })));
    assert_eq!(sent("adyen", Operation::Void, &values), common(json!({})));
    let adyen = builtin("adyen").unwrap();
    assert!(adyen.captures_once() && adyen.lookup_for(Operation::Sale).is_none());
    assert_eq!(adyen.undo_for(Operation::Sale), Some(Operation::Refund));
    assert_eq!(adyen.undo_for(Operation::Authorize), Some(Operation::Void));
}

#[test]
fn a_checkout_sale() {
    let checkout = builtin("checkout").unwrap();
    let rendered = checkout.render(Operation::Sale, &sale()).unwrap();
    assert_eq!((rendered.method, rendered.path_and_query.as_str()), ("POST", "/payments"));
    assert_eq!(header(&rendered, "Authorization"), Some("Bearer sk_test_canary"));
    assert_eq!(header(&rendered, "Cko-Idempotency-Key"), Some("att_test"));
    let source = json!({ "type": "card", "number": NUMBER, "expiry_month": "03", "expiry_year": "2030",
        "billing_address": { "zip": "94107" } });
    assert_eq!(
        body(&rendered),
        json!({ "amount": 2020, "currency": "USD", "reference": "att_test", "source": source })
    );
    assert_eq!(sent("checkout", Operation::Authorize, &sale())["capture"], json!(false));
    assert_eq!(sent("checkout", Operation::Verify, &sale())["amount"], json!(0));
    assert_eq!(checkout.idempotency().kind, IdempotencyKind::SuccessOnly);
}

#[test]
fn checkout_agreements() {
    let first = sent("checkout", Operation::Sale, &customer(Reason::Unscheduled));
    assert_eq!(
        (&first["payment_type"], &first["merchant_initiated"]),
        (&json!("Unscheduled"), &json!(false))
    );
    assert!(first["source"].get("stored").is_none() && first.get("previous_payment_id").is_none());
    let later = sent("checkout", Operation::Sale, &merchant());
    assert_eq!((&later["payment_type"], &later["merchant_initiated"]), (&json!("Recurring"), &json!(true)));
    assert_eq!(later["source"]["stored"], json!(true));
    assert_eq!(later["previous_payment_id"], json!("1098510912210968"));
    // Their own payment, where it is known.
    let stored = StoredCredential { previous: Some("pay_1"), ..merchant().stored_credential.unwrap() };
    let later = sent("checkout", Operation::Sale, &Values { stored_credential: Some(stored), ..sale() });
    assert_eq!(later["previous_payment_id"], json!("pay_1"));
    let stored = StoredCredential { initiator: Initiator::Customer, ..stored };
    let by_hand = sent("checkout", Operation::Sale, &Values { stored_credential: Some(stored), ..sale() });
    assert_eq!(
        (&by_hand["payment_type"], &by_hand["merchant_initiated"]),
        (&json!("Regular"), &json!(false))
    );
}

#[test]
fn what_follows_at_checkout() {
    let checkout = builtin("checkout").unwrap();
    let values = Values { capture_final: true, ..after("pay_1") };
    let capture = checkout.render(Operation::Capture, &values).unwrap();
    assert_eq!(capture.path_and_query, "/payments/pay_1/captures");
    assert_eq!(body(&capture), json!({ "amount": 2020, "reference": "att_test", "capture_type": "Final" }));
    let refund = checkout.render(Operation::Refund, &values).unwrap();
    assert_eq!(refund.path_and_query, "/payments/pay_1/refunds");
    assert_eq!(body(&refund), json!({ "amount": 2020, "currency": "USD", "reference": "att_test" }));
    let void = checkout.render(Operation::Void, &values).unwrap();
    assert_eq!(
        (void.path_and_query.as_str(), body(&void)),
        ("/payments/pay_1/voids", json!({ "reference": "att_test" }))
    );
    let look_up = |operation| checkout.render(operation, &values).unwrap().path_and_query;
    assert_eq!(look_up(Operation::Lookup), "/payments?limit=10&skip=0&reference=att_test");
    assert_eq!(look_up(Operation::LookupRefund), "/payments/pay_1/actions");
}

/// A list that is the whole answer.
#[test]
fn an_action_is_found_by_its_reference() {
    let checkout = builtin("checkout").unwrap();
    let actions = json!([
        { "id": "act_1", "type": "Authorization", "reference": "att_0", "approved": true, "response_code": "10000" },
        { "id": "act_2", "type": "Refund", "reference": "att_1", "approved": false, "response_code": "20091" },
    ]);
    let found = |answer: &Value, attempt: &str| {
        let answer = answer.to_string();
        let mapped = checkout.map_attempt(Operation::LookupRefund, 200, answer.as_bytes(), &[attempt, "ref"]);
        (mapped.outcome, mapped.unknown, mapped.transaction_id)
    };
    assert_eq!(found(&actions, "att_1"), (Outcome::Declined, false, Some("act_2".to_owned())));
    assert_eq!(found(&actions, "att_2"), (Outcome::NotFound, false, None));
    assert_eq!(found(&json!([]), "att_2"), (Outcome::NotFound, false, None));
    assert_eq!(found(&json!({ "data": [] }), "att_2"), (Outcome::Error, true, None));
}

fn signed<'v>(values: Values<'v>) -> Values<'v> {
    Values {
        moment: SendMoment { unix_ms: 1_767_323_045_000, ..SendMoment::default() },
        endpoint: EndpointParts { host: "apitest.cybersource.com", prefix: "" },
        ..values
    }
}

#[test]
fn a_cybersource_sale_is_signed() {
    let cybersource = builtin("cybersource").unwrap();
    let rendered = cybersource.render(Operation::Sale, &signed(sale())).unwrap();
    assert_eq!((rendered.method, rendered.path_and_query.as_str()), ("POST", "/pts/v2/payments"));
    assert_eq!(
        body(&rendered),
        json!({
            "clientReferenceInformation": { "code": "att_test" },
            "processingInformation": { "capture": true, "commerceIndicator": "internet" },
            "paymentInformation": { "card": { "number": NUMBER, "expirationMonth": "03", "expirationYear": "2030",
                "type": "001" } },
            "orderInformation": { "amountDetails": { "totalAmount": "20.20", "currency": "USD" },
                "billTo": { "postalCode": "94107" } },
        })
    );
    assert_eq!(header(&rendered, "v-c-merchant-id"), Some("m-1"));
    assert_eq!(header(&rendered, "Date"), Some("Fri, 02 Jan 2026 03:04:05 GMT"));
    let digest = ring::digest::digest(&ring::digest::SHA256, &rendered.body);
    let digest = format!("SHA-256={}", data_encoding::BASE64.encode(digest.as_ref()));
    assert_eq!(header(&rendered, "Digest"), Some(digest.as_str()));
    let message = format!(
        "host: apitest.cybersource.com\ndate: Fri, 02 Jan 2026 03:04:05 GMT\nrequest-target: post /pts/v2/payments\n\
         digest: {digest}\nv-c-merchant-id: m-1"
    );
    let key: Vec<u8> = (0_u8..32).collect();
    let mac = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key), message.as_bytes());
    let signature = format!(
        "keyid=\"k-1\", algorithm=\"HmacSHA256\", headers=\"host date request-target digest v-c-merchant-id\", \
         signature=\"{}\"",
        data_encoding::BASE64.encode(mac.as_ref())
    );
    assert_eq!(header(&rendered, "Signature"), Some(signature.as_str()));
    assert_eq!(cybersource.idempotency().kind, IdempotencyKind::None);
}

#[test]
fn cybersource_agreements() {
    let processing = |values: Values<'_>| {
        sent("cybersource", Operation::Authorize, &signed(values))["processingInformation"].clone()
    };
    let initiator = json!({ "type": "customer", "credentialStoredOnFile": true });
    assert_eq!(
        processing(customer(Reason::Recurring)),
        json!({ "commerceIndicator": "internet", "authorizationOptions": { "initiator": initiator } })
    );
    let initiator = json!({ "type": "merchant", "storedCredentialUsed": true,
        "merchantInitiatedTransaction": { "previousTransactionId": "1098510912210968" } });
    for (reason, indicator) in [
        (Reason::Recurring, "recurring"),
        (Reason::Installment, "install"),
        (Reason::Unscheduled, "internet"),
    ] {
        assert_eq!(
            processing(with_reason(merchant(), reason)),
            json!({ "commerceIndicator": indicator, "authorizationOptions": { "initiator": initiator } })
        );
    }
    // Discover asks for the first amount, and a brand that is not known for no type.
    let card = merchant().card.map(|card| Card { brand: Some("discover"), ..card });
    let options = processing(Values { card, ..merchant() })["authorizationOptions"]["initiator"].clone();
    assert_eq!(options["merchantInitiatedTransaction"]["originalAuthorizedAmount"], json!("20.20"));
    let card = sale().card.map(|card| Card { brand: Some("unknown"), ..card });
    let plain = sent("cybersource", Operation::Sale, &signed(Values { card, ..sale() }));
    assert!(plain["paymentInformation"]["card"].get("type").is_none());
    let three_d_secure =
        Some(ThreeDSecure { eci: Some("05"), cavv: Some("AAAB"), ..ThreeDSecure::default() });
    let known = sent("cybersource", Operation::Sale, &signed(Values { three_d_secure, ..sale() }));
    assert_eq!(known["processingInformation"]["commerceIndicator"], json!("vbs"));
    assert_eq!(known["consumerAuthenticationInformation"], json!({ "cavv": "AAAB" }));
}

#[test]
fn what_follows_at_cybersource() {
    let cybersource = builtin("cybersource").unwrap();
    let values = signed(after("6750124114786780104953"));
    let request = |operation| {
        let rendered = cybersource.render(operation, &values).unwrap();
        (rendered.path_and_query.clone(), body(&rendered))
    };
    let reference = json!({ "code": "att_test" });
    let amount = json!({ "totalAmount": "20.20", "currency": "USD" });
    let of_amount =
        json!({ "clientReferenceInformation": reference, "orderInformation": { "amountDetails": amount } });
    let path = |verb: &str| format!("/pts/v2/payments/6750124114786780104953/{verb}");
    assert_eq!(request(Operation::Capture), (path("captures"), of_amount.clone()));
    assert_eq!(request(Operation::Refund), (path("refunds"), of_amount));
    let reversal = json!({ "clientReferenceInformation": reference, "reversalInformation": { "amountDetails": amount } });
    assert_eq!(request(Operation::Void), (path("reversals"), reversal));
    let (path, search) = request(Operation::Lookup);
    assert_eq!(
        (path.as_str(), &search["query"]),
        ("/tss/v2/searches", &json!("clientReferenceInformation.code:att_test"))
    );
    assert_eq!(cybersource.lookup_for(Operation::Refund), Some(Operation::Lookup));
}

#[test]
fn a_braintree_sale_takes_two_requests() {
    let braintree = builtin("braintree").unwrap();
    let values = with_mark(sale());
    let rendered = braintree.render(Operation::Sale, &values).unwrap();
    let [(0, step)] = rendered.steps.as_slice() else { panic!("one step") };
    assert_eq!(header(step, "Authorization"), Some("Basic dXNlcjpjYW5hcnk="));
    let tokenize = body(step);
    assert!(
        tokenize["query"]
            .as_str()
            .unwrap()
            .starts_with("mutation ($input: TokenizeCreditCardInput!) { tokenize")
    );
    assert_eq!(
        tokenize["variables"]["input"],
        json!({ "creditCard": { "number": NUMBER, "expirationMonth": "03", "expirationYear": "2030",
            "billingAddress": { "postalCode": "94107" } } })
    );
    let answer = br#"{"data":{"tokenizeCreditCard":{"paymentMethod":{"id":"tokencc_1"}}}}"#;
    let token = braintree.read_step(0, 200, answer).unwrap();
    let placed = braintree.place_outputs(
        (Operation::Sale, None),
        Part::Body,
        &rendered.body,
        values.moment.mark,
        &[&token],
    );
    let charge: Value = serde_json::from_slice(&placed).unwrap();
    let query = charge["query"].as_str().unwrap();
    assert!(
        query.starts_with("mutation ($input: ChargeCreditCardInput!) { chargeCreditCard(input: $input) {")
    );
    assert_eq!(query.matches('{').count(), query.matches('}').count());
    assert_eq!(
        charge["variables"]["input"],
        json!({ "apiRequestKey": "att_test", "paymentMethodId": "tokencc_1",
            "transaction": { "amount": "20.20", "merchantAccountId": "merchant_usd", "orderId": "att_test" } })
    );
    // No card goes into the second request, and nothing was charged if there is none.
    assert!(!String::from_utf8_lossy(&rendered.body).contains(NUMBER));
    let refused = br#"{"data":{"tokenizeCreditCard":null},"errors":[{"message":"no","extensions":{"errorClass":"VALIDATION"}}]}"#;
    let Err(mapped) = braintree.read_step(0, 200, refused) else { panic!("a token") };
    assert_eq!((mapped.outcome, mapped.unknown), (Outcome::Error, false));
    assert_eq!(braintree.render(Operation::Verify, &values).err(), Some(RenderError::NoOperation("verify")));
    assert_eq!(braintree.smallest_amounts().find(|(code, _)| *code == "USD"), Some(("USD", 100)));
}

/// Mastercard's transaction link id as the processors tell it, and as the merchant's next charge brings it back where there is a field.
#[test]
fn the_transaction_link_id_comes_out_and_goes_in_unchanged() {
    const TLID: &str = "e7R9d3L2-Q9vS6pP1_WzEh";
    let answers = [
        (
            "adyen",
            json!({ "pspReference": "P1", "resultCode": "Authorised", "additionalData": { "transactionLinkId": TLID } }),
        ),
        (
            "stripe",
            json!({ "id": "pi_1", "object": "payment_intent", "status": "succeeded", "latest_charge": {
            "payment_method_details": { "card": { "transaction_link_id": TLID } } } }),
        ),
        (
            "checkout",
            json!({ "id": "pay_1", "approved": true, "status": "Authorized", "response_code": "10000",
            "processing": { "scheme_transaction_link_id": TLID } }),
        ),
        (
            "cybersource",
            json!({ "id": "1", "status": "AUTHORIZED", "issuerInformation": { "transactionInformation": TLID } }),
        ),
        (
            "braintree",
            json!({ "data": { "authorizeCreditCard": { "transaction": { "id": "t1", "status": "AUTHORIZED",
            "statusHistory": [{ "status": "AUTHORIZED", "processorResponse": { "legacyCode": "1000",
                "mastercardTransactionLinkId": TLID } }] } } } }),
        ),
    ];
    for (name, answer) in &answers {
        let connector = builtin(name).unwrap();
        let mapped = |answer: &str| connector.map(Operation::Authorize, 200, answer.as_bytes());
        let told = mapped(&answer.to_string());
        assert_eq!(
            (told.outcome, told.transaction_link_id.as_deref()),
            (Outcome::Approved, Some(TLID)),
            "{name}"
        );
        // What another network says in its place is none.
        let other = mapped(&answer.to_string().replace(TLID, "0123456789012345678901234567 "));
        assert_eq!((other.outcome, other.transaction_link_id), (Outcome::Approved, None), "{name}");
    }
    let stored = StoredCredential { tlid: Some(TLID), ..merchant().stored_credential.unwrap() };
    let by_hand = StoredCredential { initiator: Initiator::Customer, ..stored };
    let card = |brand| sale().card.map(|card| Card { brand: Some(brand), ..card });
    let of = |name, stored, brand| {
        let values = Values { stored_credential: Some(stored), card: card(brand), ..sale() };
        let sent = sent(name, Operation::Sale, &values);
        let place = if name == "adyen" {
            &sent["additionalData"]["transactionLinkId"]
        } else {
            &sent["issuerInformation"]
        };
        place.clone()
    };
    assert_eq!(of("adyen", stored, "mastercard"), TLID);
    assert_eq!(of("cybersource", stored, "mastercard"), json!({ "transactionInformation": TLID }));
    for name in ["adyen", "cybersource"] {
        assert_eq!(of(name, by_hand, "mastercard"), Value::Null, "{name}");
        assert_eq!(of(name, merchant().stored_credential.unwrap(), "mastercard"), Value::Null, "{name}");
    }
    assert_eq!(of("cybersource", stored, "discover"), Value::Null);
}

#[test]
fn braintree_agreements() {
    let of = |operation, values| {
        let input = sent("braintree", operation, &with_mark(values))["variables"]["input"].clone();
        (input["transaction"]["paymentInitiator"].clone(), input["options"]["externalVault"].clone())
    };
    for operation in [Operation::Sale, Operation::Authorize] {
        let will_vault = json!({ "status": "WILL_VAULT" });
        let vaulted = json!({ "status": "VAULTED", "verifyingNetworkTransactionId": "1098510912210968" });
        assert_eq!(of(operation, sale()), (Value::Null, Value::Null));
        assert_eq!(
            of(operation, customer(Reason::Recurring)),
            (json!("RECURRING_FIRST"), will_vault.clone())
        );
        assert_eq!(of(operation, customer(Reason::Unscheduled)), (Value::Null, will_vault));
        for (reason, word) in [
            (Reason::Recurring, "RECURRING"),
            (Reason::Installment, "INSTALLMENT"),
            (Reason::Unscheduled, "UNSCHEDULED"),
        ] {
            assert_eq!(of(operation, with_reason(merchant(), reason)), (json!(word), vaulted.clone()));
        }
        let stored = merchant().stored_credential.unwrap();
        let stored = StoredCredential { initiator: Initiator::Customer, ..stored };
        let by_hand = Values { stored_credential: Some(stored), ..sale() };
        assert_eq!(of(operation, by_hand), (Value::Null, json!({ "status": "VAULTED" })));
    }
}

#[test]
fn what_follows_at_braintree() {
    let variables = |operation| sent("braintree", operation, &after("dHJhbnMx"))["variables"].clone();
    assert_eq!(
        variables(Operation::Capture),
        json!({ "input": { "transactionId": "dHJhbnMx", "transaction": { "amount": "20.20" } } })
    );
    assert_eq!(
        variables(Operation::Refund),
        json!({ "input": { "apiRequestKey": "att_test", "transactionId": "dHJhbnMx",
            "refund": { "amount": "20.20", "orderId": "att_test" } } })
    );
    assert_eq!(variables(Operation::Void), json!({ "input": { "transactionId": "dHJhbnMx" } }));
    assert_eq!(variables(Operation::Lookup), json!({ "input": { "orderId": { "is": "att_test" } } }));
    assert_eq!(variables(Operation::LookupVoid), json!({ "id": "dHJhbnMx" }));
}

/// Golden: what each is told for our minor units.
#[test]
fn amounts_as_each_counts_them() {
    let told = |name: &str, minor, currency| {
        let values = Values { amount: Some(Amount { minor, currency }), ..with_mark(signed(sale())) };
        let rendered = builtin(name).unwrap().render(Operation::Authorize, &values)?;
        let sent = body(&rendered);
        let places = [
            "/amount/value",
            "/amount",
            "/orderInformation/amountDetails/totalAmount",
            "/variables/input/transaction/amount",
        ];
        let amount = places.iter().find_map(|place| sent.pointer(place).filter(|value| !value.is_object()));
        Ok::<String, RenderError>(amount.unwrap().to_string().trim_matches('"').to_owned())
    };
    let refused = Err(RenderError::AmountNotRepresentable);
    for (name, currency, minor, expected) in [
        ("adyen", "USD", 500, "500"),
        ("adyen", "JPY", 500, "500"),
        ("adyen", "KWD", 5124, "5124"),
        ("adyen", "ISK", 5, "500"),
        ("adyen", "CLP", 500, "50000"),
        ("adyen", "UGX", 500, "500"),
        ("adyen", "CVE", 500, "5"),
        ("adyen", "IDR", 500, "5"),
        ("checkout", "JPY", 500, "500"),
        ("checkout", "KWD", 5120, "5120"),
        ("checkout", "ISK", 500, "500"),
        ("checkout", "CLP", 500, "50000"),
        ("checkout", "UGX", 500, "500"),
        ("cybersource", "JPY", 500, "500"),
        ("cybersource", "KWD", 5124, "5.124"),
        ("cybersource", "USD", 5, "0.05"),
        ("braintree", "JPY", 500, "500"),
        ("braintree", "USD", 2020, "20.20"),
    ] {
        assert_eq!(told(name, minor, currency).as_deref(), Ok(expected), "{name} {currency}");
    }
    assert_eq!(told("adyen", 550, "CVE"), refused);
    assert_eq!(told("checkout", 5124, "KWD"), refused);
}

/// Neither a person who looks at a request nor a MAC of it learns a secret; the MAC covers the card, wherever it is sent.
#[test]
fn what_is_shown_and_what_a_mac_covers() {
    for name in ["adyen", "braintree", "checkout", "cybersource"] {
        let connector = builtin(name).unwrap();
        let values =
            Values { card: sale().card.map(|card| Card { cvc: Some("737"), ..card }), ..signed(sale()) };
        let shown = connector.render_for_show(Operation::Sale, &values).unwrap();
        let requests: Vec<&Rendered> = shown.steps.iter().map(|(_, step)| step).chain([&shown]).collect();
        let text: String = requests
            .iter()
            .flat_map(|request| {
                let headers = request.headers.iter().map(|(name, value)| format!("{name}: {}\n", **value));
                headers.chain([String::from_utf8_lossy(&request.body).into_owned()])
            })
            .collect();
        assert!(text.contains("424242…4242") && text.contains("‹cvc›"), "{name}");
        for (_, secret) in values.credentials.iter().chain(&[("", NUMBER), ("", "737")]) {
            assert!(!text.contains(secret), "{name}");
        }
        let mac = |values: &Values<'_>| connector.render_for_mac(Operation::Sale, values).unwrap();
        let plain = mac(&values);
        let later = SendMoment { unix_ms: 5, nonce: "other", mark: "m1" };
        assert_eq!(*plain, *mac(&Values { moment: later, credentials: &[], ..values }), "{name}");
        let card = values.card.map(|card| Card { number: "4111111111111111", ..card });
        assert_ne!(*plain, *mac(&Values { card, ..values }), "{name}");
    }
}
