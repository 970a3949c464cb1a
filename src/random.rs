//! Randomness from the operating system's generator, by way of aws-lc. The only source in the crate.

use std::cell::RefCell;

/// `N` unpredictable bytes.
///
/// # Panics
/// When the system has no randomness to give: there is no safe way to go on without it.
#[allow(clippy::disallowed_methods, reason = "the one place that may ask for randomness")]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0u8; N];
    aws_lc_rs::rand::fill(&mut out).expect("the operating system's random generator failed");
    out
}

/// Bytes that a thread has in reserve for [`open_bytes`].
const RESERVE: usize = 768;

thread_local! {
    /// The reserve, and how much of it is left.
    static IN_RESERVE: RefCell<([u8; RESERVE], usize)> = const { RefCell::new(([0; RESERVE], 0)) };
}

/// `N` unpredictable bytes that will be no secret, such as the ids of a trace. They are drawn ahead, many at once: asking the
/// generator costs more than what it gives. A secret must not lie about like that; [`bytes()`] is for those.
///
/// # Panics
/// As [`bytes()`].
pub fn open_bytes<const N: usize>() -> [u8; N] {
    const { assert!(N <= RESERVE, "more than there ever is in reserve") }
    IN_RESERVE.with_borrow_mut(|(reserve, left)| {
        if *left < N {
            (*reserve, *left) = (bytes(), RESERVE);
        }
        *left -= N;
        let mut out = [0; N];
        out.copy_from_slice(&reserve[*left..*left + N]);
        out
    })
}

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// `len` characters of base62, each equally likely.
pub fn base62(len: usize) -> String {
    let mut out = String::with_capacity(len);
    while out.len() < len {
        for byte in bytes::<64>() {
            // 248 is the largest multiple of 62 in a byte: what lies above would favour the first characters.
            if byte < 248 && out.len() < len {
                out.push(char::from(BASE62[usize::from(byte % 62)]));
            }
        }
    }
    out
}

/// Whether `c` is one of base62's characters.
pub fn is_base62(c: u8) -> bool {
    c.is_ascii_alphanumeric()
}

/// `value` as exactly `len` base62 digits, most significant first; higher digits are cut.
pub fn to_base62(mut value: u64, len: usize) -> String {
    let mut digits = vec![b'0'; len];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(value % 62) as usize];
        value /= 62;
    }
    digits.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base62_has_the_length_asked_for_and_its_own_characters_only() {
        let text = base62(500);
        assert_eq!(text.len(), 500);
        assert!(text.bytes().all(is_base62));
        assert_ne!(text, base62(500));
    }

    #[test]
    fn what_is_drawn_ahead_is_given_once() {
        // More than one reserve; 700 does not divide it.
        let mut all: Vec<[u8; 16]> = (0..200).map(|_| open_bytes()).collect();
        let [first, second] = [open_bytes::<700>(), open_bytes::<700>()];
        assert_ne!(first, second);
        all.extend([first, second].iter().flat_map(|bytes| bytes.as_chunks().0));
        let drawn = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), drawn);
    }

    #[test]
    fn numbers_are_padded_to_their_width() {
        assert_eq!(to_base62(0, 6), "000000");
        assert_eq!(to_base62(61, 6), "00000z");
        assert_eq!(to_base62(u64::from(u32::MAX), 6), "4gfFC3");
    }
}
