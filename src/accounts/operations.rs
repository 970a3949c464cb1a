//! What an operator can do with accounts. The command line calls it, and an admin API can call the same.

use std::fmt;
use std::sync::Arc;

use super::{Account, AccountStore};
use crate::change::{Changed, Verdict, cut_for_end};
use crate::clock::{Clock, Timestamp};
use crate::credentials::PasswordHash;
use crate::groups::demo;
use crate::ids::{AccountName, InvalidId, free_text};
use crate::keys::KeyPrefix;
use crate::persist::{self, Cut, Update};
use crate::secret::Secret;

/// Why an operation on accounts was refused or failed.
#[derive(Debug)]
pub enum Error {
    /// There is no account of that name.
    Unknown(AccountName),
    /// The name is taken.
    Taken(AccountName),
    /// The name belongs to the Demo group.
    Demo,
    /// The name reads like an API key of this installation.
    LooksLikeKey {
        /// What no account may begin with.
        prefix: String,
    },
    /// An end that lies in the past.
    PastEnd(Timestamp),
    /// A title that is no single line.
    Text(InvalidId),
    /// The password has fewer than [`NewPassword::SHORTEST`] characters.
    PasswordTooShort,
    /// The password has more than [`NewPassword::LONGEST`] bytes.
    PasswordTooLong,
    /// The password has control characters, which Basic credentials cannot carry (RFC 7617 §2).
    PasswordControl,
    /// The store failed.
    Store(persist::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "there is no account \"{name}\""),
            Self::Taken(name) => write!(f, "there is an account \"{name}\" already; choose another name"),
            Self::Demo => {
                f.write_str("\"demo\" is the built-in account of the Demo group and cannot be created or changed")
            }
            Self::LooksLikeKey { prefix } => write!(
                f,
                "an account name may not begin with \"{prefix}\": it would be taken for an API key; choose another name"
            ),
            Self::PastEnd(at) => write!(f, "the end {at} is in the past; to shut an account out now, suspend it"),
            Self::Text(rule) => rule.fmt(f),
            Self::PasswordTooShort => write!(
                f,
                "the password is too short: at least {} characters are needed, {} or more are good",
                NewPassword::SHORTEST,
                NewPassword::GOOD
            ),
            Self::PasswordTooLong => {
                write!(f, "the password is too long: at most {} bytes are allowed", NewPassword::LONGEST)
            }
            Self::PasswordControl => f.write_str(
                "the password has control characters, which HTTP Basic credentials cannot carry; leave them out",
            ),
            Self::Store(_) => f.write_str("accounts could not be read or written"),
        }
    }
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

/// A password that keeps the rules, not yet hashed.
#[derive(Debug)]
pub struct NewPassword(Secret<String>);

impl NewPassword {
    /// Fewer characters are refused.
    pub const SHORTEST: usize = 8;
    /// From this many characters on nothing needs to be said.
    pub const GOOD: usize = 12;
    /// More bytes are refused, so that nobody can have us hash megabytes.
    pub const LONGEST: usize = 1024;

    /// Checks the rules.
    ///
    /// # Errors
    /// One of the password variants of [`Error`].
    pub fn parse(text: Secret<String>) -> Result<Self, Error> {
        let password = text.expose();
        if password.len() > Self::LONGEST {
            return Err(Error::PasswordTooLong);
        }
        if password.chars().any(char::is_control) {
            return Err(Error::PasswordControl);
        }
        if password.chars().count() < Self::SHORTEST {
            return Err(Error::PasswordTooShort);
        }
        Ok(Self(text))
    }

    /// Whether a longer one would be wise.
    pub fn is_weak(&self) -> bool {
        self.0.expose().chars().count() < Self::GOOD
    }

    /// The password itself, to be hashed.
    pub fn secret(&self) -> &Secret<String> {
        &self.0
    }
}

/// What a new account is made of.
#[derive(Debug)]
pub struct NewAccount {
    /// Its name.
    pub name: AccountName,
    /// Free text for the operator.
    pub title: String,
    /// The hash of a [`NewPassword`], if it shall have one.
    pub password: Option<PasswordHash>,
    /// From this instant on its credentials are refused.
    pub expires_at: Option<Timestamp>,
}

/// The operations on accounts.
#[derive(Clone)]
pub struct Operations {
    store: Arc<dyn AccountStore>,
    clock: Arc<dyn Clock>,
    prefix: KeyPrefix,
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}

impl Operations {
    /// Operations on the accounts of `store`.
    pub fn new(store: Arc<dyn AccountStore>, clock: Arc<dyn Clock>, prefix: KeyPrefix) -> Self {
        Self { store, clock, prefix }
    }

    /// Creates an account.
    ///
    /// # Errors
    /// When the name is taken or reserved, the title is no single line, the end is past, or the store fails.
    pub async fn create(&self, new: NewAccount) -> Result<Account, Error> {
        not_demo(&new.name)?;
        if self.prefix.claims(new.name.as_str()) {
            return Err(Error::LooksLikeKey { prefix: format!("{}_", self.prefix.as_str()) });
        }
        free_text(&new.title).map_err(Error::Text)?;
        let now = self.clock.now();
        not_past(new.expires_at, now)?;
        let account = Account {
            name: new.name,
            title: new.title,
            password: new.password,
            suspended: false,
            expires_at: new.expires_at,
            created_at: now,
        };
        if self.store.insert_account(&account).await? { Ok(account) } else { Err(Error::Taken(account.name)) }
    }

    /// All accounts by name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self) -> Result<Vec<Account>, Error> {
        Ok(self.store.accounts().await?)
    }

    /// One account.
    ///
    /// # Errors
    /// When there is none of that name, or the store fails.
    pub async fn show(&self, name: &AccountName) -> Result<Account, Error> {
        self.store.account(name).await?.ok_or_else(|| Error::Unknown(name.clone()))
    }

    /// Replaces the password; tokens got with the old one die, and so do those got with the account's keys, since a
    /// cut-off concerns the whole account.
    ///
    /// # Errors
    /// When there is no such account, or the store fails.
    pub async fn set_password(&self, name: &AccountName, hash: &PasswordHash) -> Result<Changed<Account>, Error> {
        let set = |account, now| Ok(Update::Write(Account { password: Some(hash.clone()), ..account }, Cut::Now(now)));
        self.update(name, set).await
    }

    /// Takes the password away; its keys remain. Tokens die as in [`Self::set_password`].
    ///
    /// # Errors
    /// When there is no such account, or the store fails.
    pub async fn clear_password(&self, name: &AccountName) -> Result<Changed<Account>, Error> {
        self.update(name, |account, now| {
            Ok(match account.password {
                None => Update::Keep,
                Some(_) => Update::Write(Account { password: None, ..account }, Cut::Now(now)),
            })
        })
        .await
    }

    /// Refuses the account's credentials until it is resumed; its tokens die.
    ///
    /// # Errors
    /// When there is no such account, or the store fails.
    pub async fn suspend(&self, name: &AccountName) -> Result<Changed<Account>, Error> {
        self.update(name, |account, now| {
            Ok(if account.suspended {
                Update::Keep
            } else {
                Update::Write(Account { suspended: true, ..account }, Cut::Now(now))
            })
        })
        .await
    }

    /// Ends a suspension. Tokens that died stay dead.
    ///
    /// # Errors
    /// When there is no such account, or the store fails.
    pub async fn resume(&self, name: &AccountName) -> Result<Changed<Account>, Error> {
        self.update(name, |account, _| {
            Ok(if account.suspended {
                Update::Write(Account { suspended: false, ..account }, Cut::No)
            } else {
                Update::Keep
            })
        })
        .await
    }

    /// Moves the account's end; `None` takes it away. An earlier end cuts tokens where one could outlive it.
    ///
    /// # Errors
    /// When the end is past, there is no such account, or the store fails.
    pub async fn set_expiry(&self, name: &AccountName, end: Option<Timestamp>) -> Result<Changed<Account>, Error> {
        self.update(name, |account, now| {
            not_past(end, now)?;
            if account.expires_at == end {
                return Ok(Update::Keep);
            }
            let cut = cut_for_end(account.expires_at, end, now);
            Ok(Update::Write(Account { expires_at: end, ..account }, cut))
        })
        .await
    }

    /// Replaces the title.
    ///
    /// # Errors
    /// When it is no single line, there is no such account, or the store fails.
    pub async fn set_title(&self, name: &AccountName, title: &str) -> Result<Changed<Account>, Error> {
        free_text(title).map_err(Error::Text)?;
        self.update(name, |account, _| {
            Ok(if account.title == title {
                Update::Keep
            } else {
                Update::Write(Account { title: title.to_owned(), ..account }, Cut::No)
            })
        })
        .await
    }

    /// `now` is read inside the atomic update: a cut that waited for another writer must not be older than the change.
    async fn update(
        &self,
        name: &AccountName,
        change: impl Fn(Account, Timestamp) -> Result<Update<Account>, Error> + Send + Sync,
    ) -> Result<Changed<Account>, Error> {
        not_demo(name)?;
        let verdict = Verdict::default();
        let decide = |account| verdict.note(change(account, self.clock.now()));
        let updated = self.store.update_account(name, &decide).await?;
        if verdict.is_late(self.clock.now()) {
            let again = |account| Update::Write(account, Cut::Now(self.clock.now()));
            self.store.update_account(name, &again).await?;
        }
        verdict.of(updated)?.ok_or_else(|| Error::Unknown(name.clone()))
    }
}

fn not_demo(name: &AccountName) -> Result<(), Error> {
    if name.as_str() == demo::DEMO { Err(Error::Demo) } else { Ok(()) }
}

fn not_past(end: Option<Timestamp>, now: Timestamp) -> Result<(), Error> {
    match end {
        Some(end) if end <= now => Err(Error::PastEnd(end)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::revocations::{RevocationStore, Target};
    use crate::store::MemoryStore;
    use std::time::Duration;

    const DAY: Duration = Duration::from_secs(86_400);

    struct Office {
        store: Arc<MemoryStore>,
        clock: Arc<ManualClock>,
        accounts: Operations,
    }

    impl Office {
        fn new() -> Self {
            let store = Arc::new(MemoryStore::default());
            let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_800_000_000)));
            let accounts = Operations::new(store.clone(), clock.clone(), KeyPrefix::default());
            Self { store, clock, accounts }
        }

        async fn create(&self, name: &str) -> Result<Account, Error> {
            let name = name.parse().expect("a name");
            self.accounts.create(NewAccount { name, title: String::new(), password: None, expires_at: None }).await
        }

        /// How often the account's tokens were cut so far: each cut moves the cut-off.
        async fn cutoff(&self) -> Option<u64> {
            let revocations = self.store.revocations(self.clock.now()).await.expect("a store");
            revocations.iter().find(|r| r.target == Target::Account(acme())).map(|r| r.cutoff.0)
        }
    }

    fn acme() -> AccountName {
        "acme".parse().expect("a name")
    }

    fn hash(phc: &str) -> PasswordHash {
        PasswordHash::from_phc(phc.into())
    }

    #[tokio::test]
    async fn reserved_taken_and_key_like_names_are_refused() {
        let office = Office::new();
        office.create("acme").await.expect("a free name");
        assert!(matches!(office.create("acme").await, Err(Error::Taken(_))));
        assert!(matches!(office.create("demo").await, Err(Error::Demo)));
        assert!(matches!(office.create("kb_acme").await, Err(Error::LooksLikeKey { .. })));
        office.create("kbacme").await.expect("no underscore, no key");
        assert!(matches!(office.accounts.suspend(&"demo".parse().unwrap()).await, Err(Error::Demo)));
        assert!(matches!(office.accounts.suspend(&"nobody".parse().unwrap()).await, Err(Error::Unknown(_))));
    }

    #[tokio::test]
    async fn titles_stay_on_their_line_and_ends_in_the_future() {
        let office = Office::new();
        let now = office.clock.now();
        let new =
            |title: &str, expires_at| NewAccount { name: acme(), title: title.into(), password: None, expires_at };
        assert!(matches!(office.accounts.create(new("a\nb", None)).await, Err(Error::Text(_))));
        assert!(matches!(office.accounts.create(new("", Some(now))).await, Err(Error::PastEnd(_))));
        office.accounts.create(new("Acme", Some(now + DAY))).await.expect("an end ahead");
        assert!(matches!(office.accounts.set_title(&acme(), "\u{1b}[2J").await, Err(Error::Text(_))));
        let changed = office.accounts.set_title(&acme(), "Acme GmbH").await.expect("a line");
        assert_eq!((changed.record.title.as_str(), changed.written, changed.tokens_cut), ("Acme GmbH", true, false));
        assert!(!office.accounts.set_title(&acme(), "Acme GmbH").await.expect("a line").written);
    }

    #[tokio::test]
    async fn a_new_password_and_the_end_of_one_cut_tokens() {
        let office = Office::new();
        office.create("acme").await.expect("an account");
        assert!(!office.accounts.clear_password(&acme()).await.expect("nothing to clear").written);
        assert_eq!(office.cutoff().await, None);
        let set = office.accounts.set_password(&acme(), &hash("$one")).await.expect("an account");
        assert!(set.tokens_cut && set.record.password == Some(hash("$one")));
        let first = office.cutoff().await.expect("a cut");
        let cleared = office.accounts.clear_password(&acme()).await.expect("an account");
        assert!(cleared.tokens_cut && cleared.record.password.is_none());
        assert!(office.cutoff().await.expect("a cut") > first);
    }

    #[tokio::test]
    async fn suspending_cuts_tokens_once_and_resuming_cuts_none() {
        let office = Office::new();
        office.create("acme").await.expect("an account");
        let suspended = office.accounts.suspend(&acme()).await.expect("an account");
        assert!(suspended.tokens_cut && !suspended.record.is_live(office.clock.now()));
        let cutoff = office.cutoff().await;
        assert!(!office.accounts.suspend(&acme()).await.expect("an account").written);
        let resumed = office.accounts.resume(&acme()).await.expect("an account");
        assert!(resumed.written && !resumed.tokens_cut && resumed.record.is_live(office.clock.now()));
        assert!(!office.accounts.resume(&acme()).await.expect("an account").written);
        assert_eq!(office.cutoff().await, cutoff);
    }

    #[tokio::test]
    async fn an_earlier_end_cuts_tokens_and_a_later_one_does_not() {
        let office = Office::new();
        office.create("acme").await.expect("an account");
        let now = office.clock.now();
        let cut = async |end| office.accounts.set_expiry(&acme(), end).await.expect("an account").tokens_cut;
        assert!(cut(Some(now + DAY)).await);
        assert!(!cut(Some(now + 2 * DAY)).await);
        assert!(cut(Some(now + DAY)).await);
        assert!(!cut(None).await);
        assert!(matches!(office.accounts.set_expiry(&acme(), Some(now)).await, Err(Error::PastEnd(_))));
        assert_eq!(
            office.accounts.show(&acme()).await.expect("an account").expires_at,
            None,
            "a refusal changes nothing"
        );
    }

    #[test]
    fn passwords_keep_their_rules() {
        let parse = |text: &str| NewPassword::parse(Secret::from(text));
        assert!(matches!(parse("seven77"), Err(Error::PasswordTooShort)));
        assert!(matches!(parse(&"x".repeat(1025)), Err(Error::PasswordTooLong)));
        assert!(matches!(parse("tab\tinside"), Err(Error::PasswordControl)));
        assert!(parse("eight888").expect("long enough").is_weak());
        assert!(parse("pässwörter").is_ok_and(|password| password.is_weak()));
        assert!(!parse("twelve and more: fine").expect("good").is_weak());
        assert!(!format!("{:?}", parse("open sesame!")).contains("sesame"));
    }
}
