//! The bare floor: the edge's own listener, TLS and router around a handler that reads its JSON body and answers JSON of the size
//! of a real answer, and does nothing. What is measured against it is the vault, not HTTP.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::edge::http::listener::Serving;
use crate::edge::http::reply;
use crate::edge::http::tls::Tls;
use crate::edge::metrics::Metrics;
use crate::tools::terminal::say;
use crate::wire::control::Limits;

/// As many as the edge has.
const WORKERS: usize = 2;

/// What the floor is told.
#[derive(Debug, clap::Args)]
pub struct FloorArgs {
    /// Certificate chain (PEM)
    #[arg(long)]
    certificate: PathBuf,
    /// The certificate's private key (PEM)
    #[arg(long)]
    key: PathBuf,
}

/// Serves until standard input closes; its address is the one line it prints.
pub(super) fn run(args: &FloorArgs) -> Result<(), String> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).map_err(|_| "certificate or key cannot be read".to_owned())
    };
    let tls = Tls::new(&read(&args.certificate)?, &read(&args.key)?).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|_| "no runtime could be made".to_owned())?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.map_err(|_| "the floor cannot listen".to_owned())?;
        let address = listener.local_addr().map_err(|_| "the floor has no address".to_owned())?;
        let (stop, stopped) = watch::channel(false);
        std::thread::spawn(move || {
            // An end or an error: either way nobody is there any more.
            let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
            let _ = stop.send(true);
        });
        say(&address.to_string());
        let limits = Limits { drain_seconds_max: 1, ..Limits::default() };
        let metrics = Arc::new(Metrics::new());
        Serving { listener, router: router(), tls: Some(Arc::new(tls)), limits, metrics }.run(stopped).await;
        Ok(())
    })
}

fn router() -> Router {
    Router::new()
        .route("/v1/tokens", post(token))
        .route("/v1/tokens/{token}", get(shown))
        .route("/v1/charges", post(charge))
}

async fn token(body: Bytes) -> Response {
    answer::<Submitted>(&body)
}

async fn charge(body: Bytes) -> Response {
    answer::<Charged>(&body)
}

async fn shown() -> Response {
    reply::json(StatusCode::OK, &Shown::default())
}

fn answer<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Response {
    match serde_json::from_slice::<T>(body) {
        Ok(_) => reply::json(StatusCode::CREATED, &Shown::default()),
        Err(_) => reply::text("text/plain", "not JSON"),
    }
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only its reading takes time")]
struct Submitted {
    card: SubmittedCard,
    billing: BTreeMap<String, String>,
    customer: String,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only its reading takes time")]
struct SubmittedCard {
    number: String,
    exp_month: u8,
    exp_year: u16,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only its reading takes time")]
struct Charged {
    token: String,
    amount: i64,
    currency: String,
    destination: String,
    initiator: String,
    capture: bool,
    invoice: String,
}

/// As long as the answer about a card.
#[derive(Serialize)]
struct Shown {
    id: &'static str,
    card: ShownCard,
    fingerprint: &'static str,
    customer: &'static str,
    metadata: BTreeMap<String, String>,
    version: u32,
    status: &'static str,
    created_at: &'static str,
    updated_at: &'static str,
}

#[derive(Serialize)]
struct ShownCard {
    brand: &'static str,
    first6: &'static str,
    last4: &'static str,
    exp_month: u8,
    exp_year: u16,
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            id: "tok_0000000000000000000000000000000000",
            card: ShownCard { brand: "visa", first6: "000000", last4: "0000", exp_month: 12, exp_year: 2030 },
            fingerprint: "fp_0000000000000000000000000000000000",
            customer: "customer-0000000000",
            metadata: BTreeMap::new(),
            version: 1,
            status: "active",
            created_at: "2026-01-01T00:00:00.000000Z",
            updated_at: "2026-01-01T00:00:00.000000Z",
        }
    }
}
