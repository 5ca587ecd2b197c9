//! The PKCS #11 provider (OASIS PKCS #11 v2.40 and later): for each KEK an AES-256 key in a token, made there and never to leave it,
//! labelled `cardvault-<environment id>-<key id>`. It wraps with CKM_AES_GCM, the binding as AAD: `nonce(12) ‖ ciphertext(32) ‖ tag(16)`.
//! A KEK is gone for good, in every copy of the key store, when its key is.
//!
//! A token counts wrong PINs, and locks. So none is tried where the next wrong one would lock it, and the supervisor has one that was
//! refused not tried again.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::provider::{ClearKek, ProviderError, RootProvider};
use crate::random;
use crate::wire::unsealer::{KekBinding, Pkcs11Settings, ProviderFault};

const NONCE_BYTES: usize = 12;
const TAG_BITS: u64 = 128;
const KEY_BYTES: u64 = 32;
/// Far longer than any PIN.
const PIN_BYTES_MAX: u64 = 256;

/// A token, with a session in which its user is logged in.
pub struct Pkcs11Provider {
    session: Session,
}

impl Pkcs11Provider {
    /// Loads the vendor's library, finds the token and logs in; a PIN file that others may read is refused.
    pub fn open(settings: &Pkcs11Settings, pin: File) -> Result<Self, ProviderError> {
        let pin = read_pin(pin)?;
        let library = Pkcs11::new(&settings.module).map_err(|_| {
            unavailable("keys.pkcs11.module: the library cannot be loaded; look at its path, and at keys.pkcs11.paths")
        })?;
        library
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .map_err(|error| fault_of("initialised", &error))?;
        let slot = find(&library, &settings.token)?;
        let session = library.open_rw_session(slot).map_err(|error| fault_of("opened", &error))?;
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(Self { session }),
            Err(error) => Err(fault_of("logged in to", &error)),
        }
    }

    fn key(&self, label: &str) -> Result<Option<ObjectHandle>, ProviderError> {
        let found =
            self.session.find_objects(&template(label)).map_err(|error| fault_of("searched", &error))?;
        match found[..] {
            [] => Ok(None),
            [key] => Ok(Some(key)),
            [..] => Err(ProviderError::new(
                ProviderFault::Malformed,
                "keys.pkcs11: the token has two keys of the label that the KEK is wrapped under; remove the wrong one",
            )),
        }
    }

    fn make(&self, label: &str) -> Result<ObjectHandle, ProviderError> {
        let mut attributes = template(label);
        attributes.extend([
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Modifiable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::Wrap(false),
            Attribute::Unwrap(false),
            Attribute::ValueLen(KEY_BYTES.into()),
        ]);
        self.session
            .generate_key(&Mechanism::AesKeyGen, &attributes)
            .map_err(|error| fault_of("given a key", &error))
    }

    /// A key that can leave the token, or that came into it from elsewhere and so is known there, protects nothing that the token is for.
    fn check(&self, key: ObjectHandle) -> Result<(), ProviderError> {
        let wanted = [AttributeType::Local, AttributeType::AlwaysSensitive, AttributeType::NeverExtractable];
        let read = self.session.get_attributes(key, &wanted).map_err(|error| fault_of("asked", &error))?;
        let made_here =
            [Attribute::Local(true), Attribute::AlwaysSensitive(true), Attribute::NeverExtractable(true)];
        if made_here.iter().all(|attribute| read.contains(attribute)) {
            return Ok(());
        }
        let sentence = "keys.pkcs11: the token's key can be read out of it or was not made in it; remove it, and let the vault make \
                        its own";
        Err(ProviderError::new(ProviderFault::Refused, sentence))
    }
}

impl RootProvider for Pkcs11Provider {
    fn wrap(&mut self, kek: &[u8; 32], binding: &KekBinding) -> Result<Vec<u8>, ProviderError> {
        // One that an attempt before left behind has wrapped nothing that anybody kept.
        let label = label_of(binding.environment, binding.key);
        let key = match self.key(&label)? {
            Some(key) => key,
            None => self.make(&label)?,
        };
        self.check(key)?;
        let nonce = random::make_bytes::<NONCE_BYTES>().map_err(ProviderError::no_randomness)?;
        let (mut iv, aad) = (nonce, binding.aad());
        let sealed = self
            .session
            .encrypt(&gcm(&mut iv, &aad)?, key, kek)
            .map_err(|error| fault_of("asked to wrap", &error))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    fn unwrap(&mut self, wrapped: &[u8], binding: &KekBinding) -> Result<ClearKek, ProviderError> {
        let key = self.key(&label_of(binding.environment, binding.key))?.ok_or_else(missing)?;
        let (nonce, sealed) = wrapped.split_first_chunk::<NONCE_BYTES>().ok_or_else(another)?;
        let (mut iv, aad) = (*nonce, binding.aad());
        let opened = match self.session.decrypt(&gcm(&mut iv, &aad)?, key, sealed) {
            Ok(opened) => Zeroizing::new(opened),
            // What tokens say of a tag that does not fit differs: SoftHSM says GENERAL_ERROR.
            Err(Error::Pkcs11(
                RvError::EncryptedDataInvalid
                | RvError::EncryptedDataLenRange
                | RvError::GeneralError
                | RvError::FunctionFailed,
                _,
            )) => return Err(another()),
            Err(error) => return Err(fault_of("asked to unwrap", &error)),
        };
        Ok(Box::new(Zeroizing::new(opened.as_slice().try_into().map_err(|_| another())?)))
    }

    fn destroy_all_but(&mut self, environment: [u8; 16], keep: Option<u32>) -> Result<(), ProviderError> {
        let kept = keep.map(|key| label_of(environment, key));
        // A token without the key in use would be the end of every card.
        if let Some(label) = &kept
            && self.key(label)?.is_none()
        {
            return Err(missing());
        }
        let prefix = prefix_of(environment);
        let class = [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(KeyType::AES)];
        let all = self.session.find_objects(&class).map_err(|error| fault_of("searched", &error))?;
        for key in all {
            let read = self
                .session
                .get_attributes(key, &[AttributeType::Label])
                .map_err(|error| fault_of("asked", &error))?;
            let Some(Attribute::Label(label)) = read.first() else { continue };
            let is_ours = label.starts_with(prefix.as_bytes());
            if is_ours && kept.as_ref().is_none_or(|kept| kept.as_bytes() != label.as_slice()) {
                self.session
                    .destroy_object(key)
                    .map_err(|error| fault_of("asked to destroy a key", &error))?;
            }
        }
        Ok(())
    }
}

fn read_pin(file: File) -> Result<AuthPin, ProviderError> {
    let unreadable =
        |error: std::io::Error| unavailable(&format!("keys.pkcs11.pin cannot be read: {}", error.kind()));
    if file.metadata().map_err(unreadable)?.mode() & 0o077 != 0 {
        let sentence = "keys.pkcs11.pin: others may read this file; run chmod 600 on it";
        return Err(ProviderError::new(ProviderFault::Refused, sentence));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(PIN_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    Ok(AuthPin::from(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// The token of this label; one that the next wrong PIN locks is not tried.
fn find(library: &Pkcs11, label: &str) -> Result<Slot, ProviderError> {
    let slots = library.get_slots_with_token().map_err(|error| fault_of("listed", &error))?;
    let mut found = None;
    for slot in slots {
        let info = library.get_token_info(slot).map_err(|error| fault_of("asked", &error))?;
        if info.label() != label {
            continue;
        }
        if info.user_pin_locked() || info.user_pin_final_try() {
            let sentence = "keys.pkcs11: wrong PINs were given to the token, and the next one locks it; put the right one into \
                            keys.pkcs11.pin, and log in by hand once";
            return Err(ProviderError::new(ProviderFault::Refused, sentence));
        }
        if found.replace(slot).is_some() {
            let sentence = "keys.pkcs11.token: two tokens have this label; give one of them another";
            return Err(ProviderError::new(ProviderFault::Malformed, sentence));
        }
    }
    found.ok_or_else(|| {
        unavailable("keys.pkcs11.token: no token of this label is there; look at keys.pkcs11.paths as well")
    })
}

fn prefix_of(environment: [u8; 16]) -> String {
    format!("cardvault-{}-", HEXLOWER.encode(&environment))
}

fn label_of(environment: [u8; 16], key: u32) -> String {
    format!("{}{key}", prefix_of(environment))
}

fn template(label: &str) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Label(label.as_bytes().to_vec()),
    ]
}

fn gcm<'a>(nonce: &'a mut [u8; NONCE_BYTES], aad: &'a [u8]) -> Result<Mechanism<'a>, ProviderError> {
    let parameters = GcmParams::new(nonce, aad, TAG_BITS.into());
    Ok(Mechanism::AesGcm(parameters.map_err(|error| fault_of("asked", &error))?))
}

fn unavailable(sentence: &str) -> ProviderError {
    ProviderError::new(ProviderFault::Unavailable, sentence)
}

fn missing() -> ProviderError {
    let sentence = "keys.pkcs11: the token has no key that wraps the KEK of this key store; restore the token, or the key store that \
                    belongs to it";
    ProviderError::new(ProviderFault::WrongKey, sentence)
}

fn another() -> ProviderError {
    let sentence = "keys.pkcs11: the token's key is another than the one that wrapped this KEK; restore the token, or the key store \
                    that belongs to it";
    ProviderError::new(ProviderFault::WrongKey, sentence)
}

/// What an error of the token means. Its code is the vendor's word; nothing else of it is told.
fn fault_of(done: &str, error: &Error) -> ProviderError {
    let Error::Pkcs11(code, _) = error else {
        return unavailable(&format!(
            "keys.pkcs11: the token could not be {done}: its library does not work as it should"
        ));
    };
    let refused_pin = matches!(
        code,
        RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinExpired
            | RvError::PinLocked
    );
    let refused = matches!(
        code,
        RvError::UserPinNotInitialized
            | RvError::UserNotLoggedIn
            | RvError::ActionProhibited
            | RvError::MechanismInvalid
            | RvError::KeyFunctionNotPermitted
            | RvError::TokenWriteProtected
    );
    let fault = match (refused_pin, refused) {
        (true, _) => ProviderFault::PinRefused,
        (false, true) => ProviderFault::Refused,
        (false, false) => ProviderFault::Unavailable,
    };
    ProviderError::new(
        fault,
        format!("keys.pkcs11: the token could not be {done}: its library says {code:?}"),
    )
}
