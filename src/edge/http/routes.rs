//! Every route of the API on one screen: method, path, scope, name, what it does, its query parameters, its handler. The router and
//! `/openapi.json` are both made from this table.

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::code::Code;
use super::guard::{self, Guarded};
use super::{
    admin, agreements, charges, erasures, forwards, health, holds, log, openapi, processor_webhooks, runs,
    tokens, webhooks,
};
use crate::edge::App;
use crate::edge::charge::runs::Verb;
use crate::edge::scope::Scope;

/// One row.
pub struct Route {
    /// GET, POST, PUT, PATCH, DELETE.
    pub method: &'static str,
    /// With `{names}`.
    pub path: &'static str,
    /// What the caller must hold; none for what anyone may ask.
    pub scope: Option<Scope>,
    /// Another scope that does as well.
    pub or: Option<Scope>,
    /// Its name in `/openapi.json`, metrics and logs.
    pub operation: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// The query parameters it knows; any other is refused.
    pub query: &'static [&'static str],
    /// The schema of its body in `/openapi.json`; empty for no body.
    pub body: &'static str,
    /// Makes its handler.
    pub handler: fn() -> MethodRouter<App>,
}

const ROW: Route = Route {
    method: "GET",
    path: "",
    scope: None,
    or: None,
    operation: "",
    summary: "",
    query: &[],
    body: "",
    handler: MethodRouter::new,
};

/// The table.
pub const ROUTES: &[Route] = &[
    Route {
        method: "POST",
        path: "/v1/tokens",
        scope: Some(Scope::TokensCreate),
        operation: "create_token",
        summary: "Stores a card and answers with its token.",
        body: "NewToken",
        handler: || on(MethodFilter::POST, tokens::create),
        ..ROW
    },
    Route {
        path: "/v1/tokens",
        scope: Some(Scope::TokensRead),
        operation: "list_tokens",
        summary: "Lists a customer's cards, newest first.",
        query: tokens::LIST_QUERY,
        handler: || on(MethodFilter::GET, tokens::list),
        ..ROW
    },
    Route {
        path: "/v1/tokens/{token}",
        scope: Some(Scope::TokensRead),
        operation: "read_token",
        summary: "Shows a card, masked.",
        handler: || on(MethodFilter::GET, tokens::read),
        ..ROW
    },
    Route {
        method: "PATCH",
        path: "/v1/tokens/{token}",
        scope: Some(Scope::TokensUpdate),
        operation: "update_token",
        summary: "Changes expiry, zip, number, customer, metadata or status in place.",
        body: "TokenChange",
        handler: || on(MethodFilter::PATCH, tokens::update),
        ..ROW
    },
    Route {
        method: "DELETE",
        path: "/v1/tokens/{token}",
        scope: Some(Scope::TokensErase),
        operation: "erase_token",
        query: erasures::ERASE_QUERY,
        summary: "Erases a card; refused if charges cannot be refunded without it, unless forgo_refunds=true.",
        handler: || on(MethodFilter::DELETE, erasures::erase),
        ..ROW
    },
    Route {
        method: "DELETE",
        path: "/v1/tokens",
        scope: Some(Scope::TokensErase),
        operation: "erase_customer",
        summary: "Erases all cards of a customer.",
        query: erasures::CUSTOMER_QUERY,
        handler: || on(MethodFilter::DELETE, erasures::erase_customer),
        ..ROW
    },
    Route {
        path: "/v1/erasures/{token}",
        scope: Some(Scope::TokensErase),
        or: Some(Scope::AuditRead),
        operation: "read_erasure",
        summary: "Gives the certificate of an erasure: what was erased, how, and from when on no backup can bring it back.",
        handler: || on(MethodFilter::GET, erasures::certificate),
        ..ROW
    },
    Route {
        method: "PUT",
        path: "/v1/tokens/{token}/legal_hold",
        scope: Some(Scope::TokensHold),
        operation: "hold_token",
        summary: "Sets a legal hold, by a reference or without one: the card is not erased until each is released.",
        body: "LegalHold",
        handler: || on(MethodFilter::PUT, holds::hold),
        ..ROW
    },
    Route {
        method: "DELETE",
        path: "/v1/tokens/{token}/legal_hold",
        scope: Some(Scope::TokensHold),
        operation: "release_token",
        summary: "Releases the legal hold of this reference, or the one without; erases the card if no other holds it and that was asked for.",
        query: holds::RELEASE_QUERY,
        handler: || on(MethodFilter::DELETE, holds::release),
        ..ROW
    },
    Route {
        method: "POST",
        path: "/v1/tokens/{token}/agreements",
        scope: Some(Scope::TokensUpdate),
        operation: "create_agreement",
        summary: "Makes a stored-credential agreement.",
        body: "NewAgreement",
        handler: || on(MethodFilter::POST, agreements::create),
        ..ROW
    },
    Route {
        path: "/v1/tokens/{token}/agreements",
        scope: Some(Scope::TokensRead),
        operation: "list_agreements",
        summary: "Lists a card's agreements.",
        handler: || on(MethodFilter::GET, agreements::list),
        ..ROW
    },
    Route {
        method: "POST",
        path: "/v1/tokens/{token}/agreements/{agreement}/end",
        scope: Some(Scope::TokensUpdate),
        operation: "end_agreement",
        summary: "Ends an agreement.",
        handler: || on(MethodFilter::POST, agreements::end),
        ..ROW
    },
    Route {
        path: "/v1/audit/events",
        scope: Some(Scope::AuditRead),
        operation: "list_events",
        summary: "Lists events of the audit log, in order.",
        query: log::EVENTS_QUERY,
        handler: || on(MethodFilter::GET, log::events),
        ..ROW
    },
    Route {
        path: "/v1/audit/checkpoint",
        scope: Some(Scope::AuditRead),
        operation: "read_checkpoint",
        summary: "Gives the log's newest signed checkpoint.",
        handler: || on(MethodFilter::GET, log::checkpoint),
        ..ROW
    },
    Route {
        path: "/v1/audit/proofs/{event}",
        scope: Some(Scope::AuditRead),
        operation: "read_proof",
        summary: "Proves that an event is in the log.",
        handler: || on(MethodFilter::GET, log::proof),
        ..ROW
    },
    Route {
        path: "/v1/admin/principals",
        scope: Some(Scope::AdminRead),
        operation: "list_principals",
        summary: "Shows the principals.",
        handler: || on(MethodFilter::GET, admin::principals),
        ..ROW
    },
    Route {
        path: "/v1/admin/tenants",
        scope: Some(Scope::AdminRead),
        operation: "list_tenants",
        summary: "Shows the tenants.",
        handler: || on(MethodFilter::GET, admin::tenants),
        ..ROW
    },
    Route {
        path: "/v1/admin/destinations",
        scope: Some(Scope::AdminRead),
        operation: "list_destinations",
        summary: "Shows the destinations.",
        handler: || on(MethodFilter::GET, admin::destinations),
        ..ROW
    },
    Route {
        method: "POST",
        path: "/v1/charges",
        scope: Some(Scope::ChargesCreate),
        operation: "create_charge",
        summary: "Charges a card.",
        body: "NewCharge",
        handler: || on(MethodFilter::POST, charges::create),
        ..ROW
    },
    Route {
        path: "/v1/charges",
        scope: Some(Scope::ChargesRead),
        operation: "list_charges",
        summary: "Lists charges, newest first; as JSON, NDJSON or CSV.",
        query: charges::LIST_QUERY,
        handler: || on(MethodFilter::GET, charges::list),
        ..ROW
    },
    Route {
        path: "/v1/charges/{id}",
        scope: Some(Scope::ChargesRead),
        operation: "read_charge",
        summary: "Shows a charge.",
        handler: || on(MethodFilter::GET, charges::read),
        ..ROW
    },
    Route {
        method: "POST",
        path: "/v1/charges/{id}/captures",
        scope: Some(Scope::ChargesCapture),
        operation: "capture_charge",
        summary: "Captures an authorization, or part of it.",
        body: "NewCapture",
        handler: || on(MethodFilter::POST, charges::capture),
        ..ROW
    },
    Route {
        method: "POST",
        path: "/v1/charges/{id}/refunds",
        scope: Some(Scope::ChargesRefund),
        operation: "refund_charge",
        summary: "Gives a charge back, or part of it.",
        body: "NewRefund",
        handler: || on(MethodFilter::POST, charges::refund),
        ..ROW
    },
    Route {
        method: "POST",
        path: "/v1/charges/{id}/void",
        scope: Some(Scope::ChargesRefund),
        operation: "void_charge",
        summary: "Releases an authorization.",
        handler: || on(MethodFilter::POST, charges::void),
        ..ROW
    },
    Route {
        method: "POST",
        path: "/v1/charges/{id}/resolve",
        scope: Some(Scope::ChargesResolve),
        operation: "resolve_charge",
        summary: "Settles what could not be found out, by a person's word.",
        body: "NewResolution",
        handler: || on(MethodFilter::POST, charges::resolve),
        ..ROW
    },
    Route {
        method: "DELETE",
        path: "/v1/charges/{id}/retries",
        scope: Some(Scope::ChargesCreate),
        operation: "stop_retries",
        summary: "Ends a charge's schedule of retries.",
        handler: || on(MethodFilter::DELETE, charges::stop_retries),
        ..ROW
    },
    Route {
        method: "POST",
        path: "/v1/verifications",
        scope: Some(Scope::ChargesCreate),
        operation: "create_verification",
        summary: "Verifies a card.",
        body: "NewVerification",
        handler: || on(MethodFilter::POST, charges::verify),
        ..ROW
    },
    Route {
        method: "POST",
        path: "/v1/invoice_runs",
        scope: Some(Scope::ChargesCreate),
        operation: "create_invoice_run",
        summary: "Takes in a stream of invoice lines (NDJSON or CSV) and charges them once it ended as declared.",
        query: runs::CREATE_QUERY,
        body: "InvoiceLine",
        handler: || on(MethodFilter::POST, runs::create),
        ..ROW
    },
    Route {
        path: "/v1/invoice_runs",
        scope: Some(Scope::ChargesRead),
        operation: "list_invoice_runs",
        summary: "Lists invoice runs, newest first.",
        query: runs::LIST_QUERY,
        handler: || on(MethodFilter::GET, runs::list),
        ..ROW
    },
    Route {
        path: "/v1/invoice_runs/{id}",
        scope: Some(Scope::ChargesRead),
        operation: "read_invoice_run",
        summary: "Shows how an invoice run stands: verdicts, outcomes, progress.",
        handler: || on(MethodFilter::GET, runs::read),
        ..ROW
    },
    Route {
        path: "/v1/invoice_runs/{id}/results",
        scope: Some(Scope::ChargesRead),
        operation: "read_invoice_run_results",
        summary: "Streams the lines of an invoice run and what became of them, as NDJSON or CSV.",
        query: runs::RESULTS_QUERY,
        handler: || on(MethodFilter::GET, runs::results),
        ..ROW
    },
    Route {
        method: "POST",
        path: "/v1/invoice_runs/{id}/pause",
        scope: Some(Scope::ChargesCreate),
        operation: "pause_invoice_run",
        summary: "Has an invoice run stand still; what is on its way goes on.",
        handler: || runs::verb(Verb::Pause),
        ..ROW
    },
    Route {
        method: "POST",
        path: "/v1/invoice_runs/{id}/resume",
        scope: Some(Scope::ChargesCreate),
        operation: "resume_invoice_run",
        summary: "Lets an invoice run go on.",
        handler: || runs::verb(Verb::Resume),
        ..ROW
    },
    Route {
        method: "POST",
        path: "/v1/invoice_runs/{id}/cancel",
        scope: Some(Scope::ChargesCreate),
        operation: "cancel_invoice_run",
        summary: "Ends an invoice run; what is on its way goes on, the other invoices are free again.",
        handler: || runs::verb(Verb::Cancel),
        ..ROW
    },
    Route {
        path: "/v1/refunds",
        scope: Some(Scope::ChargesRead),
        operation: "list_refunds",
        summary: "Lists refunds, newest charge first; as JSON, NDJSON or CSV.",
        query: charges::LIST_QUERY,
        handler: || on(MethodFilter::GET, charges::list_refunds),
        ..ROW
    },
    Route {
        path: "/v1/refunds/{id}",
        scope: Some(Scope::ChargesRead),
        operation: "read_refund",
        summary: "Shows a refund.",
        handler: || on(MethodFilter::GET, charges::read_refund),
        ..ROW
    },
    Route {
        method: "POST",
        path: "/v1/forwards",
        scope: Some(Scope::ForwardsCreate),
        operation: "create_forward",
        summary: "Sends a request of the caller's to a forward destination, with the card filled in; or shows it.",
        body: "NewForward",
        handler: || on(MethodFilter::POST, forwards::create),
        ..ROW
    },
    Route {
        path: "/v1/forwards/{id}",
        scope: Some(Scope::ForwardsCreate),
        operation: "read_forward",
        summary: "Shows a forward and its redacted answer.",
        handler: || on(MethodFilter::GET, forwards::read),
        ..ROW
    },
    Route {
        method: "POST",
        path: "/v1/webhooks/{destination}",
        operation: "receive_webhook",
        summary: "Takes in what a processor tells by itself, signed as its connector says.",
        body: "ProcessorWebhook",
        handler: || on(MethodFilter::POST, processor_webhooks::receive),
        ..ROW
    },
    Route {
        method: "POST",
        path: "/v1/webhook_endpoints",
        scope: Some(Scope::WebhooksManage),
        operation: "create_webhook_endpoint",
        summary: "Makes a webhook endpoint and shows its secret, once.",
        body: "NewWebhookEndpoint",
        handler: || on(MethodFilter::POST, webhooks::create),
        ..ROW
    },
    Route {
        path: "/v1/webhook_endpoints",
        scope: Some(Scope::WebhooksRead),
        operation: "list_webhook_endpoints",
        summary: "Lists webhook endpoints.",
        handler: || on(MethodFilter::GET, webhooks::list),
        ..ROW
    },
    Route {
        path: "/v1/webhook_endpoints/{id}",
        scope: Some(Scope::WebhooksRead),
        operation: "read_webhook_endpoint",
        summary: "Shows a webhook endpoint, without its secret.",
        handler: || on(MethodFilter::GET, webhooks::read),
        ..ROW
    },
    Route {
        method: "PATCH",
        path: "/v1/webhook_endpoints/{id}",
        scope: Some(Scope::WebhooksManage),
        operation: "update_webhook_endpoint",
        summary: "Changes a webhook endpoint, or switches it on or off.",
        body: "WebhookEndpointChange",
        handler: || on(MethodFilter::PATCH, webhooks::update),
        ..ROW
    },
    Route {
        method: "DELETE",
        path: "/v1/webhook_endpoints/{id}",
        scope: Some(Scope::WebhooksManage),
        operation: "delete_webhook_endpoint",
        summary: "Deletes a webhook endpoint.",
        handler: || on(MethodFilter::DELETE, webhooks::delete),
        ..ROW
    },
    Route {
        method: "POST",
        path: "/v1/webhook_endpoints/{id}/rotate_secret",
        scope: Some(Scope::WebhooksManage),
        operation: "rotate_webhook_secret",
        summary: "Gives a webhook endpoint another secret and shows it, once; the old one signs as well for some hours.",
        body: "WebhookRotation",
        handler: || on(MethodFilter::POST, webhooks::rotate),
        ..ROW
    },
    Route {
        method: "POST",
        path: "/v1/webhook_endpoints/{id}/test",
        scope: Some(Scope::WebhooksManage),
        operation: "test_webhook_endpoint",
        summary: "Sends a webhook endpoint an event that says nothing.",
        handler: || on(MethodFilter::POST, webhooks::test),
        ..ROW
    },
    Route {
        path: "/v1/webhook_endpoints/{id}/deliveries",
        scope: Some(Scope::WebhooksRead),
        operation: "list_webhook_deliveries",
        summary: "Lists what a webhook endpoint was told and what became of it, newest first.",
        query: webhooks::DELIVERIES_QUERY,
        handler: || on(MethodFilter::GET, webhooks::deliveries),
        ..ROW
    },
    Route {
        method: "POST",
        path: "/v1/webhook_endpoints/{id}/replay",
        scope: Some(Scope::WebhooksManage),
        operation: "replay_webhooks",
        summary: "Delivers an event once more, or what happened since a time.",
        body: "WebhookReplay",
        handler: || on(MethodFilter::POST, webhooks::replay),
        ..ROW
    },
    Route {
        path: "/v1/webhook_events/{id}",
        scope: Some(Scope::WebhooksRead),
        operation: "read_webhook_event",
        summary: "Shows what was told, as it is posted.",
        handler: || on(MethodFilter::GET, webhooks::event),
        ..ROW
    },
    Route {
        path: "/livez",
        operation: "livez",
        summary: "Says that the process answers.",
        handler: || on(MethodFilter::GET, health::livez),
        ..ROW
    },
    Route {
        path: "/readyz",
        operation: "readyz",
        summary: "Says whether the vault can do its work, and which part cannot.",
        handler: || on(MethodFilter::GET, health::readyz),
        ..ROW
    },
    Route {
        path: "/openapi.json",
        operation: "openapi",
        summary: "This API, described.",
        handler: || on(MethodFilter::GET, openapi::show),
        ..ROW
    },
];

/// What requests that fit no row are counted and logged as.
static NO_ROUTE: Route = Route { operation: "no_route", ..ROW };

/// The router of the API listener.
pub fn router(app: &App) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let guarded = Guarded { app: app.clone(), route };
        let handler = (route.handler)().layer(from_fn_with_state(guarded, guard::guard));
        router = router.route(route.path, handler);
    }
    let of = Guarded { app: app.clone(), route: &NO_ROUTE };
    let wrong_method = of.clone();
    router
        .fallback(move |request| guard::no_route(of.clone(), request, Code::RouteUnknown))
        .method_not_allowed_fallback(move |request| {
            guard::no_route(wrong_method.clone(), request, Code::MethodNotAllowed)
        })
        .with_state(app.clone())
}
