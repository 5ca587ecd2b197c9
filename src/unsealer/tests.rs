//! One contract for all root providers, and the process around them.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use super::*;
use crate::person::share::{custodian_info, open_with, public_of, seal_to, unseal_info};
use crate::unsealer::shares::gather as gather_shares;
use crate::wire::unsealer::{Issued, NewSharesSettings, SharesSettings};

const PLACE: KekBinding = KekBinding { environment: [1; 16], key: 9 };
const KEK: [u8; 32] = [7; 32];

/// What the contract needs of a provider.
trait Stand {
    /// The provider, with the root key that the stand has had from the beginning.
    fn provider(&self) -> Box<dyn RootProvider>;
    /// The same kind of provider with another root key.
    fn other(&self) -> Box<dyn RootProvider>;
    /// What comes of it where its root key cannot be reached.
    fn outage(&self) -> ProviderError;
    /// What comes of it where it will not give what it has.
    fn refusal(&self) -> ProviderError;
}

struct FileStand {
    directory: tempfile::TempDir,
}

impl FileStand {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn open(&self, name: &str) -> File {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(self.path(name)).unwrap()
    }
}

impl Stand for FileStand {
    fn provider(&self) -> Box<dyn RootProvider> {
        Box::new(FileProvider::new(self.open("root.key")).unwrap())
    }

    fn other(&self) -> Box<dyn RootProvider> {
        let mut other = FileProvider::new(self.open("other.key")).unwrap();
        other.wrap(&KEK, &PLACE).unwrap();
        Box::new(other)
    }

    fn outage(&self) -> ProviderError {
        let wrapped = self.provider().wrap(&KEK, &PLACE).unwrap();
        // Opened, and not to be read.
        let unreadable = File::options().write(true).open(self.path("root.key")).unwrap();
        FileProvider::new(unreadable).unwrap().unwrap(&wrapped, &PLACE).err().unwrap()
    }

    fn refusal(&self) -> ProviderError {
        let file = self.open("open.key");
        file.set_permissions(std::fs::Permissions::from_mode(0o644)).unwrap();
        FileProvider::new(file).err().unwrap()
    }
}

/// Two custodians of three, each with a key of their own.
struct SharesStand {
    custodians: Vec<[u8; 32]>,
    settings: SharesSettings,
    issued: Issued,
}

const CEREMONY: [u8; 16] = [6; 16];

impl SharesStand {
    fn new() -> Self {
        let custodians: Vec<[u8; 32]> = (0..3).map(|_| random::make_bytes().unwrap()).collect();
        let issued = Self::make(&custodians);
        let settings = SharesSettings {
            ceremony: CEREMONY,
            threshold: 2,
            secret_check: issued.secret_check.clone(),
            shares: issued.shares.iter().map(|share| (share.place, share.check_value.clone())).collect(),
        };
        Self { custodians, settings, issued }
    }

    fn make(custodians: &[[u8; 32]]) -> Issued {
        let custodians = custodians.iter().map(|secret| public_of(secret).unwrap()).collect();
        let new = NewSharesSettings { ceremony: CEREMONY, threshold: 2, rehearsal: false, custodians };
        SharesProvider::make(&new).unwrap().1
    }

    /// The share of a place, as its custodian opens it, sealed to this key.
    fn give(&self, place: usize, to: &[u8; 32]) -> Vec<u8> {
        let sealed = &self.issued.shares[place - 1].sealed;
        let text = open_with(&self.custodians[place - 1], &custodian_info(&CEREMONY), sealed).unwrap();
        seal_to(to, &unseal_info(&CEREMONY), &text).unwrap()
    }

    /// Gives shares by place, sealed to the unsealer's key; what the last one was answered with, and what came of it.
    fn gather(&self, places: &[(u8, usize)]) -> (Option<FromUnsealer>, Result<Bytes, ProviderError>) {
        let (ours, theirs) = pair::make_pair().unwrap();
        let settings = self.settings.clone();
        let gathering = std::thread::spawn(move || gather_shares(&theirs, &settings));
        let Ok((FromUnsealer::Gathering { public }, _)) = pair::receive(&ours) else { panic!() };
        let mut said = None;
        for (place, of) in places {
            let sealed = self.give(*of, &public);
            pair::send(&ours, &ToUnsealer::Share { place: *place, sealed }, &[]).unwrap();
            said = Some(pair::receive(&ours).unwrap().0);
        }
        drop(ours);
        (said, gathering.join().unwrap())
    }
}

impl Stand for SharesStand {
    fn provider(&self) -> Box<dyn RootProvider> {
        Box::new(SharesProvider::new(&self.gather(&[(3, 3), (1, 1)]).1.unwrap()))
    }

    fn other(&self) -> Box<dyn RootProvider> {
        Self::new().provider()
    }

    fn outage(&self) -> ProviderError {
        self.gather(&[(1, 1)]).1.err().unwrap()
    }

    fn refusal(&self) -> ProviderError {
        // The record of the secret was edited: each share is right, and together they are refused.
        let mut stand = Self::new();
        stand.settings.secret_check = "000000".to_owned();
        stand.gather(&[(1, 1), (2, 2)]).1.err().unwrap()
    }
}

#[test]
fn a_share_is_taken_in_its_place_once_and_another_is_named() {
    let stand = SharesStand::new();
    let refused = |places: &[(u8, usize)], word: &str| {
        let (said, secret) = stand.gather(places);
        let Some(FromUnsealer::ShareRefused { sentence }) = said else { panic!("{said:?}") };
        assert!(sentence.contains(word), "{sentence}");
        assert!(secret.is_err());
    };
    refused(&[(1, 1), (1, 1)], "share 1: it is there already");
    refused(&[(1, 2)], "share 2: it is another person's");
    let mut other = SharesStand::new();
    other.settings = stand.settings.clone();
    let (said, _) = other.gather(&[(2, 2)]);
    assert!(matches!(said, Some(FromUnsealer::ShareRefused { sentence })
        if sentence == "share 2: it is not the one that was issued"));
    let mut elsewhere = SharesStand::new();
    elsewhere.settings.ceremony = [7; 16];
    let (said, _) = elsewhere.gather(&[(2, 2)]);
    // Sealed for the ceremony that it is of.
    assert!(
        matches!(said, Some(FromUnsealer::ShareRefused { sentence }) if sentence.starts_with("share 2: "))
    );
}

fn fault_of(unwrapped: Result<ClearKek, ProviderError>) -> ProviderFault {
    let error = unwrapped.err().unwrap();
    assert!(!error.sentence.is_empty());
    error.fault
}

fn what_is_wrapped_comes_back(stand: &dyn Stand) {
    let wrapped = stand.provider().wrap(&KEK, &PLACE).unwrap();
    assert!(!wrapped.windows(8).any(|window| window == &KEK[..8]));
    assert_eq!(stand.provider().unwrap(&wrapped, &PLACE).unwrap().as_slice(), KEK);
    // Twice the same gives two blobs, and both open.
    let again = stand.provider().wrap(&KEK, &PLACE).unwrap();
    assert_ne!(wrapped, again);
    assert_eq!(stand.provider().unwrap(&wrapped, &PLACE).unwrap().as_slice(), KEK);
}

fn it_opens_in_its_place_only(stand: &dyn Stand) {
    let wrapped = stand.provider().wrap(&KEK, &PLACE).unwrap();
    let elsewhere = [KekBinding { environment: [2; 16], ..PLACE }, KekBinding { key: 10, ..PLACE }];
    for place in elsewhere {
        // A provider with a root key for each KEK has one there as well.
        stand.provider().wrap(&[8; 32], &place).unwrap();
        assert_eq!(fault_of(stand.provider().unwrap(&wrapped, &place)), ProviderFault::WrongKey);
    }
}

fn another_root_key_opens_nothing(stand: &dyn Stand) {
    let wrapped = stand.provider().wrap(&KEK, &PLACE).unwrap();
    assert_eq!(fault_of(stand.other().unwrap(&wrapped, &PLACE)), ProviderFault::WrongKey);
}

fn any_edited_byte_is_found(stand: &dyn Stand) {
    let wrapped = stand.provider().wrap(&KEK, &PLACE).unwrap();
    let mut provider = stand.provider();
    for at in 0..wrapped.len() {
        let mut edited = wrapped.clone();
        edited[at] ^= 1;
        let fault = fault_of(provider.unwrap(&edited, &PLACE));
        assert!(matches!(fault, ProviderFault::WrongKey | ProviderFault::Malformed), "{at}: {fault:?}");
    }
    for edited in [&wrapped[..wrapped.len() - 1], &[]] {
        fault_of(provider.unwrap(edited, &PLACE));
    }
}

fn an_outage_is_told_from_a_refusal(stand: &dyn Stand) {
    let outage = stand.outage();
    assert_eq!(outage.fault, ProviderFault::Unavailable, "{outage}");
    let refusal = stand.refusal();
    assert!(matches!(refusal.fault, ProviderFault::Refused | ProviderFault::WrongKey), "{refusal}");
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
                super::$case(&$stand);
            })+
        }
    };
}

every_provider!(file: FileStand::new(), shares: SharesStand::new() => [
    what_is_wrapped_comes_back,
    it_opens_in_its_place_only,
    another_root_key_opens_nothing,
    any_edited_byte_is_found,
    an_outage_is_told_from_a_refusal,
]);

/// An unsealer's process as a thread: the supervisor's end of its line, and its first answer.
fn begin(order: UnsealOrder, file: Option<File>) -> (UnixStream, FromUnsealer) {
    let (ours, theirs) = pair::make_pair().unwrap();
    std::thread::spawn(move || run(theirs).unwrap());
    let fds: Vec<_> = file.iter().map(|file| file.as_fd()).collect();
    pair::send(&ours, &ToUnsealer::Begin(Box::new(order)), &fds).unwrap();
    let answer = pair::receive(&ours).unwrap().0;
    (ours, answer)
}

fn obtained(answer: FromUnsealer) -> Obtained {
    let FromUnsealer::Obtained(obtained) = answer else { panic!("{answer:?}") };
    obtained
}

#[test]
fn a_kek_is_made_wrapped_handed_over_and_unwrapped() {
    let stand = FileStand::new();
    let wrap = Some((ProviderSettings::File, PLACE));
    let (line, answer) = begin(UnsealOrder { from: KekSource::Make, wrap }, Some(stand.open("root.key")));
    let made = obtained(answer);
    let (keeper, handed) = pair::make_pair().unwrap();
    pair::send(&line, &ToUnsealer::Deliver, &[handed.as_fd()]).unwrap();
    let kek: Kek = pair::receive(&keeper).unwrap().0;
    assert_eq!(Mac::new(&kek.bytes).check_value(), made.check_value);
    assert!(matches!(pair::receive(&line).unwrap().0, FromUnsealer::Delivered));

    let from = |check_value: &str| KekSource::Unwrap {
        provider: ProviderSettings::File,
        wrapped: made.wrapped.clone(),
        binding: PLACE,
        check_value: check_value.to_owned(),
    };
    let order = |check_value: &str| UnsealOrder { from: from(check_value), wrap: None };
    let (_line, answer) = begin(order(&made.check_value), Some(stand.open("root.key")));
    assert_eq!(
        obtained(answer),
        Obtained { check_value: made.check_value.clone(), wrapped: Vec::new(), issued: None }
    );
    // A record that was edited, and no file at all.
    let (_line, answer) = begin(order("000000"), Some(stand.open("root.key")));
    assert!(matches!(answer, FromUnsealer::Failed { fault: ProviderFault::WrongKey, .. }), "{answer:?}");
    let (_line, answer) = begin(order(&made.check_value), None);
    assert!(matches!(answer, FromUnsealer::Failed { fault: ProviderFault::Unavailable, .. }), "{answer:?}");
}
