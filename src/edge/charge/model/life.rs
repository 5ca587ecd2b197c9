//! One life of an edge after the other over one database, and callers who ask in each of them for what they want.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::case::{Case, Class, Under};
use super::mortal::{Fates, Mortal};
use super::processor::{self, World};
use crate::card::brand::Brand;
use crate::card::fingerprint::Fingerprint;
use crate::card::id::{FingerprintId, PrincipalId, RequestId, Token};
use crate::card::sealed::{FORMAT_V1, SealedCard, SealedField};
use crate::card::tenant::{Mode, TenantId};
use crate::card::truncated::TruncatedPan;
use crate::clock::{Clock, ManualClock, SystemClock};
use crate::edge::charge::resolve::Pace;
use crate::edge::charge::{Answered, Error, Hold, create, follow, recover};
use crate::edge::directory::Caller;
use crate::edge::keeper::Keeper;
use crate::edge::store::sqlite::{SqliteOptions, SqliteStore};
use crate::edge::store::{
    CardRow, CardStatus, Change, OnDuplicate, PrincipalKind, PrincipalRow, RowChange, TenantRow,
};
use crate::edge::{App, Edge};
use crate::person::credential::hash_of;
use crate::wire::control::{Limits, TenantInfo};
use crate::wire::pair::make_pair;

const TENANT: TenantId = TenantId(1);
/// A life ends long before.
const LIFE_MAX: Duration = Duration::from_secs(100);

/// What lives on when the process dies.
pub(super) struct Place {
    directory: tempfile::TempDir,
    clock: ManualClock,
    pub(super) world: Arc<Mutex<World>>,
    pub(super) fates: Arc<Mutex<Fates>>,
}

impl Place {
    pub(super) fn make(cases: &[Case], look_seconds: i64) -> Self {
        let clock = ManualClock::at(SystemClock.now());
        let mut world = World::new(clock.clone(), look_seconds);
        for case in cases {
            world.reactions.insert(case.token, (case.under.verb(), case.reaction));
            if case.once_only {
                world.once_only.push(case.token);
            }
        }
        Self { directory: directory(), clock, world: Arc::new(Mutex::new(world)), fates: Arc::default() }
    }

    /// One life of the edge: it takes up what there is, and every caller asks again for what he wants.
    pub(super) fn live(&self, cases: &[Case], life: usize) {
        let deaths = cases.iter().filter_map(|case| Some((case.token, *case.deaths.get(life)?)));
        self.fates.lock().unwrap().begin(deaths.collect());
        // What is made in this life is newer than it.
        self.clock.advance_seconds(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let app = edge(self.directory.path(), &self.clock, &self.world, &self.fates);
            if life == 0 {
                insert(&app, cases).await;
            }
            self.clock.advance_seconds(1);
            let recovering = Arc::clone(&app);
            // Who dies while he recovers begins anew; here each case dies by itself, so the others are taken up in another turn.
            loop {
                let app = Arc::clone(&recovering);
                if matches!(tokio::spawn(async move { recover(&app).await }).await, Ok(Ok(()))) {
                    break;
                }
            }
            let callers: Vec<_> = cases
                .iter()
                .map(|case| tokio::spawn(careful(Arc::clone(&app), case.clone(), Arc::clone(&self.fates))))
                .collect();
            for caller in callers {
                tokio::time::timeout(LIFE_MAX, caller).await.expect("a life without an end").unwrap();
            }
        });
        drop(runtime);
        let mut world = self.world.lock().unwrap();
        for case in cases.iter().filter(|case| case.forgets && case.deaths.len() > life) {
            world.forget(case.token);
        }
    }
}

/// In memory where that can be: what a disk does to a commit is another test's.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn edge(directory: &Path, clock: &ManualClock, world: &Arc<Mutex<World>>, fates: &Arc<Mutex<Fates>>) -> App {
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let options = SqliteOptions {
        directory: directory.to_owned(),
        node: "n1".to_owned(),
        clock: Arc::clone(&shared),
        pages_max: None,
    };
    let inner = Arc::new(SqliteStore::open(options).unwrap());
    let store = Arc::new(Mortal { inner, fates: Arc::clone(fates) });
    let mut edge = Edge::new(store, Keeper::new(), Arc::clone(&shared), Limits::default());
    edge.charges.pace = Pace {
        first: Duration::from_millis(1),
        longest: Duration::from_millis(20),
        longest_pending: Duration::from_millis(5),
        pending_held: Duration::from_millis(20),
        found_out: Duration::from_mins(15),
        rounds_max: 12,
    };
    let (ours, theirs) = make_pair().unwrap();
    let world = Arc::clone(world);
    std::thread::spawn(move || processor::serve(&theirs, &world));
    edge.keeper.connect(ours).unwrap();
    let now = clock.now();
    edge.directory.set_destinations(Class::ALL.into_iter().flat_map(Class::destinations).collect());
    edge.directory.set_tenants(vec![TenantInfo {
        id: TENANT,
        name: "acme".to_owned(),
        mode: Mode::Test,
        disabled: false,
        created_at: now,
    }]);
    edge.directory.set_principals(vec![PrincipalRow {
        id: PrincipalId::make(now).unwrap(),
        name: "billing".to_owned(),
        kind: PrincipalKind::Application,
        tenant: Some(TENANT),
        scopes: Vec::new(),
        credentials: Vec::new(),
        charge_max: BTreeMap::new(),
        day_max: BTreeMap::new(),
        created_at: now,
        expires_at: None,
        disabled: false,
        destinations: Vec::new(),
    }]);
    Arc::new(edge)
}

async fn insert(app: &App, cases: &[Case]) {
    let now = app.clock.now();
    let tenant =
        TenantRow { id: TENANT, name: "acme".to_owned(), mode: Mode::Test, disabled: false, created_at: now };
    let change = Change { rows: vec![RowChange::PutTenant(tenant)], ..Change::default() };
    app.store.commit(change).await.unwrap();
    let field = || SealedField { version: 1, envelope: vec![FORMAT_V1, 0, 0, 0, 7, 1] };
    let rows = cases.iter().map(|case| RowChange::InsertCard {
        card: Box::new(CardRow {
            token: case.token,
            tenant: TENANT,
            customer: None,
            metadata: BTreeMap::new(),
            shown: Some(TruncatedPan {
                first6: Some("424242".to_owned()),
                last4: "4242".to_owned(),
                brand: Brand::Visa,
                funding: None,
                country: None,
            }),
            fingerprint: FingerprintId::make(now).unwrap(),
            sealed: Some(SealedCard { policy: 0, pan: field(), expiry: field(), zip: None }),
            version: 1,
            status: CardStatus::Active,
            legal_hold: false,
            erase_asked: false,
            number_by_updater: false,
            created_at: now,
            updated_at: now,
            erased_at: None,
            scrubbed_at: None,
        }),
        fingerprint: Fingerprint::under(1, hash_of(case.token.to_string().as_bytes())),
        on_duplicate: OnDuplicate::New,
    });
    app.store.commit(Change { rows: rows.collect(), ..Change::default() }).await.unwrap();
}

/// Asks for one thing under one key until it is final; `None` if the process died over it.
async fn until_final<F>(fates: &Mutex<Fates>, token: Token, ask: impl Fn() -> F) -> Option<Value>
where
    F: Future<Output = Result<Answered, Error>> + Send + 'static,
{
    let began = Instant::now();
    loop {
        let asked = tokio::spawn(ask()).await;
        if fates.lock().unwrap().dead.contains(&token) {
            return None;
        }
        match asked.expect("nobody died") {
            Ok(answered) if answered.status == 201 => {
                return Some(serde_json::from_slice(&answered.body).unwrap());
            }
            Ok(_) | Err(Error::InProgress) => {}
            Err(error) => panic!("{error:?}"),
        }
        if began.elapsed() > LIFE_MAX {
            let row = fates.lock().unwrap().charges.values().find(|row| row.token == token).cloned();
            panic!("never final: {row:?}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A caller who wants one thing done, and asks under the same keys in every life.
async fn careful(app: App, case: Case, fates: Arc<Mutex<Fates>>) {
    let caller = Caller {
        principal: Arc::clone(&app.directory.principals()[0]),
        request: RequestId::make(app.clock.now()).unwrap(),
        ip: None,
        tenant: Some((TENANT, Mode::Test)),
    };
    let verification = matches!(case.under, Under::Verify | Under::Hold);
    let body = case.body().to_string();
    let hold = Hold(Duration::from_secs(5));
    let first = until_final(&fates, case.token, || {
        let (app, caller, body) = (Arc::clone(&app), caller.clone(), body.clone());
        let key = format!("first-{}", case.token);
        async move { create(&app, &caller, (&key, body.as_bytes()), verification, hold).await }
    });
    let (Some(charge), Some(what)) = (first.await, case.under.follow()) else { return };
    // Where nobody can be asked, a payment that a death left unknown was undone.
    if !matches!(charge["status"].as_str(), Some("approved" | "authorized")) {
        return;
    }
    let id = charge["id"].as_str().unwrap().to_owned();
    until_final(&fates, case.token, || {
        let (app, caller, id) = (Arc::clone(&app), caller.clone(), id.clone());
        let key = format!("then-{}", case.token);
        async move { follow(&app, &caller, &id, (&key, b"{}"), what, hold).await }
    })
    .await;
}
