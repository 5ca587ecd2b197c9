//! XML and forms, signatures, and steps: what the built-in connectors of those processors rest on.

use super::super::{
    Connector, EndpointParts, Mapped, Operation, Outcome, Part, SendMoment, Values, ZipCheck,
};
use super::{NUMBER, merchant, sale};

/// The head of a small connector; its endpoint, credentials and rules.
const HEAD: &str = r#"name = "wires"
version = 1
evidence = "documented"
source = "https://docs.wires.example"
date = "2026-11-25"
[endpoint]
test = "https://test.wires.example"
[credentials]
user = "user"
key = "key"
[idempotency]
kind = "none"
"#;

const XML: &str = r#"[auth]
header.X-User = "{cred.user}"
[op.sale]
method = "POST"
path = "/pay"
encoding = "xml"
volatile = ["order.sent", "order.@at"]
body = '''
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE pay PUBLIC "-//X//DTD X v1//EN" "http://dtd.x.example/x.dtd">
<pay xmlns="urn:x" xmlns:y="urn:y" version="1">
  <order code="{attempt.ref}" at="{attempt.id}" y:kind="{?customer}">
    <number>{card.number}</number>
    <zip>{?billing.zip}</zip>
    <address><city>{?billing.city}</city></address>
    <stored v-when="stored_credential" usage="{stored_credential.use|upper}"><id>{?stored_credential.ntid}</id></stored>
    <note>about {description}</note><sent>{attempt.id}</sent><key>{cred.key}</key><flag/>
  </order>
</pay>
'''
[op.lookup]
method = "GET"
path = "/orders"
encoding = "none"
in = "//orders/order"
where = "@code"
more = "//orders/@more"
given = { "//result" = "ok" }
[lookup]
settle_s = 10
of = ["sale"]
[response]
format = "xml"
[field]
code = ["//order/code", "/reply/@code", "./code"]
message = { path = ["//text", "//why"], join = " | " }
transaction_id = { path = "//id", before = " : " }
network_transaction_id = { path = "//id", after = " : " }
avs_raw = "//avs"
avs_zip = { path = "//avs", map = "avs" }
[map.avs]
Y = "match"
S = "not_supported"
[[rule]]
http = "5xx"
outcome = "error"
unknown = true
[[rule]]
"//approved" = "yes"
outcome = "approved"
[[rule]]
"//approved" = { exists = false }
outcome = "error"
[[rule]]
"//approved" = "no"
outcome = "declined"
"#;

fn connector(rest: &str) -> Connector {
    let text = format!("{HEAD}{rest}");
    Connector::parse("wires.toml", &text)
        .unwrap_or_else(|faults| panic!("{}", faults.iter().map(|f| format!("{f}\n")).collect::<String>()))
}

fn values<'v>() -> Values<'v> {
    Values {
        credentials: &[("user", "u"), ("key", "a<b&\"c'")],
        description: Some("x < y & z\u{1F600}"),
        ..merchant()
    }
}

#[test]
fn an_xml_body_is_filled_and_escaped() {
    let rendered = connector(XML).render(Operation::Sale, &values()).unwrap();
    let text = std::str::from_utf8(&rendered.body).unwrap();
    assert!(text.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE pay PUBLIC"), "{text}");
    let body = text.split_once("x.dtd\">").unwrap().1;
    assert_eq!(
        body,
        format!(
            "<pay xmlns=\"urn:x\" xmlns:y=\"urn:y\" version=\"1\"><order code=\"ref_test\" at=\"att_test\">\
             <number>{NUMBER}</number><zip>94107</zip><stored usage=\"SUBSEQUENT\"><id>1098510912210968</id></stored>\
             <note>about x &lt; y &amp; z\u{1F600}</note><sent>att_test</sent>\
             <key>a&lt;b&amp;&quot;c&apos;</key><flag/></order></pay>"
        )
    );
    assert_eq!(
        rendered.headers.first().map(|(name, value)| (name.as_str(), value.as_str())),
        Some(("Content-Type", "text/xml"))
    );
    // An attribute alone keeps an element; without attribute and content it goes.
    let mut bare = values();
    bare.stored_credential =
        bare.stored_credential.map(|stored| super::super::StoredCredential { ntid: None, ..stored });
    bare.customer = Some("c");
    let rendered = connector(XML).render(Operation::Sale, &bare).unwrap();
    let text = std::str::from_utf8(&rendered.body).unwrap();
    assert!(text.contains("<stored usage=\"SUBSEQUENT\"/>") && text.contains("y:kind=\"c\""), "{text}");
    // What XML cannot hold is refused by the name of its place alone.
    let bell = Values { description: Some("\u{7}"), ..values() };
    let error = connector(XML).render(Operation::Sale, &bell).unwrap_err();
    assert_eq!(error.to_string(), "a value cannot stand in the XML body");
}

#[test]
fn a_mac_of_xml_blanks_what_is_secret_or_volatile() {
    let connector = connector(XML);
    let mac = connector.render_for_mac(Operation::Sale, &values()).unwrap();
    let text = String::from_utf8_lossy(&mac).into_owned();
    assert!(
        text.contains(NUMBER) && text.contains("at=\"\"") && text.contains("<sent></sent>")
            || text.contains("<sent/>"),
        "{text}"
    );
    assert!(!text.contains("a&lt;b"));
    assert!(text.contains("<key/>"), "{text}");
}

#[test]
fn xml_in_one_field_of_a_form() {
    let form = XML.replace("encoding = \"xml\"", "encoding = \"xml\"\nform_field = \"xmldata\"");
    let plain = connector(XML).render(Operation::Sale, &values()).unwrap();
    let rendered = connector(&form).render(Operation::Sale, &values()).unwrap();
    let pairs: Vec<(String, String)> = form_urlencoded::parse(&rendered.body).into_owned().collect();
    assert_eq!(pairs, [("xmldata".to_owned(), String::from_utf8(plain.body.to_vec()).unwrap())]);
    assert_eq!(rendered.headers[0].1.as_str(), "application/x-www-form-urlencoded");
}

fn mapped(connector: &Connector, body: &str) -> Mapped {
    connector.map(Operation::Sale, 200, body.as_bytes())
}

#[test]
fn xml_answers_are_read_by_path() {
    let connector = connector(XML);
    let body = "\u{feff}<?xml version='1.0'?>\n<!DOCTYPE r PUBLIC \"-//B//DTD v1//EN\" \"http://dtd.example/v1.dtd\">\n\
        <n:reply xmlns:n='urn:n' code='7'><empty/><order><code> </code></order><approved>yes</approved>\
        <text>one<![CDATA[ & two]]></text><why/><why>three</why><id>T-1 : 0123</id><avs>S </avs></n:reply>";
    let answer = mapped(&connector, body);
    assert_eq!((answer.outcome, answer.processor_code.as_deref()), (Outcome::Approved, Some("7")));
    assert_eq!(answer.message.as_deref(), Some("one & two | three"));
    assert_eq!(answer.transaction_id.as_deref(), Some("T-1"));
    assert_eq!(answer.network_transaction_id.as_deref(), Some("0123"));
    assert_eq!((answer.avs.raw.as_deref(), answer.avs.zip), (Some("S"), Some(ZipCheck::NotSupported)));
    let no = mapped(&connector, "<r><approved>no</approved><avs>Q</avs></r>");
    assert_eq!((no.outcome, no.avs.raw.as_deref(), no.avs.zip), (Outcome::Declined, Some("Q"), None));
    // Characters that XML does not allow, as one processor sends them.
    let dirty = mapped(&connector, "<r><approved>no</approved><why>a\u{0}\u{1f}b</why></r>");
    assert_eq!((dirty.outcome, dirty.message.as_deref()), (Outcome::Declined, Some("a  b")));
    for unread in
        ["Temporary Failure, please Retry", "", "<r><approved>yes</approved>", "{\"approved\":\"yes\"}"]
    {
        assert_eq!(
            (mapped(&connector, unread).outcome, mapped(&connector, unread).unknown),
            (Outcome::Error, true)
        );
    }
}

/// A document that would grow without end is no answer, and costs nothing.
#[test]
fn an_entity_bomb_is_no_answer() {
    let mut bomb = "<!DOCTYPE r [<!ENTITY a0 \"xxxxxxxxxx\">".to_owned();
    for n in 1..12 {
        let of = format!("&a{};", n - 1).repeat(10);
        bomb.push_str(&format!("<!ENTITY a{n} \"{of}\">"));
    }
    bomb.push_str("]><r><approved>yes</approved><text>&a11;</text></r>");
    let answer = mapped(&connector(XML), &bomb);
    assert_eq!((answer.outcome, answer.unknown), (Outcome::Error, true));
}

#[test]
fn an_xml_list_proves_something_only_if_the_answer_says_so() {
    let connector = connector(XML);
    let found = |body: &str| {
        let mapped = connector.map_attempt(Operation::Lookup, 200, body.as_bytes(), &["att_1", "ref_1"]);
        (mapped.outcome, mapped.unknown)
    };
    let list = |more: &str, orders: &str| {
        format!("<r><result>ok</result><orders more='{more}'>{orders}</orders></r>")
    };
    let ours =
        "<order code='x'><approved>no</approved></order><order code='ref_1'><approved>yes</approved></order>";
    assert_eq!(found(&list("false", ours)), (Outcome::Approved, false));
    assert_eq!(found(&list("false", "<order code='x'/>")), (Outcome::NotFound, false));
    assert_eq!(found(&list("true", "<order code='x'/>")), (Outcome::Error, true));
    assert_eq!(found(&list("false", "").replace(">ok<", ">error<")), (Outcome::Error, true));
    assert_eq!(found("<html>busy</html>"), (Outcome::Error, true));
    let without = XML.replace("given = { \"//result\" = \"ok\" }\n", "");
    let faults = Connector::parse("w.toml", &format!("{HEAD}{without}")).unwrap_err();
    assert!(faults[0].to_string().contains("looks like an empty one"), "{faults:?}");
}

#[test]
fn form_answers_are_read_by_key() {
    let text =
        XML.replace("format = \"xml\"", "format = \"form\"").split("[op.lookup]").next().unwrap().to_owned();
    let rules = r#"[response]
format = "form"
[field]
code = "response_code"
message = "text"
[[rule]]
response = "1"
outcome = "approved"
[[rule]]
response = "2"
outcome = "declined"
"#;
    let connector = connector(&format!("{text}{rules}"));
    let yes = mapped(&connector, "response=1&text=A B&response_code=100&empty=");
    assert_eq!((yes.outcome, yes.processor_code.as_deref()), (Outcome::Approved, Some("100")));
    assert_eq!(yes.message.as_deref(), Some("A B"));
    assert_eq!(mapped(&connector, "response=2").outcome, Outcome::Declined);
    for unread in ["", "response", "<html a=1>response=1</html>", "{\"response\":1}", "response=3"] {
        let answer = mapped(&connector, unread);
        assert_eq!((answer.outcome, answer.unknown), (Outcome::Error, true), "{unread}");
    }
}

const SIGNED: &str = r#"[header]
v-c-merchant-id = "{cred.user}"
[sign]
alg = "hmac-sha256"
secret = "key"
key = "base64"
msg = "host: {host}\ndate: {date}\nrequest-target: {method|lower} {path}\ndigest: SHA-256={digest}\nv-c-merchant-id: {cred.user}"
enc = ["base64"]
header.Signature = 'keyid="k-1", algorithm="HmacSHA256", headers="host date request-target digest v-c-merchant-id", signature="{signature}"'
header.Date = "{date}"
header.Digest = "SHA-256={digest}"
[op.sale]
method = "POST"
path = "/payments"
encoding = "json"
[op.sale.body]
a = "{description}"
amount = "{amount.decimal}"
[response]
format = "json"
[[rule]]
status = "ok"
outcome = "approved"
"#;

fn signed_values<'v>(credentials: &'v [(&'v str, &'v str)]) -> Values<'v> {
    Values {
        credentials,
        description: Some("é"),
        amount: Some(super::super::Amount { minor: 1000, currency: "USD" }),
        moment: SendMoment { unix_ms: 1_767_323_045_000, nonce: "12345.6", mark: "" },
        endpoint: EndpointParts { host: "apitest.cybersource.com", prefix: "/pts/v2" },
        ..sale()
    }
}

fn header<'h>(rendered: &'h super::super::Rendered, name: &str) -> &'h str {
    rendered.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).unwrap()
}

/// RFC 4231, test case 2, in its two usual writings.
#[test]
fn a_signature_is_the_published_one() {
    let text = SIGNED
        .replace("key = \"base64\"\n", "")
        .replace("msg = \"host: {host}\\ndate: {date}\\nrequest-target: {method|lower} {path}\\ndigest: SHA-256={digest}\\nv-c-merchant-id: {cred.user}\"", "msg = \"what do ya want for nothing?\"")
        .replace("enc = [\"base64\"]", "enc = [\"hex\"]");
    let credentials = [("user", "m"), ("key", "Jefe")];
    let sign = |text: &str| {
        let rendered = connector(text).render(Operation::Sale, &signed_values(&credentials)).unwrap();
        header(&rendered, "Signature").rsplit_once("signature=\"").unwrap().1.trim_end_matches('"').to_owned()
    };
    let published = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(sign(&text), published);
    let twice = text.replace("enc = [\"hex\"]", "enc = [\"hex\", \"base64\"]");
    assert_eq!(sign(&twice), data_encoding::BASE64.encode(published.as_bytes()));
}

/// The recorded vectors beside the project, where they are.
#[test]
fn recorded_signatures_hold() {
    let Some(folder) = super::fixtures::shared() else { return };
    let text = std::fs::read_to_string(folder.join("../signature_vectors.json")).unwrap();
    let vectors: serde_json::Value = serde_json::from_str(&text).unwrap();
    let vector = |name: &str| {
        let found = vectors.as_array().unwrap().iter().find(|vector| vector["name"] == name);
        let found = found.unwrap();
        (
            found["secret"].as_str().unwrap().to_owned(),
            found["value"].as_str().unwrap().to_owned(),
            found["inputs"].clone(),
        )
    };
    let (secret, value, inputs) = vector("cybersource");
    let merchant = inputs["merchant_id"].as_str().unwrap();
    let credentials = [("user", merchant), ("key", secret.as_str())];
    let rendered = connector(SIGNED).render(Operation::Sale, &signed_values(&credentials)).unwrap();
    assert_eq!(String::from_utf8_lossy(&rendered.body), inputs["body"].as_str().unwrap());
    assert_eq!(header(&rendered, "Digest"), inputs["digest"].as_str().unwrap());
    assert_eq!(header(&rendered, "Date"), inputs["date"].as_str().unwrap());
    assert_eq!(header(&rendered, "Signature"), value);

    let (secret, value, inputs) = vector("payeezy");
    let (head, rest) = SIGNED.split_once("[sign]").unwrap();
    let sign = "[sign]\nalg = \"hmac-sha256\"\nsecret = \"key\"\nmsg = \"ak{nonce}{timestamp_ms}{cred.user}{body}\"\n\
        enc = [\"hex\", \"base64\"]\nheader.Authorization = \"{signature}\"\n";
    let payeezy = format!("{head}{sign}[op.sale]{}", rest.split_once("[op.sale]").unwrap().1);
    let credentials = [("user", inputs["token"].as_str().unwrap()), ("key", secret.as_str())];
    let mut values = signed_values(&credentials);
    values.moment.unix_ms = inputs["timestamp"].as_str().unwrap().parse().unwrap();
    let rendered = connector(&payeezy).render(Operation::Sale, &values).unwrap();
    assert_eq!(header(&rendered, "Authorization"), value);
}

#[test]
fn a_mac_covers_no_signature() {
    let connector = connector(SIGNED);
    let credentials = [("user", "m"), ("key", "AAECAw==")];
    let mut values = signed_values(&credentials);
    let first = connector.render_for_mac(Operation::Sale, &values).unwrap();
    values.moment = SendMoment { unix_ms: 5, nonce: "other", mark: "" };
    assert_eq!(*first, *connector.render_for_mac(Operation::Sale, &values).unwrap());
    // A key that is not base64 refuses to sign, and is not quoted.
    let wrong = [("user", "m"), ("key", "canary!")];
    let error = connector.render(Operation::Sale, &signed_values(&wrong)).unwrap_err();
    assert_eq!(error.to_string(), "`the key of [sign]` does not fit where the connector puts it");
}

const STEPS: &str = r#"[step.token]
method = "POST"
path = "/oauth"
encoding = "form"
body = [["grant_type", "client_credentials"], ["user", "{cred.user}"], ["secret", "{cred.key}"]]
output.access = ["access_token", "token.value"]
expires_s = "expires_in"
endpoint.test = "https://access.wires.example"
[step.tokenize]
method = "POST"
path = "/tokenize"
encoding = "json"
before = ["sale"]
header.Authorization = "Bearer {step.token.access}"
output.card = "id"
[step.tokenize.body]
number = "{card.number}"
[auth]
header.Authorization = "Bearer {step.token.access}"
[op.sale]
method = "POST"
path = "/pay"
encoding = "json"
[op.sale.body]
card = "{step.tokenize.card}"
amount = "{amount.minor|int}"
[op.void]
method = "POST"
path = "/void/{prev.transaction}"
encoding = "none"
[response]
format = "json"
[field]
code = "error"
message = "message"
[[rule]]
status = "ok"
outcome = "approved"
[[rule]]
status = "no"
outcome = "declined"
[[rule]]
http = "4xx"
outcome = "error"
"#;

/// A small connector with steps: for others who need one.
pub(crate) fn stepped_text() -> String {
    format!("{HEAD}{STEPS}")
}

#[test]
fn what_a_step_gives_is_put_where_its_mark_stands() {
    let connector = connector(STEPS);
    let steps: Vec<&str> = connector.steps().map(|(name, ..)| name).collect();
    assert_eq!(steps, ["token", "tokenize"]);
    assert!(!connector.step_has_card(0) && connector.step_has_card(1));
    let credentials = [("user", "u"), ("key", "k")];
    let mut values = Values { credentials: &credentials, ..sale() };
    // Without a mark nothing can be put anywhere, so nothing is rendered.
    assert!(connector.render(Operation::Sale, &values).is_err());
    values.moment.mark = "m0123456789abcdef";
    let rendered = connector.render(Operation::Sale, &values).unwrap();
    assert_eq!(rendered.steps.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1]);
    let token = connector.read_step(0, 200, br#"{"access_token":"T/1","expires_in":100}"#).unwrap();
    assert_eq!(token.keep.unwrap().as_secs(), 90);
    let card = connector.read_step(1, 201, br#"{"id":"c\"/&1"}"#).unwrap();
    assert!(card.keep.is_none());
    let mark = values.moment.mark;
    let place = |whose, part, text: &[u8], given: &[&super::super::StepOutputs]| {
        String::from_utf8(connector.place_outputs(whose, part, text, mark, given).to_vec()).unwrap()
    };
    let sale = (Operation::Sale, None);
    let mark_of_card = format!("/x/{mark}s1o0e");
    assert_eq!(place(sale, Part::Path, mark_of_card.as_bytes(), &[&token, &card]), "/x/c%22%2F%261");
    assert_eq!(
        place(sale, Part::Body, &rendered.body, &[&token, &card]),
        r#"{"card":"c\"/&1","amount":2020}"#
    );
    let bearer = place(sale, Part::Header, header(&rendered, "Authorization").as_bytes(), &[&token, &card]);
    assert_eq!(bearer, "Bearer T/1");
    let second = &rendered.steps[1].1;
    let bearer = place(
        (Operation::Sale, Some(1)),
        Part::Header,
        header(second, "Authorization").as_bytes(),
        &[&token],
    );
    assert_eq!(bearer, "Bearer T/1");
    assert!(rendered.steps[0].1.headers.iter().all(|(name, _)| name != "Authorization"));
    // A void needs the access token alone.
    let previous = super::super::Previous { transaction: Some("t"), ..Default::default() };
    let void = connector.render(Operation::Void, &Values { previous, ..values }).unwrap();
    assert_eq!(void.steps.len(), 1);
}

/// Whatever a failed step's answer says, nothing was charged.
#[test]
fn a_failed_step_is_never_an_approval() {
    let connector = connector(STEPS);
    for (status, body, outcome) in [
        (200, r#"{"status":"ok"}"#, Outcome::Error),
        (200, r#"{"status":"no","error":"bad_card"}"#, Outcome::Declined),
        (503, "", Outcome::Error),
        (401, r#"{"error":"invalid_client"}"#, Outcome::Error),
        (200, r#"{"access_token":"a\nb"}"#, Outcome::Error),
    ] {
        let Err(mapped) = connector.read_step(0, status, body.as_bytes()) else { panic!("{status} {body}") };
        assert_eq!((mapped.outcome, mapped.unknown), (outcome, false), "{status} {body}");
    }
}

#[test]
fn faults_of_signatures_steps_and_xml_are_found_when_the_file_is_read() {
    let rows: &[(&str, &str, &str, &str)] = &[
        (SIGNED, "alg = \"hmac-sha256\"", "alg = \"md5\"", "`alg` has an unknown word"),
        (SIGNED, "secret = \"key\"", "secret = \"canary\"", "`secret` names no credential"),
        (SIGNED, "secret = \"key\"\n", "", "an HMAC has no key"),
        (SIGNED, "alg = \"hmac-sha256\"", "alg = \"sha256\"", "a plain hash takes no key"),
        (SIGNED, "enc = [\"base64\"]\n", "", "[sign] has no `enc`"),
        (
            SIGNED,
            "a = \"{description}\"",
            "a = \"{signature}\"",
            "write {?signature}: signed is the body without it",
        ),
        (SIGNED, "a = \"{description}\"", "a = \"{digest}\"", "is known only when the body is written"),
        (
            SIGNED,
            "enc = [\"base64\"]",
            "enc = [\"base64\"]\nagain = \"{host}\"",
            "signs nothing of the first",
        ),
        (SIGNED, "enc = [\"base64\"]", "enc = [\"base64\"]\ndigest = \"hmac-sha1\"", "a digest has no key"),
        (
            SIGNED,
            "enc = [\"base64\"]",
            "enc = [\"base64\"]\ndigest_enc = [\"hx\"]",
            "`digest_enc` has an unknown word",
        ),
        (
            STEPS,
            "path = \"/pay\"",
            "path = \"/x/{step.tokenize.card}\"",
            "declare it as { …, public = true }",
        ),
        (
            STEPS,
            "output.card = \"id\"",
            "output.card = { path = \"//id\" }",
            "a path of [step.tokenize] is not of its",
        ),
        (STEPS, "output.card = \"id\"", "output.card = { pat = \"id\" }", "`pat` is not known"),
        (SIGNED, "msg = \"host: {host}", "msg = \"{signature}", "holds its own signature"),
        (STEPS, "card = \"{step.tokenize.card}\"", "card = \"{digest}\"", "nothing is signed there"),
        (STEPS, "before = [\"sale\"]", "before = [\"void\"]", "that does not go before it"),
        (STEPS, "{step.token.access}\"\n[op.sale]", "{step.tokn.access}\"\n[op.sale]", "is not a name"),
        (STEPS, "output.card = \"id\"\n", "", "a step gives nothing"),
        (XML, "<flag/>", "<flag>", "the body is not XML at its line"),
        (XML, "settle_s = 10", "settle_s = 10\nuntil_s = 10", "`until_s` is not after `settle_s`"),
        (XML, "<flag/>", "<flag>{crd.number}</flag>", "`{crd.number}` is not a name"),
        (XML, "//order/code", "order.code", "a path of [field] is not of the answers' format"),
        (XML, "\"//approved\" = \"no\"", "approved = \"no\"", "a test's path is not of the answers' format"),
        (XML, "\"order.sent\"", "\"order.snt\"", "`volatile` names a leaf that the body does not have"),
        (XML, "//avs\"\navs_zip", "//a vs\"\navs_zip", "a path is malformed"),
        (XML, "v-when=\"stored_credential\"", "v-when=\"date\"", "a condition may not test `date`"),
    ];
    for (text, old, new, expected) in rows {
        assert!(text.contains(old), "the row for {expected} replaces nothing");
        let Err(faults) = Connector::parse("w.toml", &format!("{HEAD}{}", text.replacen(old, new, 1))) else {
            panic!("nobody noticed: {expected}");
        };
        let said: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|fault| fault.contains(expected)), "{expected} not in {said:#?}");
    }
}

/// What is signed is the body without its signature, in whatever form; another digest is another header.
#[test]
fn a_signature_over_a_body_may_stand_in_it() {
    let text = SIGNED
        .replace("a = \"{description}\"", "a = \"{description}\"\nsign = \"{?signature}\"")
        .replace("msg = \"host: {host}\\n", "msg = \"{body}")
        .replace("enc = [\"base64\"]", "enc = [\"hex-upper\"]\ndigest = \"sha1\"\ndigest_enc = [\"hex\"]");
    let signed = connector(&text);
    let credentials = [("user", "u"), ("key", "a2V5")];
    let values = signed_values(&credentials);
    let rendered = signed.render(Operation::Sale, &values).unwrap();
    let body = std::str::from_utf8(&rendered.body).unwrap();
    let (before, after) = body.split_once(",\"sign\":\"").unwrap();
    let (signature, rest) = after.split_once('"').unwrap();
    let unsigned = format!("{before}{rest}");
    let sha1 = |text: &str| {
        let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        data_encoding::HEXLOWER.encode(digest.as_ref())
    };
    assert_eq!(header(&rendered, "Digest"), format!("SHA-256={}", sha1(body)));
    assert!(header(&rendered, "Signature").contains(signature));
    assert!(signature.len() == 64 && !signature.chars().any(|c| c.is_ascii_lowercase()), "{signature}");
    let message = format!(
        "{unsigned}date: {}\nrequest-target: post /pts/v2/payments\ndigest: SHA-256={}\nv-c-merchant-id: u",
        header(&rendered, "Date"),
        sha1(&unsigned)
    );
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"key");
    let expected = data_encoding::HEXUPPER.encode(ring::hmac::sign(&key, message.as_bytes()).as_ref());
    assert_eq!(signature, expected);
    // Neither is in the MAC that says whether a request is the same again.
    let later = super::super::SendMoment { unix_ms: values.moment.unix_ms + 60_000, ..values.moment };
    let macs = [values.moment, later]
        .map(|moment| signed.render_for_mac(Operation::Sale, &Values { moment, ..values }).unwrap().to_vec());
    assert_eq!(macs[0], macs[1]);
}

/// Items by what is in them, in either form, and a whole answer that is a list.
#[test]
fn a_path_may_choose_an_item_by_its_text() {
    let rules = "[[rule]]\nop = \"sale\"\noutcome = \"approved\"\n";
    let op = "[auth]\nheader.A = \"{cred.user}{cred.key}\"\n[op.sale]\nmethod = \"GET\"\npath = \"/\"\nencoding = \"none\"\n";
    let found = |format: &str, path: &str, answer: &str| {
        let text = format!("{op}[response]\nformat = \"{format}\"\n[field]\ncode = \"{path}\"\n{rules}");
        mapped(&connector(&text), answer).processor_code
    };
    let list = r#"{"l":[{"t":"a","v":{"c":1}},{"t":"b"},{"t":"b","v":{"c":2}}]}"#;
    assert_eq!(found("json", "l[t=b].v.c", list).as_deref(), Some("2"));
    assert_eq!(found("json", "l[t=c].v.c", list), None);
    assert_eq!(found("json", "$[1].c", r#"[{"c":1},{"c":2}]"#).as_deref(), Some("2"));
    assert_eq!(found("json", "$[t=x].c", r#"[{"c":1},{"t":"x","c":2}]"#).as_deref(), Some("2"));
    let xml = "<r><f n='a'>1</f><f n='b'>2</f><g><k>b</k><v>3</v></g></r>";
    assert_eq!(found("xml", "//f[@n=b]", xml).as_deref(), Some("2"));
    assert_eq!(found("xml", "/r/g[k=b]/v", xml).as_deref(), Some("3"));
    assert_eq!(found("xml", "/r/g[k=a]/v", xml), None);
}
