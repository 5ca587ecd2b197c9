//! The codes of problems: each with its status, title, sentence, and whether the same request may succeed later.

/// What a code stands for.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The word in `code`.
    pub name: &'static str,
    /// HTTP status.
    pub status: u16,
    /// A short sentence that is the same for each occurrence.
    pub title: &'static str,
    /// What to do about it.
    pub detail: &'static str,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// When to try again, where that is known, in seconds.
    pub retry_after_seconds: Option<u64>,
}

macro_rules! codes {
    ($($code:ident $name:literal $status:literal $retry:ident, $title:literal, $detail:literal;)*) => {
        /// A code; the list is closed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $title] $code,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$code,)*];

            /// What it stands for.
            pub const fn spec(self) -> Spec {
                match self {
                    $(Self::$code => Spec {
                        name: $name,
                        status: $status,
                        title: $title,
                        detail: $detail,
                        retryable: codes!(@retryable $retry),
                        retry_after_seconds: codes!(@after $retry),
                    },)*
                }
            }
        }
    };
    (@retryable never) => { false };
    (@retryable later) => { true };
    (@retryable soon) => { true };
    (@after never) => { None };
    (@after later) => { None };
    (@after soon) => { Some(1) };
}

codes! {
    // what a body, head or path can have wrong
    MalformedJson "malformed_json" 400 never, "The body is not valid JSON.", "Send one JSON object, UTF-8, nothing after it.";
    UnknownField "unknown_field" 422 never, "A field is not known here.", "Leave out what this route does not define.";
    DuplicateField "duplicate_field" 422 never, "A field stands in the body twice.", "Send each field once.";
    MissingField "missing_field" 422 never, "A required field is missing.", "Send the field that param names.";
    WrongType "wrong_type" 422 never, "A field has the wrong type.", "See the route's schema in /openapi.json.";
    InvalidValue "invalid_value" 422 never, "A value is too long, too short, or not one of the words allowed.", "See the route's schema in /openapi.json.";
    BodyTooLarge "body_too_large" 413 never, "The body is over the size limit.", "Send less.";
    BodyTimeout "body_timeout" 408 later, "The body did not arrive in time.", "Send it again, on a better line.";
    ContentType "unsupported_content_type" 415 never, "The content type is not application/json.", "Send Content-Type: application/json.";
    UnknownParameter "unknown_parameter" 400 never, "A query parameter is not known here.", "Leave out what this route does not define.";
    InvalidParameter "invalid_parameter" 400 never, "A query parameter cannot be read.", "See the route's parameters in /openapi.json.";
    RouteUnknown "route_unknown" 404 never, "There is no such route.", "See /openapi.json.";
    MethodNotAllowed "method_not_allowed" 405 never, "The route does not take this method.", "The Allow header lists those it takes.";
    IdempotencyKeyMissing "idempotency_key_missing" 400 never, "The Idempotency-Key header is missing.", "Each POST carries an Idempotency-Key of its own.";
    IdempotencyKeyInvalid "idempotency_key_invalid" 400 never, "The Idempotency-Key cannot be read.", "Use 1 to 255 visible ASCII characters.";
    IdempotencyKeyReused "idempotency_key_reused" 422 never, "The Idempotency-Key was used for another body.", "Use a new key for a new request.";
    StrayNumber "stray_number" 422 never, "A field that must not hold a card number looks like one.", "If it is an identifier of yours, prefix it with a letter, such as c-.";
    // who
    Unauthenticated "unauthenticated" 401 never, "No valid credential.", "Send Authorization: Bearer with a credential that is neither void nor expired.";
    TwoPersonsRequired "two_persons_required" 403 never, "This needs two persons.", "Ask for it with `cardvault --as KEYFILE`, charges resolve or holds release; another person approves.";
    ScopeMissing "scope_missing" 403 never, "The principal lacks the scope of this route.", "An administrator can grant it.";
    TenantRequired "tenant_required" 403 never, "The principal belongs to no tenant.", "Use a principal of the tenant whose cards these are.";
    TenantDisabled "tenant_disabled" 403 never, "The tenant is switched off.", "An administrator can say why.";
    RateLimited "rate_limited" 429 soon, "Too many requests of this principal.", "Wait as long as Retry-After says.";
    // cards
    CardNumberInvalid "card_number_invalid" 422 never, "The card number is not valid.", "12 to 19 digits with a right check digit.";
    TestNumberInLive "test_number_in_live" 422 never, "A test number is not taken in live mode.", "Use a tenant in test mode.";
    LiveNumberInTest "live_number_in_test" 422 never, "Only published test numbers are taken in test mode.", "Use a tenant in live mode for real cards.";
    ExpiryInvalid "expiry_invalid" 422 never, "The expiry is not possible.", "Month 1 to 12, a year of two or four digits, at most 20 years ahead.";
    CardExpired "card_expired" 422 never, "The card has expired.", "Ask the customer for a current card.";
    CvcNotAccepted "cvc_not_accepted" 422 never, "A card verification code is not taken here.", "It may not be stored; send it with a customer's first charge.";
    FingerprintBudget "fingerprint_budget" 429 later, "Too many different numbers that share first six and last four.", "The hourly limit keeps fingerprints from being searched.";
    ZipBudget "zip_budget" 429 later, "Too many different zips for a card that is there.", "The hourly limit keeps a stored zip from being searched.";
    TokenNotFound "token_not_found" 404 never, "There is no such token.", "It may belong to another tenant; both look the same.";
    TokenErased "token_erased" 410 never, "The card was erased.", "The token stays a tombstone.";
    TokenErasing "token_erasing" 409 never, "The card is being erased.", "An attempt or authorization still needs it; no new use.";
    TokenSuspended "token_suspended" 409 never, "The card is suspended.", "Set its status to active first.";
    LegalHold "legal_hold" 409 never, "The card is to be erased once its legal hold is released.", "It stays suspended until then.";
    CardUnreadable "card_unreadable" 500 never, "The stored card does not open.", "It is damaged or of another place; an operator should run cardvault doctor --deep.";
    RefundsNeedCard "refunds_need_card" 409 never, "Charges of the card cannot be refunded once it is erased.", "Their processors (destinations) want the card for a refund; refund first, or erase with forgo_refunds=true.";
    ErasureNotFound "erasure_not_found" 404 never, "There is no certificate of an erasure of this token.", "Its card is not erased, was erased before there were certificates, or belongs to another tenant.";
    AgreementNotFound "agreement_not_found" 404 never, "There is no such agreement on this card.", "List the card's agreements.";
    // charges
    ChargeNotFound "charge_not_found" 404 never, "There is no such charge.", "It may belong to another tenant; both look the same.";
    RecordForgotten "record_forgotten" 410 never, "What this request was answered with is older than it is kept.", "It was carried out, and is not carried out again.";
    RequestInProgress "request_in_progress" 409 soon, "A request with this Idempotency-Key is being worked on.", "Ask again with the same key.";
    InvoiceTaken "invoice_taken" 409 never, "The invoice and period belong to another charge.", "subject names it.";
    AlreadyCharged "already_charged" 409 never, "The invoice and period are charged already.", "subject names the charge.";
    InFlight "in_flight" 409 soon, "The invoice and period are being charged.", "subject names the charge: read it.";
    ChargeState "charge_state" 409 never, "The charge does not stand where this can be done.", "Look at its status and amounts.";
    TransactionUnknown "transaction_unknown" 409 never, "The processor's id of the payment is not known, and its processor takes this by that id only.", "Look it up in the processor's back office and add it with POST /v1/charges/{id}/resolve (outcome approved, processor_transaction_id), then do this again; or do it at the processor. Nothing was sent.";
    AmountInvalid "amount_invalid" 422 never, "The amount is not one that can be charged.", "A positive integer in minor units that the processor can express.";
    AmountTooLarge "amount_too_large" 422 never, "The amount is more than is left.", "Look at the charge's amounts.";
    CurrencyInvalid "currency_invalid" 422 never, "The currency is not known.", "Three letters of ISO 4217.";
    LimitExceeded "limit_exceeded" 403 never, "The amount is over a limit of the principal, or there is none for its currency.", "An administrator sets the limits; with any, each currency needs one.";
    DestinationUnknown "destination_unknown" 422 never, "There is no such destination for this card.", "See /v1/admin/destinations.";
    DestinationRequired "destination_required" 422 never, "More than one destination is possible.", "Name one.";
    OperationUnsupported "operation_unsupported" 422 never, "The destination's connector has no such operation.", "See the connector.";
    RequiredByConnector "required_by_connector" 422 never, "The destination's connector requires a field that is missing.", "Send the field that param names.";
    PlaceholderUnknown "placeholder_unknown" 422 never, "A placeholder is not known.", "See the placeholders and their filters in the README; nothing was sent.";
    PlaceholderMisplaced "placeholder_misplaced" 422 never, "A placeholder stands where the destination takes none.", "The destination's card_leaves and card_headers say where the card may stand; nothing was sent.";
    NotDeclared "not_declared" 422 never, "The destination does not declare this.", "Its methods, paths, headers and leaves stand in the configuration; param says which of them; nothing was sent.";
    CredentialNotAccepted "credential_not_accepted" 422 never, "A forward takes no credential of the caller's.", "The vault fills in the destination's own: leave it out; nothing was sent.";
    NothingToFill "nothing_to_fill" 422 never, "There is nothing to fill a place of the request with.", "The card lacks what a placeholder names, or an element that the vault fills is not there, or not empty; nothing was sent.";
    ForwardNotFound "forward_not_found" 404 never, "There is no such forward.", "It may belong to another tenant; both look the same.";
    AgreementRequired "agreement_required" 422 never, "A merchant-initiated charge needs a live agreement.", "Make one with a customer-initiated charge or verification; after a change of the number the customer pays or verifies under it first.";
    RunNotFound "run_not_found" 404 never, "There is no such invoice run.", "It may belong to another tenant; both look the same.";
    RunState "run_state" 409 never, "The run does not stand where this can be done.", "Look at its state.";
    RunTotals "run_totals" 422 never, "The stream does not have the declared number of lines or sums.", "Nothing is charged. Count again, or send the missing lines, under a new Idempotency-Key.";
    RunHeader "run_header" 422 never, "The CSV header names columns that are not known, or lacks some.", "Required: token, amount, currency, invoice. See the route's schema in /openapi.json.";
    UploadCut "upload_cut" 408 later, "The stream broke off.", "Send all of it again with the same Idempotency-Key: what arrived is kept for an hour.";
    UploadDiffers "upload_differs" 422 never, "The stream differs from what arrived before.", "Send the same lines, or use a new Idempotency-Key.";
    HeldGone "held_gone" 503 soon, "The request was not sent in time and is wiped.", "Nothing was sent: try again.";
    ForwarderDown "forwarder_down" 503 soon, "The forwarder is not there.", "Nothing was sent: try again.";
    NetworkRule "network_rule" 422 never, "The card network's rules forbid the merchant to try this card now.", "retry_at says from when on it may be tried; without it never, or not before the customer has agreed anew.";
    // webhooks
    WebhookUntrusted "webhook_untrusted" 403 never, "The webhook does not prove that the processor sent it.", "Compare the key of the destination's webhooks with the processor's; nothing was changed.";
    WebhookUnreadable "webhook_unreadable" 422 never, "The webhook holds nothing that can be read.", "It is not in the form that the destination's connector declares; nothing was changed.";
    EndpointNotFound "webhook_endpoint_not_found" 404 never, "There is no such webhook endpoint.", "It may belong to another tenant; both look the same.";
    HostNotAllowed "host_not_allowed" 422 never, "Webhooks may not go to this host.", "An operator lists the hosts in the configuration; https:// only.";
    EndpointDisabled "webhook_endpoint_disabled" 409 never, "The webhook endpoint is switched off.", "Switch it on first: enabled.";
    TooMany "too_many" 409 never, "There are as many of these as may be.", "Delete one first.";
    // ourselves
    NotFound "not_found" 404 never, "There is no such thing.", "It may belong to somebody else; both look the same.";
    Conflict "conflict" 409 soon, "Another change came first.", "Read again, then try again.";
    Busy "busy" 503 soon, "Too much is under way.", "Try again.";
    KeeperDown "keeper_down" 503 soon, "The keeper does not answer.", "Try again with the same Idempotency-Key.";
    KeyUnavailable "key_unavailable" 503 soon, "There is no key for this.", "An operator should look at the keeper.";
    StoreUnavailable "store_unavailable" 503 soon, "The store cannot be written or read now.", "Nothing was changed: try again with the same Idempotency-Key.";
    DiskFull "disk_full" 503 later, "The disk is full.", "Nothing was changed. An operator has to make room.";
    StoreCorrupt "store_corrupt" 500 never, "The store holds something that cannot be read.", "An operator should run cardvault doctor --deep.";
    CheckpointPending "checkpoint_pending" 409 soon, "No signed checkpoint covers this yet.", "One is being made: ask again in two seconds.";
    LogLagging "log_lagging" 503 soon, "The audit log lags, so reads stop.", "Try again.";
    LogInconsistent "log_inconsistent" 500 never, "The log does not extend what was signed.", "An operator should verify the log.";
    ShuttingDown "shutting_down" 503 soon, "The vault is stopping.", "Try again.";
    Sealed "sealed" 503 soon, "The vault is sealed.", "Its root key is not at hand; /readyz says why.";
    NotReady "not_ready" 503 soon, "The vault is not ready.", "See /readyz.";
    Internal "internal" 500 later, "A fault inside.", "It is counted and logged; try again with the same Idempotency-Key.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_name_of_its_own_and_an_error_status() {
        let mut names = std::collections::HashSet::new();
        for code in Code::ALL {
            let spec = code.spec();
            assert!(names.insert(spec.name));
            assert!((400..600).contains(&spec.status));
            assert!(spec.title.ends_with('.') && spec.detail.ends_with('.'));
            assert!(spec.retryable || spec.retry_after_seconds.is_none());
        }
    }
}
