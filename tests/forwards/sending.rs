//! What is sent is what was declared, leaf by leaf; what a dry run shows is it, masked.

use cardvault::supervisor::admin::AdminRequest;
use cardvault::tools::client::Payload;
use cardvault::wire::control::AdminAnswer;
use serde_json::{Value, json};

use crate::common::{count_of, events, text};
use crate::desk::{CREDENTIAL, Desk, KEY, VISA, refusal, request, word};

#[tokio::test]
async fn a_json_body_is_filled_leaf_by_leaf_and_everything_else_stays_as_it_was_written() {
    let mut desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let answer = desk.forward("k-1", &request(&token)).await;
    let forward = answer.json();
    assert_eq!((answer.status, word(&forward, "status")), (201, "answered"), "{}", text(&answer));
    assert_eq!((word(&forward, "outbound"), &forward["upstream"]["status"]), ("sent", &200.into()));
    assert_eq!(answer.header("vault-upstream-status"), Some("200"));
    for name in ["vault-upstream-ms", "vault-overhead-ms"] {
        assert!(answer.header(name).unwrap().parse::<f64>().unwrap() > 0.0, "{name}");
    }
    let headers = &forward["upstream"]["headers"];
    assert_eq!(headers, &json!({"content-type": "application/json", "request-id": "req-77"}));

    let arrived = desk.upstream.arrived();
    assert_eq!(arrived.len(), 1);
    let one = &arrived[0];
    assert_eq!(one.line, "POST /base/v1/cards?expand=a%26b HTTP/1.1");
    assert_eq!(one.header("authorization"), Some(format!("Bearer {CREDENTIAL}").as_str()));
    assert_eq!((one.header("x-card"), one.header("idempotency-key")), (Some("03"), Some("mine-1")));
    assert_eq!(one.header("content-type"), Some("application/json"));
    let expected = format!(
        "{{\"amount\":1250,\"note\":\"2.50 \\\"quoted\\\" & more\",\"tags\":[1.1,true,null,\"x\"],\"card\":{{\"number\":\"{VISA}\",\
         \"exp\":\"3/30\",\"year_number\":2030,\"month\":3,\"zip\":\"90210\"}},\"merchant\":{{\"key\":\"{KEY}\"}}}}"
    );
    assert_eq!(one.body, expected);

    // The answer repeats it all, and comes back without the number, the zip and the credentials.
    let said = text(&answer);
    for secret in [VISA, CREDENTIAL, KEY, "90210"] {
        assert!(!said.contains(secret));
    }
    assert!(said.contains("[redacted]") && said.contains("quoted"), "{said}");

    // Read later, and replayed, it is the same.
    let id = word(&forward, "id");
    assert!(id.starts_with("fwd_"));
    assert_eq!(desk.read(id).await.json(), forward);
    let again = desk.forward("k-1", &request(&token)).await;
    assert_eq!((again.status, again.json()), (201, forward.clone()));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let mut other = request(&token);
    other["body"]["amount"] = 1251.into();
    assert_eq!(refusal(&desk.forward("k-1", &other).await), (422, "idempotency_key_reused".to_owned()));
    assert_eq!(desk.upstream.arrived().len(), 1);

    let log = events(&desk.vault.assessor()).await;
    assert_eq!((count_of(&log, "forward.send"), count_of(&log, "forward.outcome")), (1, 1));
    let sent = log.iter().find(|event| event["action"] == "forward.send").unwrap();
    assert_eq!(sent["facts"]["opening"]["purpose"], "forward");
    assert_eq!(sent["facts"]["opening"]["destination"], "shop");

    // When the card is erased its answer goes with it, and its key answers nothing any more.
    let erased =
        desk.client.request("DELETE", &format!("/v1/tokens/{token}"), &[], Payload::None).await.unwrap();
    assert!(erased.status < 300, "{}", text(&erased));
    let bare = desk.read(id).await.json();
    assert_eq!((&bare["upstream"]["body"], &bare["upstream"]["erased"]), (&Value::Null, &true.into()));
    assert_eq!(refusal(&desk.forward("k-1", &request(&token)).await), (410, "token_erased".to_owned()));
    desk.vault.stop();
    let (code, said) = desk.vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn forms_and_xml_are_filled_as_trees_too() {
    let desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let mut form = request(&token);
    form.as_object_mut().unwrap().remove("body");
    form["body_form"] = json!([
        ["card[number]", "{{ card.number }}"],
        ["card[exp]", "{{ card.exp_month }}{{ card.exp_year | yy }}"],
        ["note", "a=b&card[number]=1 +%"],
        ["card[zip]", "{{ billing.zip }}"],
    ]);
    let answer = desk.forward("k-1", &form).await;
    assert_eq!(word(&answer.json(), "status"), "answered", "{}", text(&answer));
    let xml = json!({
        "token": token, "destination": "xml", "method": "POST", "path": "/v1/cards",
        "body_xml": "<?xml version=\"1.0\"?><order id=\"7\" xmlns=\"urn:x\">\n <merchant><key/></merchant><!-- no -->\
            <note>a &lt; b &amp; c<![CDATA[<i>]]></note><card year=\"{{ card.exp_year }}\"><number>{{ card.number }}</number></card></order>",
    });
    let answer = desk.forward("k-2", &xml).await;
    assert_eq!(word(&answer.json(), "status"), "answered", "{}", text(&answer));
    let arrived = desk.upstream.arrived();
    assert_eq!(
        arrived[0].body,
        format!(
            "card%5Bnumber%5D={VISA}&card%5Bexp%5D=0330&note=a%3Db%26card%5Bnumber%5D%3D1+%2B%25&card%5Bzip%5D=90210&\
             merchant%5Bkey%5D={KEY}"
        )
    );
    assert_eq!(arrived[0].header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(
        arrived[1].body,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><order id=\"7\" xmlns=\"urn:x\">\n <merchant><key>{KEY}</key></merchant>\
             <note>a &lt; b &amp; c&lt;i&gt;</note><card year=\"2030\"><number>{VISA}</number></card></order>"
        )
    );
    assert_eq!(arrived[1].header("content-type"), Some("text/xml; charset=utf-8"));
}

#[tokio::test]
async fn a_dry_run_shows_the_request_masked_and_sends_and_opens_nothing() {
    let desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let mut body = request(&token);
    body["dry_run"] = true.into();
    let answer = desk.forward("k-1", &body).await;
    let shown = answer.json();
    assert_eq!((answer.status, word(&shown, "outbound")), (200, "not_sent"), "{}", text(&answer));
    let outgoing = &shown["request"];
    assert_eq!((word(outgoing, "method"), word(outgoing, "path")), ("POST", "/v1/cards?expand=a%26b"));
    assert_eq!(outgoing["headers"]["authorization"], "Bearer [credential authorization]");
    let inside: Value = serde_json::from_str(word(outgoing, "body")).unwrap();
    assert_eq!(inside["card"]["number"], "424242******4242");
    assert_eq!((&inside["card"]["exp"], &inside["card"]["zip"]), (&"**/**".into(), &"*****".into()));
    assert_eq!((&inside["merchant"]["key"], &inside["amount"]), (&"[credential key]".into(), &1250.into()));
    assert!(desk.upstream.arrived().is_empty());
    let log = events(&desk.vault.assessor()).await;
    assert_eq!(count_of(&log, "forward.send") + count_of(&log, "opening.unused"), 0);
    // It kept no key: the same one may send now.
    body["dry_run"] = false.into();
    assert_eq!(desk.forward("k-1", &body).await.status, 201);
    assert_eq!(desk.upstream.arrived().len(), 1);
}

#[tokio::test]
async fn a_declaration_and_its_credentials_are_read_again_without_a_restart() {
    let desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    assert_eq!(desk.forward("k-1", &request(&token)).await.status, 201);
    std::fs::write(desk.vault.path("credentials/shop"), "sk_rotated\n").unwrap();
    let config = std::fs::read_to_string(desk.vault.config()).unwrap();
    let narrower = config.replace("leaves = [\"amount\", \"note\", ", "leaves = [\"note\", ");
    assert_ne!(narrower, config);
    std::fs::write(desk.vault.config(), narrower).unwrap();
    let answer = desk.vault.ask(AdminRequest::Reload);
    assert!(matches!(answer, AdminAnswer::Done(_)), "{answer:?}");
    assert_eq!(refusal(&desk.forward("k-2", &request(&token)).await), (422, "not_declared".to_owned()));
    let mut body = request(&token);
    body["body"].as_object_mut().unwrap().remove("amount");
    let answer = desk.forward("k-3", &body).await;
    assert_eq!(word(&answer.json(), "status"), "answered", "{}", text(&answer));
    let arrived = desk.upstream.arrived();
    assert_eq!((arrived.len(), arrived[1].header("authorization")), (2, Some("Bearer sk_rotated")));
}
