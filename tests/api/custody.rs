//! Custodians of a real vault: the ceremony, the start with their shares, a custodian who leaves, and everything that is refused.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use cardvault::card::tenant::Mode;
use serde_json::Value;

use crate::common::{BILLING, Vault, card, count_of, events, name, numbers, run, store, text, wait_for};
use crate::terminal::Terminal;

const FIVE: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];
const ACCEPT: &str = "I acknowledge";

/// A vault and the people around it, each with a key file of their own.
pub(crate) struct Custody {
    pub(crate) vault: Vault,
}

impl Custody {
    fn of(vault: Vault) -> Self {
        let custody = Self { vault };
        for person in FIVE.iter().chain(&["frank"]) {
            let public = custody.keygen(person);
            custody.run(&["person", "add", person, &public]);
        }
        custody
    }

    /// Makes a person's key file; gives the public half.
    pub(crate) fn keygen(&self, person: &str) -> String {
        let (code, public) = run(&["person", "keygen", name(&self.key(person))]);
        assert_eq!(code, 0, "{public}");
        public.trim().to_owned()
    }

    /// A command that must be carried out: what it printed.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        let (code, said) = run(&[args, &["--config", name(&self.vault.config())]].concat());
        assert_eq!(code, 0, "{args:?}: {said}");
        said
    }

    /// What alice asks for and bob approves.
    pub(crate) fn by_two(&self, args: &[&str]) {
        let said = self.run(&[&["--as", name(&self.key("alice"))], args].concat());
        let id = said.split_whitespace().find(|word| word.starts_with("apr_")).unwrap();
        self.run(&["--as", name(&self.key("bob")), "approvals", "approve", id]);
    }

    pub(crate) fn key(&self, person: &str) -> PathBuf {
        self.vault.beside(&format!("{person}.key"))
    }

    fn share(&self, person: &str, ceremony: &str) -> PathBuf {
        self.vault.beside(&format!("{person}-{ceremony}.share"))
    }

    fn keys(&self, args: &[&str]) -> (i32, String) {
        run(&[&["keys", "--config", name(&self.vault.config())], args].concat())
    }

    fn done(&self, args: &[&str]) -> String {
        let (code, said) = self.keys(args);
        assert_eq!(code, 0, "{args:?}: {said}");
        said
    }

    pub(crate) fn refused(&self, args: &[&str], word: &str) {
        let (code, said) = self.keys(args);
        assert!(code == 1 && said.contains(word), "{args:?} should say {word}: {said}");
    }

    fn terminal(&self, args: &[&str]) -> Terminal {
        Terminal::run(&[&["keys", "--config", name(&self.vault.config())], args].concat())
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.done(&["ceremony", "status"])).unwrap()
    }

    fn begin(&self, custodians: &[&str], rehearsal: bool) {
        let mut args = vec!["ceremony", "begin"];
        custodians.iter().for_each(|person| args.extend(["--custodian", person]));
        if rehearsal {
            args.push("--rehearsal");
        }
        self.done(&args);
    }

    /// At a terminal: the form is shown, and signed by typing.
    fn acknowledge(&self, person: &str) {
        let key = self.key(person);
        let mut terminal = self.terminal(&["ceremony", "acknowledge", "--key", name(&key)]);
        terminal.expect("My share is mine alone");
        terminal.expect("to sign this: ");
        terminal.type_line(ACCEPT);
        let (code, said) = terminal.end();
        assert!(code == 0 && said.contains("have acknowledged the form"), "{said}");
    }

    fn collect(&self, person: &str, ceremony: &str) -> String {
        let (key, out) = (self.key(person), self.share(person, ceremony));
        let mut args = vec!["ceremony", "collect", "--key", name(&key), "--out", name(&out)];
        if ceremony == "rehearsal" {
            args.push("--rehearsal");
        }
        self.done(&args)
    }

    fn unseal(&self, person: &str, ceremony: &str) -> (i32, String) {
        let (key, share) = (self.key(person), self.share(person, ceremony));
        let mut args = vec!["unseal", "--key", name(&key), "--share", name(&share)];
        let (_, status) = self.keys(&["ceremony", "status"]);
        let status: Value = serde_json::from_str(&status).unwrap_or_default();
        let purpose = status["gathering"]["purpose"].as_str().unwrap_or("open");
        if ceremony == "rehearsal" {
            args.push("--rehearsal");
        } else {
            args.extend(["--for", purpose]);
        }
        self.keys(&args)
    }

    fn gives(&self, person: &str, ceremony: &str, word: &str) {
        let (code, said) = self.unseal(person, ceremony);
        assert!(code == 0 && said.contains(word), "{person}: {said}");
    }

    fn is_refused(&self, person: &str, ceremony: &str, word: &str) {
        let (code, said) = self.unseal(person, ceremony);
        assert!(code == 1 && said.contains(word), "{person} should be told {word}: {said}");
    }

    /// All three of the first three give their shares.
    fn open(&self) {
        for (person, word) in [("carol", "1 of 3"), ("bob", "2 of 3"), ("alice", "the vault opens")] {
            self.gives(person, "first", word);
        }
        self.vault.wait_until_ready();
    }

    pub(crate) fn provider(&self) -> String {
        let file: Value =
            serde_json::from_slice(&fs::read(self.vault.path("keys/keystore.json")).unwrap()).unwrap();
        let keys = file["keys"].as_array().unwrap().iter();
        let kek = keys.rev().find(|key| key["purpose"] == "kek" && key["state"] == "active").unwrap();
        kek["provider"].as_str().unwrap().to_owned()
    }

    fn wait_for_custodians(&self) {
        self.wait_until("waiting_for_custodians");
    }

    pub(crate) fn wait_until(&self, word: &str) {
        let sealed = format!("\"sealed\":\"{word}\"");
        wait_for(word, || self.vault.plain("/readyz").contains(&sealed).then_some(()));
    }

    fn rehearse(&self) {
        self.begin(&["alice", "bob", "carol"], true);
        ["alice", "bob", "carol"].iter().for_each(|person| self.acknowledge(person));
        self.done(&["ceremony", "issue"]);
        ["alice", "bob", "carol"].iter().for_each(|person| drop(self.collect(person, "rehearsal")));
        self.gives("carol", "rehearsal", "share 3 is there; 1 of 3");
        self.gives("alice", "rehearsal", "share 1 is there; 2 of 3");
        self.gives("bob", "rehearsal", "nothing real was touched");
        assert_eq!((self.provider().as_str(), &self.status()["active"]), ("file", &Value::Null));
    }

    /// The real one: alice writes her share down from the terminal, the others take a file.
    fn hold(&self) -> String {
        self.begin(&FIVE, false);
        self.refused(&["ceremony", "issue"], "alice has not acknowledged the form: no share is issued");
        let frank = self.key("frank");
        let mut terminal = self.terminal(&["ceremony", "acknowledge", "--key", name(&frank)]);
        terminal.expect("to sign this: ");
        terminal.type_line(ACCEPT);
        assert!(terminal.end().1.contains("you are no custodian of this ceremony"));
        FIVE.iter().for_each(|person| self.acknowledge(person));
        let said = self.done(&["ceremony", "issue"]);
        assert!(said.contains("5 shares are made, 3 of them give the secret"), "{said}");
        for person in &FIVE[1..] {
            let said = self.collect(person, "first");
            assert!(said.contains("once all custodians have theirs"), "{said}");
        }
        // The vault still goes by the file.
        assert_eq!(self.provider(), "file");
        let alice = self.key("alice");
        let config = self.vault.config();
        let mut terminal = Terminal::run_in_session(&[
            "keys",
            "--config",
            name(&config),
            "ceremony",
            "collect",
            "--key",
            name(&alice),
            "--show",
        ]);
        terminal.expect("never shown again: ");
        let shown = terminal.screen();
        let share: String = shown[shown.find("cvshare1").unwrap()..]
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric())
            .collect();
        // Ctrl-C and Ctrl-Z do not leave it on the screen.
        terminal.type_line("\u{3}\u{1a}");
        terminal.expect("Type it from your paper");
        let before = terminal.screen();
        terminal.type_line(&share);
        let (code, said) = terminal.end();
        assert!(code == 0 && said.contains("all 5 shares are confirmed"), "{said}");
        assert!(
            before.contains("\u{1b}[2J\u{1b}[3J") && before.contains("\u{1b}[?1049l"),
            "the screen is not wiped"
        );
        assert!(!said[before.len()..].contains("cvshare1"), "what is typed is shown");
        assert_eq!(self.provider(), "shares");
        let again = ["ceremony", "collect", "--key", name(&alice), "--show"];
        self.refused(&again, "no shares wait to be collected");
        share
    }

    /// Everything that does not open the vault, while two shares are there.
    fn try_what_is_refused(&self, alices: &str) {
        self.is_refused("frank", "first", "cannot be read");
        self.gives("bob", "first", "share 2 is there; 1 of 3");
        self.is_refused("bob", "first", "share 2 is there already; another custodian has to give theirs");
        self.gives("carol", "first", "share 3 is there; 2 of 3");
        // A share that is another's, whoever comes with it.
        let mut terminal = self.terminal(&["unseal", "--key", name(&self.key("dave"))]);
        terminal.expect("Your share (not shown): ");
        terminal.type_line(alices);
        let (code, said) = terminal.end();
        assert!(
            code == 1 && said.contains("share 1: it is another person's") && !said.contains(alices),
            "{said}"
        );
        let mut terminal = self.terminal(&["unseal", "--key", name(&self.key("frank"))]);
        terminal.expect("Your share (not shown): ");
        terminal.type_line(alices);
        assert!(terminal.end().1.contains("you hold no share of this ceremony"));
        fs::copy(self.share("bob", "first"), self.share("alice", "bobs")).unwrap();
        self.is_refused("alice", "bobs", "not sealed to you");
        // One of the rehearsal, one that was mistyped.
        let (key, share) = (self.key("alice"), self.share("alice", "rehearsal"));
        self.refused(&["unseal", "--key", name(&key), "--share", name(&share)], "not sealed to you");
        let mut terminal = self.terminal(&["unseal", "--key", name(&key)]);
        terminal.expect("Your share (not shown): ");
        let wrong = if alices.ends_with('a') { 'b' } else { 'a' };
        terminal.type_line(&format!("{}{wrong}", &alices[..alices.len() - 1]));
        assert!(terminal.end().1.contains("the share is damaged"));
        let (code, said) = self.keys(&["list"]);
        assert!(code == 1 && said.contains("3 of 5 custodians have to give their shares"), "{said}");
        self.wait_for_custodians();
    }
}

/// Reads the card that was stored.
async fn reads(vault: &Vault, credential: &str, path: &str) {
    let read = vault.client(credential).get(path).await.unwrap();
    assert_eq!(read.status, 200, "{}", text(&read));
}

#[tokio::test]
async fn three_of_five_custodians_open_the_vault_and_nobody_else() {
    let mut custody = Custody::of(Vault::start());
    custody.vault.tenant("acme", Mode::Test);
    let credential = custody.vault.principal(crate::common::order("billing", Some("acme"), &BILLING));
    let card = store(&custody.vault.client(&credential), "k", &card(&numbers::volume(1), "c")).await;
    let path = format!("/v1/tokens/{}", card["id"].as_str().unwrap());
    for (args, word) in [
        (vec!["--custodian", "alice", "--custodian", "alice", "--custodian", "bob"], "named twice"),
        (vec!["--custodian", "alice", "--custodian", "bob"], "a threshold of 2 up to their number"),
        (vec!["--custodian", "alice", "--custodian", "nobody"], "nobody: there is no such person"),
    ] {
        custody.refused(&[&["ceremony", "begin"], args.as_slice()].concat(), word);
    }
    custody.rehearse();
    let alices = custody.hold();
    reads(&custody.vault, &credential, &path).await;
    custody.vault.stop();
    // The file of root keys is of no use any more.
    fs::remove_file(custody.vault.path("keys/root.key")).unwrap();
    custody.vault.serve_sealed();
    custody.wait_for_custodians();
    custody.try_what_is_refused(&alices);
    custody.gives("dave", "first", "the vault opens");
    custody.vault.wait_until_ready();
    reads(&custody.vault, &credential, &path).await;

    // A KEK takes over once enough custodians want it.
    let said = custody.done(&["rotate", "kek"]);
    assert!(said.contains("0 of 3 shares are there"), "{said}");
    custody.refused(&["move-root", "--to", "file"], "shares are being given to rotate_kek");
    // Who comes to open the vault does not give a share to something else.
    let (key, share) = (custody.key("erin"), custody.share("erin", "first"));
    let to_open = ["unseal", "--key", name(&key), "--share", name(&share)];
    custody.refused(&to_open, "if you mean rotate_kek, say --for rotate_kek");
    // Keys that are made before they have all come are no matter.
    custody.vault.tenant("meanwhile", Mode::Test);
    for (person, word) in [("erin", "1 of 3"), ("bob", "2 of 3"), ("carol", "keys are wrapped under key")] {
        custody.gives(person, "first", word);
    }
    // A keeper that dies needs them again.
    crate::common::signal(custody.vault.process("keeper"), rustix::process::Signal::KILL);
    custody.wait_for_custodians();
    for (person, word) in [("erin", "1 of 3"), ("dave", "2 of 3"), ("carol", "the vault opens")] {
        custody.gives(person, "first", word);
    }
    custody.vault.wait_until_ready();
    reads(&custody.vault, &credential, &path).await;

    replace_erin(&mut custody, &alices).await;
    reads(&custody.vault, &credential, &path).await;
    move_to_the_file(&mut custody);
    look_into_the_log(&mut custody, &alices).await;
}

/// Erin leaves and frank comes: another secret, and her share opens nothing.
async fn replace_erin(custody: &mut Custody, alices: &str) {
    let now = ["alice", "bob", "carol", "dave", "frank"];
    custody.begin(&now, false);
    now.iter().for_each(|person| custody.acknowledge(person));
    // Not without the custodians of now.
    let said = custody.done(&["ceremony", "issue"]);
    assert!(said.contains("0 of 3 shares are there"), "{said}");
    custody.gives("bob", "first", "1 of 3");
    custody.refused(&["ceremony", "begin", "--custodian", "erin", "--custodian", "bob"], "make new ones");
    custody.gives("erin", "first", "2 of 3");
    let before = fs::read(custody.vault.path("keys/keystore.json")).unwrap();
    custody.gives("carol", "first", "5 shares are made");
    assert_ne!(before, fs::read(custody.vault.path("keys/keystore.json")).unwrap());
    now.iter().for_each(|person| drop(custody.collect(person, "second")));
    custody.vault.stop();
    custody.vault.serve_sealed();
    custody.wait_for_custodians();
    let mut terminal = custody.terminal(&["unseal", "--key", name(&custody.key("alice"))]);
    terminal.expect("Your share (not shown): ");
    terminal.type_line(alices);
    let (code, said) = terminal.end();
    assert!(code == 1 && said.contains("share 1: it is of another ceremony"), "{said}");
    custody.is_refused("erin", "first", "not sealed to you");
    custody.gives("alice", "second", "1 of 3");
    // What was given is forgotten on request; what was signed for it is of no use then.
    custody.done(&["unseal", "--cancel"]);
    for (person, word) in
        [("frank", "share 5 is there; 1 of 3"), ("bob", "2 of 3"), ("carol", "the vault opens")]
    {
        custody.gives(person, "second", word);
    }
    custody.vault.wait_until_ready();
}

async fn look_into_the_log(custody: &mut Custody, alices: &str) {
    let events = events(&custody.vault.assessor()).await;
    for (action, count) in [
        ("ceremony.begin", 3),
        ("custodian.acknowledge", 13),
        ("share.issue", 10),
        ("share.confirm", 10),
        ("ceremony.end", 2),
        ("vault.unseal", 3),
    ] {
        assert_eq!(count_of(&events, action), count, "{action}");
    }
    let refused = events.iter().filter(|event| event["action"] == "share.give" && event["outcome"] != "ok");
    assert!(refused.count() >= 4);
    let end = events.iter().rfind(|event| event["action"] == "ceremony.end").unwrap();
    assert!(end["facts"]["note"].as_str().unwrap().starts_with("kcv "), "{end}");
    assert_eq!(end["facts"]["fields"].as_array().unwrap().len(), 5);
    custody.vault.stop();
    let (code, said) = custody.vault.verify();
    assert_eq!(code, 0, "{said}");
    // No share is in anything that the vault keeps or writes.
    let kept = fs::read_to_string(custody.vault.path("keys/keystore.json")).unwrap() + &custody.vault.log();
    assert!(!kept.contains(&alices[8..40]));
}

/// Back to the file, in development: with the custodians, not without.
fn move_to_the_file(custody: &mut Custody) {
    let root = custody.vault.path("keys/root.key");
    File::options().write(true).create_new(true).mode(0o600).open(&root).unwrap();
    let said = custody.done(&["move-root", "--to", "file"]);
    assert!(said.contains("0 of 3 shares"), "{said}");
    assert_eq!(custody.provider(), "shares");
    for (person, word) in [("carol", "1 of 3"), ("bob", "2 of 3"), ("alice", "wrapped by file now")] {
        custody.gives(person, "second", word);
    }
    assert_eq!(custody.provider(), "file");
    custody.vault.stop();
    custody.vault.serve();
}

/// How often an action is in the log, straight from the database: nobody reads it yet.
fn logged(vault: &Vault, action: &str) -> usize {
    let database = vault.database();
    let mut segments = database.prepare("select leaves from log_segments").unwrap();
    let leaves = segments.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    let action = format!("\"action\":\"{action}\"");
    leaves.map(|leaves| String::from_utf8_lossy(&leaves.unwrap()).matches(&action).count()).sum()
}

/// A certificate as production takes it.
pub(crate) fn write_certificate(vault: &Vault) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(vault.path("tls/own.pem"), made.cert.pem()).unwrap();
    fs::write(vault.path("tls/own.key"), made.signing_key.serialize_pem()).unwrap();
}

/// In production whoever only holds the socket looks on, a person whom one alone registered signs in vain, and as many custodians
/// remain as open the vault.
fn try_whose_signatures_count(custody: &Custody) {
    let config = custody.vault.config();
    let disable = ["principal", "--config", name(&config), "disable", "nobody"];
    let as_person = |person: &str| run(&[&["--as", name(&custody.key(person))], disable.as_slice()].concat());
    for ((code, said), word) in [
        (run(&disable), "signed by a registered person"),
        (as_person("frank"), "registered by one alone"),
        (as_person("alice"), "no such principal"),
        (
            run(&[
                "--as",
                name(&custody.key("bob")),
                "person",
                "--config",
                name(&config),
                "disable",
                "carol",
            ]),
            "too few custodians",
        ),
    ] {
        assert!(code == 1 && said.contains(word), "{word}: {said}");
    }
}

#[tokio::test]
async fn custodians_make_the_first_kek_and_production_starts_with_them() {
    let mut custody = Custody { vault: Vault::make_by(&["--provider", "shares"], |config| config) };
    assert!(!custody.vault.path("keys/root.key").exists());
    custody.vault.serve_sealed();
    custody.wait_for_custodians();
    custody.refused(&["list"], "there is no KEK yet: register custodians");
    // Somebody whom one alone registered, in development.
    let frank = custody.keygen("frank");
    custody.run(&["person", "add", "frank", &frank]);
    custody.vault.stop();

    // Production: no sandbox, a certificate of its own, and persons whom two have registered.
    write_certificate(&custody.vault);
    let config = fs::read_to_string(custody.vault.config()).unwrap();
    let production = config[..config.find("[destination.sandbox]").unwrap()]
        .replace("\"development\"", "\"production\"")
        .replace("tls/server.", "tls/own.")
        + "[erasure]\nkey_backups_kept_days = 0\n";
    fs::write(custody.vault.config(), &production).unwrap();
    custody.vault.serve_sealed();
    custody.wait_until("configuration_not_approved");
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|person| custody.keygen(person));
    custody.by_two(&["person", "found", "alice", &alice, "bob", &bob]);
    custody.by_two(&["person", "add", "carol", &carol]);
    custody.by_two(&["reload"]);
    custody.wait_for_custodians();
    custody.refused(&["unseal", "--key", name(&custody.key("alice"))], "no ceremony's shares are in use");
    let with_frank = ["--custodian", "alice", "--custodian", "bob", "--custodian", "frank"];
    custody.refused(&[&["ceremony", "begin"], &with_frank[..]].concat(), "frank was registered by one alone");
    custody.begin(&["alice", "bob", "carol"], false);
    ["alice", "bob", "carol"].iter().for_each(|person| custody.acknowledge(person));
    custody.done(&["ceremony", "issue"]);
    ["alice", "bob", "carol"].iter().for_each(|person| drop(custody.collect(person, "first")));
    custody.open();
    try_whose_signatures_count(&custody);
    custody.refused(&["move-root", "--to", "file"], "signed by a registered person");
    // What was done before there was a log comes into it.
    for (action, count) in
        [("ceremony.end", 1), ("share.confirm", 3), ("person.create", 4), ("approval.execute", 3)]
    {
        wait_for(action, || (logged(&custody.vault, action) == count).then_some(()));
    }
    custody.vault.stop();

    // The wrapped KEK with one byte changed: the shares are right, and nothing opens.
    let keystore = custody.vault.path("keys/keystore.json");
    let own = fs::read(&keystore).unwrap();
    let mut edited: Value = serde_json::from_slice(&own).unwrap();
    let kek = edited["keys"].as_array_mut().unwrap().iter_mut().find(|key| key["purpose"] == "kek").unwrap();
    let wrapped = kek["wrapped"].as_str().unwrap().to_owned();
    let other = if wrapped.as_bytes()[20] == b'A' { "B" } else { "A" };
    kek["wrapped"] = Value::String(format!("{}{other}{}", &wrapped[..20], &wrapped[21..]));
    fs::write(&keystore, edited.to_string()).unwrap();
    custody.vault.serve_sealed();
    custody.wait_for_custodians();
    custody.gives("alice", "first", "1 of 3");
    custody.gives("bob", "first", "2 of 3");
    custody.is_refused("carol", "first", "the KEK in the key store is not wrapped under their secret");
    custody.vault.stop();
    fs::write(&keystore, &own).unwrap();

    // One whose KEK lies in a file does not start there, whatever the configuration says.
    let text = String::from_utf8(own).unwrap().replace("\"provider\": \"shares\"", "\"provider\": \"file\"");
    fs::write(&keystore, text).unwrap();
    let (code, said) = run(&["serve", "--config", name(&custody.vault.config())]);
    assert!(code == 1 && said.contains("which production refuses"), "{said}");
}
