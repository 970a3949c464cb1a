//! Repositories of container images: what a credential may do in which, and the token that tells a registry so.
//!
//! Implements the token server's part of the distribution project's token specification (scope, `access` claim, token
//! format), with rules by group. Knows nothing of HTTP and of how a credential is proven.

mod issue;
mod name;
mod rules;
mod scope;

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::clock::Timestamp;
use crate::ids::GroupId;
use crate::signing::{self, Algorithm};
use crate::tokens::{Grant, Issued};

pub use issue::{Issuer, LIFETIME};
pub use name::{InvalidName, NamePattern};
pub use rules::{Access, Action, Rule};
pub use scope::{InvalidScope, Resource, read_scopes};

/// What a token's header names its signing key by, for the registry to find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyName {
    /// `kid` as the library libtrust makes it: what the registries of distribution 2 look for among their certificates.
    #[default]
    Libtrust,
    /// `kid` as RFC 7638 thumbprint, the one in our JWK Set: for those of distribution 3.
    Thumbprint,
    /// `x5c` (RFC 7515 §4.1.6): the key's certificate itself.
    X5c,
}

impl KeyName {
    /// Whether a key for `algorithm` has such a name. libtrust knows no EdDSA, and a certificate that is made anew for
    /// every process is the same one only where signatures are.
    pub fn fits(self, algorithm: Algorithm) -> bool {
        match self {
            Self::Libtrust => algorithm != Algorithm::EdDsa,
            Self::Thumbprint => true,
            Self::X5c => algorithm == Algorithm::Rs256,
        }
    }
}

/// Settings of `[image_registry]` and `[[repositories]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The registry's name: what it calls its `service`, and the `aud` of its tokens.
    pub service: String,
    /// How tokens name their signing key.
    pub key_name: KeyName,
    /// Who may list all repositories of the registry.
    pub catalog_groups: Vec<GroupId>,
    /// Who may do what in which repository. What no rule allows is not allowed.
    pub rules: Vec<Rule>,
}

/// The repositories of one registry, as they are in force.
#[derive(Debug)]
pub struct Repositories {
    settings: ArcSwap<Settings>,
    issuer: Issuer,
}

/// An access token for a registry, and what it allows.
#[derive(Debug)]
pub struct RegistryToken {
    /// The token.
    pub issued: Issued,
    /// Its access.
    pub access: Vec<Access>,
}

impl Repositories {
    /// Those of `settings`, whose tokens `issuer` signs.
    pub fn new(settings: &Settings, issuer: Issuer) -> Self {
        Self { settings: ArcSwap::from_pointee(settings.clone()), issuer }
    }

    /// Puts other settings into force, but for the registry's name: that is who its tokens are for, and is described to clients.
    pub fn set(&self, settings: &Settings) {
        let service = self.settings.load().service.clone();
        self.settings.store(Arc::new(Settings { service, ..settings.clone() }));
    }

    /// Whether this is the registry's name.
    pub fn is_service(&self, name: &str) -> bool {
        self.settings.load().service == name
    }

    /// Issues a token for what `grant` may have of what is asked for; that may be nothing. `None` when the grant ends before
    /// the present second does.
    ///
    /// # Errors
    /// As [`Issuer::issue`].
    pub fn issue(
        &self,
        grant: &Grant,
        asked: &[Resource],
        now: Timestamp,
    ) -> Result<Option<RegistryToken>, signing::Error> {
        let settings = self.settings.load();
        let access = rules::access(&settings, grant, asked);
        let issued = self.issuer.issue(&settings, grant, &access, now)?;
        Ok(issued.map(|issued| RegistryToken { issued, access }))
    }
}
