//! One contract for all root providers, and the process around them.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::*;

const PLACE: KekBinding = KekBinding { environment: [1; 16], key: 9 };
const KEK: [u8; 32] = [7; 32];

/// What the contract needs of a provider.
trait Stand {
    /// The provider, with the root key that the stand has had from the beginning.
    fn provider(&self) -> Box<dyn RootProvider>;
    /// The same kind of provider with another root key.
    fn other(&self) -> Box<dyn RootProvider>;
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

every_provider!(file: FileStand::new() => [
    what_is_wrapped_comes_back,
    it_opens_in_its_place_only,
    another_root_key_opens_nothing,
    any_edited_byte_is_found,
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
    assert_eq!(obtained(answer), Obtained { check_value: made.check_value.clone(), wrapped: Vec::new() });
    // A record that was edited, and no file at all.
    let (_line, answer) = begin(order("000000"), Some(stand.open("root.key")));
    assert!(matches!(answer, FromUnsealer::Failed { fault: ProviderFault::WrongKey, .. }), "{answer:?}");
    let (_line, answer) = begin(order(&made.check_value), None);
    assert!(matches!(answer, FromUnsealer::Failed { fault: ProviderFault::Unavailable, .. }), "{answer:?}");
}
