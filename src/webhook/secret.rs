//! The secret that messages are signed with.

use std::path::Path;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::clock::Timestamp;

/// Bytes of a secret, by the standard's recommendation.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;

const RULE: &str = "it must hold whsec_ and the base64 of 24 to 64 bytes, as from: \
                    echo \"whsec_$(openssl rand -base64 32)\"";

/// Signs messages.
pub struct WebhookSecret(hmac::Key);

impl std::fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookSecret")
    }
}

impl WebhookSecret {
    /// From a file.
    ///
    /// # Errors
    /// What is wrong with it; nothing of its content.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        Self::parse(&Zeroizing::new(text)).ok_or_else(|| format!("{} holds no secret: {RULE}", path.display()))
    }

    /// `whsec_` and base64; the prefix may be missing.
    fn parse(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii();
        let bytes = Zeroizing::new(STANDARD.decode(text.strip_prefix(b"whsec_").unwrap_or(text)).ok()?);
        LENGTH.contains(&bytes.len()).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The value of `webhook-signature`.
    pub fn sign(&self, message: &str, at: Timestamp, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{message}.{}.", at.secs()).as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector that the standard's libraries test themselves with.
    #[test]
    fn it_signs_as_the_standard_says() {
        let secret = WebhookSecret::parse(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("a secret");
        let signed = secret.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            Timestamp::from_secs(1_614_265_330),
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_short_or_no_base64_is_no_secret() {
        for bad in
            ["", "whsec_", "whsec_c2hvcnQ=", "not base64 at all, is it?", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS"]
        {
            assert!(WebhookSecret::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(WebhookSecret::parse(b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_some());
    }
}
