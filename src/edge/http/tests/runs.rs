//! A run's stream that is cut, at every byte: what had arrived is kept, and the same stream sent again ends as the whole would have.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::Method;
use hyper::body::Frame;
use serde_json::{Value, json};

use super::{Got, Vault, card};
use crate::edge::charge::{runs, tests};

const LINES: usize = 10;
const QUERY: &str = "lines=10&sum=USD:55&validate_only=true";

/// A body that breaks off after some bytes, or ends properly.
struct Broken {
    pieces: Vec<Bytes>,
    breaks: bool,
}

impl HttpBody for Broken {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Poll::Ready(match self.pieces.pop() {
            Some(piece) => Some(Ok(Frame::data(piece))),
            None if self.breaks => Some(Err(std::io::ErrorKind::ConnectionReset.into())),
            None => None,
        })
    }
}

async fn token(vault: &Vault) -> String {
    vault.app.directory.set_destinations(vec![tests::destination()]);
    vault.create("billing", "t-1", &card("4242424242424242", "")).await.id()
}

fn lines(token: &str) -> Vec<u8> {
    let line = |n: usize| {
        let line = json!({
            "token": token, "amount": n, "currency": "USD", "invoice": format!("i-{n}"), "initiator": "customer",
        });
        format!("{line}\n")
    };
    (1..=LINES).map(line).collect::<String>().into_bytes()
}

async fn send(vault: &Vault, key: &str, query: &str, bytes: &[u8], breaks: bool) -> Got {
    let mut ask = vault.ask("billing", Method::POST, &format!("/v1/invoice_runs?{query}"));
    let mut pieces: Vec<_> = bytes.chunks(100).map(Bytes::copy_from_slice).collect();
    pieces.reverse();
    ask.body = Body::new(Broken { pieces, breaks });
    ask.key(key).header("content-type", "application/x-ndjson").send().await
}

async fn run(vault: &Vault) -> Value {
    vault.get("person", "/v1/invoice_runs?limit=1").await.body["data"][0].clone()
}

#[tokio::test]
async fn an_upload_that_is_cut_anywhere_goes_on() {
    let vault = Vault::start().await;
    let body = lines(&token(&vault).await);
    for at in (0..body.len()).step_by(97).chain([body.len()]) {
        let key = format!("k-{at}");
        vault.clock.advance_seconds(1);
        let got = send(&vault, &key, QUERY, &body[..at], true).await;
        assert_eq!(got.code(), (408, "upload_cut"), "{at}");
        let cut = run(&vault).await;
        let whole = body[..at].iter().filter(|byte| **byte == b'\n').count();
        assert_eq!((&cut["state"], &cut["arrived"]["lines"]), (&json!("uploading"), &json!(whole)), "{at}");
        let got = send(&vault, &key, QUERY, &body, false).await;
        assert_eq!((got.status, &got.body["state"]), (201, &json!("finished")), "{at}: {}", got.text);
        assert_eq!((&got.body["id"], &got.body["verdicts"]["accepted"]), (&cut["id"], &json!(LINES)));
    }
    let id = run(&vault).await["id"].as_str().unwrap().to_owned();
    let results = vault.get("billing", &format!("/v1/invoice_runs/{id}/results")).await;
    assert_eq!(results.text.lines().count(), LINES);
    let csv = vault.get("billing", &format!("/v1/invoice_runs/{id}/results?format=csv&from_line=4")).await;
    assert_eq!(csv.text.lines().count(), LINES - 3 + 1);
}

#[tokio::test]
async fn a_cut_upload_goes_on_with_the_same_lines_only() {
    let vault = Vault::start().await;
    let body = lines(&token(&vault).await);
    let cut = body.len() / 2;
    assert_eq!(send(&vault, "k", QUERY, &body[..cut], true).await.code(), (408, "upload_cut"));
    let other = String::from_utf8(body.clone()).unwrap().replace("i-2", "i-x").into_bytes();
    assert_eq!(send(&vault, "k", QUERY, &other, false).await.code(), (422, "upload_differs"));
    let options = QUERY.replace("55", "56");
    assert_eq!(send(&vault, "k", &options, &body, false).await.code(), (422, "idempotency_key_reused"));
    let line = body.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    // Fewer lines than had arrived are not the stream that was declared either.
    assert_eq!(send(&vault, "k", QUERY, &body[..line], false).await.code(), (422, "run_totals"));
    assert_eq!(run(&vault).await["state"], "rejected");
    let path = format!("/v1/invoice_runs/{}/results", run(&vault).await["id"].as_str().unwrap());
    assert_eq!(vault.get("person", &path).await.status, 200);
    let actions = vault.actions().await;
    for action in ["run.created", "run.lines", "run.rejected", "run.read"] {
        assert!(actions.iter().any(|one| one == action), "{action}");
    }
}

/// What is sent is more than may ever be in memory; a line without an end is one fault.
#[tokio::test]
async fn a_line_without_an_end_is_one_invalid_line() {
    let vault = Vault::start().await;
    let mut body = lines(&token(&vault).await);
    body.extend(std::iter::repeat_n(b'x', 1 << 20));
    let got = send(&vault, "k", &QUERY.replace("lines=10", "lines=11"), &body, false).await;
    assert_eq!((got.status, &got.body["verdicts"]["invalid"]), (201, &json!(1)), "{}", got.text);
}

#[tokio::test]
async fn an_upload_that_nobody_takes_up_expires_and_frees_its_invoices() {
    let vault = Vault::start().await;
    let body = lines(&token(&vault).await);
    let query = "lines=10&sum=USD:55";
    assert_eq!(send(&vault, "k", query, &body[..body.len() / 2], true).await.code(), (408, "upload_cut"));
    let again = async |key: &str| {
        let query = format!("{query}&validate_only=true");
        send(&vault, key, &query, &body, false).await.body["verdicts"]["in_flight"].clone()
    };
    vault.clock.advance_seconds(3_599);
    runs::expire(&vault.app).await.unwrap();
    assert_eq!(again("a").await, json!(5));
    vault.clock.advance_seconds(1);
    runs::expire(&vault.app).await.unwrap();
    let began = std::time::Instant::now();
    for n in 0.. {
        if again(&format!("b-{n}")).await == json!(0) {
            break;
        }
        assert!(began.elapsed().as_secs() < 30);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let got = send(&vault, "k", query, &body, false).await;
    assert_eq!((got.status, &got.body["state"]), (201, &json!("expired")));
    assert!(vault.actions().await.iter().any(|action| action == "run.expired"));
}
