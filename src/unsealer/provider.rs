//! What a root provider is: it wraps the KEK under a root key of its own and unwraps it again, for one place only.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use zeroize::Zeroizing;

use crate::random;
use crate::wire::unsealer::{KekBinding, ProviderFault};

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// The KEK, in the clear.
pub type ClearKek = Box<Zeroizing<[u8; 32]>>;

/// Why a provider could not do what it was asked; each sentence says what to do, and names no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct ProviderError {
    /// What kind of fault.
    pub fault: ProviderFault,
    /// What happened, and what to do.
    pub sentence: String,
}

impl ProviderError {
    /// A fault of this kind.
    pub fn new(fault: ProviderFault, sentence: impl Into<String>) -> Self {
        Self { fault, sentence: sentence.into() }
    }

    /// The operating system gives no random bytes.
    pub fn no_randomness(_: random::NoRandomness) -> Self {
        Self::new(ProviderFault::Unavailable, "the operating system's random number generator failed")
    }
}

/// Holds a root key, or reaches who does.
pub trait RootProvider {
    /// Wraps a KEK for this place.
    fn wrap(&mut self, kek: &[u8; 32], binding: &KekBinding) -> Result<Vec<u8>, ProviderError>;

    /// Unwraps what [`wrap`](Self::wrap) gave for the same place.
    fn unwrap(&mut self, wrapped: &[u8], binding: &KekBinding) -> Result<ClearKek, ProviderError>;

    /// Destroys what wraps KEKs of this environment, all but the one of this id, if that can be done here. It is called once what
    /// comes after is durable.
    fn destroy_all_but(&mut self, environment: [u8; 16], keep: Option<u32>) -> Result<(), ProviderError>;
}

/// Wraps a KEK under 32 bytes of root key: `nonce(12) ‖ ciphertext(32) ‖ tag(16)`, AES-256-GCM, the binding as AAD.
pub fn wrap_under(root: &[u8; 32], kek: &[u8; 32], binding: &KekBinding) -> Result<Vec<u8>, ProviderError> {
    let failed = |_| ProviderError::new(ProviderFault::Malformed, "the KEK could not be wrapped");
    let mut body = Zeroizing::new(*kek);
    let nonce = random::make_bytes::<NONCE_BYTES>().map_err(ProviderError::no_randomness)?;
    let tag = Aes256Gcm::new(root.into())
        .encrypt_inout_detached(&Nonce::from(nonce), &binding.aad(), body.as_mut_slice().into())
        .map_err(failed)?;
    Ok([nonce.as_slice(), body.as_slice(), tag.as_slice()].concat())
}

/// Opens what [`wrap_under`] made; `None` if anything at all does not fit.
pub fn unwrap_under(root: &[u8; 32], wrapped: &[u8], binding: &KekBinding) -> Option<ClearKek> {
    let (nonce, rest) = wrapped.split_first_chunk::<NONCE_BYTES>()?;
    let (body, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
    let mut kek: ClearKek = Box::new(Zeroizing::new(body.try_into().ok()?));
    Aes256Gcm::new(root.into())
        .decrypt_inout_detached(
            &Nonce::from(*nonce),
            &binding.aad(),
            kek.as_mut_slice().into(),
            &Tag::from(*tag),
        )
        .ok()?;
    Some(kek)
}
