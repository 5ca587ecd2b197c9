//! The whole API against a real store and a stand-in for the keeper: an edge in one process, called without sockets.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response};
use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use tower::ServiceExt;

use super::routes;
use crate::card::brand::Brand;
use crate::card::expiry::Expiry;
use crate::card::fingerprint::Fingerprint;
use crate::card::id::{AttemptId, Token};
use crate::card::sealed::{FORMAT_V1, SealedField};
use crate::card::tenant::{Mode, TenantId};
use crate::card::truncated::TruncatedPan;
use crate::clock::{Clock, ManualClock, SystemClock, Time};
use crate::edge::keeper::Keeper;
use crate::edge::scope::Scope;
use crate::edge::store::sqlite::{SqliteOptions, SqliteStore};
use crate::edge::store::{Change, PrincipalKind, PrincipalRow, RowChange, TenantRow};
use crate::edge::{App, Edge};
use crate::person::credential::hash_of;
use crate::wire::control::{DestinationInfo, Limits, TenantInfo};
use crate::wire::forwarder::{Forwarded, Outcome, Sent};
use crate::wire::frame::{self, FrameReader};
use crate::wire::keeper::{
    Digested, ForwardRead, FromKeeper, Prepared, ReadForward, Refusal, RefusalCode, Seal, SealAs, Sealed,
    ToKeeper,
};
use crate::wire::keys::{KeyInfo, KeyOrder, KeyPurpose, KeyState};
use crate::wire::pair::make_pair;

mod exports;
mod forwards;
mod processor_webhooks;
mod refusals;
mod resolutions;
mod retention;
mod runs;
mod tokens;
mod webhooks;

/// An edge with two tenants and a few principals.
struct Vault {
    app: App,
    clock: ManualClock,
    router: Router,
    _directory: tempfile::TempDir,
}

/// An answer, read.
struct Got {
    status: u16,
    head: axum::http::HeaderMap,
    body: Value,
    text: String,
}

impl Vault {
    async fn start() -> Self {
        Self::start_with(Limits { body_bytes_max: 4096, ..Limits::default() }).await
    }

    async fn start_with(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(SystemClock.now());
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let options = SqliteOptions {
            directory: directory.path().to_owned(),
            node: "n1".to_owned(),
            clock: Arc::clone(&shared),
            pages_max: None,
        };
        let store = Arc::new(SqliteStore::open(options).unwrap());
        let app = Arc::new(Edge::new(store, Keeper::new(), shared, limits));
        let (ours, theirs) = make_pair().unwrap();
        let time = clock.clone();
        std::thread::spawn(move || stand_in(&theirs, &time));
        app.keeper.connect(ours).unwrap();
        let vault = Self { router: routes::router(&app), app, clock, _directory: directory };
        vault.add_tenants().await;
        vault.app.keys.set(webhook_keys(vault.clock.now().plus_seconds(WEBHOOK_KEY_SECONDS)));
        let everything: Vec<_> = Scope::ALL.iter().map(|scope| scope.name()).collect();
        let of_tenant: Vec<_> =
            Scope::ALL.iter().filter(|s| s.needs_tenant()).map(|scope| scope.name()).collect();
        vault.add("billing", PrincipalKind::Application, Some(1), &of_tenant).await;
        vault.add("person", PrincipalKind::Person, Some(1), &of_tenant).await;
        vault.add("other", PrincipalKind::Application, Some(2), &of_tenant).await;
        vault.add("reader", PrincipalKind::Application, Some(1), &["tokens:read"]).await;
        vault.add("admin", PrincipalKind::Person, None, &everything).await;
        vault
    }

    async fn add_tenants(&self) {
        let now = self.clock.now();
        let mut tenants = Vec::new();
        for (id, name) in [(1, "acme"), (2, "globex")] {
            let row = TenantRow {
                id: TenantId(id),
                name: name.to_owned(),
                mode: Mode::Test,
                disabled: false,
                created_at: now,
            };
            tenants.push(TenantInfo {
                id: row.id,
                name: row.name.clone(),
                mode: row.mode,
                disabled: false,
                created_at: now,
            });
            let change = Change { rows: vec![RowChange::PutTenant(row)], ..Change::default() };
            self.app.store.commit(change).await.unwrap();
        }
        self.app.directory.set_tenants(tenants);
    }

    async fn add(&self, name: &str, kind: PrincipalKind, tenant: Option<u32>, scopes: &[&str]) {
        let now = self.clock.now();
        let row = PrincipalRow {
            id: crate::card::id::PrincipalId::make(now).unwrap(),
            name: name.to_owned(),
            kind,
            tenant: tenant.map(TenantId),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            credentials: vec![(hash_of(credential(name).as_bytes()), None)],
            charge_max: BTreeMap::new(),
            day_max: BTreeMap::new(),
            created_at: now,
            expires_at: None,
            disabled: false,
            destinations: Vec::new(),
        };
        let change = Change { rows: vec![RowChange::PutPrincipal(Box::new(row))], ..Change::default() };
        self.app.store.commit(change).await.unwrap();
        self.app.directory.set_principals(self.app.store.principals().await.unwrap());
    }

    fn ask(&self, who: &str, method: Method, path: &str) -> Ask<'_> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", credential(who)));
        Ask { vault: self, request, body: Body::empty() }
    }

    async fn create(&self, who: &str, key: &str, body: &str) -> Got {
        self.ask(who, Method::POST, "/v1/tokens").key(key).json(body).send().await
    }

    async fn get(&self, who: &str, path: &str) -> Got {
        self.ask(who, Method::GET, path).send().await
    }

    /// The actions of all events so far, in order.
    async fn actions(&self) -> Vec<String> {
        let events = self.app.store.events(None, 0, 10_000).await.unwrap();
        let action = |leaf: &[u8]| {
            serde_json::from_slice::<Value>(leaf).unwrap()["action"].as_str().unwrap().to_owned()
        };
        events.iter().map(|event| action(&event.leaf)).collect()
    }
}

struct Ask<'a> {
    vault: &'a Vault,
    request: axum::http::request::Builder,
    body: Body,
}

impl Ask<'_> {
    fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    fn json(mut self, body: &str) -> Self {
        self.body = Body::from(body.to_owned());
        self.header("content-type", "application/json")
    }

    async fn send(self) -> Got {
        let request = self.request.body(self.body).unwrap();
        Got::of(self.vault.router.clone().oneshot(request).await.unwrap()).await
    }
}

impl Got {
    async fn of(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { status: parts.status.as_u16(), head: parts.headers, body, text }
    }

    fn code(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or_default())
    }

    fn id(&self) -> String {
        self.body["id"].as_str().unwrap().to_owned()
    }
}

fn credential(name: &str) -> String {
    format!("cv_{name}_credential")
}

/// A token body with this number.
fn card(number: &str, more: &str) -> String {
    format!(
        r#"{{"card":{{"number":"{number}","exp_month":12,"exp_year":2030}},"billing":{{"zip":"10001"}}{more}}}"#
    )
}

/// A destination of this name, and a connector of the same.
fn destination(name: &str) -> DestinationInfo {
    let (name, connector) = (name.to_owned(), name.to_owned());
    DestinationInfo { name, connector, ..crate::edge::charge::tests::destination() }
}

/// For so long the tenants' webhook keys protect.
const WEBHOOK_KEY_SECONDS: i64 = 730 * 86_400;

/// The first webhook key of each tenant.
fn webhook_keys(protects_until: Time) -> Vec<KeyInfo> {
    let key = |tenant| {
        let (purpose, tenant) = (KeyPurpose::Webhook, Some(TenantId(tenant)));
        let order = KeyOrder { id: 70 + tenant.map_or(0, |t| t.0), purpose, tenant, epoch: 0, version: 1 };
        KeyInfo { order, state: KeyState::Active, protects_until, emptying: false }
    };
    [1, 2].map(key).to_vec()
}

/// Answers like a keeper, without keys: envelopes hold what they were given, so nothing here says anything about sealing.
fn stand_in(pair: &UnixStream, clock: &ManualClock) {
    let mut reader = FrameReader::new(pair.try_clone().unwrap());
    let mut forwarding = None;
    while let Ok((id, ask)) = reader.read::<ToKeeper>() {
        let answer = match ask {
            ToKeeper::Seal(seal) => match stand_in_seal(&seal, clock) {
                Ok(sealed) => FromKeeper::Sealed(Box::new(sealed)),
                Err(refusal) => FromKeeper::Refused(refusal),
            },
            ToKeeper::OpenExpiry(open) => {
                let at = open.sealed.envelope.len() - 3;
                let [month, high, low] = open.sealed.envelope[at..].try_into().unwrap();
                FromKeeper::Expiry(Expiry { month, year: u16::from_be_bytes([high, low]) })
            }
            ToKeeper::CompareZip(ask) => {
                let body: Value = serde_json::from_slice(&ask.body).unwrap();
                let zip = body["billing"]["zip"].as_str().unwrap();
                FromKeeper::ZipIsEqual(ask.sealed.envelope.get(5..) == Some(zip.as_bytes()))
            }
            ToKeeper::Digest(ask) => {
                let parts =
                    [ask.route.as_bytes(), ask.idempotency_key.as_bytes(), &ask.body].map(<[u8]>::to_vec);
                FromKeeper::Digested(digests(&parts))
            }
            ToKeeper::WebhookSecret(ask) => FromKeeper::WebhookSecret(format!("whsec_{}", ask.generation)),
            ToKeeper::ReadForward(ask) => FromKeeper::ForwardRead(Box::new(read_forward(&ask))),
            ToKeeper::PrepareForward(ask) => {
                forwarding = Some(ask.attempt);
                FromKeeper::Prepared(Box::new(Prepared {
                    held: 2,
                    mac: [0; 32],
                    connector_version: [0; 32],
                    opening: None,
                    once_only: true,
                }))
            }
            ToKeeper::Release { .. } => FromKeeper::Outcome(Box::new(answered(forwarding.unwrap()))),
            ToKeeper::Acknowledge { .. } => FromKeeper::Done,
            ToKeeper::SignWebhook(_) => FromKeeper::WebhookSigned("v1,x".to_owned()),
            ToKeeper::Prepare(ask) => FromKeeper::Refused(match ask.previous_transaction {
                None => Refusal::about(RefusalCode::RequiredByConnector, "prev.transaction"),
                Some(_) => Refusal::of(RefusalCode::ForwarderDown),
            }),
            ToKeeper::Hello
            | ToKeeper::ReadCharge(_)
            | ToKeeper::Discard { .. }
            | ToKeeper::LookUp(_)
            | ToKeeper::ReadWebhook(_)
            | ToKeeper::State
            | ToKeeper::SignCheckpoint(_)
            | ToKeeper::Openings { .. }
            | ToKeeper::Outcomes { .. }
            | ToKeeper::Known(_)
            | ToKeeper::ShowForward(_)
            | ToKeeper::ExpireBy(_)
            | ToKeeper::Reseal(_) => FromKeeper::Refused(Refusal::of(RefusalCode::Internal)),
        };
        frame::write(&mut &*pair, id, &answer).unwrap();
    }
}

fn read_forward(ask: &ReadForward) -> ForwardRead {
    let body: Value = serde_json::from_slice(&ask.body).unwrap();
    let parts = [ask.route.as_bytes(), ask.idempotency_key.as_bytes(), &ask.body].map(<[u8]>::to_vec);
    ForwardRead {
        held: 1,
        token: Token::parse(body["token"].as_str().unwrap()),
        destination: "echo".to_owned(),
        method: "POST".to_owned(),
        path: "/".to_owned(),
        dry_run: false,
        digests: digests(&parts),
    }
}

/// The outcome of a forward whose destination answered.
fn answered(attempt: AttemptId) -> Outcome {
    let forwarded = Forwarded { http_status: 200, headers: Vec::new(), is_json: true, body: "{}".to_owned() };
    Outcome {
        attempt,
        sent: Sent::Yes,
        answer: None,
        error: None,
        credentials_changed: false,
        card_update: None,
        upstream_us: 1,
        forwarded: Some(Box::new(forwarded)),
    }
}

fn digests(parts: &[Vec<u8>; 3]) -> Digested {
    let hash = |bytes: &[u8]| digest(&SHA256, bytes).as_ref().try_into().unwrap();
    Digested { key: hash(&[parts[0].clone(), parts[1].clone()].concat()), body: hash(&parts.concat()) }
}

fn stand_in_seal(seal: &Seal, clock: &ManualClock) -> Result<Sealed, Refusal> {
    let body: Value =
        serde_json::from_slice(&seal.body).map_err(|_| Refusal::of(RefusalCode::MalformedJson))?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let field = |version: u32, bytes: &[u8]| SealedField {
        version: version + 1,
        envelope: [&[FORMAT_V1, 0, 0, 0, 7], bytes].concat(),
    };
    let number = text(&body["card"]["number"]);
    let has_number = number.as_ref().filter(|_| seal.seal_as != SealAs::Merge);
    let expiry = body["card"]["exp_month"]
        .as_u64()
        .map(|month| Expiry { month: month as u8, year: body["card"]["exp_year"].as_u64().unwrap() as u16 });
    if !seal.allow_expired && expiry.is_some_and(|expiry| expiry.is_past(clock.now())) {
        return Err(Refusal::about(RefusalCode::CardExpired, "card.exp_year"));
    }
    let [pan, exp, zip] = seal.versions;
    let metadata = body["metadata"].as_object().map(|map| {
        map.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect()
    });
    Ok(Sealed {
        pan: has_number.map(|_| field(pan, b"pan")),
        expiry: expiry.map(|e| field(exp, &[&[e.month], e.year.to_be_bytes().as_slice()].concat())),
        zip: text(&body["billing"]["zip"]).map(|text| field(zip, text.as_bytes())),
        shown: has_number.map(|number| TruncatedPan {
            funding: None,
            country: None,
            first6: Some(number[..6].to_owned()),
            last4: number[number.len() - 4..].to_owned(),
            brand: Brand::Visa,
        }),
        shown_expiry: expiry,
        fingerprint: number
            .map(|n| Fingerprint::under(2, digest(&SHA256, n.as_bytes()).as_ref().try_into().unwrap())),
        customer_pseudonym: text(&body["customer"]).map(|c| HEXLOWER.encode(&hash_of(c.as_bytes())[..16])),
        customer: text(&body["customer"]),
        metadata,
        on_duplicate: text(&body["on_duplicate"]),
        status: text(&body["status"]),
        digests: seal.idempotency_key.as_ref().map(|key| {
            digests(&[seal.route.clone().into_bytes(), key.clone().into_bytes(), seal.body.clone()])
        }),
    })
}
