//! A caller's own request, filled with opened fields, or with a mask.

use serde::Serialize;
use zeroize::Zeroizing;

use super::render::ClearCard;
use crate::card::id::AttemptId;
use crate::card::truncated::TruncatedPan;
use crate::forwarding::Refused;
use crate::forwarding::placeholder::{Name, Values};
use crate::forwarding::request::{Request, Written};
use crate::keeper::forwards::KeptForward;
use crate::wire::forwarder::Exchange;
use crate::wire::keeper::Verb;

/// Shorter values stand in any text by chance.
const SCRUBBED_CHARS_MIN: usize = 5;

/// A filled request, and the bytes that its MAC covers.
pub(in crate::keeper) struct FilledForward {
    /// What leaves.
    pub(in crate::keeper) exchange: Exchange,
    /// What is hashed: the same with credentials named, so that a rotation does not show.
    pub(in crate::keeper) mac_bytes: Zeroizing<Vec<u8>>,
}

/// Fills a request.
pub(in crate::keeper) fn fill(
    to: &KeptForward,
    request: &Request,
    card: &ClearCard,
    attempt: AttemptId,
) -> Result<FilledForward, Refused> {
    let number = std::str::from_utf8(card.pan.expose_digits()).unwrap_or_default();
    let month = Zeroizing::new(format!("{:02}", card.expiry.month));
    let year = Zeroizing::new(format!("{:04}", card.expiry.year));
    let zip = card.zip.as_ref().map(|zip| zip.as_str());
    let values = Values { number, month: &month, year: &year, zip };
    let credentials = to.credentials();
    let mut written = request.fill(&to.rules, &values, &credentials)?;
    let hashed = request.fill(&to.rules, &values, &named(&names(to)))?;
    let mac_bytes = Zeroizing::new(outline(request, &hashed));
    drop(Zeroizing::new(hashed.body));
    // One that was not sent would only take amounts and codes that happen to be alike out of the answer.
    let zip = zip.filter(|zip| request.needs(Name::Zip) && zip.chars().count() >= SCRUBBED_CHARS_MIN);
    let secrets = credentials.iter().map(|(_, value)| *value);
    let exchange = Exchange {
        destination: to.name.clone(),
        attempt,
        verb: Verb::Sale,
        look_up: false,
        method: request.method.clone(),
        path: request.path_and_query(),
        headers: std::mem::take(&mut written.headers),
        body: std::mem::take(&mut written.body).into_bytes(),
        scrub: [number].into_iter().chain(zip).chain(secrets).map(str::to_owned).collect(),
        // A connection that dies under a forward leaves nobody who could look up what became of it.
        pooled: false,
        steps: Vec::new(),
        mark: String::new(),
        credentials: 0,
    };
    Ok(FilledForward { exchange, mac_bytes })
}

/// The request with a mask in place of the card, and names in place of credentials.
pub(in crate::keeper) fn masked(
    to: &KeptForward,
    request: &Request,
    shown: Option<&TruncatedPan>,
) -> Result<Written, Refused> {
    let number = shown.map_or_else(
        || "*".repeat(16),
        |shown| {
            let first = shown.first6.clone().unwrap_or_else(|| "*".repeat(6));
            format!("{first}******{}", shown.last4)
        },
    );
    let values = Values { number: &number, month: "**", year: "****", zip: Some("*****") };
    request.fill(&to.rules, &values, &named(&names(to)))
}

/// What a dry run answers with.
pub(in crate::keeper) fn show(to: &KeptForward, request: &Request, written: &Written) -> Vec<u8> {
    #[derive(Serialize)]
    struct Shown<'a> {
        dry_run: bool,
        outbound: &'a str,
        destination: &'a str,
        request: Outgoing<'a>,
    }
    #[derive(Serialize)]
    struct Outgoing<'a> {
        method: &'a str,
        path: &'a str,
        headers: serde_json::Map<String, serde_json::Value>,
        body: &'a str,
    }
    let headers = written.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let path = &request.path_and_query();
    let request = Outgoing { method: &request.method, path, headers, body: &written.body };
    let shown = Shown { dry_run: true, outbound: "not_sent", destination: &to.name, request };
    serde_json::to_vec(&shown).unwrap_or_default()
}

/// What stands for each credential where its value would.
fn names(to: &KeptForward) -> Vec<(String, String)> {
    to.credentials().iter().map(|(name, _)| ((*name).to_owned(), format!("[credential {name}]"))).collect()
}

fn named(names: &[(String, String)]) -> Vec<(&str, &str)> {
    names.iter().map(|(name, stands)| (name.as_str(), stands.as_str())).collect()
}

/// Method, path, headers and body in one row, each with its length in front.
fn outline(request: &Request, written: &Written) -> Vec<u8> {
    let mut out = Vec::with_capacity(written.body.len() + 256);
    let target = request.path_and_query();
    let headers = written.headers.iter().flat_map(|(name, value)| [name, value]);
    let parts = [&request.method, &target].into_iter().chain(headers).chain([&written.body]);
    for part in parts {
        out.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        out.extend_from_slice(part.as_bytes());
    }
    out
}
