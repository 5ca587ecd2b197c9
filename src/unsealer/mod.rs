//! The unsealer: a short-lived process that runs one root provider. It obtains the KEK (unwraps it, or makes it), wraps it where that is
//! asked for, hands it to the keeper over a pair that both inherited, and ends. The supervisor sees wrapped KEKs and check values only.
//!
//! - [`provider`]: what a root provider is.
//! - [`file`]: the file provider, for development.
//! - [`shares`]: custodians' shares; [`shamir`]: the arithmetic of them.

pub mod file;
pub mod provider;
pub mod shamir;
pub mod shares;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use zeroize::Zeroizing;

use self::file::FileProvider;
use self::provider::{ClearKek, ProviderError, RootProvider};
use self::shamir::Bytes;
use self::shares::SharesProvider;
use crate::keeper::keys::Mac;
use crate::random;
use crate::wire::pair;
use crate::wire::unsealer::{
    FromUnsealer, Kek, KekBinding, KekSource, Obtained, ProviderFault, ProviderSettings, ToUnsealer,
    UnsealOrder,
};

/// Runs one task until the supervisor's line ends.
pub fn run(control: UnixStream) -> Result<(), String> {
    let Ok((ToUnsealer::Begin(order), fds)) = pair::receive(&control) else {
        return Err("the supervisor did not say what to unseal".to_owned());
    };
    let mut task = match Task::begin(&control, *order, fds) {
        Ok(task) => task,
        Err(error) => {
            tell(&control, &failed(error));
            return Ok(());
        }
    };
    tell(&control, &FromUnsealer::Obtained(task.obtained.clone()));
    while let Ok((message, fds)) = pair::receive::<ToUnsealer>(&control) {
        let done = match message {
            ToUnsealer::Deliver => task.deliver(fds).map(|()| FromUnsealer::Delivered),
            ToUnsealer::DestroyOthers => task.destroy_others().map(|()| FromUnsealer::Destroyed),
            ToUnsealer::Share { place, .. } => Ok(FromUnsealer::ShareRefused {
                sentence: format!("share {place}: enough are there already"),
            }),
            ToUnsealer::Begin(_) => continue,
        };
        tell(&control, &done.unwrap_or_else(failed));
    }
    Ok(())
}

/// If the supervisor is gone, so is this process.
fn tell(control: &UnixStream, message: &FromUnsealer) {
    let _ = pair::send(control, message, &[]);
}

fn failed(ProviderError { fault, sentence }: ProviderError) -> FromUnsealer {
    FromUnsealer::Failed { fault, sentence }
}

/// What one order came to.
struct Task {
    kek: ClearKek,
    obtained: Obtained,
    /// The provider that the KEK lies with from now on, and for which key.
    keeping: Option<(Box<dyn RootProvider>, KekBinding)>,
}

impl Task {
    fn begin(control: &UnixStream, order: UnsealOrder, fds: Vec<OwnedFd>) -> Result<Self, ProviderError> {
        let shares = order.shares().map(|settings| shares::gather(control, settings)).transpose()?;
        let mut given = Given { file: fds.into_iter().next().map(File::from), shares };
        let (kek, known, source) = obtain(order.from, &mut given)?;
        let check_value = Mac::new(kek.as_slice()).check_value();
        if known.is_some_and(|known| known != check_value) {
            return Err(file::another());
        }
        let mut issued = None;
        let (wrapped, keeping) = match (order.wrap, source) {
            (Some((settings, binding)), _) => {
                let mut provider: Box<dyn RootProvider> = match &settings {
                    ProviderSettings::NewShares(new) => {
                        let (provider, made) = SharesProvider::make(new)?;
                        issued = Some(made);
                        Box::new(provider)
                    }
                    ProviderSettings::File | ProviderSettings::Shares(_) => given.provider(&settings)?,
                };
                let wrapped = provider.wrap(&kek, &binding)?;
                // What cannot be unwrapped again must not become the only one there is.
                if provider.unwrap(&wrapped, &binding)?.as_slice() != kek.as_slice() {
                    let sentence =
                        "the root provider does not give back what it wrapped; nothing was changed";
                    return Err(ProviderError::new(ProviderFault::Malformed, sentence));
                }
                (wrapped, Some((provider, binding)))
            }
            (None, source) => (Vec::new(), source),
        };
        Ok(Self { kek, obtained: Obtained { check_value, wrapped, issued }, keeping })
    }

    fn deliver(&self, fds: Vec<OwnedFd>) -> Result<(), ProviderError> {
        let gone = || ProviderError::new(ProviderFault::Unavailable, "the keeper did not take the KEK");
        let to = UnixStream::from(fds.into_iter().next().ok_or_else(gone)?);
        pair::send(&to, &Kek { bytes: self.kek.to_vec() }, &[]).map_err(|_| gone())
    }

    fn destroy_others(&mut self) -> Result<(), ProviderError> {
        self.keeping.as_mut().map_or(Ok(()), |(provider, binding)| provider.destroy_others(binding))
    }
}

/// What the supervisor handed over to reach providers with.
struct Given {
    file: Option<File>,
    /// The secret that shares gave.
    shares: Option<Bytes>,
}

impl Given {
    fn provider(&mut self, settings: &ProviderSettings) -> Result<Box<dyn RootProvider>, ProviderError> {
        match settings {
            ProviderSettings::File => Ok(Box::new(self.file()?)),
            ProviderSettings::Shares(_) | ProviderSettings::NewShares(_) => {
                let secret = self.shares.as_ref().ok_or_else(|| {
                    ProviderError::new(ProviderFault::Waiting, "custodians have to give their shares first")
                })?;
                Ok(Box::new(SharesProvider::new(secret)))
            }
        }
    }

    fn file(&mut self) -> Result<FileProvider, ProviderError> {
        let given = self.file.as_ref().and_then(|file| file.try_clone().ok());
        FileProvider::new(given.ok_or_else(|| {
            ProviderError::new(ProviderFault::Unavailable, "keys.root_key: the file provider needs it")
        })?)
    }
}

/// The KEK, its check value as far as it is known, and the provider that it lies with.
type Found = (ClearKek, Option<String>, Option<(Box<dyn RootProvider>, KekBinding)>);

fn obtain(from: KekSource, given: &mut Given) -> Result<Found, ProviderError> {
    match from {
        KekSource::Make => {
            let bytes = random::make_bytes::<32>().map_err(ProviderError::no_randomness)?;
            Ok((Box::new(Zeroizing::new(bytes)), None, None))
        }
        KekSource::Unwrap { provider, wrapped, binding, check_value } => {
            let mut provider = given.provider(&provider)?;
            let kek = provider.unwrap(&wrapped, &binding)?;
            Ok((kek, Some(check_value), Some((provider, binding))))
        }
        KekSource::InFile { key, version, check_value } => {
            Ok((given.file()?.kek_itself(key, version)?, check_value, None))
        }
    }
}
