//! Who may be made a principal, and with what: each order that is refused, and that nothing comes of it.

use cardvault::card::tenant::Mode;
use cardvault::clock::{Clock, SystemClock};
use cardvault::supervisor::admin::AdminRequest;
use cardvault::wire::control::{AdminAnswer, PrincipalOrder};

use crate::common::{BILLING, Vault, card, count_of, events, name, order, run, store};

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
    let elsewhere = PrincipalOrder {
        destinations: vec!["sandbox".to_owned(), "nowhere".to_owned()],
        ..order("x", Some("acme"), &["charges:create"])
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
        (elsewhere, "no such destination"),
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

/// The commands of an administrator, beside a vault that runs and where none does.
#[tokio::test]
async fn tenants_and_principals_are_made_listed_rotated_and_switched_off_by_command() {
    let mut vault = Vault::make(|config| config);
    let config = vault.config();
    let does = |args: &[&str]| {
        let (code, said) = run(&[args, &["--config", name(&config)]].concat());
        assert_eq!(code, 0, "{args:?}: {said}");
        said
    };
    let refuses = |args: &[&str], word: &str| {
        let (code, said) = run(&[args, &["--config", name(&config)]].concat());
        assert!(code != 0 && said.contains(word), "{args:?}: {said}");
    };
    let credential = |said: &str| said.rsplit("shown once: ").next().unwrap().trim().to_owned();
    does(&["tenant", "add", "acme", "--mode", "test"]);
    let scopes: Vec<&str> = BILLING.iter().flat_map(|scope| ["--scope", *scope]).collect();
    let add =
        [&["principal", "add", "billing", "--tenant", "acme", "--expires-days", "30"], scopes.as_slice()]
            .concat();
    let old = credential(&does(&add));
    refuses(&["tenant", "add", "acme", "--mode", "live"], "there already");
    refuses(&["tenant", "add", "other", "--mode", "real"], "test");
    vault.serve();
    store(&vault.client(&old), "k-1", &card("4242424242424242", "c-1")).await;
    // A fault in a file that it is not about does not leave a tenant half made.
    let file = vault.path("credentials/sandbox_secret_key");
    let secret = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    does(&["tenant", "add", "other", "--mode", "live"]);
    std::fs::write(&file, secret).unwrap();
    let listed = does(&["tenant", "list"]);
    let line = |text: &str, name: &str| text.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(line(&listed, "acme").contains("test") && line(&listed, "other").contains("live"), "{listed}");
    let new = credential(&does(&["principal", "rotate", "billing", "--overlap-hours", "0"]));
    let status = async |credential: &str| {
        vault.client(credential).get("/v1/tokens?customer=c-1").await.unwrap().status
    };
    assert_eq!((status(&old).await, status(&new).await), (401, 200));
    refuses(&["principal", "rotate", "billing", "--overlap-hours", "169"], "at most 7 days");
    does(&["principal", "disable", "billing"]);
    assert_eq!(status(&new).await, 401);
    let listed = does(&["principal", "list"]);
    assert!(line(&listed, "billing").contains("disabled") && !listed.contains("cv_"), "{listed}");
    does(&["tenant", "disable", "other"]);
    assert!(line(&does(&["tenant", "list"]), "other").contains("disabled"));
    let events = events(&vault.assessor()).await;
    for (action, count) in
        [("tenant.create", 2), ("tenant.disable", 1), ("principal.rotate", 1), ("principal.disable", 1)]
    {
        assert_eq!(count_of(&events, action), count, "{action}");
    }
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
}
