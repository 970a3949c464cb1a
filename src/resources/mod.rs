//! Built-in resources: they show the guard at work with no upstream behind it. Each takes a [`Permit`] as its right to
//! answer; the public ones take none.

mod demo;
mod echo;
pub mod openapi;

use std::cell::RefCell;

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use serde::Serialize;

use crate::access::{Permit, Quota};
use crate::clock::Timestamp;
use crate::exchange::private_json;
use crate::groups;
use crate::ids::GroupId;
use crate::tokens::Client;

pub use demo::{Demo, Published, PublishedSite};
pub use echo::echo;

thread_local! {
    /// The last answer of [`time`] and its second: a second has many requests.
    static TIME: RefCell<(u64, Bytes)> = const { RefCell::new((u64::MAX, Bytes::new())) };
}

/// The time of day.
pub fn time(_permit: &Permit, now: Timestamp) -> Response<Body> {
    let body = TIME.with_borrow_mut(|(second, body)| {
        if *second != now.secs() {
            *second = now.secs();
            *body = format!("{{\"time\":\"{now}\",\"unix\":{}}}", now.secs()).into();
        }
        body.clone()
    });
    private_json(body)
}

#[derive(Serialize)]
struct Whoami<'a> {
    account: &'a str,
    credential: Credential<'a>,
    groups: &'a [GroupId],
    token: TokenView,
    limits: Vec<LimitView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    quotas: Vec<QuotaView>,
}

#[derive(Serialize)]
struct QuotaView {
    policy: String,
    limit: String,
    per: &'static str,
    left: u64,
    resets_in: Option<u64>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Credential<'a> {
    Key { id: &'a str },
    Password,
}

#[derive(Serialize)]
struct TokenView {
    id: String,
    issued_at: String,
    expires_at: String,
    expires_in: u64,
}

#[derive(Serialize)]
struct LimitView {
    name: &'static str,
    rate: String,
    per: &'static str,
}

/// Who the token belongs to, what it reaches, and what is left of its quotas.
pub fn whoami(permit: &Permit, now: Timestamp, demo: &groups::demo::Settings, quotas: Vec<Quota>) -> Response<Body> {
    let principal = permit.principal();
    let limit = |name, rate: crate::limits::Rate| LimitView { name, rate: rate.to_string(), per: "client address" };
    let limits = match principal.is_demo() {
        true => vec![limit("requests", demo.requests_per_address), limit("tokens", demo.tokens_per_address)],
        false => vec![],
    };
    let view = Whoami {
        account: principal.account().as_str(),
        credential: match principal.client() {
            Client::Key(id) => Credential::Key { id: id.as_str() },
            Client::Password => Credential::Password,
        },
        groups: principal.groups(),
        token: TokenView {
            id: permit.token().to_string(),
            issued_at: permit.issued_at().to_string(),
            expires_at: permit.expires_at().to_string(),
            expires_in: permit.expires_at().since(now).as_secs(),
        },
        limits,
        quotas: quotas.into_iter().map(quota).collect(),
    };
    private_json(serde_json::to_vec(&view).unwrap_or_default())
}

fn quota(of: Quota) -> QuotaView {
    let Quota { policy, limit, per, left, reset } = of;
    let resets_in = reset.map(|reset| reset.as_secs() + u64::from(reset.subsec_nanos() > 0));
    QuotaView { policy, limit, per, left, resets_in }
}
