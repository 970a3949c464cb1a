//! One spelling of an ECDSA signature. With (r, s), (r, n − s) verifies as well, so whoever holds a token could write it
//! in a second way. We sign with the lower of the two and accept no other; every verifier accepts it.

/// The order of P-256 (SEC 2 §2.4.2), big-endian.
const N: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// Half of it, rounded down: the largest low s.
const HALF: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xde, 0x73, 0x7d,
    0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];

/// Whether a signature in JWS form (RFC 7518 §3.4: r and s, 32 bytes each) is the lower of its two spellings.
pub(super) fn is_low(signature: &[u8]) -> bool {
    // Big-endian numbers of one length compare as their bytes do.
    signature.get(32..64).is_some_and(|s| s <= &HALF[..])
}

/// Makes it the lower one.
pub(super) fn lower(signature: &mut [u8]) {
    if is_low(signature) {
        return;
    }
    let Some(s) = signature.get_mut(32..64) else { return };
    let mut borrow = 0;
    for (digit, of_n) in s.iter_mut().zip(N).rev() {
        let difference = i16::from(of_n) - i16::from(*digit) - borrow;
        borrow = i16::from(difference < 0);
        *digit = u8::try_from(difference & 0xff).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_half_is_half_of_the_order_and_the_higher_spelling_becomes_the_lower() {
        let with = |s: [u8; 32]| [[7; 32], s].concat();
        assert!(is_low(&with(HALF)));
        // n − half is half + 1, since n is odd: the first that is not low.
        let mut first = with(HALF);
        first[63] += 1;
        assert!(!is_low(&first));
        lower(&mut first);
        assert_eq!(first, with(HALF));
        let mut one = [0; 32];
        one[31] = 1;
        let mut top = N;
        top[31] -= 1;
        let mut highest = with(top);
        lower(&mut highest);
        assert_eq!(highest, with(one));
        lower(&mut highest);
        assert_eq!(highest, with(one), "what is low stays");
        assert!(!is_low(&[0; 40]));
    }
}
