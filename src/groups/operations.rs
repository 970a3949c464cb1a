//! What an operator can do with groups. The command line calls it, and an admin API can call the same.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Group, GroupStore, demo};
use crate::clock::Clock;
use crate::ids::{AccountName, GroupId, Groups, InvalidId, KeyId, LicenceId, free_text};
use crate::keys::{Key, KeyStore};
use crate::licences::{Licence, LicenceStore};
use crate::persist;
use crate::revocations::{LONGEST_TOKEN, RevocationStore, Target};

/// Why an operation on groups was refused or failed.
#[derive(Debug)]
pub enum Error {
    /// There is no group of that id.
    Unknown(GroupId),
    /// The id is taken.
    Taken(GroupId),
    /// The Demo group is built in.
    Demo,
    /// Licences or keys name the group.
    InUse {
        /// The group.
        group: GroupId,
        /// Licences that grant it.
        licences: Vec<LicenceId>,
        /// Keys that are narrowed to it.
        keys: Vec<KeyId>,
    },
    /// A token lifetime of nothing, or beyond what any token may have.
    Lifetime,
    /// A title that is no single line.
    Text(InvalidId),
    /// The store failed.
    Store(persist::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(id) => write!(f, "there is no group \"{id}\""),
            Self::Taken(id) => write!(f, "there is a group \"{id}\" already; choose another id"),
            Self::Demo => f.write_str(
                "\"demo\" is the built-in Demo group, which is open to anyone; it is set in [demo] of the configuration",
            ),
            Self::InUse { group, licences, keys } => write!(
                f,
                "group \"{group}\" is named by {} and {}; take it out of them first, or force it",
                counted(licences.len(), "licence"),
                counted(keys.len(), "key")
            ),
            Self::Lifetime => {
                write!(f, "a token lifetime lies between 1 second and {} days", LONGEST_TOKEN.as_secs() / 86_400)
            }
            Self::Text(rule) => rule.fmt(f),
            Self::Store(_) => f.write_str("groups could not be read or written"),
        }
    }
}

fn counted(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(source) => Some(source),
            _ => None,
        }
    }
}

impl From<persist::Error> for Error {
    fn from(error: persist::Error) -> Self {
        Self::Store(error)
    }
}

/// Which of `groups` are in the store and which are not; the Demo group never is.
pub(crate) async fn missing(store: &dyn GroupStore, groups: &Groups) -> persist::Result<Option<GroupId>> {
    for id in groups {
        if store.group(id).await?.is_none() {
            return Ok(Some(id.clone()));
        }
    }
    Ok(None)
}

/// What to change of a group; `None` leaves it.
#[derive(Debug, Default)]
pub struct GroupChange {
    /// A new title.
    pub title: Option<String>,
    /// A new token lifetime; `Some(None)` takes the group's own one away.
    pub token_lifetime: Option<Option<Duration>>,
}

/// What the end of a group took with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The group as it was.
    pub group: Group,
    /// Licences that named it and grant nothing by it any more.
    pub licences: Vec<LicenceId>,
    /// Keys that were narrowed to it.
    pub keys: Vec<KeyId>,
    /// Accounts whose tokens issued so far are dead, since they could reach the group.
    pub accounts_cut: Vec<AccountName>,
}

/// The operations on groups.
#[derive(Clone)]
pub struct Operations {
    groups: Arc<dyn GroupStore>,
    licences: Arc<dyn LicenceStore>,
    keys: Arc<dyn KeyStore>,
    revocations: Arc<dyn RevocationStore>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}

impl Operations {
    /// Operations on the groups of `groups`; the other stores are asked who names a group.
    pub fn new(
        groups: Arc<dyn GroupStore>,
        licences: Arc<dyn LicenceStore>,
        keys: Arc<dyn KeyStore>,
        revocations: Arc<dyn RevocationStore>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { groups, licences, keys, revocations, clock }
    }

    /// Creates a group.
    ///
    /// # Errors
    /// When the id is taken or reserved, the title or the lifetime breaks its rule, or the store fails.
    pub async fn create(&self, id: GroupId, title: String, lifetime: Option<Duration>) -> Result<Group, Error> {
        not_demo(&id)?;
        free_text(&title).map_err(Error::Text)?;
        check_lifetime(lifetime)?;
        let group = Group { id, title, token_lifetime: lifetime, created_at: self.clock.now() };
        if self.groups.insert_group(&group).await? { Ok(group) } else { Err(Error::Taken(group.id)) }
    }

    /// All groups by id; the built-in Demo group is not among them.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self) -> Result<Vec<Group>, Error> {
        Ok(self.groups.groups().await?)
    }

    /// One group.
    ///
    /// # Errors
    /// When there is none of that id, or the store fails.
    pub async fn show(&self, id: &GroupId) -> Result<Group, Error> {
        not_demo(id)?;
        self.groups.group(id).await?.ok_or_else(|| Error::Unknown(id.clone()))
    }

    /// Changes a group; tokens issued so far keep the end they were given.
    ///
    /// # Errors
    /// When there is no such group, a value breaks its rule, or the store fails.
    pub async fn set(&self, id: &GroupId, change: GroupChange) -> Result<Group, Error> {
        let mut group = self.show(id).await?;
        if let Some(title) = change.title {
            free_text(&title).map_err(Error::Text)?;
            group.title = title;
        }
        if let Some(lifetime) = change.token_lifetime {
            check_lifetime(lifetime)?;
            group.token_lifetime = lifetime;
        }
        if self.groups.replace_group(&group).await? { Ok(group) } else { Err(Error::Unknown(id.clone())) }
    }

    /// Removes a group. Without `force` it is refused while a licence that has not ended or a key that is not revoked
    /// names it. A licence that is granted meanwhile is harmless: a name without a group grants nothing.
    ///
    /// # Errors
    /// When there is no such group, it is in use, or the store fails.
    pub async fn delete(&self, id: &GroupId, force: bool) -> Result<Deleted, Error> {
        let group = self.show(id).await?;
        let now = self.clock.now();
        let licences: Vec<Licence> = self
            .licences
            .licences(None)
            .await?
            .into_iter()
            .filter(|licence| licence.groups.contains(id) && licence.ends_at.is_none_or(|end| now < end))
            .collect();
        let keys: Vec<Key> = self
            .keys
            .keys(None)
            .await?
            .into_iter()
            .filter(|key| key.groups.as_ref().is_some_and(|groups| groups.contains(id)))
            .filter(|key| key.state != crate::keys::KeyState::Revoked)
            .collect();
        let licence_ids: Vec<LicenceId> = licences.iter().map(|licence| licence.id).collect();
        let key_ids: Vec<KeyId> = keys.into_iter().map(|key| key.id).collect();
        let in_use = !licence_ids.is_empty() || !key_ids.is_empty();
        if in_use && !force {
            return Err(Error::InUse { group: group.id, licences: licence_ids, keys: key_ids });
        }
        if !self.groups.delete_group(id).await? {
            return Err(Error::Unknown(id.clone()));
        }
        // After the group is gone no new token can name it; those that do are ended with their account's others.
        let holders: BTreeSet<AccountName> =
            licences.into_iter().filter(|licence| licence.is_live(now)).map(|licence| licence.account).collect();
        for account in &holders {
            self.revocations.revoke(&Target::Account(account.clone()), self.clock.now(), false).await?;
        }
        Ok(Deleted { group, licences: licence_ids, keys: key_ids, accounts_cut: holders.into_iter().collect() })
    }
}

fn not_demo(id: &GroupId) -> Result<(), Error> {
    if id.as_str() == demo::DEMO { Err(Error::Demo) } else { Ok(()) }
}

fn check_lifetime(lifetime: Option<Duration>) -> Result<(), Error> {
    match lifetime {
        Some(lifetime) if lifetime < Duration::from_secs(1) || lifetime > LONGEST_TOKEN => Err(Error::Lifetime),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{Account, AccountStore};
    use crate::clock::{ManualClock, Timestamp};
    use crate::credentials::PasswordHash;
    use crate::store::MemoryStore;

    fn id(text: &str) -> GroupId {
        text.parse().expect("a group id")
    }

    fn account() -> AccountName {
        "acme".parse().expect("a name")
    }

    async fn office() -> (Arc<MemoryStore>, Operations, Timestamp) {
        let store = Arc::new(MemoryStore::default());
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_800_000_000)));
        let now = clock.now();
        let acme = Account {
            name: account(),
            title: String::new(),
            password: None,
            suspended: false,
            expires_at: None,
            created_at: now,
        };
        assert!(store.insert_account(&acme).await.expect("a store"));
        let groups = Operations::new(store.clone(), store.clone(), store.clone(), store.clone(), clock);
        (store, groups, now)
    }

    async fn license(store: &MemoryStore, ends_at: Option<Timestamp>, now: Timestamp) -> LicenceId {
        let licence = Licence {
            id: LicenceId::random(),
            account: account(),
            groups: Groups::from([id("orders")]),
            plan: "standard".into(),
            starts_at: Timestamp::default(),
            ends_at,
            suspended: false,
            seats: None,
            trial: false,
            document: None,
            quotas: [].into(),
            created_at: now,
        };
        assert!(store.insert_licence(&licence).await.expect("a store"));
        licence.id
    }

    #[tokio::test]
    async fn the_demo_group_and_taken_ids_are_refused() {
        let (_, groups, _) = office().await;
        let create = async |name: &str, lifetime| groups.create(id(name), "Orders".into(), lifetime).await;
        create("orders", None).await.expect("a free id");
        assert!(matches!(create("orders", None).await, Err(Error::Taken(_))));
        assert!(matches!(create("demo", None).await, Err(Error::Demo)));
        assert!(matches!(groups.delete(&id("demo"), true).await, Err(Error::Demo)));
        for wrong in [Duration::ZERO, LONGEST_TOKEN + Duration::from_secs(1)] {
            assert!(matches!(create("other", Some(wrong)).await, Err(Error::Lifetime)));
        }
    }

    #[tokio::test]
    async fn a_change_leaves_what_it_does_not_name() {
        let (_, groups, _) = office().await;
        groups.create(id("orders"), "Orders".into(), None).await.expect("a group");
        let hour = Some(Duration::from_secs(3600));
        let lifetime = GroupChange { token_lifetime: Some(hour), ..GroupChange::default() };
        let group = groups.set(&id("orders"), lifetime).await.expect("a group");
        assert_eq!((group.title.as_str(), group.token_lifetime), ("Orders", hour));
        let title = GroupChange { title: Some("All orders".into()), ..GroupChange::default() };
        let group = groups.set(&id("orders"), title).await.expect("a group");
        assert_eq!((group.title.as_str(), group.token_lifetime), ("All orders", hour));
        assert!(matches!(groups.set(&id("none"), GroupChange::default()).await, Err(Error::Unknown(_))));
    }

    #[tokio::test]
    async fn a_group_in_use_is_deleted_by_force_alone_and_cuts_its_holders() {
        let (store, groups, now) = office().await;
        groups.create(id("orders"), String::new(), None).await.expect("a group");
        let licence = license(&store, None, now).await;
        license(&store, Some(now), now).await;
        let key = Key {
            groups: Some(Groups::from([id("orders")])),
            ..Key::new(KeyId::random(), account(), PasswordHash::from_phc("$".into()), now)
        };
        assert!(store.insert_key(&key).await.expect("a store"));

        match groups.delete(&id("orders"), false).await {
            Err(Error::InUse { licences, keys, .. }) => {
                assert_eq!((licences, keys), (vec![licence], vec![key.id]), "one licence has ended");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(store.revocations(now).await.expect("a store"), []);
        let deleted = groups.delete(&id("orders"), true).await.expect("forced");
        assert_eq!(
            (deleted.licences, deleted.keys, deleted.accounts_cut),
            (vec![licence], vec![key.id], vec![account()])
        );
        let targets: Vec<Target> =
            store.revocations(now).await.expect("a store").into_iter().map(|revocation| revocation.target).collect();
        assert_eq!(targets, [Target::Account(account())]);
    }

    #[tokio::test]
    async fn an_unused_group_is_deleted_without_force() {
        let (store, groups, now) = office().await;
        groups.create(id("orders"), String::new(), None).await.expect("a group");
        license(&store, Some(now), now).await;
        let deleted = groups.delete(&id("orders"), false).await.expect("an ended licence holds nothing");
        assert!(deleted.accounts_cut.is_empty() && deleted.licences.is_empty());
        assert!(matches!(groups.show(&id("orders")).await, Err(Error::Unknown(_))));
    }
}
