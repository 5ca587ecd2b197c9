//! Envelope v1: one field, sealed to one place. The layout and the info are in [`crate::card::sealed`].

use zeroize::Zeroizing;

use super::Pan;
use crate::card::expiry::Expiry;
use crate::card::id::Token;
use crate::card::sealed::{FORMAT_V1, Field, OVERHEAD_BYTES, SealedField};
use crate::card::tenant::TenantId;
use crate::keeper::keys::{Dek, KeyError, KeyRing};

/// Where a field belongs; all of it is bound into the envelope.
#[derive(Clone, Copy)]
pub(in crate::keeper) struct Place {
    /// The installation's random id.
    pub(in crate::keeper) environment: [u8; 16],
    /// Whose.
    pub(in crate::keeper) tenant: TenantId,
    /// Which card.
    pub(in crate::keeper) token: Token,
    /// The destination set.
    pub(in crate::keeper) policy: u32,
}

/// The envelope did not open: edited, swapped, or of another place. Which, nobody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::keeper) struct Unreadable;

/// A billing zip: up to 15 bytes.
pub(in crate::keeper) type Zip = Zeroizing<String>;

impl Place {
    /// Seals a number.
    pub(in crate::keeper) fn seal_pan(
        &self,
        key: (u32, &Dek),
        version: u32,
        pan: &Pan,
    ) -> Result<SealedField, KeyError> {
        self.seal_text(key, Field::Pan, version, pan.expose_digits())
    }

    /// Seals a zip.
    pub(in crate::keeper) fn seal_zip(
        &self,
        key: (u32, &Dek),
        version: u32,
        zip: &str,
    ) -> Result<SealedField, KeyError> {
        self.seal_text(key, Field::Zip, version, zip.as_bytes())
    }

    /// Seals an expiry: `month(1) ‖ year(2, big-endian) ‖ 0`.
    pub(in crate::keeper) fn seal_expiry(
        &self,
        key: (u32, &Dek),
        version: u32,
        expiry: Expiry,
    ) -> Result<SealedField, KeyError> {
        let [high, low] = expiry.year.to_be_bytes();
        self.seal(key, Field::Expiry, version, &[expiry.month, high, low, 0])
    }

    /// Opens a number.
    pub(in crate::keeper) fn open_pan(
        &self,
        keys: &KeyRing,
        sealed: &SealedField,
    ) -> Result<Pan, Unreadable> {
        let mut padded = Zeroizing::new([0; Field::Pan.padded_bytes()]);
        let digits = self.open_text(keys, Field::Pan, sealed, padded.as_mut_slice())?;
        Pan::from_digits(digits).map_err(|_| Unreadable)
    }

    /// Opens a zip.
    pub(in crate::keeper) fn open_zip(
        &self,
        keys: &KeyRing,
        sealed: &SealedField,
    ) -> Result<Zip, Unreadable> {
        let mut padded = Zeroizing::new([0; Field::Zip.padded_bytes()]);
        let text = self.open_text(keys, Field::Zip, sealed, padded.as_mut_slice())?;
        std::str::from_utf8(text).map(|t| Zeroizing::new(t.to_owned())).map_err(|_| Unreadable)
    }

    /// Opens an expiry.
    pub(in crate::keeper) fn open_expiry(
        &self,
        keys: &KeyRing,
        sealed: &SealedField,
    ) -> Result<Expiry, Unreadable> {
        let mut padded = [0; Field::Expiry.padded_bytes()];
        self.open(keys, Field::Expiry, sealed, &mut padded)?;
        let [month, high, low, _] = padded;
        Ok(Expiry { month, year: u16::from_be_bytes([high, low]) })
    }

    /// Seals again under another key what is sealed under this one: the same field at the same version. Nothing is read of it.
    pub(in crate::keeper) fn reseal(
        &self,
        keys: &KeyRing,
        key: (u32, &Dek),
        field: Field,
        sealed: &SealedField,
    ) -> Result<SealedField, Unreadable> {
        if sealed.key_id() == Some(key.0) {
            return Ok(sealed.clone());
        }
        let mut padded = Zeroizing::new([0; Field::Pan.padded_bytes()]);
        let padded = padded.get_mut(..field.padded_bytes()).ok_or(Unreadable)?;
        self.open(keys, field, sealed, padded)?;
        self.seal(key, field, sealed.version, padded).map_err(|_| Unreadable)
    }

    /// `length(1) ‖ text ‖ zeros`, so that an envelope's length says nothing about the text's.
    fn seal_text(
        &self,
        key: (u32, &Dek),
        field: Field,
        version: u32,
        text: &[u8],
    ) -> Result<SealedField, KeyError> {
        let mut padded = Zeroizing::new([0_u8; Field::Pan.padded_bytes()]);
        if text.len() >= field.padded_bytes() {
            return Err(KeyError::Missing);
        }
        let length = u8::try_from(text.len()).unwrap_or(0);
        for (to, from) in padded.iter_mut().zip(std::iter::once(&length).chain(text)) {
            *to = *from;
        }
        self.seal(key, field, version, padded.get(..field.padded_bytes()).unwrap_or_default())
    }

    fn open_text<'a>(
        &self,
        keys: &KeyRing,
        field: Field,
        sealed: &SealedField,
        padded: &'a mut [u8],
    ) -> Result<&'a [u8], Unreadable> {
        self.open(keys, field, sealed, padded)?;
        let (length, text) = padded.split_first().ok_or(Unreadable)?;
        text.get(..usize::from(*length)).ok_or(Unreadable)
    }

    fn seal(
        &self,
        (key_id, dek): (u32, &Dek),
        field: Field,
        version: u32,
        padded: &[u8],
    ) -> Result<SealedField, KeyError> {
        let mut envelope = Vec::with_capacity(OVERHEAD_BYTES + padded.len());
        envelope.push(FORMAT_V1);
        envelope.extend_from_slice(&key_id.to_be_bytes());
        dek.seal(&self.info(field, version, key_id), padded, &mut envelope)?;
        Ok(SealedField { version, envelope })
    }

    fn open(
        &self,
        keys: &KeyRing,
        field: Field,
        sealed: &SealedField,
        padded: &mut [u8],
    ) -> Result<(), Unreadable> {
        let key_id = sealed.key_id().ok_or(Unreadable)?;
        let dek = keys.dek(key_id).ok_or(Unreadable)?;
        let body = sealed.envelope.get(5..).ok_or(Unreadable)?;
        let opened = dek.open(&self.info(field, sealed.version, key_id), body, padded);
        if opened { Ok(()) } else { Err(Unreadable) }
    }

    fn info(&self, field: Field, version: u32, key_id: u32) -> Vec<u8> {
        let mut info = Vec::with_capacity(80);
        for part in [
            self.environment.as_slice(),
            &self.tenant.0.to_be_bytes(),
            self.token.bytes(),
            field.name().as_bytes(),
            &version.to_be_bytes(),
            &key_id.to_be_bytes(),
            &self.policy.to_be_bytes(),
        ] {
            info.extend_from_slice(&u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
            info.extend_from_slice(part);
        }
        info
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::id::IdBytes;
    use crate::clock::Time;
    use crate::keeper::keys::Kek;
    use crate::wire::keys::{HeldKey, KeyOrder, KeyPurpose, WrappedKey};
    use proptest::prelude::*;

    const NOW: Time = Time::from_micros(1_700_000_000_000_000);

    fn order(id: u32, tenant: u32) -> KeyOrder {
        KeyOrder { id, purpose: KeyPurpose::Data, tenant: Some(TenantId(tenant)), epoch: 5, version: 1 }
    }

    fn place() -> Place {
        Place { environment: [9; 16], tenant: TenantId(1), token: Token(IdBytes([3; 18])), policy: 1 }
    }

    fn keys() -> KeyRing {
        let kek = Kek::new(&[7; 32], [9; 16]).unwrap();
        let mut ring = KeyRing::default();
        for (id, tenant) in [(1, 1), (2, 2)] {
            let made = kek.make_wrapped(order(id, tenant)).unwrap();
            ring.put(&kek, &HeldKey::active(made)).unwrap();
        }
        ring
    }

    fn sealed(keys: &KeyRing) -> SealedField {
        let pan = Pan::parse("4242424242424242").unwrap();
        place().seal_pan(keys.sealing_key(TenantId(1), NOW).unwrap(), 1, &pan).unwrap()
    }

    #[test]
    fn a_field_opens_only_where_it_belongs() {
        let keys = keys();
        let field = sealed(&keys);
        assert!(place().open_pan(&keys, &field).is_ok());
        let elsewhere = [
            Place { environment: [8; 16], ..place() },
            Place { tenant: TenantId(2), ..place() },
            Place { token: Token(IdBytes([4; 18])), ..place() },
            Place { policy: 2, ..place() },
        ];
        for other in elsewhere {
            assert_eq!(other.open_pan(&keys, &field).unwrap_err(), Unreadable);
        }
        let older = SealedField { version: 2, ..field.clone() };
        assert!(place().open_pan(&keys, &older).is_err());
        assert!(place().open_expiry(&keys, &field).is_err());
    }

    /// Environment, tenant, token, policy, version.
    type Parts = (u8, u32, u8, u32, u32);

    /// Two values for each part, so that some draws agree in all.
    fn parts() -> impl Strategy<Value = Parts> {
        (0_u8..2, 1_u32..3, 0_u8..2, 1_u32..3, 1_u32..3)
    }

    fn place_of((environment, tenant, token, policy, _): Parts) -> Place {
        let token = Token(IdBytes([token; 18]));
        Place { environment: [environment; 16], tenant: TenantId(tenant), token, policy }
    }

    proptest! {
        #[test]
        fn a_field_opens_exactly_where_it_was_sealed(one in parts(), other in parts()) {
            let keys = keys();
            let key = keys.sealing_key(TenantId(1), NOW).unwrap();
            let sealed = place_of(one).seal_zip(key, one.4, "94103").unwrap();
            for (parts, expected) in [(other, one == other), (one, true)] {
                let field = SealedField { version: parts.4, ..sealed.clone() };
                let opened = place_of(parts).open_zip(&keys, &field);
                prop_assert_eq!(opened.is_ok_and(|zip| zip.as_str() == "94103"), expected);
                // As another field it opens nowhere.
                prop_assert!(place_of(parts).open_expiry(&keys, &field).is_err());
                prop_assert!(place_of(parts).open_pan(&keys, &field).is_err());
            }
        }
    }

    #[test]
    fn any_edited_byte_is_found() {
        let keys = keys();
        let field = sealed(&keys);
        for at in 0..field.envelope.len() {
            let mut edited = field.clone();
            edited.envelope[at] ^= 1;
            assert!(place().open_pan(&keys, &edited).is_err());
        }
        for cut in 0..field.envelope.len() {
            let short = SealedField { envelope: field.envelope[..cut].to_vec(), ..field };
            assert!(place().open_pan(&keys, &short).is_err());
        }
    }

    #[test]
    fn three_fields_take_a_hundred_and_fifty_bytes_or_less() {
        let keys = keys();
        let key = keys.sealing_key(TenantId(1), NOW).unwrap();
        let expiry = Expiry { month: 12, year: 2030 };
        let sizes = [
            sealed(&keys).envelope.len(),
            place().seal_expiry(key, 1, expiry).unwrap().envelope.len(),
            place().seal_zip(key, 1, "94103").unwrap().envelope.len(),
        ];
        assert!(sizes.iter().sum::<usize>() <= 150);
        let field = place().seal_expiry(key, 1, expiry).unwrap();
        assert_eq!(place().open_expiry(&keys, &field).unwrap(), expiry);
        let zip = place().seal_zip(key, 1, "94103").unwrap();
        assert_eq!(place().open_zip(&keys, &zip).unwrap().as_str(), "94103");
    }

    /// Written once by this code and never edited: what it opens today it must open for ever.
    #[test]
    fn the_golden_envelope_opens() {
        let mut ring = KeyRing::default();
        let kek = Kek::new(&[7; 32], [9; 16]).unwrap();
        let vector: Vec<&str> = include_str!("../../../tests/vectors/envelope_v1.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect();
        let bytes = |at: usize| data_encoding::HEXLOWER.decode(vector[at].as_bytes()).unwrap();
        let key = WrappedKey { order: order(1, 1), wrapped: bytes(0), check_value: vector[1].to_owned() };
        ring.put(&kek, &HeldKey::active(key)).unwrap();
        let field = |at: usize| SealedField { version: 1, envelope: bytes(at) };
        let pan = place().open_pan(&ring, &field(2)).unwrap();
        assert_eq!(pan.truncate().last4, "4242");
        assert_eq!(place().open_expiry(&ring, &field(3)).unwrap(), Expiry { month: 12, year: 2030 });
        assert_eq!(place().open_zip(&ring, &field(4)).unwrap().as_str(), "94103");
    }
}
