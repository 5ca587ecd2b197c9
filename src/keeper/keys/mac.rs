//! Keyed hashes: HMAC-SHA-256 by ring. ring never wipes its key state; the heap it lies on is wiped instead.

use ring::hmac;

/// A key for keyed hashes.
pub struct Mac(Box<hmac::Key>);

impl Mac {
    /// From 32 key bytes.
    pub fn new(key: &[u8]) -> Self {
        Self(Box::new(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    /// HMAC over the length-prefixed (u32, big-endian) parts, so that no two lists of parts collide.
    pub fn sum(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            context.update(part);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.sign().as_ref());
        out
    }

    /// The key check value: three bytes in hex, which say that two people hold the same key and nothing else about it.
    pub fn check_value(&self) -> String {
        let sum = self.sum(&[b"cardvault/kcv"]);
        data_encoding::HEXLOWER.encode(sum.get(..3).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let mac = Mac::new(&[1; 32]);
        assert_ne!(mac.sum(&[b"ab", b"c"]), mac.sum(&[b"a", b"bc"]));
        assert_ne!(mac.sum(&[b"ab"]), Mac::new(&[2; 32]).sum(&[b"ab"]));
    }
}
