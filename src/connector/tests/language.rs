//! The language itself: what it can say, and every way to be told that a file says it wrong.

use std::time::{Duration, Instant};

use super::super::{
    Amount, Connector, DeclineClass, Endpoint, IdempotencyKind, Operation, Outcome, Previous, RenderError,
    UpdateKind, Values, Word, ZipCheck, builtin,
};
use super::{merchant, sale};

/// A connector that says a little of everything.
const SMALL: &str = r#"name = "small"
version = 3
evidence = "documented"
source = "https://docs.small.example"
date = "2026-11-22"
[endpoint]
live = "https://api.small.example/pay/"
test = "https://test.small.example:8443"
timeout_s = 40
[credentials]
merchant = "merchant number"
key = "API key"
[auth]
header.X-Key = "{cred.key}"
[header]
Accept = "application/json"
[idempotency]
kind = "natural-key"
[currency]
case = "upper"
exponent.CLP = 2
[map.brand]
visa = "VI"
"*" = "XX"
[map.reason]
recurring = "R"
[op.sale]
method = "POST"
path = "/pay/{cred_free}"
encoding = "json"
requires = ["billing.zip"]
header.X-Ref = "{attempt.ref|upper}"
volatile = ["sent.nonce"]
[op.sale.body]
kind = "{operation}"
merchant = "{cred.merchant}"
pan = "{card.number}"
expiry = "{card.exp_month|mm}/{card.exp_year|yy}"
year = "{card.exp_year|yy|int}"
brand = "{card.brand|map brand}"
total = "{amount.decimal}"
same = "{amount.minor|decimal}"
exponent = "{amount.exponent|int}"
numeric = "{amount.currency_numeric}"
braces = "{{}} {description|trunc 4}"
on = true
three = 3
list = ["{?customer}", "{invoice}", {a = "{?customer}"}]
mit = {"$when" = "stored_credential.initiator=merchant & !customer", reason = "{stored_credential.reason|map reason}"}
flag = {"$when" = "allow_partial", "$value" = 1}
[op.sale.body.sent]
nonce = "{attempt.id}"
[response]
format = "json"
[field]
code = "c"
[[rule]]
http = 200
c = [0, "ok", true]
outcome = "approved"
[[rule]]
http = ["400-402", 404]
outcome = "declined"
[[rule]]
http = 200
"$.op" = "x"
left = { lt = 10 }
outcome = "pending"
"#;

fn small() -> Connector {
    let text = SMALL.replace("/pay/{cred_free}", "/pay/{attempt.ref}");
    Connector::parse("small.toml", &text).unwrap()
}

fn with_text<'v>() -> Values<'v> {
    Values {
        description: Some("éèêëx"),
        invoice: Some("7"),
        credentials: &[("merchant", "m1"), ("key", "k1")],
        ..sale()
    }
}

#[test]
fn a_body_as_it_is_written() {
    let rendered = small().render(Operation::Sale, &with_text()).unwrap();
    assert_eq!(rendered.path_and_query, "/pay/ref_test");
    assert_eq!(
        std::str::from_utf8(&rendered.body).unwrap(),
        concat!(
            r#"{"kind":"sale","merchant":"m1","pan":"4242424242424242","expiry":"03/30","year":30,"brand":"VI","#,
            r#""total":"20.20","same":"20.20","exponent":2,"numeric":"840","braces":"{} éèêë","on":true,"three":3,"#,
            r#""list":["7"],"sent":{"nonce":"att_test"}}"#
        )
    );
    let headers: Vec<String> = rendered.headers.iter().map(|(n, v)| format!("{n}: {}", **v)).collect();
    assert_eq!(
        headers,
        ["Content-Type: application/json", "X-Key: k1", "Accept: application/json", "X-Ref: REF_TEST"]
    );
}

#[test]
fn conditions_and_maps() {
    let values =
        Values { stored_credential: merchant().stored_credential, allow_partial: true, ..with_text() };
    let body = |values: &Values<'_>| -> serde_json::Value {
        serde_json::from_slice(&small().render(Operation::Sale, values).unwrap().body).unwrap()
    };
    let json = body(&values);
    assert_eq!((&json["mit"]["reason"], &json["flag"]), (&"R".into(), &1.into()));
    let json = body(&Values { customer: Some("c"), ..values });
    assert!(json.get("mit").is_none());
    assert_eq!(json["list"], serde_json::json!(["c", "7", { "a": "c" }]));

    let mut stored = merchant().stored_credential.unwrap();
    stored.reason = super::super::Reason::Installment;
    let values = Values { stored_credential: Some(stored), ..with_text() };
    let unfit = small().render(Operation::Sale, &values).err();
    assert_eq!(unfit, Some(RenderError::Unfit("stored_credential.reason".to_owned())));
}

#[test]
fn what_is_required_is_asked_for_first() {
    assert_eq!(small().requires(Operation::Sale), ["billing.zip"]);
    let values = Values { billing: Default::default(), card: None, ..with_text() };
    let missing = small().render(Operation::Sale, &values).err();
    assert_eq!(missing, Some(RenderError::Missing("billing.zip".to_owned())));
    assert_eq!(small().render(Operation::Refund, &values).err(), Some(RenderError::NoOperation("refund")));
    let clp = Values { amount: Some(Amount { minor: 5, currency: "CLP" }), ..with_text() };
    let rendered = small().render(Operation::Sale, &clp).unwrap();
    assert!(rendered.body.windows(14).any(|window| window == br#""total":"5.00""#));
}

#[test]
fn a_mac_blanks_what_is_volatile() {
    let mac =
        |attempt_id| small().render_for_mac(Operation::Sale, &Values { attempt_id, ..with_text() }).unwrap();
    assert_eq!(*mac("a"), *mac("b"));
    let sent = |attempt_id| small().render(Operation::Sale, &Values { attempt_id, ..with_text() }).unwrap();
    assert_ne!(*sent("a").body, *sent("b").body);
}

#[test]
fn rules_in_order() {
    let outcome = |status, body: &str| {
        let mapped = small().map(Operation::Sale, status, body.as_bytes());
        (mapped.outcome, mapped.unknown)
    };
    for approved in [r#"{"c":0}"#, r#"{"c":"0"}"#, r#"{"c":"ok"}"#, r#"{"c":true}"#, "\u{feff} {\"c\":0} \n"]
    {
        assert_eq!(outcome(200, approved), (Outcome::Approved, false), "{approved}");
    }
    assert_eq!(outcome(401, "{}"), (Outcome::Declined, false));
    assert_eq!(outcome(403, "{}"), (Outcome::Error, true));
    assert_eq!(outcome(200, r#"{"op":"x","left":"9.5"}"#), (Outcome::Pending, false));
    assert_eq!(outcome(200, r#"{"op":"x","left":10}"#), (Outcome::Error, true));
    // Read by status alone, a body that is no JSON is never a decline.
    assert_eq!(outcome(401, "<html>"), (Outcome::Error, true));
}

#[test]
fn what_a_connector_says_of_itself() {
    let connector = small();
    assert_eq!((connector.name(), connector.version()), ("small", 3));
    assert_eq!(connector.live(), Some(&Endpoint::Fixed("https://api.small.example/pay".into())));
    assert_eq!(connector.timeout(), Duration::from_secs(40));
    let class = |connector: &Connector| (connector.idempotency().kind, connector.idempotency().later);
    assert_eq!(class(&connector), (IdempotencyKind::NaturalKey, IdempotencyKind::NaturalKey));
    assert_eq!(class(&builtin("worldpay").unwrap()), (IdempotencyKind::NaturalKey, IdempotencyKind::Replay));
    assert_eq!(connector.credentials().map(|(field, _)| field).collect::<Vec<_>>(), ["merchant", "key"]);
    assert_eq!(connector.lookup_for(Operation::Sale), None);
    let other =
        Connector::parse("x", &builtin_text("sandbox").replace("version = 2", "version = 3")).unwrap();
    assert_ne!(other.version_hash(), builtin("sandbox").unwrap().version_hash());
    assert!(builtin("stripe").unwrap().captures_once() && !builtin("sandbox").unwrap().captures_once());
    let terms = |name| builtin(name).unwrap().authorization().clone();
    assert_eq!((terms("sandbox").hours, terms("sandbox").merchant_hours.len()), (168, 0));
    assert_eq!((terms("stripe").hours, terms("stripe").merchant_hours.get("visa")), (168, Some(&114)));
    assert_eq!(builtin("sandbox").unwrap().live(), None);
    assert_eq!(builtin("sandbox").unwrap().test(), Some(&Endpoint::Operator));
    assert!(builtin("Stripe").is_none());
}

fn builtin_text(name: &str) -> String {
    super::super::builtin_text(name).unwrap().to_owned()
}

/// A look-up that cannot see an operation's attempts must never be asked about them.
#[test]
fn each_operation_has_the_look_up_that_sees_it() {
    let stripe = builtin("stripe").unwrap();
    assert_eq!(stripe.lookup_for(Operation::Sale), Some(Operation::Lookup));
    assert_eq!(stripe.lookup_for(Operation::Capture), Some(Operation::LookupCapture));
    assert_eq!(stripe.lookup_for(Operation::Void), Some(Operation::LookupVoid));
    assert_eq!(stripe.lookup_for(Operation::Refund), Some(Operation::LookupRefund));
    assert_eq!(stripe.lookup_for(Operation::Verify), Some(Operation::LookupVerify));
    assert_eq!(builtin("sandbox").unwrap().lookup_for(Operation::Refund), Some(Operation::Lookup));
    let previous = Previous { transaction: Some("pi_1"), ..Previous::default() };
    let rendered = stripe.render(Operation::LookupVoid, &Values { previous, card: None, ..sale() }).unwrap();
    assert_eq!((rendered.method, rendered.path_and_query.as_str()), ("GET", "/v1/payment_intents/pi_1"));
    let still = br#"{"id":"pi_1","object":"payment_intent","status":"requires_capture"}"#;
    assert_eq!(stripe.map(Operation::LookupVoid, 200, still).outcome, Outcome::NotFound);
    assert_eq!(
        stripe
            .map(
                Operation::Lookup,
                200,
                br#"{"data":[{"object":"payment_intent","status":"requires_capture"}]}"#
            )
            .outcome,
        Outcome::Approved
    );
}

/// A refund is looked for among all refunds of its payment.
#[test]
fn a_list_of_several_attempts() {
    let stripe = builtin("stripe").unwrap();
    let list = |more: bool| {
        let refund = |id: &str, attempt: &str, status: &str| {
            serde_json::json!({ "id": id, "object": "refund", "amount": 5, "currency": "usd", "status": status,
                "metadata": { "attempt": attempt } })
        };
        let data = [refund("re_1", "att_1", "succeeded"), refund("re_2", "att_2", "failed")];
        serde_json::json!({ "object": "list", "has_more": more, "data": data }).to_string()
    };
    let found = |attempt: &str, body: &str| {
        let mapped = stripe.map_attempt(Operation::LookupRefund, 200, body.as_bytes(), &[attempt]);
        (mapped.outcome, mapped.unknown, mapped.transaction_id)
    };
    assert_eq!(found("att_1", &list(true)), (Outcome::Approved, false, Some("re_1".to_owned())));
    assert_eq!(found("att_2", &list(false)), (Outcome::Declined, false, Some("re_2".to_owned())));
    assert_eq!(found("att_3", &list(false)), (Outcome::NotFound, false, None));
    // The list goes on elsewhere, or is none: nothing is proved.
    assert_eq!(found("att_3", &list(true)), (Outcome::Error, true, None));
    assert_eq!(found("att_3", "{}"), (Outcome::Error, true, None));
    let unnamed = stripe.map(Operation::LookupRefund, 200, list(false).as_bytes());
    assert_eq!((unnamed.outcome, unnamed.unknown), (Outcome::Error, true));
}

#[test]
fn what_undoes_a_payment() {
    let undo = |name, operation| builtin(name).unwrap().undo_for(operation);
    assert_eq!(undo("stripe", Operation::Authorize), Some(Operation::Void));
    assert_eq!(undo("stripe", Operation::Sale), Some(Operation::Refund));
    assert_eq!(undo("sandbox", Operation::Sale), Some(Operation::Void));
    assert_eq!(undo("sandbox", Operation::Refund), None);
}

#[test]
fn the_smallest_amounts_are_as_they_are_written() {
    let text = super::super::builtin_text("sandbox").unwrap();
    let text = text.replace("[lookup]", "[currency]\nsmallest = { USD = 50, JPY = 60 }\n[lookup]");
    let connector = Connector::parse("sandbox.toml", &text).unwrap();
    let mut smallest: Vec<_> = connector.smallest_amounts().collect();
    smallest.sort_unstable();
    assert_eq!(smallest, [("JPY", 60), ("USD", 50)]);
    assert_eq!(builtin("sandbox").unwrap().smallest_amounts().count(), 0);
}

/// A redirect is never followed, and what it says is never believed.
#[test]
fn a_redirect_decides_nothing() {
    let body = br#"{"id":"pay_1","operation":"sale","status":"approved","object":"payment_intent"}"#;
    for name in ["stripe", "sandbox"] {
        for status in [100, 302, 307, 399] {
            let mapped = builtin(name).unwrap().map(Operation::Sale, status, body);
            assert_eq!((mapped.outcome, mapped.unknown), (Outcome::Error, true), "{name} {status}");
        }
    }
}

/// Each row: what is replaced in the small connector, by what, and a piece of the fault that must follow.
const WRONG: &[(&str, &str, &str)] = &[
    ("version = 3", "version = \"3\"", "2: `version` is not a whole number"),
    ("version = 3\n", "", "the file has no `version`; write version = 1"),
    ("name = \"small\"", "name = \"Small One\"", "1: `name` holds more than a-z"),
    ("name = \"small\"", "name = small", "1: this is not TOML"),
    ("evidence = \"documented\"", "evidence = \"heard\"", "3: `evidence` has an unknown word; write one of"),
    ("date = \"2026-11-22\"", "date = \"22.11.2026\"", "5: `date` is not a date"),
    ("[endpoint]", "[endpoints]", "`endpoints` is not known in the file; did you mean `endpoint`?"),
    ("https://api.small", "http://api.small", "7: an endpoint is not an https URL"),
    ("https://test.small.example:8443", "https://10.0.0.1", "8: an endpoint is not an https URL"),
    ("https://api.small.example", "https://user:pw@api.small.example", "7: an endpoint"),
    ("timeout_s = 40", "timeout_s = 0", "9: `timeout_s` is not between"),
    (
        "kind = \"natural-key\"",
        "kind = \"natural-key\"\nlater = \"twice\"",
        "`later` has an unknown word; write one of",
    ),
    (
        "kind = \"natural-key\"",
        "kind = \"natural-key\"\nlater = \"replay\"\nheader = \"Key\"",
        "`ttl_h` is missing",
    ),
    (
        "kind = \"natural-key\"",
        "kind = \"natural-key\"\nlater = \"replay\"\nttl_h = 1",
        "and no key is sent; write header",
    ),
    ("timeout_s = 40", "timeout = 40", "9: `timeout` is not known in [endpoint]; did you mean `timeout_s`?"),
    ("\"{cred.key}\"", "\"secret_canary\"", "the header `X-Key` of [auth] holds no credential"),
    ("\"{cred.key}\"", "\"{cred.kay}\"", "14: `{cred.kay}` is not a name; declare it in [credentials]"),
    ("{cred.merchant}", "m", "the credential `merchant` is declared and never used"),
    ("header.X-Key", "header.\"X Key\"", "14: this is not a header name"),
    ("header.X-Key", "header.Host", "14: the header `Host` belongs to the forwarder"),
    ("Accept = ", "X-Key = ", "the header `X-Key` would be sent twice"),
    ("application/json\"\n", "a\\nb\"\n", "16: a header value holds a character"),
    (
        "kind = \"natural-key\"",
        "kind = \"none\"\nheader = \"K\"",
        "a key is sent to a processor that ignores it",
    ),
    ("kind = \"natural-key\"", "kind = \"replay\"", "`ttl_h` is missing"),
    (
        "kind = \"natural-key\"",
        "kind = \"replay\"\nttl_h = 1\nheader = \"K\"\nkey = \"{invoice}\"",
        "the key does not hold our attempt",
    ),
    ("exponent.CLP = 2", "exponent.CLB = 2", "`CLB` is not a currency"),
    ("exponent.CLP = 2", "exponent.CLP = 9", "an exponent is too large"),
    ("exponent.CLP = 2", "smallest.USD = 0", "a smallest amount is not one"),
    ("exponent.CLP = 2", "smallest.USD = 10000001", "a smallest amount is not one"),
    ("exponent.CLP = 2", "smallest.UST = 1", "`UST` is not a currency"),
    ("exponent.CLP = 2", "smallest.KWD = 5\nmultiple_of.KWD = 10", "cannot be told to this processor"),
    ("exponent.CLP = 2", "smallest.USD = 100", "nothing holds and releases it"),
    ("case = \"upper\"", "case = \"UPPER\"", "`case` has an unknown word"),
    ("[op.sale]\n", "[op.sail]\n", "`sail` is not an operation; did you mean `sale`?"),
    ("method = \"POST\"", "method = \"POTS\"", "`method` has an unknown word; did you mean `POST`?"),
    ("path = \"/pay", "path = \"pay", "`path` does not begin with `/`"),
    ("/pay/{attempt.ref}", "/pay?a={attempt.ref}", "`path` holds a character that a path cannot"),
    ("/pay/{attempt.ref}", "/pay/{card.number}", "`card.number` stands in a path"),
    ("/pay/{attempt.ref}", "/pay/{cred.key}", "stands in a path"),
    ("{attempt.ref|upper}", "{card.cvc}", "`card.cvc` stands in a header"),
    ("encoding = \"json\"", "encoding = \"yaml\"", "`encoding` has an unknown word"),
    ("encoding = \"json\"", "encoding = \"none\"", "there is a body but the encoding is none"),
    ("encoding = \"json\"", "encoding = \"form\"", "`body` is not a list of pairs"),
    (
        "requires = [\"billing.zip\"]",
        "requires = [\"billing.zap\"]",
        "which is not a name; did you mean `billing.zip`?",
    ),
    ("\"sent.nonce\"", "\"sent.nunce\"", "`volatile` names a leaf that the body does not have"),
    ("{card.number}", "{card.numbr}", "`{card.numbr}` is not a name; did you mean `card.number`?"),
    ("{card.number}", "{card.number|trunc 6}", "`card.number` cannot take `|trunc 6`"),
    ("{card.number}", "{card", "a brace has no partner"),
    ("{card.number}", "{card}", "only a condition may name a group"),
    ("|mm}", "|mn}", "`|mn` is not a filter; write one of"),
    ("{card.exp_month|mm}", "{invoice|mm}", "`invoice` cannot take `|mm`"),
    ("|map brand}", "|map brnd}", "`|map brnd` is not a filter"),
    ("{card.brand|map brand}", "x", "[map.brand] is declared and never used"),
    ("{amount.minor|decimal}", "{amount.decimal|decimal}", "`amount.decimal` cannot take `|decimal`"),
    ("three = 3", "three = 3.5", "a body cannot hold a number with a point"),
    ("three = 3", "three = 2026-01-01", "a body cannot hold a date"),
    (
        "\"$when\" = \"allow_partial\"",
        "\"$if\" = \"allow_partial\"",
        "`$if` is not known; write $when, $value or $first",
    ),
    ("\"$value\" = 1", "\"$value\" = 1, more = 2", "`$value` stands beside other keys"),
    (
        "initiator=merchant",
        "initiator=merchent",
        "`stored_credential.initiator` is never `merchent`; write one of: customer, merchant",
    ),
    ("!customer\"", "!custmer\"", "which is not a name; did you mean `customer`?"),
    ("\"allow_partial\"", "\"card.number=4\"", "a condition may not test `card.number`"),
    ("\"allow_partial\"", "\"cred.key=4\"", "a condition may not test `cred.key`"),
    ("\"allow_partial\"", "\"card=4\"", "`card` is a group and has no value"),
    ("format = \"json\"", "format = \"jason\"", "`format` has an unknown word"),
    ("code = \"c\"", "cod = \"c\"", "`cod` is not a field; did you mean `code`?"),
    ("code = \"c\"", "code = \"c..d\"", "a path is malformed"),
    ("code = \"c\"", "avs_zip = \"c\"", "`avs_zip` has no map"),
    (
        "code = \"c\"",
        "avs_zip = { path = \"c\", map = \"brand\" }",
        "[map.brand] gives `VI`, which is not a result",
    ),
    (
        "outcome = \"approved\"",
        "outcome = \"aproved\"",
        "`outcome` has an unknown word; did you mean `approved`?",
    ),
    ("outcome = \"approved\"", "outcome = \"not_found\"", "only a look-up can find nothing"),
    (
        "outcome = \"approved\"",
        "outcome = \"approved\"\nunknown = true",
        "`unknown` stands with an outcome that is known",
    ),
    (
        "outcome = \"approved\"",
        "outcome = \"approved\"\npartail = true",
        "`partail` is not a key of a rule, but near one",
    ),
    (
        "outcome = \"approved\"",
        "outcome = \"approved\"\nclass = \"soft\"",
        "`class` stands with an outcome that declines nothing",
    ),
    ("\"400-402\"", "\"4oo\"", "`http` is not a status"),
    ("\"400-402\"", "\"402-400\"", "`http` is not a status"),
    ("{ lt = 10 }", "{ gt = 10 }", "`gt` is not known in a test"),
    ("{ lt = 10 }", "{}", "a test says nothing"),
    ("{ lt = 10 }", "{ starts = \"\" }", "a test says nothing"),
    ("{ lt = 10 }", "{ lt = 10, starts = \"D\" }", "a test says nothing, or several things"),
    ("{amount.minor|decimal}", "{invoice|as %Y}", "`invoice` cannot take `|as %Y`"),
    ("{amount.minor|decimal}", "{time|as %Q}", "`|as %Q` is not a filter"),
    ("code = \"c\"", "code = \"c[d=]\"", "a path is malformed"),
    ("code = \"c\"", "code = \"c[d=e\"", "a path is malformed"),
    ("Accept = \"application/json\"", "Accept = { base46 = \"x\" }", "`base46` is not known"),
    ("c = [0, \"ok\", true]", "c = []", "the test of `c` is not a text"),
    ("c = [0, \"ok\", true]\n", "", "this rule can never match"),
    (
        "[[rule]]\nhttp = 200\nc",
        "[[rule]]\nhttp = 401\noutcome = \"error\"\n[[rule]]\nhttp = \"4xx\"\noutcome = \"error\"\n[[rule]]\nhttp = 200\nc",
        "this rule can never match",
    ),
    (
        "[op.sale.body.sent]",
        "[op.authorize]\nlike = \"sail\"\n[op.sale.body.sent]",
        "`like` names no operation above it",
    ),
    (
        "[response]",
        "[op.lookup]\nmethod = \"GET\"\npath = \"/x\"\nencoding = \"none\"\n[response]",
        "[lookup] and [op.lookup] do not stand together",
    ),
    (
        "[response]",
        "[decline]\ndate = \"2026-01-01\"\nsource = \"x\"\nsoft = [\"1\"]\nhard = [\"1\"]\n[response]",
        "the code `1` stands in two classes",
    ),
    (
        "[response]",
        "[decline]\ndate = \"2026-01-01\"\nsource = \"x\"\ntable = \"iso\"\n[response]",
        "there is no such shared table",
    ),
];

#[test]
fn every_fault_is_found_with_its_line() {
    let sound = SMALL.replace("/pay/{cred_free}", "/pay/{attempt.ref}");
    for (old, new, expected) in WRONG {
        assert!(sound.contains(old), "the row for {expected} replaces nothing");
        let Err(faults) = Connector::parse("small.toml", &sound.replacen(old, new, 1)) else {
            panic!("nobody noticed: {expected}");
        };
        let said: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|fault| fault.contains(expected)), "{expected} not in {said:#?}");
        assert!(said.iter().all(|fault| fault.starts_with("small.toml:")));
        assert!(!said.iter().any(|fault| fault.contains("canary")), "a fault quotes a value: {said:?}");
    }
}

#[test]
fn a_refund_that_cannot_be_written_without_the_card_is_found() {
    let refund_with = |more: &str| {
        let text = builtin_text("sandbox").replacen("[op.refund]\n", &format!("[op.refund]\n{more}\n"), 1);
        Connector::parse("sandbox.toml", &text).unwrap().refund_needs_card()
    };
    for free in [
        "",
        "header.X-Card = \"{?card.last4}\"",
        "header.X-Of = \"{prev.transaction}\"",
        "query = [[\"zip\", \"{?billing.zip}\"]]",
        "requires = [\"invoice\"]",
    ] {
        assert!(!refund_with(free), "{free}");
    }
    for bound in [
        "header.X-Card = \"{card.last4}\"",
        "query = [[\"card\", \"of {card.exp_month|mm}/{card.exp_year|yy}\"]]",
        "requires = [\"billing.zip\"]",
    ] {
        assert!(refund_with(bound), "{bound}");
    }
    let body = builtin_text("sandbox").replacen(
        "amount = \"{amount.minor|int}\" }\n\n[op.void]",
        "amount = \"{amount.minor|int}\", card = { list = [{ last4 = \"{card.last4}\" }] } }\n\n[op.void]",
        1,
    );
    assert!(Connector::parse("sandbox.toml", &body).unwrap().refund_needs_card());
    assert!(!builtin("stripe").unwrap().refund_needs_card());
}

#[test]
fn what_is_done_later_names_the_payment_by_the_processors_id_or_by_ours() {
    let text = builtin_text("sandbox");
    assert!(Connector::parse("sandbox.toml", &text).unwrap().later_needs_transaction());
    let ours = text.replace("{prev.transaction}", "{prev.attempt}");
    assert!(!Connector::parse("sandbox.toml", &ours).unwrap().later_needs_transaction());
    let void_only = ours.replacen("[op.void]\n", "[op.void]\nheader.X-Of = \"{prev.transaction}\"\n", 1);
    assert!(Connector::parse("sandbox.toml", &void_only).unwrap().later_needs_transaction());
}

/// Bounds of the loader: a hostile file is refused, not worked through.
#[test]
fn a_hostile_file_is_refused() {
    let nested = format!("a = {}{}", "[".repeat(5_000), "]".repeat(5_000));
    let wide = "x = 1\n".repeat(40_000);
    let unknown: String = (0..5_000).map(|n| format!("key_{n} = 1\n")).collect();
    for text in ["", "\u{0}", &nested, &wide, &"#".repeat(300_000), &unknown] {
        let started = Instant::now();
        let faults = Connector::parse("hostile.toml", text).unwrap_err();
        assert!(!faults.is_empty() && faults.len() <= 50);
        assert!(started.elapsed() < Duration::from_secs(30), "worked through");
    }
}

/// Unoptimised code in a busy machine stays far under what the release must reach (50 µs).
#[test]
fn rendering_and_mapping_are_fast() {
    let stripe = builtin("stripe").unwrap();
    let values = merchant();
    let answer =
        br#"{"id":"pi_A","object":"payment_intent","amount":1500,"status":"succeeded","currency":"usd"}"#;
    let best = |work: &dyn Fn()| {
        let once = |_| {
            let started = Instant::now();
            work();
            started.elapsed()
        };
        (0..200).map(once).min().unwrap()
    };
    let render = best(&|| drop(stripe.render(Operation::Sale, &values).unwrap()));
    let map = best(&|| drop(stripe.map(Operation::Sale, 200, answer)));
    assert!(render < Duration::from_millis(1) && map < Duration::from_millis(1), "{render:?} {map:?}");
}

/// A connector whose author trusts every status.
const TRUSTING: &str = r#"name = "trusting"
version = 1
evidence = "documented"
source = "https://docs.trusting.example"
date = "2026-11-29"
[endpoint]
test = "https://test.trusting.example"
[idempotency]
kind = "none"
[op.sale]
method = "POST"
path = "/pay"
encoding = "json"
body = { pan = "{card.number}" }
[response]
format = "json"
[[rule]]
code = "refused"
outcome = "declined"
[[rule]]
http = 503
id = { exists = false }
outcome = "declined"
[[rule]]
http = ["5xx", 400, 408, 409]
outcome = "error"
[[rule]]
http = "2xx"
outcome = "approved"
"#;

/// What a file of somebody else calls a fault is no certain failure of the charge: something may have been done.
#[test]
fn a_status_that_says_nothing_is_certain_by_the_body_alone() {
    let connector = Connector::parse("trusting.toml", TRUSTING).unwrap();
    let read = |status, body: &str| {
        let mapped = connector.map(Operation::Sale, status, body.as_bytes());
        (mapped.outcome, mapped.unknown)
    };
    for status in [408, 409, 500, 502, 503, 504, 599] {
        for body in ["{}", r#"{"id":"1"}"#, "", "<html>"] {
            assert_eq!(read(status, body), (Outcome::Error, true), "{status} {body}");
        }
        assert_eq!(read(status, r#"{"code":"refused"}"#), (Outcome::Declined, false), "{status}");
    }
    assert_eq!(read(400, "{}"), (Outcome::Error, false));
    assert_eq!(read(200, "{}"), (Outcome::Approved, false));
}

/// The page for authors names everything that a file may say.
#[test]
fn the_page_for_authors_is_whole() {
    let page = include_str!("../language.md");
    let names = super::super::names::NAMES.iter().map(|(name, ..)| name.rsplit('.').next().unwrap_or(name));
    let words = Operation::TEXTS
        .iter()
        .chain(Outcome::TEXTS)
        .chain(IdempotencyKind::TEXTS)
        .chain(DeclineClass::TEXTS);
    let facts = super::super::fields::Fact::TEXTS.iter().chain(ZipCheck::TEXTS).chain(UpdateKind::TEXTS);
    for word in names.chain(words.copied()).chain(facts.copied()) {
        let found =
            page.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').any(|known| known == word);
        assert!(found, "{word} is not on the page");
    }
}

/// Alternatives in bodies and fields, and places of any name.
const WILD: &str = r#"name = "wild"
version = 1
evidence = "documented"
source = "https://docs.wild.example"
date = "2026-11-25"
[endpoint]
test = "https://test.wild.example"
[idempotency]
kind = "none"
[op.sale]
method = "POST"
path = "/pay"
encoding = "json"
[op.sale.body]
first = { "$first" = ["{?customer}", { "$when" = "invoice", "$value" = 7 }, "none"] }
only = { "$when" = "invoice", "$first" = ["{?customer}", "{?description}"] }
given = "{?billing.name|given}"
family = "{?billing.name|family}"
[response]
format = "json"
[field]
code = [{ path = "state", map = "final" }, { path = "raw", before = ":", bounded = true }, "state"]
message = { path = "data.*.list.*.text" }
[map.final]
done = "DONE"
[[rule]]
"data.*.ok" = true
outcome = "approved"
[[rule]]
state = { exists = true }
outcome = "declined"
"#;

#[test]
fn the_first_alternative_that_is_there_is_written() {
    let wild = Connector::parse("wild.toml", WILD).unwrap();
    let mut values = sale();
    let written = |values: &Values<'_>| {
        String::from_utf8(wild.render(Operation::Sale, values).unwrap().body.to_vec()).unwrap()
    };
    assert_eq!(written(&values), r#"{"first":"none"}"#);
    values.invoice = Some("INV-1");
    values.billing.name = Some("Ana Maria Ruiz");
    assert_eq!(written(&values), r#"{"first":7,"given":"Ana Maria","family":"Ruiz"}"#);
    values.customer = Some("c-1");
    values.billing.name = Some("Plato");
    assert_eq!(written(&values), r#"{"first":"c-1","only":"c-1","given":"Plato","family":"Plato"}"#);
}

#[test]
fn a_field_has_alternatives_bounds_and_wild_places() {
    let wild = Connector::parse("wild.toml", WILD).unwrap();
    let mapped = |answer: &str| {
        let mapped = wild.map(Operation::Sale, 200, answer.as_bytes());
        (mapped.outcome, mapped.processor_code.unwrap_or_default(), mapped.message.unwrap_or_default())
    };
    let of = |outcome, code: &str, message: &str| (outcome, code.to_owned(), message.to_owned());
    assert_eq!(mapped(r#"{"state":"done","raw":"05: No"}"#), of(Outcome::Declined, "DONE", ""));
    assert_eq!(mapped(r#"{"state":"no","raw":"05: No"}"#), of(Outcome::Declined, "05", ""));
    assert_eq!(mapped(r#"{"state":"no","raw":"No"}"#), of(Outcome::Declined, "no", ""));
    let deep = r#"{"data":{"a":null,"b":{"ok":true,"list":[{"x":1},{"text":"found"}]}}}"#;
    assert_eq!(mapped(deep), of(Outcome::Approved, "", "found"));
}

#[test]
fn faults_of_alternatives_are_found() {
    for (old, new, expected) in [
        ("[\"{?customer}\", \"{?description}\"]", "\"{?customer}\"", "`$first` stands beside other keys"),
        ("before = \":\", ", "", "`bounded` stands without a text"),
        ("data.*.list.*.text", "data.*.*.*.*", "a path is malformed"),
        ("{?billing.name|given}", "{?amount.minor|given}", "`amount.minor` cannot take `|given`"),
    ] {
        assert!(WILD.contains(old), "the row for {expected} replaces nothing");
        let Err(faults) = Connector::parse("wild.toml", &WILD.replace(old, new)) else {
            panic!("nobody noticed: {expected}")
        };
        let said: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|fault| fault.contains(expected)), "{expected} not in {said:#?}");
    }
}
