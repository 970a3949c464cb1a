//! The OpenAPI document of this gateway, made once: which endpoints there are takes a restart to change. It is made of the
//! route table, so that nothing is in it that is not answered, and nothing is answered that is not in it.
//!
//! Configured routes are not in it. They are the operator's APIs, and which paths there are is nobody's business before they
//! have a token.

use aws_lc_rs::digest;
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::{ObjectBuilder, OpenApi, Type};

use super::gateway::{base_url, built_ins};
use crate::config::Config;
use crate::groups::demo;
use crate::oauth::Metadata;
use crate::openapi::{Answer, Document, ENTITY_TAG, Endpoint, FIVE_MINUTES, Media, NO_STORE, Site, Tag};
use crate::routes::{Audience, Resource, Route, RouteTable, Target};
use crate::{forward_auth, me, oauth, portal, resources};

/// What readers of the document should know before they read on.
const ABOUT: &str = "\
Turns an API key, or a username and password, into a short-lived access token, and lets a request through to a secured path \
only with such a token.

* Everything is HTTPS. What comes in the clear is answered 400, and counts as exposed.
* Every path is secured but those that ask for nothing here. One that is nobody's is answered 401 without a token, and 404 \
with one.
* `HEAD` is answered wherever `GET` is. Other methods are answered 405, with an `Allow` that says which there are.
* Failures are problem details (RFC 9457), and OAuth errors (RFC 6749 §5.2) where OAuth is spoken.

The paths that this gateway guards for others are not in this document: whoever runs them describes them.";

const ABOUT_ADMIN: &str = "The operators' listener of a Keybearer gateway. It is to be reached from inside alone.";

/// A document as it is served.
#[derive(Debug)]
pub struct Description {
    content: Bytes,
    tag: HeaderValue,
}

impl Description {
    fn new(document: &OpenApi) -> Self {
        let content = document.to_pretty_json().unwrap_or_default();
        let digest = digest::digest(&digest::SHA256, content.as_bytes());
        let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&digest.as_ref()[..12]));
        Self { content: content.into(), tag: HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\"")) }
    }

    /// `GET /openapi.json`. Whoever has it still (RFC 9110 §13.1.2) is not sent it again.
    pub fn respond(&self, headers: &HeaderMap) -> Response<Body> {
        let is_known = headers.get_all(IF_NONE_MATCH).iter().any(|known| self.is_among(known.as_bytes()));
        let mut response = Response::new(if is_known { Body::empty() } else { Body::from(self.content.clone()) });
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            // There is no media type of its own yet.
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
        response.headers_mut().insert(ETAG, self.tag.clone());
        response
    }

    /// Whether a list of entity tags has ours. A weak one is as good (RFC 9110 §8.8.3.2); ours has no comma.
    fn is_among(&self, known: &[u8]) -> bool {
        known
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
            .any(|known| known == b"*" || known.strip_prefix(b"W/").unwrap_or(known) == self.tag.as_bytes())
    }
}

/// Both documents of a gateway.
#[derive(Debug)]
pub struct Descriptions {
    /// That of the HTTPS listener.
    pub public: Description,
    /// That of the admin listener.
    pub admin: Description,
}

impl Descriptions {
    /// Of a gateway that is reached at `base_url`.
    pub fn new(config: &Config, base_url: &str) -> Self {
        Self { public: Description::new(&public(config, base_url)), admin: Description::new(&admin(config)) }
    }
}

/// The document of a configuration, without a gateway.
pub fn of(config: &Config) -> OpenApi {
    public(config, &base_url(&config.tokens.issuer, config.server.listen))
}

/// The document of the admin listener, wherever that is reached.
pub fn admin(config: &Config) -> OpenApi {
    let site = Site {
        title: "Keybearer, for operators",
        description: ABOUT_ADMIN,
        base_url: "",
        contact: contact(config),
        is_internal: true,
    };
    joined(site, &RouteTable::admin(), config, "")
}

fn contact(config: &Config) -> Option<&str> {
    config.access.contact.as_deref()
}

fn public(config: &Config, base_url: &str) -> OpenApi {
    let site = Site { title: "Keybearer", description: ABOUT, base_url, contact: contact(config), is_internal: false };
    joined(site, &RouteTable::new(&[], built_ins(config)), config, base_url)
}

fn joined(site: Site<'_>, table: &RouteTable, config: &Config, base_url: &str) -> OpenApi {
    let metadata = Metadata::new(base_url, &config.tokens);
    let routes = table.routes().iter().map(|route| (route, route.audience != Audience::Public));
    let endpoints = routes.flat_map(|(route, is_guarded)| {
        endpoints(route, config, &metadata).into_iter().map(move |endpoint| (endpoint, is_guarded))
    });
    endpoints.fold(Document::new(site), |document, (endpoint, is_guarded)| document.with(endpoint, is_guarded)).finish()
}

/// What answers a route, described.
fn endpoints(route: &Route, config: &Config, metadata: &Metadata) -> Vec<Endpoint> {
    let path = route.path.to_string();
    match route.target {
        Target::Token => {
            let service = config.image_registry.as_ref().map(|registry| registry.service.as_str());
            oauth::openapi::token(&path, service).into()
        }
        Target::Jwks => vec![oauth::openapi::jwks(&path)],
        Target::Introspection => vec![oauth::openapi::introspection(&path)],
        Target::Revocation => vec![oauth::openapi::revocation(&path)],
        // Its pattern has room for the path of an issuer; there is one document below it.
        Target::Metadata => {
            let [server, resource] = metadata.documents();
            let is_below = |well_known: &str| well_known.starts_with(path.trim_end_matches("/*"));
            match (is_below(server.0), is_below(resource.0)) {
                (true, _) => vec![oauth::openapi::server_metadata(server.0, server.1)],
                (_, true) => vec![oauth::openapi::resource_metadata(resource.0, resource.1)],
                _ => vec![],
            }
        }
        Target::HealthLive => vec![health(&path, "getLiveness", "Whether the process lives", "ok")],
        Target::HealthReady => vec![
            health(&path, "getReadiness", "Whether requests should be sent here", "ready").answers(
                503,
                Answer::new("Not now: it is ending, or its store does not answer.")
                    .field(&NO_STORE)
                    .media(Media::json::<Health>(json!({ "status": "not ready" }))),
            ),
        ],
        Target::Portal => vec![portal::openapi::page(&path)],
        Target::OpenApi | Target::AdminOpenApi => vec![itself(&path)],
        Target::Demo => {
            let key = demo::key(&config.key_prefix);
            vec![resources::openapi::demo(&path, key.secret().expose())]
        }
        Target::Resource(Resource::Whoami) => vec![resources::openapi::whoami(&path)],
        Target::MyUsage => vec![me::openapi::usage(&path)],
        Target::RollKey => vec![me::openapi::roll(&path)],
        Target::Resource(Resource::Time) => vec![resources::openapi::time(&path)],
        Target::Resource(Resource::Echo) => resources::openapi::echo(&path, config.limits.body_bytes),
        Target::Metrics => vec![metrics(&path)],
        Target::ForwardAuth(contract) => vec![forward_auth::openapi::decision(contract)],
        // gRPC is described by its own means, and configured routes by whoever runs them.
        Target::Check | Target::Upstream | Target::External => vec![],
    }
}

/// How it is.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
struct Health {
    status: State,
}

#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "it is there for its schema")]
enum State {
    Ok,
    Ready,
    #[schema(rename = "not ready")]
    NotReady,
}

fn health(path: &str, operation: &str, summary: &str, word: &str) -> Endpoint {
    let media = Media::json::<Health>(json!({ "status": word }));
    Endpoint::get(path, Tag::Operation, operation)
        .says(summary, "For load balancers and whoever watches. No detail is given.")
        .answers(200, Answer::new("Yes.").field(&NO_STORE).media(media))
}

fn metrics(path: &str) -> Endpoint {
    let text =
        ObjectBuilder::new().schema_type(Type::String).pattern(Some("# EOF\n$")).max_length(Some(16 * 1024 * 1024));
    Endpoint::get(path, Tag::Operation, "getMetrics")
        .says("The counters", "For Prometheus and what speaks like it.")
        .see("OpenMetrics", "https://prometheus.io/docs/specs/om/open_metrics_spec/")
        .answers(200, Answer::new("The counters.").media(Media::raw("application/openmetrics-text", text.build())))
}

/// The document of an OpenAPI 3.1 description.
#[derive(ToSchema)]
#[schema(as = OpenApiDocument)]
#[expect(dead_code, reason = "it is there for its schema")]
struct Itself {
    #[schema(max_length = 16, pattern = r"^3\.1\.[0-9]+$")]
    openapi: String,
}

fn itself(path: &str) -> Endpoint {
    let media = Media::open::<Itself>("application/json", json!({ "openapi": "3.1.0" }));
    let fresh = Answer::new("It has not changed since the one that `If-None-Match` names.");
    Endpoint::get(path, Tag::Discovery, "getOpenApi")
        .says("This document", "What is described here, for programs that make clients of it.")
        .see("OpenAPI", "https://spec.openapis.org/oas/v3.1.1.html")
        .answers(200, Answer::new("The document.").field(&FIVE_MINUTES).field(&ENTITY_TAG).media(media))
        .answers(304, fresh.field(&FIVE_MINUTES).field(&ENTITY_TAG))
}
