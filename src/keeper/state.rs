//! What the keeper knows, and how it answers one question.

use std::collections::HashMap;
use std::time::Instant;

use super::budget::Budget;
use super::cleartext::charge_body::{self, PassThrough};
use super::cleartext::envelope::Place;
use super::cleartext::fingerprint::derive_fingerprint;
use super::cleartext::render::{self, ClearCard};
use super::cleartext::submitted::Submitted;
use super::destinations::{self, KeptDestination};
use super::exchanges::{Asker, Exchanges, Outgoing};
use super::forwards::{self, KeptForward};
use super::held::{Held, Holding};
use super::keys::{Kek, KeyError, KeyRing};
use super::openings::Openings;
use super::ranges::Ranges;
use super::signer::Signer;
use super::updates::Charged;
use super::webhooks;
use crate::card::range::RangeFacts;
use crate::card::sealed::SealedCard;
use crate::card::stray::Exemptions;
use crate::card::tenant::TenantId;
use crate::clock::{Clock, SystemClock};
use crate::random;
use crate::wire::control::{KeeperSettings, TenantInfo};
use crate::wire::forwarder::{NewCard, Outcome};
use crate::wire::keeper::{
    ChargeRead, Digest, Digested, ExpireBy, FromKeeper, Hello, LookUp, OpenExpiry, Prepare, Prepared,
    ReadCharge, ReadWebhook, Refusal, RefusalCode, Seal, Sealed, ToKeeper,
};
use crate::wire::keys::WrappedKey;
use crate::wire::reseal::Reseal;

/// Everything behind the keeper's lock.
pub(super) struct State {
    environment: [u8; 16],
    pub(super) kek: Kek,
    /// The one that keys were wrapped under again, until it is the one in use.
    pub(super) next_kek: Option<Kek>,
    pub(super) keys: KeyRing,
    tenants: HashMap<TenantId, TenantInfo>,
    exemptions: Exemptions,
    destinations: HashMap<String, KeptDestination>,
    pub(super) ranges: Ranges,
    pub(super) forwards: HashMap<String, KeptForward>,
    pub(super) openings: Openings,
    pub(super) budget: Budget,
    serving: bool,
    pub(super) holding: Holding,
    pub(super) exchanges: Exchanges,
    pub(super) signer: Signer,
}

/// What comes of a question.
pub(super) enum Reply {
    /// This answer.
    Now(FromKeeper),
    /// An answer later: the question waits for the forwarder or the supervisor.
    Later(Later),
}

/// What a question waits for.
pub(super) enum Later {
    /// This exchange with the forwarder.
    Exchange(Box<Outgoing>),
    /// The forwarder to check this webhook.
    Webhook(Box<crate::wire::forwarder::Webhook>),
    /// The thread that seals cards again.
    Reseal(Box<Reseal>),
    /// The supervisor to keep a checkpoint of this size and root.
    KeepCheckpoint(u64, [u8; 32]),
}

impl State {
    /// Unwraps the keys with the KEK's 32 bytes, and compiles the connectors.
    pub(super) fn new(settings: KeeperSettings, kek: &[u8]) -> Result<Self, String> {
        let now = SystemClock.now();
        let kek = Kek::new(kek, settings.environment).map_err(|error| error.to_string())?;
        let mut keys = KeyRing::default();
        for key in &settings.keys {
            keys.put(&kek, key).map_err(|error| error.to_string())?;
        }
        let boot = random::make_bytes::<8>().map_err(|error| error.to_string())?;
        let (forwards, destinations) = forwards::apart(settings.destinations);
        Ok(Self {
            environment: settings.environment,
            kek,
            next_kek: None,
            keys,
            tenants: by_id(settings.tenants),
            exemptions: settings.exemptions,
            destinations: destinations::compile(destinations)?,
            forwards: forwards::compile(forwards)?,
            ranges: Ranges::default(),
            openings: Openings::new(data_encoding::HEXLOWER.encode(&boot)),
            budget: Budget::new(settings.fingerprints_per_hour_max, settings.restarts_last_hour, now),
            serving: false,
            holding: Holding::default(),
            exchanges: Exchanges::default(),
            signer: Signer::new(settings.origin, settings.signed),
        })
    }

    /// Wraps all keys under another KEK, which is not used yet.
    pub(super) fn rewrap(&mut self, kek: &[u8], keys: &[WrappedKey]) -> Result<Vec<WrappedKey>, KeyError> {
        let next = Kek::new(kek, self.environment)?;
        let again = keys.iter().map(|key| self.kek.rewrap(key, &next)).collect::<Result<_, _>>()?;
        self.next_kek = Some(next);
        Ok(again)
    }

    /// The KEK that keys were wrapped under again is the one in use.
    pub(super) fn use_next_kek(&mut self) {
        if let Some(next) = self.next_kek.take() {
            self.kek = next;
        }
    }

    /// Takes new tenants, exemptions and destinations; on a fault the old ones stay.
    pub(super) fn reload(
        &mut self,
        tenants: Vec<TenantInfo>,
        exemptions: Exemptions,
        all: Vec<crate::wire::control::Destination>,
    ) -> Result<(), String> {
        let (forwards, destinations) = forwards::apart(all);
        let forwards = forwards::compile(forwards)?;
        let mut all = destinations::compile(destinations)?;
        for (name, one) in &mut all {
            if let Some(before) = self.destinations.get(name) {
                one.go_on_from(before);
            }
        }
        self.destinations = all;
        self.forwards = forwards;
        self.tenants = by_id(tenants);
        self.exemptions = exemptions;
        Ok(())
    }

    /// Answers fingerprints from now on: the supervisor has counted this start.
    pub(super) fn serve(&mut self) {
        self.serving = true;
    }

    /// Refuses what the budget bounds for as long as this start is not counted: else each refused start would be a fresh budget.
    pub(super) fn check_serving(&self) -> Result<(), Refusal> {
        if self.serving { Ok(()) } else { Err(Refusal::of(RefusalCode::NotServing)) }
    }

    /// The installation's random id.
    pub(super) const fn environment(&self) -> [u8; 16] {
        self.environment
    }

    /// The boot, hex.
    pub(super) fn boot(&self) -> &str {
        self.openings.boot()
    }

    /// Answers a question of the edge.
    pub(super) fn answer(&mut self, ask: ToKeeper) -> Reply {
        let answer = match ask {
            ToKeeper::Hello => self.hello().map(FromKeeper::Hello),
            ToKeeper::Seal(ask) => self.seal(&ask).map(|sealed| FromKeeper::Sealed(Box::new(sealed))),
            ToKeeper::OpenExpiry(ask) => self.open_expiry(&ask),
            ToKeeper::CompareZip(ask) => self.compare_zip(&ask).map(FromKeeper::ZipIsEqual),
            ToKeeper::ReadCharge(ask) => {
                self.read_charge(&ask).map(|read| FromKeeper::ChargeRead(Box::new(read)))
            }
            ToKeeper::Prepare(ask) => self.prepare(&ask),
            ToKeeper::Release { held, grant: _ } => return self.release(held),
            ToKeeper::Discard { held } => {
                drop(self.holding.take(held, Instant::now()));
                Ok(FromKeeper::Done)
            }
            ToKeeper::LookUp(ask) => return self.look_up(&ask),
            ToKeeper::ReadWebhook(ask) => return self.read_webhook(*ask),
            ToKeeper::Digest(ask) => self.digest(&ask).map(FromKeeper::Digested),
            ToKeeper::State => {
                self.signer.state(&self.keys, &self.openings, Instant::now()).map(FromKeeper::Stated)
            }
            ToKeeper::SignCheckpoint(ask) => match self.signer.consider(&ask, Instant::now()) {
                Ok(()) => return Reply::Later(Later::KeepCheckpoint(ask.size, ask.root)),
                Err(refusal) => Err(refusal),
            },
            ToKeeper::Openings { after } => Ok(FromKeeper::Openings(self.openings.unacknowledged(after))),
            ToKeeper::Outcomes { after } => Ok(FromKeeper::Outcomes(self.exchanges.unacknowledged(after))),
            ToKeeper::Known(attempts) => Ok(FromKeeper::Known(self.exchanges.known(&attempts))),
            ToKeeper::Acknowledge { outcomes, openings } => {
                self.exchanges.acknowledge(&outcomes);
                self.openings.acknowledge(&openings);
                Ok(FromKeeper::Done)
            }
            ToKeeper::ReadForward(ask) => {
                self.read_forward(&ask).map(|read| FromKeeper::ForwardRead(Box::new(read)))
            }
            ToKeeper::ShowForward(ask) => self.show_forward(&ask).map(FromKeeper::ForwardShown),
            ToKeeper::PrepareForward(ask) => self.prepare_forward(&ask),
            ToKeeper::ExpireBy(ask) => Ok(FromKeeper::Expire(self.expire_by(&ask))),
            ToKeeper::WebhookSecret(ask) => {
                webhooks::secret(&self.keys, ask).map(|secret| FromKeeper::WebhookSecret(secret.show()))
            }
            ToKeeper::Reseal(ask) => return Reply::Later(Later::Reseal(ask)),
            ToKeeper::SignWebhook(ask) => {
                webhooks::sign_with_all(&self.keys, &ask).map(FromKeeper::WebhookSigned)
            }
        };
        Reply::Now(answer.unwrap_or_else(FromKeeper::Refused))
    }

    fn hello(&self) -> Result<Hello, Refusal> {
        Ok(Hello {
            boot: self.boot().to_owned(),
            environment: self.environment,
            origin: self.signer.origin().to_owned(),
            public_key: Signer::public_key(&self.keys).ok_or(Refusal::of(RefusalCode::KeyUnavailable))?,
            signed_size: self.signer.signed_size(),
        })
    }

    fn seal(&mut self, ask: &Seal) -> Result<Sealed, Refusal> {
        self.check_serving()?;
        let now = SystemClock.now();
        let tenant = self.tenant(ask.tenant)?;
        let exempt = self.exemptions.of(&tenant.name);
        let submitted = Submitted::read(ask, tenant.mode, exempt, now)?;
        let keys = self.keys.tenant(ask.tenant).map_err(unavailable)?;
        let fingerprint = submitted.fingerprint(keys).map_err(unavailable)?;
        if let (Some(pan), Some(of_it)) = (submitted.pan(), &fingerprint)
            && !self.budget.take(ask.tenant, pan.bin_and_last_four(), &of_it.hash, pan.is_test(), now)
        {
            return Err(Refusal::about(RefusalCode::FingerprintBudget, "card.number"));
        }
        let facts = submitted.pan().map(|pan| self.ranges.find(pan.first_eight())).unwrap_or_default();
        let place = self.place(ask.tenant, ask.token, ask.policy);
        let over = (ask.tenant, ask.seal_as, ask.versions);
        let mut sealed = submitted.seal(&place, &self.keys, now, over, fingerprint).map_err(unavailable)?;
        add_facts(&mut sealed, facts);
        if let Some(key) = &ask.idempotency_key {
            sealed.digests = Some(digests(&self.keys, ask.tenant, &ask.route, key, &ask.body)?);
        }
        Ok(sealed)
    }

    fn open_expiry(&self, ask: &OpenExpiry) -> Result<FromKeeper, Refusal> {
        self.place(ask.tenant, ask.token, ask.policy)
            .open_expiry(&self.keys, &ask.sealed)
            .map(FromKeeper::Expiry)
            .map_err(|_| Refusal::of(RefusalCode::CardUnreadable))
    }

    /// Whether each card ends in that month or before.
    fn expire_by(&self, ask: &ExpireBy) -> Vec<bool> {
        let ends = |card: &OpenExpiry| {
            let place = self.place(card.tenant, card.token, card.policy);
            let expiry = place.open_expiry(&self.keys, &card.sealed);
            expiry.is_ok_and(|expiry| (expiry.year, expiry.month) <= ask.by)
        };
        ask.cards.iter().map(ends).collect()
    }

    fn read_charge(&mut self, ask: &ReadCharge) -> Result<ChargeRead, Refusal> {
        let exempt = self.exemptions.of(&self.tenant(ask.tenant)?.name);
        let keys = self.keys.tenant(ask.tenant).map_err(unavailable)?;
        let (mut read, pass) = charge_body::read_charge(ask, keys, exempt)?;
        if let Some(pass) = pass {
            let held = self.holding.hold(Held::PassThrough(Box::new(pass)), Instant::now());
            read.held = Some(held.ok_or(Refusal::of(RefusalCode::Busy))?);
        }
        Ok(read)
    }

    /// Opens the card if one is given, counts the opening, renders, and holds the bytes.
    fn prepare(&mut self, ask: &Prepare) -> Result<FromKeeper, Refusal> {
        let now = Instant::now();
        let mode = self.tenant(ask.tenant)?.mode;
        let unknown = || Refusal::about(RefusalCode::DestinationUnknown, "destination");
        let to = self.destinations.get(&ask.destination).filter(|to| to.mode == mode).ok_or_else(unknown)?;
        let pass = match ask.held.map(|held| self.holding.take(held, now)) {
            None => None,
            Some(Some(Held::PassThrough(pass))) => Some(pass),
            Some(_) => return Err(Refusal::of(RefusalCode::HeldGone)),
        };
        let mut card = None;
        if let Some(sealed) = &ask.sealed {
            if !to.policies.contains(&sealed.policy) {
                return Err(unknown());
            }
            if !self.openings.may_open(ask.event) {
                return Err(Refusal::of(RefusalCode::Busy));
            }
            card = Some(self.open(ask.tenant, ask.token, sealed)?);
        }
        let opening = card
            .as_ref()
            .map(|_| self.openings.count("charge", ask.tenant, ask.token, &ask.destination, ask.event));
        let charged = card.as_ref().and_then(|card| self.charged(to, ask, card));
        let nothing = PassThrough::default();
        let rendered = render::render(to, ask, card.as_ref(), pass.as_deref().unwrap_or(&nothing));
        drop(card);
        let connector_version = *to.connector.version_hash();
        let held = rendered.and_then(|rendered| {
            let mac = self.request_mac(ask, &rendered.mac_bytes)?;
            let request = Held::Request(Box::new(Outgoing { exchange: rendered.exchange, charged }));
            let held = self.holding.hold(request, now).ok_or(Refusal::of(RefusalCode::Busy))?;
            Ok((held, mac))
        });
        match (held, opening) {
            (Ok((held, mac)), opening) => Ok(FromKeeper::Prepared(Box::new(Prepared {
                held,
                mac,
                connector_version,
                opening,
                once_only: pass.is_some(),
            }))),
            (Err(refusal), None) => Err(refusal),
            (Err(refusal), Some(opened)) => Ok(FromKeeper::RefusedAfterOpening(refusal, Box::new(opened))),
        }
    }

    /// What has to be known of a card when its processor says that it has another number; nothing where none says so.
    fn charged(&self, to: &KeptDestination, ask: &Prepare, card: &ClearCard) -> Option<Box<Charged>> {
        let asks_issuer = render::operation(ask.verb).asks_issuer() && to.connector.updates_cards();
        let sealed = ask.sealed.as_ref().filter(|_| asks_issuer)?;
        // Without its key no new number could be sealed either.
        let keys = self.keys.tenant(ask.tenant).ok()?;
        let fingerprint = derive_fingerprint(keys.fingerprints(), &card.pan).ok()?;
        Some(Box::new(Charged {
            tenant: ask.tenant,
            token: ask.token,
            policy: sealed.policy,
            versions: versions(sealed),
            fingerprint: fingerprint.hash,
            expiry: card.expiry,
        }))
    }

    pub(super) fn open(
        &self,
        tenant: TenantId,
        token: crate::card::id::Token,
        sealed: &SealedCard,
    ) -> Result<ClearCard, Refusal> {
        let place = self.place(tenant, token, sealed.policy);
        let unreadable = |_| Refusal::of(RefusalCode::CardUnreadable);
        let pan = place.open_pan(&self.keys, &sealed.pan).map_err(unreadable)?;
        Ok(ClearCard {
            brand: self.ranges.find(pan.first_eight()).brand.unwrap_or(pan.brand()),
            pan,
            expiry: place.open_expiry(&self.keys, &sealed.expiry).map_err(unreadable)?,
            zip: sealed
                .zip
                .as_ref()
                .map(|zip| place.open_zip(&self.keys, zip))
                .transpose()
                .map_err(unreadable)?,
        })
    }

    /// Keyed hash of the rendered request: (purpose, verb, token, field versions, attempt, bytes).
    fn request_mac(&self, ask: &Prepare, bytes: &[u8]) -> Result<[u8; 32], Refusal> {
        let [a, b, c] = ask.sealed.as_ref().map_or([0; 3], versions).map(u32::to_be_bytes);
        let verb = crate::connector::Word::text(render::operation(ask.verb));
        let keys = self.keys.tenant(ask.tenant).and_then(|keys| keys.body_mac()).map_err(unavailable)?;
        Ok(keys.sum(&[
            b"request/v1",
            verb.as_bytes(),
            ask.token.bytes(),
            &[a, b, c].concat(),
            ask.attempt.bytes(),
            bytes,
        ]))
    }

    fn release(&mut self, held: u64) -> Reply {
        match self.holding.take(held, Instant::now()) {
            Some(Held::Request(outgoing)) => Reply::Later(Later::Exchange(outgoing)),
            Some(Held::PassThrough(_) | Held::Forward(_)) | None => {
                Reply::Now(FromKeeper::Refused(Refusal::of(RefusalCode::HeldGone)))
            }
        }
    }

    fn look_up(&self, ask: &LookUp) -> Reply {
        let to = self.destinations.get(&ask.destination);
        let rendered = to
            .ok_or(Refusal::about(RefusalCode::DestinationUnknown, "destination"))
            .and_then(|to| render::render_look_up(to, ask));
        match rendered {
            Ok(exchange) => Reply::Later(Later::Exchange(Box::new(exchange.into()))),
            Err(refusal) => Reply::Now(FromKeeper::Refused(refusal)),
        }
    }

    /// Adds the credentials that a webhook may be signed with; who reads it is the forwarder.
    fn read_webhook(&self, ask: ReadWebhook) -> Reply {
        let to = self.destinations.get(&ask.destination).filter(|to| to.connector.has_webhook());
        let Some(to) = to else {
            let refusal = Refusal::about(RefusalCode::DestinationUnknown, "destination");
            return Reply::Now(FromKeeper::Refused(refusal));
        };
        Reply::Later(Later::Webhook(Box::new(crate::wire::forwarder::Webhook {
            credentials: to.sets_of(&to.connector.webhook_credentials()),
            scrub: to.secrets().collect(),
            destination: ask.destination,
            headers: ask.headers,
            body: ask.body,
        })))
    }

    /// Takes the forwarder's answer to an exchange; gives who asked. Where the processor refuses the credentials, what is rendered
    /// from now on has the others, if there are any. What it says of the card is sealed here, and its clear text ends here.
    pub(super) fn arrived(
        &mut self,
        number: u64,
        outcome: &mut Outcome,
        new_card: Option<Box<NewCard>>,
    ) -> Option<Asker> {
        let charged = self.exchanges.take_charged(number);
        outcome.card_update =
            charged.zip(new_card).and_then(|(card, said)| self.read_update(&card, &said)).map(Box::new);
        if destinations::refuses_credentials(outcome)
            && let Some((name, credentials)) = self.exchanges.sent_with(number)
            && let Some(to) = self.destinations.get_mut(name)
        {
            outcome.credentials_changed = to.refused(credentials);
        }
        self.exchanges.finish(number, outcome)
    }

    /// Keyed hashes of an idempotency key and a body that holds no card.
    fn digest(&self, ask: &Digest) -> Result<Digested, Refusal> {
        digests(&self.keys, ask.tenant, &ask.route, &ask.idempotency_key, &ask.body)
    }

    pub(super) fn tenant(&self, tenant: TenantId) -> Result<&TenantInfo, Refusal> {
        self.tenants.get(&tenant).filter(|info| !info.disabled).ok_or(Refusal::of(RefusalCode::TenantUnknown))
    }

    pub(super) fn place(&self, tenant: TenantId, token: crate::card::id::Token, policy: u32) -> Place {
        Place { environment: self.environment, tenant, token, policy }
    }
}

/// Versions of PAN, expiry and zip; zero for none.
fn versions(sealed: &SealedCard) -> [u32; 3] {
    [sealed.pan.version, sealed.expiry.version, sealed.zip.as_ref().map_or(0, |zip| zip.version)]
}

/// Says of a number what the table of ranges knows.
pub(super) fn add_facts(sealed: &mut Sealed, facts: RangeFacts) {
    if let Some(shown) = &mut sealed.shown {
        shown.brand = facts.brand.unwrap_or(shown.brand);
        (shown.funding, shown.country) = (facts.funding, facts.country);
    }
}

pub(super) fn digests(
    keys: &KeyRing,
    tenant: TenantId,
    route: &str,
    key: &str,
    body: &[u8],
) -> Result<Digested, Refusal> {
    let mac = keys.tenant(tenant).and_then(|keys| keys.body_mac()).map_err(unavailable)?;
    Ok(Digested {
        key: mac.sum(&[b"idempotency/v1", route.as_bytes(), key.as_bytes()]),
        body: mac.sum(&[b"body/v1", route.as_bytes(), key.as_bytes(), body]),
    })
}

fn by_id(tenants: Vec<TenantInfo>) -> HashMap<TenantId, TenantInfo> {
    tenants.into_iter().map(|tenant| (tenant.id, tenant)).collect()
}

pub(super) fn unavailable(_: KeyError) -> Refusal {
    Refusal::of(RefusalCode::KeyUnavailable)
}
