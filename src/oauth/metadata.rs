//! What programs can find out by themselves: authorization server metadata (RFC 8414) and protected resource metadata
//! (RFC 9728). Groups are not in it: which there are is nobody's business. It is no OpenID provider, and has no metadata of one.

use axum::body::Body;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, Uri};
use serde_json::{Value, json};

use crate::tokens;

/// RFC 8414 §3. What follows is the path of the issuer.
pub const SERVER: &str = "/.well-known/oauth-authorization-server";
/// RFC 9728 §3. What follows is the path of the resource.
pub const RESOURCE: &str = "/.well-known/oauth-protected-resource";

/// How clients authenticate.
const METHODS: [&str; 2] = ["client_secret_basic", "client_secret_post"];

/// The response types. There is no authorization endpoint to ask for any, but the field is REQUIRED (RFC 8414 §2), and an empty
/// list MUST be left out (§3.2). `none` is the registered one that yields neither a code nor a token: strict clients (Authlib)
/// refuse both a document without the field and an empty list, and nobody refuses this.
const RESPONSE_TYPES: [&str; 1] = ["none"];

/// Both documents, and where they are.
#[derive(Debug)]
pub struct Metadata {
    server: Document,
    resource: Document,
    resource_url: String,
}

#[derive(Debug)]
struct Document {
    path: String,
    content: Bytes,
}

impl Document {
    fn new(well_known: &str, of: &str, content: &Value) -> Self {
        Self { path: format!("{well_known}{}", path_of(of)), content: content.to_string().into() }
    }
}

impl Metadata {
    /// Of the server that is reached at `base_url`.
    pub fn new(base_url: &str, tokens: &tokens::Settings) -> Self {
        let issuer = &tokens.issuer;
        // Who the tokens are for, when that is a URL: a resource has to be one (RFC 9728 §1.2).
        let resource = tokens.audience.iter().find(|audience| is_resource(audience)).unwrap_or(issuer);
        let at = |path: &str| format!("{base_url}{path}");
        let server = json!({
            "issuer": issuer,
            "token_endpoint": at("/token"),
            "jwks_uri": at("/.well-known/jwks.json"),
            "response_types_supported": RESPONSE_TYPES,
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": METHODS,
            "introspection_endpoint": at("/introspect"),
            "introspection_endpoint_auth_methods_supported": METHODS,
            "revocation_endpoint": at("/revoke"),
            "revocation_endpoint_auth_methods_supported": METHODS,
            "service_documentation": at("/"),
        });
        let described = json!({
            "resource": resource,
            "authorization_servers": [issuer],
            "jwks_uri": at("/.well-known/jwks.json"),
            "bearer_methods_supported": ["header"],
            "resource_documentation": at("/"),
        });
        let resource = Document::new(RESOURCE, resource, &described);
        // Well-known paths are the host's, not those of a path on it.
        let resource_url = format!("{}{}", origin_of(base_url), resource.path);
        Self { server: Document::new(SERVER, issuer, &server), resource, resource_url }
    }

    /// Where the metadata of the resource is, for challenges (RFC 9728 §5.1).
    pub fn resource_url(&self) -> &str {
        &self.resource_url
    }

    /// The paths and contents of both: of the server's and of the resource's.
    pub fn documents(&self) -> [(&str, Value); 2] {
        [&self.server, &self.resource]
            .map(|document| (document.path.as_str(), serde_json::from_slice(&document.content).unwrap_or_default()))
    }

    /// The document at this path, if it is the path of one. Verifiers may keep it for five minutes.
    pub fn respond(&self, path: &str) -> Option<Response<Body>> {
        let document = [&self.server, &self.resource].into_iter().find(|document| document.path == path)?;
        let mut response = Response::new(Body::from(document.content.clone()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
        Some(response)
    }
}

/// An https URL without a fragment (RFC 9728 §1.2), and without a query, which no path of ours could tell.
fn is_resource(text: &str) -> bool {
    let url = text.parse::<Uri>().ok().filter(|url| url.scheme_str() == Some("https") && url.query().is_none());
    url.is_some_and(|url| url.authority().is_some()) && !text.contains('#')
}

/// The path of a URL, to be put behind a well-known one: without the slash that ends it (RFC 8414 §3.1).
fn path_of(url: &str) -> String {
    url.parse::<Uri>().map(|url| url.path().trim_end_matches('/').to_owned()).unwrap_or_default()
}

/// A URL without its path.
fn origin_of(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or(url, |path| &url[..host + path])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn metadata(base_url: &str, issuer: &str, audience: &str) -> Metadata {
        let tokens =
            tokens::Settings { issuer: issuer.into(), audience: vec![audience.into()], ..tokens::Settings::default() };
        Metadata::new(base_url, &tokens)
    }

    fn read(document: &Document) -> Value {
        serde_json::from_slice(&document.content).unwrap()
    }

    #[test]
    fn the_path_of_an_issuer_goes_behind_the_well_known_one() {
        for (issuer, audience, server, resource) in [
            ("https://a.example", "https://a.example", SERVER.to_owned(), RESOURCE.to_owned()),
            ("https://a.example/", "the API", SERVER.to_owned(), RESOURCE.to_owned()),
            ("https://a.example/one/two", "x", format!("{SERVER}/one/two"), format!("{RESOURCE}/one/two")),
            ("https://a.example/one/", "https://b.example/x", format!("{SERVER}/one"), format!("{RESOURCE}/x")),
        ] {
            let metadata = metadata(issuer.trim_end_matches('/'), issuer, audience);
            assert_eq!((&metadata.server.path, &metadata.resource.path), (&server, &resource));
            assert!(metadata.respond(&server).is_some() && metadata.respond(&resource).is_some());
            for other in [format!("{server}/"), format!("{server}/x"), format!("{RESOURCE}/z"), "/".into()] {
                assert!(metadata.respond(&other).is_none(), "{other}");
            }
            assert_eq!(metadata.resource_url(), format!("https://a.example{resource}"));
            assert_eq!(read(&metadata.server)["issuer"], issuer, "to the letter (RFC 8414 §3.3)");
        }
    }

    #[test]
    fn a_resource_is_the_audience_when_that_is_a_url() {
        let resource = |audience: &str| {
            let metadata = metadata("https://a.example/p", "https://a.example/p", audience);
            read(&metadata.resource)["resource"].as_str().unwrap().to_owned()
        };
        assert_eq!(resource("https://api.example/v1"), "https://api.example/v1");
        for other in ["api", "http://api.example", "https://", "https://api.example/?a", "https://api.example/#a", "*"]
        {
            assert_eq!(resource(other), "https://a.example/p", "{other}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_configured_there_are_two_documents(issuer in ".{0,40}", audience in ".{0,40}", base in ".{0,40}") {
            let metadata = metadata(&base, &issuer, &audience);
            prop_assert_eq!(&read(&metadata.server)["issuer"], &issuer);
            prop_assert!(metadata.respond(&metadata.resource.path).is_some());
        }
    }
}
