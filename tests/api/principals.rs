//! Who may be made a principal, and with what: each order that is refused, and that nothing comes of it.

use cardvault::card::tenant::Mode;
use cardvault::clock::{Clock, SystemClock};
use cardvault::supervisor::admin::AdminRequest;
use cardvault::wire::control::{AdminAnswer, PrincipalOrder};

use crate::common::{BILLING, Vault, count_of, events, order};

fn person(name: &str, tenant: Option<&str>, scopes: &[&str]) -> PrincipalOrder {
    PrincipalOrder { person: true, ..order(name, tenant, scopes) }
}

#[tokio::test]
async fn a_principal_is_of_one_kind_and_one_tenant() {
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    vault.tenant("gone", Mode::Test);
    vault.ask(AdminRequest::TenantDisable { name: "gone".to_owned() });
    let assessor = vault.assessor();
    vault.principal(order("billing", Some("acme"), &BILLING));
    let with_max = |currency: &str, amount| {
        let mut order = order("x", Some("acme"), &["charges:create"]);
        order.charge_max.insert(currency.to_owned(), amount);
        order
    };
    let mut by_day = order("x", Some("acme"), &["charges:create"]);
    by_day.day_max.insert("USD".to_owned(), -1);
    let expired = PrincipalOrder {
        expires_at: Some(SystemClock.now().plus_seconds(-1)),
        ..order("x", Some("acme"), &BILLING)
    };
    let before = vault.count("principals");
    let mut refused = vec![
        // An application holds no scope of persons.
        (order("x", None, &["admin:read"]), "persons only"),
        (order("x", None, &["admin:principals"]), "persons only"),
        (order("x", None, &["admin:tenants"]), "persons only"),
        (order("x", None, &["admin:keys"]), "persons only"),
        (order("x", Some("acme"), &["tokens:hold"]), "persons only"),
        (order("x", Some("acme"), &["tokens:read", "tokens:reveal"]), "unknown scope"),
        (order("x", Some("acme"), &[]), "at least one scope"),
        (order("x", Some("gone"), &BILLING), "no such tenant"),
        (order("x", Some("nobody"), &BILLING), "no such tenant"),
        (order("billing", Some("acme"), &BILLING), "of this name"),
        (order("a b", Some("acme"), &BILLING), "a name has"),
        (order("", Some("acme"), &BILLING), "a name has"),
        (expired, "expiry is past"),
        (with_max("USD", 0), "limits are positive"),
        (with_max("usd", 1), "limits are positive"),
        (by_day, "limits are positive"),
    ];
    // Who works on cards belongs to the tenant whose they are, assessor and administrator or not.
    for scope in ["tokens:create", "tokens:read", "charges:create", "charges:read", "charges:refund"] {
        refused.push((order("x", None, &[scope]), "name the tenant"));
        refused.push((person("x", None, &["audit:read", "admin:read", scope]), "name the tenant"));
    }
    for (order, sentence) in refused {
        let answer = vault.ask(AdminRequest::PrincipalAdd(order.clone()));
        let said = matches!(&answer, AdminAnswer::Refused(why) if why.contains(sentence));
        assert!(said, "{sentence}: {:?} {answer:?}", order.scopes);
    }
    let overlap =
        AdminRequest::PrincipalRotate { principal: "billing".to_owned(), overlap_seconds: 7 * 86_400 + 1 };
    assert!(matches!(vault.ask(overlap), AdminAnswer::Refused(why) if why.contains("at most 7 days")));
    assert_eq!(vault.count("principals"), before);
    assert_eq!(count_of(&events(&assessor).await, "principal.create"), usize::try_from(before).unwrap());
}
