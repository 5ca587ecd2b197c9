//! What can be wrong with a server that wraps the KEK, and with what the vault was given for it: each has its own word, and none is lasting.

use std::time::{Duration, Instant};

use cardvault::card::tenant::Mode;
use cardvault::wire::unsealer::{KekBinding, ProviderFault};

use super::Stand;
use super::bao::{Bao, POLICY};
use super::contract::{PLACE, try_make, unwrap};
use super::kms::{CREDENTIALS, Kms};
use super::vaults::{done, with_section};
use crate::common::{Vault, signal, wait_for};

/// A policy without what it allows at this path.
fn without(path: &str) -> String {
    let begin = POLICY.find(&format!("path \"transit/{path}")).unwrap();
    let end = begin + POLICY[begin..].find('}').unwrap() + 1;
    [&POLICY[..begin], &POLICY[end..]].concat()
}

#[test]
fn what_is_wrong_with_an_engine_or_its_token_has_its_word() {
    let stand = Bao::new();
    let made = try_make(&stand, PLACE).unwrap();
    let opens = || unwrap(&stand, &made, PLACE);

    stand.must(&["operator", "seal"]);
    assert_eq!(opens(), Err(ProviderFault::Unavailable), "sealed");
    stand.unseal();
    assert_eq!(opens(), Ok(()));

    for token in ["", "\n", "two\nlines"] {
        stand.give(token);
        assert_eq!(opens(), Err(ProviderFault::Refused), "{token:?}");
    }
    let token = stand.token(&without("decrypt"));
    stand.give(&token);
    assert_eq!(opens(), Err(ProviderFault::Refused), "it may not unwrap");
    stand.give(&stand.token(&without("encrypt")));
    assert_eq!(opens(), Ok(()));
    assert_eq!(try_make(&stand, PLACE), Err(ProviderFault::Refused), "it may not wrap");
    stand.give(&stand.token(POLICY));
    assert!(try_make(&stand, PLACE).is_ok());

    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap().cert.pem();
    let own = std::fs::read_to_string(&stand.files()[1]).unwrap();
    stand.trust(&other);
    assert_eq!(opens(), Err(ProviderFault::Unavailable), "another host answers in its place");
    stand.trust("none");
    assert_eq!(opens(), Err(ProviderFault::Refused), "no certificate");
    stand.trust(&own);

    // One that was made beforehand, and can be taken out.
    let name = format!("transit/keys/cardvault-{}-10", "01".repeat(16));
    stand.must(&["write", "-f", &name, "exportable=true"]);
    let there = KekBinding { key: 10, ..PLACE };
    assert_eq!(try_make(&stand, there), Err(ProviderFault::Refused), "exportable");

    // Each use renews the token, and one that was revoked opens nothing.
    let token = stand.token(POLICY);
    stand.give(&token);
    let before = stand.expires(&token);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(opens(), Ok(()));
    assert!(stand.expires(&token) > before, "it was not renewed");
    stand.must(&["token", "revoke", &token]);
    assert_eq!(opens(), Err(ProviderFault::Refused), "revoked");
}

#[test]
fn what_is_wrong_with_kms_or_its_credentials_has_its_word() {
    let mut stand = Kms::new();
    let made = try_make(&stand, PLACE).unwrap();
    for (kind, fault) in [
        ("ThrottlingException", ProviderFault::Unavailable),
        ("KMSInternalException", ProviderFault::Unavailable),
        ("DependencyTimeoutException", ProviderFault::Unavailable),
        ("KeyUnavailableException", ProviderFault::Unavailable),
        ("AccessDeniedException", ProviderFault::Refused),
        ("NotFoundException", ProviderFault::Refused),
        ("DisabledException", ProviderFault::Refused),
        ("KMSInvalidStateException", ProviderFault::Refused),
        ("UnrecognizedClientException", ProviderFault::Refused),
        ("ExpiredTokenException", ProviderFault::Refused),
        ("MissingAuthenticationTokenException", ProviderFault::Refused),
        ("InvalidSignatureException", ProviderFault::Refused),
        ("InvalidSignatureException:http://internal.amazon.com/", ProviderFault::Refused),
        ("IncorrectKeyException", ProviderFault::WrongKey),
        ("InvalidCiphertextException", ProviderFault::WrongKey),
        ("ValidationException", ProviderFault::Malformed),
    ] {
        stand.fail(kind);
        assert_eq!(unwrap(&stand, &made, PLACE), Err(fault), "{kind}");
    }
    stand.back();
    // Not those of the file's other profile, which has a session.
    assert_eq!(unwrap(&stand, &made, PLACE), Ok(()));

    let lent = "[lent]\naws_access_key_id = ASIATEST\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG+lent\n";
    stand.give(&format!("{lent}aws_session_token = lent/token+==\n"));
    assert_eq!(unwrap(&stand, &made, PLACE), Ok(()));
    for wrong in [lent.to_owned(), CREDENTIALS.replace("+test", "+tset"), "[default]\n".to_owned()] {
        stand.give(&wrong);
        assert_eq!(unwrap(&stand, &made, PLACE), Err(ProviderFault::Refused));
    }
    stand.give(CREDENTIALS);

    stand.hang();
    let began = Instant::now();
    assert_eq!(unwrap(&stand, &made, PLACE), Err(ProviderFault::Unavailable));
    assert!(began.elapsed() < Duration::from_secs(18));
    stand.back();
    assert_eq!(unwrap(&stand, &made, PLACE), Ok(()));
}

/// What a vault that runs for a month needs to start again does not run out meanwhile, and what is wrong with it is said before then.
#[test]
fn a_running_vault_keeps_its_token_alive_and_says_when_it_cannot() {
    let stand = Bao::new();
    let token = stand.token(POLICY);
    stand.give(&token);
    let mut vault = Vault::make_by(&["--provider", "transit"], |config| with_section(&config, &stand));
    vault.serve();
    let (keeper, before) = (vault.process("keeper"), stand.expires(&token));
    std::thread::sleep(Duration::from_millis(1100));
    signal(vault.supervisor(), rustix::process::Signal::HUP);
    wait_for("a renewed token", || (stand.expires(&token) > before).then_some(()));
    let word = "the root provider does not open the KEK now";
    assert!(!vault.log().contains(word), "{}", vault.log());
    stand.must(&["token", "revoke", &token]);
    signal(vault.supervisor(), rustix::process::Signal::HUP);
    wait_for("the log's word", || vault.log().contains(word).then_some(()));
    // It serves all the same, by the keeper that it had.
    vault.wait_until_ready();
    assert_eq!(vault.process("keeper"), keeper);
    let roles: Vec<String> = vault.processes().into_iter().map(|(role, _)| role).collect();
    assert!(!roles.contains(&"unsealer".to_owned()), "{roles:?}");
}

/// One KMS key wraps every KEK: a copy of the key store from before is not closed by a rotation, and nobody is told so.
#[test]
fn a_key_that_is_destroyed_under_kms_is_said_to_be_in_old_copies_for_good() {
    let stand = Kms::new();
    let mut vault = Vault::make_by(&["--provider", "aws-kms"], |config| with_section(&config, &stand));
    vault.serve();
    vault.tenant("acme", Mode::Test);
    let listed = wait_for("data keys", || {
        let listed = done(&vault, &["list"]);
        listed.lines().any(|line| line.contains(" data ") && line.contains(" active ")).then_some(listed)
    });
    let of_data = |line: &&str| line.contains(" data ") && line.contains(" active ");
    let old = listed.lines().find(of_data).unwrap().split_whitespace().next().unwrap();
    done(&vault, &["rotate", "data", "--tenant", "acme", "--watch"]);
    let said = done(&vault, &["destroy", old]);
    assert!(said.contains("destroy every such copy; one opens") && !said.contains("useless"), "{said}");
}
