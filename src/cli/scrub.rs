//! Takes secrets off the arguments before anything can repeat them.
//!
//! People paste a whole key where its id is asked for, and a whole token where its `jti` is. Both work, and neither reaches
//! an error text, since the arguments are replaced before they are parsed.

use std::ffi::OsString;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::ids::TokenId;
use crate::random::is_base62;

/// Arguments without secrets, and what the user should know about those that were there.
#[derive(Debug)]
pub(super) struct Scrubbed {
    pub args: Vec<OsString>,
    pub warnings: Vec<String>,
}

pub(super) fn scrub(args: impl IntoIterator<Item = OsString>) -> Scrubbed {
    let mut scrubbed = Scrubbed { args: Vec::new(), warnings: Vec::new() };
    for arg in args {
        let replaced = arg.to_str().and_then(|text| {
            let (option, value) = match text.split_once('=') {
                Some((option, value)) if option.starts_with('-') => (Some(option), value),
                _ => (None, text),
            };
            let (value, warning) = public_half(value)?;
            Some((option.map_or_else(|| value.clone(), |option| format!("{option}={value}")), warning))
        });
        match replaced {
            Some((text, warning)) => {
                scrubbed.args.push(text.into());
                scrubbed.warnings.push(warning);
            }
            None => scrubbed.args.push(arg),
        }
    }
    scrubbed
}

/// What may be shown of a secret, and a warning; `None` when `text` is none.
fn public_half(text: &str) -> Option<(String, String)> {
    if let Some(name) = key_name(text) {
        let warning = format!(
            "a whole API key was on the command line, where the shell's history and other users can see it; its id, {name}, \
             is enough. If others may have seen it, revoke it"
        );
        return Some((name, warning));
    }
    if let Some((scheme, rest)) = text.split_once("://")
        && let Some((user, host)) = rest.rsplit_once('@')
        && let Some((name, warning)) = public_half(user)
    {
        return Some((format!("{scheme}://{name}@{host}"), warning));
    }
    let jti = token_id(text)?;
    Some((
        jti.map_or_else(|| "(token)".to_owned(), |id| id.to_string()),
        "a whole token was on the command line, where the shell's history and other users can see it; its jti is enough"
            .to_owned(),
    ))
}

/// `<prefix>_<id>` of what looks like a key, whole or with a few characters missing or too many. The prefix is not known
/// yet, since no configuration has been read.
pub(super) fn key_name(text: &str) -> Option<String> {
    const LEAST_SECRET: usize = 16;
    let mut parts = text.trim().splitn(3, '_');
    let (prefix, id, secret) = (parts.next()?, parts.next()?, parts.next()?);
    let prefixed = (2..=12).contains(&prefix.len()) && prefix.bytes().all(|c| c.is_ascii_alphanumeric());
    let identified = id.len() == 12 && id.bytes().all(is_base62);
    let secret_like = secret.bytes().take_while(|c| is_base62(*c)).count() >= LEAST_SECRET;
    (prefixed && identified && secret_like).then(|| format!("{prefix}_{id}"))
}

/// Whether `text` looks like a signed token (RFC 7515 §7.1), and its `jti` if that can be read. Nothing is verified: it is
/// only a name to revoke.
fn token_id(text: &str) -> Option<Option<TokenId>> {
    let mut parts = text.trim().split('.');
    let (header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !header.starts_with("eyJ") {
        return None;
    }
    let jti = || {
        let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        claims.get("jti")?.as_str()?.parse().ok()
    };
    Some(jti())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{ApiKey, KeyPrefix};

    fn scrubbed(args: &[&str]) -> (Vec<String>, usize) {
        let Scrubbed { args, warnings } = scrub(args.iter().map(Into::into));
        (args.into_iter().map(|arg| arg.into_string().unwrap()).collect(), warnings.len())
    }

    #[test]
    fn a_pasted_key_becomes_its_id_wherever_it_stands() {
        for prefix in ["kb", "acme2"] {
            let prefix: KeyPrefix = prefix.parse().unwrap();
            let key = ApiKey::generate(&prefix);
            let (whole, name) = (key.secret().expose().as_str(), prefix.name_of(key.id()));
            let option = format!("--key={whole}");
            let url = format!("https://{whole}:@localhost");
            let (args, warnings) = scrubbed(&["keybearer", "show", whole, &option, &whole[..40], &url, "acme"]);
            let clean = [name.clone(), format!("--key={name}"), name.clone(), format!("https://{name}@localhost")];
            assert_eq!(args[2..6], clean);
            assert_eq!((args[1].as_str(), args[6].as_str(), warnings), ("show", "acme", 4));
        }
    }

    #[test]
    fn a_pasted_token_becomes_its_jti() {
        let id = TokenId::random();
        let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"jti":"{id}"}}"#));
        let (args, warnings) = scrubbed(&["--token", &format!("eyJhbGciOiJSUzI1NiJ9.{claims}.c2ln"), "eyJh.!.x"]);
        assert_eq!(args, ["--token", &id.to_string(), "(token)"]);
        assert_eq!(warnings, 2);
    }

    #[test]
    fn other_arguments_stay_as_they_are() {
        let plain = ["keybearer", "--title=a=b", "my_account_name", "kb_0123456789ab", "a.b.c", "--data-dir=/x_y_z"];
        assert_eq!(scrubbed(&plain), (plain.map(str::to_owned).to_vec(), 0));
    }
}
