//! No card number, verification code or zip stays where it does not belong. Every route is driven with good and bad bodies, each
//! with a number of its own; then answers, logs at TRACE, metrics, audit log, every file of the installation and the memory of
//! every process are searched for all of them, in every form in which software is known to leave them behind.

#![cfg(test)]

#[expect(dead_code, reason = "the tests of the API use the rest")]
mod common;

#[path = "common/adyen.rs"]
mod adyen;
#[path = "leaks/disk.rs"]
mod disk;
#[path = "leaks/forwards.rs"]
mod forwards;
#[path = "leaks/keys.rs"]
mod keys;
#[path = "leaks/lines.rs"]
mod lines;
#[path = "leaks/processors.rs"]
mod processors;
#[path = "webhooks/receiver.rs"]
#[expect(dead_code, reason = "the tests of webhooks use the rest")]
mod receiver;
#[path = "leaks/seeker.rs"]
mod seeker;
#[path = "leaks/told.rs"]
mod told;

use std::time::{Duration, Instant};

use cardvault::card::tenant::Mode;
use cardvault::tools::client::{Answer, Client};
use serde_json::json;

use common::{BILLING, Vault, events, numbers, order, store, text};
use seeker::{Found, Seeker, seek_processes};

const CHARGES: [&str; 7] = [
    "charges:create",
    "charges:read",
    "charges:capture",
    "charges:refund",
    "forwards:create",
    "webhooks:read",
    "webhooks:manage",
];
/// Four digits, and in quotation marks: three alone would be found anywhere.
const CODE: &str = "7394";
const ZIP: &str = "QX7-ZKW9";
/// A word that every process but forwarder and courier is told, and one that each of them is: a search that misses them is none.
const TENANT: &str = "acme-the-tenant";
const DESTINATION: &str = "stripe_sandbox";
const TRUST: &str = "-----BEGIN CERTIFICATE";

/// The keeper holds rendered bytes and codes for five seconds at most, and looks for what is older every second (contracts.md).
const HELD_MAX: Duration = Duration::from_millis(6_500);

/// Numbers that were sent, each for one case; a hit is told by its case, never by its number.
#[derive(Default)]
struct Canaries {
    numbers: Vec<String>,
    cases: Vec<String>,
    /// What was sent of numbers that were cut in the middle.
    halves: Vec<String>,
}

impl Canaries {
    /// A number of test mode with this suffix (see the sandbox's table), for this case.
    fn make(&mut self, case: &str, suffix: u16) -> String {
        let number = numbers::complete(&format!("468738{:06}{suffix:03}", 713_594 + 37 * self.numbers.len()));
        self.keep(case, number)
    }

    fn keep(&mut self, case: &str, number: String) -> String {
        self.numbers.push(number.clone());
        self.cases.push(case.to_owned());
        number
    }
}

/// All that came back: heads and bodies.
#[derive(Default)]
struct Answers(Vec<u8>);

impl Answers {
    /// Sends bytes as a body and keeps what comes back; the status must be the one that is expected.
    async fn ask(
        &mut self,
        client: &Client,
        line: (&str, &str),
        head: &[(&str, &str)],
        body: &str,
        status: u16,
    ) {
        let answer = client.request(line.0, line.1, head, body.as_bytes()).await.unwrap();
        assert_eq!(answer.status, status, "{}: {}", line.0, text(&answer));
        self.take(&answer);
    }

    fn take(&mut self, answer: &Answer) {
        self.0.extend_from_slice(format!("{:?}", answer.headers).as_bytes());
        self.0.extend_from_slice(&answer.body);
    }
}

fn body(number: &str) -> String {
    format!(
        r#"{{"card":{{"number":"{number}","exp_month":12,"exp_year":2030}},"billing":{{"zip":"{ZIP}"}},"customer":"c-1"}}"#
    )
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// Bodies, good and bad.
async fn drive_tokens(client: &Client, canaries: &mut Canaries, answers: &mut Answers) {
    let wrong = |number: &str| {
        let (rest, last) = number.split_at(number.len() - 1);
        format!("{rest}{}", (last.parse::<u8>().unwrap() + 1) % 10)
    };
    for (n, (case, edit, status)) in [
        ("good", &(|b: String, _: &str| b) as &dyn Fn(String, &str) -> String, 201),
        ("cut", &|b, _| b[..b.len() - 5].to_owned(), 400),
        ("trailing", &|b, n| format!("{b}{n}"), 400),
        ("number as a number", &|b, n| b.replace(&format!("\"{n}\""), n), 422),
        ("number as a key", &|b, n| b.replace("\"customer\"", &format!("\"{n}\"")), 422),
        ("number as a month", &|b, n| b.replace("12", n), 422),
        ("number as a word", &|b, n| b.replace("\"c-1\"", &format!("\"c-1\",\"on_duplicate\":\"{n}\"")), 422),
        ("twice", &|b, n| b.replace("\"number\"", &format!("\"number\":\"{n}\",\"number\"")), 422),
        ("in an array", &|_, n| format!("[\"{n}\"]"), 422),
        ("check digit", &|b, n| b.replace(n, &wrong(n)), 422),
        ("expired", &|b, _| b.replace("2030", "2020"), 422),
        ("customer", &|b, n| b.replace("c-1", n), 422),
        ("metadata", &|b, n| b.replace("\"c-1\"", &format!("\"c-1\",\"metadata\":{{\"a\":\"x {n}\"}}")), 422),
        ("zip", &|b, n| b.replace(ZIP, n), 422),
        ("code", &|b, _| b.replace("\"number\"", &format!("\"cvc\":\"{CODE}\",\"number\"")), 422),
        ("escaped", &|b, n| b.replace(n, &format!("\\u0034{}", &n[1..])), 201),
        // What makes HTTP's own buffer grow, and then a small one in the large buffer.
        ("padded", &|b, _| format!("{}{b}", " ".repeat(12 << 10)), 201),
        ("behind the padded", &|b, _| b, 201),
        ("behind that", &|b, _| b, 201),
        ("oversized", &|b, _| format!("{b}{}", " ".repeat(17 << 10)), 413),
    ]
    .into_iter()
    .enumerate()
    {
        let number = canaries.make(case, 0);
        if case == "check digit" {
            canaries.keep(case, wrong(&number));
        }
        let key = format!("body-{n}");
        let head = [JSON, ("idempotency-key", key.as_str())];
        let sent = edit(body(&number), &number);
        answers.ask(client, ("POST", "/v1/tokens"), &head, &sent, status).await;
        // Once more: as a replay, or as the same refusal.
        answers.ask(client, ("POST", "/v1/tokens"), &head, &sent, status).await;
    }
    drive_heads(client, canaries, answers).await;
}

/// Numbers in heads, paths and queries, and a card's whole life.
async fn drive_heads(client: &Client, canaries: &mut Canaries, answers: &mut Answers) {
    let n = canaries.make("content type", 0);
    let head = [("content-type", "text/plain"), ("idempotency-key", "k")];
    answers.ask(client, ("POST", "/v1/tokens"), &head, &body(&n), 415).await;
    let n = canaries.make("key", 0);
    answers.ask(client, ("POST", "/v1/tokens"), &[JSON, ("idempotency-key", &n)], &body(&n), 422).await;
    let n = canaries.make("request id", 0);
    let head = [JSON, ("idempotency-key", "k"), ("request-id", n.as_str())];
    answers.ask(client, ("POST", "/v1/tokens"), &head, &body(&n), 422).await;
    let n = canaries.make("other head", 0);
    let head = [("x-card", n.as_str()), ("user-agent", n.as_str()), ("cookie", n.as_str())];
    answers.ask(client, ("GET", "/v1/tokens?customer=c-1"), &head, "", 200).await;
    let n = canaries.make("credential", 0);
    let head = [("authorization", n.as_str())];
    answers.ask(client, ("GET", "/v1/tokens?customer=c-1"), &head, "", 401).await;
    for (case, path, status) in [
        ("path", "/v1/tokens/N", 422),
        ("longer path", "/v1/N/x", 422),
        ("query", "/v1/tokens?customer=N", 422),
        ("query name", "/v1/tokens?N=1", 400),
        ("words of a query", "/v1/tokens?customer=x%20N", 200),
    ] {
        let n = canaries.make(case, 0);
        answers.ask(client, ("GET", &path.replace('N', &n)), &[], "", status).await;
    }
    let n = canaries.make("change", 0);
    let id = store(client, "changed", &serde_json::from_str(&body(&n)).unwrap()).await["id"].clone();
    let path = format!("/v1/tokens/{}", id.as_str().unwrap());
    let n = canaries.make("changed to", 0);
    let change = format!(r#"{{"card":{{"number":"{n}"}}}}"#);
    answers.ask(client, ("PATCH", &path), &[JSON], &change, 200).await;
    answers.ask(client, ("GET", &path), &[], "", 200).await;
    answers.ask(client, ("DELETE", &path), &[], "", 200).await;
    answers.ask(client, ("GET", &path), &[], "", 410).await;
}

/// Charges that say a number where none belongs.
async fn drive_wrong_charges(client: &Client, canaries: &mut Canaries, answers: &mut Answers) {
    let number = canaries.make("charge with a number", 0);
    for charge in [
        json!({"token": number, "amount": 1, "currency": "USD", "invoice": "a", "initiator": "customer"}),
        json!({"token": "tok_x", "amount": 1, "currency": "USD", "invoice": number, "initiator": "customer"}),
        json!({"token": "tok_x", "amount": number, "currency": number, "invoice": "a", "initiator": number}),
        json!({"token": "tok_x", "amount": 1, "currency": "USD", "invoice": "a", "initiator": "customer", "cvc": CODE, "cvv": CODE}),
    ] {
        let answer = client.post("/v1/charges", "wrong", &charge).await.unwrap();
        assert!((400..500).contains(&answer.status), "{}", text(&answer));
        answers.0.extend_from_slice(&answer.body);
    }
}

/// The routes beside, each with a number where none belongs, and a verification with a code.
async fn drive_the_rest(client: &Client, canaries: &mut Canaries, answers: &mut Answers) {
    let number = canaries.make("verified", 0);
    let stored = store(client, "verified", &serde_json::from_str(&body(&number)).unwrap()).await;
    let token = stored["id"].as_str().unwrap();
    let verify = json!({"token": token, "destination": "sandbox", "cvc": CODE});
    let verified = client.post("/v1/verifications", "verify", &verify).await.unwrap();
    assert_eq!(verified.status, 201, "{}", text(&verified));
    answers.0.extend_from_slice(&verified.body);
    for (case, path, sent) in [
        (
            "agreement",
            "/v1/tokens/TOKEN/agreements",
            r##"{"type":"recurring","consent":{"by":"#","at":"2026-11-22T00:00:00Z"}}"##,
        ),
        ("kind of agreement", "/v1/tokens/TOKEN/agreements", r##"{"type":"#"}"##),
        ("agreement's end", "/v1/tokens/TOKEN/agreements/#/end", "{}"),
        ("capture", "/v1/charges/#/captures", r##"{"amount":1}"##),
        ("amount of a capture", "/v1/charges/ch_x/captures", r##"{"amount":#}"##),
        ("refund", "/v1/charges/ch_x/refunds", r##"{"#":1}"##),
        ("void", "/v1/charges/ch_x/void", r##"{"#":1}"##),
        ("verification", "/v1/verifications", r##"{"token":"TOKEN","destination":"#","cvc":"7394"}"##),
    ] {
        let number = canaries.make(case, 0);
        let fill = |text: &str| text.replace("TOKEN", token).replace('#', &number);
        let head = [JSON, ("idempotency-key", "rest")];
        let answer = client.request("POST", &fill(path), &head, fill(sent).as_bytes()).await.unwrap();
        assert!((400..500).contains(&answer.status), "{case}: {}", text(&answer));
        answers.0.extend_from_slice(&answer.body);
    }
    for path in
        ["/v1/charges?customer=x%20#", "/v1/refunds?status=#", "/v1/audit/proofs/#", "/openapi.json?x=#"]
    {
        let number = canaries.make("query of the rest", 0);
        let answer = client.get(&path.replace('#', &number)).await.unwrap();
        answers.0.extend_from_slice(&answer.body);
    }
}

/// Invoice runs with a number where none belongs: what can be read of the other lines is said, and of that one nothing but its fault.
async fn drive_runs(client: &Client, canaries: &mut Canaries, answers: &mut Answers) {
    let good = r#""token":"tok_00000000v00000000v00000000v00000","currency":"USD","invoice":"#;
    let head = "invoice,token,amount,currency,metadata.a\n";
    for (case, kind, query, sent) in [
        ("amount", "application/x-ndjson", "sum=USD:1", format!("{{{good}\"i\",\"amount\":#}}")),
        ("invoice", "application/x-ndjson", "sum=USD:1", format!("{{{good}\"#\",\"amount\":1}}")),
        ("name", "application/x-ndjson", "sum=USD:1", format!("{{{good}\"i\",\"amount\":1,\"#\":1}}")),
        (
            "text",
            "application/x-ndjson",
            "sum=USD:1",
            format!("{{{good}\"i\",\"amount\":1,\"description\":\"#\"}}"),
        ),
        (
            "token",
            "application/x-ndjson",
            "sum=USD:1",
            r##"{"token":"#","amount":1,"currency":"USD","invoice":"i"}"##.to_owned(),
        ),
        ("no JSON", "application/x-ndjson", "sum=USD:1", "#".to_owned()),
        ("header", "text/csv", "sum=USD:1", "invoice,token,amount,currency,metadata.#\n".to_owned()),
        ("cells", "text/csv", "sum=USD:1", format!("{head}#,#,1,USD,#")),
        ("amount of a cell", "text/csv", "sum=USD:1", format!("{head}i,tok_x,#,USD,")),
        ("sum", "text/csv", "sum=USD:#", head.to_owned()),
    ] {
        let number = canaries.make(case, 0);
        let path = format!("/v1/invoice_runs?lines=1&validate_only=true&{query}").replace('#', &number);
        let key = format!("run-{}", case.replace(' ', "-"));
        let head = [("content-type", kind), ("idempotency-key", key.as_str())];
        let answer =
            client.request("POST", &path, &head, sent.replace('#', &number).as_bytes()).await.unwrap();
        assert!(matches!(answer.status, 201 | 400 | 422), "{case}: {}", text(&answer));
        answers.take(&answer);
        if let Some(id) = answer.json()["id"].as_str() {
            let path = format!("/v1/invoice_runs/{id}/results");
            answers.ask(client, ("GET", &path), &[], "", 200).await;
        }
    }
    for path in ["/v1/invoice_runs/#", "/v1/invoice_runs/run_#/results", "/v1/invoice_runs?starting_after=#"]
    {
        let number = canaries.make("query of runs", 0);
        answers.take(&client.get(&path.replace('#', &number)).await.unwrap());
    }
}

/// All that may have been left, but for the memory: answers, logs, metrics, the audit log, every file.
fn seek_what_was_written(vault: &Vault, seeker: &Seeker, answers: &Answers, found: &mut Found) {
    seeker.seek("answers", &answers.0, found);
    seeker.seek("log", vault.log().as_bytes(), found);
    seeker.seek("metrics", vault.plain("/metrics").as_bytes(), found);
    for directory in [vault.path(""), vault.data()] {
        let files = seeker.search.in_directory(&directory).unwrap();
        assert!(files.files > 0 && files.bytes > 20_000);
        for (path, hit) in files.hits {
            found.entry(path.display().to_string()).or_default().push(seeker.cases[hit.number].clone());
        }
    }
    assert!(!vault.log().contains(ZIP));
}

/// In edge and supervisor nothing is left once a request is answered. Keeper and forwarder have a card while it is being sent, and the
/// keeper holds what was rendered or a code for at most `HELD_MAX`: once that is over nothing is left there either, on no stack and in
/// no buffer, whether the connections to callers and processors are still open or not.
#[tokio::test]
async fn no_number_code_or_zip_is_left_anywhere() {
    let mut vault = Vault::make(|config| {
        format!(
            "{config}\n[log]\nlevel = \"trace\"\n[limits]\nheader_seconds_max = 5\nbody_seconds_max = 3\n"
        )
    });
    processors::add_destinations(&vault);
    forwards::add_destination(&vault);
    let receiver = told::add(&vault);
    vault.serve();
    vault.tenant(TENANT, Mode::Test);
    let scopes: Vec<&str> = BILLING.into_iter().chain(CHARGES).collect();
    let credential = vault.principal(order("billing", Some(TENANT), &scopes));
    let client = vault.client(&credential);
    let assessor = vault.assessor();
    let (mut canaries, mut answers) = (Canaries::default(), Answers::default());
    let endpoint = told::drive_endpoints(&client, &receiver, &mut canaries, &mut answers).await;
    drive_tokens(&client, &mut canaries, &mut answers).await;
    processors::drive_charges(&client, &mut canaries, &mut answers).await;
    processors::drive_updates(&client, &mut canaries, &mut answers).await;
    forwards::drive_forwards(&client, &mut canaries, &mut answers).await;
    drive_wrong_charges(&client, &mut canaries, &mut answers).await;
    drive_the_rest(&client, &mut canaries, &mut answers).await;
    drive_runs(&client, &mut canaries, &mut answers).await;
    lines::drive_lines(&vault, &credential, &mut canaries, &mut answers);
    // The connections of before were closed while those were silent.
    let client = vault.client(&credential);
    processors::drive_last_answer(&client, &mut canaries, &mut answers).await;
    told::drive_processor(&client, &mut canaries, &mut answers).await;
    let last_card = Instant::now();
    let told = told::all_that_was_told(&client, &receiver, &endpoint).await;
    let seeker = Seeker::new(&canaries);
    let log_of_events = serde_json::to_vec(&events(&assessor).await).unwrap();
    let mut found = Found::new();
    seeker.seek("webhooks", &told, &mut found);
    seek_processes(&vault, &seeker, &["edge", "supervisor", "courier"], "open connections", &mut found);
    // A search takes long on a busy machine, and a connection that is silent as long is closed: each has connections of its own.
    processors::wait_until_nothing_is_sent(&vault.client(&credential)).await;
    tokio::time::sleep(HELD_MAX.saturating_sub(last_card.elapsed())).await;
    seek_processes(&vault, &seeker, &["keeper", "forwarder"], "open connections", &mut found);
    drop((client, assessor));
    // The ends of the connections have arrived.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let all = ["edge", "supervisor", "keeper", "forwarder", "courier"];
    seek_processes(&vault, &seeker, &all, "closed connections", &mut found);
    seeker.seek("audit log", &log_of_events, &mut found);
    seek_what_was_written(&vault, &seeker, &answers, &mut found);
    finds_what_is_there(&seeker, &canaries);
    assert!(found.is_empty(), "{found:#?}");
}

/// The search itself finds what is there.
fn finds_what_is_there(seeker: &Seeker, canaries: &Canaries) {
    let mut there = Found::new();
    seeker.seek(
        "here",
        format!("{} {ZIP} {}", canaries.numbers[0], canaries.halves.join(" ")).as_bytes(),
        &mut there,
    );
    assert_eq!(there["here"].len(), 2 + canaries.halves.len());
}

/// What is refused for want of room leaves nothing either: not while the disk is full, and not once there is room and all of it is
/// asked again.
#[tokio::test]
async fn no_number_code_or_zip_is_left_where_the_disk_is_full() {
    let trace = |config| format!("{config}\n[log]\nlevel = \"trace\"\n");
    let Some(vault) = Vault::start_on_disk(disk::DISK_KIB, trace) else { return };
    vault.tenant(TENANT, Mode::Test);
    let scopes: Vec<&str> = BILLING.into_iter().chain(CHARGES).collect();
    let (client, assessor) = (vault.application("billing", TENANT, &scopes), vault.assessor());
    let (mut canaries, mut answers) = (Canaries::default(), Answers::default());
    let full = disk::fill(&vault, &client, &mut canaries, &mut answers).await;
    let last_card = Instant::now();
    full.read_until_refused(&client, &mut answers).await;
    let (seeker, mut found) = (Seeker::new(&canaries), Found::new());
    seek_processes(&vault, &seeker, &["edge", "supervisor"], "a full disk", &mut found);
    tokio::time::sleep(HELD_MAX.saturating_sub(last_card.elapsed())).await;
    seek_processes(&vault, &seeker, &["keeper", "forwarder"], "a full disk", &mut found);
    seek_what_was_written(&vault, &seeker, &answers, &mut found);

    full.make_room(&vault, &client, &mut answers).await;
    let last_card = Instant::now();
    let log_of_events = serde_json::to_vec(&events(&assessor).await).unwrap();
    drop((client, assessor));
    tokio::time::sleep(HELD_MAX.saturating_sub(last_card.elapsed())).await;
    let all = ["edge", "supervisor", "keeper", "forwarder"];
    seek_processes(&vault, &seeker, &all, "room again", &mut found);
    seeker.seek("audit log", &log_of_events, &mut found);
    seek_what_was_written(&vault, &seeker, &answers, &mut found);
    finds_what_is_there(&seeker, &canaries);
    assert!(found.is_empty(), "{found:#?}");
}
