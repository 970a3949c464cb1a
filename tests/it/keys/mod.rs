//! Keys as a product: rolled with grace, bound to networks, and seen when they are used.

mod foreign;
mod networks;
mod own;
mod rolled;

use keybearer::keys::{ApiKey, KeyPrefix};
use keybearer::random;

/// A well-formed key of the same id whose secret is another: only what is stored tells that it is wrong.
pub fn another_secret_of(key: &ApiKey) -> String {
    let body = format!("{}{}", &key.secret().expose()[..16], random::base62(32));
    let text = format!("{body}{}", random::to_base62(u64::from(crc32fast::hash(body.as_bytes())), 6));
    let parsed = ApiKey::parse(&KeyPrefix::default(), &text).expect("it is well-formed");
    assert_eq!(parsed.id(), key.id());
    text
}
