//! Vaults whose KEK a root provider wraps that needs nobody.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use cardvault::card::tenant::Mode;
use cardvault::supervisor::admin::AdminRequest;
use cardvault::tools::client::Client;
use cardvault::wire::control::AdminAnswer;

use super::Stand;
use super::bao::Bao;
use super::kms::Kms;
use super::softhsm::Token;
use crate::common::{BILLING, Vault, card, name, numbers, order, run, signal, store, wait_for};
use crate::custody::{Custody, write_certificate};

/// The configuration with the provider's section, which stands behind that of the keys.
pub(super) fn with_section(config: &str, stand: &dyn Stand) -> String {
    let begin = config.find("[keys.").unwrap_or_else(|| config.find("[admin]").unwrap());
    let (before, after) = config.split_at(begin);
    let after = &after[after.find("[admin]").unwrap()..];
    format!("{before}{}\n{after}", stand.section())
}

fn keys(vault: &Vault, args: &[&str]) -> (i32, String) {
    run(&[&["keys", "--config", name(&vault.config())], args].concat())
}

pub(super) fn done(vault: &Vault, args: &[&str]) -> String {
    let (code, said) = keys(vault, args);
    assert_eq!(code, 0, "{args:?}: {said}");
    said
}

/// A card of a new tenant, and how to read it.
async fn one_card(vault: &Vault) -> (String, String) {
    vault.tenant("acme", Mode::Test);
    let credential = vault.principal(order("billing", Some("acme"), &BILLING));
    let stored = store(&vault.client(&credential), "k", &card(&numbers::volume(1), "c")).await;
    (credential, format!("/v1/tokens/{}", stored["id"].as_str().unwrap()))
}

async fn opens(client: &Client, path: &str) -> bool {
    client.get(path).await.is_ok_and(|answer| answer.status == 200)
}

async fn the_vault_opens_without_people_and_says_what_is_wrong(mut stand: impl Stand) {
    let mut vault = Vault::make_by(&["--provider", stand.name()], |config| with_section(&config, &stand));
    assert!(!vault.path("keys/root.key").exists());
    vault.serve();
    let AdminAnswer::Done(key) = vault.ask(AdminRequest::PublicKey) else { panic!() };
    fs::write(vault.path("keys/audit.pub"), key).unwrap();
    let (credential, path) = one_card(&vault).await;
    vault.kill();
    vault.serve();
    vault.kill_role("keeper");
    assert!(opens(&vault.client(&credential), &path).await);
    // What is wrong while it serves is said once a keeper needs the KEK, and the vault opens by itself afterwards.
    for (wrong, word) in [
        (Stand::away as fn(&mut _), "root_provider_unavailable"),
        (Stand::refuse, "root_provider_refused"),
        (Stand::exchange, "root_key_is_another"),
    ] {
        wrong(&mut stand);
        assert!(opens(&vault.client(&credential), &path).await, "no keeper has to begin anew");
        let (code, said) = keys(&vault, &["rotate", "kek"]);
        assert!(code == 1 && said.contains("keys."), "{word}: {said}");
        signal(vault.process("keeper"), rustix::process::Signal::KILL);
        wait_for(word, || vault.plain("/readyz").contains(&format!("\"sealed\":\"{word}\"")).then_some(()));
        assert_eq!(vault.client(&credential).get(&path).await.unwrap().status, 503);
        let roles: Vec<String> = vault.processes().into_iter().map(|(role, _)| role).collect();
        assert!(!roles.contains(&"keeper".to_owned()), "{roles:?}");
        stand.back();
        vault.wait_until_ready();
        assert!(opens(&vault.client(&credential), &path).await);
    }
    // A copy of the key store from before a rotation opens nothing any more, where root keys are destroyed.
    let keystore = vault.path("keys/keystore.json");
    let before = fs::read(&keystore).unwrap();
    let said = done(&vault, &["rotate", "kek"]);
    vault.stop();
    let own = fs::read(&keystore).unwrap();
    if let Some(keys) = stand.root_keys() {
        assert!(keys == 1 && said.contains("the KEK before it is destroyed"), "{said}");
        fs::write(&keystore, &before).unwrap();
        vault.serve_sealed();
        wait_for("refusal", || {
            vault.plain("/readyz").contains("\"sealed\":\"root_key_is_another\"").then_some(())
        });
        vault.stop();
    } else {
        assert!(said.contains("opens as it did"), "{said}");
    }
    fs::write(&keystore, &own).unwrap();
    vault.serve();
    assert!(opens(&vault.client(&credential), &path).await);
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
}

async fn the_kek_moves_there_and_back_while_cards_are_read(mut stand: impl Stand) {
    let mut vault = Vault::start_with(|config| with_section(&config, &stand));
    let (credential, path) = one_card(&vault).await;
    let refused = |to: &str, word: &str| {
        let (code, said) = keys(&vault, &["move-root", "--to", to]);
        assert!(code == 1 && said.contains(word), "{said}");
    };
    refused("file", "the KEK is wrapped by file already");
    refused("shares", "`cardvault keys ceremony`");
    let there = stand.name();
    stand.away();
    refused(there, &format!("keys.{}", there.replace('-', "_")));
    stand.back();
    let root = vault.path("keys/root.key");
    // Without the old root key nothing moves.
    let own = fs::read(&root).unwrap();
    fs::write(&root, "").unwrap();
    refused(there, "the file has nothing for key");
    fs::write(&root, &own).unwrap();

    let client = vault.client(&credential);
    let (reading, asked) = (client.clone(), path.clone());
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let reads = tokio::spawn(async move {
        let mut count = 0;
        while stopped.try_recv().is_err() {
            assert!(opens(&reading, &asked).await);
            count += 1;
        }
        count
    });
    let config = vault.config();
    let moves = tokio::task::spawn_blocking(move || {
        for to in [there, "file", there] {
            let (code, said) = run(&["keys", "--config", name(&config), "move-root", "--to", to]);
            assert!(code == 0 && said.contains(&format!("wrapped by {to} now")), "{said}");
        }
    });
    moves.await.unwrap();
    stop.send(()).unwrap();
    assert!(reads.await.unwrap() > 0);
    assert!(
        !String::from_utf8(fs::read(&root).unwrap()).unwrap().contains("root-"),
        "the file has let go of it"
    );
    assert!(stand.root_keys().is_none_or(|keys| keys == 1));
    // It is the key store that says who wraps the KEK, until the configuration says so too.
    fs::remove_file(&root).unwrap();
    vault.kill();
    vault.serve();
    assert!(opens(&vault.client(&credential), &path).await);
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
}

/// Whatever dies while the KEK moves and is rotated, and whenever: the next start finds it where the key store says.
async fn the_kek_is_not_lost_whatever_dies_while_it_moves(stand: impl Stand) {
    let mut vault = Vault::start_with(|config| with_section(&config, &stand));
    let (credential, path) = one_card(&vault).await;
    let mut moves = 0;
    for round in 0..12_u64 {
        let config = vault.config();
        let to = if round % 2 == 0 { stand.name() } else { "file" };
        let asking = std::thread::spawn(move || {
            let asked = |args: &[&str]| run(&[&["keys", "--config", name(&config)], args].concat()).0;
            (asked(&["move-root", "--to", to]), asked(&["rotate", "kek"]))
        });
        std::thread::sleep(Duration::from_millis(8 + round * 13 % 70));
        match round % 3 {
            0 => vault.kill(),
            1 => signal(vault.process("keeper"), rustix::process::Signal::KILL),
            _ => vault.kill(),
        }
        moves += usize::from(asking.join().unwrap().0 == 0);
        if round % 3 != 1 {
            vault.serve();
        }
        vault.wait_until_ready();
        assert!(opens(&vault.client(&credential), &path).await, "round {round}");
    }
    // And it can be moved and rotated still.
    // Where it is now is by chance.
    let _ = keys(&vault, &["move-root", "--to", "file"]);
    done(&vault, &["move-root", "--to", stand.name()]);
    done(&vault, &["rotate", "kek"]);
    vault.kill();
    vault.serve();
    assert!(opens(&vault.client(&credential), &path).await);
    eprintln!("{moves} of 12 moves were answered");
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
}

fn production_starts_unattended_and_two_persons_move_the_kek(stand: impl Stand) {
    let vault = Vault::make_by(&["--provider", stand.name()], |config| with_section(&config, &stand));
    write_certificate(&vault);
    let config = fs::read_to_string(vault.config()).unwrap();
    let production = config[..config.find("[destination.sandbox]").unwrap()]
        .replace("\"development\"", "\"production\"")
        .replace("tls/server.", "tls/own.")
        + "[erasure]\nkey_backups_kept_days = 0\n";
    fs::write(vault.config(), production).unwrap();
    let mut custody = Custody { vault };
    custody.vault.serve_sealed();
    custody.wait_until("configuration_not_approved");
    let [alice, bob] = ["alice", "bob"].map(|person| custody.keygen(person));
    custody.by_two(&["person", "found", "alice", &alice, "bob", &bob]);
    custody.by_two(&["reload"]);
    custody.vault.wait_until_ready();
    custody.vault.kill();
    custody.vault.serve();
    assert_eq!(custody.provider(), stand.name());
    custody.refused(&["move-root", "--to", stand.name()], "signed by a registered person");
    let asked = custody.run(&["--as", name(&custody.key("alice")), "keys", "move-root", "--to", "file"]);
    let id = asked.split_whitespace().find(|word| word.starts_with("apr_")).unwrap();
    let approve = |person: &str| {
        let (key, config) = (custody.key(person), custody.vault.config());
        run(&["--as", name(&key), "approvals", "approve", id, "--config", name(&config)])
    };
    let (code, said) = approve("alice");
    assert!(code == 1 && said.contains("another person has to"), "{said}");
    let (_, said) = approve("bob");
    assert!(said.contains("production does not take the root key from a file"), "{said}");
    assert_eq!(custody.provider(), stand.name());
}

/// Every case with every provider.
macro_rules! every_provider {
    ($($name:ident: $stand:expr),+ $(,)?) => {
        $(mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn it_opens_the_vault_without_people_and_says_what_is_wrong() {
                the_vault_opens_without_people_and_says_what_is_wrong($stand).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn the_kek_moves_there_and_back() {
                the_kek_moves_there_and_back_while_cards_are_read($stand).await;
            }

            #[test]
            fn production_starts_unattended() {
                production_starts_unattended_and_two_persons_move_the_kek($stand);
            }
        })+
    };
}

every_provider!(pkcs11: Token::new(), transit: Bao::new(), aws_kms: Kms::new());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kek_is_not_lost_while_it_moves_to_a_token_and_back() {
    the_kek_is_not_lost_whatever_dies_while_it_moves(Token::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kek_is_not_lost_while_it_moves_to_kms_and_back() {
    the_kek_is_not_lost_whatever_dies_while_it_moves(Kms::new()).await;
}

/// A token counts wrong PINs. So one that it refused is not tried again as it stands, and what something else refused is not laid at its
/// door: the vault would stay closed with the right PIN.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_pin_that_the_token_refused_is_not_tried_again() {
    let mut stand = Token::new();
    let vault = Vault::start_with(|config| with_section(&config, &stand));
    let (credential, path) = one_card(&vault).await;
    let refused = |args: &[&str], word: &str| {
        let (code, said) = keys(&vault, args);
        assert!(code == 1 && said.contains(word), "{args:?}: {said}");
    };
    let (open, shut) = (fs::Permissions::from_mode(0o644), fs::Permissions::from_mode(0o600));
    let root = vault.path("keys/root.key");
    // The file says no, once as the provider that the KEK comes from and once as the one that it goes to.
    fs::set_permissions(&root, open.clone()).unwrap();
    refused(&["move-root", "--to", "pkcs11"], "keys.root_key: others may read this file");
    fs::set_permissions(&root, shut.clone()).unwrap();
    done(&vault, &["move-root", "--to", "pkcs11"]);
    fs::set_permissions(&root, open).unwrap();
    refused(&["move-root", "--to", "file"], "keys.root_key: others may read this file");
    vault.kill_role("keeper");
    assert!(opens(&vault.client(&credential), &path).await);
    fs::set_permissions(&root, shut).unwrap();

    // The token itself.
    stand.refuse();
    refused(&["rotate", "kek"], "could not be logged in to");
    for _ in 0..2 {
        refused(&["rotate", "kek"], "it is tried again once the file has changed");
    }
    stand.back();
    done(&vault, &["rotate", "kek"]);
}
