//! The order of elements that Authorize.Net's schema demands, in XML and, as its JSON is only another spelling of it, in
//! JSON too: keys in another order are refused (AuthorizeNet/sample-code-csharp issue 106).

use super::super::xml::Node;

const NAMESPACE: &str = "AnetApi/xml/v1/schema/AnetApiSchema.xsd";

/// The children of an element, in the order they must have. Others are not checked.
fn sequence(element: &str) -> Option<&'static [&'static str]> {
    Some(match element {
        "createTransactionRequest" => &["merchantAuthentication", "clientId", "refId", "transactionRequest"],
        "getTransactionDetailsRequest" => &["merchantAuthentication", "clientId", "refId", "transId"],
        "getUnsettledTransactionListRequest" => {
            &["merchantAuthentication", "clientId", "refId", "status", "sorting", "paging"]
        }
        "getTransactionListRequest" => {
            &["merchantAuthentication", "clientId", "refId", "batchId", "sorting", "paging"]
        }
        "transactionRequest" => &[
            "transactionType",
            "amount",
            "currencyCode",
            "payment",
            "profile",
            "solution",
            "callId",
            "terminalNumber",
            "authCode",
            "refTransId",
            "splitTenderId",
            "order",
            "lineItems",
            "tax",
            "duty",
            "shipping",
            "taxExempt",
            "poNumber",
            "customer",
            "billTo",
            "shipTo",
            "customerIP",
            "cardholderAuthentication",
            "retail",
            "employeeId",
            "transactionSettings",
            "userFields",
            "surcharge",
            "merchantDescriptor",
            "subMerchant",
            "tip",
            "processingOptions",
            "subsequentAuthInformation",
            "otherTax",
            "shipFrom",
            "authorizationIndicatorType",
        ],
        "creditCard" => &["cardNumber", "expirationDate", "cardCode", "isPaymentToken", "cryptogram"],
        "order" => &["invoiceNumber", "description"],
        "billTo" | "shipTo" => &[
            "firstName",
            "lastName",
            "company",
            "address",
            "city",
            "state",
            "zip",
            "country",
            "phoneNumber",
            "faxNumber",
            "email",
        ],
        "setting" => &["settingName", "settingValue"],
        "processingOptions" => {
            &["isFirstRecurringPayment", "isFirstSubsequentAuth", "isSubsequentAuth", "isStoredCredentials"]
        }
        "subsequentAuthInformation" => &["originalNetworkTransId", "originalAuthAmount", "reason"],
        _ => return None,
    })
}

/// What E00003 says of the first element that stands where it must not.
pub(super) fn fault(node: &Node) -> Option<String> {
    if let Some(sequence) = sequence(&node.name) {
        let mut left = sequence;
        for child in &node.children {
            match left.iter().position(|name| *name == child.name) {
                // The same element may not come twice: what follows it is left.
                Some(at) => left = left.get(at + 1..).unwrap_or_default(),
                None => return Some(misplaced(&node.name, &child.name, left)),
            }
        }
    }
    node.children.iter().find_map(fault)
}

fn misplaced(parent: &str, child: &str, expected: &[&str]) -> String {
    // The name of an element is the caller's, and may be anything.
    let is_known = sequence(parent).is_some_and(|all| all.contains(&child));
    let child = if is_known { child } else { "…" };
    format!(
        "The element '{parent}' in namespace '{NAMESPACE}' has invalid child element '{child}' in namespace \
         '{NAMESPACE}'. List of possible elements expected: '{}' in namespace '{NAMESPACE}'.",
        expected.join(", ")
    )
}
