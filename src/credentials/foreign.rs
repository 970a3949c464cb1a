//! Hashes that another system made: bcrypt, PBKDF2 and plain SHA-256, in the forms that they come in.
//!
//! They are read so that credentials can move here without their holders noticing. Whatever matches is hashed anew with
//! argon2id at its first use. The costs they may ask for are bounded: a forged record must not exhaust the machine.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, pbkdf2};
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, STANDARD, STANDARD_NO_PAD};

/// bcrypt's cost: 2^16 rounds take some four seconds.
const MOST_BCRYPT: u32 = 16;
/// Twice what Django 6 asks for.
const MOST_ITERATIONS: u32 = 2_500_000;

/// passlib writes `.` for base64's `+`.
const PASSLIB: GeneralPurpose = GeneralPurpose::new(&PASSLIB_ALPHABET, NO_PAD);
const PASSLIB_ALPHABET: alphabet::Alphabet =
    match alphabet::Alphabet::new("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789./") {
        Ok(alphabet) => alphabet,
        Err(_) => alphabet::STANDARD,
    };

/// A hash that another system made.
pub(super) enum Foreign<'a> {
    /// bcrypt in its own form: `$2b$12$…`. Like every bcrypt it reads 72 bytes of a password and no more.
    Bcrypt(&'a str),
    /// PBKDF2 (RFC 8018 §5.2) with HMAC.
    Pbkdf2 { algorithm: pbkdf2::Algorithm, iterations: NonZeroU32, salt: Vec<u8>, expected: Vec<u8> },
    /// `sha256:` and 64 hexadecimal digits: good enough for a key that nobody can guess, and for nothing else.
    Sha256([u8; 32]),
}

impl<'a> Foreign<'a> {
    /// Reads a stored hash that is none of our own. `None` when it is in no form we know, or asks for too much.
    pub fn read(text: &'a str) -> Option<Self> {
        if let Some(digits) = text.strip_prefix("sha256:") {
            return hex(digits).map(Self::Sha256);
        }
        let parts: Vec<&str> = text.split('$').collect();
        match parts.as_slice() {
            ["", "2a" | "2b" | "2y", cost, rest] if rest.len() == 53 => {
                let cost: u32 = cost.parse().ok()?;
                // It can be taken apart, so it can be compared with.
                let is_whole = text.parse::<bcrypt::HashParts>().is_ok();
                (is_whole && (4..=MOST_BCRYPT).contains(&cost)).then_some(Self::Bcrypt(text))
            }
            ["", name, cost, salt, hash] => {
                let algorithm = match *name {
                    "pbkdf2-sha256" => pbkdf2::PBKDF2_HMAC_SHA256,
                    "pbkdf2-sha512" => pbkdf2::PBKDF2_HMAC_SHA512,
                    _ => return None,
                };
                // In the form of PHC the cost has names; in passlib's it is the iterations alone.
                let (iterations, base64) = match cost.split_once('=') {
                    Some(_) => (cost.split(',').find_map(|part| part.strip_prefix("i="))?, STANDARD_NO_PAD),
                    None => (*cost, PASSLIB),
                };
                Self::pbkdf2(algorithm, iterations, base64.decode(salt).ok()?, base64.decode(hash).ok()?)
            }
            // Django's, with the salt as text.
            [name @ ("pbkdf2_sha256" | "pbkdf2_sha512"), iterations, salt, hash] => {
                let algorithm =
                    if *name == "pbkdf2_sha256" { pbkdf2::PBKDF2_HMAC_SHA256 } else { pbkdf2::PBKDF2_HMAC_SHA512 };
                Self::pbkdf2(algorithm, iterations, salt.as_bytes().to_vec(), STANDARD.decode(hash).ok()?)
            }
            _ => None,
        }
    }

    fn pbkdf2(algorithm: pbkdf2::Algorithm, iterations: &str, salt: Vec<u8>, expected: Vec<u8>) -> Option<Self> {
        let iterations: u32 = iterations.parse().ok()?;
        let in_bounds = iterations <= MOST_ITERATIONS && (16..=64).contains(&expected.len()) && salt.len() <= 1024;
        Some(Self::Pbkdf2 { algorithm, iterations: NonZeroU32::new(iterations).filter(|_| in_bounds)?, salt, expected })
    }

    /// Compares in constant time.
    pub fn matches(&self, secret: &[u8]) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(secret, hash).unwrap_or(false),
            Self::Pbkdf2 { algorithm, iterations, salt, expected } => {
                pbkdf2::verify(*algorithm, *iterations, salt, secret, expected).is_ok()
            }
            Self::Sha256(expected) => {
                let is = digest::digest(&digest::SHA256, secret);
                constant_time::verify_slices_are_equal(is.as_ref(), expected).is_ok()
            }
        }
    }

    /// Whether it keeps a password that somebody can remember.
    pub fn is_slow(&self) -> bool {
        !matches!(self, Self::Sha256(_))
    }
}

/// 32 bytes in 64 hexadecimal digits.
pub(super) fn hex(digits: &str) -> Option<[u8; 32]> {
    let digits = digits.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(hash: &str, secret: &str) -> Option<bool> {
        Foreign::read(hash).map(|foreign| foreign.matches(secret.as_bytes()))
    }

    /// Of bcrypt from crypt_blowfish's own tests; of PBKDF2 made with Python's hashlib, in the three forms; of SHA-256 from
    /// FIPS 180-2.
    #[test]
    fn hashes_of_other_systems_match_their_secrets_alone() {
        let of_256 = "Mqp8wAsrOsjVEIymTD0kATxTpTf4f+0ZMgQPDlukk/w";
        let of_512 = "ef9jS8Lo7u8/BC2JthM17s79IAFuTySyROeiQ0cMMqhlp7MlL/lHHWTMlAtw8MC2P75e1ATWK4jX3NgfiUbhOQ";
        let salt = "MDEyMzQ1Njc4OWFiY2RlZg";
        let cases = [
            ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW".to_owned(), "U*U"),
            ("$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW".to_owned(), "U*U"),
            (format!("$pbkdf2-sha256$i=1000,l=32${salt}${of_256}"), "open sesame"),
            (format!("$pbkdf2-sha256$1000${salt}${}", of_256.replace('+', ".")), "open sesame"),
            (format!("pbkdf2_sha256$1000$0123456789abcdef${of_256}="), "open sesame"),
            (format!("$pbkdf2-sha512$i=1000${salt}${of_512}"), "open sesame"),
            ("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned(), "abc"),
            ("sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD".to_owned(), "abc"),
        ];
        for (hash, secret) in &cases {
            assert_eq!(matches(hash, secret), Some(true), "{hash}");
            assert_eq!(matches(hash, &format!("{secret} ")), Some(false), "{hash}");
            assert_eq!(matches(hash, ""), Some(false), "{hash}");
        }
    }

    #[test]
    fn what_is_in_no_form_or_asks_for_too_much_is_not_read() {
        for hash in [
            "",
            "plain text",
            "$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
            "$2b$17$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
            "$2b$03$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
            "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe",
            "$pbkdf2-sha256$0$MDEyMzQ1$Mqp8wAsrOsjVEIymTD0kATxTpTf4f",
            "$pbkdf2-sha256$2500001$MDEyMzQ1$Mqp8wAsrOsjVEIymTD0kATxTpTf4f.0ZMgQPDlukk/w",
            "$pbkdf2-sha256$1000$MDEyMzQ1$Mqp8",
            "$pbkdf2-md5$1000$MDEyMzQ1$Mqp8wAsrOsjVEIymTD0kATxTpTf4f.0ZMgQPDlukk/w",
            "pbkdf2_sha256$1000$salt",
            "sha256:ba78",
            "sha256:ga7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ] {
            assert_eq!(matches(hash, "x"), None, "{hash}");
        }
    }
}
