//! `GET /token?service=…&scope=…`: the token endpoint for clients of a container image registry, as the distribution project's
//! token specification has it. Docker, Podman and skopeo come here when a registry sends them.
//!
//! Phases and checks are those of the other dialects. What differs is what is asked for, repositories in place of groups, and
//! the token, which no door of ours takes: it says what its bearer may do in the registry. Having less than was asked for is no
//! refusal; the registry compares for itself. containerd and BuildKit send the same as a form with `grant_type=password`.

use axum::body::Body;
use http::request::Parts;
use http::{Method, Response};

use super::error::{Code, OAuthError};
use super::form::{Form, mentions};
use super::stop::Stop;
use super::token::TokenEndpoint;
use crate::exchange::{Exchange, Refusal};
use crate::problem::Kind;
use crate::repositories::{Access, InvalidScope, RegistryToken, Repositories, Resource, read_scopes};
use crate::tokens::Grant;

/// Why it cannot be said what is asked for.
enum Unclear {
    NoService,
    UnknownService,
    Scope,
}

impl Unclear {
    const fn word(&self) -> &'static str {
        match self {
            Self::NoService => "no_service",
            Self::UnknownService => "unknown_service",
            Self::Scope => "registry_scope",
        }
    }

    const fn description(&self) -> &'static str {
        match self {
            Self::NoService => "The parameter service is missing",
            Self::UnknownService => "No tokens are issued here for this service",
            Self::Scope => "A scope is not of the form type:name:action,action, or there are too many",
        }
    }
}

impl From<InvalidScope> for Unclear {
    fn from(_: InvalidScope) -> Self {
        Self::Scope
    }
}

/// The query of a request in this dialect.
pub(super) fn query(head: &Parts) -> Option<&str> {
    let query = head.uri.query()?;
    let is_ours = |name| mentions(query.as_bytes(), name);
    (matches!(head.method, Method::GET | Method::HEAD) && (is_ours("service") || is_ours("scope"))).then_some(query)
}

/// What is asked for of `repositories`.
fn asked(repositories: &Repositories, form: &Form) -> Result<Vec<Resource>, Unclear> {
    match form.get("service") {
        None => Err(Unclear::NoService),
        Some(service) if !repositories.is_service(service) => Err(Unclear::UnknownService),
        Some(_) => Ok(read_scopes(form.all("scope"))?),
    }
}

impl TokenEndpoint {
    /// Answers a `GET` with this query.
    pub(super) async fn repository_token(
        &self,
        repositories: &Repositories,
        exchange: &Exchange,
        head: &Parts,
        query: &str,
    ) -> Result<Response<Body>, Refusal> {
        let clients = &self.parts.clients;
        let malformed = |word, description| {
            let refusal = Refusal::new(Kind::MalformedRequest, word, format!("{description}."));
            refusal.for_registry_clients()
        };
        let form = Form::parse_with(query.as_bytes(), Some("scope"))
            .map_err(|why| malformed(why.word(), why.description()))?;
        let asked = asked(repositories, &form).map_err(|why| malformed(why.word(), why.description()))?;
        let stopped = |stop: Stop| stop.registry(clients.challenge());
        let presented = clients.plain(&head.headers).map_err(stopped)?;
        let grant = clients.verified(presented, exchange.client).await.map_err(stopped)?;
        self.for_registry(repositories, exchange, &grant, &asked).map_err(stopped)
    }

    /// Answers a form with `grant_type=password`.
    pub(super) async fn repository_form(
        &self,
        repositories: &Repositories,
        exchange: &Exchange,
        form: &Form,
    ) -> Result<Response<Body>, OAuthError> {
        let clients = &self.parts.clients;
        let asked = asked(repositories, form).map_err(|why| {
            let code = if matches!(why, Unclear::Scope) { Code::InvalidScope } else { Code::InvalidRequest };
            OAuthError::new(code, why.word(), why.description())
        })?;
        let stopped = |stop: Stop| stop.oauth(clients.challenge());
        let presented = clients.owner(form).map_err(stopped)?;
        let grant = clients.verified(presented, exchange.client).await.map_err(stopped)?;
        self.for_registry(repositories, exchange, &grant, &asked).map_err(stopped)
    }

    fn for_registry(
        &self,
        repositories: &Repositories,
        exchange: &Exchange,
        grant: &Grant,
        asked: &[Resource],
    ) -> Result<Response<Body>, Stop> {
        self.charge(grant, exchange.client)?;
        let now = self.parts.clock.now();
        let RegistryToken { issued, access } =
            repositories.issue(grant, asked, now).map_err(Stop::signing)?.ok_or(Stop::Rejected("ended"))?;
        // Not taken in: what ends it, but for a revocation since it was asked for, is its short life.
        let session = self.parts.registry.regard(&issued.token).ok_or(Stop::Rejected("revoked"))?;
        self.count(grant);
        let scope = access.iter().map(Access::to_string).collect::<Vec<_>>().join(" ");
        // What `expires_in` counts from, which may be later than `iat`.
        Ok(self.answer(exchange, &issued, &session, scope, Some(now)))
    }
}
