//! A question about a token: who asks, which token is meant, and whether it is any of the asker's business. Introspection and
//! revocation begin with it.
//!
//! An account may ask about its own tokens, by whichever of its credentials. One with the group [`OPERATOR`] may ask about all.
//! Whoever presents an access token in place of a credential may ask about its account's: it has what proves as much to every
//! other path, and is no operator by it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderValue, Request};

use super::client::Clients;
use super::error::{Code, OAuthError};
use super::form::{self, Form};
use crate::access::{Gate, Presented, Refusals};
use crate::exchange::{Exchange, Verdict, read_body};
use crate::groups::OPERATOR;
use crate::ids::AccountName;
use crate::registry::Session;
use crate::secret::Secret;
use crate::tokens::Invalid;

/// What a [`Questions`] works with.
pub struct QuestionParts {
    /// Authenticates who asks by a credential.
    pub clients: Arc<Clients>,
    /// Judges tokens: those asked about, and those that are asked with.
    pub gate: Arc<Gate>,
    /// Challenges whose token is not valid.
    pub refusals: Arc<Refusals>,
    /// Bytes of content that a question may have.
    pub body_bytes: usize,
    /// How long it may take to arrive.
    pub body_timeout: Duration,
}

/// Takes questions.
pub struct Questions(QuestionParts);

impl std::fmt::Debug for Questions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Questions").finish_non_exhaustive()
    }
}

/// A valid token that the asker may ask about.
#[derive(Debug)]
pub struct Subject {
    /// As presented.
    pub jwt: Secret<String>,
    /// Whose it is.
    pub session: Session,
    /// Who asks looks after all accounts.
    pub by_operator: bool,
    /// It is of the asker's own account.
    pub is_own: bool,
    /// From where it was presented, if the asker says that.
    pub presented_from: Option<IpAddr>,
}

impl Subject {
    /// It was answered: the request log may name the token's account where that is the asker.
    pub fn answered(&self, exchange: &Exchange) {
        if self.is_own {
            let who = (Arc::clone(self.session.principal()), self.session.id());
            exchange.note(Verdict { reason: None, who: Some(who) });
        }
    }
}

#[derive(Debug)]
struct Asker {
    account: AccountName,
    is_operator: bool,
}

impl Questions {
    /// Questions to `parts`.
    pub fn new(parts: QuestionParts) -> Self {
        Self(parts)
    }

    /// Takes a question. `None` when the token is not valid (any more), or is none of the asker's business: nobody learns
    /// which.
    ///
    /// # Errors
    /// When it cannot be read, or who asks is not known.
    pub(super) async fn take(
        &self,
        exchange: &Exchange,
        request: Request<Body>,
    ) -> Result<Option<Subject>, OAuthError> {
        let (head, body) = request.into_parts();
        let content = read_body(body, self.0.body_bytes, self.0.body_timeout)
            .await
            .map_err(|refusal| OAuthError::of_content(&refusal))?;
        let is_form = form::is_form(&head.headers);
        let form = match is_form {
            true => Form::parse(&content),
            // It has no parameters. Who asks is looked at first all the same.
            false => Ok(Form::default()),
        };
        let form = form.map_err(|why| OAuthError::new(Code::InvalidRequest, why.word(), why.description()))?;
        let asker = self.asker(exchange, &head, &form).await?;
        let jwt = form.get("token").ok_or_else(|| {
            let description = match is_form {
                true => "The parameter token is missing",
                false => "The content is not of the type application/x-www-form-urlencoded",
            };
            OAuthError::new(Code::InvalidRequest, "no_token_parameter", description)
        })?;
        let presented_from = form.get("client_address").map(str::parse).transpose().map_err(|_| {
            let description = "The parameter client_address is no IP address";
            OAuthError::new(Code::InvalidRequest, "client_address", description)
        })?;
        let Ok(session) = self.0.gate.examine(jwt.as_bytes(), self.0.gate.clock().now()) else { return Ok(None) };
        let is_own = *session.principal().account() == asker.account;
        let by_operator = asker.is_operator;
        let subject = Subject { jwt: Secret::from(jwt), session, by_operator, is_own, presented_from };
        Ok((is_own || asker.is_operator).then_some(subject))
    }

    async fn asker(&self, exchange: &Exchange, head: &Parts, form: &Form) -> Result<Asker, OAuthError> {
        let authorization = head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let Some(Presented::Bearer(jwt)) = authorization.map(Presented::from_authorization) else {
            let grant = self.0.clients.authenticate(&head.headers, form, exchange.client).await?;
            let is_operator = grant.groups.iter().any(|group| group.as_str() == OPERATOR);
            return Ok(Asker { account: grant.account, is_operator });
        };
        if form.get("client_id").is_some() || form.get("client_secret").is_some() {
            let description = "Authenticate in one way: by an access token, or as a client";
            return Err(OAuthError::new(Code::InvalidRequest, "several_authentications", description));
        }
        let session = self.0.gate.examine(jwt, self.0.gate.clock().now()).map_err(|why| {
            OAuthError::new(Code::InvalidToken, why.word(), why.description())
                .challenge(self.0.refusals.invalid_token(why))
        })?;
        if !session.principal().admits(exchange.client) {
            let why = Invalid::Elsewhere;
            return Err(OAuthError::new(Code::InvalidToken, why.word(), why.description())
                .challenge(self.0.refusals.invalid_token(why)));
        }
        Ok(Asker { account: session.principal().account().clone(), is_operator: false })
    }
}
