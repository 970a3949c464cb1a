//! Identity headers: what an upstream, or a proxy that asks, learns of whose request it is; and which names are ours alone.
//!
//! They are believed because nobody else can set them, so both doors take them and the names to drop from here.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::Permit;
use crate::clock::Timestamp;
use crate::ids::{GroupId, TokenId};
use crate::keys::KeyPrefix;
use crate::registry::Principal;
use crate::tokens::Client;

/// The account: `sub`.
pub const SUBJECT: HeaderName = HeaderName::from_static("x-auth-subject");
/// `<prefix>_<id>` of the API key; empty when it was a password.
pub const KEY_ID: HeaderName = HeaderName::from_static("x-auth-key-id");
/// The groups that the token reaches.
pub const GROUPS: HeaderName = HeaderName::from_static("x-auth-groups");
/// The token's `jti`.
pub const TOKEN_ID: HeaderName = HeaderName::from_static("x-auth-token-id");
/// The first second that the token is no longer good (Unix time).
pub const EXPIRES: HeaderName = HeaderName::from_static("x-auth-expires");

/// Most bytes of [`GROUPS`]: proxies that ask have 4 KiB for a whole header section.
const MOST_GROUPS: usize = 2048;

/// All five, always: what is not there would be taken from whoever else sends it.
pub type IdentityHeaders = [(HeaderName, HeaderValue); 5];

/// The headers for a permit. `own` are the groups that the route asks for: those come first, so that a list that has to be
/// cut still says why the request was let through; the others follow in alphabetical order as far as 2,048 bytes hold.
pub fn identity_headers(permit: &Permit, prefix: &KeyPrefix, own: &[GroupId]) -> IdentityHeaders {
    headers_of(permit.principal(), permit.token(), permit.expires_at(), prefix, own)
}

fn headers_of(
    principal: &Principal,
    token: TokenId,
    expires_at: Timestamp,
    prefix: &KeyPrefix,
    own: &[GroupId],
) -> IdentityHeaders {
    // One allocation for all values, which are slices of it.
    let mut text = Vec::with_capacity(256);
    text.extend_from_slice(principal.account().as_str().as_bytes());
    let subject = text.len();
    if let Client::Key(id) = principal.client() {
        text.extend_from_slice(prefix.as_str().as_bytes());
        text.push(b'_');
        text.extend_from_slice(id.as_str().as_bytes());
    }
    let key_id = text.len();
    let first = own.iter().filter(|group| principal.reaches(group));
    let rest = principal.groups().iter().filter(|group| !own.contains(group));
    for group in first.chain(rest) {
        let comma = usize::from(text.len() > key_id);
        if text.len() - key_id + comma + group.as_str().len() > MOST_GROUPS {
            break;
        }
        text.extend_from_slice(&b","[..comma]);
        text.extend_from_slice(group.as_str().as_bytes());
    }
    let groups = text.len();
    text.extend_from_slice(token.write(&mut [0; 22]));
    let token_id = text.len();
    text.extend_from_slice(decimal(expires_at.secs(), &mut [0; 20]));

    let text = Bytes::from(text);
    let value = |from: usize, to: usize| {
        // Ids and names are of visible characters by their rules (`ids`), so this cannot fail; if it did, nothing is said.
        HeaderValue::from_maybe_shared(text.slice(from..to)).unwrap_or(HeaderValue::from_static(""))
    };
    [
        (SUBJECT, value(0, subject)),
        (KEY_ID, value(subject, key_id)),
        (GROUPS, value(key_id, groups)),
        (TOKEN_ID, value(groups, token_id)),
        (EXPIRES, value(token_id, text.len())),
    ]
}

/// A number in decimal, without the generality of `format!`.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// Whether a field name is the gateway's own word, or looks like it to a server that folds names: CGI and its heirs make
/// `X_AUTH_SUBJECT` of `X-Auth-Subject` and `X_Auth.Subject` alike. What a client sends under such a name is dropped.
pub fn is_ours(name: &str) -> bool {
    let name = name.as_bytes();
    // Nearly all names end here.
    match name.first() {
        Some(b'x' | b'X') => {
            starts_like(name, b"x-auth-")
                || starts_like(name, b"x-forwarded-")
                // By these some servers (IIS, Symfony, Zend) let a request's path be replaced, which was judged by then.
                || starts_like(name, b"x-original-")
                || is_like(name, b"x-rewrite-url")
                || is_like(name, b"x-real-ip")
                || is_like(name, b"x-request-id")
        }
        Some(b'f' | b'F') => is_like(name, b"forwarded"),
        _ => false,
    }
}

/// Whether a field name begins, or seems to begin, like those of the identity headers.
pub fn is_identity(name: &str) -> bool {
    starts_like(name.as_bytes(), b"x-auth-")
}

/// Whether a field name is, or looks like, one by which some frameworks take another method than the request's.
pub fn is_other_method(name: &str) -> bool {
    ["x-http-method-override", "x-http-method", "x-method-override"]
        .iter()
        .any(|it| is_like(name.as_bytes(), it.as_bytes()))
}

fn starts_like(name: &[u8], ours: &[u8]) -> bool {
    name.get(..ours.len()).is_some_and(|start| is_like(start, ours))
}

fn is_like(name: &[u8], ours: &[u8]) -> bool {
    let fold = |byte: u8| if matches!(byte, b'_' | b'.') { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == ours.len() && name.iter().zip(ours).all(|(a, b)| fold(*a) == *b)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::registry::{Digest, Registry};
    use crate::tokens::{Terms, Token};

    fn said(account: &str, client: Client, groups: &[&str], own: &[&str]) -> BTreeMap<String, String> {
        let own: Vec<GroupId> = own.iter().map(|group| group.parse().unwrap()).collect();
        let token = Token {
            account: account.parse().unwrap(),
            client,
            groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
            id: TokenId::random(),
            issued_at: 1_000,
            expires_at: 1_900_000_000,
            terms: Terms::default(),
        };
        let digest = Digest::of(account.as_bytes());
        let session = Registry::new(1).admit(digest, &token, Timestamp::from_secs(1_000)).expect("not revoked");
        let headers = headers_of(session.principal(), session.id(), session.expires_at(), &KeyPrefix::default(), &own);
        assert_eq!(headers[3].1, token.id.to_string().as_str());
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn all_five_are_there_for_a_key() {
        let headers = said("acme", Client::Key("Abcdef123456".parse().unwrap()), &["b", "a"], &[]);
        assert_eq!(headers["x-auth-subject"], "acme");
        assert_eq!(headers["x-auth-key-id"], "kb_Abcdef123456");
        assert_eq!(headers["x-auth-groups"], "a,b");
        assert_eq!(headers["x-auth-expires"], "1900000000");
        assert_eq!(headers.len(), 5);
    }

    #[test]
    fn what_there_is_no_value_for_is_empty_and_not_left_out() {
        let headers = said("acme", Client::Password, &[], &[]);
        assert_eq!(headers["x-auth-key-id"], "");
        assert_eq!(headers["x-auth-groups"], "");
        assert_eq!(headers.len(), 5);
    }

    #[test]
    fn the_groups_of_the_route_come_first_and_only_those_that_the_token_reaches() {
        let headers = said("acme", Client::Password, &["a", "b", "orders"], &["orders", "not-mine"]);
        assert_eq!(headers["x-auth-groups"], "orders,a,b");
    }

    #[test]
    fn many_groups_are_cut_between_two_of_them() {
        let many: Vec<String> = (0..100).map(|n| format!("group-{n:03}-{}", "x".repeat(30))).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let headers = said("acme", Client::Password, &many, &[many[99]]);
        let groups: Vec<&str> = headers["x-auth-groups"].split(',').collect();
        assert!(headers["x-auth-groups"].len() <= 2048);
        assert_eq!(groups[0], many[99]);
        assert_eq!(groups[1..], many[..groups.len() - 1]);
        assert_eq!(groups.len(), 2048 / (many[0].len() + 1));
    }

    #[test]
    fn a_name_that_could_be_read_as_ours_is_ours() {
        for name in [
            "x-auth-subject",
            "X-Auth-Anything",
            "x_auth_subject",
            "X.AUTH_groups",
            "x-auth-",
            "forwarded",
            "FORWARDED",
            "x-forwarded-for",
            "X_Forwarded_Host",
            "x-forwarded-whatever",
            "x.real_ip",
            "x_request_id",
            "X-Original-URL",
            "x_rewrite_url",
        ] {
            assert!(is_ours(name), "{name}");
        }
        for name in
            ["", "x", "x-auth", "x-authorization", "authorization", "forwarded-by", "x-real-ips", "x-requested-with"]
        {
            assert!(!is_ours(name), "{name}");
        }
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 7, 10, 1_900_000_000, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}
