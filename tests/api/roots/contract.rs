//! One contract for all of them, as the supervisor sees it: orders to an unsealer, and what comes back.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cardvault::keeper::keys::Mac;
use cardvault::wire::pair;
use cardvault::wire::unsealer::{
    FromUnsealer, Kek, KekBinding, KekSource, Obtained, ProviderFault, ToUnsealer, UnsealOrder,
};

use super::Stand;
use super::bao::Bao;
use super::kms::Kms;
use super::softhsm::Token;
use crate::common::CARDVAULT;

pub(super) const PLACE: KekBinding = KekBinding { environment: [1; 16], key: 9 };

/// An unsealer's process, which has begun.
struct Unsealer {
    child: Child,
    line: UnixStream,
}

impl Unsealer {
    fn begin(stand: &dyn Stand, order: UnsealOrder) -> Self {
        let (line, theirs) = pair::make_pair().unwrap();
        let confinement = stand.confinement();
        let mut command = Command::new(CARDVAULT);
        command.arg("role").args(confinement.to_args()).env_clear().envs(confinement.environment);
        let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).spawn().unwrap();
        let files: Vec<File> = stand.files().iter().map(|path| File::open(path).unwrap()).collect();
        let fds: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        pair::send(&line, &ToUnsealer::Begin(Box::new(order)), &fds).unwrap();
        Self { child, line }
    }

    fn says(&self) -> FromUnsealer {
        pair::receive(&self.line).unwrap().0
    }

    fn obtained(&self) -> Result<Obtained, ProviderFault> {
        match self.says() {
            FromUnsealer::Obtained(obtained) => Ok(obtained),
            FromUnsealer::Failed { fault, sentence } => {
                assert!(sentence.starts_with("keys."), "{sentence}");
                Err(fault)
            }
            other @ (FromUnsealer::Gathering { .. }
            | FromUnsealer::ShareTaken
            | FromUnsealer::ShareRefused { .. }
            | FromUnsealer::Delivered
            | FromUnsealer::Destroyed) => panic!("{other:?}"),
        }
    }
}

impl Drop for Unsealer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has a new KEK made and wrapped.
fn make(stand: &dyn Stand, place: KekBinding) -> Obtained {
    try_make(stand, place).unwrap()
}

pub(super) fn try_make(stand: &dyn Stand, place: KekBinding) -> Result<Obtained, ProviderFault> {
    let wrap = Some((stand.settings(), place));
    Unsealer::begin(stand, UnsealOrder { from: KekSource::Make, wrap }).obtained()
}

fn unwrap_order(stand: &dyn Stand, made: &Obtained, binding: KekBinding) -> UnsealOrder {
    let from = KekSource::Unwrap {
        provider: stand.settings(),
        wrapped: made.wrapped.clone(),
        binding,
        check_value: made.check_value.clone(),
    };
    UnsealOrder { from, wrap: None }
}

pub(super) fn unwrap(stand: &dyn Stand, made: &Obtained, binding: KekBinding) -> Result<(), ProviderFault> {
    Unsealer::begin(stand, unwrap_order(stand, made, binding)).obtained().map(drop)
}

fn what_is_wrapped_comes_back(stand: &mut dyn Stand) {
    let made = make(stand, PLACE);
    let unsealer = Unsealer::begin(stand, unwrap_order(stand, &made, PLACE));
    assert_eq!(unsealer.obtained().unwrap().check_value, made.check_value);
    let (keeper, handed) = pair::make_pair().unwrap();
    pair::send(&unsealer.line, &ToUnsealer::Deliver, &[handed.as_fd()]).unwrap();
    let kek: Kek = pair::receive(&keeper).unwrap().0;
    assert_eq!(Mac::new(&kek.bytes).check_value(), made.check_value);
    assert!(!made.wrapped.windows(8).any(|window| window == &kek.bytes[..8]));
}

fn it_opens_in_its_place_only(stand: &mut dyn Stand) {
    let made = make(stand, PLACE);
    for place in [KekBinding { environment: [2; 16], ..PLACE }, KekBinding { key: 10, ..PLACE }] {
        assert_eq!(unwrap(stand, &made, place), Err(ProviderFault::WrongKey), "nothing is there");
        // A provider with a root key for each KEK has one there now.
        make(stand, place);
        assert_eq!(unwrap(stand, &made, place), Err(ProviderFault::WrongKey));
    }
    assert_eq!(unwrap(stand, &made, PLACE), Ok(()));
}

fn any_edited_byte_is_found(stand: &mut dyn Stand) {
    let made = make(stand, PLACE);
    let last = made.wrapped.len() - 1;
    for at in [0, last / 4, last / 2, last / 4 * 3, last] {
        let mut edited = made.clone();
        // One that stays text, where what is wrapped is text.
        edited.wrapped[at] = if edited.wrapped[at] == b'A' { b'B' } else { b'A' };
        let fault = unwrap(stand, &edited, PLACE).unwrap_err();
        assert!(matches!(fault, ProviderFault::WrongKey | ProviderFault::Malformed), "{at}: {fault:?}");
    }
    let cut = Obtained { wrapped: made.wrapped[..4].to_vec(), ..made.clone() };
    assert!(unwrap(stand, &cut, PLACE).is_err());
    assert_eq!(unwrap(stand, &made, PLACE), Ok(()));
}

fn each_fault_has_its_word(stand: &mut dyn Stand) {
    let made = make(stand, PLACE);
    stand.away();
    assert_eq!(unwrap(stand, &made, PLACE), Err(ProviderFault::Unavailable));
    stand.back();
    stand.refuse();
    assert_eq!(unwrap(stand, &made, PLACE).unwrap_err().name(), "root_provider_refused");
    stand.back();
    stand.exchange();
    assert_eq!(unwrap(stand, &made, PLACE), Err(ProviderFault::WrongKey));
    stand.back();
    assert_eq!(unwrap(stand, &made, PLACE), Ok(()));
}

fn what_was_taken_over_from_is_destroyed(stand: &mut dyn Stand) {
    let foreign = KekBinding { environment: [2; 16], ..PLACE };
    let next = KekBinding { key: 12, ..PLACE };
    let (old, other, new) = (make(stand, PLACE), make(stand, foreign), make(stand, next));
    let unsealer = Unsealer::begin(stand, unwrap_order(stand, &new, next));
    unsealer.obtained().unwrap();
    pair::send(&unsealer.line, &ToUnsealer::DestroyOthers, &[]).unwrap();
    assert!(matches!(unsealer.says(), FromUnsealer::Destroyed));
    let gone = if stand.root_keys().is_some() { Err(ProviderFault::WrongKey) } else { Ok(()) };
    assert_eq!(unwrap(stand, &old, PLACE), gone);
    assert_eq!(unwrap(stand, &new, next), Ok(()));
    assert_eq!(unwrap(stand, &other, foreign), Ok(()), "another installation's key is its own");
    assert!(stand.root_keys().is_none_or(|keys| keys == 2));
}

/// Whoever has the PIN can put a key they know where the next KEK's would be made.
#[test]
fn a_key_that_was_not_made_in_the_token_wraps_nothing() {
    let token = Token::new();
    token.plant(&format!("cardvault-{}-{}", "01".repeat(16), PLACE.key));
    let order = UnsealOrder { from: KekSource::Make, wrap: Some((token.settings(), PLACE)) };
    assert_eq!(Unsealer::begin(&token, order).obtained(), Err(ProviderFault::Refused));
    make(&token, KekBinding { key: 10, ..PLACE });
}

/// Every case against every provider.
macro_rules! every_provider {
    ($($name:ident: $stand:expr),+ => $cases:tt) => {
        $(every_provider!(@one $name, $stand, $cases);)+
    };
    (@one $name:ident, $stand:expr, [$($case:ident),+ $(,)?]) => {
        mod $name {
            use super::*;
            $(#[test]
            fn $case() {
                super::$case(&mut $stand);
            })+
        }
    };
}

/// A server that stands still is given up, long before the supervisor would.
fn one_that_hangs_is_given_up(stand: &mut Bao) {
    let made = make(stand, PLACE);
    stand.hang();
    let began = Instant::now();
    assert_eq!(unwrap(stand, &made, PLACE), Err(ProviderFault::Unavailable));
    assert!(began.elapsed() < Duration::from_secs(18));
    stand.back();
    assert_eq!(unwrap(stand, &made, PLACE), Ok(()));
}

/// One server for all cases, as it takes seconds to start; each begins with an engine without keys.
#[test]
fn transit_keeps_the_contract_and_does_not_wait_for_ever() {
    let mut stand = Bao::new();
    for case in [
        what_is_wrapped_comes_back,
        it_opens_in_its_place_only,
        any_edited_byte_is_found,
        each_fault_has_its_word,
        what_was_taken_over_from_is_destroyed,
    ] {
        case(&mut stand);
        stand.begin_anew();
    }
    one_that_hangs_is_given_up(&mut stand);
}

every_provider!(pkcs11: Token::new(), aws_kms: Kms::new() => [
    what_is_wrapped_comes_back,
    it_opens_in_its_place_only,
    any_edited_byte_is_found,
    each_fault_has_its_word,
    what_was_taken_over_from_is_destroyed,
]);
