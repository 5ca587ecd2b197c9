//! One sale in each wire form, and how each says that it was approved.

use super::*;
use crate::tools::sandbox::numbers;
use crate::tools::sandbox::xml::Node;

/// A form of request and answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Plain,
    Stripe,
    Adyen,
    NetXml,
    NetJson,
    Worldpay,
}

pub(super) const FAMILIES: [Family; 6] =
    [Family::Plain, Family::Stripe, Family::Adyen, Family::NetXml, Family::NetJson, Family::Worldpay];

pub(super) const NET: &str = "/xml/v1/request.api";
pub(super) const WPG: &str = "/jsp/merchant/xml/paymentService.jsp";

impl Family {
    /// The ledger's word for it.
    pub(super) fn wire(self) -> &'static str {
        match self {
            Self::Plain => "json",
            Self::Stripe => "stripe",
            Self::Adyen => "adyen",
            Self::NetXml | Self::NetJson => "authorize_net",
            Self::Worldpay => "worldpay",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Plain => "/v1/payments",
            Self::Stripe => "/v1/payment_intents",
            Self::Adyen => "/v71/payments",
            Self::NetXml | Self::NetJson => NET,
            Self::Worldpay => WPG,
        }
    }

    /// Head and body of a sale of 10.00 dollars, under a key that is its reference.
    pub(super) fn sale(self, reference: &str, number: &str) -> (String, String) {
        let body = match self {
            Self::Plain => super::sale(reference, number, 1000).to_string(),
            Self::Stripe => form_urlencoded::Serializer::new(String::new())
                .extend_pairs([
                    ("amount", "1000"),
                    ("currency", "usd"),
                    ("confirm", "true"),
                    ("off_session", "true"),
                    ("payment_method_data[type]", "card"),
                    ("payment_method_data[card][number]", number),
                    ("payment_method_data[card][exp_month]", "12"),
                    ("payment_method_data[card][exp_year]", "2030"),
                    ("metadata[attempt]", reference),
                ])
                .finish(),
            Self::Adyen => adyen_sale(reference, number).to_string(),
            Self::NetXml => net_xml(&net_sale_xml(reference, number)),
            Self::NetJson => net_sale_json(reference, number).to_string(),
            Self::Worldpay => order(reference, number, "captureDelay=\"0\""),
        };
        (format!("POST {} HTTP/1.1\r\nIdempotency-Key: {reference}", self.path()), body)
    }

    pub(super) fn send(self, sandbox: &Running, reference: &str, number: &str) -> Option<Got> {
        let (head, body) = self.sale(reference, number);
        sandbox.send(&head, &body)
    }

    /// Whether an answer says that the sale was approved.
    pub(super) fn is_approved(self, got: &Got) -> bool {
        match self {
            Self::Plain => got.json["status"] == "approved",
            Self::Stripe => got.json["status"] == "succeeded",
            Self::Adyen => got.json["resultCode"] == "Authorised",
            Self::NetXml | Self::NetJson => self.code(got) == "1",
            Self::Worldpay => got.text.contains("<lastEvent>AUTHORISED</lastEvent>"),
        }
    }

    /// The family's own code for how it went.
    pub(super) fn code(self, got: &Got) -> String {
        let text = |pointer: &str| {
            let json = bare_json(got);
            json.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        match self {
            Self::Plain => text("/code"),
            Self::Stripe => {
                let code = text("/error/decline_code");
                if code.is_empty() { text("/error/code") } else { code }
            }
            Self::Adyen => text("/refusalReasonCode"),
            Self::NetJson => {
                let code = text("/transactionResponse/errors/0/errorCode");
                if code.is_empty() { text("/transactionResponse/messages/0/code") } else { code }
            }
            Self::NetXml => {
                let root = Node::read_xml(got.text.as_bytes()).unwrap_or_default();
                let code = root.text(&["transactionResponse", "errors", "error", "errorCode"]);
                let said = root.text(&["transactionResponse", "messages", "message", "code"]);
                if code.is_empty() { said } else { code }.to_owned()
            }
            Self::Worldpay => {
                let root = Node::read_xml(got.text.as_bytes()).unwrap_or_default();
                let code = root.at(&["reply", "orderStatus", "payment", "ISO8583ReturnCode"]);
                code.map(|code| code.attribute("code").to_owned()).unwrap_or_default()
            }
        }
    }

    /// The code that the table has for a row's decline.
    fn expected(self, row: &numbers::Row) -> String {
        let code = match self {
            Self::Plain => &row.code,
            Self::Stripe => row.error_code.as_ref().map_or(&row.code, |_| &row.error_code),
            Self::Adyen => &row.adyen,
            Self::NetXml | Self::NetJson => &row.authorize_net,
            Self::Worldpay => &row.worldpay,
        };
        code.clone().unwrap()
    }
}

/// The answer's JSON, without the mark that Authorize.Net puts in front.
pub(super) fn bare_json(got: &Got) -> Value {
    serde_json::from_str(got.text.trim_start_matches('\u{feff}')).unwrap_or_default()
}

pub(super) fn xml(got: &Got) -> Node {
    Node::read_xml(got.text.as_bytes()).unwrap_or_else(|| panic!("no XML: {}", got.text))
}

pub(super) fn adyen_sale(reference: &str, number: &str) -> Value {
    json!({
        "merchantAccount": "Shop", "reference": reference, "amount": { "currency": "USD", "value": 1000 },
        "paymentMethod": { "type": "scheme", "number": number, "expiryMonth": "12", "expiryYear": "2030" },
        "shopperInteraction": "ContAuth", "captureDelayHours": 0, "billingAddress": { "postalCode": "10001" },
    })
}

/// A createTransactionRequest with this inside its transactionRequest.
pub(super) fn net_xml(inner: &str) -> String {
    net_request("createTransactionRequest", &format!("<transactionRequest>{inner}</transactionRequest>"))
}

pub(super) fn net_request(name: &str, inner: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><{name} xmlns=\"AnetApi/xml/v1/schema/AnetApiSchema.xsd\">\
         <merchantAuthentication><name>shop</name><transactionKey>sk_test_one</transactionKey></merchantAuthentication>\
         {inner}</{name}>"
    )
}

pub(super) fn net_sale_xml(invoice: &str, number: &str) -> String {
    format!(
        "<transactionType>authCaptureTransaction</transactionType><amount>10.00</amount><payment><creditCard>\
         <cardNumber>{number}</cardNumber><expirationDate>2030-12</expirationDate></creditCard></payment>\
         <order><invoiceNumber>{invoice}</invoiceNumber></order><billTo><zip>10001</zip></billTo>"
    )
}

pub(super) fn net_sale_json(invoice: &str, number: &str) -> Value {
    json!({ "createTransactionRequest": {
        "merchantAuthentication": { "name": "shop", "transactionKey": "sk_test_one" },
        "refId": "7",
        "transactionRequest": {
            "transactionType": "authCaptureTransaction", "amount": "10.00",
            "payment": { "creditCard": { "cardNumber": number, "expirationDate": "2030-12" } },
            "order": { "invoiceNumber": invoice }, "billTo": { "zip": "10001" },
        },
    } })
}

pub(super) fn wpg(inner: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><!DOCTYPE paymentService PUBLIC \"-//WorldPay//DTD WorldPay \
         PaymentService v1//EN\" \"http://dtd.worldpay.com/paymentService_v1.dtd\"><paymentService version=\"1.4\" \
         merchantCode=\"SHOP\">{inner}</paymentService>"
    )
}

pub(super) fn order(code: &str, number: &str, attributes: &str) -> String {
    wpg(&format!(
        "<submit><order orderCode=\"{code}\" {attributes}><description>x</description>\
         <amount value=\"1000\" currencyCode=\"USD\" exponent=\"2\"/><paymentDetails><CARD-SSL>\
         <cardNumber>{number}</cardNumber><expiryDate><date month=\"12\" year=\"2030\"/></expiryDate>\
         <cardHolderName>A Person</cardHolderName></CARD-SSL></paymentDetails></order></submit>"
    ))
}

#[test]
fn each_family_declines_with_its_own_code() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let table = sandbox.get("/sandbox/numbers").json;
    let behaviours: Vec<Behaviour> = numbers::behaviours().collect();
    let mut declines = 0;
    for (n, behaviour) in behaviours.into_iter().enumerate() {
        let row = numbers::row(behaviour).unwrap();
        let named = table["behaviours"][n].clone();
        let is_asked = named["outcome"] == "declined" && named["fault"] == "none" && named["on"].is_null();
        // Without a verification code there is nothing to check, with the customer there nothing to update.
        if !is_asked || behaviour == Behaviour::IncorrectCvc || !named["updater"].is_null() {
            continue;
        }
        declines += 1;
        for family in FAMILIES {
            let reference = format!("d{n}{}", family as u8);
            let number = number(0, u32::try_from(n).unwrap(), behaviour);
            let got = family.send(&sandbox, &reference, &number).unwrap();
            assert!(!family.is_approved(&got), "{family:?} {behaviour:?}");
            assert_eq!(family.code(&got), family.expected(row), "{family:?} {behaviour:?}");
        }
    }
    assert!(declines > 15, "{declines}");
}

#[test]
fn the_published_numbers_do_the_same_in_each_family() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let table = sandbox.get("/sandbox/numbers").json;
    let mut seen = 0;
    for row in table["behaviours"].as_array().unwrap() {
        let approves = row["outcome"] == "approved";
        for number in row["published"].as_array().unwrap() {
            for family in FAMILIES {
                let reference = format!("p{seen}{}", family as u8);
                let got = family.send(&sandbox, &reference, number.as_str().unwrap()).unwrap();
                let approves = approves || row["name"] == "incorrect_cvc";
                assert_eq!(family.is_approved(&got), approves, "{family:?} {}", row["name"]);
            }
            seen += 1;
        }
    }
    assert!(seen > 40);
    let wrong = FAMILIES.map(|family| family.send(&sandbox, "wrong", "4242424242424241").unwrap());
    assert!(FAMILIES.iter().zip(&wrong).all(|(family, got)| !family.is_approved(got)));
}

#[test]
fn the_families_do_not_see_each_other_and_read_back_alike() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    for family in FAMILIES.into_iter().filter(|family| *family != Family::NetJson) {
        assert!(family.is_approved(&family.send(&sandbox, "same", APPROVED).unwrap()), "{family:?}");
        assert_eq!(sandbox.amounts(family.wire(), "same"), [1000, 1000, 0, 0], "{family:?}");
    }
    let all = sandbox.get("/sandbox/ledger/references?reference=same");
    assert_eq!(all.text.lines().count(), 5);
    assert!(!std::fs::read_to_string(&path).unwrap().contains(APPROVED));
    assert_eq!(sandbox.get("/sandbox/ledger/references?wire=none").status, 400);
}

/// The recorded requests of these processors are taken as they were sent.
#[test]
fn recorded_requests_are_understood() {
    let folders = ["../shared/fixtures/requests", "../../shared/fixtures/requests"];
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let Some(folder) = folders.map(|folder| root.join(folder)).into_iter().find(|folder| folder.exists())
    else {
        return;
    };
    let (_directory, path) = place();
    let sandbox = Running::start_as(&path, |settings| settings.secret = None);
    let mut understood = 0;
    for family in ["adyen", "authorize_net", "worldpay"] {
        for file in std::fs::read_dir(folder.join(family)).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let recorded: Value = serde_json::from_str(&text).unwrap();
            for call in recorded["requests"].as_array().into_iter().flatten() {
                let (url, body) = (call["args"][0].as_str().unwrap(), call["args"][1].as_str().unwrap());
                let (at, _) = url.match_indices('/').nth(2).unwrap();
                // The recorded references repeat themselves; order codes must not.
                let body = body.replace("orderCode=\"1\"", &format!("orderCode=\"o{understood}\""));
                let body = body.replace("<amount>1.00<", &format!("<amount>1.{understood:02}<"));
                let got = sandbox.send(&format!("POST {} HTTP/1.1", &url[at..]), &body).unwrap();
                let is_known = match recorded["operation"].as_str() {
                    Some("authorize") => {
                        got.text.contains("Authorised")
                            || got.text.contains("AUTHORISED")
                            || got.text.contains("<responseCode>1<")
                    }
                    // What it captures was never authorized here.
                    _ => got.text.contains("167") || got.text.contains("<errorCode>16<"),
                };
                assert!(is_known, "{family}: {}", got.text);
                understood += 1;
            }
        }
    }
    assert!(understood >= 8, "{understood}");
}
