//! Persons and what they sign, at a real vault.

use std::path::{Path, PathBuf};

use cardvault::person::key::PersonKey;
use cardvault::person::request::{Signed, Step};
use cardvault::wire::control::PrincipalOrder;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::{Vault, count_of, events, name, order, run, signal, wait_for};

/// `cardvault ARGS --config …`: exit code and what it printed.
fn command(vault: &Vault, args: &[&str]) -> (i32, String) {
    run(&[args, &["--config", name(&vault.config())]].concat())
}

fn does(vault: &Vault, args: &[&str]) -> String {
    let (code, said) = command(vault, args);
    assert_eq!(code, 0, "{args:?}: {said}");
    said
}

fn refuses(vault: &Vault, args: &[&str], word: &str) {
    let (code, said) = command(vault, args);
    assert!(code != 0 && said.contains(word), "{args:?}: {said}");
}

/// A person's key file, and its public half.
fn keygen(vault: &Vault, who: &str) -> (PathBuf, String) {
    let file = vault.path(&format!("{who}.key"));
    let public = does(vault, &["person", "keygen", name(&file)]).trim().to_owned();
    assert_eq!(does(vault, &["person", "public", name(&file)]).trim(), public);
    (file, public)
}

#[tokio::test]
async fn a_person_is_registered_listed_and_disabled_and_the_log_has_it() {
    let vault = Vault::start();
    let (file, alice) = keygen(&vault, "alice");
    refuses(&vault, &["person", "keygen", name(&file)], "cannot be made");
    does(&vault, &["person", "add", "alice", &alice, "--scope", "keys:rotate"]);
    refuses(&vault, &["person", "add", "other", &alice], "registered once");
    refuses(&vault, &["person", "add", "alice", &keygen(&vault, "bob").1], "given once");
    refuses(&vault, &["person", "add", "bob", &keygen(&vault, "b").1, "--scope", "x"], "unknown scope");
    refuses(&vault, &["person", "add", "bob", &alice.replace("cvper1", "cvper1a")], "damaged");
    does(&vault, &["person", "rekey", "alice", &keygen(&vault, "next").1]);
    does(&vault, &["person", "disable", "alice"]);
    refuses(&vault, &["person", "add", "other", &alice], "registered once");
    let listed = does(&vault, &["person", "list"]);
    assert!(listed.contains("keys:rotate") && listed.contains("disabled"), "{listed}");
    let events = events(&vault.assessor()).await;
    for action in ["person.create", "person.rekey", "person.disable"] {
        assert_eq!(count_of(&events, action), 1, "{action}");
    }
}

/// `cardvault --as WHO.key ARGS`.
fn as_person<'a>(file: &'a Path, args: &[&'a str]) -> Vec<&'a str> {
    [&["--as", name(file)], args].concat()
}

/// The id of the request that waits.
fn waiting(said: &str) -> String {
    assert!(said.contains("waits for another person"), "{said}");
    said.split_whitespace().find(|word| word.starts_with("apr_")).unwrap().to_owned()
}

/// One vault in which two persons are needed: what is dangerous waits, whoever asked cannot approve it, a killed supervisor loses
/// nothing, and the log has every step.
#[tokio::test]
async fn what_is_dangerous_needs_two_persons() {
    let mut vault = Vault::make(|config| {
        config.replace("socket = \"admin.sock\"", "socket = \"admin.sock\"\ntwo_person = true")
    });
    vault.serve();
    let [(alice, alice_key), (bob, bob_key), (carol, carol_key)] =
        ["alice", "bob", "carol"].map(|who| keygen(&vault, who));
    register_three(&vault, [(&alice, &alice_key), (&bob, &bob_key), (&carol, &carol_key)]);
    // What needs one person is done at once, by who may.
    does(&vault, &as_person(&alice, &["tenant", "add", "acme", "--mode", "test"]));
    refuses(&vault, &as_person(&carol, &["tenant", "add", "other", "--mode", "test"]), "tenants:write");
    does(&vault, &as_person(&carol, &["keys", "rotate", "data", "--tenant", "acme"]));
    // An administrator: the credential is made by who asks, and good once another has approved.
    let admin = ["principal", "add", "ops", "--person", "--scope", "admin:read"];
    refuses(&vault, &admin, "two persons");
    let said = does(&vault, &as_person(&alice, &admin));
    let credential = said.rsplit("carried out: ").next().unwrap().trim().to_owned();
    let status =
        async |vault: &Vault| vault.client(&credential).get("/v1/admin/tenants").await.unwrap().status;
    assert_eq!(status(&vault).await, 401);
    let id = waiting(&said);
    // A supervisor that is killed while it waits, and one that died after the approval was on disk.
    vault.kill();
    vault.serve();
    does(&vault, &as_person(&bob, &["approvals", "approve", &id]));
    assert_eq!(status(&vault).await, 200);
    let rotate = ["principal", "rotate", "ops", "--overlap-hours", "0"];
    refuses(&vault, &rotate, "two persons");
    let id = waiting(&does(&vault, &as_person(&alice, &rotate)));
    does(&vault, &as_person(&bob, &["approvals", "reject", &id]));
    assert_eq!(status(&vault).await, 200);
    let key = destroy_by_two(&mut vault, (&alice, &bob, &carol));
    destroy_while_the_keeper_dies(&vault, (&alice, &bob, &carol));
    widen_by_two(&vault, &credential, (&alice, &bob)).await;
    // A charge that is settled by hand: here one that there is not, and what may be a card number is not kept.
    let resolve = |reason: &'static str| {
        let charge = "ch_00000000v00000000v00000000v00000";
        ["charges", "resolve", charge, "--tenant", "acme", "--outcome", "declined", "--reason", reason]
    };
    refuses(&vault, &resolve("seen"), "two persons");
    refuses(&vault, &as_person(&alice, &resolve("card 4242424242424242")), "looks like a card number");
    let id = waiting(&does(&vault, &as_person(&alice, &resolve("seen in the back office"))));
    refuses(&vault, &as_person(&bob, &["approvals", "approve", &id]), "no such charge");
    let listed = does(&vault, &["approvals", "list"]);
    assert!(
        listed.contains("charges:resolve") && listed.contains("keys:destroy") && listed.contains("rejected"),
        "{listed}"
    );
    assert!(!listed.contains("cv_"), "{listed}");
    look_at_log(&vault, &key).await;
    vault.stop();
    start_with_two(&mut vault, (&alice, &bob));
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
}

/// A start takes no wider configuration either: the vault is sealed until it is approved, and opens by itself then.
fn start_with_two(vault: &mut Vault, (alice, bob): (&Path, &Path)) {
    let config = std::fs::read_to_string(vault.config()).unwrap();
    // What they approved once, and what was given up since, is not approved now.
    std::fs::write(vault.config(), with_another_destination(&config)).unwrap();
    vault.serve_sealed();
    wait_for("the vault that is sealed again", || {
        vault.plain("/readyz").contains("configuration_not_approved").then_some(())
    });
    vault.stop();
    std::fs::write(vault.config(), format!("{config}\n[limits]\nbody_bytes_max = 20000\n")).unwrap();
    vault.serve_sealed();
    wait_for("the sealed vault", || {
        vault.plain("/readyz").contains("configuration_not_approved").then_some(())
    });
    refuses(vault, &["reload"], "limits.body_bytes_max is 20000, and was 16384");
    refuses(vault, &["tenant", "disable", "acme"], "sealed");
    let more = as_person(alice, &["tenant", "add", "other", "--mode", "test"]);
    refuses(vault, &more, "sealed");
    let id = waiting(&does(vault, &as_person(alice, &["reload"])));
    refuses(vault, &as_person(alice, &["approvals", "approve", &id]), "another person has to");
    does(vault, &as_person(bob, &["approvals", "approve", &id]));
    vault.wait_until_ready();
    let finding = "two persons are needed, and 3 are registered whose signatures count";
    let (_, said) = command(vault, &["doctor"]);
    assert!(said.contains(finding), "{said}");
}

/// Two persons destroy a key. The supervisor dies once it has the approval and nothing came of it, and once everything came of it and
/// it could not say so: each time it is carried out once. Gives the key's id.
fn destroy_by_two(vault: &mut Vault, (alice, bob, carol): (&Path, &Path, &Path)) -> String {
    let listed = does(vault, &["keys", "list"]);
    let retired = listed.lines().find(|line| line.contains("data") && line.contains("retired")).unwrap();
    let key = retired.split_whitespace().next().unwrap().to_owned();
    let destroy = ["keys", "destroy", key.as_str()];
    refuses(vault, &destroy, "two persons");
    refuses(vault, &as_person(carol, &destroy), "keys:destroy");
    let id = waiting(&does(vault, &as_person(alice, &destroy)));
    let shown = does(vault, &["approvals", "show", &id]);
    assert!(shown.contains(&format!("destroy key {key}")) && shown.contains("opens no more"), "{shown}");
    let state = |vault: &Vault| {
        let listed = does(vault, &["approvals", "list"]);
        listed.lines().find(|line| line.contains(&id)).unwrap().to_owned()
    };
    vault.kill();
    edit_approval(vault, &id, |approval, people| {
        let bob = PersonKey::read(bob).unwrap();
        let signed = Signed::make(&bob, Step::Approve, approval["text"].as_str().unwrap()).unwrap();
        let is_bob = |person: &&Value| person["name"] == "bob";
        let person = &people.iter().find(is_bob).unwrap()["id"];
        approval["decided"] =
            json!({"person": person, "signed": signed, "through": "uid:0", "at": approval["asked"]["at"]});
        approval["state"] = json!("approved");
    });
    vault.serve();
    wait_for("the key's end", || state(vault).contains("executed").then_some(()));
    assert!(does(vault, &["keys", "show", &key]).contains("destroyed"));
    // An approval that nobody signed comes to nothing, whoever wrote it into the file.
    does(vault, &as_person(carol, &["keys", "rotate", "pseudonym", "--tenant", "acme"]));
    let listed = does(vault, &["keys", "list"]);
    let other = listed.lines().find(|line| line.contains("pseudonym") && line.contains("retired")).unwrap();
    let other = other.split_whitespace().next().unwrap().to_owned();
    let forged = waiting(&does(vault, &as_person(alice, &["keys", "destroy", &other])));
    vault.kill();
    edit_approval(vault, &id, |approval, _| approval["state"] = json!("approved"));
    edit_approval(vault, &forged, |approval, _| {
        approval["decided"] = approval["asked"].clone();
        approval["state"] = json!("approved");
    });
    vault.serve();
    wait_for("the end said again", || state(vault).contains("executed").then_some(()));
    wait_for("the forged approval's end", || {
        let listed = does(vault, &["approvals", "list"]);
        let line = listed.lines().find(|line| line.contains(&forged)).unwrap();
        (line.contains("failed") && line.contains("the signature is not")).then_some(())
    });
    assert!(does(vault, &["keys", "show", &other]).contains("retired"));
    key
}

/// Two persons destroy a key, and the keeper dies before it says that it has forgotten it: the key is destroyed, and so the request
/// has not failed.
fn destroy_while_the_keeper_dies(vault: &Vault, (alice, bob, carol): (&Path, &Path, &Path)) {
    does(vault, &as_person(carol, &["keys", "rotate", "pseudonym", "--tenant", "acme"]));
    let listed = does(vault, &["keys", "list"]);
    let key = listed.lines().rfind(|line| line.contains("pseudonym") && line.contains("retired")).unwrap();
    let key = key.split_whitespace().next().unwrap().to_owned();
    let id = waiting(&does(vault, &as_person(alice, &["keys", "destroy", &key])));
    let keeper = vault.process("keeper");
    signal(keeper, Signal::STOP);
    std::thread::scope(|scope| {
        let approving = scope.spawn(|| command(vault, &as_person(bob, &["approvals", "approve", &id])));
        wait_for("the key's end", || {
            let store = std::fs::read(vault.path("keys/keystore.json")).unwrap();
            let store: Value = serde_json::from_slice(&store).unwrap();
            let is_it =
                |of: &&Value| of["id"] == json!(key.parse::<u32>().unwrap()) && of["state"] == "destroyed";
            store["keys"].as_array().unwrap().iter().find(is_it).map(drop)
        });
        signal(keeper, Signal::KILL);
        let (code, said) = approving.join().unwrap();
        assert!(code != 0 && said.contains("is not known yet what came of it"), "{said}");
    });
    wait_for("the request's end", || {
        let listed = does(vault, &["approvals", "list"]);
        let line = listed.lines().find(|line| line.contains(&id)).unwrap();
        assert!(!line.contains("failed"), "{line}");
        line.contains("executed").then_some(())
    });
}

/// Changes a request in the file of a vault that does not run.
fn edit_approval(vault: &Vault, id: &str, edit: impl FnOnce(&mut Value, &[Value])) {
    let read =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(vault.path(name)).unwrap()).unwrap() };
    let people = read("keys/keystore.people.json");
    let mut file = read("keys/keystore.approvals.json");
    let approvals = file["approvals"].as_array_mut().unwrap();
    let is_it = |approval: &&mut Value| approval["text"].as_str().unwrap().contains(id);
    edit(approvals.iter_mut().find(is_it).unwrap(), people["people"].as_array().unwrap());
    std::fs::write(vault.path("keys/keystore.approvals.json"), serde_json::to_vec(&file).unwrap()).unwrap();
}

fn with_another_destination(config: &str) -> String {
    let section = config.split("[destination.sandbox]").nth(1).unwrap().split("\n\n").next().unwrap();
    format!("{config}\n[destination.other]{section}\n")
}

/// A destination more is nothing that one person, or a signal, brings into use.
async fn widen_by_two(vault: &Vault, administrator: &str, (alice, bob): (&Path, &Path)) {
    let config = std::fs::read_to_string(vault.config()).unwrap();
    let wider = with_another_destination(&config);
    std::fs::write(vault.config(), &wider).unwrap();
    let is_there = async || {
        let shown = vault.client(administrator).get("/v1/admin/destinations").await.unwrap();
        shown.json()["data"].as_array().unwrap().iter().any(|to| to["name"] == "other")
    };
    refuses(vault, &["reload"], "destination other is new");
    signal(vault.supervisor(), Signal::HUP);
    wait_for("the refusal in the log", || vault.log().contains("nothing was reloaded").then_some(()));
    let said = does(vault, &as_person(alice, &["reload"]));
    assert!(said.contains("destination other is new"), "{said}");
    let id = waiting(&said);
    assert!(!is_there().await);
    // What is approved is what was read, not what stands there by then.
    std::fs::write(vault.config(), format!("{wider}policies = [1, 2]\n")).unwrap();
    refuses(vault, &as_person(bob, &["approvals", "approve", &id]), "other than those that were approved");
    assert!(!is_there().await);
    std::fs::write(vault.config(), &wider).unwrap();
    let id = waiting(&does(vault, &as_person(alice, &["reload"])));
    does(vault, &as_person(bob, &["approvals", "approve", &id]));
    assert!(is_there().await);
    // Less needs nobody, and what was given up needs two again.
    std::fs::write(vault.config(), &config).unwrap();
    does(vault, &["reload"]);
    assert!(!is_there().await);
    std::fs::write(vault.config(), &wider).unwrap();
    refuses(vault, &["reload"], "destination other is new");
    std::fs::write(vault.config(), &config).unwrap();
}

/// The first two sign for each other, and one of them asks for a third, with fewer scopes, whom the other approves.
fn register_three(vault: &Vault, people: [(&Path, &str); 3]) {
    let [(alice, alice_key), (bob, bob_key), (carol, carol_key)] = people;
    // The first two: each signs for both.
    refuses(vault, &["person", "add", "alice", alice_key], "two persons");
    let found = ["person", "found", "alice", alice_key, "bob", bob_key];
    refuses(vault, &found, "two persons");
    refuses(vault, &as_person(carol, &found), "one of the two signs");
    let id = waiting(&does(vault, &as_person(alice, &found)));
    refuses(vault, &as_person(alice, &["approvals", "approve", &id]), "another person has to");
    refuses(vault, &["approvals", "approve", &id], "add --as");
    let said = does(vault, &as_person(bob, &["approvals", "approve", &id]));
    assert!(said.contains("alice") && said.contains(bob_key) && said.contains("is executed"), "{said}");
    // A third: one of the two asks, the other approves, with fewer scopes than theirs.
    let add = ["person", "add", "carol", carol_key, "--scope", "keys:rotate"];
    let id = waiting(&does(vault, &as_person(alice, &add)));
    refuses(vault, &as_person(carol, &["approvals", "approve", &id]), "not a registered person's");
    does(vault, &as_person(bob, &["approvals", "approve", &id]));
    refuses(vault, &as_person(bob, &["approvals", "approve", &id]), "it is executed");
    refuses(vault, &as_person(bob, &["person", "disable", "nobody"]), "no such person");
}

/// The log has each step of each request, and each refusal.
async fn look_at_log(vault: &Vault, key: &str) {
    let reader = PrincipalOrder { person: true, ..order("reader", None, &["audit:read"]) };
    let events = events(&vault.client(&vault.principal(reader))).await;
    for (action, count) in [
        ("person.create", 3),
        ("approval.request", 10),
        ("approval.approve", 7),
        ("approval.reject", 1),
        ("approval.execute", 10),
    ] {
        assert_eq!(count_of(&events, action), count, "{action}");
    }
    let destroyed = |event: &&Value| event["action"] == "key.destroy" && event["target"]["id"] == key;
    assert_eq!(events.iter().filter(destroyed).count(), 1);
    let refused = |code: &str| {
        let is_it =
            |event: &&Value| event["action"] == "approval.refuse" && event["outcome"]["error"] == code;
        events.iter().filter(is_it).count()
    };
    assert!(refused("own_request") >= 1 && refused("signature") >= 1 && refused("scope_missing") >= 1);
}
