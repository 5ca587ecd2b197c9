//! Webhooks as Adyen sends them, signed with a key of its own.

use ring::hmac;
use serde_json::{Value, json};

/// What an item's signature covers, in this order.
const SIGNED: [&str; 8] = [
    "/pspReference",
    "/originalReference",
    "/merchantAccountCode",
    "/merchantReference",
    "/amount/value",
    "/amount/currency",
    "/eventCode",
    "/success",
];

/// A destination over an `endpoint` line of another one, with credentials in files of these names; `more` lines follow.
pub(crate) fn destination(name: &str, endpoint: &str, hmac_key: &str, more: &str) -> String {
    format!(
        "\n[destination.{name}]\nconnector = \"adyen\"\nmode = \"test\"\n{endpoint}\ntrust = \"tls/ca.pem\"\n\
         credentials.basic_auth = \"credentials/adyen_basic\"\n\
         credentials.merchant_account = \"credentials/adyen_account\"\n\
         credentials.webhook_hmac_key = \"credentials/{hmac_key}\"\n{more}\n"
    )
}

/// The credential of the sandbox as Adyen's connector takes it.
pub(crate) fn basic_auth(secret: &str) -> String {
    data_encoding::BASE64.encode(format!("ws@Company.test:{}", secret.trim()).as_bytes())
}

/// That `event` went well, about this reference.
pub(crate) fn item(event: &str, reference: &str, amount: i64) -> Value {
    json!({
        "additionalData": {}, "amount": { "value": amount, "currency": "USD" }, "eventCode": event,
        "merchantAccountCode": "TestMerchant", "merchantReference": reference, "originalReference": "",
        "pspReference": "PSPOFAWEBHOOK", "reason": "", "success": "true",
    })
}

/// A webhook of this item, signed with a key (hex).
pub(crate) fn webhook(mut item: Value, key: &str) -> Value {
    let text = |pointer: &str| match item.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let key = data_encoding::HEXUPPER_PERMISSIVE.decode(key.as_bytes()).unwrap();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), SIGNED.map(text).join(":").as_bytes());
    item["additionalData"]["hmacSignature"] = data_encoding::BASE64.encode(tag.as_ref()).into();
    json!({ "live": "false", "notificationItems": [{ "NotificationRequestItem": item }] })
}
