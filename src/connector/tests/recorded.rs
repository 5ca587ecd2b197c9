//! What a well-known client puts on the wire, where its recordings lie beside the project: ours holds every field of theirs with the
//! same value, but for what is listed here with its reason.

use roxmltree::{Document, Node, ParsingOptions};
use serde_json::Value;

use super::super::{
    Amount, Billing, Card, EndpointParts, Initiator, Operation, Previous, Reason, Rendered, SendMoment,
    StoredCredential, ThreeDSecure, Use, Values, Word, builtin,
};
use super::{NUMBER, merchant, sale};

/// What each recording is of: file, amount, currency, our reference, previous transaction, agreement; a dash where there is none.
/// An agreement is use, initiator, reason, and the network's or the processor's id of the first charge.
const RECORDED: &[&str] = &[
    "adyen/authorize_and_capture_with_network_transaction_id__authorize 100 USD 345123 - subsequent customer unscheduled",
    "adyen/authorize_and_capture_with_network_transaction_id__capture 100 USD 345123 853623109930081E",
    "adyen/stored_credential_recurring_cit_initial__authorize 100 GBP #1001 - initial customer recurring",
    "authorize_net/successful_auth_with_initial_installment_stored_credential__authorize 100 USD 1 - initial customer installment",
    "authorize_net/successful_auth_with_initial_reccuring_stored_credential__authorize 100 USD 1 - initial customer recurring",
    "authorize_net/successful_capture__capture 100 USD 1 2214269051",
    "bluesnap/successful_capture__capture 100 USD 1 #<ActiveMerchant::Billing::CreditCard:0x00007f8836e4a258>",
    "bluesnap/successful_purchase_with_cit_stored_credential_fields__purchase 100 USD 1 - subsequent customer unscheduled ABC123",
    "checkout/successful_purchase_with_stored_credentials__purchase 100 USD r - subsequent merchant recurring - pay_7jcf4ovmwnqedhtldca3fjli2y",
    "checkout/successful_refund__refund 100 USD r pay_bgv5tmah6fmuzcmcrcro6exe6m",
    "cybersource/stored_credential_cit_initial__authorize 100 USD 1 - initial customer recurring",
    "cybersource/stored_credential_recurring_cit__authorize 100 USD 1 - subsequent customer recurring",
    "elavon/oar_only_network_transaction_id__purchase 100 USD 1 - subsequent merchant recurring 010012318808182231420000047554200000000000093840023122123188",
    "elavon/stored_credential_pass_in_initial_recurring_request__purchase 100 USD 1 - subsequent merchant recurring",
    "elavon/successful_capture__capture 100 USD 1 T-1",
    "nmi/purchase_with_stored_credential__purchase 100 GBP #1001 - subsequent merchant installment - abc123",
    "nmi/stored_credential_installment_cit_initial__authorize 100 GBP #1001 - initial customer installment",
    "nmi/successful_refund__refund 100 USD r 2762757839",
    "orbital/stored_credential_installment_cit_initial__purchase 50 GBP 1001 - initial customer installment",
    "orbital/stored_credential_installment_cit_used__purchase 50 GBP 1001 - subsequent customer installment",
    "orbital/successful_refund__refund 100 CAD 1 123456789",
    "payflow/successful_purchase_with_stored_credential__purchase 100 USD r - subsequent merchant unscheduled 123",
    "stripe/succesful_purchase_with_initial_cit_installment__purchase 2020 USD r - initial customer installment",
    "stripe/succesful_purchase_with_mit_recurring__purchase 2020 USD r - subsequent merchant recurring 1098510912210968",
    "vantiv/stored_credential_cit_card_on_file_initial__authorize 100 USD r - initial customer unscheduled",
    "vantiv/stored_credential_cit_card_on_file_used__authorize 100 USD r - subsequent customer unscheduled",
    "vantiv/successful_refund__refund 100 USD r 100000000000000006",
    "worldpay/authorize_passes_correct_stored_credential_options_for_first_recurring__authorize 100 GBP 1 - initial merchant recurring",
    "worldpay/authorize_stored_credentials_for_initial_customer_transaction__authorize 100 GBP 1 - initial customer unscheduled",
];

const NO_FIELD: &str = "contracts.md, \"Charges\": a charge has no such field";
const OWN_WORD: &str = "the client's own name, or its partner's";
const COMPLETE: &str = "a capture is CCCOMPLETE of the authorization and carries no card: \
    https://developer.elavon.com/na/docs/converge/1.0.0/integration-guide/transaction_types/credit_card/complete";
const SECURITY_KEY: &str = "`security_key` stands for both: see nmi.toml and its sources";

/// What they send otherwise, or besides: how the recording's name begins, how the way to it ends, and why. Each must be met. Credentials
/// are not compared.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("adyen/", "/telephoneNumber", NO_FIELD),
    ("adyen/", "/shopperIP", NO_FIELD),
    ("adyen/", "/shopperEmail", "no e-mail is given here"),
    (
        "adyen/",
        "/shopperReference",
        "https://docs.adyen.com/api-explorer/Payment/68/post/authorise: for Adyen's own tokens",
    ),
    ("adyen/", "/shopperName/firstName", "`card.holderName` holds it: same source"),
    ("adyen/", "/shopperName/lastName", "the same"),
    ("adyen/", "/deliveryAddress/street", NO_FIELD),
    ("adyen/", "/deliveryAddress/houseNumberOrName", NO_FIELD),
    ("adyen/", "/deliveryAddress/postalCode", NO_FIELD),
    ("adyen/", "/deliveryAddress/city", NO_FIELD),
    ("adyen/", "/deliveryAddress/stateOrProvince", NO_FIELD),
    ("adyen/", "/deliveryAddress/country", NO_FIELD),
    ("adyen/", "/installments/value", "no instalments are asked for here"),
    ("authorize_net/", "/company", NO_FIELD),
    ("authorize_net/", "/phoneNumber", NO_FIELD),
    ("authorize_net/", "/faxNumber", NO_FIELD),
    ("authorize_net/", "/userField/name", "`currencyCode`: https://developer.authorize.net/api/reference"),
    ("authorize_net/", "/userField/value", "the same"),
    ("authorize_net/successful_capture", "/order/description", "the same source; the first request holds it"),
    ("bluesnap/", "/xid", "3-D Secure 1, which no network takes any more"),
    ("bluesnap/", "/personal-identification-number", NO_FIELD),
    (
        "checkout/",
        "/source/first_name",
        "`source.name`: https://api-reference.checkout.com/#operation/requestAPaymentOrPayout",
    ),
    ("checkout/", "/source/last_name", "the same"),
    ("checkout/", "/customer/name", "the same; the customer is the caller's reference"),
    ("checkout/", "/metadata/udf5", OWN_WORD),
    ("cybersource/", "/billTo/phoneNumber", NO_FIELD),
    ("elavon/", "/ssl_company", NO_FIELD),
    ("elavon/", "/ssl_phone", NO_FIELD),
    ("elavon/successful_capture", "/ssl_transaction_type", COMPLETE),
    ("elavon/successful_capture", "/ssl_approval_code", COMPLETE),
    ("elavon/successful_capture", "/ssl_card_number", COMPLETE),
    ("elavon/successful_capture", "/ssl_exp_date", COMPLETE),
    ("elavon/successful_capture", "/ssl_cvv2cvc2", COMPLETE),
    ("elavon/successful_capture", "/ssl_cvv2cvc2_indicator", COMPLETE),
    ("elavon/successful_capture", "/ssl_first_name", COMPLETE),
    ("elavon/successful_capture", "/ssl_last_name", COMPLETE),
    (
        "nmi/",
        "dup_seconds",
        "the account's window goes by card and amount, and refuses what it should not: see nmi.toml",
    ),
    ("nmi/", "customer_id", NO_FIELD),
    ("nmi/", "tax", NO_FIELD),
    ("nmi/", "shipping", NO_FIELD),
    ("nmi/", "ponumber", NO_FIELD),
    ("nmi/", "username", SECURITY_KEY),
    ("nmi/", "password", SECURITY_KEY),
    ("orbital/successful_refund", "/CardIndicators", "asks for facts of the card that nobody reads here"),
    ("payflow/", "/BillTo/Name", "one name for card and address; theirs are two persons"),
    ("payflow/", "/BillTo/Phone", NO_FIELD),
    ("payflow/", "/Sale/ExtData/@Name", OWN_WORD),
    ("payflow/", "/Sale/ExtData/@Value", OWN_WORD),
    (
        "stripe/",
        "payment_method",
        "`payment_method_data` holds the card: https://docs.stripe.com/api/payment_intents/create",
    ),
    ("stripe/", "expand[1]", "no fee is read"),
    ("vantiv/", "/litleOnlineRequest/@version", "11.4 of the vendor's schema, whose fields are used"),
];
/// In the form that every key must have; ours hold it where theirs hold their credentials.
const CREDENTIAL: &str = "AAECAwQFBgcICQoLDA0ODw==";

fn card(processor: &str) -> Card<'static> {
    let card = Card { number: NUMBER, exp_month: 9, exp_year: 2027, cvc: Some("123"), brand: Some("visa") };
    match processor {
        "adyen" => {
            Card { number: "4111111111111111", exp_month: 8, exp_year: 2018, cvc: Some("737"), ..card }
        }
        "cybersource" => {
            Card { number: "4111111111111111", exp_month: 12, exp_year: 2031, cvc: Some("987"), ..card }
        }
        _ => card,
    }
}

fn billing(processor: &str) -> Billing<'static> {
    let canada = Billing {
        name: Some("Longbob Longsen"),
        zip: Some("K1C2N6"),
        line1: Some("456 My Street"),
        line2: Some("Apt 1"),
        city: Some("Ottawa"),
        region: Some("ON"),
        country: Some("CA"),
        ..Billing::default()
    };
    match processor {
        "adyen" => Billing { name: Some("Test Card"), ..canada },
        // One field for the street.
        "authorize_net" => Billing { line1: Some("456 My Street Apt 1"), line2: None, ..canada },
        "cybersource" => Billing {
            name: Some("John Doe"),
            line1: Some("1 Market St"),
            line2: None,
            city: Some("san francisco"),
            region: Some("CA"),
            zip: Some("94105"),
            country: Some("US"),
            email: Some("test@cybs.com"),
        },
        _ => canada,
    }
}

/// The fields of a charge that a row of [`RECORDED`] is of.
fn values<'v>(processor: &str, words: &[&'v str]) -> Values<'v> {
    let word = |at: usize| words.get(at).copied().filter(|word| *word != "-");
    let stored_credential = word(5).map(|usage| StoredCredential {
        usage: Use::parse(usage).unwrap(),
        initiator: Initiator::parse(words[6]).unwrap(),
        reason: Reason::parse(words[7]).unwrap(),
        ntid: word(8),
        previous: word(9),
        original_amount: None,
        ..merchant().stored_credential.unwrap()
    });
    let three_d_secure = ThreeDSecure {
        version: Some("2.2.0"),
        eci: Some("05"),
        cavv: Some("AAABAWFlmQAAAABjRWWZEEFgFz+A"),
        ds_transaction_id: Some("jhg34-sdgds87-sdg87-sdfg7"),
    };
    Values {
        card: Some(card(processor)),
        billing: billing(processor),
        amount: Some(Amount { minor: words[1].parse().unwrap(), currency: words[2] }),
        attempt_id: words[3],
        attempt_ref: words[3],
        stored_credential,
        previous: Previous {
            transaction: word(4),
            ntid: (processor == "adyen").then_some("858435661128555"),
            ..Previous::default()
        },
        three_d_secure: (processor == "bluesnap").then_some(three_d_secure),
        description: Some(match processor {
            "nmi" => "AM test",
            "worldpay" => "Purchase",
            _ => "Store Purchase",
        }),
        moment: SendMoment { unix_ms: 1_767_323_045_000, nonce: "0123456789abcdef", mark: "m0" },
        endpoint: EndpointParts { host: "api.test.example", prefix: "" },
        ..sale()
    }
}

/// Every text of a request that is not empty, with the way to it: of a form, JSON, XML, or XML in a field of a form.
fn leaves(body: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    if body.starts_with('{') {
        of_json(&serde_json::from_str(body).unwrap(), "", &mut out);
    } else if let Some(document) = body.strip_prefix("xmldata=").or(body.starts_with('<').then_some(body)) {
        let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
        of_xml(Document::parse_with_options(document, options).unwrap().root_element(), "", &mut out);
    } else {
        out.extend(form_urlencoded::parse(body.as_bytes()).into_owned());
    }
    out.retain(|(_, value)| !value.is_empty());
    out
}

/// Numbers in text are numbers.
fn of_json(value: &Value, way: &str, out: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| of_json(value, &format!("{way}/{key}"), out));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, value)| of_json(value, &format!("{way}/{at}"), out));
        }
        Value::String(text) => out.push((way.to_owned(), text.clone())),
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) => out.push((way.to_owned(), value.to_string())),
    }
}

fn of_xml(node: Node<'_, '_>, way: &str, out: &mut Vec<(String, String)>) {
    let way = format!("{way}/{}", node.tag_name().name());
    out.extend(node.attributes().map(|a| (format!("{way}/@{}", a.name()), a.value().to_owned())));
    out.push((way.clone(), node.text().unwrap_or_default().trim().to_owned()));
    node.children().filter(Node::is_element).for_each(|child| of_xml(child, &way, out));
}

fn ours(rendered: &Rendered) -> Vec<(String, String)> {
    let body = std::str::from_utf8(&rendered.body).unwrap();
    // XML in a field of a form: their recordings have it undecoded.
    match form_urlencoded::parse(body.as_bytes()).next() {
        Some((name, document)) if name == "xmldata" => leaves(&document),
        Some(_) | None => leaves(body),
    }
}

fn theirs(fixture: &Value) -> Vec<(String, String)> {
    let args = fixture["requests"][0]["args"].as_array().unwrap();
    let body = args.iter().filter_map(Value::as_str).find(|text| text.contains(['<', '{', '=']));
    leaves(body.unwrap())
}

#[test]
fn every_recorded_request_agrees() {
    let Some(folder) = super::fixtures::shared().map(|folder| folder.join("../requests")) else { return };
    let mut files: Vec<String> = Vec::new();
    for processor in std::fs::read_dir(&folder).unwrap() {
        let processor = processor.unwrap().file_name().into_string().unwrap();
        let names = std::fs::read_dir(folder.join(&processor)).unwrap();
        files.extend(names.map(|name| {
            let name = name.unwrap().file_name().into_string().unwrap();
            format!("{processor}/{}", name.trim_end_matches(".json"))
        }));
    }
    files.sort();
    let listed: Vec<&str> = RECORDED.iter().map(|row| row.split(' ').next().unwrap()).collect();
    assert_eq!(files, listed, "each recording is compared");
    let (mut wrong, mut met) = (Vec::new(), vec![false; DIFFERENCES.len()]);
    for row in RECORDED {
        let words: Vec<&str> = row.split(' ').collect();
        let (processor, case) = words[0].split_once('/').unwrap();
        let operation = match case.rsplit_once("__").unwrap().1 {
            "purchase" => Operation::Sale,
            word => Operation::parse(word).unwrap(),
        };
        let connector = builtin(processor).unwrap();
        let credentials: Vec<(&str, &str)> =
            connector.credentials().map(|(name, _)| (name, CREDENTIAL)).collect();
        let values = Values { credentials: &credentials, ..values(processor, &words) };
        let ours = ours(&connector.render(operation, &values).unwrap());
        let fixture = std::fs::read(folder.join(format!("{}.json", words[0]))).unwrap();
        let theirs = theirs(&serde_json::from_slice(&fixture).unwrap());
        let same = theirs.iter().filter(|leaf| ours.contains(leaf)).count();
        assert!(same >= 1, "{}: {same} fields are the same", words[0]);
        for (way, value) in theirs.iter().filter(|leaf| !ours.contains(leaf)) {
            if ours.iter().any(|(at, ours)| at == way && ours == CREDENTIAL) {
                continue;
            }
            let known = |(of, end, _): &(&str, &str, &str)| words[0].starts_with(of) && way.ends_with(end);
            match DIFFERENCES.iter().position(known) {
                Some(at) => met[at] = true,
                None => wrong.push(format!("{}: {way} = {value}", words[0])),
            }
        }
    }
    let unmet = DIFFERENCES.iter().zip(&met).filter(|(_, met)| !**met);
    wrong.extend(unmet.map(|((of, end, _), _)| format!("{of}: {end} differs nowhere")));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
