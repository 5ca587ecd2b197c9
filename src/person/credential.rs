//! The credential of a principal: `cv_` and 256 random bits. The vault keeps its SHA-256 alone, so whoever is to have it can make it.

use data_encoding::BASE32_NOPAD;
use ring::digest::{SHA256, digest};

use crate::random::{self, NoRandomness};

/// A credential, and what is kept of it.
pub fn make() -> Result<(String, [u8; 32]), NoRandomness> {
    let random = random::make_bytes::<32>()?;
    let credential = format!("cv_{}", BASE32_NOPAD.encode(&random).to_ascii_lowercase());
    let hash = hash_of(credential.as_bytes());
    Ok((credential, hash))
}

/// What is kept of a credential.
pub fn hash_of(credential: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, credential).as_ref());
    hash
}
