//! What makes a repetition harmless, class by class, on the sandbox's clock.

use super::family::*;
use super::*;

fn by(class: Class) -> Rules {
    Rules { idempotency: Some(class), ..Rules::default() }
}

fn post(sandbox: &Running, key: &str, body: &Value) -> Got {
    sandbox.post("/v1/payments", key, body).unwrap()
}

fn status(got: &Got) -> &str {
    got.json["status"].as_str().or(got.json["error"]["code"].as_str()).unwrap_or_default()
}

#[test]
fn replay_stores_every_answer_until_the_key_expires() {
    let (_directory, path) = place();
    let sandbox = Running::start_by(&path, Rules { key_ttl_s: Some(60), ..by(Class::Replay) });
    let declined = sale("d", "4000000000000002", 100);
    assert_eq!(status(&post(&sandbox, "d", &declined)), "declined");
    assert!(post(&sandbox, "d", &declined).is_replay());
    assert_eq!(status(&post(&sandbox, "d", &sale("d", APPROVED, 100))), "key_reused");
    sandbox.script(&json!({ "fault": "error_500", "count": 1, "lasting": true }));
    let body = sale("s", APPROVED, 100);
    let first = sandbox.post("/v1/payments", "s", &body).unwrap();
    let again = sandbox.post("/v1/payments", "s", &body).unwrap();
    assert_eq!((first.status, again.status), (500, 500), "a stored 500 is an answer like any other");
    assert_eq!(sandbox.charged("s"), 1);
    sandbox.advance(61);
    assert_eq!(status(&post(&sandbox, "d", &sale("d", APPROVED, 100))), "approved");
    assert_eq!(status(&post(&sandbox, "s", &body)), "approved");
    assert_eq!(sandbox.charged("s"), 2, "an expired key charges again");
}

#[test]
fn a_stored_500_outlives_a_restart() {
    let (_directory, path) = place();
    let body = sale("s", APPROVED, 100);
    {
        let sandbox = Running::start(&path);
        sandbox.script(&json!({ "fault": "error_500", "count": 1, "lasting": true, "charges": false }));
        assert_eq!(post(&sandbox, "s", &body).status, 500);
    }
    let sandbox = Running::start(&path);
    assert_eq!(post(&sandbox, "s", &body).status, 500);
    assert_eq!(sandbox.charged("s"), 0);
}

#[test]
fn success_only_keeps_no_decline_and_no_error() {
    let (_directory, path) = place();
    let sandbox = Running::start_by(&path, by(Class::SuccessOnly));
    let declined = sale("d", "4000000000000002", 100);
    for _ in 0..2 {
        let got = post(&sandbox, "d", &declined);
        assert!(status(&got) == "declined" && !got.is_replay());
    }
    // What was not kept does not bind the body either; what was does.
    let approved = sale("d", APPROVED, 100);
    assert_eq!(status(&post(&sandbox, "d", &approved)), "approved");
    assert!(post(&sandbox, "d", &approved).is_replay());
    assert_eq!(status(&post(&sandbox, "d", &declined)), "key_reused");
    sandbox.script(&json!({ "fault": "error_500", "count": 1, "lasting": true, "charges": false }));
    let body = sale("e", APPROVED, 100);
    assert_eq!(post(&sandbox, "e", &body).status, 500);
    assert_eq!(status(&post(&sandbox, "e", &body)), "approved");
    sandbox.script(&json!({ "fault": "reset", "count": 1 }));
    let body = sale("f", APPROVED, 100);
    assert!(sandbox.post("/v1/payments", "f", &body).is_none());
    assert!(post(&sandbox, "f", &body).is_replay());
    assert_eq!([sandbox.charged("d"), sandbox.charged("e"), sandbox.charged("f")], [1, 1, 1]);
}

#[test]
fn a_natural_key_is_refused_for_ever_and_found() {
    let (_directory, path) = place();
    let sandbox = Running::start_by(&path, by(Class::NaturalKey));
    sandbox.script(&json!({ "fault": "reset", "count": 1, "charges": false }));
    let body = sale("r", APPROVED, 100);
    assert!(sandbox.post("/v1/payments", "k1", &body).is_none());
    assert_eq!(sandbox.get("/v1/payments?reference=r").json["data"], json!([]));
    assert_eq!(status(&post(&sandbox, "k2", &body)), "approved");
    for changed in [&body, &sale("r", APPROVED, 101)] {
        let got = post(&sandbox, "k3", changed);
        assert_eq!((got.status, status(&got)), (409, "reference_used"));
    }
    sandbox.advance(400 * 86_400);
    assert_eq!(status(&post(&sandbox, "k4", &body)), "reference_used");
    assert_eq!(sandbox.get("/v1/payments?reference=r").json["data"][0]["status"], "approved");
    let id = sandbox.get("/v1/payments?reference=r").json["data"][0]["id"].as_str().unwrap().to_owned();
    let refund = json!({ "reference": "rf", "amount": 60 });
    let refunds = format!("/v1/payments/{id}/refunds");
    assert_eq!(sandbox.post(&refunds, "x", &refund).unwrap().status, 200);
    assert_eq!(sandbox.post(&refunds, "y", &refund).unwrap().status, 409);
    assert_eq!(sandbox.amounts("json", "r"), [100, 100, 60, 0]);
}

#[test]
fn without_a_class_everything_is_done_again_but_for_a_window() {
    let (_directory, path) = place();
    let sandbox = Running::start_by(&path, by(Class::None));
    let body = sale("r", APPROVED, 100);
    for _ in 0..2 {
        assert_eq!(status(&post(&sandbox, "k", &body)), "approved");
    }
    assert_eq!(sandbox.charged("r"), 2);
    let got =
        sandbox.post("/sandbox/rules", "-", &json!({ "wire": "json", "duplicate_window_s": 120 })).unwrap();
    assert_eq!(got.json["data"][0]["rules"]["duplicate_window_s"], 120);
    assert_eq!(status(&post(&sandbox, "k", &body)), "duplicate");
    assert_eq!(status(&post(&sandbox, "k", &sale("r", APPROVED, 101))), "approved");
    sandbox.advance(121);
    assert_eq!(status(&post(&sandbox, "k", &body)), "approved");
    assert_eq!(sandbox.charged("r"), 4);
}

#[test]
fn every_family_can_have_every_class() {
    for (class, charges) in
        [(Class::Replay, 1), (Class::SuccessOnly, 1), (Class::NaturalKey, 1), (Class::None, 2)]
    {
        let (_directory, path) = place();
        let rules = Rules { duplicate_window_s: Some(0), ..by(class) };
        let sandbox = Running::start_by(&path, rules);
        for family in FAMILIES.into_iter().filter(|family| *family != Family::NetJson) {
            let first = family.send(&sandbox, "r", APPROVED).unwrap();
            let second = family.send(&sandbox, "r", APPROVED).unwrap();
            assert!(family.is_approved(&first), "{family:?} {class:?}");
            assert_eq!(family.is_approved(&second), class != Class::NaturalKey, "{family:?} {class:?}");
            assert_eq!(
                second.is_replay(),
                charges == 1 && class != Class::NaturalKey,
                "{family:?} {class:?}"
            );
            let all = sandbox.standings(family.wire());
            assert_eq!(all[0]["payments"], charges, "{family:?} {class:?}");
        }
    }
}

#[test]
fn wrong_rules_and_scripts_are_refused_and_change_nothing() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    for (route, body) in [
        ("rules", json!({ "wire": "visa" })),
        ("rules", json!({ "idempotency": "some" })),
        ("rules", json!({ "key_ttl": 1 })),
        ("faults", json!({ "fault": "none of them", "count": 1 })),
        ("faults", json!({ "fault": "refuse", "count": 1, "wire": "adyen" })),
        ("faults", json!({ "fault": "reset_before", "count": 1, "operation": "sale" })),
        ("faults", json!({ "fault": "drop", "count": 1, "at": 3 })),
        ("faults", json!({ "seed": 1, "per_mille": 1001 })),
        ("faults", json!({ "fault": "drop", "for_ms": 10 })),
    ] {
        let got = sandbox.post(&format!("/sandbox/{route}"), "-", &body).unwrap();
        assert_eq!(got.status, 400, "{body}");
    }
    assert_eq!(status(&post(&sandbox, "k", &sale("r", APPROVED, 100))), "approved");
}
