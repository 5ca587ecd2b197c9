//! Authorize.Net's answers, in XML and in JSON behind a byte order mark.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::super::index::Record;
use super::super::ledger::{Entry, Kind, Status};
use super::super::numbers;
use super::super::reply::{BYTE_ORDER_MARK, Form, Reply};
use super::super::xml::{element, escaped};
use super::decimals;

const NAMESPACES: &str = "xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
                          xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" xmlns=\"AnetApi/xml/v1/schema/AnetApiSchema.xsd\"";

/// What a transaction answers.
#[derive(Default)]
pub(super) struct Outcome {
    response_code: &'static str,
    auth_code: String,
    avs: &'static str,
    cvv: &'static str,
    id: String,
    about: String,
    account: String,
    brand: &'static str,
    network_transaction_id: Option<String>,
    /// What was asked for, granted, of a partial approval.
    partial: Option<(String, String)>,
    messages: Vec<(String, String)>,
    errors: Vec<(String, String)>,
    ref_id: String,
}

impl Outcome {
    /// Refused before anything was done, or as a duplicate.
    pub(super) fn refused(reason: &str, ref_id: &str) -> Self {
        let text = match numbers::text_of("authorize_net", reason) {
            "" if reason == "5" => "A valid amount is required.",
            "" => "The credit card expiration date is invalid.",
            text => text,
        };
        Self {
            response_code: "3",
            avs: "P",
            id: "0".to_owned(),
            errors: vec![(reason.to_owned(), text.to_owned())],
            ref_id: ref_id.to_owned(),
            ..Self::default()
        }
    }

    /// A capture or a void that was done before: it looks like success.
    pub(super) fn done_before(code: &str, id: &str, ref_id: &str) -> Self {
        let done = if code == "310" { "voided" } else { "captured" };
        Self {
            response_code: "1",
            avs: "P",
            id: id.to_owned(),
            about: id.to_owned(),
            messages: vec![(code.to_owned(), format!("This transaction has already been {done}."))],
            ref_id: ref_id.to_owned(),
            ..Self::default()
        }
    }

    /// As it was decided.
    pub(super) fn of(entry: &Entry, ref_id: &str) -> Self {
        let fields = entry.family.clone().unwrap_or_default();
        let parent = entry.parent.clone().unwrap_or_default();
        let is_payment = entry.parent.is_none();
        let is_partial = is_payment && entry.amount_approved > 0 && entry.amount_approved < entry.amount;
        let reason = reason_of(entry);
        let message = |code: &str, text: &str| vec![(code.to_owned(), text.to_owned())];
        let (response_code, messages, errors) = match entry.status {
            Status::Declined => {
                let text = numbers::text_of("authorize_net", reason);
                (response_code_of(reason), Vec::new(), message(reason, text))
            }
            Status::Pending => (
                "4",
                message("252", "Your order has been received. Thank you for your business!"),
                Vec::new(),
            ),
            _ if is_partial => {
                let text = "The amount of this request was only partially approved on the given prepaid card. \
                            Additional payments are required to complete the balance of this transaction.";
                ("4", message("295", text), Vec::new())
            }
            Status::Approved | Status::Authorized | Status::Voided | Status::Error => {
                ("1", message("1", "This transaction has been approved."), Vec::new())
            }
        };
        let granted = matches!(entry.status, Status::Approved | Status::Authorized);
        let decimal = |amount| decimal(amount, &entry.currency);
        Self {
            response_code,
            auth_code: if granted { auth_code(entry) } else { String::new() },
            avs: if is_payment { avs(entry) } else { "P" },
            cvv: if is_payment && fields.cvc { "M" } else { "" },
            // A capture or void has no id of its own.
            id: if matches!(entry.kind, Kind::Capture | Kind::Void) {
                parent.clone()
            } else {
                entry.id.clone()
            },
            about: parent,
            account: format!("XXXX{}", entry.last4),
            brand: brand(&fields.brand),
            network_transaction_id: entry.network_transaction_id.clone(),
            partial: is_partial.then(|| (decimal(entry.amount), decimal(entry.amount_approved))),
            messages,
            errors,
            ref_id: ref_id.to_owned(),
        }
    }
}

fn reason_of(entry: &Entry) -> &'static str {
    let row = numbers::row_of(entry.behaviour, &entry.code);
    row.and_then(|row| row.authorize_net.as_deref()).unwrap_or("2")
}

/// Reasons that the card's issuer or the account's filters gave are declines, all others errors.
fn response_code_of(reason: &str) -> &'static str {
    if matches!(reason, "2" | "3" | "4" | "27" | "44" | "45" | "65" | "250" | "251" | "254") {
        "2"
    } else {
        "3"
    }
}

fn avs(entry: &Entry) -> &'static str {
    let is_checked = numbers::row(entry.behaviour).is_some_and(|row| row.zip.is_some());
    match entry.zip.as_deref() {
        Some("Y") => "Y",
        Some("N") => "N",
        // Only the table's own U says that nobody could check; else nothing was sent.
        Some(_) if is_checked => "U",
        Some(_) | None => "P",
    }
}

fn brand(brand: &str) -> &'static str {
    match brand {
        "visa" => "Visa",
        "mastercard" => "MasterCard",
        "amex" => "AmericanExpress",
        "discover" => "Discover",
        "diners" => "DinersClub",
        "jcb" => "JCB",
        _ => "",
    }
}

/// Six letters and digits, the same for the same payment.
fn auth_code(entry: &Entry) -> String {
    let about = entry.parent.as_deref().unwrap_or(&entry.id);
    let sum = about.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    data_encoding::BASE32.encode(&sum.to_be_bytes()).chars().take(6).collect()
}

fn decimal(minor: i64, currency: &str) -> String {
    let decimals = decimals(currency);
    let digits = format!("{minor:0>width$}", width = decimals + 1);
    let (whole, part) = digits.split_at(digits.len() - decimals);
    if part.is_empty() { whole.to_owned() } else { format!("{whole}.{part}") }
}

fn written(form: Form, root: &str, xml: &str, json: Value) -> Reply {
    let body = if form == Form::AuthorizeNetJson {
        [BYTE_ORDER_MARK, &serde_json::to_vec(&json).unwrap_or_default()].concat()
    } else {
        format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><{root} {NAMESPACES}>{xml}</{root}>").into_bytes()
    };
    Reply::text(form, StatusCode::OK, body)
}

fn result(is_ok: bool, code: &str, text: &str) -> (String, Value) {
    let word = if is_ok { "Ok" } else { "Error" };
    let xml = format!(
        "<messages><resultCode>{word}</resultCode><message>{}{}</message></messages>",
        element("code", code),
        element("text", text)
    );
    (xml, json!({ "resultCode": word, "message": [{ "code": code, "text": text }] }))
}

/// A request that was not a transaction at all.
pub(super) fn error(form: Form, code: &str, text: &str) -> Reply {
    let (xml, messages) = result(false, code, text);
    written(form, "ErrorResponse", &xml, json!({ "messages": messages }))
}

/// What `createTransactionRequest` answers.
pub(super) fn transaction(form: Form, outcome: &Outcome) -> Reply {
    let is_ok = outcome.errors.is_empty();
    let (code, text) =
        if is_ok { ("I00001", "Successful.") } else { ("E00027", "The transaction was unsuccessful.") };
    let (messages_xml, messages) = result(is_ok, code, text);
    let fields = [
        ("responseCode", outcome.response_code),
        ("authCode", &outcome.auth_code),
        ("avsResultCode", outcome.avs),
        ("cvvResultCode", outcome.cvv),
        ("cavvResultCode", ""),
        ("transId", &outcome.id),
        ("refTransID", &outcome.about),
        ("transHash", ""),
        ("testRequest", "0"),
        ("accountNumber", &outcome.account),
        ("accountType", outcome.brand),
    ];
    let mut xml: String = fields.iter().map(|(name, text)| element(name, text)).collect();
    let mut object: Map<String, Value> =
        fields.iter().map(|(name, text)| ((*name).to_owned(), (*text).into())).collect();
    if let Some((requested, approved)) = &outcome.partial {
        xml.push_str(&format!(
            "<prePaidCard><requestedAmount>{requested}</requestedAmount><approvedAmount>{approved}</approvedAmount>\
             <balanceOnCard>0.00</balanceOnCard></prePaidCard>"
        ));
        let card =
            json!({ "requestedAmount": requested, "approvedAmount": approved, "balanceOnCard": "0.00" });
        object.insert("prePaidCard".into(), card);
    }
    let lists = [
        ("messages", "message", "code", "description", &outcome.messages),
        ("errors", "error", "errorCode", "errorText", &outcome.errors),
    ];
    for (list, one, code_name, text_name, pairs) in lists.iter().filter(|(.., pairs)| !pairs.is_empty()) {
        let inner: String = pairs
            .iter()
            .map(|(code, text)| {
                format!("<{one}>{}{}</{one}>", element(code_name, code), element(text_name, text))
            })
            .collect();
        xml.push_str(&format!("<{list}>{inner}</{list}>"));
        let all = pairs.iter().map(|(code, text)| {
            let pair = [(*code_name, code), (*text_name, text)];
            Value::from(
                pair.map(|(name, text)| (name.to_owned(), text.as_str().into()))
                    .into_iter()
                    .collect::<Map<_, _>>(),
            )
        });
        object.insert((*list).to_owned(), all.collect());
    }
    if let Some(id) = &outcome.network_transaction_id {
        xml.push_str(&element("networkTransId", id));
        object.insert("networkTransId".into(), id.as_str().into());
    }
    let xml = format!(
        "{}{messages_xml}<transactionResponse>{xml}</transactionResponse>",
        element("refId", &outcome.ref_id)
    );
    let json = json!({ "transactionResponse": object, "refId": outcome.ref_id, "messages": messages });
    written(form, "createTransactionResponse", &xml, json)
}

/// A transaction as look-ups see it.
pub(super) struct Listed {
    pub(super) entry: Entry,
    pub(super) record: Record,
    pub(super) is_settled: bool,
}

impl Listed {
    fn kind(&self) -> &'static str {
        match self.entry.kind {
            Kind::Sale => "authCaptureTransaction",
            Kind::Refund => "refundTransaction",
            Kind::Authorize | Kind::Capture | Kind::Void | Kind::Verify => "authOnlyTransaction",
        }
    }

    fn status(&self) -> &'static str {
        match (self.entry.kind, self.record.standing()) {
            (_, Status::Declined) => "declined",
            (_, Status::Voided) => "voided",
            (_, Status::Pending) => "FDSPendingReview",
            (_, Status::Error) => "generalError",
            (Kind::Refund, _) if self.is_settled => "refundSettledSuccessfully",
            (Kind::Refund, _) => "refundPendingSettlement",
            (_, Status::Authorized) => "authorizedPendingCapture",
            (_, Status::Approved) if self.is_settled => "settledSuccessfully",
            (_, Status::Approved) => "capturedPendingSettlement",
        }
    }

    /// What will be or was settled: of an authorization that is open, what is held.
    fn settles(&self) -> i64 {
        match self.record.standing() {
            Status::Declined | Status::Error | Status::Pending => self.entry.amount,
            _ if self.record.captured > 0 => self.record.captured,
            Status::Approved | Status::Authorized | Status::Voided => self.record.approved,
        }
    }
}

/// What `getTransactionDetailsRequest` answers.
pub(super) fn details(form: Form, listed: &Listed) -> Reply {
    let Listed { entry, record, .. } = listed;
    let outcome = Outcome::of(entry, "");
    let (reason, description) = if record.status == Status::Declined {
        (reason_of(entry), numbers::text_of("authorize_net", reason_of(entry)))
    } else {
        ("1", "Approval")
    };
    let response_code = match record.status {
        Status::Declined => response_code_of(reason),
        Status::Pending => "4",
        Status::Approved | Status::Authorized | Status::Voided | Status::Error => "1",
    };
    let authorized = decimal(record.approved, &entry.currency);
    let settles = decimal(listed.settles(), &entry.currency);
    let invoice = entry.reference.as_str();
    let (messages_xml, messages) = result(true, "I00001", "Successful.");
    let mut head = vec![("transId", entry.id.as_str())];
    head.extend(entry.parent.as_deref().map(|parent| ("refTransId", parent)));
    head.extend([
        ("submitTimeUTC", entry.at.as_str()),
        ("submitTimeLocal", &entry.at),
        ("transactionType", listed.kind()),
        ("transactionStatus", listed.status()),
        ("responseCode", response_code),
        ("responseReasonCode", reason),
        ("responseReasonDescription", description),
        ("authCode", &outcome.auth_code),
        ("AVSResponse", outcome.avs),
    ]);
    head.extend(entry.network_transaction_id.as_deref().map(|id| ("networkTransId", id)));
    let xml: String = head.iter().map(|(name, text)| element(name, text)).collect();
    let xml = format!(
        "{messages_xml}<transaction>{xml}<order>{}</order><authAmount>{authorized}</authAmount><settleAmount>{settles}\
         </settleAmount><payment><creditCard><cardNumber>XXXX{}</cardNumber><expirationDate>XXXX</expirationDate>\
         <cardType>{}</cardType></creditCard></payment></transaction>",
        element("invoiceNumber", invoice),
        escaped(&entry.last4),
        outcome.brand
    );
    let mut transaction: Map<String, Value> =
        head.iter().map(|(name, text)| ((*name).to_owned(), (*text).into())).collect();
    transaction.insert("order".into(), json!({ "invoiceNumber": invoice }));
    transaction.insert("authAmount".into(), number(&authorized));
    transaction.insert("settleAmount".into(), number(&settles));
    let card = json!({ "cardNumber": outcome.account, "expirationDate": "XXXX", "cardType": outcome.brand });
    transaction.insert("payment".into(), json!({ "creditCard": card }));
    let json = json!({ "transaction": transaction, "messages": messages });
    written(form, "getTransactionDetailsResponse", &xml, json)
}

/// Amounts are JSON numbers in look-ups.
fn number(decimal: &str) -> Value {
    serde_json::from_str(decimal).unwrap_or_default()
}

/// What the two lists answer.
pub(super) fn list(form: Form, request: &str, page: &[Listed]) -> Reply {
    let (messages_xml, messages) = result(true, "I00001", "Successful.");
    let (mut xml, mut all) = (String::new(), Vec::new());
    for listed in page {
        let Listed { entry, .. } = listed;
        let fields = entry.family.clone().unwrap_or_default();
        let account = format!("XXXX{}", entry.last4);
        let settles = decimal(listed.settles(), &entry.currency);
        let texts = [
            ("transId", entry.id.as_str()),
            ("submitTimeUTC", &entry.at),
            ("submitTimeLocal", &entry.at),
            ("transactionStatus", listed.status()),
            ("invoiceNumber", &entry.reference),
            ("accountType", brand(&fields.brand)),
            ("accountNumber", &account),
        ];
        let inner: String = texts.iter().map(|(name, text)| element(name, text)).collect();
        xml.push_str(&format!(
            "<transaction>{inner}<settleAmount>{settles}</settleAmount><marketType>eCommerce</marketType>\
             <product>Card Not Present</product></transaction>"
        ));
        let mut one: Map<String, Value> =
            texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).into())).collect();
        one.insert("settleAmount".into(), number(&settles));
        one.insert("marketType".into(), "eCommerce".into());
        one.insert("product".into(), "Card Not Present".into());
        all.push(Value::Object(one));
    }
    let total = page.len();
    let xml = format!(
        "{messages_xml}<transactions>{xml}</transactions><totalNumInResultSet>{total}</totalNumInResultSet>"
    );
    let json = json!({ "transactions": all, "totalNumInResultSet": total, "messages": messages });
    written(form, &format!("{request}Response"), &xml, json)
}
