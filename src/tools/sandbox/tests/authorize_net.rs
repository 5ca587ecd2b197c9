//! Authorize.Net's wire form, XML and JSON.

use super::family::*;
use super::*;

fn send(sandbox: &Running, body: &str) -> Got {
    sandbox.send(&format!("POST {NET} HTTP/1.1"), body).unwrap()
}

fn follow(kind: &str, amount: &str, id: &str) -> String {
    let amount = if amount.is_empty() { String::new() } else { format!("<amount>{amount}</amount>") };
    net_xml(&format!("<transactionType>{kind}</transactionType>{amount}<refTransId>{id}</refTransId>"))
}

fn refund(amount: &str, last4: &str, id: &str) -> String {
    net_xml(&format!(
        "<transactionType>refundTransaction</transactionType><amount>{amount}</amount><payment><creditCard>\
         <cardNumber>XXXX{last4}</cardNumber><expirationDate>XXXX</expirationDate></creditCard></payment>\
         <refTransId>{id}</refTransId><order><invoiceNumber>rf-{amount}</invoiceNumber></order>"
    ))
}

fn id_of(got: &Got) -> String {
    xml(got).text(&["transactionResponse", "transId"]).to_owned()
}

#[test]
fn both_forms_say_the_same_and_json_begins_with_its_mark() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let json = send(&sandbox, &net_sale_json("inv-j", APPROVED).to_string());
    assert!(json.text.starts_with('\u{feff}'));
    let body = bare_json(&json);
    assert_eq!(body["messages"]["message"][0]["code"], "I00001");
    let said = &body["transactionResponse"];
    assert_eq!((&said["responseCode"], &said["accountNumber"]), (&"1".into(), &"XXXX4242".into()));
    assert_eq!((&body["refId"], &said["avsResultCode"]), (&"7".into(), &"Y".into()));
    let root = xml(&send(&sandbox, &net_xml(&net_sale_xml("inv-x", APPROVED))));
    for name in ["responseCode", "avsResultCode", "accountNumber", "accountType"] {
        assert_eq!(said[name], root.text(&["transactionResponse", name]), "{name}");
    }
    assert_eq!(said["networkTransId"].as_str().unwrap().len(), 15);
    assert_eq!(root.text(&["transactionResponse", "networkTransId"]).len(), 15);
    assert_eq!(root.name, "createTransactionResponse");
}

#[test]
fn keys_in_another_order_are_refused_in_both_forms() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let mut body = net_sale_json("i", APPROVED);
    let asked =
        body.pointer_mut("/createTransactionRequest/transactionRequest").unwrap().as_object_mut().unwrap();
    let order = asked.shift_remove("order").unwrap();
    asked.insert("order".into(), order);
    let got = bare_json(&send(&sandbox, &body.to_string()));
    assert_eq!(got["messages"]["message"][0]["code"], "E00003");
    assert!(
        got["messages"]["message"][0]["text"].as_str().unwrap().contains("invalid child element 'order'")
    );
    let moved = net_sale_xml("i", APPROVED).replace("<amount>10.00</amount>", "") + "<amount>10.00</amount>";
    assert_eq!(xml(&send(&sandbox, &net_xml(&moved))).text(&["messages", "message", "code"]), "E00003");
    assert!(sandbox.ledger().is_empty());
}

#[test]
fn another_key_in_the_body_is_refused() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let body = net_xml(&net_sale_xml("i", APPROVED)).replace("sk_test_one", "sk_test_two");
    assert_eq!(xml(&send(&sandbox, &body)).text(&["messages", "message", "code"]), "E00007");
    let long = net_xml(&net_sale_xml("an-invoice-number-too-long", APPROVED));
    assert_eq!(xml(&send(&sandbox, &long)).text(&["messages", "message", "code"]), "E00003");
}

#[test]
fn the_same_card_amount_and_invoice_are_refused_for_two_minutes() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let body = net_xml(&net_sale_xml("i", APPROVED));
    assert_eq!(Family::NetXml.code(&send(&sandbox, &body)), "1");
    assert_eq!(Family::NetXml.code(&send(&sandbox, &body)), "11");
    let other_form = send(&sandbox, &net_sale_json("i", APPROVED).to_string());
    assert_eq!(Family::NetJson.code(&other_form), "11");
    let other = net_xml(&net_sale_xml("other", APPROVED));
    assert_eq!(Family::NetXml.code(&send(&sandbox, &other)), "1");
    // Well inside of it, however slow the machine is.
    sandbox.advance(100);
    assert_eq!(Family::NetXml.code(&send(&sandbox, &body)), "11");
    sandbox.advance(21);
    assert_eq!(Family::NetXml.code(&send(&sandbox, &body)), "1");
    // A request may widen its window, or close it.
    let window = |seconds: u32| {
        let setting = format!(
            "<transactionSettings><setting><settingName>duplicateWindow</settingName><settingValue>{seconds}\
             </settingValue></setting></transactionSettings>"
        );
        net_xml(&(net_sale_xml("i", APPROVED) + &setting))
    };
    assert_eq!(Family::NetXml.code(&send(&sandbox, &window(0))), "1");
    sandbox.advance(1000);
    assert_eq!(Family::NetXml.code(&send(&sandbox, &window(2000))), "11");
    assert_eq!(sandbox.charged("i"), 3);
}

#[test]
fn captures_refunds_and_voids_know_their_time() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let hold = net_sale_xml("h", APPROVED).replace("authCapture", "authOnly");
    let id = id_of(&send(&sandbox, &net_xml(&hold)));
    assert_eq!(
        Family::NetXml.code(&send(&sandbox, &follow("priorAuthCaptureTransaction", "10.01", &id))),
        "47"
    );
    let captured = send(&sandbox, &follow("priorAuthCaptureTransaction", "8.00", &id));
    assert_eq!((Family::NetXml.code(&captured), id_of(&captured)), ("1".to_owned(), id.clone()));
    // It was done already: an answer that looks like success.
    let again = send(&sandbox, &follow("priorAuthCaptureTransaction", "8.00", &id));
    assert_eq!(Family::NetXml.code(&again), "311");
    assert_eq!(Family::NetXml.code(&send(&sandbox, &refund("3.00", "4242", &id))), "54", "not settled");
    sandbox.advance(86_400);
    assert_eq!(Family::NetXml.code(&send(&sandbox, &refund("3.00", "1111", &id))), "54", "another card");
    let refunded = send(&sandbox, &refund("3.00", "4242", &id));
    assert_eq!(Family::NetXml.code(&refunded), "1");
    assert_ne!(id_of(&refunded), id);
    assert_eq!(Family::NetXml.code(&send(&sandbox, &refund("3.00", "4242", &id))), "11");
    assert_eq!(Family::NetXml.code(&send(&sandbox, &refund("5.01", "4242", &id))), "55");
    assert_eq!(Family::NetXml.code(&send(&sandbox, &follow("voidTransaction", "", &id))), "16");
    assert_eq!(sandbox.amounts("authorize_net", "h"), [1000, 800, 300, 0]);
    let sold = id_of(&send(&sandbox, &net_xml(&net_sale_xml("v", APPROVED))));
    assert_eq!(Family::NetXml.code(&send(&sandbox, &follow("voidTransaction", "", &sold))), "1");
    assert_eq!(Family::NetXml.code(&send(&sandbox, &follow("voidTransaction", "", &sold))), "310");
    assert_eq!(Family::NetXml.code(&send(&sandbox, &follow("voidTransaction", "", "1"))), "16");
    assert_eq!(sandbox.amounts("authorize_net", "v"), [1000, 1000, 0, 1000]);
}

#[test]
fn lists_find_by_invoice_number_once_they_see_it() {
    let (_directory, path) = place();
    let sandbox = Running::start_as(&path, |settings| settings.search_lag_s = 30);
    let sold = id_of(&send(&sandbox, &net_xml(&net_sale_xml("inv-7", APPROVED))));
    let unsettled = net_request("getUnsettledTransactionListRequest", "");
    let found = |body: &str| {
        let root = xml(&send(&sandbox, body));
        let all = root.child("transactions").unwrap().children.clone();
        all.iter().map(|one| one.text(&["transactionStatus"]).to_owned()).collect::<Vec<_>>()
    };
    assert!(found(&unsettled).is_empty());
    sandbox.advance(31);
    assert_eq!(found(&unsettled), ["capturedPendingSettlement"]);
    let listed = xml(&send(&sandbox, &unsettled));
    let one = listed.at(&["transactions", "transaction"]).unwrap();
    assert_eq!(
        ["transId", "invoiceNumber", "settleAmount"].map(|name| one.text(&[name])),
        [&sold, "inv-7", "10.00"]
    );
    let details = xml(&send(
        &sandbox,
        &net_request("getTransactionDetailsRequest", &format!("<transId>{sold}</transId>")),
    ));
    assert_eq!(details.text(&["transaction", "order", "invoiceNumber"]), "inv-7");
    let none = xml(&send(&sandbox, &net_request("getTransactionDetailsRequest", "<transId>1</transId>")));
    assert_eq!(none.text(&["messages", "message", "code"]), "E00040");
    sandbox.advance(86_400);
    assert!(found(&unsettled).is_empty());
    assert_eq!(
        found(&net_request("getTransactionListRequest", "<batchId>1</batchId>")),
        ["settledSuccessfully"]
    );
    let json = json!({ "getUnsettledTransactionListRequest": {
        "merchantAuthentication": { "name": "shop", "transactionKey": "sk_test_one" } } });
    assert_eq!(bare_json(&send(&sandbox, &json.to_string()))["totalNumInResultSet"], 0);
    sandbox.script(
        &json!({ "fault": "unavailable", "count": 1, "operation": "lookup", "wire": "authorize_net" }),
    );
    assert_eq!(send(&sandbox, &unsettled).status, 503);
}

#[test]
fn half_an_approval_and_a_review_have_their_own_codes() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let half = send(&sandbox, &net_xml(&net_sale_xml("half", &number(0, 1, Behaviour::PartialApproval))));
    assert_eq!(Family::NetXml.code(&half), "295");
    assert_eq!(xml(&half).text(&["transactionResponse", "prePaidCard", "approvedAmount"]), "5.00");
    let held = send(&sandbox, &net_xml(&net_sale_xml("held", &number(0, 1, Behaviour::Pending))));
    assert_eq!(
        (Family::NetXml.code(&held), xml(&held).text(&["transactionResponse", "responseCode"])),
        ("252".to_owned(), "4")
    );
    sandbox.advance(6);
    let details = format!("<transId>{}</transId>", id_of(&held));
    let details = xml(&send(&sandbox, &net_request("getTransactionDetailsRequest", &details)));
    assert_eq!(details.text(&["transaction", "transactionStatus"]), "capturedPendingSettlement");
}
