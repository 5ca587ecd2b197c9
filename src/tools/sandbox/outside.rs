//! What nobody can learn from outside: a caller who lost an answer has the same request again, and look-ups; where
//! neither tells him, only a person can ask the processor. The ledger marks these, so that a test can compare with them
//! how many a caller had to give up.

use super::book::Request;
use super::faults::Met;
use super::ledger::{Kind, Status, Wire};
use super::rules::Class;

/// Whether nobody can learn what became of this operation. What was not done is told by no webhook.
pub(super) fn is_unresolvable(
    request: &Request,
    (kind, status): (Kind, Status),
    met: Met,
    class: Class,
    is_told: bool,
) -> bool {
    !met.fault.is_decisive()
        && !learns_by_repeating(request, met, class)
        && !learns_by_looking(request, kind, class, is_told && status != Status::Error)
}

/// The same request under the same key has the answer, unless the key's answer is the fault, or the request carried a
/// verification code: nobody may keep that, so the request cannot be made again.
fn learns_by_repeating(request: &Request, met: Met, class: Class) -> bool {
    let has_key = request.key.is_some() && matches!(class, Class::Replay | Class::SuccessOnly);
    has_key && !request.has_cvc && !(met.lasting && class == Class::Replay)
}

/// A look-up finds it by the caller's reference or, where it was done to a payment, by that payment. Adyen has no look-ups:
/// its webhooks tell, if somebody listens.
fn learns_by_looking(request: &Request, kind: Kind, class: Class, is_told: bool) -> bool {
    let is_named = !request.reference.is_empty();
    match request.wire {
        Wire::Adyen => is_told,
        // Its lists name transactions of money, by invoice number; a verification is none.
        Wire::AuthorizeNet => match kind {
            Kind::Sale | Kind::Authorize | Kind::Refund => is_named,
            Kind::Capture | Kind::Void => true,
            Kind::Verify => false,
        },
        // Its search finds payments only.
        Wire::Stripe if kind == Kind::Verify => false,
        Wire::Json | Wire::Stripe | Wire::Worldpay => {
            is_named || class == Class::NaturalKey || matches!(kind, Kind::Capture | Kind::Void)
        }
    }
}
