//! Forwards in the keeper: a caller's own request is checked against what its destination declares before anything is opened, then
//! filled.

use std::collections::HashMap;
use std::time::Instant;

use ring::digest::{SHA256, digest};
use secrecy::{ExposeSecret, SecretString};

use super::cleartext::forward;
use super::cleartext::json;
use super::held::{Held, HeldForward};
use super::state::{State, digests, unavailable};
use crate::card::id::Token;
use crate::card::tenant::Mode;
use crate::forwarding::placeholder::Name;
use crate::forwarding::request::{Request, Sent};
use crate::forwarding::spec::Rules;
use crate::forwarding::{Refused, Why};
use crate::wire::control::Destination;
use crate::wire::keeper::{
    ForwardRead, FromKeeper, PrepareForward, Prepared, ReadForward, Refusal, RefusalCode, ShowForward,
};

/// What the running account calls these openings.
const PURPOSE: &str = "forward";

/// A forward destination with its compiled declaration and its credentials.
pub(in crate::keeper) struct KeptForward {
    /// Its name.
    pub(in crate::keeper) name: String,
    /// What it takes.
    pub(in crate::keeper) rules: Rules,
    /// Which tenants may use it.
    mode: Mode,
    /// The destination sets it belongs to.
    policies: Vec<u32>,
    /// SHA-256 of what it declares.
    version: [u8; 32],
    credentials: Vec<(String, SecretString)>,
}

impl KeptForward {
    /// The credentials, by name.
    pub(in crate::keeper) fn credentials(&self) -> Vec<(&str, &str)> {
        self.credentials.iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect()
    }
}

/// Forward destinations, and those that are charged.
pub(in crate::keeper) fn apart(all: Vec<Destination>) -> (Vec<Destination>, Vec<Destination>) {
    all.into_iter().partition(|one| one.forward.is_some())
}

/// Compiles all forward destinations; a fault names the setting, never a value.
pub(in crate::keeper) fn compile(all: Vec<Destination>) -> Result<HashMap<String, KeptForward>, String> {
    let mut kept = HashMap::with_capacity(all.len());
    for one in all {
        let Some(to) = one.forward else { continue };
        let written = serde_json::to_vec(&to.spec).map_err(|_| format!("forward.{}", one.name))?;
        let mut version = [0; 32];
        version.copy_from_slice(digest(&SHA256, &written).as_ref());
        let rules = Rules::compile(to.spec).map_err(|fault| format!("forward.{}: {fault}", one.name))?;
        let credentials =
            one.credentials.into_iter().map(|(name, value)| (name, SecretString::from(value))).collect();
        let forward = KeptForward {
            name: one.name.clone(),
            rules,
            mode: one.mode,
            policies: one.policies,
            version,
            credentials,
        };
        kept.insert(one.name, forward);
    }
    Ok(kept)
}

fn unknown() -> Refusal {
    Refusal::about(RefusalCode::DestinationUnknown, "destination")
}

impl State {
    /// Reads a request and checks all of it that can be checked without the card; what is wrong is refused here.
    pub(super) fn read_forward(&mut self, ask: &ReadForward) -> Result<ForwardRead, Refusal> {
        let mode = self.tenant(ask.tenant)?.mode;
        let sent: Sent = json::read(&ask.body)?;
        let digests = digests(&self.keys, ask.tenant, &ask.route, &ask.idempotency_key, &ask.body)?;
        let to = self.forwards.get(&sent.destination).filter(|to| to.mode == mode).ok_or_else(unknown)?;
        let (destination, dry_run) = (to.name.clone(), sent.dry_run);
        let token = Token::parse(&sent.token);
        let request = Request::check(sent, &to.rules).map_err(refusal)?;
        // What cannot be written with a mask cannot be written with a card: nothing is opened to find that out.
        forward::masked(to, &request, None).map_err(refusal)?;
        let (method, path) = (request.method.clone(), request.path.clone());
        let (destination_held, version) = (destination.clone(), to.version);
        let held = Held::Forward(Box::new(HeldForward { destination: destination_held, version, request }));
        let held = self.holding.hold(held, Instant::now()).ok_or(Refusal::of(RefusalCode::Busy))?;
        Ok(ForwardRead { held, token, destination, method, path, dry_run, digests })
    }

    /// The request as it would leave, the card masked and credentials named.
    pub(super) fn show_forward(&mut self, ask: &ShowForward) -> Result<Vec<u8>, Refusal> {
        let held = self.take_forward(ask.held)?;
        let to = self.forwards.get(&held.destination).ok_or_else(unknown)?;
        check_use(to, &held, ask.policy, ask.has_zip)?;
        let written = forward::masked(to, &held.request, Some(&ask.shown)).map_err(refusal)?;
        Ok(forward::show(to, &held.request, &written))
    }

    /// Opens the card, counts the opening, fills the request, and holds the bytes.
    pub(super) fn prepare_forward(&mut self, ask: &PrepareForward) -> Result<FromKeeper, Refusal> {
        let mode = self.tenant(ask.tenant)?.mode;
        let held = self.take_forward(ask.held)?;
        let to = self.forwards.get(&held.destination).filter(|to| to.mode == mode).ok_or_else(unknown)?;
        check_use(to, &held, ask.sealed.policy, ask.sealed.zip.is_some())?;
        if !self.openings.may_open(ask.event) {
            return Err(Refusal::of(RefusalCode::Busy));
        }
        let mac_key = self.keys.tenant(ask.tenant).and_then(|keys| keys.body_mac()).map_err(unavailable)?;
        let card = self.open(ask.tenant, ask.token, &ask.sealed)?;
        let opened = self.openings.count(PURPOSE, ask.tenant, ask.token, &to.name, ask.event);
        let filled = forward::fill(to, &held.request, &card, ask.attempt);
        drop(card);
        let prepared = filled.map_err(refusal).and_then(|filled| {
            let mac = mac_key.sum(&[
                b"forward/v1",
                ask.token.bytes(),
                &ask.sealed.pan.version.to_be_bytes(),
                ask.attempt.bytes(),
                &filled.mac_bytes,
            ]);
            let request = Held::Request(Box::new(filled.exchange.into()));
            let held = self.holding.hold(request, Instant::now()).ok_or(Refusal::of(RefusalCode::Busy))?;
            Ok((held, mac))
        });
        match prepared {
            Ok((held, mac)) => Ok(FromKeeper::Prepared(Box::new(Prepared {
                held,
                mac,
                connector_version: to.version,
                opening: Some(opened),
                once_only: true,
            }))),
            Err(refusal) => Ok(FromKeeper::RefusedAfterOpening(refusal, Box::new(opened))),
        }
    }

    fn take_forward(&mut self, held: u64) -> Result<Box<HeldForward>, Refusal> {
        match self.holding.take(held, Instant::now()) {
            Some(Held::Forward(forward)) => Ok(forward),
            Some(Held::PassThrough(_) | Held::Request(_)) | None => Err(Refusal::of(RefusalCode::HeldGone)),
        }
    }
}

/// Whether this card may go there, and has what the request asks of it.
fn check_use(to: &KeptForward, held: &HeldForward, policy: u32, has_zip: bool) -> Result<(), Refusal> {
    if !to.policies.contains(&policy) {
        return Err(unknown());
    }
    // The configuration was read again meanwhile: what was checked then may not be taken now.
    if to.version != held.version {
        return Err(Refusal::of(RefusalCode::HeldGone));
    }
    if !has_zip && held.request.needs(Name::Zip) {
        return Err(Refusal::about(RefusalCode::NothingToFill, "billing.zip"));
    }
    Ok(())
}

fn refusal(refused: Refused) -> Refusal {
    let code = match refused.why {
        Why::NotDeclared => RefusalCode::NotDeclared,
        Why::PlaceholderUnknown => RefusalCode::PlaceholderUnknown,
        Why::PlaceholderMisplaced => RefusalCode::PlaceholderMisplaced,
        Why::Credential => RefusalCode::CredentialNotAccepted,
        Why::StrayNumber => RefusalCode::StrayNumber,
        Why::VerificationCode => RefusalCode::CvcNotAccepted,
        Why::Duplicate => RefusalCode::DuplicateField,
        Why::Malformed | Why::Unfit | Why::TooLarge => RefusalCode::InvalidValue,
        Why::Missing => RefusalCode::NothingToFill,
    };
    Refusal::about(code, refused.at)
}
