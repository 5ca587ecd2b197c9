//! The keeper's answers to an edge: what it takes, what it gives back, and what of a charge is kept nowhere.

use std::collections::{BTreeMap, BTreeSet};

use super::exchanges::Asker;
use super::keys::{Kek, Mac};
use super::state::{Later, Reply, State};
use crate::card::brand::Brand;
use crate::card::id::{AttemptId, EventId, Token};
use crate::card::sealed::SealedCard;
use crate::card::stray::Exemptions;
use crate::card::tenant::{Mode, TenantId};
use crate::card::truncated::TruncatedPan;
use crate::clock::{Clock, SystemClock};
use crate::connector::builtin_text;
use crate::wire::control::{Destination, ForwardTo, KeeperSettings, TenantInfo};
use crate::wire::forwarder::{Answer, Exchange, Outcome, Sent, Verdict};
use crate::wire::keeper::{
    ChargeRead, FromKeeper, Prepare, PrepareForward, Prepared, ReadCharge, ReadForward, Refusal, RefusalCode,
    Seal, SealAs, Sealed, ShowForward, ToKeeper, Verb,
};
use crate::wire::keys::{HeldKey, KeyOrder, KeyPurpose, WrappedKey};

const VISA: &str = "4242424242424242";
pub(super) const TENANT: TenantId = TenantId(1);
const KEK: [u8; 32] = [5; 32];
const ENVIRONMENT: [u8; 16] = [6; 16];
const ROUTE: &str = "POST /v1/charges";

pub(super) struct Keeper {
    pub(super) state: State,
    pub(super) token: Token,
    body_mac: WrappedKey,
}

pub(super) fn keeper() -> Keeper {
    keeper_of(&BTreeMap::new())
}

/// One whose destinations have these credentials next.
fn keeper_of(next: &BTreeMap<String, String>) -> Keeper {
    let kek = Kek::new(&KEK, ENVIRONMENT).unwrap();
    let purposes = [KeyPurpose::Data, KeyPurpose::Fingerprint, KeyPurpose::BodyMac, KeyPurpose::Pseudonym];
    let keys: Vec<_> = (1..)
        .zip(purposes)
        .map(|(id, purpose)| {
            kek.make_wrapped(KeyOrder { id, purpose, tenant: Some(TENANT), epoch: 0, version: 1 }).unwrap()
        })
        .collect();
    let now = SystemClock.now();
    let tenant = TenantInfo {
        id: TENANT,
        name: "acme".to_owned(),
        mode: Mode::Test,
        disabled: false,
        created_at: now,
    };
    let fields = BTreeMap::from([("invoice".to_owned(), vec!["424242##########".to_owned()])]);
    let settings = KeeperSettings {
        environment: ENVIRONMENT,
        origin: "dev/node1".to_owned(),
        keys: keys.iter().cloned().map(HeldKey::active).collect(),
        tenants: vec![tenant],
        exemptions: Exemptions(BTreeMap::from([("acme".to_owned(), fields)])),
        destinations: destinations(next),
        signed: (0, [0; 32]),
        fingerprints_per_hour_max: 60,
        restarts_last_hour: 0,
    };
    let mut state = State::new(settings, &KEK).unwrap();
    state.serve();
    Keeper { state, token: Token::make(now).unwrap(), body_mac: keys[2].clone() }
}

fn destination(name: &str, next: &BTreeMap<String, String>) -> Destination {
    Destination {
        name: name.to_owned(),
        connector: name.to_owned(),
        connector_toml: builtin_text(name).unwrap_or_default().to_owned(),
        mode: Mode::Test,
        endpoint: "https://127.0.0.1:1".to_owned(),
        step_endpoints: BTreeMap::new(),
        forward: None,
        trust_pem: String::new(),
        credentials: BTreeMap::from([("secret_key".to_owned(), "sk_test_canary".to_owned())]),
        next_credentials: next.clone(),
        policies: vec![1],
        timeout_seconds: 30,
    }
}

fn forward_destination() -> Destination {
    let spec = toml::from_str(
        "methods = [\"POST\"]\npaths = [\"/v1/*\"]\ncard_leaves = [\"n\", \"z\"]\n\
         credentials = { secret_key = { header = \"authorization\" } }",
    );
    let forward = Some(Box::new(ForwardTo { spec: spec.unwrap(), public_only: false }));
    Destination { forward, ..destination("shop", &BTreeMap::new()) }
}

fn destinations(next: &BTreeMap<String, String>) -> Vec<Destination> {
    vec![destination("sandbox", next), destination("stripe", next), forward_destination()]
}

impl Keeper {
    fn ask(&mut self, ask: ToKeeper) -> FromKeeper {
        match self.state.answer(ask) {
            Reply::Now(answer) => answer,
            Reply::Later(_) => panic!("an answer was expected now"),
        }
    }

    fn seal(&mut self, body: &str, allow_expired: bool) -> Result<Box<Sealed>, Refusal> {
        let seal = Seal {
            seal_as: SealAs::Create,
            tenant: TENANT,
            token: self.token,
            policy: 1,
            versions: [0; 3],
            route: "POST /v1/tokens".to_owned(),
            idempotency_key: Some("k-1".to_owned()),
            allow_expired,
            body: body.as_bytes().to_vec(),
        };
        let answer = self.ask(ToKeeper::Seal(Box::new(seal)));
        if let FromKeeper::Sealed(sealed) = answer { Ok(sealed) } else { Err(refusal(answer)) }
    }

    pub(super) fn card(&mut self, year: u16) -> SealedCard {
        let body = format!(
            r#"{{"card":{{"number":"{VISA}","exp_month":12,"exp_year":{year}}},"billing":{{"zip":"QX7 ZKW9"}}}}"#
        );
        let sealed = self.seal(&body, true).unwrap();
        SealedCard { policy: 1, pan: sealed.pan.unwrap(), expiry: sealed.expiry.unwrap(), zip: sealed.zip }
    }

    fn read(&mut self, body: &str) -> Result<Box<ChargeRead>, Refusal> {
        self.read_as(false, body)
    }

    fn read_as(&mut self, verification: bool, body: &str) -> Result<Box<ChargeRead>, Refusal> {
        let read = ReadCharge {
            tenant: TENANT,
            route: ROUTE.to_owned(),
            verification,
            idempotency_key: "k-1".to_owned(),
            body: body.as_bytes().to_vec(),
        };
        let answer = self.ask(ToKeeper::ReadCharge(read));
        if let FromKeeper::ChargeRead(read) = answer { Ok(read) } else { Err(refusal(answer)) }
    }

    pub(super) fn prepare(&mut self, ask: &Prepare) -> Result<Box<Prepared>, Refusal> {
        let answer = self.ask(ToKeeper::Prepare(Box::new(ask.clone())));
        if let FromKeeper::Prepared(prepared) = answer { Ok(prepared) } else { Err(refusal(answer)) }
    }

    pub(super) fn release(&mut self, held: u64) -> Option<Box<Exchange>> {
        match self.state.answer(ToKeeper::Release { held, grant: 1 }) {
            Reply::Later(Later::Exchange(outgoing)) => Some(Box::new(outgoing.exchange)),
            Reply::Now(_)
            | Reply::Later(Later::KeepCheckpoint(..) | Later::Webhook(_) | Later::Reseal(_)) => None,
        }
    }

    pub(super) fn sale(&self, sealed: SealedCard, held: Option<u64>) -> Prepare {
        let now = SystemClock.now();
        Prepare {
            held,
            tenant: TENANT,
            token: self.token,
            sealed: Some(sealed),
            destination: "stripe".to_owned(),
            verb: Verb::Sale,
            attempt: AttemptId::make(now).unwrap(),
            event: EventId::make(now).unwrap(),
            amount: 1250,
            currency: "USD".to_owned(),
            invoice: "inv-1".to_owned(),
            customer: None,
            description: None,
            statement_descriptor: None,
            allow_partial: false,
            last: false,
            stored_credential: None,
            previous_transaction: None,
            previous_amount: None,
            previous_attempt: None,
        }
    }
}

fn refusal(answer: FromKeeper) -> Refusal {
    let (FromKeeper::Refused(refusal) | FromKeeper::RefusedAfterOpening(refusal, _)) = answer else {
        panic!("neither done nor refused: {answer:?}");
    };
    refusal
}

fn charge(token: Token, more: &str) -> String {
    format!(
        r#"{{"token":"{token}","amount":1250,"currency":"USD","invoice":"inv-1","initiator":"customer"{more}}}"#
    )
}

#[test]
fn a_card_that_expired_is_not_stored_but_charged_if_it_is_there() {
    let mut keeper = keeper();
    let body = format!(r#"{{"card":{{"number":"{VISA}","exp_month":12,"exp_year":2020}}}}"#);
    let refused = keeper.seal(&body, false).unwrap_err();
    assert_eq!(refused, Refusal::about(RefusalCode::CardExpired, "card.exp_year"));
    let sealed = keeper.card(2020);
    let ask = keeper.sale(sealed, None);
    assert!(keeper.prepare(&ask).is_ok());
}

/// Whoever has all that is kept of a charge, and the key of its hashes, and tries every code, finds none.
#[test]
fn nothing_that_is_kept_tells_a_verification_code() {
    let mut keeper = keeper();
    let sealed = keeper.card(2030);
    let mut ask = keeper.sale(sealed, None);
    let codes: Vec<String> = (0..1_000).map(|code| format!("{code:03}")).collect();
    let body = |code: &str| charge(keeper.token, &format!(r#","cvc":"{code}""#));
    let bodies: Vec<String> = codes.iter().map(|code| body(code)).collect();
    let (mut digests, mut hashes) = (BTreeSet::new(), BTreeSet::new());
    let mut clear = Vec::new();
    for body in &bodies {
        let read = keeper.read(body).unwrap();
        assert!(read.has_cvc);
        digests.extend([read.digests.key, read.digests.body]);
        ask.held = read.held;
        ask.event = EventId::make(SystemClock.now()).unwrap();
        let prepared = keeper.prepare(&ask).unwrap();
        assert!(prepared.once_only);
        hashes.insert(prepared.mac);
        clear.push(keeper.release(prepared.held).unwrap().body.clone());
    }
    // A thousand codes were sent, and nothing that is kept differs.
    assert_eq!((digests.len(), hashes.len()), (2, 1));
    assert_eq!(clear.iter().collect::<BTreeSet<_>>().len(), codes.len());
    let kept: BTreeSet<[u8; 32]> = digests.union(&hashes).copied().collect();
    let key = Kek::new(&KEK, ENVIRONMENT).unwrap().unwrap_key(&keeper.body_mac).unwrap();
    let keyed = Mac::new(key.as_slice());
    let found = |parts: &[&[u8]]| kept.contains(&keyed.sum(parts));
    // The search finds what is there: the hash of the key, and that of the body without its code.
    assert!(found(&[b"idempotency/v1", ROUTE.as_bytes(), b"k-1"]));
    let rest: BTreeMap<String, serde_json::Value> = serde_json::from_str(&charge(keeper.token, "")).unwrap();
    assert!(found(&[b"body/v1", ROUTE.as_bytes(), b"k-1", &serde_json::to_vec(&rest).unwrap()]));
    for ((code, body), sent) in codes.iter().zip(&bodies).zip(&clear) {
        for bytes in [code.as_bytes(), body.as_bytes(), sent] {
            let hash: [u8; 32] =
                ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().try_into().unwrap();
            assert!(!kept.contains(&hash) && !found(&[bytes]));
            assert!(!found(&[b"body/v1", ROUTE.as_bytes(), b"k-1", bytes]));
            let versions = [1_u32, 1, 1].map(u32::to_be_bytes).concat();
            let attempt = ask.attempt;
            let parts: [&[u8]; 6] =
                [b"request/v1", b"sale", ask.token.bytes(), &versions, attempt.bytes(), bytes];
            assert!(!found(&parts));
        }
    }
}

#[test]
fn a_code_is_for_one_send_of_a_customer_who_is_there() {
    let mut keeper = keeper();
    let sealed = keeper.card(2030);
    let with_code = charge(keeper.token, r#","cvc":"737""#);
    let merchant = with_code.replace("\"customer\"", "\"merchant\"");
    assert_eq!(keeper.read(&merchant).unwrap_err(), Refusal::about(RefusalCode::CvcNotAccepted, "cvc"));
    let read = keeper.read(&with_code).unwrap();
    let held = read.held.unwrap();
    let ask = keeper.sale(sealed, Some(held));
    let prepared = keeper.prepare(&ask).unwrap();
    // Both are gone once they were used, and once they were given up.
    assert_eq!(keeper.prepare(&ask).unwrap_err().code, RefusalCode::HeldGone);
    assert!(keeper.release(prepared.held).is_some());
    assert!(keeper.release(prepared.held).is_none());
    let held = keeper.read(&with_code).unwrap().held.unwrap();
    keeper.ask(ToKeeper::Discard { held });
    assert_eq!(keeper.prepare(&Prepare { held: Some(held), ..ask }).unwrap_err().code, RefusalCode::HeldGone);
}

#[test]
fn what_is_passed_through_is_sent_and_taken_out_of_the_answer() {
    let mut keeper = keeper();
    let sealed = keeper.card(2030);
    let values = [
        ("name", "Jane Canary"),
        ("line1", "1 Canary Row"),
        ("line2", "Canary House"),
        ("city", "Canaryville"),
        ("region", "Canaria"),
        ("email", "jane@canary.example"),
    ];
    let billing: Vec<String> = values.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
    let more = format!(
        r#","billing":{{{},"country":"ES"}},"three_d_secure":{{"version":"2.2.0","eci":"05","cavv":"AAABCanaryBBB=","ds_transaction_id":"f38e6948-canary"}}"#,
        billing.join(",")
    );
    let read = keeper.read(&charge(keeper.token, &more)).unwrap();
    assert!(!format!("{read:?}").to_lowercase().contains("canar"));
    let ask = keeper.sale(sealed, read.held);
    let prepared = keeper.prepare(&ask).unwrap();
    // It cannot be rendered again: it is in no place to render it from.
    assert!(prepared.once_only);
    let exchange = keeper.release(prepared.held).unwrap();
    let sent: BTreeMap<String, String> = form_urlencoded::parse(&exchange.body).into_owned().collect();
    for value in
        values.map(|(_, value)| value).into_iter().chain(["AAABCanaryBBB=", "f38e6948-canary", "QX7 ZKW9"])
    {
        assert!(sent.values().any(|there| there == value), "{value} is not sent");
        assert!(exchange.scrub.iter().any(|scrubbed| scrubbed == value), "{value} may come back");
    }
    // What stands in any text by chance, or is a decline code, is left where it is.
    assert!(!exchange.scrub.iter().any(|scrubbed| matches!(scrubbed.as_str(), "ES" | "05" | "2.2.0")));
}

#[test]
fn each_field_of_a_charge_is_guarded_and_an_identifier_may_be_exempt() {
    let mut keeper = keeper();
    let token = keeper.token;
    let stray = |param: &str| Some(Refusal::about(RefusalCode::StrayNumber, param));
    let invoice = |text: &str| charge(token, "").replace("inv-1", text);
    let spaced = "4000 0566 5566 5556";
    for (body, refusal) in [
        (invoice("4000056655665556"), stray("invoice")),
        (invoice(spaced), stray("invoice")),
        (invoice("c-4000056655665556"), None),
        (invoice("4000056655665557"), None),
        // The tenant's own numbers begin like this one.
        (invoice(VISA), None),
        (charge(token, &format!(r#","period":"{VISA}""#)), stray("period")),
        (charge(token, &format!(r#","destination":"{VISA}""#)), stray("destination")),
        (charge(token, &format!(r#","description":"for {spaced}""#)), stray("description")),
        (charge(token, &format!(r#","description":"for {VISA}""#)), stray("description")),
        (charge(token, &format!(r#","statement_descriptor":"x{VISA}""#)), stray("statement_descriptor")),
        (charge(token, &format!(r#","metadata":{{"a":"{spaced}"}}"#)), stray("metadata")),
        (
            charge(token, r#","metadata":{"Card CVV":" 737"}"#),
            Some(Refusal::about(RefusalCode::CvcNotAccepted, "metadata")),
        ),
        (charge(token, r#","metadata":{"cvc_result":"M","seats":"737"}"#), None),
    ] {
        assert_eq!(keeper.read(&body).err(), refusal);
    }
    for (more, param) in [
        (r#""customer":"4242424242424242""#, "customer"),
        (r#""metadata":{"a":"4242424242424242"}"#, "metadata"),
    ] {
        let body = format!(r#"{{"card":{{"number":"{VISA}","exp_month":12,"exp_year":2030}},{more}}}"#);
        assert_eq!(keeper.seal(&body, false).err(), stray(param));
    }
    let body = format!(
        r#"{{"card":{{"number":"{VISA}","exp_month":12,"exp_year":2030}},"metadata":{{"cvv2":"1234"}}}}"#
    );
    assert_eq!(keeper.seal(&body, false).unwrap_err().code, RefusalCode::CvcNotAccepted);
}

#[test]
fn a_verification_has_no_field_of_a_charge() {
    let mut keeper = keeper();
    let body = |more: &str| format!(r#"{{"token":"{}","destination":"sandbox"{more}}}"#, keeper.token);
    let fields = [
        r#","amount":1"#,
        r#","invoice":"inv-1""#,
        r#","period":"2026-11""#,
        r#","capture":false"#,
        r#","allow_partial":true"#,
        r#","installments":1"#,
        r#","statement_descriptor":"x""#,
    ];
    let (plain, with) = (body(r#","currency":"USD","cvc":"123""#), fields.map(body));
    assert!(keeper.read_as(true, &plain).is_ok());
    for body in with {
        assert_eq!(keeper.read_as(true, &body).unwrap_err(), Refusal::of(RefusalCode::UnknownField));
    }
}

#[test]
fn what_a_processor_refuses_is_not_shown_to_it_again() {
    const NOW: &str = "Bearer sk_test_canary";
    const NEXT: &str = "Bearer sk_test_second";
    let next = BTreeMap::from([("secret_key".to_owned(), "sk_test_second".to_owned())]);
    let mut keeper = keeper_of(&next);
    let sealed = keeper.card(2030);
    let mut number = 0;
    let mut send = |keeper: &mut Keeper| {
        let ask = keeper.sale(sealed.clone(), None);
        let held = keeper.prepare(&ask).unwrap().held;
        let exchange = keeper.release(held).unwrap();
        let shown =
            exchange.headers.iter().find(|(name, _)| name == "Authorization").map(|(_, value)| value.clone());
        assert!(["sk_test_canary", "sk_test_second"].iter().all(|s| exchange.scrub.iter().any(|x| x == s)));
        number += 1;
        let begun = keeper.state.exchanges.begin(&exchange, None, Asker { generation: 1, id: number }, false);
        (begun, exchange.attempt, shown.unwrap())
    };
    let says = |keeper: &mut Keeper, (number, attempt, _): &(u64, AttemptId, String), status, verdict| {
        let mut outcome = answered(*attempt, status, verdict);
        assert!(keeper.state.arrived(*number, &mut outcome, None).is_some());
        outcome.credentials_changed
    };
    let first = send(&mut keeper);
    let second = send(&mut keeper);
    assert_eq!((first.2.as_str(), second.2.as_str()), (NOW, NOW));
    // What is no refusal of the credentials changes nothing.
    for (status, verdict) in [(402, Verdict::Declined), (400, Verdict::Error), (403, Verdict::Declined)] {
        let other = send(&mut keeper);
        assert!(!says(&mut keeper, &other, status, verdict) && other.2 == NOW);
    }
    assert!(says(&mut keeper, &first, 401, Verdict::Error));
    let third = send(&mut keeper);
    assert_eq!(third.2, NEXT);
    // An answer to what went out before says nothing of the ones in use now.
    assert!(!says(&mut keeper, &second, 401, Verdict::Error));
    assert_eq!(send(&mut keeper).2, NEXT);
    // The same files read again leave it so; others begin anew.
    let reload = |keeper: &mut Keeper, next: &BTreeMap<String, String>| {
        let tenants = vec![keeper.state.tenant(TENANT).unwrap().clone()];
        let all = ["sandbox", "stripe"].map(|name| destination(name, next)).to_vec();
        keeper.state.reload(tenants, Exemptions::default(), all).unwrap();
    };
    reload(&mut keeper, &next);
    assert_eq!(send(&mut keeper).2, NEXT);
    // Refused as well: back to the others.
    assert!(says(&mut keeper, &third, 403, Verdict::Error));
    assert_eq!(send(&mut keeper).2, NOW);
    let mut keeper = keeper_of(&BTreeMap::new());
    let sealed = keeper.card(2030);
    let ask = keeper.sale(sealed, None);
    let held = keeper.prepare(&ask).unwrap().held;
    let exchange = keeper.release(held).unwrap();
    let begun = keeper.state.exchanges.begin(&exchange, None, Asker { generation: 1, id: 1 }, false);
    let mut outcome = answered(exchange.attempt, 401, Verdict::Error);
    keeper.state.arrived(begun, &mut outcome, None);
    assert!(!outcome.credentials_changed, "there are no others");
}

pub(super) fn answered(attempt: AttemptId, http_status: u16, verdict: Verdict) -> Outcome {
    let answer = Answer::of(verdict, http_status);
    Outcome {
        attempt,
        sent: Sent::Yes,
        answer: Some(answer),
        error: None,
        credentials_changed: false,
        card_update: None,
        upstream_us: 1,
        forwarded: None,
    }
}

#[test]
fn an_amount_that_a_processor_cannot_express_is_not_rendered() {
    let mut keeper = keeper();
    let sealed = keeper.card(2030);
    for (amount, currency, sent) in [
        (500, "JPY", Some("500")),
        (5120, "KWD", Some("5120")),
        (5124, "KWD", None),
        (5, "ISK", Some("500")),
        (500, "CLP", Some("500")),
        (5, "UGX", Some("500")),
    ] {
        let ask = Prepare { amount, currency: currency.to_owned(), ..keeper.sale(sealed.clone(), None) };
        let prepared = keeper.prepare(&ask);
        let Some(sent) = sent else {
            assert_eq!(prepared.unwrap_err(), Refusal::about(RefusalCode::AmountInvalid, "amount"));
            continue;
        };
        let exchange = keeper.release(prepared.unwrap().held).unwrap();
        let body: BTreeMap<String, String> = form_urlencoded::parse(&exchange.body).into_owned().collect();
        assert_eq!((body["amount"].as_str(), body["currency"].to_uppercase()), (sent, currency.to_owned()));
    }
}

impl Keeper {
    fn read_forward(&mut self) -> u64 {
        let body = format!(
            r#"{{"token":"{}","destination":"shop","method":"POST","path":"/v1/x","body":{{"n":"{{{{ card.number }}}}"}}}}"#,
            self.token
        );
        let read = ReadForward {
            tenant: TENANT,
            route: "POST /v1/forwards".to_owned(),
            idempotency_key: "k-1".to_owned(),
            body: body.into_bytes(),
        };
        let answer = self.ask(ToKeeper::ReadForward(read));
        let FromKeeper::ForwardRead(read) = answer else { panic!("not read: {answer:?}") };
        assert_eq!((read.token, read.destination.as_str()), (Some(self.token), "shop"));
        read.held
    }

    fn prepare_forward(&mut self, held: u64, sealed: &SealedCard) -> FromKeeper {
        let now = SystemClock.now();
        let prepare = PrepareForward {
            held,
            tenant: TENANT,
            token: self.token,
            sealed: sealed.clone(),
            attempt: AttemptId::make(now).unwrap(),
            event: EventId::make(now).unwrap(),
        };
        self.ask(ToKeeper::PrepareForward(Box::new(prepare)))
    }

    fn opened(&mut self) -> usize {
        let FromKeeper::Openings(waiting) = self.ask(ToKeeper::Openings { after: None }) else {
            panic!("no account")
        };
        waiting.len()
    }
}

#[test]
fn a_forward_opens_a_card_once_for_one_send_and_accounts_for_it() {
    let mut keeper = keeper();
    let sealed = keeper.card(2030);
    let held = keeper.read_forward();
    // What only shows it opens nothing, and uses it up.
    let shown = TruncatedPan {
        first6: Some("424242".into()),
        last4: "4242".into(),
        brand: Brand::Visa,
        funding: None,
        country: None,
    };
    let show = ShowForward { held, shown, has_zip: true, policy: 1 };
    let FromKeeper::ForwardShown(shown) = keeper.ask(ToKeeper::ShowForward(Box::new(show))) else {
        panic!("not shown")
    };
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("424242******4242") && !shown.contains("sk_test_canary"));
    assert_eq!(refusal(keeper.prepare_forward(held, &sealed)).code, RefusalCode::HeldGone);
    // Nor does a card of another set.
    let held = keeper.read_forward();
    let elsewhere = SealedCard { policy: 2, ..sealed.clone() };
    assert_eq!(refusal(keeper.prepare_forward(held, &elsewhere)).code, RefusalCode::DestinationUnknown);
    assert_eq!(keeper.opened(), 0);

    let held = keeper.read_forward();
    let answer = keeper.prepare_forward(held, &sealed);
    let FromKeeper::Prepared(prepared) = answer else { panic!("not prepared: {answer:?}") };
    let opening = prepared.opening.unwrap();
    assert_eq!((opening.purpose.as_str(), opening.destination.as_str(), opening.seq), ("forward", "shop", 1));
    assert_eq!(keeper.opened(), 1);
    let exchange = keeper.release(prepared.held).unwrap();
    assert_eq!(exchange.body, format!("{{\"n\":\"{VISA}\"}}").into_bytes());
    assert!(exchange.headers.contains(&("authorization".to_owned(), "sk_test_canary".to_owned())));
    assert!(
        exchange.scrub.contains(&VISA.to_owned()) && exchange.scrub.contains(&"sk_test_canary".to_owned())
    );
    assert!(keeper.release(prepared.held).is_none());
    assert_eq!(refusal(keeper.prepare_forward(held, &sealed)).code, RefusalCode::HeldGone);
}

#[test]
fn what_was_checked_by_an_older_declaration_is_not_filled_by_a_newer_one() {
    let mut keeper = keeper();
    let sealed = keeper.card(2030);
    let held = keeper.read_forward();
    let mut narrower = destinations(&BTreeMap::new());
    for one in &mut narrower {
        if let Some(forward) = &mut one.forward {
            forward.spec.card_leaves = vec!["z".to_owned()];
        }
    }
    let tenant = keeper.state.tenant(TENANT).unwrap().clone();
    keeper.state.reload(vec![tenant], Exemptions::default(), narrower).unwrap();
    assert_eq!(refusal(keeper.prepare_forward(held, &sealed)).code, RefusalCode::HeldGone);
    assert_eq!(keeper.opened(), 0);
}
