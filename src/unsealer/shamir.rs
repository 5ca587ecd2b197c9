//! Shamir's secret sharing (1979) byte by byte over GF(2^8) with the polynomial of AES, x^8 + x^4 + x^3 + x + 1: share i holds f(i) of a
//! random polynomial of degree k − 1 for each byte, whose f(0) is the byte. Fewer than k say nothing about it.
//!
//! Written here, without tables and without branches on what is secret: the crate for it (vsss-rs) brings twenty others, elliptic curves
//! among them, into the process that holds the KEK, and leaves copies of shares on the heap. The vectors are that crate's. It is not told
//! apart here whether shares belong together: whoever combines them checks the secret.

use zeroize::Zeroizing;

use crate::random::{self, NoRandomness};

/// What is shared: the 32 bytes of a secret, or of a share of it.
pub type Bytes = Zeroizing<[u8; 32]>;

/// Splits a secret: the shares of 1 to `count`, any `threshold` of which give it back.
pub fn split(secret: &[u8; 32], threshold: u8, count: u8) -> Result<Vec<Bytes>, NoRandomness> {
    let mut coefficients: Vec<Bytes> = vec![Zeroizing::new(*secret)];
    for _ in 1..threshold {
        coefficients.push(Zeroizing::new(random::make_bytes()?));
    }
    Ok((1..=count).map(|at| evaluate(&coefficients, at)).collect())
}

/// The secret that these shares, by their places, give; each place once.
pub fn combine(shares: &[(u8, Bytes)]) -> Bytes {
    let mut secret = Zeroizing::new([0; 32]);
    for (at, share) in shares {
        // Lagrange's basis at 0: the product of x / (x − at) over all other places; minus is plus here.
        let others = shares.iter().map(|(place, _)| *place).filter(|place| place != at);
        let weight = others.fold(1, |weight, place| multiply(weight, multiply(place, invert(place ^ at))));
        for (to, byte) in secret.iter_mut().zip(share.iter()) {
            *to ^= multiply(*byte, weight);
        }
    }
    secret
}

/// Horner's rule, for each byte.
fn evaluate(coefficients: &[Bytes], at: u8) -> Bytes {
    let mut value = Zeroizing::new([0_u8; 32]);
    for coefficient in coefficients.iter().rev() {
        for (to, byte) in value.iter_mut().zip(coefficient.iter()) {
            *to = multiply(*to, at) ^ byte;
        }
    }
    value
}

/// The product, in the same time for all bytes.
fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    for _ in 0..8 {
        product ^= a & (b & 1).wrapping_neg();
        let carry = (a >> 7).wrapping_neg();
        a = (a << 1) ^ (carry & 0x1b);
        b >>= 1;
    }
    product
}

/// a^254, which is 1/a (Fermat).
fn invert(a: u8) -> u8 {
    let square = |value: u8| multiply(value, value);
    // 254 = 2 + 4 + 8 + 16 + 32 + 64 + 128.
    (0..7).fold((1, a), |(product, power), _| (multiply(product, square(power)), square(power))).0
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    /// Made with vsss-rs 6.0.1, `Gf256::split_bytes(3, 5, …)`; the first byte of a share is its place.
    const SECRET: &str = "a580efca311c7ba68de8d7321944a38ef5d03f1a41ac8bf6dd386742a994f3de";
    const SHARES: [&str; 5] = [
        "01d649a7b011e49a36733d877f34b0edc39fa6cdb2cbfc1d30261c32a00d43e34e",
        "02706e600f9a3c29d35105e376a793e13c33d990da6d983a69168d81392ce390d5",
        "0303a72875bac4c843afd0b33b8a67af7159af6272e7c8acafeda9d4db88348045",
        "04d8c0969ffd5dc56fc242d9efc36172512a7b219b95a2dcf3c8909b12cd5f2208",
        "05ab09dee5dda524ff3c9789a2ee953c1c400dd3331ff24a3533b4cef069883298",
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        HEXLOWER.decode(hex.as_bytes()).unwrap()
    }

    fn share(hex: &str) -> (u8, Bytes) {
        let bytes = bytes(hex);
        (bytes[0], Zeroizing::new(bytes[1..].try_into().unwrap()))
    }

    #[test]
    fn the_shares_of_another_implementation_combine() {
        for places in [[0, 1, 2], [4, 2, 0], [1, 3, 4], [2, 3, 4]] {
            let some: Vec<_> = places.iter().map(|at| share(SHARES[*at])).collect();
            assert_eq!(combine(&some).as_slice(), bytes(SECRET));
        }
        let all: Vec<_> = SHARES.iter().map(|hex| share(hex)).collect();
        assert_eq!(combine(&all).as_slice(), bytes(SECRET));
        // Two give something, and not it.
        assert_ne!(combine(&all[..2]).as_slice(), bytes(SECRET));
    }

    #[test]
    fn any_three_of_five_give_the_secret_and_no_two() {
        let secret: [u8; 32] = random::make_bytes().unwrap();
        let shares = split(&secret, 3, 5).unwrap();
        let at = |places: &[u8]| {
            let some: Vec<_> =
                places.iter().map(|place| (*place, shares[usize::from(*place) - 1].clone())).collect();
            combine(&some)
        };
        for a in 1..=5 {
            for b in 1..=5 {
                for c in (1..=5).filter(|c| a != b && b != *c && a != *c) {
                    assert_eq!(at(&[a, b, c]).as_slice(), secret);
                }
                if a != b {
                    assert_ne!(at(&[a, b]).as_slice(), secret);
                }
            }
        }
    }

    #[test]
    fn every_byte_but_zero_has_an_inverse() {
        assert!((1..=255).all(|a| multiply(a, invert(a)) == 1));
        // FIPS 197, 4.2.
        assert_eq!((multiply(0x57, 0x83), multiply(0x57, 0x13)), (0xc1, 0xfe));
    }
}
