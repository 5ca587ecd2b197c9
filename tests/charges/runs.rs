//! Invoice runs over the whole vault: every verdict, what is refused, and what people do with a run.

use std::time::{Duration, Instant};

use cardvault::tools::client::{Answer, Payload};
use serde_json::{Value, json};

use crate::common::{Vault, order, text};
use crate::desk::{Desk, SCOPES, VISA, behaving, refusal, sale, word};

const OVER_MAX: Duration = Duration::from_secs(60);

/// A line; the customer initiates, so that no agreement is needed.
pub(crate) fn line(token: &str, invoice: &str, amount: i64) -> Value {
    json!({
        "token": token, "amount": amount, "currency": "USD", "invoice": invoice, "initiator": "customer",
        "destination": "sandbox",
    })
}

fn ndjson(lines: &[Value]) -> Vec<u8> {
    lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes()
}

async fn upload(desk: &Desk, key: &str, query: &str, kind: &str, body: &[u8]) -> Answer {
    let headers = [("idempotency-key", key), ("content-type", kind)];
    let path = format!("/v1/invoice_runs?{query}");
    desk.client.request("POST", &path, &headers, Payload::Bytes(body)).await.unwrap()
}

async fn run(desk: &Desk, key: &str, more: &str, lines: &[Value]) -> Value {
    let sum: i64 = lines.iter().filter_map(|line| line["amount"].as_i64()).sum();
    let query = format!("lines={}&sum=USD:{sum}{more}", lines.len());
    let answer = upload(desk, key, &query, "application/x-ndjson", &ndjson(lines)).await;
    assert!(matches!(answer.status, 201 | 202), "{}", text(&answer));
    answer.json()
}

/// The run once it is in this state.
async fn until(desk: &Desk, run: &Value, state: &str) -> Value {
    let began = Instant::now();
    loop {
        let now = desk.get(&format!("/v1/invoice_runs/{}", word(run, "id"))).await;
        if now["state"] == state {
            return now;
        }
        assert!(began.elapsed() < OVER_MAX, "{now}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn results(desk: &Desk, run: &Value) -> Vec<Value> {
    let answer = desk.client.get(&format!("/v1/invoice_runs/{}/results", word(run, "id"))).await.unwrap();
    assert_eq!(answer.status, 200, "{}", text(&answer));
    let lines = String::from_utf8(answer.body.to_vec()).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn verdicts(results: &[Value]) -> Vec<(&str, &str)> {
    results.iter().map(|line| (word(line, "verdict"), word(line, "outcome"))).collect()
}

/// Verdict and outcome of each of those.
const EXPECTED: [(&str, &str); 13] = [
    ("accepted", "approved"),
    ("accepted", "approved"),
    ("accepted", "declined"),
    ("already_charged", ""),
    ("conflict", ""),
    ("in_flight", ""),
    ("conflict", ""),
    ("declined_before", ""),
    ("invalid", ""),
    ("invalid", ""),
    ("invalid", ""),
    ("invalid", ""),
    ("invalid", ""),
];

/// Lines for each verdict: three to accept, then those whose invoices are taken, then those that are invalid.
fn of_every_kind(good: &str, declines: &str, other: &str) -> [Value; 13] {
    let mut bad = line(good, "bad", 5);
    bad["colour"] = json!("red");
    let mut merchant = line(good, "no-agreement", 5);
    merchant["initiator"] = json!("merchant");
    let mut nowhere = line(good, "nowhere", 5);
    nowhere["destination"] = json!("nowhere");
    [
        line(good, "new-1", 100),
        line(other, "new-2", 200),
        line(declines, "new-3", 300),
        line(good, "paid", 1250),
        line(other, "taken", 1250),
        line(good, "new-1", 100),
        line(good, "new-1", 101),
        line(declines, "declined", 1250),
        bad,
        merchant,
        nowhere,
        line("tok_00000000v00000000v00000000v00000", "nobody", 5),
        line(good, VISA, 5),
    ]
}

#[tokio::test]
async fn a_run_says_each_verdict_and_charges_what_it_accepted_once() {
    let desk = Desk::open();
    let good = desk.token("t-1", VISA).await;
    let declines = desk.token("t-2", &behaving(1, 902)).await;
    let other = desk.token("t-3", &behaving(2, 0)).await;
    for (key, invoice) in [("k-1", "paid"), ("k-2", "taken")] {
        assert_eq!(desk.charge(key, &sale(&good, invoice)).await.status, 201);
    }
    assert_eq!(desk.charge("k-3", &sale(&declines, "declined")).await.json()["status"], "declined");
    let lines = of_every_kind(&good, &declines, &other);
    let made = run(&desk, "r-1", "", &lines).await;
    assert_eq!(made["verdicts"]["accepted"], 3, "{made}");
    let over = until(&desk, &made, "finished").await;
    let lines_back = results(&desk, &over).await;
    assert_eq!(verdicts(&lines_back), EXPECTED);
    let codes: Vec<_> = lines_back[8..].iter().map(|line| word(line, "code")).collect();
    assert_eq!(
        codes,
        ["unknown_field", "agreement_required", "destination_unknown", "token_not_found", "stray_number"]
    );
    assert_eq!(lines_back[12]["invoice"], Value::Null);
    assert_eq!(over["outcomes"], json!({"approved": 2, "declined": 1}), "{over}");
    let paid = desk.get("/v1/charges?invoice=paid").await["data"][0]["id"].clone();
    assert_eq!(lines_back[3]["charge"], paid);
    for (invoice, times) in [("new-1", 1), ("new-2", 1), ("new-3", 0), ("taken", 1), ("nobody", 0)] {
        assert_eq!(desk.paid(invoice).len(), times, "{invoice}");
    }
    // The same lines once more: nothing is charged again; what was declined is, if asked for.
    let again = run(&desk, "r-2", "&retry_declined=true", &lines[..8]).await;
    let again = until(&desk, &again, "finished").await;
    assert_eq!(
        verdicts(&results(&desk, &again).await),
        [
            ("already_charged", ""),
            ("already_charged", ""),
            ("accepted", "declined"),
            ("already_charged", ""),
            ("conflict", ""),
            ("already_charged", ""),
            ("conflict", ""),
            ("accepted", "declined"),
        ]
    );
    // The same request is the same run.
    let replay = run(&desk, "r-1", "", &lines).await;
    assert_eq!((&replay["id"], &replay["state"]), (&over["id"], &json!("finished")));
    let path = format!("/v1/invoice_runs/{}/results?format=csv&from_line=13", word(&over, "id"));
    let csv = desk.client.get(&path);
    let csv = String::from_utf8(csv.await.unwrap().body.to_vec()).unwrap();
    assert!(csv.starts_with("line,invoice,") && csv.lines().count() == 2, "{csv}");
    assert!(!csv.contains("4242"), "{csv}");
    let list = desk.get("/v1/invoice_runs?limit=1").await;
    assert_eq!((&list["data"][0]["id"], &list["has_more"]), (&again["id"], &json!(true)));
}

#[tokio::test]
async fn nothing_is_charged_unless_the_stream_is_what_was_declared() {
    let desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let lines = [line(&token, "i-1", 100), line(&token, "i-2", 50)];
    let body = ndjson(&lines);
    for (query, status, code) in [
        ("sum=USD:150", 422, "missing_field"),
        ("lines=2", 422, "missing_field"),
        ("lines=2&sum=USD:150&lines=2", 400, "invalid_parameter"),
        ("lines=0&sum=USD:150", 400, "invalid_parameter"),
        ("lines=2&sum=USD:1.50", 400, "invalid_parameter"),
        ("lines=2&sum=USD:150&concurrency=0", 400, "invalid_parameter"),
        ("lines=2&sum=USD:150&other=1", 400, "unknown_parameter"),
        ("lines=3&sum=USD:150", 422, "run_totals"),
        ("lines=1&sum=USD:150", 422, "run_totals"),
        ("lines=2&sum=USD:151", 422, "run_totals"),
        ("lines=2&sum=EUR:150", 422, "run_totals"),
        ("lines=2&sum=USD:150,EUR:1", 422, "run_totals"),
    ] {
        let answer = upload(&desk, query, query, "application/x-ndjson", &body).await;
        assert_eq!(refusal(&answer), (status, code.to_owned()), "{query}: {}", text(&answer));
    }
    let answer = upload(&desk, "k", "lines=2&sum=USD:150", "application/json", &body).await;
    assert_eq!(refusal(&answer), (415, "unsupported_content_type".to_owned()));
    let answer = upload(&desk, "k", "lines=2&sum=USD:150", "text/csv", &body).await;
    assert_eq!(refusal(&answer), (422, "run_header".to_owned()));
    // The key of what was rejected answers with what was rejected.
    let answer =
        upload(&desk, "lines=3&sum=USD:150", "lines=3&sum=USD:150", "application/x-ndjson", &body).await;
    assert_eq!(answer.json()["state"], "rejected");
    let answer =
        upload(&desk, "lines=3&sum=USD:150", "lines=2&sum=USD:150", "application/x-ndjson", &body).await;
    assert_eq!(refusal(&answer), (422, "idempotency_key_reused".to_owned()));
    assert!(desk.ledger().is_empty());
    // A run that only validates says verdicts, charges nothing, and leaves its invoices free.
    let twice = [lines[0].clone(), lines[1].clone(), lines[0].clone()];
    let tried = run(&desk, "try", "&validate_only=true", &twice).await;
    assert_eq!((word(&tried, "state"), &tried["verdicts"]["in_flight"]), ("finished", &json!(1)), "{tried}");
    assert!(desk.ledger().is_empty());
    let csv = format!(
        "invoice,token,amount,currency,initiator,destination,metadata.plan\r\ni-1,{token},100,USD,customer,sandbox,gold\r\n\
         i-2,{token},50,USD,customer,sandbox,\r\n"
    );
    let answer = upload(&desk, "csv", "lines=2&sum=USD:150", "text/csv; charset=utf-8", csv.as_bytes()).await;
    assert_eq!(answer.status, 202, "{}", text(&answer));
    let over = until(&desk, &answer.json(), "finished").await;
    assert_eq!(over["outcomes"], json!({"approved": 2}), "{over}");
    let charge = &desk.get("/v1/charges?invoice=i-1").await["data"][0];
    assert_eq!(charge["metadata"], json!({"plan": "gold"}));
    assert_eq!(charge["run"], json!({"id": over["id"], "line": 1}));
    let reader = desk.vault.application("reader", "acme", &["charges:read"]);
    let path = "/v1/invoice_runs?lines=1&sum=USD:1";
    let headers = [("idempotency-key", "k"), ("content-type", "text/csv")];
    let answer = reader.request("POST", path, &headers, Payload::Bytes(b"")).await.unwrap();
    assert_eq!(refusal(&answer), (403, "scope_missing".to_owned()));
    desk.vault.tenant("globex", cardvault::card::tenant::Mode::Test);
    let stranger = desk.vault.application("stranger", "globex", &SCOPES);
    for path in ["", "/results"] {
        let answer = stranger.get(&format!("/v1/invoice_runs/{}{path}", word(&over, "id"))).await.unwrap();
        assert_eq!(refusal(&answer), (404, "run_not_found".to_owned()));
    }
}

#[tokio::test]
async fn a_run_stands_still_goes_on_and_ends_when_told() {
    let desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let lines: Vec<_> = (0..60).map(|n| line(&token, &format!("i-{n}"), 10)).collect();
    let made = run(&desk, "r-1", "&concurrency=1&rate=20", &lines).await;
    let path = |name: &str| format!("/v1/invoice_runs/{}/{name}", word(&made, "id"));
    let verb = async |name: &str, key: &str| desk.post(&path(name), key, &json!({})).await;
    let paused = verb("pause", "p-1").await;
    assert_eq!((paused.status, word(&paused.json(), "state")), (200, "paused"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = desk.ledger().len();
    assert!(before < 30, "{before}");
    // The invoices of a run that stands still are nobody else's.
    let single = desk.charge("k-59", &sale(&token, "i-59")).await;
    assert_eq!(refusal(&single), (409, "in_flight".to_owned()));
    assert_eq!(word(&single.json(), "subject"), word(&made, "id"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(desk.ledger().len(), before);
    assert_eq!(verb("resume", "p-1").await.json()["state"], "running", "a key is a verb's own");
    // What comes again, late, is answered as it was and does nothing.
    let again = verb("pause", "p-1").await;
    assert_eq!(
        (again.status, &again.body, again.header("idempotent-replayed")),
        (200, &paused.body, Some("true"))
    );
    let reader = desk.get(&format!("/v1/invoice_runs/{}", word(&made, "id"))).await;
    assert_eq!(reader["state"], "running");
    let as_it_stands = verb("resume", "p-2").await;
    assert_eq!(verb("resume", "p-2").await.body, as_it_stands.body);
    let headers = [("Idempotency-Key", "p-2"), ("Content-Type", "application/json")];
    let other = desk.client.request("POST", &path("resume"), &headers, Payload::Bytes(b" {}")).await.unwrap();
    assert_eq!(refusal(&other), (422, "idempotency_key_reused".to_owned()));
    let began = Instant::now();
    while desk.ledger().len() <= before + 2 {
        assert!(began.elapsed() < OVER_MAX);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(verb("cancel", "p-1").await.json()["state"], "cancelled");
    for name in ["pause", "resume"] {
        assert_eq!(refusal(&verb(name, "p-9").await), (409, "run_state".to_owned()));
    }
    // What was not on its way is free again, and nothing is charged any more.
    let began = Instant::now();
    let charged = loop {
        let answer = desk.charge("k-59b", &sale(&token, "i-59")).await;
        if answer.status == 201 {
            break answer.json();
        }
        assert!(began.elapsed() < OVER_MAX, "{}", text(&answer));
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(charged["status"], "approved");
    let sold = desk.ledger().len();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(desk.ledger().len() == sold && sold < 60);
}

#[tokio::test]
async fn a_run_keeps_to_what_its_maker_may_charge() {
    let mut desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let mut limited = order("limited", Some("acme"), &SCOPES);
    limited.charge_max.insert("USD".to_owned(), 50);
    limited.day_max.insert("USD".to_owned(), 100);
    let all = std::mem::replace(&mut desk.client, desk.vault.client(&desk.vault.principal(limited)));
    let lines: Vec<_> = [40, 51, 40, 40]
        .into_iter()
        .enumerate()
        .map(|(n, amount)| line(&token, &format!("i-{n}"), amount))
        .collect();
    let made = run(&desk, "r-1", "&concurrency=1", &lines).await;
    assert_eq!(made["verdicts"]["invalid"], 1, "{made}");
    let still = until(&desk, &made, "paused").await;
    assert_eq!(word(&still, "reason"), "limit_exceeded");
    assert_eq!(desk.ledger().len(), 2);
    desk.client = all;
    let still = until(&desk, &made, "paused").await;
    assert_eq!(still["outcomes"], json!({"approved": 2}), "{still}");
}

#[tokio::test]
async fn a_run_waits_for_a_processor_that_is_down() {
    let mut desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let agreement = json!({"type": "recurring", "consent": {"by": "c-1", "at": "2026-01-01T00:00:00Z"}});
    desk.post(&format!("/v1/tokens/{token}/agreements"), "a-1", &agreement).await;
    let port = std::fs::read_to_string(desk.vault.beside("sandbox.port")).unwrap();
    desk.vault.stop_sandbox();
    let lines: Vec<_> = (0..5)
        .map(|n| json!({"token": token, "amount": 10, "currency": "USD", "invoice": format!("i-{n}"), "destination": "sandbox"}))
        .collect();
    let made = run(&desk, "r-1", "", &lines).await;
    let began = Instant::now();
    loop {
        let now = desk.get(&format!("/v1/invoice_runs/{}", word(&made, "id"))).await;
        if now["destinations"][0]["backing_off"] == true {
            break;
        }
        assert!(began.elapsed() < OVER_MAX, "{now}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    desk.vault.start_sandbox_at(port.trim().parse().unwrap());
    let over = until(&desk, &made, "finished").await;
    assert_eq!(over["outcomes"], json!({"approved": 5}), "{over}");
    assert_eq!(desk.ledger().len(), 5);
}

/// Another destination, where nobody listens yet.
fn asleep(config: String, port: u16) -> String {
    let sandbox = format!(
        "[destination.asleep]\nconnector = \"sandbox\"\nmode = \"test\"\nendpoint = \"https://127.0.0.1:{port}\"\n\
         trust = \"tls/ca.pem\"\ncredentials.secret_key = \"credentials/sandbox_secret_key\"\n"
    );
    config + &sandbox
}

#[tokio::test]
async fn a_destination_that_is_down_holds_up_no_other() {
    // A port that is free now; the sandbox's own is taken, so that it is another.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let desk = Desk::at(Vault::start_with(|config| asleep(config, port)));
    let token = desk.token("t-1", VISA).await;
    // More than are read ahead for one destination, then those of another.
    let lines: Vec<_> = (0..2_000)
        .map(|n| {
            let mut line = line(&token, &format!("i-{n}"), 10);
            if n < 1_990 {
                line["destination"] = "asleep".into();
            }
            line
        })
        .collect();
    let made = run(&desk, "r-1", "&concurrency=4", &lines).await;
    let began = Instant::now();
    let now = loop {
        let now = desk.get(&format!("/v1/invoice_runs/{}", word(&made, "id"))).await;
        if now["outcomes"]["approved"] == 10 {
            break now;
        }
        assert!(began.elapsed() < OVER_MAX, "{now}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(word(&now, "state"), "running", "{now}");
    for n in 1_990..2_000 {
        assert_eq!(desk.paid(&format!("i-{n}")).len(), 1, "i-{n}");
    }
}

#[tokio::test]
async fn a_run_leaves_a_processor_alone_for_as_long_as_it_asks() {
    let desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    // Our own first pause is a second; a date is cut to its second, so that of three more than two are left.
    for (said, least) in [(json!({"seconds": 3}), 3), (json!({"seconds": 3, "date": true}), 2)] {
        let name = |n: usize| format!("{least}-{n}");
        let lines: Vec<_> = (0..3).map(|n| line(&token, &name(n), 10)).collect();
        desk.script(&json!({"fault": "rate_limited", "count": 1, "charges": false, "retry_after": said}))
            .await;
        let began = Instant::now();
        let made = run(&desk, &name(0), "&concurrency=1", &lines).await;
        let over = until(&desk, &made, "finished").await;
        assert_eq!(over["outcomes"], json!({"approved": 3}), "{over}");
        assert!(began.elapsed() >= Duration::from_secs(least), "{said}: {:?}", began.elapsed());
        for n in 0..3 {
            assert_eq!(desk.paid(&name(n)).len(), 1, "{}", name(n));
        }
    }
}

#[tokio::test]
async fn a_run_slows_down_for_a_processor_that_has_too_much() {
    let desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let lines: Vec<_> = (0..12).map(|n| line(&token, &format!("i-{n}"), 10)).collect();
    desk.script(&json!({"fault": "rate_limited", "count": 2, "charges": false})).await;
    let made = run(&desk, "r-1", "&concurrency=2", &lines).await;
    let began = Instant::now();
    loop {
        let now = desk.get(&format!("/v1/invoice_runs/{}", word(&made, "id"))).await;
        let lane = &now["destinations"][0];
        if lane["backing_off"] == true {
            assert_eq!(lane["concurrency"], 1, "{now}");
            break;
        }
        assert!(began.elapsed() < OVER_MAX, "{now}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let over = until(&desk, &made, "finished").await;
    assert_eq!(over["outcomes"], json!({"approved": 12}), "{over}");
    for n in 0..12 {
        assert_eq!(desk.paid(&format!("i-{n}")).len(), 1, "i-{n}");
    }
}

/// A line that failed once, and whose card is gone when its turn comes again.
#[tokio::test]
async fn a_run_ends_whose_line_failed_and_then_cannot_be_charged_any_more() {
    let desk = Desk::open();
    let gone = desk.token("t-1", VISA).await;
    let token = desk.token("t-2", &behaving(1, 0)).await;
    desk.script(
        &json!({"fault": "rate_limited", "count": 1, "charges": false, "retry_after": {"seconds": 3}}),
    )
    .await;
    let lines = [line(&gone, "i-0", 10), line(&token, "i-1", 10), line(&token, "i-2", 10)];
    let made = run(&desk, "r-1", "&concurrency=1", &lines).await;
    let began = Instant::now();
    while desk.get("/v1/charges?invoice=i-0").await["data"][0]["status"] != "failed" {
        assert!(began.elapsed() < OVER_MAX);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let path = format!("/v1/tokens/{gone}");
    let erased = desk.client.request("DELETE", &path, &[], None).await.unwrap();
    assert!(erased.status < 300, "{}", text(&erased));
    let over = until(&desk, &made, "finished").await;
    assert_eq!(over["outcomes"], json!({"approved": 2, "failed": 1}), "{over}");
    let ended = results(&desk, &over).await;
    assert_eq!(
        verdicts(&ended),
        [("accepted", "failed"), ("accepted", "approved"), ("accepted", "approved")]
    );
    // Its invoice is nobody's.
    assert_eq!(desk.charge("k-0", &sale(&token, "i-0")).await.status, 201);
}

/// Lines that name no destination are counted where their route sends them; one that is not reached is left alone, and they go on.
#[tokio::test]
async fn a_run_leaves_a_destination_of_its_route_alone_that_is_down() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let route = "[[route]]\ncurrencies = [\"USD\"]\ndestinations = [\"asleep\", \"sandbox\"]\n";
    let desk = Desk::at(Vault::start_with(|config| asleep(config, port) + route));
    let token = desk.token("t-1", VISA).await;
    let lines: Vec<_> = (0..40)
        .map(|n| {
            let mut line = line(&token, &format!("i-{n}"), 10);
            line.as_object_mut().unwrap().remove("destination");
            line
        })
        .collect();
    let began = Instant::now();
    let made = run(&desk, "r-1", "&concurrency=2&rate=40", &lines).await;
    let backs_off = loop {
        let now = desk.get(&format!("/v1/invoice_runs/{}", word(&made, "id"))).await;
        let lanes = now["destinations"].as_array().unwrap().clone();
        if let Some(lane) = lanes.into_iter().find(|lane| lane["backing_off"] == true) {
            break lane;
        }
        assert!(began.elapsed() < OVER_MAX && now["state"] == "running", "{now}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((word(&backs_off, "destination"), &backs_off["concurrency"]), ("asleep", &json!(1)));
    let over = until(&desk, &made, "finished").await;
    assert_eq!(over["outcomes"], json!({"approved": 40}), "{over}");
    // Most were not tried there at all.
    let mut tried_there = 0;
    for n in 0..40 {
        assert_eq!(desk.paid(&format!("i-{n}")).len(), 1, "i-{n}");
        let charge = desk.get(&format!("/v1/charges?invoice=i-{n}")).await["data"][0].clone();
        tried_there += charge["attempts"].as_array().unwrap().len() - 1;
    }
    assert!((1..20).contains(&tried_there), "{tried_there}");
}
