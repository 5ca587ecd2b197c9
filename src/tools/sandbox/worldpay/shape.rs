//! Worldpay's answers: XML with a DOCTYPE, written by hand.

use hyper::StatusCode;

use super::super::index::Record;
use super::super::ledger::{Entry, FamilyFields, Kind, Status};
use super::super::numbers;
use super::super::reply::{Form, Reply};
use super::super::xml::{element, escaped};

/// One merchant's answers.
pub(super) struct Voice {
    merchant: String,
}

impl Voice {
    /// Answers to this merchant.
    pub(super) fn new(merchant: &str) -> Self {
        Self { merchant: merchant.to_owned() }
    }

    fn reply(&self, inner: &str) -> Reply {
        let merchant = escaped(&self.merchant);
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE paymentService PUBLIC \"-//WorldPay//DTD WorldPay \
             PaymentService v1//EN\" \"http://dtd.worldpay.com/paymentService_v1.dtd\">\n<paymentService version=\"1.4\" \
             merchantCode=\"{merchant}\"><reply>{inner}</reply></paymentService>"
        );
        Reply::text(Form::Worldpay, StatusCode::OK, body.into_bytes())
    }

    /// A document that could not be worked with.
    pub(super) fn error(&self, code: &str, message: &str) -> Reply {
        self.reply(&error(code, message))
    }

    /// An order that something is wrong with.
    pub(super) fn order_error(&self, order: &str, code: &str, message: &str) -> Reply {
        let error = error(code, message);
        self.reply(&format!("<orderStatus orderCode=\"{}\">{error}</orderStatus>", escaped(order)))
    }

    /// An order as it was decided, or as it stands now.
    pub(super) fn order(&self, entry: &Entry, record: &Record, is_inquiry: bool) -> Reply {
        let fields = fields(entry);
        let event = last_event(entry, record, is_inquiry);
        let approved = if event == "REFUSED" { 0 } else { record.approved };
        let total = if record.approved > 0 { record.approved } else { entry.amount };
        let mut payment = format!(
            "<paymentMethod>{}</paymentMethod>{}<lastEvent>{event}</lastEvent>",
            method(&fields.brand),
            amount(entry, &fields, total, "credit")
        );
        let row = numbers::row_of(entry.behaviour, &entry.code)
            .or_else(|| numbers::row(entry.behaviour))
            .and_then(|row| row.worldpay.as_deref());
        if let Some(code) = row.filter(|_| event == "REFUSED") {
            let text = numbers::text_of("worldpay", code);
            payment.push_str(&format!(
                "<ISO8583ReturnCode code=\"{code}\" description=\"{text}\"/>\
                 <IssuerResponseCode code=\"{code}\" description=\"{text}\"/>"
            ));
        }
        if approved > 0 || event == "AUTHORISED" {
            payment.push_str(&format!("<AuthorisationId id=\"{:06}\"/>", entry.seq % 1_000_000));
        }
        let cvc = if fields.cvc { "APPROVED" } else { "NOT SUPPLIED BY SHOPPER" };
        payment.push_str(&format!(
            "<CVCResultCode description=\"{cvc}\"/><AVSResultCode description=\"{}\"/>",
            avs(entry)
        ));
        for (account, value) in balances(record) {
            payment.push_str(&format!(
                "<balance accountType=\"{account}\">{}</balance>",
                amount(entry, &fields, value, "credit")
            ));
        }
        payment.push_str(&element("cardNumber", &format!("************{}", entry.last4)));
        payment.push_str("<riskScore value=\"0\"/>");
        if let Some(id) = &entry.network_transaction_id {
            payment.push_str(&format!(
                "<schemeResponse><schemeName>{}</schemeName><responseCode>00</responseCode>{}</schemeResponse>",
                scheme(&fields.brand),
                element("transactionIdentifier", id)
            ));
        }
        self.reply(&format!(
            "<orderStatus orderCode=\"{}\"><payment>{payment}</payment></orderStatus>",
            escaped(&entry.reference)
        ))
    }

    /// A modification was taken.
    pub(super) fn received(&self, what: &str, entry: &Entry, order: &str) -> Reply {
        let side = if entry.kind == Kind::Refund { "debit" } else { "credit" };
        let inner = match what {
            "capture" | "refund" => amount(entry, &fields(entry), entry.amount, side),
            _ => String::new(),
        };
        let reference = match entry.reference.as_str() {
            "" => String::new(),
            reference => format!(" reference=\"{}\"", escaped(reference)),
        };
        self.reply(&format!(
            "<ok><{what}Received orderCode=\"{}\"{reference}>{inner}</{what}Received></ok>",
            escaped(order)
        ))
    }
}

fn error(code: &str, message: &str) -> String {
    // Messages are our own sentences: none ends a CDATA section.
    format!("<error code=\"{code}\"><![CDATA[{message}]]></error>")
}

fn fields(entry: &Entry) -> FamilyFields {
    entry.family.clone().unwrap_or_default()
}

fn amount(entry: &Entry, fields: &FamilyFields, value: i64, side: &str) -> String {
    format!(
        "<amount value=\"{value}\" currencyCode=\"{}\" exponent=\"{}\" debitCreditIndicator=\"{side}\"/>",
        entry.currency, fields.echo
    )
}

/// The newest event of an order. Its first answer does not know yet that it will be captured.
fn last_event(entry: &Entry, record: &Record, is_inquiry: bool) -> &'static str {
    match record.status {
        Status::Declined | Status::Error => "REFUSED",
        Status::Pending => "SENT_FOR_AUTHORISATION",
        Status::Voided => "CANCELLED",
        Status::Approved | Status::Authorized if !is_inquiry || entry.kind == Kind::Verify => "AUTHORISED",
        Status::Approved | Status::Authorized if record.refunded > 0 => "REFUNDED",
        Status::Approved | Status::Authorized if record.captured > 0 => "CAPTURED",
        Status::Approved | Status::Authorized => "AUTHORISED",
    }
}

/// Where the order's money stands.
fn balances(record: &Record) -> Vec<(&'static str, i64)> {
    let held = if record.status == Status::Voided { 0 } else { record.approved - record.captured };
    let all = [
        ("IN_PROCESS_AUTHORISED", held),
        ("IN_PROCESS_CAPTURED", record.captured - record.refunded),
        ("IN_PROCESS_REFUNDED", record.refunded),
    ];
    all.into_iter().filter(|(_, value)| *value > 0).collect()
}

fn avs(entry: &Entry) -> &'static str {
    let is_checked = numbers::row(entry.behaviour).is_some_and(|row| row.zip.is_some());
    match entry.zip.as_deref() {
        Some("Y") => "APPROVED",
        Some("N") => "FAILED",
        // Only the table's own U says that nobody could check; else nothing was sent.
        Some(_) if is_checked => "UNKNOWN",
        Some(_) | None => "NOT SUPPLIED BY SHOPPER",
    }
}

fn method(brand: &str) -> &'static str {
    match brand {
        "visa" => "VISA-SSL",
        "mastercard" => "ECMC-SSL",
        "amex" => "AMEX-SSL",
        "discover" => "DISCOVER-SSL",
        "diners" => "DINERS-SSL",
        "jcb" => "JCB-SSL",
        _ => "CARD-SSL",
    }
}

fn scheme(brand: &str) -> &'static str {
    match brand {
        "visa" => "VISA",
        "mastercard" => "MASTERCARD",
        "amex" => "AMEX",
        _ => "OTHER",
    }
}
