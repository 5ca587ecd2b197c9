//! Authorize.Net in both its forms, Worldpay, Vantiv and Orbital: what they are sent, and what they answer.

use roxmltree::{Document, Node};

use super::super::{
    Amount, Billing, Card, Connector, Initiator, Mapped, Operation, Outcome, Previous, Reason, Rendered,
    StoredCredential, Use, Values, ZipCheck, builtin,
};
use super::{NUMBER, merchant, sale};

const CREDENTIALS: &[(&str, &str)] = &[
    ("login_id", "LOGIN"),
    ("transaction_key", "KEY"),
    ("merchant_code", "MERCHANT"),
    ("basic", "dTpw"),
    ("user", "USER"),
    ("password", "PASS"),
    ("merchant_id", "041756"),
    ("bin", "000001"),
];

fn of(values: Values<'_>) -> Values<'_> {
    Values { credentials: CREDENTIALS, ..values }
}

fn first(reason: Reason) -> Values<'static> {
    let stored = StoredCredential {
        usage: Use::Initial,
        initiator: Initiator::Customer,
        reason,
        ..plain_credential()
    };
    of(Values { stored_credential: Some(stored), ..sale() })
}

fn plain_credential() -> StoredCredential<'static> {
    StoredCredential { ntid: None, original_amount: None, ..merchant().stored_credential.unwrap() }
}

/// What follows a payment: no card is at hand.
fn following() -> Values<'static> {
    let previous = Previous {
        transaction: Some("T-1"),
        amount: Some(2020),
        attempt: Some("att_before"),
        reference: Some("ref_before"),
        ntid: None,
    };
    of(Values { card: None, billing: Billing::default(), previous, ..sale() })
}

fn text(connector: &Connector, operation: Operation, values: &Values<'_>) -> String {
    String::from_utf8(connector.render(operation, values).unwrap().body.to_vec()).unwrap()
}

fn read(name: &str, operation: Operation, body: &str) -> Mapped {
    builtin(name).unwrap().map_attempt(operation, 200, body.as_bytes(), &["att_test", "ref_test"])
}

fn header<'h>(rendered: &'h Rendered, name: &str) -> Option<&'h str> {
    rendered.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[test]
fn an_authorize_net_sale() {
    let connector = builtin("authorize_net").unwrap();
    let rendered = connector.render(Operation::Sale, &of(sale())).unwrap();
    assert_eq!((rendered.method, rendered.path_and_query.as_str()), ("POST", "/xml/v1/request.api"));
    assert_eq!(header(&rendered, "Content-Type"), Some("text/xml"));
    assert_eq!(
        std::str::from_utf8(&rendered.body).unwrap(),
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><createTransactionRequest xmlns=\"AnetApi/xml/v1/schema/AnetApiSchema.xsd\">\
             <merchantAuthentication><name>LOGIN</name><transactionKey>KEY</transactionKey></merchantAuthentication>\
             <refId>ref_test</refId><transactionRequest><transactionType>authCaptureTransaction</transactionType>\
             <amount>20.20</amount><currencyCode>USD</currencyCode><payment><creditCard><cardNumber>{NUMBER}</cardNumber>\
             <expirationDate>03/2030</expirationDate></creditCard></payment><order><invoiceNumber>ref_test</invoiceNumber>\
             </order><billTo><zip>94107</zip></billTo></transactionRequest></createTransactionRequest>"
        )
    );
    let sent = text(&connector, Operation::Sale, &of(merchant()));
    assert!(
        sent.ends_with(
            "<transactionSettings><setting><settingName>recurringBilling</settingName><settingValue>true</settingValue>\
             </setting></transactionSettings><processingOptions><isSubsequentAuth>true</isSubsequentAuth></processingOptions>\
             <subsequentAuthInformation><originalNetworkTransId>1098510912210968</originalNetworkTransId>\
             </subsequentAuthInformation></transactionRequest></createTransactionRequest>"
        ),
        "{sent}"
    );
    let options = |values: &Values<'_>| {
        let sent = text(&connector, Operation::Authorize, values);
        sent.split_once("<processingOptions>")
            .unwrap()
            .1
            .split_once("</processingOptions>")
            .unwrap()
            .0
            .to_owned()
    };
    assert_eq!(options(&first(Reason::Recurring)), "<isFirstRecurringPayment>true</isFirstRecurringPayment>");
    assert_eq!(options(&first(Reason::Unscheduled)), "<isFirstSubsequentAuth>true</isFirstSubsequentAuth>");
    let again = StoredCredential { initiator: Initiator::Customer, ..merchant().stored_credential.unwrap() };
    let again = of(Values { stored_credential: Some(again), ..sale() });
    assert_eq!(options(&again), "<isStoredCredentials>true</isStoredCredentials>");
    // Discover wants to know what the first charge was.
    let mut discover = of(merchant());
    discover.card = discover.card.map(|card| Card { brand: Some("discover"), ..card });
    assert!(
        text(&connector, Operation::Sale, &discover)
            .contains("<originalAuthAmount>20.20</originalAuthAmount>")
    );
    // A verification is of no money, whatever is known of an amount.
    for amount in [None, sale().amount] {
        let sent = text(&connector, Operation::Verify, &of(Values { amount, ..sale() }));
        assert!(
            sent.contains("<transactionType>authOnlyTransaction</transactionType><amount>0.00</amount>"),
            "{sent}"
        );
    }
}

#[test]
fn what_follows_an_authorize_net_sale() {
    let connector = builtin("authorize_net").unwrap();
    let sent = text(&connector, Operation::Capture, &following());
    assert!(
        sent.contains(
            "<transactionType>priorAuthCaptureTransaction</transactionType><amount>20.20</amount>\
             <currencyCode>USD</currencyCode><refTransId>T-1</refTransId><order><invoiceNumber>ref_test</invoiceNumber>"
        ),
        "{sent}"
    );
    // A refund names the card by its last four digits, and only by them.
    assert_eq!(connector.requires(Operation::Refund), ["card.last4"]);
    assert!(connector.render(Operation::Refund, &following()).is_err());
    let sent = text(&connector, Operation::Refund, &Values { card: sale().card, ..following() });
    assert!(
        sent.contains(
            "<payment><creditCard><cardNumber>4242</cardNumber><expirationDate>XXXX</expirationDate></creditCard></payment>\
             <refTransId>T-1</refTransId>"
        ) && !sent.contains(NUMBER),
        "{sent}"
    );
    let sent = text(&connector, Operation::Void, &following());
    assert!(sent.contains("<transactionType>voidTransaction</transactionType><refTransId>T-1</refTransId>"));
    assert!(
        text(&connector, Operation::Lookup, &following()).contains("<getUnsettledTransactionListRequest ")
    );
    assert!(text(&connector, Operation::LookupVoid, &following()).contains("<transId>T-1</transId>"));
    assert_eq!(connector.lookup_for(Operation::Refund), Some(Operation::Lookup));
    assert_eq!(connector.lookup_for(Operation::Capture), Some(Operation::LookupCapture));
    assert_eq!(connector.until().map(|until| until.as_secs()), Some(900));
}

/// The schema's order holds in both forms: the JSON API refuses other orders as well.
#[test]
fn both_forms_of_authorize_net_say_the_same_in_the_same_order() {
    fn names(json: &str) -> Vec<String> {
        // The order is read from the text: each key stands before `":`, and nothing after the last.
        let (text, _) = json.rsplit_once("\":").unwrap();
        text.split("\":").map(|part| part.rsplit_once('"').unwrap().1.to_owned()).collect()
    }
    let (xml, json) = (builtin("authorize_net").unwrap(), builtin("authorize_net_json").unwrap());
    let mut full = of(Values {
        description: Some("d"),
        invoice: Some("i"),
        customer: Some("c"),
        allow_partial: true,
        ..merchant()
    });
    full.billing.name = Some("n");
    full.billing.email = Some("e");
    let with_card = Values { card: sale().card, ..following() };
    for (operation, values) in [
        (Operation::Sale, of(sale())),
        (Operation::Sale, full),
        (Operation::Authorize, first(Reason::Installment)),
        (Operation::Verify, of(sale())),
        (Operation::Capture, following()),
        (Operation::Refund, with_card),
        (Operation::Void, following()),
        (Operation::Lookup, following()),
        (Operation::LookupCapture, following()),
    ] {
        let (one, other) = (text(&xml, operation, &values), text(&json, operation, &values));
        let document = Document::parse(&one).unwrap();
        let mut elements: Vec<String> = document
            .descendants()
            .filter(Node::is_element)
            .map(|node| node.tag_name().name().to_owned())
            .collect();
        // A list is one key in JSON, an element for each item in XML.
        let mut keys = names(&other);
        elements.retain(|name| name != "setting");
        keys.retain(|name| name != "setting");
        // That no money is asked for needs no currency there.
        if operation == Operation::Verify {
            elements.retain(|name| name != "currencyCode");
        }
        assert_eq!(elements, keys, "{operation:?}");
        let values_of =
            |text: &str, open: &str, close: &str| text.matches(open).count() + text.matches(close).count();
        assert_eq!(
            values_of(&one, NUMBER, "ref_test"),
            values_of(&other, NUMBER, "ref_test"),
            "{operation:?}"
        );
    }
}

#[test]
fn authorize_net_finds_by_invoice_number() {
    let xml = |inner: &str| {
        format!(
            "<getUnsettledTransactionListResponse xmlns=\"AnetApi/xml/v1/schema/AnetApiSchema.xsd\"><messages>\
             <resultCode>Ok</resultCode><message><code>I00001</code><text>Successful.</text></message></messages>{inner}\
             </getUnsettledTransactionListResponse>"
        )
    };
    let item = |invoice: &str, status: &str| {
        format!(
            "<transaction><transId>60</transId><transactionStatus>{status}</transactionStatus>\
             <invoiceNumber>{invoice}</invoiceNumber><settleAmount>20.20</settleAmount></transaction>"
        )
    };
    let page = |items: &str, total: u32| {
        xml(&format!(
            "<transactions>{items}</transactions><totalNumInResultSet>{total}</totalNumInResultSet>"
        ))
    };
    let found = |body: &str| {
        let mapped = read("authorize_net", Operation::Lookup, body);
        (mapped.outcome, mapped.unknown)
    };
    let ours = |status: &str| page(&format!("{}{}", item("x", "voided"), item("ref_test", status)), 2);
    for (status, outcome) in [
        ("authorizedPendingCapture", Outcome::Approved),
        ("capturedPendingSettlement", Outcome::Approved),
        ("settledSuccessfully", Outcome::Approved),
        ("refundPendingSettlement", Outcome::Approved),
        ("FDSPendingReview", Outcome::Pending),
        ("declined", Outcome::Declined),
        ("voided", Outcome::Declined),
        ("generalError", Outcome::Error),
    ] {
        assert_eq!(found(&ours(status)), (outcome, false), "{status}");
    }
    // A state that nobody knows, or that says nothing of the money.
    assert_eq!(found(&ours("communicationError")), (Outcome::Error, true));
    assert_eq!(found(&page(&item("x", "voided"), 1)), (Outcome::NotFound, false));
    // A full page: the rest is elsewhere. What is on it counts all the same.
    assert_eq!(found(&page(&item("x", "voided"), 1000)), (Outcome::Error, true));
    assert_eq!(found(&page(&item("ref_test", "settledSuccessfully"), 1000)), (Outcome::Approved, false));
    // Part of it may have been approved, in an answer that was lost.
    let amount = |name, body: &str| read(name, Operation::Lookup, body).amount_approved;
    assert_eq!(amount("authorize_net", &ours("authorizedPendingCapture")), Some(2_020));
    assert_eq!(found(&xml("").replace("I00001", "I00004")), (Outcome::NotFound, false));
    assert_eq!(found(&xml("")), (Outcome::Error, true));
    assert_eq!(found(&page("", 0).replace(">Ok<", ">Error<")), (Outcome::Error, true));

    let found = |body: &str| {
        let mapped = read("authorize_net_json", Operation::Lookup, &format!("\u{feff}{body}"));
        (mapped.outcome, mapped.unknown)
    };
    let json = |code: &str, list: &str| {
        format!(r#"{{{list}"messages":{{"resultCode":"Ok","message":[{{"code":"{code}","text":"t"}}]}}}}"#)
    };
    let ours = r#""transactions":[{"transId":"60","transactionStatus":"capturedPendingSettlement","invoiceNumber":"ref_test"}],"totalNumInResultSet":1,"#;
    assert_eq!(found(&json("I00001", ours)), (Outcome::Approved, false));
    assert_eq!(found(&json("I00001", &ours.replace("ref_test", "x"))), (Outcome::NotFound, false));
    assert_eq!(
        found(&json("I00001", &ours.replace("ref_test", "x").replace(":1,", ":1000,"))),
        (Outcome::Error, true)
    );
    for (settles, minor) in [("20.20", 2_020), ("20.00", 2_000), ("0.5", 50), ("\"20.20\"", 2_020)] {
        let ours = ours.replace("\"invoiceNumber", &format!("\"settleAmount\":{settles},\"invoiceNumber"));
        assert_eq!(amount("authorize_net_json", &json("I00001", &ours)), Some(minor), "{settles}");
    }
    assert_eq!(found(&json("I00004", "")), (Outcome::NotFound, false));
    assert_eq!(found(&json("I00001", "")), (Outcome::Error, true));
}

#[test]
fn a_worldpay_order() {
    let connector = builtin("worldpay").unwrap();
    let rendered = connector.render(Operation::Sale, &of(sale())).unwrap();
    assert_eq!(rendered.path_and_query, "/jsp/merchant/xml/paymentService.jsp");
    assert_eq!(header(&rendered, "Authorization"), Some("Basic dTpw"));
    assert_eq!(header(&rendered, "Idempotency-Key"), Some("att_test"));
    let body = std::str::from_utf8(&rendered.body).unwrap();
    let (prolog, order) = body.split_once("paymentService_v1.dtd\">").unwrap();
    assert!(
        prolog
            .contains("<!DOCTYPE paymentService PUBLIC \"-//WorldPay//DTD WorldPay PaymentService v1//EN\"")
    );
    assert_eq!(
        order,
        format!(
            "<paymentService version=\"1.4\" merchantCode=\"MERCHANT\"><submit><order orderCode=\"ref_test\" \
             captureDelay=\"0\"><description>Payment</description><amount value=\"2020\" currencyCode=\"USD\" \
             exponent=\"2\"/><paymentDetails><CARD-SSL><cardNumber>{NUMBER}</cardNumber><expiryDate><date month=\"03\" \
             year=\"2030\"/></expiryDate><cardHolderName>Cardholder</cardHolderName><cardAddress><address>\
             <address1>N/A</address1><postalCode>94107</postalCode><city>N/A</city><countryCode>US</countryCode></address>\
             </cardAddress></CARD-SSL></paymentDetails></order></submit></paymentService>"
        )
    );
    let stored = |values: &Values<'_>| {
        let sent = text(&connector, Operation::Authorize, values);
        let (_, rest) = sent.split_once("<storedCredentials ").unwrap();
        rest.split_once("</paymentDetails>").unwrap().0.to_owned()
    };
    assert_eq!(
        stored(&of(merchant())),
        "usage=\"USED\" merchantInitiatedReason=\"RECURRING\"><schemeTransactionIdentifier>1098510912210968\
         </schemeTransactionIdentifier></storedCredentials>"
    );
    assert_eq!(
        stored(&first(Reason::Installment)),
        "usage=\"FIRST\" customerInitiatedReason=\"INSTALMENT\"/>"
    );
    // Money is told with the exponent that it is counted in.
    let yen = of(Values { amount: Some(Amount { minor: 500, currency: "JPY" }), ..sale() });
    assert!(
        text(&connector, Operation::Sale, &yen).contains("value=\"500\" currencyCode=\"JPY\" exponent=\"0\"")
    );
    for amount in [None, sale().amount] {
        let sent = text(&connector, Operation::Verify, &of(Values { amount, ..sale() }));
        assert_eq!(sent.matches("<amount value=\"0\"").count(), 1, "{sent}");
        assert_eq!(sent.matches("<amount").count(), 1);
    }
}

#[test]
fn what_follows_a_worldpay_order() {
    let connector = builtin("worldpay").unwrap();
    let inner = |operation| {
        let sent = text(&connector, operation, &following());
        let (_, rest) = sent.split_once("merchantCode=\"MERCHANT\">").unwrap();
        rest.trim_end_matches("</paymentService>").to_owned()
    };
    let amount =
        "<amount value=\"2020\" currencyCode=\"USD\" exponent=\"2\" debitCreditIndicator=\"credit\"/>";
    assert_eq!(
        inner(Operation::Capture),
        format!(
            "<modify><orderModification orderCode=\"T-1\"><capture reference=\"ref_test\">{amount}</capture></orderModification></modify>"
        )
    );
    assert_eq!(
        inner(Operation::Refund),
        format!(
            "<modify><orderModification orderCode=\"T-1\"><refund reference=\"ref_test\">{amount}</refund></orderModification></modify>"
        )
    );
    assert_eq!(
        inner(Operation::Void),
        "<modify><orderModification orderCode=\"T-1\"><cancel/></orderModification></modify>"
    );
    assert_eq!(inner(Operation::Lookup), "<inquiry><orderInquiry orderCode=\"ref_test\"/></inquiry>");
    for operation in [Operation::LookupCapture, Operation::LookupRefund, Operation::LookupVoid] {
        assert_eq!(inner(operation), "<inquiry><orderInquiry orderCode=\"T-1\"/></inquiry>");
    }
    let asked = connector.render(Operation::Lookup, &following()).unwrap();
    assert_eq!(header(&asked, "Idempotency-Key"), None);
}

fn worldpay(inner: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><!DOCTYPE paymentService PUBLIC \"-//WorldPay//DTD WorldPay PaymentService \
         v1//EN\" \"http://dtd.worldpay.com/paymentService_v1.dtd\"><paymentService version=\"1.4\" merchantCode=\"M\"><reply>\
         {inner}</reply></paymentService>"
    )
}

#[test]
fn worldpay_says_how_an_order_stands() {
    let order = |event: &str| {
        worldpay(&format!(
            "<orderStatus orderCode=\"o\"><payment><amount value=\"100\" currencyCode=\"JPY\" exponent=\"0\"/>\
             <lastEvent>{event}</lastEvent></payment></orderStatus>"
        ))
    };
    let stands = |operation, event: &str| {
        let mapped = read("worldpay", operation, &order(event));
        (mapped.outcome, mapped.unknown)
    };
    for (operation, event, outcome, unknown) in [
        (Operation::Lookup, "AUTHORISED", Outcome::Approved, false),
        (Operation::Lookup, "REFUNDED", Outcome::Approved, false),
        (Operation::Lookup, "REFUSED", Outcome::Declined, false),
        (Operation::Lookup, "SENT_FOR_AUTHORISATION", Outcome::Pending, false),
        (Operation::Lookup, "NEVER_SEEN", Outcome::Error, true),
        (Operation::LookupCapture, "AUTHORISED", Outcome::NotFound, false),
        (Operation::LookupCapture, "CAPTURED", Outcome::Approved, false),
        (Operation::LookupCapture, "CANCELLED", Outcome::Declined, false),
        (Operation::LookupVoid, "AUTHORISED", Outcome::NotFound, false),
        (Operation::LookupVoid, "CANCELLED", Outcome::Approved, false),
        (Operation::LookupVoid, "SETTLED", Outcome::Declined, false),
        (Operation::LookupRefund, "CAPTURED", Outcome::NotFound, false),
        // A refund is there; that it is ours nobody says.
        (Operation::LookupRefund, "REFUNDED", Outcome::Error, true),
        (Operation::LookupRefund, "SENT_FOR_REFUND", Outcome::Error, true),
    ] {
        assert_eq!(stands(operation, event), (outcome, unknown), "{operation:?} {event}");
    }
    // What was authorized is not what was captured.
    assert_eq!(read("worldpay", Operation::Lookup, &order("CAPTURED")).amount_approved, Some(100));
    assert_eq!(read("worldpay", Operation::LookupCapture, &order("CAPTURED")).amount_approved, None);
    let missing = worldpay(
        "<orderStatus orderCode=\"o\"><error code=\"5\"><![CDATA[Could not find payment for order]]></error></orderStatus>",
    );
    for (operation, outcome, unknown) in [
        (Operation::Lookup, Outcome::NotFound, false),
        (Operation::LookupCapture, Outcome::Error, true),
        (Operation::Capture, Outcome::Error, false),
    ] {
        let mapped = read("worldpay", operation, &missing);
        assert_eq!((mapped.outcome, mapped.unknown), (outcome, unknown), "{operation:?}");
    }
    for message in ["Request in progress", "Invalid idempotency-key"] {
        let mapped =
            read("worldpay", Operation::Sale, &worldpay(&format!("<error code=\"9\">{message}</error>")));
        assert_eq!((mapped.unknown, mapped.duplicate), (true, true));
    }
}

/// An ampersand as it is in the name of a bank; not one within CDATA, and none that begins a reference.
#[test]
fn a_bare_ampersand_does_not_hide_an_answer() {
    let refused = worldpay(
        "<orderStatus orderCode=\"a&amp;b\"><payment><lastEvent>REFUSED</lastEvent><IssuerResponseCode code=\"51\" \
         description=\"A & B &#38; C\"/><issuerName>BANK & CO. &unknown &</issuerName>\
         <cardHolderName><![CDATA[X & Y]]></cardHolderName></payment></orderStatus>",
    );
    let mapped = read("worldpay", Operation::Sale, &refused);
    assert_eq!((mapped.outcome, mapped.processor_code.as_deref()), (Outcome::Declined, Some("51")));
    assert_eq!(mapped.message.as_deref(), Some("A & B & C"));
    assert_eq!(mapped.transaction_id.as_deref(), Some("a&b"));
    let said = worldpay("<error code=\"5\"><![CDATA[A & B &amp; C]]></error>");
    assert_eq!(read("worldpay", Operation::Sale, &said).message.as_deref(), Some("A & B &amp; C"));
    let open = worldpay("<error code=\"5\"><![CDATA[A & B</error>");
    assert!(read("worldpay", Operation::Sale, &open).unknown);
}

#[test]
fn a_vantiv_sale() {
    let connector = builtin("vantiv").unwrap();
    let rendered = connector.render(Operation::Sale, &of(sale())).unwrap();
    assert_eq!(rendered.path_and_query, "/communicator/online");
    let head = "<litleOnlineRequest xmlns=\"http://www.litle.com/schema\" version=\"11.4\" merchantId=\"041756\">\
        <authentication><user>USER</user><password>PASS</password></authentication>";
    assert_eq!(
        std::str::from_utf8(&rendered.body).unwrap(),
        format!(
            "{head}<sale id=\"ref_test\" reportGroup=\"Default Report Group\"><orderId>ref_test</orderId>\
             <amount>2020</amount><orderSource>ecommerce</orderSource><billToAddress><zip>94107</zip></billToAddress><card>\
             <type>VI</type><number>{NUMBER}</number><expDate>0330</expDate></card></sale></litleOnlineRequest>"
        )
    );
    let sent = text(&connector, Operation::Sale, &of(merchant()));
    assert!(sent.contains("<orderSource>recurring</orderSource>"), "{sent}");
    assert!(sent.ends_with(
        "</card><originalNetworkTransactionId>1098510912210968</originalNetworkTransactionId></sale></litleOnlineRequest>"
    ));
    let unscheduled =
        StoredCredential { reason: Reason::Unscheduled, ..merchant().stored_credential.unwrap() };
    let sent = text(
        &connector,
        Operation::Authorize,
        &of(Values { stored_credential: Some(unscheduled), ..sale() }),
    );
    assert!(sent.contains("<orderSource>ecommerce</orderSource>"));
    assert!(
        sent.contains("<processingType>merchantInitiatedCOF</processingType><originalNetworkTransactionId>")
    );
    for (reason, word) in [
        (Reason::Recurring, "initialRecurring"),
        (Reason::Installment, "initialInstallment"),
        (Reason::Unscheduled, "initialCOF"),
    ] {
        let sent = text(&connector, Operation::Authorize, &first(reason));
        assert!(
            sent.contains(&format!("<processingType>{word}</processingType>"))
                && sent.contains(">ecommerce<")
        );
    }
    let sent = text(&connector, Operation::Verify, &of(Values { amount: None, ..sale() }));
    assert!(sent.contains("<authorization id=\"ref_test\"") && sent.contains("<amount>0</amount>"), "{sent}");
    let follows = |operation| {
        let sent = text(&connector, operation, &following());
        sent.strip_prefix(head).unwrap().trim_end_matches("</litleOnlineRequest>").to_owned()
    };
    let id = "id=\"ref_test\" reportGroup=\"Default Report Group\"";
    assert_eq!(
        follows(Operation::Capture),
        format!("<capture {id} partial=\"true\"><litleTxnId>T-1</litleTxnId><amount>2020</amount></capture>")
    );
    assert_eq!(
        follows(Operation::Refund),
        format!("<credit {id}><litleTxnId>T-1</litleTxnId><amount>2020</amount></credit>")
    );
    assert_eq!(
        follows(Operation::Void),
        format!("<authReversal {id}><litleTxnId>T-1</litleTxnId></authReversal>")
    );
    assert!(follows(Operation::Lookup).ends_with("<origId>ref_test</origId></queryTransaction>"));
    assert!(connector.refunds_capture() && !builtin("worldpay").unwrap().refunds_capture());
    // A brand that it does not take is refused before anything is sent.
    let mut other = of(sale());
    other.card = other.card.map(|card| Card { brand: Some("mir"), ..card });
    assert!(connector.render(Operation::Sale, &other).is_err());
}

#[test]
fn an_orbital_sale_and_what_follows() {
    let connector = builtin("orbital").unwrap();
    let rendered = connector.render(Operation::Sale, &of(merchant())).unwrap();
    for (name, value) in
        [("Content-Type", "application/PTI95"), ("Document-type", "Request"), ("Merchant-id", "041756")]
    {
        assert_eq!(header(&rendered, name), Some(value));
    }
    let trace = header(&rendered, "Trace-number").unwrap().to_owned();
    assert!(
        trace.len() == 16 && trace.starts_with('9') && trace.bytes().all(|b| b.is_ascii_digit()),
        "{trace}"
    );
    assert_eq!(
        std::str::from_utf8(&rendered.body).unwrap(),
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Request><NewOrder><OrbitalConnectionUsername>USER\
             </OrbitalConnectionUsername><OrbitalConnectionPassword>PASS</OrbitalConnectionPassword><IndustryType>EC\
             </IndustryType><MessageType>AC</MessageType><BIN>000001</BIN><MerchantID>041756</MerchantID><TerminalID>001\
             </TerminalID><AccountNum>{NUMBER}</AccountNum><Exp>0330</Exp><CurrencyCode>840</CurrencyCode>\
             <CurrencyExponent>2</CurrencyExponent><AVSzip>94107</AVSzip><OrderID>ref_test</OrderID><Amount>2020</Amount>\
             <MITMsgType>MREC</MITMsgType><MITStoredCredentialInd>Y</MITStoredCredentialInd><MITSubmittedTransactionID>\
             1098510912210968</MITSubmittedTransactionID></NewOrder></Request>"
        )
    );
    assert!(
        text(&connector, Operation::Authorize, &first(Reason::Unscheduled))
            .contains("<MITMsgType>CSTO</MITMsgType>")
    );
    // Another attempt has another number, the same attempt the same; a look-up asks by it and carries none.
    let other = Values { attempt_id: "att_other", ..of(sale()) };
    assert_ne!(
        header(&connector.render(Operation::Sale, &other).unwrap(), "Trace-number"),
        Some(trace.as_str())
    );
    let asked = connector.render(Operation::Lookup, &following()).unwrap();
    assert_eq!(header(&asked, "Trace-number"), None);
    let asked = String::from_utf8(asked.body.to_vec()).unwrap();
    assert!(asked.contains(&format!("<InquiryRetryNumber>{trace}</InquiryRetryNumber>")), "{asked}");
    // Captures and voids name the order that the payment was sent as, a refund is an order of its own.
    for (operation, order) in
        [(Operation::Capture, "ref_before"), (Operation::Void, "ref_before"), (Operation::Refund, "ref_test")]
    {
        let sent = text(&connector, operation, &following());
        assert!(sent.contains("<TxRefNum>T-1</TxRefNum>"), "{sent}");
        assert!(sent.contains(&format!("<OrderID>{order}</OrderID>")), "{sent}");
    }
}

/// The whole number comes back in every answer, and goes no further.
#[test]
fn an_echoed_number_is_in_no_field() {
    for status in ["0", "1", "2"] {
        let body = format!(
            "<Response><NewOrderResp><AccountNum>{NUMBER}</AccountNum><TxRefNum>T</TxRefNum><ProcStatus>0</ProcStatus>\
             <ApprovalStatus>{status}</ApprovalStatus><RespCode>05</RespCode><AVSRespCode>M8</AVSRespCode>\
             <MITReceivedTransactionID>0123</MITReceivedTransactionID><StatusMsg>s\u{0}</StatusMsg></NewOrderResp></Response>"
        );
        let mapped = read("orbital", Operation::Sale, &body);
        assert_eq!(mapped.network_transaction_id.as_deref(), Some("0123"));
        assert_eq!(mapped.avs.zip, Some(ZipCheck::NoMatch));
        assert!(!serde_json::to_string(&mapped).unwrap().contains(NUMBER));
    }
}

/// Credentials stand in these bodies: no MAC covers them, so that they can be rotated.
#[test]
fn credentials_in_a_body_are_in_no_mac() {
    for name in ["authorize_net", "authorize_net_json", "worldpay", "vantiv", "orbital"] {
        let connector = builtin(name).unwrap();
        let mac = connector.render_for_mac(Operation::Sale, &of(merchant())).unwrap();
        let mac = String::from_utf8_lossy(&mac).into_owned();
        assert!(mac.contains(NUMBER) && mac.contains("ref_test"), "{name}");
        for (_, value) in
            connector.credentials().filter_map(|(field, _)| CREDENTIALS.iter().find(|(f, _)| *f == field))
        {
            assert!(!mac.contains(value), "{name}");
        }
    }
}
