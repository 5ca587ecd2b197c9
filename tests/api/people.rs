//! Persons and what they sign, at a real vault.

use std::path::PathBuf;

use crate::common::{Vault, count_of, events, name, run};

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
