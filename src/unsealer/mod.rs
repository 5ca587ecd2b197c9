//! The unsealer: a short-lived process that runs one root provider. It obtains the KEK (unwraps it, or makes it), wraps it where that is
//! asked for, hands it to the keeper over a pair that both inherited, and ends. The supervisor sees wrapped KEKs and check values only.
//!
//! - [`provider`]: what a root provider is.
//! - [`file`]: the file provider, for development.
//! - [`pkcs11`]: a key in a token that does not give it away.
//! - [`transit`]: OpenBao or HashiCorp Vault; [`aws_kms`]: AWS, with [`sigv4`]; [`https`]: the way to either.
//! - [`shares`]: custodians' shares; [`shamir`]: the arithmetic of them.

pub mod aws_kms;
pub mod file;
pub mod https;
pub mod pkcs11;
pub mod provider;
pub mod shamir;
pub mod shares;
pub mod sigv4;
#[cfg(test)]
mod tests;
pub mod transit;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use zeroize::Zeroizing;

use self::aws_kms::AwsKmsProvider;
use self::file::FileProvider;
use self::pkcs11::Pkcs11Provider;
use self::provider::{ClearKek, ProviderError, RootProvider};
use self::shamir::Bytes;
use self::shares::SharesProvider;
use self::transit::TransitProvider;
use crate::keeper::keys::Mac;
use crate::random;
use crate::wire::pair;
use crate::wire::unsealer::{
    FromUnsealer, Kek, KekBinding, KekSource, Needed, Obtained, ProviderFault, ProviderSettings, ToUnsealer,
    UnsealOrder,
};

/// How often it is looked whether the supervisor lives.
const PARENT_LOOK: Duration = Duration::from_millis(500);
/// What a library does is done in less, or never.
const FINISH_WITHIN: Duration = Duration::from_secs(20);

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
            ToUnsealer::DestroySource => task.destroy_source().map(|()| FromUnsealer::Destroyed),
            ToUnsealer::Share { place, .. } => Ok(FromUnsealer::ShareRefused {
                sentence: format!("share {place}: enough are there already"),
            }),
            ToUnsealer::Begin(_) => continue,
        };
        tell(&control, &done.unwrap_or_else(failed));
    }
    Ok(())
}

/// Ends this process a while after the supervisor did, if what it is about has not ended by then: a provider's library is not killed in the
/// middle of what it writes, and does not hold a KEK for long.
pub fn end_soon_after_parent() {
    let parent = rustix::process::getppid();
    std::thread::spawn(move || {
        while rustix::process::getppid() == parent {
            std::thread::sleep(PARENT_LOOK);
        }
        std::thread::sleep(FINISH_WITHIN);
        std::process::exit(1);
    });
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
    /// The one that it came from, where it is kept with another.
    source: Option<(Box<dyn RootProvider>, KekBinding)>,
}

impl Task {
    fn begin(control: &UnixStream, order: UnsealOrder, fds: Vec<OwnedFd>) -> Result<Self, ProviderError> {
        let shares = order.shares().map(|settings| shares::gather(control, settings)).transpose()?;
        let files = order.needed().into_iter().zip(fds.into_iter().map(File::from)).collect();
        let mut given = Given { files, shares };
        let (kek, known, mut source) = obtain(order.from, &mut given)?;
        let check_value = Mac::new(kek.as_slice()).check_value();
        if known.is_some_and(|known| known != check_value) {
            return Err(file::another());
        }
        let mut issued = None;
        let (wrapped, keeping) = match order.wrap {
            Some((settings, binding)) => {
                let mut provider: Box<dyn RootProvider> = match &settings {
                    ProviderSettings::NewShares(new) => {
                        let (provider, made) = SharesProvider::make(new)?;
                        issued = Some(made);
                        Box::new(provider)
                    }
                    ProviderSettings::File
                    | ProviderSettings::Shares(_)
                    | ProviderSettings::Pkcs11(_)
                    | ProviderSettings::Transit(_)
                    | ProviderSettings::AwsKms(_) => given.provider(&settings)?,
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
            None => (Vec::new(), source.take()),
        };
        Ok(Self { kek, obtained: Obtained { check_value, wrapped, issued }, keeping, source })
    }

    fn deliver(&self, fds: Vec<OwnedFd>) -> Result<(), ProviderError> {
        let gone = || ProviderError::new(ProviderFault::Unavailable, "the keeper did not take the KEK");
        let to = UnixStream::from(fds.into_iter().next().ok_or_else(gone)?);
        pair::send(&to, &Kek { bytes: self.kek.to_vec() }, &[]).map_err(|_| gone())
    }

    fn destroy_others(&mut self) -> Result<(), ProviderError> {
        let Some((provider, binding)) = &mut self.keeping else { return Ok(()) };
        provider.destroy_all_but(binding.environment, Some(binding.key))
    }

    fn destroy_source(&mut self) -> Result<(), ProviderError> {
        let Some((provider, binding)) = &mut self.source else { return Ok(()) };
        provider.destroy_all_but(binding.environment, None)
    }
}

/// What the supervisor handed over to reach providers with.
struct Given {
    files: Vec<(Needed, File)>,
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
            ProviderSettings::Pkcs11(settings) => {
                Ok(Box::new(Pkcs11Provider::open(settings, self.given(Needed::Pin)?)?))
            }
            ProviderSettings::Transit(settings) => {
                let (token, trust) = (self.given(Needed::TransitToken)?, self.given(Needed::TransitTrust)?);
                Ok(Box::new(TransitProvider::open(settings, token, trust)?))
            }
            ProviderSettings::AwsKms(settings) => {
                let (credentials, trust) =
                    (self.given(Needed::AwsCredentials)?, self.given(Needed::AwsTrust)?);
                Ok(Box::new(AwsKmsProvider::open(settings, credentials, trust)?))
            }
        }
    }

    fn file(&self) -> Result<FileProvider, ProviderError> {
        FileProvider::new(self.given(Needed::RootKey)?)
    }

    fn given(&self, needed: Needed) -> Result<File, ProviderError> {
        let file = self.files.iter().find(|(what, _)| *what == needed);
        file.and_then(|(_, file)| file.try_clone().ok()).ok_or_else(|| {
            ProviderError::new(ProviderFault::Unavailable, "a file that the root provider needs is not there")
        })
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
