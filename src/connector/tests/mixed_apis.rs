//! BlueSnap, Elavon, NMI, Payflow and PayPal: what is sent, golden, and what look-ups among several transactions say.

use super::super::{
    Amount, Billing, Card, Connector, IdempotencyKind, Initiator, Operation, Outcome, Previous, Reason,
    RenderError, Rendered, SendMoment, StoredCredential, ThreeDSecure, Use, Values, ZipCheck, builtin,
};
use super::{NUMBER, merchant, sale};

/// Every field that one of these connectors declares.
const CREDENTIALS: &[(&str, &str)] = &[
    ("security_key", "k<&>"),
    ("basic", "dTpw"),
    ("merchant_id", "400"),
    ("user_id", "u"),
    ("pin", "p&p"),
    ("vendor", "v"),
    ("partner", "PayPal"),
    ("user", "u"),
    ("password", "p"),
];

fn with<'v>(values: Values<'v>) -> Values<'v> {
    let moment = SendMoment { unix_ms: 0, nonce: "0123456789abcdef0123456789abcdef", mark: "m0" };
    Values { credentials: CREDENTIALS, moment, ..values }
}

/// The first charge: the customer agrees, with a verification code and a finished authentication.
fn initial<'v>(reason: Reason) -> Values<'v> {
    let stored = StoredCredential {
        usage: Use::Initial,
        initiator: Initiator::Customer,
        reason,
        ntid: None,
        original_amount: None,
        ..merchant().stored_credential.unwrap()
    };
    let card = Card { number: NUMBER, exp_month: 3, exp_year: 2030, cvc: Some("737"), brand: Some("visa") };
    let three_d_secure = ThreeDSecure {
        version: Some("2.2.0"),
        eci: Some("05"),
        cavv: Some("AAAB"),
        ds_transaction_id: Some("ds-1"),
    };
    let billing = Billing {
        name: Some("Ada Maria King"),
        line1: Some("1 Main St"),
        city: Some("San Jose"),
        region: Some("CA"),
        country: Some("US"),
        zip: Some("95112"),
        ..Billing::default()
    };
    Values {
        card: Some(card),
        billing,
        three_d_secure: Some(three_d_secure),
        stored_credential: Some(stored),
        ..sale()
    }
}

/// A later charge by the merchant for this reason; `previous` is the processor's own id of the first.
fn later<'v>(reason: Reason, previous: Option<&'v str>, ntid: Option<&'v str>) -> Values<'v> {
    let stored = StoredCredential { reason, previous, ntid, ..merchant().stored_credential.unwrap() };
    Values { stored_credential: Some(stored), ..sale() }
}

/// What follows a payment that the processor calls T1.
fn after<'v>() -> Values<'v> {
    let previous = Previous { transaction: Some("T1"), ..Previous::default() };
    Values { card: None, billing: Billing::default(), previous, ..sale() }
}

fn send(name: &str, operation: Operation, values: Values<'_>) -> Rendered {
    builtin(name).unwrap().render(operation, &with(values)).unwrap()
}

fn text(rendered: &Rendered) -> &str {
    std::str::from_utf8(&rendered.body).unwrap()
}

fn header<'r>(rendered: &'r Rendered, name: &str) -> Option<&'r str> {
    rendered.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// `key=value` lines of a form, decoded.
fn form(rendered: &Rendered) -> String {
    let pairs = form_urlencoded::parse(&rendered.body);
    pairs.map(|(key, value)| format!("{key}={value}\n")).collect()
}

fn found(
    connector: &Connector,
    operation: Operation,
    body: &str,
) -> (Outcome, bool, Option<String>, Option<i64>) {
    let mapped = connector.map_attempt(operation, 200, body.as_bytes(), &["att_test", "ref_test"]);
    (mapped.outcome, mapped.unknown, mapped.processor_code, mapped.amount_approved)
}

// -- NMI ---------------------------------------------------------------------------------------------------------------

#[test]
fn nmi_sends_a_form() {
    let sent = send("nmi", Operation::Sale, sale());
    assert_eq!((sent.method, sent.path_and_query.as_str()), ("POST", "/api/transact.php"));
    assert_eq!(header(&sent, "Content-Type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(
        form(&sent),
        format!(
            "security_key=k<&>\ntype=sale\namount=20.20\ncurrency=USD\norderid=att_test\npayment=creditcard\n\
             ccnumber={NUMBER}\nccexp=0330\nzip=94107\n"
        )
    );
    let first = form(&send("nmi", Operation::Authorize, initial(Reason::Recurring)));
    let tail = "cvv=737\nfirstname=Ada Maria\nlastname=King\naddress1=1 Main St\ncity=San Jose\nstate=CA\nzip=95112\n\
                country=US\ninitiated_by=customer\nstored_credential_indicator=stored\nbilling_method=recurring\n\
                cardholder_auth=verified\ncavv=AAAB\nthree_ds_version=2.2.0\ndirectory_server_id=ds-1\n";
    assert!(first.contains("type=auth\n") && first.ends_with(tail), "{first}");
}

#[test]
fn nmi_names_its_own_first_transaction() {
    let tail = |reason, previous, ntid| {
        let sent = form(&send("nmi", Operation::Sale, later(reason, previous, ntid)));
        sent.split_once("initiated_by=merchant\nstored_credential_indicator=used\n").unwrap().1.to_owned()
    };
    assert_eq!(
        tail(Reason::Installment, Some("7001"), Some("net-1")),
        "billing_method=installment\ninitial_transaction_id=7001\n"
    );
    assert_eq!(tail(Reason::Unscheduled, Some("7001"), None), "initial_transaction_id=7001\n");
    // Begun at another processor: only the network's id is known.
    assert_eq!(tail(Reason::Unscheduled, None, Some("net-1")), "initial_network_transaction_id=net-1\n");
    assert_eq!(tail(Reason::Recurring, None, None), "billing_method=recurring\n");
}

#[test]
fn what_follows_at_nmi() {
    let body = |operation| form(&send("nmi", operation, after()));
    assert_eq!(
        body(Operation::Capture),
        "security_key=k<&>\ntype=capture\ntransactionid=T1\namount=20.20\ncurrency=USD\n"
    );
    assert_eq!(
        body(Operation::Refund),
        "security_key=k<&>\ntype=refund\ntransactionid=T1\namount=20.20\ncurrency=USD\npayment=creditcard\n"
    );
    assert_eq!(body(Operation::Void), "security_key=k<&>\ntype=void\ntransactionid=T1\npayment=creditcard\n");
    let lookup = send("nmi", Operation::Lookup, after());
    assert_eq!(
        (lookup.path_and_query.as_str(), form(&lookup)),
        ("/api/query.php", "security_key=k<&>\norder_id=att_test\n".to_owned())
    );
    let verify = form(&send("nmi", Operation::Verify, sale()));
    assert!(verify.starts_with("security_key=k<&>\ntype=validate\norderid=att_test\n"), "{verify}");
    assert!(!verify.contains("amount"), "{verify}");
    assert_eq!(builtin("nmi").unwrap().idempotency().kind, IdempotencyKind::None);
}

#[test]
fn nmi_is_asked_for_one_attempt_among_several() {
    let nmi = builtin("nmi").unwrap();
    let one = |order: &str, condition: &str, success: &str, code: &str| {
        format!(
            "<transaction><transaction_id>7001</transaction_id><condition>{condition}</condition>\
             <order_id>{order}</order_id><currency>USD</currency><action><amount>20.20</amount>\
             <action_type>sale</action_type><success>{success}</success><response_code>{code}</response_code></action>\
             </transaction>"
        )
    };
    let ask = |operation, inside: &str| {
        found(&nmi, operation, &format!("<?xml version=\"1.0\"?><nm_response>{inside}</nm_response>"))
    };
    let code = |code: &str| Some(code.to_owned());
    let other = one("someone", "complete", "1", "100");
    let approved = (Outcome::Approved, false, code("100"), Some(2020));
    let ours = |condition| format!("{other}{}", one("att_test", condition, "1", "100"));
    assert_eq!(ask(Operation::Lookup, &ours("pendingsettlement")), approved);
    assert_eq!(ask(Operation::Lookup, &ours("pending")), approved);
    assert_eq!(
        ask(Operation::Lookup, &one("att_test", "failed", "0", "202")),
        (Outcome::Declined, false, code("202"), None)
    );
    assert_eq!(ask(Operation::Lookup, &ours("canceled")), (Outcome::Declined, false, code("100"), None));
    // Nobody heard what became of it, or nobody says.
    for unclear in [
        one("att_test", "failed", "0", "421"),
        one("att_test", "unknown", "0", "300"),
        one("att_test", "complete", "0", "100"),
    ] {
        assert!(ask(Operation::Lookup, &unclear).1, "{unclear}");
    }
    for nothing in ["", &other] {
        assert_eq!(ask(Operation::Lookup, nothing), (Outcome::NotFound, false, None, None));
    }
    assert!(ask(Operation::Lookup, "<error_response>Authentication Failed</error_response>").1);
    // A capture is looked for on its authorization: without that, nothing is known.
    assert!(ask(Operation::LookupCapture, "").1);
    assert_eq!(nmi.lookup_for(Operation::Refund), None);
}

// -- BlueSnap ----------------------------------------------------------------------------------------------------------

#[test]
fn bluesnap_sends_xml() {
    let sent = send("bluesnap", Operation::Sale, sale());
    assert_eq!((sent.method, sent.path_and_query.as_str()), ("POST", "/services/2/transactions"));
    assert_eq!(header(&sent, "Authorization"), Some("Basic dTpw"));
    assert_eq!(header(&sent, "Content-Type"), Some("application/xml"));
    assert_eq!(header(&sent, "Idempotency-Key"), Some("att_test"));
    assert_eq!(
        text(&sent),
        format!(
            "<card-transaction xmlns=\"http://ws.plimus.com\"><card-transaction-type>AUTH_CAPTURE</card-transaction-type>\
             <recurring-transaction>ECOMMERCE</recurring-transaction><merchant-transaction-id>att_test</merchant-transaction-id>\
             <store-card>false</store-card><amount>20.20</amount><currency>USD</currency>\
             <card-holder-info><zip>94107</zip></card-holder-info>\
             <credit-card><card-number>{NUMBER}</card-number><expiration-month>3</expiration-month>\
             <expiration-year>2030</expiration-year></credit-card></card-transaction>"
        )
    );
}

#[test]
fn stored_credentials_at_bluesnap() {
    let body = |values| text(&send("bluesnap", Operation::Authorize, values)).to_owned();
    let first = body(initial(Reason::Recurring));
    for part in [
        "<card-transaction-type>AUTH_ONLY<",
        "<recurring-transaction>ECOMMERCE<",
        "<transaction-initiator>SHOPPER<",
        "<three-d-secure><eci>05</eci><cavv>AAAB</cavv><three-d-secure-version>2.2.0</three-d-secure-version>",
        "<first-name>Ada Maria</first-name><last-name>King</last-name><country>US</country><state>CA</state>",
        "<security-code>737<",
    ] {
        assert!(first.contains(part), "{part} not in {first}");
    }
    assert!(!first.contains("network-transaction-info"));
    let charged = body(later(Reason::Recurring, None, Some("net-1")));
    let part = "<transaction-initiator>MERCHANT</transaction-initiator><network-transaction-info>\
                <original-network-transaction-id>net-1</original-network-transaction-id></network-transaction-info>";
    assert!(charged.contains(part) && charged.contains(">RECURRING<"), "{charged}");
    assert_eq!(charged.matches("<recurring-transaction>").count(), 1);
    let charged = body(later(Reason::Unscheduled, None, Some("net-1")));
    assert!(charged.contains(part) && charged.contains(">ECOMMERCE<"), "{charged}");
    assert_eq!(charged.matches("<recurring-transaction>").count(), 1);
}

#[test]
fn what_follows_at_bluesnap() {
    let capture = send("bluesnap", Operation::Capture, after());
    assert_eq!((capture.method, capture.path_and_query.as_str()), ("PUT", "/services/2/transactions"));
    assert_eq!(
        text(&capture),
        "<card-transaction xmlns=\"http://ws.plimus.com\"><card-transaction-type>CAPTURE</card-transaction-type>\
         <transaction-id>T1</transaction-id><amount>20.20</amount><currency>USD</currency>\
         <merchant-transaction-id>att_test</merchant-transaction-id></card-transaction>"
    );
    let refund = send("bluesnap", Operation::Refund, after());
    assert_eq!(
        (refund.method, refund.path_and_query.as_str()),
        ("POST", "/services/2/transactions/refund/T1")
    );
    assert!(text(&refund).starts_with("<refund xmlns=\"http://ws.plimus.com\"><amount>20.20</amount>"));
    let void = send("bluesnap", Operation::Void, after());
    assert!(void.method == "PUT" && text(&void).contains(">AUTH_REVERSAL<"), "{}", text(&void));
    let lookup = send("bluesnap", Operation::Lookup, after());
    assert_eq!(
        (lookup.method, lookup.path_and_query.as_str()),
        ("GET", "/services/2/transactions/att_test,400")
    );
    assert!(lookup.body.is_empty() && header(&lookup, "Idempotency-Key").is_none());
    let connector = builtin("bluesnap").unwrap();
    assert_eq!(connector.undo_for(Operation::Sale), Some(Operation::Refund));
    assert_eq!(connector.check_amount(1050, "ILS"), Err(RenderError::AmountNotRepresentable));
    assert_eq!(connector.check_amount(1000, "ILS"), Ok(()));
}

// -- Elavon ------------------------------------------------------------------------------------------------------------

fn elavon(operation: Operation, values: Values<'_>) -> String {
    let sent = send("elavon", operation, values);
    assert_eq!((sent.method, sent.path_and_query.as_str()), ("POST", "/processxml.do"));
    let pairs: Vec<(String, String)> = form_urlencoded::parse(&sent.body).into_owned().collect();
    let [(key, xml)] = pairs.as_slice() else { panic!("{}", text(&sent)) };
    assert_eq!(key, "xmldata");
    let who =
        "<txn><ssl_merchant_id>400</ssl_merchant_id><ssl_user_id>u</ssl_user_id><ssl_pin>p&amp;p</ssl_pin>";
    xml.strip_prefix(who).unwrap_or_else(|| panic!("{xml}")).strip_suffix("</txn>").unwrap().to_owned()
}

#[test]
fn elavon_sends_xml_in_a_form() {
    assert_eq!(
        elavon(Operation::Sale, sale()),
        format!(
            "<ssl_transaction_type>CCSALE</ssl_transaction_type><ssl_amount>20.20</ssl_amount>\
             <ssl_card_number>{NUMBER}</ssl_card_number><ssl_exp_date>0330</ssl_exp_date>\
             <ssl_invoice_number>ref_test</ssl_invoice_number><ssl_merchant_txn_id>ref_test</ssl_merchant_txn_id>\
             <ssl_avs_zip>94107</ssl_avs_zip>"
        )
    );
    let yen = Values { amount: Some(Amount { minor: 500, currency: "JPY" }), ..sale() };
    assert!(elavon(Operation::Authorize, yen).starts_with(
        "<ssl_transaction_type>CCAUTHONLY</ssl_transaction_type><ssl_amount>500</ssl_amount>\
             <ssl_transaction_currency>JPY</ssl_transaction_currency>"
    ));
    let partial = elavon(Operation::Sale, Values { allow_partial: true, ..sale() });
    assert!(partial.contains("<ssl_partial_auth_indicator>1</ssl_partial_auth_indicator>"), "{partial}");
}

#[test]
fn stored_credentials_at_elavon() {
    let first = elavon(Operation::Sale, initial(Reason::Recurring));
    assert!(first.ends_with("<ssl_recurring_flag>1</ssl_recurring_flag>"), "{first}");
    assert!(first.contains("<ssl_cvv2cvc2>737</ssl_cvv2cvc2><ssl_cvv2cvc2_indicator>1<"), "{first}");
    let tail = |reason, ntid: &str| {
        let sent = elavon(Operation::Sale, later(reason, None, Some(ntid)));
        sent.split_once("</ssl_avs_zip>").unwrap().1.to_owned()
    };
    let unscheduled = "<ssl_merchant_initiated_unscheduled>Y</ssl_merchant_initiated_unscheduled>";
    let (oar, ps2000) =
        ("010012318808182231420000047554200000000000093840023122123188", "A8181831435010530042VE");
    let both = format!("<ssl_oar_data>{oar}</ssl_oar_data><ssl_ps2000_data>{ps2000}</ssl_ps2000_data>");
    let only = |name: &str, value: &str| format!("<{name}>{value}</{name}>");
    let recurring = format!("{unscheduled}<ssl_recurring_flag>1</ssl_recurring_flag>");
    // What Converge answers is one of the two; another client's value holds both, or the other.
    assert_eq!(tail(Reason::Recurring, ps2000), format!("{recurring}{}", only("ssl_ps2000_data", ps2000)));
    for (ntid, sent) in [
        (format!("{oar}|{ps2000}"), both),
        (format!("{oar}|"), only("ssl_oar_data", oar)),
        (oar.to_owned(), only("ssl_oar_data", oar)),
        (format!("|{ps2000}"), only("ssl_ps2000_data", ps2000)),
    ] {
        assert_eq!(tail(Reason::Recurring, &ntid), format!("{recurring}{sent}"), "{ntid}");
    }
    assert_eq!(
        tail(Reason::Unscheduled, ps2000),
        format!("<ssl_entry_mode>12</ssl_entry_mode>{unscheduled}{}", only("ssl_ps2000_data", ps2000))
    );
    assert!(tail(Reason::Installment, ps2000).starts_with("<ssl_recurring_flag>2</ssl_recurring_flag>"));
}

#[test]
fn what_follows_at_elavon() {
    let capture = Values { capture_final: true, ..after() };
    assert_eq!(
        elavon(Operation::Capture, capture),
        "<ssl_transaction_type>CCCOMPLETE</ssl_transaction_type><ssl_txn_id>T1</ssl_txn_id><ssl_amount>20.20</ssl_amount>"
    );
    assert!(
        elavon(Operation::Capture, after())
            .ends_with("<ssl_partial_shipment_flag>Y</ssl_partial_shipment_flag>")
    );
    assert_eq!(
        elavon(Operation::Refund, after()),
        "<ssl_transaction_type>CCRETURN</ssl_transaction_type><ssl_txn_id>T1</ssl_txn_id><ssl_amount>20.20</ssl_amount>"
    );
    assert_eq!(
        elavon(Operation::Void, after()),
        "<ssl_transaction_type>CCDELETE</ssl_transaction_type><ssl_txn_id>T1</ssl_txn_id>"
    );
    assert_eq!(
        elavon(Operation::Lookup, after()),
        "<ssl_transaction_type>txnquery</ssl_transaction_type><ssl_merchant_txn_id>ref_test</ssl_merchant_txn_id>"
    );
    assert!(elavon(Operation::Verify, sale()).starts_with("<ssl_transaction_type>CCVERIFY<"));
}

#[test]
fn elavon_is_asked_for_one_attempt() {
    let elavon = builtin("elavon").unwrap();
    let ask = |count: u32, transaction: &str| {
        let body = format!("<txnlist><ssl_txn_count>{count}</ssl_txn_count>{transaction}</txnlist>");
        found(&elavon, Operation::Lookup, &body)
    };
    let one = |invoice: &str, status: &str, message: &str| {
        format!(
            "<txn><ssl_txn_id>7</ssl_txn_id><ssl_trans_status>{status}</ssl_trans_status><ssl_amount>20.20</ssl_amount>\
             <ssl_invoice_number>{invoice}</ssl_invoice_number><ssl_result_message>{message}</ssl_result_message></txn>"
        )
    };
    let approved = |code: &str| (Outcome::Approved, false, Some(code.to_owned()), Some(2020));
    assert_eq!(ask(1, &one("ref_test", "OPN", "APPROVAL")), approved("OPN"));
    assert_eq!(ask(1, &one("ref_test", "STL", "APPROVAL")), approved("STL"));
    assert_eq!(ask(1, &one("ref_test", "FPR", "APPROVAL")).0, Outcome::Declined);
    assert_eq!(ask(0, "").0, Outcome::NotFound);
    assert_eq!(ask(1, &one("someone", "OPN", "APPROVAL")).0, Outcome::NotFound);
    // A longer list may go on elsewhere, and a refused question proves nothing.
    assert!(ask(2, &one("someone", "OPN", "APPROVAL")).1);
    assert!(found(&elavon, Operation::Lookup, "<txn><errorCode>4014</errorCode></txn>").1);
    assert!(found(&elavon, Operation::Lookup, "<txnlist/>").1);
}

// -- Payflow -----------------------------------------------------------------------------------------------------------

/// The document between who asks and who may.
fn payflow(operation: Operation, values: Values<'_>) -> String {
    let sent = send("payflow", operation, values);
    assert_eq!((sent.method, sent.path_and_query.as_str()), ("POST", "/"));
    assert_eq!(header(&sent, "Content-Type"), Some("text/xml"));
    let request_id = if operation.is_lookup() { "0123456789abcdef0123456789abcdef" } else { "ref_test" };
    assert_eq!(header(&sent, "X-VPS-Request-ID"), Some(request_id));
    let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><XMLPayRequest xmlns=\"http://www.paypal.com/XMLPay\" \
                Timeout=\"60\" version=\"2.1\"><RequestData><Vendor>v</Vendor><Partner>PayPal</Partner>\
                <Transactions><Transaction";
    let tail = "</Transaction></Transactions></RequestData><RequestAuth><UserPass><User>u</User><Password>p</Password>\
                </UserPass></RequestAuth></XMLPayRequest>";
    let inside = text(&sent).strip_prefix(head).unwrap_or_else(|| panic!("{}", text(&sent)));
    inside.strip_suffix(tail).unwrap_or_else(|| panic!("{inside}")).to_owned()
}

#[test]
fn payflow_sends_xmlpay() {
    assert_eq!(
        payflow(Operation::Sale, sale()),
        format!(
            " CustRef=\"ref_test\"><Verbosity>MEDIUM</Verbosity><Sale><PayData><Invoice><InvNum>ref_test</InvNum>\
             <BillTo><Address><Zip>94107</Zip></Address></BillTo><TotalAmt Currency=\"USD\">20.20</TotalAmt></Invoice>\
             <Tender><Card><CardType>Visa</CardType><CardNum>{NUMBER}</CardNum><ExpDate>203003</ExpDate></Card></Tender>\
             </PayData></Sale>"
        )
    );
    // Only brands that it has a word for.
    let mut other = sale();
    if let Some(card) = other.card.as_mut() {
        card.brand = Some("maestro");
    }
    assert!(!payflow(Operation::Sale, other).contains("CardType"));
}

#[test]
fn stored_credentials_at_payflow() {
    let on_file = |values| {
        let sent = payflow(Operation::Authorize, values);
        assert!(sent.contains("<Authorization>") && sent.ends_with("</PayData></Authorization>"), "{sent}");
        sent.split_once("</Tender>").unwrap().1.split_once("</PayData>").unwrap().0.to_owned()
    };
    let later = |reason| on_file(later(reason, None, Some("net-1")));
    assert_eq!(on_file(initial(Reason::Recurring)), "<CardOnFile>CITR</CardOnFile>");
    assert_eq!(on_file(initial(Reason::Unscheduled)), "<CardOnFile>CITI</CardOnFile>");
    assert_eq!(later(Reason::Recurring), "<CardOnFile>MITR</CardOnFile><TxnId>net-1</TxnId>");
    assert_eq!(later(Reason::Installment), "<CardOnFile>MITR</CardOnFile><TxnId>net-1</TxnId>");
    assert_eq!(later(Reason::Unscheduled), "<CardOnFile>MITU</CardOnFile><TxnId>net-1</TxnId>");
    assert_eq!(on_file(sale()), "");
    let first = payflow(Operation::Sale, initial(Reason::Recurring));
    let card = "<NameOnCard>Ada Maria</NameOnCard><CVNum>737</CVNum><BuyerAuthResult><ECI>05</ECI><CAVV>AAAB</CAVV>\
                </BuyerAuthResult><ExtData Name=\"THREEDSVERSION\" Value=\"2.2.0\"/>\
                <ExtData Name=\"DSTRANSACTIONID\" Value=\"ds-1\"/><ExtData Name=\"LASTNAME\" Value=\"King\"/></Card>";
    assert!(first.contains(card), "{first}");
}

#[test]
fn what_follows_at_payflow() {
    let inside = |operation| {
        let sent = payflow(operation, after());
        sent.split_once("<Verbosity>MEDIUM</Verbosity>").unwrap().1.to_owned()
    };
    let amount = "<Invoice><TotalAmt Currency=\"USD\">20.20</TotalAmt></Invoice>";
    assert_eq!(inside(Operation::Capture), format!("<Capture><PNRef>T1</PNRef>{amount}</Capture>"));
    assert_eq!(inside(Operation::Refund), format!("<Credit><PNRef>T1</PNRef>{amount}</Credit>"));
    assert_eq!(inside(Operation::Void), "<Void><PNRef>T1</PNRef></Void>");
    assert_eq!(
        inside(Operation::Lookup),
        "<GetStatus><ExtData Name=\"CUSTREF\" Value=\"ref_test\"/></GetStatus>"
    );
    assert!(payflow(Operation::Verify, sale()).contains("<TotalAmt Currency=\"USD\">0.00</TotalAmt>"));
    assert!(builtin("payflow").unwrap().captures_once());
}

/// A reference is longer than Payflow takes: both questions cut it alike.
#[test]
fn payflows_reference_is_cut() {
    let long = Values { attempt_ref: "abcdefghijklmnopqrst", ..after() };
    let body = |operation| text(&send("payflow", operation, long)).to_owned();
    assert!(body(Operation::Capture).contains("CustRef=\"abcdefghijkl\""));
    assert!(body(Operation::Lookup).contains("Value=\"abcdefghijkl\""));
}

// -- PayPal ------------------------------------------------------------------------------------------------------------

#[test]
fn paypal_takes_an_order() {
    let sent = send("paypal", Operation::Sale, sale());
    assert_eq!((sent.method, sent.path_and_query.as_str()), ("POST", "/v2/checkout/orders"));
    assert_eq!(header(&sent, "PayPal-Request-Id"), Some("att_test"));
    assert_eq!(header(&sent, "Prefer"), Some("return=representation"));
    assert!(header(&sent, "Authorization").is_some_and(|value| value.starts_with("Bearer ")));
    assert_eq!(
        text(&sent),
        format!(
            "{{\"intent\":\"CAPTURE\",\"purchase_units\":[{{\"custom_id\":\"att_test\",\"invoice_id\":\"ref_test\",\
             \"amount\":{{\"currency_code\":\"USD\",\"value\":\"20.20\"}}}}],\"payment_source\":{{\"card\":{{\
             \"number\":\"{NUMBER}\",\"expiry\":\"2030-03\"}}}}}}"
        )
    );
    let [(_, step)] = sent.steps.as_slice() else { panic!("one step") };
    assert_eq!(
        (step.path_and_query.as_str(), text(step)),
        ("/v1/oauth2/token", "grant_type=client_credentials")
    );
    assert_eq!(header(step, "Authorization"), Some("Basic dTpw"));
    assert_eq!(header(step, "PayPal-Request-Id"), None);
    let token = builtin("paypal").unwrap();
    let token =
        token.read_step(0, 200, br#"{"access_token":"A21","token_type":"Bearer","expires_in":32400}"#);
    assert_eq!(token.unwrap().keep.unwrap().as_secs(), 29_160);
}

#[test]
fn stored_credentials_at_paypal() {
    let card = |values| {
        let sent = send("paypal", Operation::Authorize, values);
        let order: serde_json::Value = serde_json::from_slice(&sent.body).unwrap();
        assert_eq!(order["intent"], "AUTHORIZE");
        order["payment_source"]["card"].clone()
    };
    let first = card(initial(Reason::Recurring));
    assert_eq!(
        first["stored_credential"],
        serde_json::json!({ "payment_initiator": "CUSTOMER", "payment_type": "RECURRING", "usage": "FIRST" })
    );
    assert_eq!(
        first["billing_address"],
        serde_json::json!({ "address_line_1": "1 Main St", "admin_area_2": "San Jose", "admin_area_1": "CA",
            "postal_code": "95112", "country_code": "US" })
    );
    assert_eq!((&first["security_code"], &first["name"]), (&"737".into(), &"Ada Maria King".into()));
    assert_eq!(
        card(later(Reason::Unscheduled, None, Some("net-1")))["stored_credential"],
        serde_json::json!({ "payment_initiator": "MERCHANT", "payment_type": "UNSCHEDULED", "usage": "SUBSEQUENT",
            "previous_network_transaction_reference": { "id": "net-1", "network": "VISA" } })
    );
    let unknown = card(later(Reason::Installment, None, None));
    assert_eq!(unknown["stored_credential"].as_object().unwrap().len(), 3);
}

#[test]
fn what_follows_at_paypal() {
    let body = |operation| {
        let sent = send("paypal", operation, Values { capture_final: true, ..after() });
        assert_eq!(sent.steps.len(), 1);
        (sent.path_and_query.clone(), text(&sent).to_owned())
    };
    let amount = "{\"amount\":{\"currency_code\":\"USD\",\"value\":\"20.20\"}";
    assert_eq!(
        body(Operation::Capture),
        (
            "/v2/payments/authorizations/T1/capture".to_owned(),
            format!("{amount},\"invoice_id\":\"ref_test\",\"final_capture\":true}}")
        )
    );
    assert_eq!(
        body(Operation::Refund),
        (
            "/v2/payments/captures/T1/refund".to_owned(),
            format!("{amount},\"custom_id\":\"att_test\",\"invoice_id\":\"ref_test\"}}")
        )
    );
    assert_eq!(body(Operation::Void).0, "/v2/payments/authorizations/T1/void");
    assert_eq!(body(Operation::Lookup).0, "/v2/payments/captures/T1");
    assert_eq!(body(Operation::LookupVoid).0, "/v2/payments/authorizations/T1");
    let paypal = builtin("paypal").unwrap();
    assert_eq!(paypal.check_amount(150, "HUF"), Err(RenderError::AmountNotRepresentable));
    assert!(paypal.smallest_amounts().any(|(currency, amount)| (currency, amount) == ("USD", 100)));
    assert_eq!(paypal.lookup_for(Operation::Refund), None);
}

// -- all of them -------------------------------------------------------------------------------------------------------

/// What a plain charge by the merchant has is enough everywhere, and no value is asked for that it lacks.
#[test]
fn a_bare_charge_by_the_merchant_is_enough() {
    for name in ["bluesnap", "elavon", "nmi", "payflow", "paypal"] {
        for ntid in [None, Some("A8181831435010530042VE")] {
            let bare = Values { billing: Billing::default(), ..later(Reason::Recurring, None, ntid) };
            let sent = builtin(name).unwrap().render(Operation::Sale, &with(bare)).unwrap();
            assert!(text(&sent).contains(NUMBER), "{name}");
        }
        let verify = builtin(name).unwrap().render(Operation::Verify, &with(sale()));
        assert_eq!(verify.is_ok(), name != "paypal", "{name}");
    }
}

#[test]
fn values_cannot_leave_their_places() {
    let evil = "</ssl_pin>&amp=1\"'<x/>&xmldata=";
    let values = || Values { description: Some(evil), ..sale() };
    let escaped = "&lt;/ssl_pin&gt;&amp;amp=1&quot;&apos;&lt;x/&gt;&amp;xmldata=";
    assert!(
        elavon(Operation::Sale, values()).contains(&format!("<ssl_description>{escaped}</ssl_description>"))
    );
    assert!(payflow(Operation::Sale, values()).contains(&format!("<Description>{escaped}</Description>")));
    assert!(form(&send("nmi", Operation::Sale, values())).contains(&format!("orderdescription={evil}\n")));
    let order: serde_json::Value =
        serde_json::from_slice(&send("paypal", Operation::Sale, values()).body).unwrap();
    assert_eq!(order["purchase_units"][0]["description"], evil);
    let id = Previous { transaction: Some("T/../1?x=<y>"), ..Previous::default() };
    let sent = send("bluesnap", Operation::Refund, Values { previous: id, ..after() });
    assert_eq!(sent.path_and_query, "/services/2/transactions/refund/T%2F..%2F1%3Fx%3D%3Cy%3E");
}

#[test]
fn the_zip_check_of_each() {
    let nmi = |letter: &str| {
        let body = format!("response=1&response_code=100&avsresponse={letter}");
        builtin("nmi").unwrap().map(Operation::Sale, 200, body.as_bytes()).avs.zip
    };
    assert_eq!(nmi("Y"), Some(ZipCheck::Match));
    assert_eq!(nmi("A"), Some(ZipCheck::NoMatch));
    assert_eq!(nmi("R"), Some(ZipCheck::Unavailable));
    assert_eq!(nmi("G"), Some(ZipCheck::NotSupported));
    assert_eq!(nmi("?"), None);
    let payflow = |zip: &str| {
        let body = format!("<ResponseData><Result>0</Result><ZipMatch>{zip}</ZipMatch></ResponseData>");
        builtin("payflow").unwrap().map(Operation::Sale, 200, body.as_bytes()).avs.zip
    };
    assert_eq!(payflow("Match"), Some(ZipCheck::Match));
    assert_eq!(payflow("Service Not Requested"), Some(ZipCheck::NotChecked));
}

/// The filters that a reference of two parts and a name in two fields need.
#[test]
fn a_value_in_parts() {
    let text = super::super::builtin_text("elavon").unwrap();
    let changed = text.replace(
        "<ssl_oar_data>{?stored_credential.ntid|first|min 23}</ssl_oar_data>",
        "<ssl_oar_data>{stored_credential.ntid|first|min 23}</ssl_oar_data>",
    );
    let strict = Connector::parse("elavon.toml", &changed).unwrap();
    let short = later(Reason::Recurring, None, Some("short"));
    assert_eq!(
        strict.render(Operation::Sale, &with(short)).err(),
        Some(RenderError::Missing("stored_credential.ntid".to_owned()))
    );
    let one_word = Values { billing: Billing { name: Some("Ada"), ..Billing::default() }, ..sale() };
    let sent = elavon(Operation::Sale, one_word);
    assert!(
        sent.contains("<ssl_first_name>Ada</ssl_first_name><ssl_last_name>Ada</ssl_last_name>"),
        "{sent}"
    );
    for (old, new, expected) in [
        ("|min 23}", "|min x}", "`|min x` is not a filter"),
        ("{amount.decimal}", "{amount.minor|first}", "`amount.minor` cannot take `|first`"),
        ("{?card.cvc}", "{?card.cvc|max 3}", "`card.cvc` cannot take `|max 3`"),
    ] {
        let faults = Connector::parse("elavon.toml", &text.replace(old, new)).unwrap_err();
        assert!(faults.iter().any(|fault| fault.to_string().contains(expected)), "{faults:?}");
    }
}

/// A field that only says whose account it is may stand in a path; a secret may not.
#[test]
fn only_a_public_credential_stands_in_a_path() {
    let text = super::super::builtin_text("bluesnap").unwrap();
    let secret = text.replace(", public = true", "");
    let faults = Connector::parse("bluesnap.toml", &secret).unwrap_err();
    assert!(
        faults[0].to_string().contains("`cred.merchant_id` stands in a path")
            || faults[0].to_string().contains("stands in a path"),
        "{faults:?}"
    );
    let basic = text.replace("{cred.merchant_id}", "{cred.basic}");
    assert!(Connector::parse("bluesnap.toml", &basic).is_err());
    let odd = text.replace("public = true", "public = \"yes\"");
    assert!(Connector::parse("bluesnap.toml", &odd).is_err());
    let shown = builtin("bluesnap").unwrap().render_for_show(Operation::Lookup, &with(after())).unwrap();
    assert!(!shown.path_and_query.contains("400"), "{}", shown.path_and_query);
}
