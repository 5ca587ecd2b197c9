//! Ids: a prefix that says what it names, then 48 bits of milliseconds and 96 random bits in one base32 alphabet.
//!
//! Layout of the text: `tok_` ‖ 8 symbols ‖ `v` ‖ 8 symbols ‖ `v` ‖ 8 symbols ‖ `v` ‖ 5 symbols. The alphabet is
//! Crockford's, in lower case (no i, l, o, u). The fixed letters break every run of digits at eight, so that no id can
//! be taken for a PAN (12 digits or more), whatever the bits are. Ids of one kind sort by the time they were made,
//! as text and as bytes, so that a B-tree grows at its right edge.

use crate::clock::Time;
use crate::random::{self, NoRandomness};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const TEXT_LEN: usize = 32;
const MASK_40: u64 = (1 << 40) - 1;
const MASK_25: u64 = (1 << 25) - 1;
const BREAK: u8 = b'v';
/// The 18 bytes behind every id: milliseconds (6, big-endian) ‖ random (12).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct IdBytes(pub [u8; 18]);

impl IdBytes {
    /// A new id for this instant.
    pub fn make(now: Time) -> Result<Self, NoRandomness> {
        let mut bytes = [0; 18];
        let random = random::make_bytes::<12>()?;
        let millis = now.millis().to_be_bytes();
        for (to, from) in bytes.iter_mut().zip(millis.iter().skip(2).chain(random.iter())) {
            *to = *from;
        }
        Ok(Self(bytes))
    }

    /// The milliseconds since the Unix epoch at which it was made.
    pub fn millis(&self) -> u64 {
        self.0.iter().take(6).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
    }

    /// The text without its prefix.
    pub fn encode(&self) -> String {
        self.text().iter().copied().map(char::from).collect()
    }

    /// The text without its prefix, in ASCII.
    fn text(&self) -> [u8; TEXT_LEN] {
        // One zero bit in front makes 145 bits: 40 for each group of eight symbols, 25 for the last five.
        let bits = |from: usize, count: usize| {
            let bytes = self.0.iter().skip(from).take(count);
            bytes.fold(0, |sum: u64, byte| (sum << 8) | u64::from(*byte))
        };
        let groups =
            [bits(0, 5) >> 1, bits(4, 6) >> 1 & MASK_40, bits(9, 6) >> 1 & MASK_40, bits(14, 4) & MASK_25];
        let mut text = [BREAK; TEXT_LEN];
        for (to, (group, symbols)) in text.chunks_mut(9).zip(groups.into_iter().zip([8, 8, 8, 5])) {
            for (at, to) in to.iter_mut().take(symbols).enumerate() {
                let index = usize::try_from((group >> (5 * (symbols - 1 - at))) & 31).unwrap_or(0);
                *to = ALPHABET.get(index).copied().unwrap_or(b'0');
            }
        }
        text
    }

    /// Reads what [`encode`](Self::encode) writes; nothing else, so that each id has one spelling.
    pub fn decode(text: &str) -> Option<Self> {
        if text.len() != TEXT_LEN {
            return None;
        }
        let mut bytes = [0_u8; 18];
        let mut out = bytes.iter_mut();
        let (mut buffer, mut bits, mut symbols) = (0_u32, 0_u32, 0_usize);
        for (at, symbol) in text.bytes().enumerate() {
            if at % 9 == 8 {
                if symbol != BREAK {
                    return None;
                }
                continue;
            }
            let value = value_of(symbol)?;
            buffer = (buffer << 5) | u32::from(value);
            bits += 5;
            symbols += 1;
            if symbols == 1 {
                if value > 15 {
                    return None;
                }
                bits -= 1;
            }
            if bits >= 8 {
                bits -= 8;
                *out.next()? = u8::try_from((buffer >> bits) & 0xff).ok()?;
            }
        }
        Some(Self(bytes))
    }
}

/// Where a symbol stands in the alphabet.
const fn value_of(symbol: u8) -> Option<u8> {
    match symbol {
        b'0'..=b'9' => Some(symbol - b'0'),
        b'a'..=b'h' => Some(symbol - b'a' + 10),
        b'j' | b'k' => Some(symbol - b'j' + 18),
        b'm' | b'n' => Some(symbol - b'm' + 20),
        b'p'..=b't' => Some(symbol - b'p' + 22),
        b'v'..=b'z' => Some(symbol - b'v' + 27),
        _ => None,
    }
}

impl std::fmt::Debug for IdBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub IdBytes);

        impl $name {
            /// What its text begins with.
            pub const PREFIX: &'static str = $prefix;

            /// A new one for this instant.
            pub fn make(now: Time) -> Result<Self, NoRandomness> {
                IdBytes::make(now).map(Self)
            }

            /// Reads the text form; `None` for anything else.
            pub fn parse(text: &str) -> Option<Self> {
                text.strip_prefix($prefix).and_then(IdBytes::decode).map(Self)
            }

            /// The 18 bytes, as the store keeps them.
            pub const fn bytes(&self) -> &[u8; 18] {
                &self.0.0
            }

            /// From the 18 bytes of the store.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(|b| Self(IdBytes(b)))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($prefix)?;
                f.write_str(std::str::from_utf8(&self.0.text()).unwrap_or_default())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }
    };
}

id! {
    /// Our surrogate for a card; the same for the card's whole life.
    Token, "tok_"
}
id! {
    /// A charge.
    ChargeId, "ch_"
}
id! {
    /// A capture, refund, void or verification: an operation on its own record.
    OperationId, "op_"
}
id! {
    /// A run over many invoices.
    RunId, "run_"
}
id! {
    /// A refund.
    RefundId, "rf_"
}
id! {
    /// One try of one operation at a processor; also the idempotency key that the processor sees.
    AttemptId, "att_"
}

impl AttemptId {
    /// Twenty symbols, for processors that take no longer reference: the random part of the id.
    pub fn reference(&self) -> String {
        data_encoding::BASE32_NOPAD.encode(self.bytes().get(6..).unwrap_or_default()).to_ascii_lowercase()
    }
}

id! {
    /// A caller's own request to a forward destination.
    ForwardId, "fwd_"
}
id! {
    /// An audit event.
    EventId, "evt_"
}
id! {
    /// One request to the API.
    RequestId, "req_"
}
id! {
    /// A stored-credential agreement.
    AgreementId, "agr_"
}
id! {
    /// What a caller sees of a fingerprint: random, mapped from the keyed hash, never containing it.
    FingerprintId, "fp_"
}
id! {
    /// A person or an application that may call the API.
    PrincipalId, "prn_"
}

id! {
    /// A person who signs what they ask the supervisor for.
    PersonId, "per_"
}
id! {
    /// What a person asked for and signed.
    ApprovalId, "apr_"
}
id! {
    /// A webhook endpoint.
    EndpointId, "we_"
}
id! {
    /// What webhook endpoints are told: the same id however often it is delivered, and to whichever of them.
    NoticeId, "msg_"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_has_one_fixed_shape() {
        let token = Token(IdBytes([0xff; 18]));
        assert_eq!(token.to_string(), "tok_fzzzzzzzvzzzzzzzzvzzzzzzzzvzzzzz");
        assert_eq!(Token(IdBytes([0; 18])).to_string(), "tok_00000000v00000000v00000000v00000");
    }

    proptest! {
        #[test]
        fn every_id_reads_back_and_sorts_like_its_bytes(a: [u8; 18], b: [u8; 18]) {
            let (a, b) = (Token(IdBytes(a)), Token(IdBytes(b)));
            prop_assert_eq!(Token::parse(&a.to_string()), Some(a));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn no_other_spelling_is_read(text in "[0-9a-zA-Z]{30,34}") {
            if let Some(id) = IdBytes::decode(&text) {
                prop_assert_eq!(id.encode(), text);
            }
        }

        #[test]
        fn no_id_has_a_run_of_digits_that_could_be_a_pan(a: [u8; 18]) {
            let text = Token(IdBytes(a)).to_string();
            let longest = text.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
            prop_assert!(longest <= 8);
        }
    }
}
