//! Records as they are printed: in JSON with stable names and RFC 3339 times, and as text. No hash and no secret is in them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::failure::Failure;
use super::output::Output;
use super::when::{show_end, show_span, show_use};
use crate::accounts::Account;
use crate::change::Changed;
use crate::client_addr::Networks;
use crate::clock::Timestamp;
use crate::groups::Group;
use crate::ids::{Groups, PlanId, scope};
use crate::keys::{self, Key, KeyPrefix, KeyState};
use crate::licences::{Document, Documents, Licence};
use crate::revocations::{Revocation, Target};
use crate::signing::{SigningKey, SigningState};

fn time<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

fn end<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.collect_str(at),
        None => serializer.serialize_none(),
    }
}

/// A record that can be shown.
pub(super) trait View: Serialize {
    /// Its name in a JSON document.
    const NAME: &'static str;
    /// What it is for people, one field a line.
    fn fields(&self) -> Vec<(&'static str, String)>;
}

/// Prints one record.
pub(super) fn show<V: View>(out: &mut Output<'_>, view: &V) -> Result<(), Failure> {
    if out.json() { out.document(view) } else { out.fields(&view.fields()) }
}

/// Prints what an operation did. `done` says it, `already` says that nothing was to do, `dead` names the tokens that a cut
/// ends.
pub(super) fn changed<T, V: View>(
    out: &mut Output<'_>,
    change: &Changed<T>,
    view: &V,
    done: &str,
    already: &str,
    dead: &str,
) -> Result<(), Failure> {
    match (change.written, change.tokens_cut) {
        (false, _) => out.note(&format!("nothing changed: {already}")),
        (true, true) => out.note(&format!("{done}; {dead} are dead")),
        (true, false) => out.note(&format!("{done}; no token was revoked")),
    }
    if out.json() {
        out.document(&Done { record: Named(view), changed: change.written, tokens_revoked: change.tokens_cut })?;
    }
    Ok(())
}

#[derive(Serialize)]
#[serde(bound = "")]
struct Done<'a, V: View> {
    #[serde(flatten)]
    record: Named<'a, V>,
    changed: bool,
    tokens_revoked: bool,
}

/// A record under its own name.
pub(super) struct Named<'a, V>(pub &'a V);

impl<V: View> Serialize for Named<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(V::NAME, self.0)])
    }
}

/// An account.
#[derive(Serialize)]
pub(super) struct AccountView {
    pub name: String,
    pub title: String,
    pub state: &'static str,
    pub has_password: bool,
    #[serde(serialize_with = "end")]
    pub expires_at: Option<Timestamp>,
    #[serde(serialize_with = "time")]
    pub created_at: Timestamp,
}

impl AccountView {
    pub(super) fn new(account: &Account, now: Timestamp) -> Self {
        let state = match account {
            Account { suspended: true, .. } => "suspended",
            account if !account.is_live(now) => "expired",
            _ => "active",
        };
        Self {
            name: account.name.to_string(),
            title: account.title.clone(),
            state,
            has_password: account.password.is_some(),
            expires_at: account.expires_at,
            created_at: account.created_at,
        }
    }
}

impl View for AccountView {
    const NAME: &'static str = "account";
    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("name", self.name.clone()),
            ("title", self.title.clone()),
            ("state", self.state.into()),
            ("password", if self.has_password { "yes" } else { "no" }.into()),
            ("expires", show_end(self.expires_at)),
            ("created", self.created_at.to_string()),
        ]
    }
}

/// A key; never its secret, never its hash.
#[derive(Serialize)]
pub(super) struct KeyView {
    pub id: String,
    pub name: String,
    pub account: String,
    pub label: String,
    /// `null`: all that the account is licensed for.
    pub groups: Option<Groups>,
    pub state: &'static str,
    #[serde(serialize_with = "end")]
    pub expires_at: Option<Timestamp>,
    #[serde(serialize_with = "time")]
    pub created_at: Timestamp,
    /// `null`: from everywhere.
    pub networks: Option<Networks>,
    /// `null`: none of its own.
    pub plan: Option<PlanId>,
    /// When a token was last got with its present secret, to the minute.
    #[serde(serialize_with = "end")]
    pub last_used_at: Option<Timestamp>,
    /// The secret it had before it was rolled; `null`: it never was.
    pub old: Option<OldView>,
}

/// The secret that a key had before.
#[derive(Serialize)]
pub(super) struct OldView {
    /// `waiting` for the first use of the new one, `ending`, or `ended`.
    pub state: &'static str,
    #[serde(serialize_with = "time")]
    pub rolled_at: Timestamp,
    /// How long it goes on after the first use of the new one, while that is awaited.
    pub grace_seconds: Option<u64>,
    #[serde(serialize_with = "end")]
    pub ends_at: Option<Timestamp>,
    #[serde(serialize_with = "end")]
    pub last_used_at: Option<Timestamp>,
}

impl KeyView {
    pub(super) fn new(key: &Key, prefix: &KeyPrefix, now: Timestamp) -> Self {
        let state = match key.state {
            KeyState::Revoked => "revoked",
            KeyState::Suspended => "suspended",
            KeyState::Active if !key.is_live(now) => "expired",
            KeyState::Active => "active",
        };
        Self {
            id: key.id.to_string(),
            name: prefix.name_of(&key.id),
            account: key.account.to_string(),
            label: key.label.clone(),
            groups: key.groups.clone(),
            state,
            expires_at: key.expires_at,
            created_at: key.created_at,
            networks: key.networks.clone(),
            plan: key.plan.clone(),
            last_used_at: key.used_at,
            old: key.previous.as_ref().map(|half| OldView {
                state: match half.end {
                    _ if !half.is_live(now) || !key.is_live(now) => "ended",
                    keys::End::AfterFirstUse(_) => "waiting",
                    keys::End::At(_) => "ending",
                },
                rolled_at: half.rolled_at,
                grace_seconds: match half.end {
                    keys::End::AfterFirstUse(grace) => Some(grace.as_secs()),
                    keys::End::At(_) => None,
                },
                ends_at: key.old_ends_at(),
                last_used_at: half.used_at,
            }),
        }
    }

    /// Where it is good from.
    pub(super) fn from(&self) -> String {
        self.networks.as_ref().map_or_else(|| "everywhere".to_owned(), Networks::to_string)
    }

    /// The old secret in a word, for a table.
    pub(super) fn old(&self) -> String {
        match &self.old {
            None => "(none)".to_owned(),
            Some(old) if old.state == "waiting" => "works, new unused".to_owned(),
            Some(old) if old.state == "ending" => format!("until {}", show_end(old.ends_at)),
            Some(_) => "ended".to_owned(),
        }
    }

    pub(super) fn reach(&self) -> String {
        self.groups.as_ref().map_or_else(|| "(all licensed)".to_owned(), scope)
    }
}

impl View for KeyView {
    const NAME: &'static str = "key";
    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("key", self.name.clone()),
            ("account", self.account.clone()),
            ("label", self.label.clone()),
            ("groups", self.reach()),
            ("good from", self.from()),
            ("plan", self.plan.as_ref().map_or_else(|| "(none of its own)".to_owned(), PlanId::to_string)),
            ("state", self.state.into()),
            ("expires", show_end(self.expires_at)),
            ("created", self.created_at.to_string()),
            ("last used", show_use(self.last_used_at)),
        ];
        if let Some(old) = &self.old {
            let end = match (old.state, old.grace_seconds) {
                ("waiting", Some(grace)) => {
                    format!("works until {} after the first use of the new one", show_span(Duration::from_secs(grace)))
                }
                ("ending", _) => format!("works until {}", show_end(old.ends_at)),
                _ => old.ends_at.map_or_else(|| "ended with the key".to_owned(), |end| format!("ended {end}")),
            };
            fields.extend([
                ("rolled", old.rolled_at.to_string()),
                ("old secret", end),
                ("old last used", show_use(old.last_used_at)),
            ]);
        }
        fields
    }
}

/// A licence.
#[derive(Serialize)]
pub(super) struct LicenceView {
    pub id: String,
    pub account: String,
    pub groups: Groups,
    pub plan: String,
    /// `null`: any number.
    pub seats: Option<u32>,
    pub trial: bool,
    /// Whether it was installed from a signed document.
    pub from_document: bool,
    /// Why its document is not believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distrust: Option<String>,
    pub state: &'static str,
    #[serde(serialize_with = "time")]
    pub starts_at: Timestamp,
    #[serde(serialize_with = "end")]
    pub ends_at: Option<Timestamp>,
    #[serde(serialize_with = "time")]
    pub created_at: Timestamp,
}

impl LicenceView {
    pub(super) fn new(licence: &Licence, now: Timestamp) -> Self {
        let state = match licence {
            licence if licence.ends_at.is_some_and(|end| end <= now) => "ended",
            Licence { suspended: true, .. } => "suspended",
            licence if now < licence.starts_at => "pending",
            _ => "active",
        };
        Self {
            id: licence.id.to_string(),
            account: licence.account.to_string(),
            groups: licence.groups.clone(),
            plan: licence.plan.clone(),
            seats: licence.seats,
            trial: licence.trial,
            from_document: licence.document.is_some(),
            distrust: None,
            state,
            starts_at: licence.starts_at,
            ends_at: licence.ends_at,
            created_at: licence.created_at,
        }
    }

    /// The licence as it stands: one from a document as that says, or refused.
    pub(super) fn settled(licence: Licence, documents: &Documents, now: Timestamp) -> Self {
        let as_kept = Self::new(&licence, now);
        let set_back = licence.document.is_some() && documents.is_set_back(now);
        let refused = |why: String| Self { state: "refused", distrust: Some(why), ..as_kept };
        match documents.settled(licence) {
            Ok(_) if set_back => {
                refused(format!("the clock shows {now}, and it was {} before; set it right", documents.latest()))
            }
            Ok(licence) => Self::new(&licence, now),
            Err(distrust) => refused(distrust.to_string()),
        }
    }

    /// The plan, and whether it is a trial of it.
    pub(super) fn plan_shown(&self) -> String {
        if self.trial { format!("{} (trial)", self.plan) } else { self.plan.clone() }
    }
}

/// Seats for people.
pub(super) fn show_seats(seats: Option<u32>) -> String {
    seats.map_or_else(|| "any".to_owned(), |seats| seats.to_string())
}

impl View for LicenceView {
    const NAME: &'static str = "licence";
    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("id", self.id.clone()),
            ("account", self.account.clone()),
            ("groups", scope(&self.groups)),
            ("plan", self.plan_shown()),
            ("seats", show_seats(self.seats)),
            ("from", if self.from_document { "a signed document" } else { "granted here" }.into()),
            ("state", self.state.into()),
            ("starts", self.starts_at.to_string()),
            ("ends", show_end(self.ends_at)),
            ("created", self.created_at.to_string()),
        ]
    }
}

/// What a licence document says.
#[derive(Serialize)]
pub(super) struct DocumentView {
    pub id: String,
    pub vendor: String,
    pub licence: String,
    #[serde(serialize_with = "time")]
    pub issued_at: Timestamp,
    pub account: String,
    pub groups: Groups,
    pub plan: String,
    pub seats: Option<u32>,
    pub quotas: BTreeMap<String, u64>,
    #[serde(serialize_with = "time")]
    pub starts_at: Timestamp,
    #[serde(serialize_with = "end")]
    pub ends_at: Option<Timestamp>,
}

impl DocumentView {
    pub(super) fn new(document: &Document) -> Self {
        Self {
            id: document.id.to_string(),
            vendor: document.vendor.clone(),
            licence: document.licence.to_string(),
            issued_at: document.issued_at,
            account: document.account.to_string(),
            groups: document.groups.clone(),
            plan: document.plan.clone(),
            seats: document.seats,
            quotas: document.quotas.clone(),
            starts_at: document.starts_at,
            ends_at: document.ends_at,
        }
    }
}

impl View for DocumentView {
    const NAME: &'static str = "document";
    fn fields(&self) -> Vec<(&'static str, String)> {
        let quotas: Vec<String> = self.quotas.iter().map(|(name, number)| format!("{name}={number}")).collect();
        vec![
            ("document", self.id.clone()),
            ("vendor", self.vendor.clone()),
            ("licence", self.licence.clone()),
            ("issued", self.issued_at.to_string()),
            ("account", self.account.clone()),
            ("groups", scope(&self.groups)),
            ("plan", self.plan.clone()),
            ("seats", show_seats(self.seats)),
            ("quotas", if quotas.is_empty() { "none".into() } else { quotas.join(" ") }),
            ("starts", self.starts_at.to_string()),
            ("ends", show_end(self.ends_at)),
        ]
    }
}

/// A group.
#[derive(Serialize)]
pub(super) struct GroupView {
    pub id: String,
    pub title: String,
    /// `null`: the lifetime that `[tokens]` sets.
    pub token_lifetime_seconds: Option<u64>,
    #[serde(serialize_with = "time")]
    pub created_at: Timestamp,
    #[serde(skip)]
    pub lifetime: String,
}

impl GroupView {
    pub(super) fn new(group: &Group) -> Self {
        Self {
            id: group.id.to_string(),
            title: group.title.clone(),
            token_lifetime_seconds: group.token_lifetime.map(|lifetime| lifetime.as_secs()),
            created_at: group.created_at,
            lifetime: group.token_lifetime.map_or_else(|| "(default)".to_owned(), show_span),
        }
    }
}

impl View for GroupView {
    const NAME: &'static str = "group";
    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("id", self.id.clone()),
            ("title", self.title.clone()),
            ("token lifetime", self.lifetime.clone()),
            ("created", self.created_at.to_string()),
        ]
    }
}

/// A revocation.
#[derive(Serialize)]
pub(super) struct RevocationView {
    /// `token`, `key`, `account` or `all`.
    pub target: &'static str,
    /// The token's `jti`, the key's id or the account's name.
    pub id: Option<String>,
    /// Tokens issued before this instant are dead; `null` is for good.
    #[serde(serialize_with = "end")]
    pub tokens_before: Option<Timestamp>,
    #[serde(serialize_with = "time")]
    pub made_at: Timestamp,
    /// When it may be forgotten, since no token it concerns is alive then.
    #[serde(serialize_with = "time")]
    pub forget_at: Timestamp,
}

impl RevocationView {
    pub(super) fn new(revocation: &Revocation) -> Self {
        let (target, id) = match &revocation.target {
            Target::Token(id) => ("token", Some(id.to_string())),
            Target::Key(id) => ("key", Some(id.to_string())),
            Target::Account(name) => ("account", Some(name.to_string())),
            Target::All => ("all", None),
        };
        let forever = revocation.cutoff == crate::revocations::Cutoff::FOREVER;
        Self {
            target,
            id,
            tokens_before: (!forever).then(|| Timestamp::from_secs(revocation.cutoff.0)),
            made_at: revocation.made_at,
            forget_at: revocation.forget_at,
        }
    }
}

impl View for RevocationView {
    const NAME: &'static str = "revocation";
    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("target", self.target.into()),
            ("id", self.id.clone().unwrap_or_default()),
            ("tokens before", self.before()),
            ("made", self.made_at.to_string()),
        ]
    }
}

impl RevocationView {
    pub(super) fn before(&self) -> String {
        self.tokens_before.map_or_else(|| "(for good)".to_owned(), |at| at.to_string())
    }
}

/// A signing key's public side.
#[derive(Serialize)]
pub(super) struct SigningKeyView {
    pub kid: String,
    pub algorithm: String,
    pub state: &'static str,
    #[serde(serialize_with = "time")]
    pub created_at: Timestamp,
    #[serde(serialize_with = "time")]
    pub activates_at: Timestamp,
    #[serde(serialize_with = "end")]
    pub gone_at: Option<Timestamp>,
    /// The id of the master key under which it is sealed; `null`: it lies in the clear.
    pub sealed_by: Option<String>,
}

impl SigningKeyView {
    pub(super) fn new(key: &SigningKey) -> Self {
        Self {
            kid: key.kid.clone(),
            algorithm: key.algorithm.clone(),
            state: match key.state {
                SigningState::Next => "next",
                SigningState::Active => "active",
                SigningState::Retiring => "retiring",
            },
            created_at: key.created_at,
            activates_at: key.activates_at,
            gone_at: key.gone_at,
            sealed_by: key.sealed_by.clone(),
        }
    }
}
