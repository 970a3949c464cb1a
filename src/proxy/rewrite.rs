//! The path that an upstream gets: the normalised one that the request was decided by, rewritten as its route says, and the
//! query as it was received. Knows nothing of how routes are matched.

use bytes::Bytes;
use http::uri::PathAndQuery;

use crate::routes::Rewrite;

/// The target would not be one: it is longer than a URI may be here (64 KiB), or the configured part is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoTarget;

impl std::fmt::Display for NoTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the rewritten path and its query make no request target")
    }
}

impl std::error::Error for NoTarget {}

/// The request target for an upstream (origin-form, RFC 9112 §3.2.1). `path` is normalised; the query is that of
/// `received`, byte for byte.
///
/// # Errors
/// [`NoTarget`].
pub fn target(rewrite: &Rewrite, path: &str, received: &PathAndQuery) -> Result<PathAndQuery, NoTarget> {
    let (add, rest) = match rewrite {
        Rewrite::Keep => ("", path),
        Rewrite::Strip { prefix, add } => (add.trim_end_matches('/'), stripped(path, prefix.trim_end_matches('/'))),
        Rewrite::Replace(whole) => ("", &**whole),
    };
    // An empty path stands for `/` in what http hands out, so `path()` alone would not show that `?q` has none.
    if add.is_empty() && rest == received.path() && received.as_str().starts_with('/') {
        return Ok(received.clone());
    }
    // `/orders` becomes `/v1`, and `/orders/` becomes `/v1/`: no slash is made up, except for a path of nothing.
    let rest = if add.is_empty() && rest.is_empty() { "/" } else { rest };
    let query = received.query();
    let mut text = Vec::with_capacity(add.len() + rest.len() + query.map_or(0, |query| 1 + query.len()));
    text.extend_from_slice(add.as_bytes());
    text.extend_from_slice(rest.as_bytes());
    if let Some(query) = query {
        text.push(b'?');
        text.extend_from_slice(query.as_bytes());
    }
    if text.first() != Some(&b'/') {
        return Err(NoTarget);
    }
    PathAndQuery::from_maybe_shared(Bytes::from(text)).map_err(|_| NoTarget)
}

/// `path` without `prefix`, or all of it where `prefix` ends within a segment.
fn stripped<'a>(path: &'a str, prefix: &str) -> &'a str {
    match path.strip_prefix(prefix) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routes::normalise;

    fn strip(prefix: &str, add: &str) -> Rewrite {
        Rewrite::Strip { prefix: prefix.into(), add: add.into() }
    }

    fn rewritten(rewrite: &Rewrite, received: &str) -> String {
        let received: PathAndQuery = received.parse().unwrap();
        let path = normalise(received.path()).unwrap();
        target(rewrite, &path, &received).unwrap().as_str().to_owned()
    }

    #[test]
    fn a_prefix_is_stripped_at_a_segments_border() {
        for (prefix, add, received, sent) in [
            ("/orders", "", "/orders", "/"),
            ("/orders", "", "/orders/", "/"),
            ("/orders", "", "/orders/1", "/1"),
            ("/orders", "", "/orders/1/", "/1/"),
            ("/orders", "", "/ordersheet/1", "/ordersheet/1"),
            ("/orders", "", "/other", "/other"),
            ("/orders/", "", "/orders/1", "/1"),
            ("/orders", "/v1", "/orders", "/v1"),
            ("/orders", "/v1", "/orders/", "/v1/"),
            ("/orders", "/v1/", "/orders/1", "/v1/1"),
            ("", "/v1", "/", "/v1/"),
            ("", "/v1", "/orders", "/v1/orders"),
            ("", "", "/orders", "/orders"),
            ("/a/b", "", "/a/b/c", "/c"),
            ("/", "", "/a", "/a"),
        ] {
            assert_eq!(rewritten(&strip(prefix, add), received), sent, "{received} without {prefix} after {add}");
        }
    }

    #[test]
    fn the_query_is_passed_as_received() {
        let query = "?a=%2f%zz&b=../x//;?%41=é";
        for rewrite in [Rewrite::Keep, strip("/o", "/v1"), strip("/o", ""), Rewrite::Replace("/fixed".into())] {
            let sent = rewritten(&rewrite, &format!("/o/%41{query}"));
            assert!(sent.ends_with(query), "{sent}");
        }
        assert_eq!(rewritten(&Rewrite::Replace("/fixed".into()), "/a/b?q"), "/fixed?q");
        assert_eq!(rewritten(&strip("/o", ""), "/o?"), "/?", "an empty query is one all the same");
        assert_eq!(rewritten(&Rewrite::Keep, "?q"), "/?q", "a path of nothing is written out");
    }

    #[test]
    fn the_upstream_sees_the_path_that_was_matched() {
        assert_eq!(rewritten(&Rewrite::Keep, "/%6frders/caf%c3%a9"), "/orders/caf%C3%A9");
        assert_eq!(rewritten(&strip("/orders", ""), "/%6frders/1"), "/1");
    }

    #[test]
    fn a_path_that_stays_is_the_received_one_itself() {
        let received: PathAndQuery = "/orders/1?q".parse().unwrap();
        let sent = target(&Rewrite::Keep, "/orders/1", &received).unwrap();
        assert_eq!(sent.as_str().as_ptr(), received.as_str().as_ptr(), "shared, not copied");
        let sent = target(&strip("", ""), "/orders/1", &received).unwrap();
        assert_eq!(sent.as_str().as_ptr(), received.as_str().as_ptr());
    }

    #[test]
    fn what_makes_no_target_is_refused() {
        let received: PathAndQuery = "/a".parse().unwrap();
        for rewrite in [Rewrite::Replace("fixed".into()), strip("", "v1"), strip("", &"/x".repeat(40_000))] {
            assert_eq!(target(&rewrite, "/a", &received), Err(NoTarget));
        }
    }

    proptest! {
        #[test]
        fn every_rewrite_makes_an_origin_form(
            path in "/[a-z./%;]{0,12}", query in "[a-z/?%&=]{0,8}", prefix in "(/[a-z]{1,2}){0,2}", add in "(/[a-z]{1,2}){0,2}"
        ) {
            let Ok(received) = format!("{path}?{query}").parse::<PathAndQuery>() else { return Ok(()) };
            let Ok(normal) = normalise(received.path()) else { return Ok(()) };
            for rewrite in [Rewrite::Keep, strip(&prefix, &add), Rewrite::Replace("/r".into())] {
                let sent = target(&rewrite, &normal, &received).unwrap();
                prop_assert!(sent.as_str().starts_with('/'));
                prop_assert_eq!(sent.query(), received.query());
                prop_assert!(normalise(sent.path()).is_ok(), "{} is as unambiguous as before", sent);
            }
        }
    }
}
