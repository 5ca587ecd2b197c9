use std::path::PathBuf;

use super::*;
use crate::person::key::PersonKey;
use crate::person::scope::PersonScope;
use crate::supervisor::approvals::{Approvals, State};
use crate::supervisor::keys::KeyRequest;
use crate::wire::control::PrincipalOrder;

const RULES: Rules =
    Rules { environment: [7; 16], production: true, two_person: true, seconds_max: 24 * 3_600 };

fn now() -> Time {
    Time::parse("2026-11-22T00:00:00Z").unwrap()
}

/// An office with three persons: alice and bob may do everything, carol may rotate keys.
struct Office {
    people: People,
    approvals: Approvals,
    alice: PersonKey,
    bob: PersonKey,
    carol: PersonKey,
    store: PathBuf,
    _directory: tempfile::TempDir,
}

fn office() -> Office {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("keystore.json");
    let mut people = People::open(&store, RULES.environment).unwrap();
    let [alice, bob, carol] = [(); 3].map(|()| PersonKey::make().unwrap());
    let all = PersonScope::names();
    let some = vec!["keys:rotate".to_owned()];
    for (name, key, scopes) in [("alice", &alice, &all), ("bob", &bob, &all), ("carol", &carol, &some)] {
        let (public, scopes) = (key.public().unwrap(), scopes.clone());
        let new = Registration { name: name.to_owned(), public, uid: None, scopes };
        people.add(PersonId::make(now()).unwrap(), new, true, "uid:0", now()).unwrap();
    }
    let approvals = Approvals::open(&store, RULES.environment).unwrap();
    Office { people, approvals, alice, bob, carol, store, _directory: directory }
}

fn request(asked: &AdminRequest) -> Request {
    Request {
        environment: RULES.environment,
        verb: scope_of(asked).map_or("", PersonScope::name).to_owned(),
        parameters: serde_json::to_value(asked).unwrap(),
        id: ApprovalId::make(now()).unwrap(),
        expires_at: now().plus_seconds(3_600),
    }
}

const DESTROY: AdminRequest = AdminRequest::Key(KeyRequest::Destroy(7));

impl Office {
    fn read(&self, key: &PersonKey, request: &Request) -> Result<Asking, Refusal> {
        let text = request.text().unwrap();
        let signed = Signed::make(key, Step::Ask, &text).unwrap();
        read(&self.people, &RULES, (&text, &signed), "uid:0", now())
    }

    /// Alice asks for this, and it waits.
    fn ask(&mut self, asked: &AdminRequest) -> ApprovalId {
        let asking = self.read(&self.alice, &request(asked)).unwrap();
        self.approvals.ask(&asking.request, &asking.text, asking.said.clone()).unwrap();
        asking.request.id
    }

    fn check(&self, id: ApprovalId, key: &PersonKey, step: Step) -> Result<Said, Refusal> {
        let approval = self.approvals.get(id).unwrap();
        let signed = Signed::make(key, step, &approval.text).unwrap();
        check_decision(&self.people, &RULES, approval, (step, &signed), "uid:0", now())
    }
}

#[test]
fn a_request_is_taken_from_who_may_ask_for_it() {
    let mut office = office();
    let good = request(&DESTROY);
    assert!(office.read(&office.alice, &good).is_ok());
    let refused =
        |office: &Office, key: &PersonKey, request: &Request| office.read(key, request).unwrap_err();
    let stranger = PersonKey::make().unwrap();
    assert_eq!(refused(&office, &stranger, &good), PeopleError::Signature.into());
    assert_eq!(refused(&office, &office.carol, &good), Refusal::Scope("keys:destroy"));
    let elsewhere = Request { environment: [8; 16], ..good.clone() };
    assert_eq!(refused(&office, &office.alice, &elsewhere), Refusal::OtherInstallation);
    for end in [-1, 0, RULES.seconds_max + CLOCK_SECONDS + 1] {
        let other = Request { expires_at: now().plus_seconds(end), ..good.clone() };
        assert_eq!(refused(&office, &office.alice, &other), Refusal::End);
    }
    let looks = request(&AdminRequest::TenantList);
    assert_eq!(refused(&office, &office.alice, &looks), Refusal::NothingToSign);
    // The verb is that of the parameters, and the parameters are read whole.
    for other in [
        Request { verb: "keys:rotate".to_owned(), ..good.clone() },
        Request { parameters: serde_json::json!({"key": {"destroy": 7, "and": 8}}), ..good.clone() },
        Request { parameters: serde_json::json!("nothing"), ..good.clone() },
    ] {
        assert_eq!(refused(&office, &office.alice, &other), NotCanonical.into());
    }
    let nested = AdminRequest::Signed {
        text: good.text().unwrap(),
        signed: Signed::make(&office.alice, Step::Ask, "x").unwrap(),
    };
    assert_eq!(refused(&office, &office.alice, &request(&nested)), Refusal::NothingToSign);
    office.people.disable("alice", "uid:0", now()).unwrap();
    assert_eq!(refused(&office, &office.alice, &good), PeopleError::Disabled.into());
}

#[test]
fn nobody_approves_their_own_request() {
    let mut office = office();
    let id = office.ask(&DESTROY);
    assert_eq!(office.check(id, &office.alice, Step::Approve).unwrap_err(), Refusal::OwnRequest);
    // Not with another key of hers either: she is one person.
    let next = PersonKey::make().unwrap();
    office.people.rekey("alice", (next.public().unwrap(), true), "uid:0", now()).unwrap();
    assert_eq!(office.check(id, &next, Step::Approve).unwrap_err(), Refusal::OwnRequest);
    let before = office.check(id, &office.alice, Step::Approve).unwrap_err();
    assert_eq!(before, PeopleError::Signature.into());
}

#[test]
fn a_word_counts_from_another_person_who_may_and_for_one_text() {
    let mut office = office();
    let id = office.ask(&DESTROY);
    assert_eq!(office.check(id, &office.carol, Step::Approve).unwrap_err(), Refusal::Scope("keys:destroy"));
    let stranger = PersonKey::make().unwrap();
    assert_eq!(office.check(id, &stranger, Step::Approve).unwrap_err(), PeopleError::Signature.into());
    // A rejection is no approval, and a word on another request is none on this one.
    let approval = office.approvals.get(id).unwrap().clone();
    let rejects = Signed::make(&office.bob, Step::Reject, &approval.text).unwrap();
    let renamed = Signed { step: Step::Approve, ..rejects };
    let other = Signed::make(&office.bob, Step::Approve, &request(&DESTROY).text().unwrap()).unwrap();
    for signed in [renamed, other] {
        let given = (Step::Approve, &signed);
        let checked = check_decision(&office.people, &RULES, &approval, given, "uid:0", now());
        assert_eq!(checked.unwrap_err(), PeopleError::Signature.into());
    }
    assert!(office.check(id, &office.bob, Step::Approve).is_ok());
    // Who asked may withdraw it.
    assert!(office.check(id, &office.alice, Step::Reject).is_ok());
    office.people.disable("alice", "uid:0", now()).unwrap();
    assert_eq!(office.check(id, &office.bob, Step::Approve).unwrap_err(), Refusal::AskerGone);
}

#[test]
fn persons_whom_one_alone_registered_do_not_count() {
    let mut office = office();
    let dave = PersonKey::make().unwrap();
    let new = Registration {
        name: "dave".to_owned(),
        public: dave.public().unwrap(),
        uid: None,
        scopes: PersonScope::names(),
    };
    office.people.add(PersonId::make(now()).unwrap(), new, false, "uid:0", now()).unwrap();
    assert_eq!(office.read(&dave, &request(&DESTROY)).unwrap_err(), Refusal::NotVouched);
    let id = office.ask(&DESTROY);
    assert_eq!(office.check(id, &dave, Step::Approve).unwrap_err(), Refusal::NotVouched);
    assert_eq!(counting(&office.people).count(), 3);
}

#[test]
fn a_request_is_approved_and_carried_out_once() {
    let mut office = office();
    let id = office.ask(&DESTROY);
    let bob = office.check(id, &office.bob, Step::Approve).unwrap();
    assert_eq!(
        office.approvals.end(id, Ok(String::new())),
        Err(ApprovalError::NotPending("pending")),
        "nothing is carried out that nobody approved"
    );
    office.approvals.decide(id, bob.clone(), true).unwrap();
    assert_eq!(office.approvals.decide(id, bob, true), Err(ApprovalError::NotPending("approved")));
    // As the supervisor that starts after one that died finds it.
    let mut again = Approvals::open(&office.store, RULES.environment).unwrap();
    assert_eq!(again.approved(), [id]);
    again.end(id, Ok("done".to_owned())).unwrap();
    assert_eq!(again.end(id, Ok("done".to_owned())), Err(ApprovalError::NotPending("executed")));
    assert!(again.approved().is_empty());
    let approval = again.get(id).unwrap();
    assert_eq!((approval.state, approval.result.as_deref()), (State::Executed, Some("done")));
    // The same text never waits again.
    let asked = approval.asked.clone();
    let (request, text) = (approval.request().unwrap(), approval.text.clone());
    assert_eq!(again.ask(&request, &text, asked), Err(ApprovalError::Used));
    let actions: Vec<_> = again.untold().iter().map(|told| told.action.as_str()).collect();
    assert_eq!(actions, ["approval.request", "approval.approve", "approval.execute"]);
    assert!(again.untold().iter().all(|told| told.target.1 == id.to_string()));
    assert!(Approvals::open(&office.store, [8; 16]).is_err());
}

#[test]
fn what_a_file_says_was_approved_counts_with_both_signatures_only() {
    let mut office = office();
    let id = office.ask(&DESTROY);
    let pending = office.approvals.get(id).unwrap().clone();
    let bob = office.check(id, &office.bob, Step::Approve).unwrap();
    let by =
        |said: &Said| Approval { decided: Some(said.clone()), state: State::Approved, ..pending.clone() };
    let approved = |office: &Office, approval: &Approval| approved(&office.people, &RULES, approval).is_ok();
    assert!(approved(&office, &by(&bob)));
    assert!(!approved(&office, &pending) && !approved(&office, &by(&pending.asked)));
    assert!(!approved(&office, &by(&Said { person: pending.asked.person, ..bob.clone() })));
    let other = Approval { text: pending.text.replace(":7}", ":8}"), ..by(&bob) };
    assert!(!approved(&office, &other));
    // Who asked for another key of their own, and has it, signed with the one before.
    let next = PersonKey::make().unwrap().public().unwrap();
    let rekey = PersonRequest::Rekey { person: "alice".to_owned(), public: next };
    let id = office.ask(&AdminRequest::Person(rekey));
    let bob = office.check(id, &office.bob, Step::Approve).unwrap();
    let rekeyed = Approval { decided: Some(bob), ..office.approvals.get(id).unwrap().clone() };
    office.people.rekey("alice", (next, true), "uid:0", now()).unwrap();
    assert!(approved(&office, &rekeyed));
    office.people.disable("bob", "uid:0", now()).unwrap();
    assert!(!approved(&office, &Approval { text: pending.text.clone(), ..rekeyed }));
}

#[test]
fn what_nobody_decides_in_time_is_void() {
    let mut office = office();
    let id = office.ask(&DESTROY);
    office.approvals.expire(now().plus_seconds(3_599)).unwrap();
    assert_eq!(office.approvals.get(id).unwrap().state, State::Pending);
    office.approvals.expire(now().plus_seconds(3_600)).unwrap();
    assert_eq!(office.approvals.get(id).unwrap().state, State::Expired);
    let bob = office.check(id, &office.bob, Step::Approve).unwrap();
    assert_eq!(office.approvals.decide(id, bob, true), Err(ApprovalError::NotPending("expired")));
}

#[test]
fn what_one_person_may_do_is_done_once_as_well() {
    let mut office = office();
    let rotate = AdminRequest::TenantDisable { name: "shop".to_owned() };
    let request = request(&rotate);
    office.approvals.use_once(&request, now()).unwrap();
    assert_eq!(office.approvals.use_once(&request, now()), Err(ApprovalError::Used));
    // Its id is forgotten when the text is void by itself.
    let later = now().plus_seconds(3_601);
    office
        .approvals
        .use_once(&Request { id: ApprovalId::make(later).unwrap(), ..request.clone() }, later)
        .unwrap();
    assert!(!office.approvals.is_used(request.id));
    let asking = office.read(&office.alice, &request).unwrap();
    assert_eq!(asking.said.through, "uid:0");
}

#[test]
fn the_first_two_sign_for_each_other_and_there_is_no_second_first_time() {
    let directory = tempfile::tempdir().unwrap();
    let mut people = People::open(&directory.path().join("keystore.json"), RULES.environment).unwrap();
    let [alice, bob, stranger] = [(); 3].map(|()| PersonKey::make().unwrap());
    let new = |name: &str, key: &PersonKey| Registration {
        name: name.to_owned(),
        public: key.public().unwrap(),
        uid: None,
        scopes: PersonScope::names(),
    };
    let found = |both: Vec<Registration>| AdminRequest::Person(PersonRequest::Found(both));
    let take = |people: &People, key: &PersonKey, asked: &AdminRequest| {
        let text = request(asked).text().unwrap();
        let signed = Signed::make(key, Step::Ask, &text).unwrap();
        read(people, &RULES, (&text, &signed), "uid:0", now())
    };
    let both = found(vec![new("alice", &alice), new("bob", &bob)]);
    for (asked, key) in [
        (found(vec![new("alice", &alice)]), &alice),
        (found(vec![new("alice", &alice), new("alice", &bob)]), &alice),
        (found(vec![new("alice", &alice), new("bob", &alice)]), &alice),
        (found(vec![new("alice", &alice), new("bob", &bob), new("carol", &stranger)]), &alice),
        (both.clone(), &stranger),
    ] {
        assert_eq!(take(&people, key, &asked).unwrap_err(), Refusal::Founders);
    }
    let asking = take(&people, &alice, &both).unwrap();
    let approval = Approval {
        id: asking.request.id,
        text: asking.text.clone(),
        asked: asking.said.clone(),
        decided: None,
        state: State::Pending,
        result: None,
    };
    let decide = |people: &People, key: &PersonKey| {
        let signed = Signed::make(key, Step::Approve, &approval.text).unwrap();
        check_decision(people, &RULES, &approval, (Step::Approve, &signed), "uid:0", now())
    };
    assert_eq!(decide(&people, &alice).unwrap_err(), Refusal::OwnRequest);
    assert_eq!(decide(&people, &stranger).unwrap_err(), Refusal::Founders);
    let bob_said = decide(&people, &bob).unwrap();
    assert_eq!((asking.said.person, bob_said.person), (person_id(approval.id, 0), person_id(approval.id, 1)));
    for (at, new) in [new("alice", &alice), new("bob", &bob)].into_iter().enumerate() {
        people.add(person_id(approval.id, at), new, true, "uid:0", now()).unwrap();
    }
    let more = found(vec![new("carol", &stranger), new("dave", &PersonKey::make().unwrap())]);
    assert_eq!(take(&people, &stranger, &more).unwrap_err(), Refusal::Founded);
    assert_eq!(take(&people, &alice, &both).unwrap_err(), Refusal::Founded);
}

fn order(scopes: &[&str]) -> PrincipalOrder {
    PrincipalOrder {
        name: "x".to_owned(),
        person: true,
        tenant: None,
        scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
        expires_at: None,
        charge_max: std::collections::BTreeMap::new(),
        day_max: std::collections::BTreeMap::new(),
        destinations: Vec::new(),
    }
}

#[test]
fn who_only_holds_the_socket_may_look_and_in_development_more() {
    let development = Rules { production: false, ..RULES };
    let alone = Rules { two_person: false, ..development };
    let check =
        |rules: Rules, request: &AdminRequest| rules.check_unsigned(request, DangerousVerb::of(request));
    let key = PersonKey::make().unwrap().public().unwrap();
    let add = Registration { name: "x".to_owned(), public: key, uid: None, scopes: Vec::new() };
    let sha256 = "00".repeat(32);
    let dangerous = [
        DESTROY,
        AdminRequest::Person(PersonRequest::Add(add.clone())),
        AdminRequest::Person(PersonRequest::Found(vec![add])),
        AdminRequest::Person(PersonRequest::Rekey { person: "x".to_owned(), public: key }),
        AdminRequest::PrincipalAdd(order(&["audit:read", "admin:read"])),
        AdminRequest::PrincipalGrant { order: order(&["admin:keys"]), credential_sha256: sha256.clone() },
        AdminRequest::ReloadTo { sha256, widens: Vec::new() },
    ];
    for request in &dangerous {
        assert_eq!(check(RULES, request), Err(Refusal::Unsigned), "{request:?}");
        assert_eq!(check(development, request), Err(Refusal::TwoPersons), "{request:?}");
        assert_eq!(check(alone, request), Ok(()), "{request:?}");
    }
    let changes = [
        AdminRequest::TenantDisable { name: "x".to_owned() },
        AdminRequest::PrincipalAdd(order(&["audit:read"])),
        AdminRequest::PrincipalDisable { principal: "x".to_owned() },
        AdminRequest::PrincipalRotate { principal: "x".to_owned(), overlap_seconds: 0 },
        AdminRequest::Key(KeyRequest::Compromise(1)),
        AdminRequest::Key(KeyRequest::Retire(1)),
        AdminRequest::Person(PersonRequest::Disable("x".to_owned())),
    ];
    for request in &changes {
        assert_eq!(check(RULES, request), Err(Refusal::Unsigned), "{request:?}");
        assert_eq!(check(development, request), Ok(()), "{request:?}");
    }
    let looks = [
        AdminRequest::TenantList,
        AdminRequest::PrincipalList,
        AdminRequest::Processes,
        AdminRequest::PublicKey,
        AdminRequest::Environment,
        AdminRequest::ReloadPreview,
        AdminRequest::Key(KeyRequest::List),
        AdminRequest::Person(PersonRequest::List),
        AdminRequest::Reload,
    ];
    for request in &looks {
        assert_eq!(check(RULES, request), Ok(()), "{request:?}");
    }
}
