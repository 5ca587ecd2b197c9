//! A payment processor to try everything against: the wire forms of Stripe, Adyen (JSON), Authorize.Net (XML and JSON)
//! and Worldpay (XML), and a plain JSON form, on one listener; each class of idempotency on a clock that can be moved,
//! money rules, faults at any byte of an answer, and a ledger that is durable before anything is answered.
//!
//! It runs as its own process and shares no code with what talks to processors (`connector`, `edge::charge`): a
//! mistake made twice would not show. How it behaves follows from the card number, by the table in `numbers.toml`.
//!
//! ```text
//! server ─► plain | stripe | adyen | ─► processor ─► book (keys) ─► ledger (file, fsync) ─► read_back
//!    │      authorize_net | worldpay                   ├─► decide (issuer, money rules) ─► numbers (the table)
//!    ├────► admin                                      ├─► faults (scripts, chance), rules (idempotency, lags)
//!    ◄─ way ◄─ reply (and what goes wrong)             ├─► outside (what nobody can learn)
//!                                                      └─► index (memory)
//! ```

mod admin;
mod adyen;
mod authorize_net;
mod book;
mod decide;
mod faults;
mod index;
mod ledger;
pub mod numbers;
mod outside;
mod plain;
mod processor;
mod read_back;
mod reply;
mod rules;
mod server;
mod stripe;
#[cfg(test)]
mod tests;
mod way;
mod worldpay;
mod xml;

pub use adyen::Webhooks;
pub use rules::{Class, Rules};
pub use server::{Server, Settings};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::tools::terminal::{complain, say};

/// A payment processor to try everything against.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where to listen; port 0 picks a free one. Anything but loopback needs a certificate.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Write the port here once it listens.
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
    /// The ledger: append-only NDJSON. Read at start, so that a restarted sandbox knows what it knew.
    #[arg(long, value_name = "FILE")]
    ledger: PathBuf,
    /// The API secret to accept; without it every credential is taken.
    #[arg(long, value_name = "FILE")]
    secret_key_file: Option<PathBuf>,
    /// Answer so many milliseconds after a request's last byte.
    #[arg(long, value_name = "N", default_value_t = 0)]
    processor_ms: u64,
    /// Look-ups by reference (Stripe's search too) do not see a payment for so many seconds of the sandbox's clock.
    #[arg(long, value_name = "N", default_value_t = 0)]
    search_lag_s: u32,
    /// What makes a repeated request harmless, in every wire form, instead of each form's own class.
    #[arg(long, value_name = "CLASS")]
    idempotency: Option<Class>,
    /// Keys expire after so many seconds of the sandbox's clock (a day; at Adyen 31).
    #[arg(long, value_name = "N")]
    key_ttl_s: Option<u32>,
    /// The same card, amount and invoice are refused for so many seconds of the sandbox's clock (at Authorize.Net 120).
    #[arg(long, value_name = "N")]
    duplicate_window_s: Option<u32>,
    /// Payments settle after so many seconds of the sandbox's clock (a day): Authorize.Net refunds only then.
    #[arg(long, value_name = "N")]
    settle_s: Option<u32>,
    /// Tell Adyen's webhooks to this URL: http, or https with --adyen-webhook-ca.
    #[arg(long, value_name = "URL", requires = "adyen_webhook_hmac_key_file")]
    adyen_webhook_url: Option<String>,
    /// The authority (PEM) that the webhooks' receiver is trusted by.
    #[arg(long, value_name = "FILE", requires = "adyen_webhook_url")]
    adyen_webhook_ca: Option<PathBuf>,
    /// The key, in hex, that Adyen's webhooks are signed with.
    #[arg(long, value_name = "FILE", requires = "adyen_webhook_url")]
    adyen_webhook_hmac_key_file: Option<PathBuf>,
    /// Certificate chain (PEM); plain HTTP without.
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// End when standard input closes: for a parent that may be killed.
    #[arg(long)]
    until_stdin_closes: bool,
}

/// Serves until SIGINT or SIGTERM.
pub fn run(args: Args) -> ExitCode {
    // One thread: a request is a few microseconds of work, and handing it between threads would cost more.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = runtime.and_then(|runtime| runtime.block_on(serve(args)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("sandbox: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> std::io::Result<()> {
    let secret = args.secret_key_file.map(std::fs::read_to_string).transpose()?;
    let settings = Settings {
        listen: args.listen,
        ledger: args.ledger,
        secret: secret.map(|secret| secret.trim().to_owned()),
        processor_ms: args.processor_ms,
        search_lag_s: i64::from(args.search_lag_s),
        tls: args.certificate.zip(args.key),
    };
    let rules = Rules {
        idempotency: args.idempotency,
        key_ttl_s: args.key_ttl_s,
        duplicate_window_s: args.duplicate_window_s,
        settle_s: args.settle_s,
        ..Rules::default()
    };
    let webhooks = match (args.adyen_webhook_url, args.adyen_webhook_hmac_key_file) {
        (Some(url), Some(key)) => Some(Webhooks::new(&url, args.adyen_webhook_ca.as_deref(), &key)?),
        (_, _) => None,
    };
    let server = Server::bind_with(&settings, rules, webhooks).await?;
    let closed = stdin_closes(args.until_stdin_closes);
    let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    if let Some(file) = args.port_file {
        write_port(&file, server.address()?.port())?;
    }
    say(&format!("sandbox listening on {}", server.url()?));
    tokio::select! {
        () = server.serve() => {}
        _ = end.recv() => {}
        () = closed => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

/// Ends when standard input does; never, if that is not asked for.
async fn stdin_closes(is_asked: bool) {
    let (told, closed) = tokio::sync::oneshot::channel::<()>();
    if !is_asked {
        return std::future::pending().await;
    }
    // A thread, as a read of standard input cannot be given up; it goes with the process.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(told);
    });
    let _ = closed.await;
}

/// Whole or not at all, so that who waits for the file never reads half a number.
fn write_port(file: &std::path::Path, port: u16) -> std::io::Result<()> {
    let part = file.with_extension("part");
    std::fs::write(&part, format!("{port}\n"))?;
    std::fs::rename(part, file)
}
