//! The provider of custodians' shares: a secret that no machine keeps wraps the KEK, and k of n persons give it back.
//!
//! A share arrives sealed to a key that the unsealer made for this task alone (HPKE): whoever carries it, the supervisor too, cannot read
//! it, and it is of no use to another unsealer. Each share is known by its key check value, so that a wrong one is named; the secret by
//! its own.

use std::os::unix::net::UnixStream;

use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::provider::{ClearKek, ProviderError, RootProvider, unwrap_under, wrap_under};
use super::shamir::{self, Bytes};
use crate::keeper::keys::Mac;
use crate::person::share::{Share, custodian_info, open_with, public_of, seal_to, unseal_info};
use crate::random;
use crate::wire::pair;
use crate::wire::unsealer::{
    FromUnsealer, Issued, IssuedShare, KekBinding, NewSharesSettings, ProviderFault, SharesSettings,
    ToUnsealer,
};

/// Wraps under the secret of a ceremony.
pub struct SharesProvider {
    secret: Bytes,
}

impl SharesProvider {
    /// With the secret that shares gave.
    pub fn new(secret: &Bytes) -> Self {
        Self { secret: secret.clone() }
    }

    /// Makes a secret, and a share of it for each custodian.
    pub fn make(new: &NewSharesSettings) -> Result<(Self, Issued), ProviderError> {
        let count = u8::try_from(new.custodians.len()).unwrap_or(u8::MAX);
        if new.threshold < 2 || count < new.threshold {
            let sentence = "a ceremony takes two custodians or more, and no more than there are";
            return Err(ProviderError::new(ProviderFault::Malformed, sentence));
        }
        let secret: Bytes = Zeroizing::new(random::make_bytes::<32>().map_err(ProviderError::no_randomness)?);
        let secret_check = Mac::new(secret.as_slice()).check_value();
        let parts = shamir::split(&secret, new.threshold, count).map_err(ProviderError::no_randomness)?;
        let info = custodian_info(&new.ceremony);
        let mut shares = Vec::new();
        for ((place, bytes), custodian) in (1..).zip(parts).zip(&new.custodians) {
            let check_value = Mac::new(bytes.as_slice()).check_value();
            let share = Share {
                rehearsal: new.rehearsal,
                ceremony: new.ceremony,
                place,
                threshold: new.threshold,
                secret_check: check_bytes(&secret_check),
                bytes,
            };
            let sealed = seal_to(custodian, &info, share.text().as_bytes()).map_err(|fault| {
                ProviderError::new(ProviderFault::Malformed, format!("share {place}: {fault}"))
            })?;
            shares.push(IssuedShare { place, check_value, sealed });
        }
        Ok((Self { secret }, Issued { secret_check, shares }))
    }
}

impl RootProvider for SharesProvider {
    fn wrap(&mut self, kek: &[u8; 32], binding: &KekBinding) -> Result<Vec<u8>, ProviderError> {
        wrap_under(&self.secret, kek, binding)
    }

    fn unwrap(&mut self, wrapped: &[u8], binding: &KekBinding) -> Result<ClearKek, ProviderError> {
        unwrap_under(&self.secret, wrapped, binding).ok_or_else(|| {
            let sentence = "the shares are right, and the KEK in the key store is not wrapped under their secret: it was edited, or is \
                            of another ceremony or installation; restore the key store that belongs to it";
            ProviderError::new(ProviderFault::WrongKey, sentence)
        })
    }

    fn destroy_all_but(&mut self, _: [u8; 16], _: Option<u32>) -> Result<(), ProviderError> {
        // A secret in people's hands is the same for all: it dies with the ceremony that replaces it.
        Ok(())
    }
}

/// Takes shares until there are enough, and gives the secret.
pub fn gather(control: &UnixStream, settings: &SharesSettings) -> Result<Bytes, ProviderError> {
    let secret = Zeroizing::new(random::make_bytes::<32>().map_err(ProviderError::no_randomness)?);
    let public = public_of(&secret)
        .map_err(|fault| ProviderError::new(ProviderFault::Unavailable, fault.to_string()))?;
    let gone = || ProviderError::new(ProviderFault::Unavailable, "the supervisor is gone");
    pair::send(control, &FromUnsealer::Gathering { public }, &[]).map_err(|_| gone())?;
    let mut shares: Vec<(u8, Bytes)> = Vec::new();
    while shares.len() < usize::from(settings.threshold) {
        let Ok((ToUnsealer::Share { place, sealed }, _)) = pair::receive(control) else { return Err(gone()) };
        let said = match take(settings, &secret, place, &sealed, &shares) {
            Ok(bytes) => {
                shares.push((place, bytes));
                FromUnsealer::ShareTaken
            }
            Err(sentence) => FromUnsealer::ShareRefused { sentence },
        };
        pair::send(control, &said, &[]).map_err(|_| gone())?;
    }
    let secret = shamir::combine(&shares);
    if Mac::new(secret.as_slice()).check_value() == settings.secret_check {
        return Ok(secret);
    }
    // Each share was the one of its place: then the record of the secret itself was edited.
    let sentence =
        "the shares do not give the secret of their ceremony; restore the key store that belongs to it";
    Err(ProviderError::new(ProviderFault::WrongKey, sentence))
}

/// The share that was sealed, if it is the one of this place. What is refused names the place, never a byte.
fn take(
    settings: &SharesSettings,
    secret: &[u8; 32],
    place: u8,
    sealed: &[u8],
    taken: &[(u8, Bytes)],
) -> Result<Bytes, String> {
    let opened = open_with(secret, &unseal_info(&settings.ceremony), sealed).map_err(|_| {
        format!("share {place}: it was not sealed for this unsealing; give it once more with `cardvault keys unseal`")
    })?;
    let text = std::str::from_utf8(&opened).map_err(|_| format!("share {place}: this is no share"))?;
    let share = Share::parse(text).map_err(|fault| format!("share {place}: {fault}"))?;
    if share.ceremony != settings.ceremony {
        return Err(format!(
            "share {place}: it is of another ceremony ({}), not of {}",
            HEXLOWER.encode(&share.ceremony),
            HEXLOWER.encode(&settings.ceremony)
        ));
    }
    if share.place != place {
        return Err(format!("share {}: it is another person's, who gives it alone", share.place));
    }
    if taken.iter().any(|(taken, _)| *taken == place) {
        return Err(format!("share {place}: it is there already"));
    }
    let check_value = Mac::new(share.bytes.as_slice()).check_value();
    let known = settings.shares.iter().find(|(known, _)| *known == place);
    if known.is_none_or(|(_, known)| *known != check_value) || share.threshold != settings.threshold {
        return Err(format!("share {place}: it is not the one that was issued"));
    }
    Ok(share.bytes)
}

fn check_bytes(check_value: &str) -> [u8; 3] {
    HEXLOWER.decode(check_value.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
}
