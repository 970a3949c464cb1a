//! The decision: a presented token and a route become a [`Permit`] or a [`Denial`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::futures::Notified;

use super::{Exceeded, Quotas};
use crate::clock::{Clock, Timestamp};
use crate::credentials;
use crate::exchange::Exchange;
use crate::groups::demo;
use crate::ids::{GroupId, TokenId};
use crate::limits::{Limiter, Rate};
use crate::registry::{Digest, Lookup, Principal, Registry, Session};
use crate::routes::Audience;
use crate::tokens::{Invalid, LARGEST, Token, Verifier};

/// Client addresses whose use of the Demo group is counted at once.
const MOST_DEMO_CLIENTS: usize = 200_000;

/// What a request presented for access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented<'a> {
    /// No `Authorization` header, or one of another scheme.
    Nothing,
    /// No `Authorization` header, but a token in the query string, where we do not take one (RFC 9700 §4.3.2).
    InQuery,
    /// A Bearer token (RFC 6750 §2.1).
    Bearer(&'a [u8]),
}

impl<'a> Presented<'a> {
    /// What a request presents by its `Authorization` header, if it has one, and its query.
    pub fn read(authorization: Option<&'a [u8]>, query: Option<&str>) -> Self {
        match authorization {
            Some(value) => Self::from_authorization(value),
            None if query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("access_token="))) => {
                Self::InQuery
            }
            None => Self::Nothing,
        }
    }

    /// Reads an `Authorization` header's value.
    pub fn from_authorization(value: &'a [u8]) -> Self {
        match credentials::token68(value, b"bearer") {
            Some(token) => Self::Bearer(token),
            None => Self::Nothing,
        }
    }
}

/// Why access is denied.
#[derive(Debug)]
pub enum Denial {
    /// Nothing was presented.
    Missing {
        /// A token was in the query string.
        in_query: bool,
    },
    /// The token is not valid (any more).
    Invalid {
        /// Why.
        why: Invalid,
        /// Whose it is, when it was issued here.
        session: Option<Session>,
    },
    /// The token is valid, and may not be used from where it was presented.
    Elsewhere {
        /// Whose token it is.
        session: Session,
    },
    /// The token is valid and does not reach this route.
    Scope {
        /// A group that would; `None` where any but the demo one would.
        missing: Option<GroupId>,
        /// Whose token it is.
        session: Session,
    },
    /// A plan's limit is reached.
    Quota {
        /// Which, and until when.
        exceeded: Box<Exceeded>,
        /// Whose token it is.
        session: Session,
    },
    /// Too many requests in the Demo group from one address.
    TooMany {
        /// Until there may be more.
        wait: Duration,
        /// Whose token it is.
        session: Session,
    },
}

/// The right to proceed: this session, on the route it was decided for. Only this room can make one.
#[derive(Debug, Clone)]
pub struct Permit {
    session: Session,
}

impl Permit {
    /// Who may proceed.
    pub fn principal(&self) -> &Arc<Principal> {
        self.session.principal()
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// The token's `jti`.
    pub fn token(&self) -> TokenId {
        self.session.id()
    }

    /// The denial of one whose token came to its end after it was let through.
    pub fn ended(&self, why: Invalid) -> Denial {
        Denial::Invalid { why, session: Some(self.session.clone()) }
    }

    /// When the token was issued.
    pub fn issued_at(&self) -> Timestamp {
        self.session.issued_at()
    }

    /// When the token expires.
    pub fn expires_at(&self) -> Timestamp {
        self.session.expires_at()
    }
}

/// How a token came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By time.
    Expired,
    /// By decision.
    Revoked,
}

/// Decides.
#[derive(Debug)]
pub struct Gate {
    registry: Arc<Registry>,
    verifier: Verifier,
    clock: Arc<dyn Clock>,
    demo_is_open: bool,
    demo: Limiter<IpAddr>,
    quotas: Option<Arc<Quotas>>,
}

impl Gate {
    /// A gate in front of everything that is not public.
    pub fn new(registry: Arc<Registry>, verifier: Verifier, demo: &demo::Settings, clock: Arc<dyn Clock>) -> Self {
        let limiter = Limiter::new(demo.requests_per_address, MOST_DEMO_CLIENTS);
        Self { registry, verifier, clock, demo_is_open: demo.enabled, demo: limiter, quotas: None }
    }

    /// With plans that bound what was let through.
    pub fn with_quotas(mut self, quotas: Arc<Quotas>) -> Self {
        self.quotas = Some(quotas);
        self
    }

    /// The plans that bound what was let through, if there are any.
    pub fn quotas(&self) -> Option<&Arc<Quotas>> {
        self.quotas.as_ref()
    }

    /// The rate of the Demo group, by client address.
    pub(super) fn demo(&self) -> &Limiter<IpAddr> {
        &self.demo
    }

    /// The clock it decides by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Whether `presented` opens a route for `audience` to `client`, at the time of `exchange`. What comes by the Demo group is
    /// charged to its address, and where that stands is in the exchange.
    ///
    /// # Errors
    /// The [`Denial`].
    pub fn decide(
        &self,
        exchange: &Exchange,
        audience: &Audience,
        presented: Presented<'_>,
        client: IpAddr,
    ) -> Result<Permit, Denial> {
        let session = self.authenticate(presented, exchange.at)?;
        if !session.principal().admits(client) {
            return Err(Denial::Elsewhere { session });
        }
        if *audience == Audience::Licensed && session.principal().is_demo() {
            return Err(Denial::Scope { missing: None, session });
        }
        let reaches = |group| session.principal().reaches(group);
        let missing = match audience {
            Audience::AnyOf(groups) if !groups.iter().any(reaches) => Some(groups.first()),
            Audience::AllOf(groups) => groups.iter().find(|group| !reaches(group)).map(Some),
            _ => None,
        };
        if let Some(missing) = missing {
            let missing = missing.cloned();
            return Err(Denial::Scope { missing, session });
        }
        if session.principal().is_demo() {
            self.charge_demo(exchange, &session, client)?;
        }
        Ok(Permit { session })
    }

    /// The session of a presented token: by its digest when it is known here, by its signature when not.
    fn authenticate(&self, presented: Presented<'_>, now: Timestamp) -> Result<Session, Denial> {
        let jwt = match presented {
            Presented::Bearer(jwt) => jwt,
            Presented::Nothing => return Err(Denial::Missing { in_query: false }),
            Presented::InQuery => return Err(Denial::Missing { in_query: true }),
        };
        let session = self.known(jwt, now, |digest, token| self.registry.admit(digest, token, now));
        session.map_err(|(why, session)| Denial::Invalid { why, session })
    }

    /// Whether a token would be let through now, wherever that may be, and as whose: the judgement of [`Gate::decide`], but
    /// the token is not taken into the registry, and nothing is charged for it.
    ///
    /// # Errors
    /// Why it would not.
    pub fn examine(&self, jwt: &[u8], now: Timestamp) -> Result<Session, Invalid> {
        self.known(jwt, now, |_, token| self.registry.regard(token)).map_err(|(why, _)| why)
    }

    /// `unseen` makes a session of a good token that the registry does not have; `None` when it was revoked.
    fn known(
        &self,
        jwt: &[u8],
        now: Timestamp,
        unseen: impl FnOnce(Digest, &Token) -> Option<Session>,
    ) -> Result<Session, (Invalid, Option<Session>)> {
        if jwt.len() > LARGEST {
            return Err((Invalid::TooLarge, None));
        }
        let digest = Digest::of(jwt);
        let session = match self.registry.look_up(&digest, now) {
            Lookup::Live(session) => session,
            Lookup::Expired(session) => return Err((Invalid::Expired, Some(session))),
            Lookup::Revoked(session) => return Err((Invalid::Revoked, Some(session))),
            Lookup::Unknown => {
                let was = |token: &Token| Some(self.registry.once(token));
                let token =
                    self.verifier.judge(jwt, now).map_err(|(why, token)| (why, token.as_deref().and_then(was)))?;
                unseen(digest, &token).ok_or_else(|| (Invalid::Revoked, was(&token)))?
            }
        };
        if session.principal().is_demo() && !self.demo_is_open {
            // A token of the time when it was open, still within its life.
            return Err((Invalid::Revoked, Some(session)));
        }
        Ok(session)
    }

    /// How the token behind `permit` came to its end, for what goes on after its request was let through. One that has
    /// expired is given `grace`, one that was revoked is not.
    pub fn ending(&self, permit: &Permit, grace: Duration) -> Option<Ending> {
        if self.registry.is_revoked(&permit.session) {
            return Some(Ending::Revoked);
        }
        (self.clock.now() >= permit.expires_at() + grace).then_some(Ending::Expired)
    }

    /// Waits for that end.
    pub async fn ended(&self, permit: &Permit, grace: Duration) -> Ending {
        loop {
            // Made before the look, so that no revocation falls between the two.
            let revoked = self.next_revocation();
            tokio::pin!(revoked);
            revoked.as_mut().enable();
            if let Some(ending) = self.ending(permit, grace) {
                return ending;
            }
            tokio::select! {
                () = revoked => {}
                () = self.clock.sleep_until(permit.expires_at() + grace) => {}
            }
        }
    }

    /// Waits for the next revocation, of whatever it may be.
    pub fn next_revocation(&self) -> Notified<'_> {
        self.registry.next_revocation()
    }

    /// Keeps another rate of demo requests from now on.
    pub fn set_demo_rate(&self, rate: Rate) {
        self.demo.set(rate);
    }

    /// Drops the demo clients that have their full allowance again, and what plans count no more.
    pub fn forget_clients(&self) {
        let now = self.clock.now();
        self.demo.forget(now);
        if let Some(quotas) = &self.quotas {
            quotas.forget(now);
        }
    }
}
