//! The language of forwards: what is read, what is refused, and that no value changes a request's shape.

use proptest::prelude::*;

use super::body::{Body, Encoding, Filled};
use super::json::{Json, Leaf};
use super::pattern::{Pattern, key_of_names, names_of_key};
use super::placeholder::{Name, Text, Values};
use super::request::Request;
use super::spec::{ForwardSpec, Place, Rules};
use super::{Refused, Why};

const NUMBER: &str = "4242424242424242";

fn values(zip: Option<&str>) -> Values<'_> {
    Values { number: NUMBER, month: "03", year: "2031", zip }
}

fn spec() -> ForwardSpec {
    let strings = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    ForwardSpec {
        methods: strings(&["POST"]),
        paths: strings(&["/v1/*"]),
        query: strings(&["q"]),
        bodies: vec![Encoding::Json, Encoding::Form, Encoding::Xml],
        content_type: None,
        headers: strings(&["x-note"]),
        card_headers: strings(&["x-card"]),
        leaves: strings(&["free.**", "a"]),
        card_leaves: strings(&["card.**"]),
        numbers: strings(&["card.as_number"]),
        credentials: [("key".to_owned(), Place { leaf: Some("m.key".to_owned()), ..Place::default() })]
            .into(),
        answer_headers: Vec::new(),
        exempt: Vec::new(),
        body_bytes_max: 65_536,
        answer_bytes_max: 65_536,
        timeout_s: 30,
    }
}

fn check(json: &serde_json::Value) -> Result<Request, Refused> {
    let mut body =
        serde_json::json!({"token": "tok_x", "destination": "d", "method": "POST", "path": "/v1/x"});
    for (name, value) in json.as_object().unwrap() {
        body[name] = value.clone();
    }
    // As it comes: numbers of a tree would be read before their raw text is.
    let sent = serde_json::from_str(&body.to_string()).unwrap();
    Request::check(sent, &Rules::compile(spec()).unwrap())
}

#[test]
fn each_placeholder_and_filter_has_its_text() {
    for (text, filled) in [
        ("{{ card.number }}", NUMBER),
        ("{{card.exp_month}}/{{card.exp_year|yy}}", "03/31"),
        ("{{ card.exp_month | m }}-{{ card.exp_year | yyyy }}", "3-2031"),
        ("{{ card.exp_month | mm }}", "03"),
        ("zip {{ billing.zip }}.", "zip 90210."),
        ("}} no braces {", "}} no braces {"),
        ("", ""),
    ] {
        assert_eq!(Text::parse(text).unwrap().fill(&values(Some("90210"))).unwrap(), filled);
    }
    assert_eq!(Text::parse("{{ billing.zip }}").unwrap().fill(&values(None)), None);
    for wrong in [
        "{{",
        "{{ }}",
        "{{ card }}",
        "{{ card.cvc }}",
        "{{ Card.number }}",
        "{{ card.number | yy }}",
        "{{ card.number | number | number }}",
        "{{ card.exp_year | yy | yyyy }}",
        "{{ billing.zip | number }}",
        "{{ card.number",
        "{{ card.number }",
        "{{{{ card.number }}}}",
        "{{ card.exp_year | number | yy }}",
        "{{ card.number | }}",
    ] {
        assert_eq!(Text::parse(wrong), Err(Why::PlaceholderUnknown), "{wrong}");
    }
}

#[test]
fn a_pattern_means_the_names_that_it_says() {
    for (pattern, names, fits) in [
        ("a.b", "a.b", true),
        ("a.b", "a.b.c", false),
        ("a.*", "a.b", true),
        ("a.*", "a", false),
        ("a.*.c", "a.b.c", true),
        ("a.**", "a.b.c", true),
        ("**", "a", true),
        ("**.c", "a.b.c", true),
        ("**.c", "a.b", false),
        ("a.**.d", "a.d", true),
    ] {
        let names: Vec<&str> = names.split('.').collect();
        assert_eq!(Pattern::leaf(pattern).unwrap().fits(&names), fits, "{pattern}");
    }
    assert!(Pattern::leaf(r"a\.b").unwrap().fits(&["a.b"]));
    for wrong in ["", "a..b", ".a", "a."] {
        assert_eq!(Pattern::leaf(wrong), None);
    }
    assert_eq!(Pattern::path("v1/x").or(Pattern::path("/v1//x")), None);
    assert!(Pattern::path("/v1/*").unwrap().fits(&["v1", "x"]));
    for (key, names) in [
        ("card[number]", vec!["card", "number"]),
        ("a[b][c]", vec!["a", "b", "c"]),
        ("plain", vec!["plain"]),
        ("a[b", vec!["a[b"]),
        ("a[]", vec!["a[]"]),
        ("a[b]c", vec!["a[b]c"]),
        ("[a]", vec!["[a]"]),
        ("a.b", vec!["a.b"]),
    ] {
        assert_eq!(names_of_key(key), names, "{key}");
    }
    assert_eq!(key_of_names(&["a", "b", "c"]), "a[b][c]");
}

#[test]
fn a_declaration_with_a_fault_is_refused_and_says_what_to_write() {
    assert_eq!(spec().faults(), Vec::<String>::new());
    let strings = |one: &str| vec![one.to_owned()];
    let place = |header: Option<&str>, leaf: Option<&str>| {
        let (header, leaf) = (header.map(str::to_owned), leaf.map(str::to_owned));
        [("c".to_owned(), Place { header, leaf, prefix: String::new() })].into()
    };
    for (faulty, starts) in [
        (ForwardSpec { methods: strings("post"), ..spec() }, "methods:"),
        (ForwardSpec { methods: Vec::new(), ..spec() }, "methods:"),
        (ForwardSpec { paths: strings("v1"), ..spec() }, "paths:"),
        (ForwardSpec { bodies: Vec::new(), ..spec() }, "bodies:"),
        (ForwardSpec { card_leaves: strings("a..b"), ..spec() }, "leaves,"),
        (ForwardSpec { headers: strings("Authorization"), ..spec() }, "headers,"),
        (ForwardSpec { headers: strings("cookie"), ..spec() }, "headers,"),
        (ForwardSpec { card_headers: strings("host"), ..spec() }, "headers,"),
        (ForwardSpec { answer_headers: strings("set-cookie"), ..spec() }, "answer_headers:"),
        (ForwardSpec { credentials: place(None, None), ..spec() }, "credentials:"),
        (ForwardSpec { credentials: place(Some("x-note"), None), ..spec() }, "credentials:"),
        (ForwardSpec { credentials: place(Some("content-length"), None), ..spec() }, "credentials:"),
        (ForwardSpec { credentials: place(None, Some("a.*")), ..spec() }, "credentials:"),
        (ForwardSpec { content_type: Some("a/b\r\nx: y".to_owned()), ..spec() }, "content_type:"),
        (ForwardSpec { body_bytes_max: 0, ..spec() }, "body_bytes_max:"),
        (ForwardSpec { answer_bytes_max: 1 << 20, ..spec() }, "answer_bytes_max:"),
        (ForwardSpec { timeout_s: 0, ..spec() }, "timeout_s:"),
    ] {
        let faults = faulty.faults();
        assert!(faults.len() == 1 && faults[0].starts_with(starts), "{faults:?}");
    }
    let authorization = ForwardSpec { credentials: place(Some("authorization"), None), ..spec() };
    assert_eq!(authorization.faults(), Vec::<String>::new());
}

#[test]
fn a_query_is_pairs_that_are_declared_and_holds_no_placeholder() {
    let sent = check(&serde_json::json!({"query": [["q", "a b&c=d#/?{"], ["q", ""]]})).unwrap();
    assert_eq!(sent.path_and_query(), "/v1/x?q=a+b%26c%3Dd%23%2F%3F%7B&q=");
    assert_eq!(check(&serde_json::json!({"query": []})).unwrap().path_and_query(), "/v1/x");
    for (name, value, why) in [
        ("other", "1", Why::NotDeclared),
        ("q", "{{ card.number }}", Why::PlaceholderMisplaced),
        ("q", NUMBER, Why::StrayNumber),
    ] {
        let refused = check(&serde_json::json!({"query": [[name, value]]})).unwrap_err();
        assert_eq!(refused, why.at("query"));
    }
}

#[test]
fn no_spelling_of_a_credentials_place_is_the_callers() {
    for form in ["m[key]", "M[KEY]", "m[key][]", "m[key][a]", "m[key]]", "m[key] "] {
        let refused = check(&serde_json::json!({"body_form": [[form, "mine"]]})).unwrap_err();
        assert!(matches!(refused.why, Why::Credential | Why::NotDeclared), "{form}: {refused:?}");
    }
    let open = Rules::compile(ForwardSpec { leaves: vec!["**".to_owned()], ..spec() }).unwrap();
    for form in ["m[key]", "M[KEY]", "m[key][]", "m[key][a]", "m[key]]"] {
        let body = serde_json::json!({
            "token": "t", "destination": "d", "method": "POST", "path": "/v1/x", "body_form": [[form, "mine"]],
        });
        let sent = serde_json::from_str(&body.to_string()).unwrap();
        assert_eq!(Request::check(sent, &open).unwrap_err().why, Why::Credential, "{form}");
    }
    let refused = check(&serde_json::json!({"body": {"m": {"key": {"inside": 1}}}})).unwrap_err();
    assert_eq!(refused, Why::Credential.at("body"));
}

#[test]
fn a_leaf_that_is_only_a_placeholder_is_a_number_where_that_was_asked() {
    let request = check(&serde_json::json!({"body": {"card": {
        "plain": "{{ card.exp_month }}", "asked": "{{ card.exp_month | number }}", "as_number": "{{ card.exp_year }}",
        "pan": "{{ card.number | number }}",
    }}}))
    .unwrap();
    let rules = Rules::compile(spec()).unwrap();
    let written = request.fill(&rules, &values(None), &[("key", "k")]).unwrap();
    assert_eq!(
        written.body,
        format!(
            "{{\"card\":{{\"plain\":\"03\",\"asked\":3,\"as_number\":2031,\"pan\":{NUMBER}}},\"m\":{{\"key\":\"k\"}}}}"
        )
    );
    assert!(request.needs(Name::Number) && !request.needs(Name::Zip));
    // What begins with zero would be another number.
    let zeros = Values { number: "0604123412341234", ..values(None) };
    assert_eq!(request.fill(&rules, &zeros, &[("key", "k")]).err(), Some(Why::Missing.at("body")));
    // A mask stays a text.
    let masked = Values { number: "424242******4242", month: "**", year: "****", zip: None };
    let shown = request.fill(&rules, &masked, &[("key", "k")]).unwrap();
    assert!(shown.body.contains("\"asked\":\"**\"") && shown.body.contains("\"as_number\":\"****\""));
}

/// A tree whose texts may be placeholders.
fn tree() -> impl Strategy<Value = Json> {
    let number = "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?";
    let leaf = prop_oneof![
        "[^{]{0,12}".prop_map(Json::Text),
        Just(Json::Text("{{ billing.zip }}".to_owned())),
        number.prop_map(Json::Raw),
        prop_oneof![Just("true"), Just("false"), Just("null")].prop_map(|raw| Json::Raw(raw.to_owned())),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Json::Array),
            prop::collection::btree_map("[^{]{0,6}", inner, 0..5)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

fn fill_zip(body: &Body, zip: &str) -> Body {
    let mut fill = |_: &[String], text: &str| -> Result<Filled, Why> {
        Text::parse(text)?.fill(&values(Some(zip))).map(Filled::Text).ok_or(Why::Missing)
    };
    body.fill(&mut fill).unwrap()
}

fn leaves(body: &Body) -> Vec<(Vec<String>, String)> {
    let mut all = Vec::new();
    body.walk(&mut |names, leaf| {
        let (Leaf::Text(text) | Leaf::Raw(text)) = leaf;
        all.push((names.to_vec(), text.to_owned()));
        Ok::<(), Why>(())
    })
    .unwrap();
    all
}

/// The leaves of the body as they must be once a value is filled in.
fn expected(body: &Body, zip: &str) -> Vec<(Vec<String>, String)> {
    let fill = |(names, text): (Vec<String>, String)| (names, text.replace("{{ billing.zip }}", zip));
    leaves(body).into_iter().map(fill).collect()
}

proptest! {
    #[test]
    fn every_text_is_read_or_refused(text in ".{0,60}", braces in "[{} |a-z._]{0,40}") {
        for text in [text.as_str(), braces.as_str(), &format!("{{{{{braces}}}}}")] {
            if let Ok(parsed) = Text::parse(text) {
                let filled = parsed.fill(&values(Some("90210"))).unwrap();
                prop_assert!(parsed.has_slots() || filled == text);
            }
            drop(Json::parse(text, true));
            drop(Body::xml(text));
            drop(Body::xml(&format!("<a>{text}</a>")));
        }
    }

    #[test]
    fn no_value_changes_the_shape_of_a_body(json in tree(), zip in "\\PC{0,16}") {
        let body = Body::Json(json);
        let filled = fill_zip(&body, &zip);
        let again = Body::Json(Json::parse(&filled.write(), true).unwrap());
        prop_assert_eq!(&again, &filled);
        prop_assert_eq!(leaves(&again), expected(&body, &zip));
    }

    #[test]
    fn no_value_changes_the_shape_of_a_form_or_a_document(
        pairs in prop::collection::vec(("[a-z\\[\\]&=% ]{0,8}", "[^{]{0,12}"), 0..6),
        note in "[^{\\p{Cc}]{0,16}",
        zip in "[^\\p{Cc}]{0,16}",
    ) {
        let mut pairs = pairs;
        pairs.push(("z".to_owned(), "x{{ billing.zip }}".to_owned()));
        let form = Body::Form(pairs);
        let filled = fill_zip(&form, &zip);
        let again: Vec<(String, String)> =
            form_urlencoded::parse(filled.write().as_bytes()).into_owned().collect();
        prop_assert_eq!(&Body::Form(again), &filled);
        prop_assert_eq!(leaves(&filled), expected(&form, &zip));

        let escaped = note.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
        let text = format!("<o k=\"{escaped}\"><n>{escaped}.</n><z p=\"{{{{ billing.zip }}}}\">x{{{{ billing.zip }}}}</z></o>");
        let xml = Body::xml(&text).unwrap();
        let filled = fill_zip(&xml, &zip);
        let again = Body::xml(&filled.write()).unwrap();
        prop_assert_eq!(&again, &filled);
        prop_assert_eq!(leaves(&again), expected(&xml, &zip));
        let noted = note + ".";
        prop_assert!(leaves(&xml).iter().any(|(_, text)| *text == noted));
    }

    #[test]
    fn a_number_keeps_every_digit(number in "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?") {
        let text = format!("{{\"a\":[{number}]}}");
        let mut out = String::new();
        Json::parse(&text, true).unwrap().write(&mut out);
        prop_assert_eq!(out, text);
    }
}
