//! A custodian's share of the secret that wraps the KEK, as a person holds it, and how it is sealed to somebody (HPKE, RFC 9180).
//!
//! Text = `cvshare1` ‖ base32(kind(1; 1 real, 2 rehearsal) ‖ ceremony(16) ‖ place(1) ‖ threshold(1) ‖ key check value of the secret(3) ‖
//! share(32) ‖ check), as keys of persons are written. In a file it is sealed: `cvsealed1` ‖ base32(encapsulated key(32) ‖ ciphertext ‖
//! check); DHKEM(X25519, HKDF-SHA-256), HKDF-SHA-256, AES-256-GCM.

use data_encoding::HEXLOWER;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

use super::key::{checked, unchecked};

const SHARE_PREFIX: &str = "cvshare1";
const SEALED_PREFIX: &str = "cvsealed1";
const ENCAPSULATED_BYTES: usize = 32;

/// A share cannot be read or sealed. Nothing of it is quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareFault {
    /// The text is no share.
    #[error("this is no share: it begins with cvshare1, and in a file with cvsealed1")]
    NotShare,
    /// A symbol was lost or mistyped.
    #[error("the share is damaged: type or copy it once more, whole")]
    Damaged,
    /// It was sealed to somebody else, or for something else.
    #[error("this share is not sealed to you, or was edited")]
    NotYours,
    /// The key of whoever it is sealed to is none.
    #[error("the share cannot be sealed to this key")]
    Key,
}

/// One share.
#[derive(Clone)]
pub struct Share {
    /// Whether it is of a rehearsal, and opens nothing.
    pub rehearsal: bool,
    /// The random id of the ceremony that made it.
    pub ceremony: [u8; 16],
    /// Its place, from 1.
    pub place: u8,
    /// How many are needed.
    pub threshold: u8,
    /// The key check value of the secret.
    pub secret_check: [u8; 3],
    /// The share itself.
    pub bytes: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Share({}, {}, REDACTED)", HEXLOWER.encode(&self.ceremony), self.place)
    }
}

impl Share {
    /// As a person keeps it.
    pub fn text(&self) -> Zeroizing<String> {
        let kind = if self.rehearsal { 2 } else { 1 };
        let head = [&[kind][..], &self.ceremony, &[self.place, self.threshold], &self.secret_check].concat();
        let all = Zeroizing::new([head.as_slice(), self.bytes.as_slice()].concat());
        Zeroizing::new(checked(SHARE_PREFIX, &all))
    }

    /// Reads what [`text`](Self::text) wrote; blanks and line ends between symbols are passed over.
    pub fn parse(text: &str) -> Result<Self, ShareFault> {
        let plain: Zeroizing<String> =
            Zeroizing::new(text.chars().filter(|symbol| !symbol.is_whitespace()).collect());
        let symbols = plain.strip_prefix(SHARE_PREFIX).ok_or(ShareFault::NotShare)?;
        let all = Zeroizing::new(unchecked(SHARE_PREFIX, symbols).ok_or(ShareFault::Damaged)?);
        let (kind, rest) = all.split_first().ok_or(ShareFault::Damaged)?;
        let (ceremony, rest) = rest.split_first_chunk().ok_or(ShareFault::Damaged)?;
        let ([place, threshold], rest) = rest.split_first_chunk().ok_or(ShareFault::Damaged)?;
        let (secret_check, rest) = rest.split_first_chunk().ok_or(ShareFault::Damaged)?;
        let bytes = rest.try_into().map_err(|_| ShareFault::Damaged)?;
        let (ceremony, secret_check) = (*ceremony, *secret_check);
        let (place, threshold, rehearsal) = (*place, *threshold, *kind == 2);
        Ok(Self { rehearsal, ceremony, place, threshold, secret_check, bytes: Zeroizing::new(bytes) })
    }
}

/// Seals bytes to an X25519 key, for one thing only.
pub fn seal_to(public: &[u8; 32], info: &[u8], bytes: &[u8]) -> Result<Vec<u8>, ShareFault> {
    let public =
        <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(public.as_slice()).map_err(|_| ShareFault::Key)?;
    let (encapsulated, sealed) = hpke::single_shot_seal::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public,
        info,
        bytes,
        &[],
    )
    .map_err(|_| ShareFault::Key)?;
    Ok([encapsulated.to_bytes().as_slice(), sealed.as_slice()].concat())
}

/// Opens what was sealed to the public half of this X25519 secret for the same thing.
pub fn open_with(secret: &[u8; 32], info: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, ShareFault> {
    let not_yours = |_| ShareFault::NotYours;
    let (encapsulated, sealed) = sealed.split_at_checked(ENCAPSULATED_BYTES).ok_or(ShareFault::NotYours)?;
    let secret = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(secret.as_slice()).map_err(not_yours)?;
    let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).map_err(not_yours)?;
    let opened = hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &secret,
        &encapsulated,
        info,
        sealed,
        &[],
    );
    opened.map(Zeroizing::new).map_err(not_yours)
}

/// The public half of an X25519 secret.
pub fn public_of(secret: &[u8; 32]) -> Result<[u8; 32], ShareFault> {
    let secret =
        <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(secret.as_slice()).map_err(|_| ShareFault::Key)?;
    Ok(X25519HkdfSha256::sk_to_pk(&secret).to_bytes().into())
}

/// What a custodian's share is sealed to them for.
pub fn custodian_info(ceremony: &[u8; 16]) -> Vec<u8> {
    [b"cardvault/share/v1".as_slice(), ceremony].concat()
}

/// What a share is sealed to an unsealer for.
pub fn unseal_info(ceremony: &[u8; 16]) -> Vec<u8> {
    [b"cardvault/unseal/v1".as_slice(), ceremony].concat()
}

/// What was sealed, as it stands in a file.
pub fn sealed_text(sealed: &[u8]) -> String {
    checked(SEALED_PREFIX, sealed)
}

/// The sealed bytes in the text of a file, if there are any.
pub fn find_sealed(text: &str) -> Result<Vec<u8>, ShareFault> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(SEALED_PREFIX));
    unchecked(SEALED_PREFIX, line.ok_or(ShareFault::NotShare)?).ok_or(ShareFault::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::person::key::PersonKey;

    fn share() -> Share {
        Share {
            rehearsal: false,
            ceremony: [5; 16],
            place: 2,
            threshold: 3,
            secret_check: [1, 2, 3],
            bytes: Zeroizing::new([9; 32]),
        }
    }

    #[test]
    fn a_share_comes_back_whole_or_not_at_all() {
        let text = share().text();
        let read = Share::parse(&format!(" {}\n{} ", &text[..20], &text[20..])).unwrap();
        assert_eq!((read.ceremony, read.place, read.threshold), ([5; 16], 2, 3));
        assert_eq!((read.secret_check, *read.bytes, read.rehearsal), ([1, 2, 3], [9; 32], false));
        assert_eq!(format!("{read:?}"), "Share(05050505050505050505050505050505, 2, REDACTED)");
        for at in SHARE_PREFIX.len()..text.len() {
            let mut other = text.as_bytes().to_vec();
            other[at] = if other[at] == b'a' { b'b' } else { b'a' };
            assert!(Share::parse(std::str::from_utf8(&other).unwrap()).is_err(), "{at}");
        }
        assert_eq!(Share::parse("").unwrap_err(), ShareFault::NotShare);
    }

    #[test]
    fn what_is_sealed_opens_for_one_person_and_one_thing() {
        let [alice, bob] = [(); 2].map(|()| PersonKey::make().unwrap());
        let text = share().text();
        let info = custodian_info(&[5; 16]);
        let sealed = seal_to(&alice.public().unwrap().sealing, &info, text.as_bytes()).unwrap();
        let kept = format!("# of alice\n{}\n", sealed_text(&sealed));
        assert_eq!(find_sealed(&kept), Ok(sealed.clone()));
        let open = |key: &PersonKey, info: &[u8], sealed: &[u8]| {
            open_with(&key.sealing_secret().unwrap(), info, sealed)
        };
        assert_eq!(open(&alice, &info, &sealed).unwrap().as_slice(), text.as_bytes());
        assert_eq!(open(&bob, &info, &sealed), Err(ShareFault::NotYours));
        assert_eq!(open(&alice, &unseal_info(&[5; 16]), &sealed), Err(ShareFault::NotYours));
        for at in 0..sealed.len() {
            let mut edited = sealed.clone();
            edited[at] ^= 1;
            assert_eq!(open(&alice, &info, &edited), Err(ShareFault::NotYours), "{at}");
        }
    }
}
