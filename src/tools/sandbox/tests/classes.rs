//! What makes a repetition harmless, class by class, on the sandbox's clock.

use std::collections::HashMap;

use proptest::prelude::*;

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
    // From now on payments are remembered.
    let got =
        sandbox.post("/sandbox/rules", "-", &json!({ "wire": "json", "duplicate_window_s": 120 })).unwrap();
    assert_eq!(got.json["data"][0]["rules"]["duplicate_window_s"], 120);
    assert_eq!(status(&post(&sandbox, "k", &body)), "approved");
    assert_eq!(status(&post(&sandbox, "k", &body)), "duplicate");
    assert_eq!(status(&post(&sandbox, "k", &sale("r", APPROVED, 101))), "approved");
    sandbox.advance(121);
    assert_eq!(status(&post(&sandbox, "k", &body)), "approved");
    assert_eq!(sandbox.charged("r"), 5);
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

#[test]
fn a_restarted_sandbox_remembers_orders_windows_and_keys() {
    let (_directory, path) = place();
    let families = [Family::Adyen, Family::NetXml, Family::Worldpay];
    {
        let sandbox = Running::start(&path);
        for family in families {
            assert!(family.is_approved(&family.send(&sandbox, "r", APPROVED).unwrap()));
        }
    }
    let sandbox = Running::start(&path);
    assert!(Family::Adyen.send(&sandbox, "r", APPROVED).unwrap().is_replay());
    assert_eq!(Family::NetXml.code(&Family::NetXml.send(&sandbox, "r", APPROVED).unwrap()), "11");
    assert!(Family::Worldpay.send(&sandbox, "r", APPROVED).unwrap().text.contains("Duplicate Order"));
    for family in families {
        assert_eq!(sandbox.amounts(family.wire(), "r"), [1000, 1000, 0, 0]);
    }
}

/// What a caller does to a sandbox whose keys live 60 s and whose duplicate window is 60 s.
#[derive(Clone, Debug)]
enum Step {
    /// A sale under a key, with a reference, an amount, and a card that approves or declines.
    Send {
        key: u8,
        reference: u8,
        amount: i64,
        approves: bool,
    },
    Advance {
        seconds: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let send = (0_u8..2, 0_u8..2, 100_i64..102, any::<bool>());
    prop_oneof![
        5 => send.prop_map(|(key, reference, amount, approves)| Step::Send { key, reference, amount, approves }),
        // Far enough from 60 in every sum that the time the test itself takes does not matter.
        1 => (1_u32..3).prop_map(|n| Step::Advance { seconds: n * 25 }),
    ]
}

/// Reference, amount, and whether the card approves.
type Body = (u8, i64, bool);

/// The rules in a few lines: what was answered under which name, and when.
#[derive(Default)]
struct Model {
    now: i64,
    /// By key: when, the body, and whether it was approved.
    keys: HashMap<u8, (i64, Body, bool)>,
    references: Vec<u8>,
    windows: HashMap<(i64, bool), i64>,
}

impl Model {
    /// The status that a sale is answered with, and whether that is a stored answer.
    fn send(&mut self, class: Class, key: u8, body: Body) -> (&'static str, bool) {
        let (reference, amount, approves) = body;
        let outcome = if approves { "approved" } else { "declined" };
        let stored = self.keys.get(&key).filter(|(at, ..)| self.now - at < 60);
        match (class, stored) {
            (Class::Replay, Some((_, known, _))) | (Class::SuccessOnly, Some((_, known, true))) => {
                return if *known == body { (outcome, true) } else { ("key_reused", false) };
            }
            (Class::NaturalKey, _) if self.references.contains(&reference) => {
                return ("reference_used", false);
            }
            _ => {}
        }
        // The same card and amount: the sales of this test have no invoice.
        if self.windows.get(&(amount, approves)).is_some_and(|at| self.now - at < 60) {
            return ("duplicate", false);
        }
        self.keys.insert(key, (self.now, body, approves));
        self.references.push(reference);
        self.windows.insert((amount, approves), self.now);
        (outcome, false)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_class_does_what_its_few_lines_say(steps in prop::collection::vec(step(), 1..25)) {
        for (class, window_s) in [
            (Class::Replay, 0),
            (Class::SuccessOnly, 0),
            (Class::NaturalKey, 0),
            (Class::None, 0),
            (Class::None, 60),
            (Class::Replay, 60),
        ] {
            let (_directory, path) = place();
            let rules = Rules { key_ttl_s: Some(60), duplicate_window_s: Some(window_s), ..by(class) };
            let sandbox = Running::start_by(&path, rules);
            let mut model = Model::default();
            for step in &steps {
                match *step {
                    Step::Advance { seconds } => {
                        sandbox.advance(seconds);
                        model.now += i64::from(seconds);
                    }
                    Step::Send { key, reference, amount, approves } => {
                        if window_s == 0 {
                            model.windows.clear();
                        }
                        let card = if approves { APPROVED } else { "4000000000000002" };
                        let body = sale(&format!("r{reference}"), card, amount);
                        let got = post(&sandbox, &format!("k{key}"), &body);
                        let expected = model.send(class, key, (reference, amount, approves));
                        prop_assert_eq!((status(&got), got.is_replay()), expected, "{:?}", class);
                    }
                }
            }
        }
    }
}
