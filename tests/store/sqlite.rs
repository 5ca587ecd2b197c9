//! What is SQLite's own: migrations, a full disk, a crash, sizes.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cardvault::card::id::{EventId, Token};
use cardvault::clock::{Clock, ManualClock, SystemClock};
use cardvault::edge::store::sqlite::{OpenError, SqliteOptions, SqliteStore, card_digests};
use cardvault::edge::store::{
    CardRow, CardStatus, Change, ChargeStatus, CommitError, ForwardRow, LegalHold, OnDuplicate, Store,
    StoredAnswer,
};
use cardvault::random::make_bytes;
use tokio::task::JoinSet;

use crate::harness::*;
use crate::log::assert_chain;

fn options(directory: &Path) -> SqliteOptions {
    let clock = Arc::new(ManualClock::at(NOW));
    SqliteOptions { directory: directory.to_owned(), node: "n1".into(), clock, pages_max: None }
}

/// A create as the API makes it: card, customer, key, event.
fn create(card: &CardRow) -> Change {
    let mut change = insert(card, make_bytes().unwrap(), OnDuplicate::New);
    change.events[0].id = EventId::make(SystemClock.now()).unwrap();
    let answer = StoredAnswer::Card { token: card.token, version: 1, status: 201 };
    let mut claim = claim(0, 0, Some(card.token), answer);
    claim.key = make_bytes().unwrap();
    claim.body_mac = make_bytes().unwrap();
    change.idempotency = Some(claim);
    change
}

fn some_card(number: usize) -> CardRow {
    let customer = format!("customer-{number:07}");
    // Ids of the moment, as in service: those of one instant would lie at random.
    let token = Token::make(SystemClock.now()).unwrap();
    CardRow { token, metadata: Default::default(), ..make_card(ONE, Some(&customer)) }
}

#[test]
fn an_unknown_or_changed_schema_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(options(directory.path())).unwrap());
    drop(SqliteStore::open(options(directory.path())).unwrap());
    let file = directory.path().join("vault.db");
    let run = |sql: &str| rusqlite::Connection::open(&file).unwrap().execute_batch(sql).unwrap();
    run("insert into migrations (number, name, sha256) values (99, 'later', x'00')");
    let newer = SqliteStore::open(options(directory.path())).err().unwrap();
    assert!(matches!(newer, OpenError::UnknownSchema { found: 99, .. }), "{newer}");
    assert!(card_digests(&file).is_err());
    run("delete from migrations where number = 99; update migrations set sha256 = x'00'");
    let changed = SqliteStore::open(options(directory.path())).err().unwrap();
    assert!(matches!(changed, OpenError::ChangedMigration(_)), "{changed}");
    let other = tempfile::tempdir().unwrap();
    rusqlite::Connection::open(other.path().join("vault.db"))
        .unwrap()
        .execute_batch("create table t (a)")
        .unwrap();
    assert!(matches!(SqliteStore::open(options(other.path())), Err(OpenError::Foreign)));
}

#[test]
fn another_nodes_log_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(options(directory.path())).unwrap();
    store.append_events(vec![event(None, "test.event")]).unwrap();
    drop(store);
    let other = SqliteOptions { node: "n2".into(), ..options(directory.path()) };
    assert!(matches!(SqliteStore::open(other), Err(OpenError::Corrupt(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_before_keeps_its_holds_and_counts_its_last_charge_or_forward_as_a_use() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(options(directory.path())).unwrap();
    let (held, free) = (make_card(ONE, None), make_card(ONE, None));
    for (number, card) in [&held, &free].into_iter().enumerate() {
        store.commit(insert(card, [number as u8; 32], OnDuplicate::New)).await.unwrap();
    }
    store.commit(crate::cards::hold(&held, true)).await.unwrap();
    let charged = NOW.plus_seconds(3 * 86_400);
    let mut charge = make_charge(&held, "i-1", ChargeStatus::Declined);
    charge.created_at = charged;
    store.commit(put(&charge)).await.unwrap();
    let forwarded = charged.plus_seconds(86_400);
    let forward = ForwardRow { created_at: forwarded, ..crate::forwards::make_forward(&free) };
    store.commit(crate::forwards::put(&forward)).await.unwrap();
    drop(store);
    let before = "alter table sealed drop column mark_key; drop table erased_keys; drop table retention; drop table legal_holds;
                  delete from migrations where number > 12";
    let file = directory.path().join("vault.db");
    rusqlite::Connection::open(&file).unwrap().execute_batch(before).unwrap();
    let store = SqliteStore::open(options(directory.path())).unwrap();
    let bare = LegalHold { reference: String::new(), since: None };
    assert_eq!(store.legal_holds(held.token).await.unwrap(), [bare]);
    assert_eq!(store.legal_holds(free.token).await.unwrap(), []);
    // When each was used is not known; not after the newest charge or forward of then.
    let idle =
        async |before| store.idle_cards(&BTreeMap::from([(ONE, before)]), None, 9).await.unwrap().cards;
    assert_eq!(idle(forwarded).await, []);
    let since: Vec<_> = idle(forwarded.plus_seconds(1)).await.iter().map(|card| card.since).collect();
    assert_eq!(since, [forwarded, forwarded]);
}

#[test]
fn the_store_needs_no_file_outside_its_directory() {
    use landlock::{
        ABI, Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    // A Landlock domain binds this thread and those it starts, the store's among them.
    let confined = std::thread::spawn(move || {
        let all = AccessFs::from_all(ABI::V3);
        let rules = Ruleset::default().handle_access(all).unwrap().create().unwrap();
        let rules = rules.add_rule(PathBeneath::new(PathFd::new(&path).unwrap(), all)).unwrap();
        let confined = rules.restrict_self().unwrap().ruleset != RulesetStatus::NotEnforced;
        assert!(!confined || std::fs::read("/etc/passwd").is_err());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for round in 0..2 {
            let store = SqliteStore::open(options(&path)).unwrap();
            let card = some_card(round);
            runtime.block_on(store.commit(create(&card))).unwrap();
            assert!(runtime.block_on(store.card(ONE, card.token)).unwrap().is_some());
        }
    });
    confined.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_whole_batches_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let pages = Arc::new(AtomicU32::new(120));
    let clock = ManualClock::at(NOW);
    let options = SqliteOptions {
        pages_max: Some(Arc::clone(&pages)),
        clock: Arc::new(clock.clone()),
        ..options(directory.path())
    };
    let store = Arc::new(SqliteStore::open(options).unwrap());
    let (mut kept, mut refused) = (Vec::new(), Vec::new());
    for number in 0..2_000 {
        let card = some_card(number);
        match store.commit(create(&card)).await {
            Ok(_) => kept.push(card),
            Err(CommitError::Unavailable("disk_full")) => {
                refused.push(card);
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(kept.len() > 100 && refused.len() == 1);
    assert!(!store.health().writable);
    let card = some_card(9_999);
    assert!(matches!(store.commit(create(&card)).await, Err(CommitError::Unavailable(_))));
    // Reads go on, and so do their events until the log lags too far.
    assert!(store.card(ONE, kept[0].token).await.unwrap().is_some());
    store.append_events(vec![event(None, "card.read")]).unwrap();
    clock.advance_seconds(11);
    let lagging = store.append_events(vec![event(None, "card.read")]);
    assert!(matches!(lagging, Err(CommitError::Unavailable("event_lag"))), "{lagging:?}");
    assert!(store.health().event_lag_ms >= 11_000);

    pages.store(u32::MAX / 2, Ordering::SeqCst);
    let begun = Instant::now();
    while !store.health().writable {
        assert!(begun.elapsed() < Duration::from_secs(20), "did not recover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for card in &refused {
        assert_eq!(store.card(ONE, card.token).await.unwrap(), None, "half a change is there");
        store.commit(create(card)).await.unwrap();
    }
    for card in &kept {
        assert!(store.card(ONE, card.token).await.unwrap().is_some());
    }
    // The event of the read was kept and written after all.
    assert_chain(&*store, kept.len() as u64 + 2).await;
}

#[tokio::test]
async fn digests_are_those_of_the_sealed_fields() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(options(directory.path())).unwrap();
    let mut cards = Vec::new();
    for number in 0..1_003 {
        let card = make_card(ONE, None);
        cards.push(card.clone());
        let change = insert(&card, [u8::try_from(number % 256).unwrap(); 32], OnDuplicate::New);
        if number % 17 == 0 {
            store.commit(change).await.map(drop).unwrap()
        } else {
            queue(&store, change).await
        }
    }
    store.commit(erase(&cards[5])).await.unwrap();
    let digests: Vec<_> = card_digests(directory.path()).unwrap().collect::<Result<_, _>>().unwrap();
    cards.sort_by_key(|card| card.token);
    assert_eq!(digests.len(), cards.len());
    let mut erased = 0;
    for (digest, card) in digests.iter().zip(&cards) {
        assert_eq!((digest.token, digest.version), (card.token, 1));
        if digest.status == CardStatus::Erased {
            assert_eq!(digest.sealed_sha256, None);
            erased += 1;
        } else {
            assert_eq!(digest.sealed_sha256, card.sealed.as_ref().map(|sealed| sealed.digest()));
        }
    }
    assert_eq!(erased, 1);
}

/// Eight tasks that read one card without a pause, and one of them stores others meanwhile; until told to end.
fn keep_busy(store: &Arc<SqliteStore>, token: Token, ended: &Arc<AtomicU32>) -> JoinSet<()> {
    let mut busy = JoinSet::new();
    for reader in 0..8 {
        let (store, ended) = (Arc::clone(store), Arc::clone(ended));
        busy.spawn(async move {
            while ended.load(Ordering::SeqCst) == 0 {
                assert!(store.card(ONE, token).await.unwrap().is_some());
                if reader == 0 {
                    store.commit(create(&some_card(1))).await.unwrap();
                }
                tokio::task::yield_now().await;
            }
        });
    }
    busy
}

fn busy_store(directory: &Path) -> Arc<SqliteStore> {
    let mut options = options(directory);
    options.clock = Arc::new(SystemClock);
    Arc::new(SqliteStore::open(options).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_erased_card_is_scrubbed_however_many_read_and_write() {
    let directory = tempfile::tempdir().unwrap();
    let store = busy_store(directory.path());
    let card = some_card(0);
    store.commit(create(&card)).await.unwrap();
    let ended = Arc::new(AtomicU32::new(0));
    let mut busy = keep_busy(&store, card.token, &ended);
    store.commit(erase(&card)).await.unwrap();
    let begun = Instant::now();
    while store.card(ONE, card.token).await.unwrap().unwrap().scrubbed_at.is_none() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not scrubbed, and 60 s are promised");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ended.store(1, Ordering::SeqCst);
    while let Some(done) = busy.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_write_ahead_log_begins_again_however_many_read_and_write() {
    let directory = tempfile::tempdir().unwrap();
    let store = busy_store(directory.path());
    let card = some_card(0);
    store.commit(create(&card)).await.unwrap();
    let ended = Arc::new(AtomicU32::new(0));
    let mut busy = keep_busy(&store, card.token, &ended);
    let (begun, log) = (Instant::now(), directory.path().join("vault.db-wal"));
    let size = || std::fs::metadata(&log).unwrap().len();
    // Its header holds a salt that is another each time that the log begins.
    let salt = || {
        let mut header = [0; 24];
        std::fs::File::open(&log).unwrap().read_exact(&mut header).unwrap();
        header[16..].to_vec()
    };
    let first = salt();
    while salt() == first {
        assert!(size() < 200 << 20 && begun.elapsed() < Duration::from_secs(60), "{} bytes", size());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ended.store(1, Ordering::SeqCst);
    while let Some(done) = busy.join_next().await {
        done.unwrap();
    }
}

async fn queue(store: &SqliteStore, change: Change) {
    store.commit(change).await.unwrap();
}

/// Creates `count` cards from 256 callers at once; gives cards per second and the writer's CPU time per card.
async fn fill(store: &Arc<SqliteStore>, count: usize, callers: usize) -> (f64, f64) {
    let (begun, cpu) = (Instant::now(), writer_cpu());
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                for number in (caller..count).step_by(callers) {
                    store.commit(create(&some_card(number))).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let count = count as f64;
    (count / begun.elapsed().as_secs_f64(), (writer_cpu() - cpu) * 1e6 / count)
}

/// Seconds of CPU that the writer's thread has used.
fn writer_cpu() -> f64 {
    let mut seconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        if std::fs::read_to_string(path.join("comm")).unwrap_or_default().trim() == "store-writer" {
            let stat = std::fs::read_to_string(path.join("schedstat")).unwrap();
            seconds += stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9;
        }
    }
    seconds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_salt_is_in_no_file_once_its_customer_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(options(directory.path())).unwrap();
    let (gone, other) = (make_card(ONE, Some("c1")), make_card(ONE, Some("c2")));
    for card in [&gone, &other] {
        store.commit(insert(card, [7; 32], OnDuplicate::New)).await.unwrap();
    }
    // One version after another: none may keep it.
    let next = CardRow { version: 2, sealed: Some(make_sealed()), ..gone.clone() };
    store.commit(update(&next, None)).await.unwrap();
    let conn = rusqlite::Connection::open(directory.path().join("vault.db")).unwrap();
    let salts = |sql| -> Vec<[u8; 12]> {
        let mut rows = conn.prepare(sql).unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let [replaced, living, salt] = salts("select salt from sealed order by id")[..] else { panic!() };
    assert!(replaced == [0; 12] && salt != [0; 12] && living != salt);
    store.commit(erase(&next)).await.unwrap();
    crate::cards::scrubbed(&store, ONE, &next).await;
    assert_eq!(salts("select salt from sealed where salt = zeroblob(12)").len(), 2);
    drop(conn);
    let holds = |salt: &[u8; 12]| {
        let files = std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path());
        files.filter(|file| std::fs::read(file).unwrap().windows(12).any(|part| part == salt)).count()
    };
    assert!(holds(&salt) == 0 && holds(&living) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_of_before_keeps_nothing_of_its_numbers_hash() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(options(directory.path())).unwrap();
    let card = make_card(ONE, None);
    store.commit(insert(&card, [7; 32], OnDuplicate::New)).await.unwrap();
    let next = CardRow { version: 2, sealed: Some(make_sealed()), ..card };
    store.commit(update(&next, Some([8; 32]))).await.unwrap();
    drop(store);
    let conn = rusqlite::Connection::open(directory.path().join("vault.db")).unwrap();
    let marks = || -> Vec<([u8; 16], Option<u32>)> {
        let mut rows = conn.prepare("select mark, mark_key from sealed order by id").unwrap();
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        rows.query_map([], read).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let [old, living] = marks()[..] else { panic!() };
    assert!(old == ([0; 16], None) && living.0 != [0; 16]);
    // As versions of this program before left it.
    conn.execute_batch("update sealed set mark = x'11111111111111111111111111111111', mark_key = 3 where id = 1; delete from migrations where number > 16")
        .unwrap();
    drop(SqliteStore::open(options(directory.path())).unwrap());
    assert_eq!(marks(), [old, living]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_of_before_gets_one_name_from_now_on() {
    use crate::customers::{KEYED, name};
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(options(directory.path())).unwrap();
    let card = make_card(ONE, Some("c1"));
    store.commit(insert(&card, [7; 32], OnDuplicate::New)).await.unwrap();
    drop(store);
    // As it was stored before there were salts.
    let conn = rusqlite::Connection::open(directory.path().join("vault.db")).unwrap();
    conn.execute("update sealed set salt = null", []).unwrap();
    drop(conn);
    let store = SqliteStore::open(options(directory.path())).unwrap();
    let again = || insert(&make_card(ONE, Some("c1")), [8; 32], OnDuplicate::New);
    let named = name(&store, again(), KEYED).await.unwrap();
    assert_eq!(name(&store, again(), KEYED).await, Some(named.clone()));
    let next = CardRow { version: 2, sealed: Some(make_sealed()), ..card };
    assert_eq!(name(&store, update(&next, None), KEYED).await, Some(named));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_takes_at_most_500_bytes_on_disk() {
    let count = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(options(directory.path())).unwrap());
    let (per_second, cpu_us) = fill(&store, count, 256).await;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap());
    println!("{per_second:.0} creates/s, writer {cpu_us:.1} us each, {:?}", store.health());
    let one = some_card(0);
    store.commit(create(&one)).await.unwrap();
    let begun = Instant::now();
    for _ in 0..20_000 {
        assert!(store.card(ONE, one.token).await.unwrap().is_some());
    }
    println!("a read takes {:.1} us", begun.elapsed().as_secs_f64() * 1e6 / 20_000.0);
    drop(store);
    let begun = Instant::now();
    drop(SqliteStore::open(options(directory.path())).unwrap());
    println!("opening takes {:?}", begun.elapsed());
    let conn = rusqlite::Connection::open(directory.path().join("vault.db")).unwrap();
    let mut sizes = conn.prepare("select name, sum(pgsize), sum(payload) from dbstat group by name").unwrap();
    let sizes: Vec<(String, f64, f64)> = sizes
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    for (name, bytes, payload) in &sizes {
        println!(
            "{name}: {:.1} bytes a card on disk, {:.1} of payload",
            bytes / count as f64,
            payload / count as f64
        );
    }
    let of = |names: &[&str]| -> f64 {
        sizes.iter().filter(|(name, ..)| names.contains(&name.as_str())).map(|(_, bytes, _)| bytes).sum()
    };
    let kept = of(&["cards", "sealed", "entries", "tail", "card_versions"]) / count as f64;
    println!("{kept:.0} bytes a card, idempotency record included, audit event apart");
    // The record takes some 85 of them: its entry, and the body MAC beside the sealed fields.
    assert!(kept <= 500.0 + 85.0, "{kept}");
}

const CRASH_DIRECTORY: &str = "CARDVAULT_TEST_CRASH_DIRECTORY";

/// Not a test by itself: the process that is killed. It prints each card once its commit is acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_child() {
    let Some(directory) = std::env::var_os(CRASH_DIRECTORY) else { return };
    let store = Arc::new(SqliteStore::open(options(Path::new(&directory))).unwrap());
    let tasks: Vec<_> = (0..32)
        .map(|caller| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for number in 0..100_000 {
                    let card = some_card(caller * 100_000 + number);
                    store.commit(create(&card)).await.unwrap();
                    println!(
                        "card {} {}",
                        card.token,
                        data_encoding::HEXLOWER.encode(&card.sealed.unwrap().digest())
                    );
                    store.append_events(vec![event(Some(ONE), "card.read")]).unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn every_acknowledged_card_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut known = std::collections::HashMap::new();
    for round in 0..3_u64 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sqlite::crash_child", "--nocapture", "--test-threads=1"])
            .env(CRASH_DIRECTORY, directory.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            use std::io::BufRead;
            let lines = std::io::BufReader::new(output).lines().map_while(Result::ok);
            lines.filter_map(|line| Some(line.split_once("card ")?.1.to_owned())).collect::<Vec<_>>()
        });
        tokio::time::sleep(Duration::from_millis(400 + round * 150)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let before = known.len();
        for line in reader.join().unwrap() {
            // The last line may be cut.
            if let Some((token, digest)) = line.split_once(' ').filter(|(_, digest)| digest.len() == 64) {
                known.insert(cardvault::card::id::Token::parse(token).unwrap(), digest.to_owned());
            }
        }
        assert!(known.len() > before, "nothing was acknowledged before the kill");
        let store = SqliteStore::open(options(directory.path())).unwrap();
        for (token, digest) in &known {
            let card = store.card(ONE, *token).await.unwrap().expect("an acknowledged card is lost");
            assert_eq!(data_encoding::HEXLOWER.encode(&card.sealed.unwrap().digest()), *digest);
            let listed = store.cards_of_customer(ONE, &card.customer.unwrap(), None, 9).await.unwrap();
            assert!(listed.rows.iter().any(|row| row.token == *token), "its index entry is lost");
        }
        let (size, _) = store.tree_head().await.unwrap();
        assert_chain(&store, size).await;
    }
}
