//! `cardvault bench connectors`: what rendering a sale and mapping its answer cost in each shipped connector, in this process alone.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::connector::{
    Amount, Billing, Card, Connector, EndpointParts, Initiator, Operation, Previous, Reason, SendMoment,
    StoredCredential, ThreeDSecure, Use, Values, Word, builtin,
};
use crate::tools::terminal::say;

/// For each connector the largest of our samples of what its processor answers to a sale or an authorization.
const ANSWERS: [&str; 16] = [
    include_str!("../../../tests/vectors/connector/adyen_authorised.json"),
    include_str!("../../../tests/vectors/connector/authorize_net_json_partial.json"),
    include_str!("../../../tests/vectors/connector/authorize_net_partial.json"),
    include_str!("../../../tests/vectors/connector/bluesnap_sale_approved.json"),
    include_str!("../../../tests/vectors/connector/braintree_charged.json"),
    include_str!("../../../tests/vectors/connector/checkout_authorized_in_part.json"),
    include_str!("../../../tests/vectors/connector/cybersource_authorized.json"),
    include_str!("../../../tests/vectors/connector/elavon_sale_approved.json"),
    include_str!("../../../tests/vectors/connector/nmi_sale_approved.json"),
    include_str!("../../../tests/vectors/connector/orbital_partial.json"),
    include_str!("../../../tests/vectors/connector/payflow_sale_replayed.json"),
    include_str!("../../../tests/vectors/connector/paypal_authorized.json"),
    include_str!("../../../tests/vectors/connector/sandbox_declined_hard_by_advice.json"),
    include_str!("../../../tests/vectors/connector/stripe_declined_insufficient_funds.json"),
    include_str!("../../../tests/vectors/connector/vantiv_sale.json"),
    include_str!("../../../tests/vectors/connector/worldpay_authorised.json"),
];
/// Each is done so often before it counts, and then for so long or so often.
const WARM_UP: u32 = 50;
const MEASURED: Duration = Duration::from_millis(100);
const TIMES_MAX: usize = 20_000;

/// How it is shown.
#[derive(Clone, Debug, clap::Args)]
pub struct ConnectorOptions {
    /// Print the figures as one JSON object on the last line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Figures {
    op: &'static str,
    /// The connector for which both together took longest.
    slowest: String,
    slowest_us: f64,
    connectors: Vec<Figure>,
}

/// One connector's figures; times are medians.
#[derive(Serialize)]
struct Figure {
    connector: String,
    /// Steps and their bodies counted in.
    request_bytes: usize,
    render_us: f64,
    answer_bytes: usize,
    map_us: f64,
    both_us: f64,
}

/// Measures each connector and prints what came out.
pub(super) fn run(options: &ConnectorOptions) -> Result<(), String> {
    let figures = ANSWERS.iter().map(|text| measure(text)).collect::<Result<Vec<_>, String>>()?;
    say("connector           request   render    answer      map     both");
    for figure in &figures {
        say(&format!(
            "{:<18} {:>6} B {:>5.1} µs {:>7} B {:>5.1} µs {:>5.1} µs",
            figure.connector,
            figure.request_bytes,
            figure.render_us,
            figure.answer_bytes,
            figure.map_us,
            figure.both_us
        ));
    }
    let slowest = figures.iter().max_by(|a, b| a.both_us.total_cmp(&b.both_us)).ok_or("no connector")?;
    let (name, slowest_us) = (slowest.connector.clone(), slowest.both_us);
    say(&format!("the slowest is {name} with {slowest_us:.1} µs for both"));
    if options.json {
        let all = Figures { op: "connectors", slowest: name, slowest_us, connectors: figures };
        say(&serde_json::to_string(&all).map_err(|_| "the figures cannot be written")?);
    }
    Ok(())
}

fn measure(sample: &str) -> Result<Figure, String> {
    let broken = || "a sample cannot be read".to_owned();
    let sample: Value = serde_json::from_str(sample).map_err(|_| broken())?;
    let text = |key: &str| sample.get(key).and_then(Value::as_str);
    let name = text("connector").ok_or_else(broken)?;
    let connector = builtin(name).ok_or_else(broken)?;
    let operation = text("operation").and_then(Operation::parse).ok_or_else(broken)?;
    let status = sample.get("http_status").and_then(Value::as_u64).and_then(|status| status.try_into().ok());
    let status: u16 = status.ok_or_else(broken)?;
    let body = match sample.get("body") {
        Some(Value::String(body)) => body.clone(),
        Some(body) => body.to_string(),
        None => return Err(broken()),
    };
    // No secret: as long as one, and in the form that a key must have.
    let credentials: Vec<(&str, &str)> =
        connector.credentials().map(|(field, _)| (field, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX")).collect();
    let values = Values { credentials: &credentials, ..full() };
    let request_bytes = bytes(&connector, operation, &values)
        .ok_or_else(|| format!("{name} does not render what is rendered here"))?;
    let render_us = median_us(|| drop(black_box(connector.render(operation, black_box(&values)))));
    let map_us = median_us(|| {
        drop(black_box(connector.map(operation, status, black_box(body.as_bytes()))));
    });
    Ok(Figure {
        connector: name.to_owned(),
        request_bytes,
        render_us,
        answer_bytes: body.len(),
        map_us,
        both_us: ((render_us + map_us) * 10.0).round() / 10.0,
    })
}

fn bytes(connector: &Connector, operation: Operation, values: &Values<'_>) -> Option<usize> {
    let rendered = connector.render(operation, values).ok()?;
    Some(rendered.body.len() + rendered.steps.iter().map(|(_, step)| step.body.len()).sum::<usize>())
}

/// A charge of which every field is there.
fn full<'v>() -> Values<'v> {
    Values {
        card: Some(Card {
            number: "4242424242424242",
            exp_month: 12,
            exp_year: 2030,
            cvc: None,
            brand: Some("visa"),
        }),
        billing: Billing {
            name: Some("Ada Maria King"),
            line1: Some("1 Main Street"),
            line2: Some("Apartment 12"),
            city: Some("San Jose"),
            region: Some("CA"),
            zip: Some("95112"),
            country: Some("US"),
            email: Some("ada@example.com"),
        },
        three_d_secure: Some(ThreeDSecure {
            version: Some("2.2.0"),
            eci: Some("05"),
            cavv: Some("AAABAWFlmQAAAABjRWWZEEFgFz+A"),
            ds_transaction_id: Some("f25084f0-5b16-4c0a-ae5d-b24808a95e4b"),
        }),
        amount: Some(Amount { minor: 2_020, currency: "USD" }),
        attempt_id: "att_00000000v00000000v00000000v00000",
        attempt_ref: "v0000000v00000000v00",
        stored_credential: Some(StoredCredential {
            usage: Use::Subsequent,
            initiator: Initiator::Merchant,
            reason: Reason::Recurring,
            ntid: Some("010012318808182231420000047554200000000000093840023122123188"),
            tlid: Some("lyuGV8D1SbCoq5-PDz_9fQ"),
            original_amount: Some(2_020),
            previous: Some("8812004411"),
        }),
        previous: Previous::default(),
        allow_partial: true,
        description: Some("Subscription for November 2026"),
        statement_descriptor: Some("EXAMPLE"),
        invoice: Some("INV-2026-0042"),
        customer: Some("customer-1"),
        moment: SendMoment {
            unix_ms: 1_764_452_000_000,
            nonce: "0123456789abcdef0123456789abcdef",
            mark: "fedcba9876543210fedcba9876543210",
        },
        endpoint: EndpointParts { host: "api.example.com", prefix: "" },
        ..Values::default()
    }
}

fn median_us(mut work: impl FnMut()) -> f64 {
    (0..WARM_UP).for_each(|_| work());
    let (began, mut took) = (Instant::now(), Vec::with_capacity(TIMES_MAX));
    while took.is_empty() || (took.len() < TIMES_MAX && began.elapsed() < MEASURED) {
        let at = Instant::now();
        work();
        took.push(at.elapsed());
    }
    took.sort_unstable();
    let median = took.get(took.len() / 2).copied().unwrap_or_default();
    (median.as_secs_f64() * 10_000_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::connector::builtin_names;

    #[test]
    fn each_connector_is_measured_with_the_largest_sample() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/connector");
        let mut largest: BTreeMap<String, usize> = BTreeMap::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let sample: Value =
                serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
            if matches!(sample["operation"].as_str(), Some("sale" | "authorize")) {
                let len = sample["body"].as_str().map_or_else(|| sample["body"].to_string().len(), str::len);
                let known = largest.entry(sample["connector"].as_str().unwrap().to_owned()).or_default();
                *known = len.max(*known);
            }
        }
        let figures: Vec<Figure> = ANSWERS.iter().map(|text| measure(text).unwrap()).collect();
        let measured: BTreeMap<String, usize> =
            figures.iter().map(|figure| (figure.connector.clone(), figure.answer_bytes)).collect();
        assert_eq!(measured, largest);
        assert_eq!(measured.len(), builtin_names().count());
        assert!(figures.iter().all(|figure| figure.request_bytes > 0 && figure.both_us > 0.0));
    }
}
