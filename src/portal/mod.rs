//! The developer page: how to try the Demo group, what the answers mean, how to verify a token.
//!
//! One HTML file with its style and its script inside, filled on each request; nothing is loaded from anywhere. The page
//! works without the script, which only adds buttons that copy.

pub mod openapi;
mod template;

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::digest;
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderName, HeaderValue, Response};

use crate::clock::Timestamp;
use crate::groups::demo;
use crate::ids::GroupId;
use crate::resources::{Published, PublishedSite};
use crate::routes::{Audience, RouteTable};
use crate::{access, tokens};
use template::{Fill, render};

const PAGE: &str = include_str!("page.html");

/// The path of the sample route, whose want of a licence the page shows off.
const SAMPLE: &str = "/sample/x";

/// Only the page's own style and script, and no address but that of its icon (CSP Level 3 §2.3.1). Whatever a value might
/// smuggle in does not run.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |element: &str| {
        let text = inside(PAGE, element).unwrap_or_default();
        STANDARD.encode(digest::digest(&digest::SHA256, text.as_bytes()))
    };
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("style"),
        hash("script")
    );
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"))
});

/// What stands between the tags of the page's first `element`.
fn inside<'a>(page: &'a str, element: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(&format!("<{element}>"))?;
    Some(rest.split_once(&format!("</{element}>"))?.0)
}

/// The page of one server, but for what changes from request to request.
#[derive(Debug)]
pub struct Portal {
    site: PublishedSite,
    key_mark: String,
    access: access::Settings,
    issuer: String,
    audience: String,
    lifetime: Duration,
    algorithm: &'static str,
}

/// What changes from request to request.
#[derive(Debug)]
pub struct Now<'a> {
    /// The Demo group's rates and what it publishes, when it is open.
    pub demo: Option<(&'a demo::Settings, &'a Published)>,
    /// The routes in force.
    pub routes: &'a RouteTable,
    /// The time.
    pub time: Timestamp,
}

impl Portal {
    /// The page of the server at `site`. `key_mark` is what its keys begin with.
    pub fn new(site: PublishedSite, key_mark: &str, access: &access::Settings, tokens: &tokens::Settings) -> Self {
        Self {
            site,
            key_mark: key_mark.to_owned(),
            access: access.clone(),
            issuer: tokens.issuer.clone(),
            audience: tokens.audience.join(", "),
            lifetime: tokens.lifetime,
            algorithm: "RS256",
        }
    }

    /// With tokens that are signed otherwise than by RS256.
    pub fn signed_by(mut self, algorithm: &'static str) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// `GET /`
    pub fn respond(&self, now: &Now<'_>) -> Response<Body> {
        let mut response = Response::new(Body::from(self.render(now)));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
        // There is a token on the page, if a published one.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        let opener = HeaderName::from_static("cross-origin-opener-policy");
        headers.insert(opener, HeaderValue::from_static("same-origin"));
        response
    }

    fn render(&self, now: &Now<'_>) -> String {
        let published = now.demo.map(|(_, published)| published);
        let filled = Filled {
            portal: self,
            now,
            token: published.map(|published| published.token.splitn(3, '.').collect()).unwrap_or_default(),
            claims: published.map(|published| claims(&published.token)).unwrap_or_default(),
            sample: sample_group(now.routes),
            contact_href: self.access.contact.as_deref().and_then(href),
        };
        render(PAGE, &filled)
    }
}

struct Filled<'a> {
    portal: &'a Portal,
    now: &'a Now<'a>,
    token: Vec<&'a str>,
    claims: serde_json::Value,
    sample: Option<&'a GroupId>,
    contact_href: Option<String>,
}

impl Fill for Filled<'_> {
    fn flag(&self, name: &str) -> Option<bool> {
        Some(match name {
            "demo" => self.now.demo.is_some(),
            "sample" => self.sample.is_some(),
            "ca" => self.portal.site.ca_file.is_some(),
            "contact" => self.portal.access.contact.is_some(),
            "link" => self.contact_href.is_some(),
            _ => return None,
        })
    }

    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        let Self { portal, now, .. } = self;
        let site = &portal.site;
        Some(match name {
            "base_url" => Cow::from(&site.base_url),
            "host" => site.base_url.strip_prefix("https://").unwrap_or(&site.base_url).into(),
            "curl" => site.curl().into(),
            "ca_file" => site.ca_file.as_deref()?.into(),
            "key_mark" => Cow::from(&portal.key_mark),
            "realm" => Cow::from(&portal.access.realm),
            "issuer" => Cow::from(&portal.issuer),
            "audience" => Cow::from(&portal.audience),
            "algorithm" => portal.algorithm.into(),
            "token_life" => in_words(portal.lifetime).into(),
            "token_seconds" => portal.lifetime.as_secs().to_string().into(),
            "now" => now.time.to_string().into(),
            "now_unix" => now.time.secs().to_string().into(),
            "sample_group" => self.sample?.as_str().into(),
            "contact" => portal.access.contact.as_deref()?.into(),
            "contact_href" => self.contact_href.as_deref()?.into(),
            "ask" => access::ask_for_licence(portal.access.contact.as_deref()).into(),
            name => match name.strip_prefix("claim.") {
                Some(claim) => match self.claims.get(claim)? {
                    serde_json::Value::String(text) => text.into(),
                    other => other.to_string().into(),
                },
                None => return self.demo_value(name),
            },
        })
    }
}

impl Filled<'_> {
    fn demo_value(&self, name: &str) -> Option<Cow<'_, str>> {
        let (settings, published) = self.now.demo?;
        Some(match name {
            "key" => Cow::from(&published.key),
            "expires_at" => published.expires_at.to_string().into(),
            "expires_in" => in_words(published.expires_at.since(self.now.time)).into(),
            "demo_tokens" => settings.tokens_per_address.in_words("token").into(),
            "demo_requests" => settings.requests_per_address.in_words("request").into(),
            "token_header" => (*self.token.first()?).into(),
            "token_claims" => (*self.token.get(1)?).into(),
            "token_signature" => (*self.token.get(2)?).into(),
            _ => return None,
        })
    }
}

/// The claims of our own token; nothing when it cannot be read.
fn claims(jwt: &str) -> serde_json::Value {
    let claims = jwt.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    claims.and_then(|claims| serde_json::from_slice(&claims).ok()).unwrap_or_default()
}

/// The group that the sample path asks for, as long as it is one that a demo token does not reach. No other route is shown:
/// which paths there are is nobody's business before they have a token.
fn sample_group(routes: &RouteTable) -> Option<&GroupId> {
    let route = routes.find("", SAMPLE, "GET").filter(|route| route.answers("GET"))?;
    match &route.audience {
        Audience::AnyOf(groups) if !groups.contains(&demo::group()) => groups.first(),
        _ => None,
    }
}

/// Where a contact leads: an address or an https URL, nothing that could run.
fn href(contact: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '<' | '>' | '\\' | '`');
    if !contact.chars().all(plain) {
        return None;
    }
    if contact.starts_with("https://") {
        return Some(contact.to_owned());
    }
    let address = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    let (local, domain) = contact.split_once('@')?;
    let is_address = [local, domain].iter().all(|part| !part.is_empty() && part.chars().all(address));
    is_address.then(|| format!("mailto:{contact}"))
}

/// A span in its two largest units, for people.
fn in_words(span: Duration) -> String {
    let secs = span.as_secs();
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let first = units.iter().position(|(unit, _)| secs >= *unit).unwrap_or(units.len() - 1);
    let mut left = secs;
    let mut words = Vec::new();
    for (unit, word) in units.iter().skip(first).take(2) {
        let count = left / unit;
        left %= unit;
        if count > 0 || words.is_empty() && *unit == 1 {
            words.push(counted(count, word));
        }
    }
    words.join(" ")
}

fn counted(count: u64, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{Kind, Problem};
    use crate::routes::{BuiltIns, default_routes};

    fn built_ins(demo: bool) -> BuiltIns {
        BuiltIns { demo, forward_auth: false }
    }

    const HOSTILE: &str = "\"><script>alert(1)</script>'&";

    fn site(ca_file: Option<&str>) -> PublishedSite {
        PublishedSite { base_url: "https://localhost:8443".into(), ca_file: ca_file.map(str::to_owned) }
    }

    fn published() -> Published {
        let claims = URL_SAFE_NO_PAD.encode(
            r#"{"sub":"demo","client_id":"kb_x","scope":"demo","iat":1000,"nbf":998,"exp":87400,"jti":"AAAA"}"#,
        );
        Published {
            key: "kb_demo".into(),
            token: format!("eyJhead.{claims}.signed"),
            expires_at: Timestamp::from_secs(87_400),
            site: site(None),
        }
    }

    fn portal(contact: Option<&str>, ca_file: Option<&str>) -> Portal {
        let access = access::Settings { contact: contact.map(str::to_owned), ..access::Settings::default() };
        Portal::new(site(ca_file), "kb_", &access, &tokens::Settings::default())
    }

    fn render_page(portal: &Portal, demo_is_open: bool) -> String {
        let (published, settings) = (published(), demo::Settings::default());
        let routes = RouteTable::new(&default_routes(), built_ins(demo_is_open));
        let demo = demo_is_open.then_some((&settings, &published));
        portal.render(&Now { demo, routes: &routes, time: Timestamp::from_secs(1000) })
    }

    #[test]
    fn every_hole_is_filled() {
        let portal = portal(Some("sales@example.com"), Some("data/tls/ca.pem"));
        let (published, settings) = (published(), demo::Settings::default());
        let routes = RouteTable::new(&default_routes(), built_ins(true));
        let now = Now { demo: Some((&settings, &published)), routes: &routes, time: Timestamp::from_secs(1000) };
        let filled = Filled {
            portal: &portal,
            now: &now,
            token: published.token.splitn(3, '.').collect(),
            claims: claims(&published.token),
            sample: sample_group(&routes),
            contact_href: href("sales@example.com"),
        };
        let mut open = Vec::new();
        for part in PAGE.split("{{").skip(1) {
            let (name, _) = part.split_once("}}").expect("a hole has an end");
            match name.split_at(1) {
                ("#" | "^", flag) => {
                    assert!(filled.flag(flag).is_some(), "{name}");
                    open.push(flag);
                }
                ("/", flag) => assert_eq!(open.pop(), Some(flag)),
                _ => assert!(filled.value(name).is_some_and(|value| !value.is_empty()), "{name}"),
            }
        }
        assert!(open.is_empty());
    }

    #[test]
    fn an_open_demo_group_can_be_tried_by_copying() {
        let page = render_page(&portal(Some("sales@example.com"), Some("data/tls/ca.pem")), true);
        for line in [
            "curl --cacert data/tls/ca.pem -u 'kb_demo:' https://localhost:8443/token",
            "https://localhost:8443/demo/time",
            "https://localhost:8443/sample/x",
            "1970-01-02T00:16:40Z",
            "1 day from now",
            "30 tokens a minute",
            "<a href=\"mailto:sales@example.com\">sales@example.com</a>",
        ] {
            assert!(page.contains(line), "{line}");
        }
        assert!(!page.contains("Get a key"));
    }

    #[test]
    fn a_closed_demo_group_leaves_no_trace() {
        let page = render_page(&portal(None, None), false);
        assert!(page.contains("Get a key") && page.contains("ask the operator of this API"));
        for trace in ["kb_demo", "eyJhead", "/demo", "--cacert", "demo calls"] {
            assert!(!page.contains(trace), "{trace}");
        }
    }

    #[test]
    fn without_the_sample_route_it_is_not_shown() {
        let (published, settings) = (published(), demo::Settings::default());
        let routes = RouteTable::new(&[], built_ins(true));
        let now = Now { demo: Some((&settings, &published)), routes: &routes, time: Timestamp::from_secs(1000) };
        assert!(!portal(None, None).render(&now).contains("/sample"));
    }

    #[test]
    fn hostile_values_stay_text() {
        let access =
            access::Settings { realm: HOSTILE.into(), contact: Some(HOSTILE.into()), ..access::Settings::default() };
        let tokens =
            tokens::Settings { issuer: HOSTILE.into(), audience: vec![HOSTILE.into()], ..tokens::Settings::default() };
        let site = PublishedSite { base_url: HOSTILE.into(), ca_file: Some(HOSTILE.into()) };
        let portal = Portal::new(site, HOSTILE, &access, &tokens);
        let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":{}}}"#, serde_json::json!(HOSTILE)));
        let published =
            Published { key: HOSTILE.into(), token: format!("{HOSTILE}.{claims}.{HOSTILE}"), ..published() };
        let (settings, routes) = (demo::Settings::default(), RouteTable::new(&default_routes(), built_ins(true)));
        for demo in [None, Some((&settings, &published))] {
            let page = portal.render(&Now { demo, routes: &routes, time: Timestamp::from_secs(1000) });
            assert!(!page.contains("<script>alert") && !page.contains("\"><script"));
            assert!(page.contains("&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&#39;&amp;"));
            assert_eq!(page.matches("<script").count(), 1);
        }
    }

    #[test]
    fn only_addresses_and_https_urls_are_linked() {
        assert_eq!(href("sales@example.com").as_deref(), Some("mailto:sales@example.com"));
        assert_eq!(href("https://example.com/?a=b").as_deref(), Some("https://example.com/?a=b"));
        for text in
            ["javascript:alert(1)", "data:text/html,x@y", "http://example.com", "Ms Smith", "a@b?bcc=c@d", "a@", ""]
        {
            assert_eq!(href(text), None, "{text}");
        }
    }

    #[test]
    fn the_policy_lets_the_page_be_and_nothing_else() {
        let response = portal(None, None).respond(&Now {
            demo: None,
            routes: &RouteTable::new(&[], built_ins(false)),
            time: Timestamp::default(),
        });
        let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        for rule in ["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"] {
            assert!(policy.contains(rule), "{rule}");
        }
        assert!(!policy.contains("unsafe"));
        // The policy is of the file, so nothing within these elements may change from request to request.
        for element in ["style", "script"] {
            let text = inside(PAGE, element).unwrap();
            assert!(!text.is_empty() && !text.contains("{{"), "{element}");
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1);
        }
        assert!(!PAGE.contains(" style=") && !PAGE.contains(" onclick="));
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        assert_eq!(response.headers()[REFERRER_POLICY], "no-referrer");
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        for attribute in ["src=", "href=\"http", "url(", "@import", "srcset"] {
            assert!(!PAGE.contains(attribute), "{attribute}");
        }
    }

    #[test]
    fn the_problems_shown_are_the_ones_answered() {
        let page = render_page(&portal(None, None), true);
        for kind in [
            Kind::CredentialsNotSpecified,
            Kind::MalformedRequest,
            Kind::HttpsRequired,
            Kind::InvalidCredentials,
            Kind::MissingToken,
            Kind::InvalidToken,
            Kind::InsufficientScope,
            Kind::NotFound,
            Kind::TooManyRequests,
            Kind::Unavailable,
        ] {
            assert!(page.contains(&format!("<code>{}</code>", kind.word())), "{kind:?}");
            assert!(page.contains(&format!(">{}</th>", kind.status())), "{kind:?}");
        }
        for kind in [Kind::MissingToken, Kind::InsufficientScope] {
            let json: serde_json::Value = serde_json::from_slice(&Problem::new(kind, "").to_json()).unwrap();
            assert!(page.contains(json["type"].as_str().unwrap()) && page.contains(kind.title()), "{kind:?}");
        }
    }

    #[test]
    fn spans_and_rates_read_well() {
        let words = |secs| in_words(Duration::from_secs(secs));
        assert_eq!(words(86_399), "23 hours 59 minutes");
        assert_eq!(words(3600), "1 hour");
        assert_eq!(words(2 * 86_400 + 59), "2 days");
        assert_eq!(words(61), "1 minute 1 second");
        assert_eq!(words(0), "0 seconds");
    }
}
