//! Root providers that need nobody: one contract over all of them, each in an unsealer's own process and confinement; and vaults whose
//! KEK they wrap, through outage, refusal, another root key and a move.

mod bao;
mod contract;
mod faults;
mod kms;
mod softhsm;
mod vaults;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use cardvault::supervisor::confine::Confinement;
use cardvault::wire::unsealer::ProviderSettings;
use tempfile::TempDir;

/// A root provider to test against, and what can happen to it.
trait Stand {
    /// Its word.
    fn name(&self) -> &'static str;
    /// What an unsealer is told of it.
    fn settings(&self) -> ProviderSettings;
    /// The files that are handed over with that.
    fn files(&self) -> Vec<PathBuf>;
    /// What the unsealer may reach.
    fn confinement(&self) -> Confinement;
    /// Its section of the configuration.
    fn section(&self) -> String;
    /// It cannot be reached, until [`back`](Self::back).
    fn away(&mut self);
    /// It will not give what it has, until [`back`](Self::back).
    fn refuse(&mut self);
    /// Another one of the same name is there, with other root keys, until [`back`](Self::back).
    fn exchange(&mut self);
    /// It is as it was.
    fn back(&mut self);
    /// How many root keys of any installation it has; none where one wraps all KEKs.
    fn root_keys(&self) -> Option<usize>;
}

/// A directory of a stand, which the unsealer's uid may pass through.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("cardvault-test-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        Self(directory)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write_secret(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A certificate for this machine, by its number and by a name that has to be resolved, that vouches for itself.
    fn write_certificate(&self) {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1", "localhost"].map(str::to_owned).to_vec())
            .unwrap();
        fs::write(self.at("certificate.pem"), made.cert.pem()).unwrap();
        fs::write(self.at("key.pem"), made.signing_key.serialize_pem()).unwrap();
    }
}
