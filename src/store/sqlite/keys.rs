//! The SQL of API keys.

use std::collections::{BTreeSet, HashSet};
use std::sync::LazyLock;

use async_trait::async_trait;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteRow;

use super::many::{AT_ONCE, bind_all, places};
use super::row::{Columns, duration, millis, word_of};
use super::{Replaced, Sql, SqliteStore, Stored, Write, sql};
use crate::clock::Timestamp;
use crate::credentials::PasswordHash;
use crate::ids::{AccountName, KeyId, scope};
use crate::keys::{Added, End, Fits, Half, Key, KeyState, KeyStore, SeatedChange, Seats, Stamp};
use crate::licences::LicenceStore;
use crate::licences::seats::Seating;
use crate::persist::{Inserted, Result, Update, Updated};
use crate::store::rules::Record;

const STATES: &[(&str, KeyState)] =
    &[("active", KeyState::Active), ("suspended", KeyState::Suspended), ("revoked", KeyState::Revoked)];

impl Stored for Key {
    const FIND: &'static str = "SELECT * FROM keys WHERE id = $1";

    fn read(row: &SqliteRow) -> Result<Self> {
        let columns = Columns::of(row, "keys", "id");
        Ok(Self {
            id: columns.parsed("id")?,
            account: columns.parsed("account")?,
            label: columns.get("label")?,
            hash: PasswordHash::from_phc(columns.get("hash")?),
            groups: columns.maybe_groups("groups")?,
            state: columns.word("state", STATES)?,
            expires_at: columns.maybe_time("expires_at")?,
            created_at: columns.time("created_at")?,
            networks: columns.get::<Option<&str>>("networks")?.map(|_| columns.parsed("networks")).transpose()?,
            plan: columns.get::<Option<&str>>("plan")?.map(|_| columns.parsed("plan")).transpose()?,
            used_at: columns.maybe_time("used_at")?,
            previous: previous(&columns)?,
        })
    }
}

/// The secret that a key had before it was rolled.
fn previous(columns: &Columns<'_>) -> Result<Option<Half>> {
    let Some(rolled_at) = columns.maybe_time("rolled_at")? else { return Ok(None) };
    let end = match (columns.maybe_duration("old_grace")?, columns.maybe_time("old_ends_at")?) {
        (Some(grace), None) => End::AfterFirstUse(grace),
        (None, Some(end)) => End::At(end),
        _ => return Err(columns.corrupt("old_ends_at", "an old secret has either a grace or an end")),
    };
    Ok(Some(Half {
        hash: columns.get::<Option<String>>("old_hash")?.map(PasswordHash::from_phc),
        rolled_at,
        end,
        used_at: columns.maybe_time("old_used_at")?,
    }))
}

/// The fields that may change, from the second parameter on.
fn bind_changing(query: Sql, key: &Key) -> Sql {
    let half = key.previous.as_ref();
    let grace = half.and_then(|half| match half.end {
        End::AfterFirstUse(grace) => Some(duration(grace)),
        End::At(_) => None,
    });
    query
        .bind(key.label.as_str())
        .bind(key.hash.as_phc())
        .bind(key.groups.as_ref().map(scope))
        .bind(word_of(&key.state, STATES))
        .bind(key.expires_at.map(millis))
        .bind(key.networks.as_ref().map(ToString::to_string))
        .bind(key.used_at.map(millis))
        .bind(half.map(|half| millis(half.rolled_at)))
        .bind(half.and_then(|half| half.hash.as_ref()).map(|hash| hash.as_phc().to_owned()))
        .bind(grace)
        .bind(half.and_then(Half::ends_at).map(millis))
        .bind(half.and_then(|half| half.used_at).map(millis))
        .bind(key.plan.as_ref().map(|plan| plan.as_str().to_owned()))
}

/// So many keys are stamped in one transaction: others that write need not wait for all.
const STAMPED_AT_ONCE: usize = 1000;

impl Replaced for Key {
    fn replace(&self) -> Sql {
        let update = sql("UPDATE keys SET label = $2, hash = $3, groups = $4, state = $5, expires_at = $6, \
                          networks = $7, used_at = $8, rolled_at = $9, old_hash = $10, old_grace = $11, \
                          old_ends_at = $12, old_used_at = $13, plan = $14 WHERE id = $1");
        bind_changing(update.bind(self.id.as_str()), self)
    }
}

/// The columns of a key, in the order of [`bind_key`].
const COLUMNS: &str = "id, label, hash, groups, state, expires_at, networks, used_at, rolled_at, old_hash, old_grace, \
                       old_ends_at, old_used_at, plan, account, created_at";
const COLUMN_COUNT: usize = 16;

fn bind_key(query: Sql, key: &Key) -> Sql {
    bind_changing(query.bind(key.id.as_str()), key).bind(key.account.as_str()).bind(millis(key.created_at))
}

/// Adds keys, of those whose ids are not taken, and returns the ids.
static INSERT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT INTO keys ({COLUMNS}) SELECT * FROM (VALUES {}) WHERE column1 IS NOT NULL \
         ON CONFLICT (id) DO NOTHING RETURNING id",
        places(COLUMN_COUNT)
    )
});

/// Adds a key, where its id is not taken.
fn insert(key: &Key) -> Sql {
    static INSERT_ONE: LazyLock<String> = LazyLock::new(|| {
        let places = vec!["?"; COLUMN_COUNT].join(", ");
        format!("INSERT INTO keys ({COLUMNS}) VALUES ({places}) ON CONFLICT (id) DO NOTHING")
    });
    bind_key(sqlx::query(AssertSqlSafe(INSERT_ONE.as_str())), key)
}

/// Puts stamps on keys, at most one on each, as [`Stamp::put_on`] has it.
static STAMP: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH new (id, old, rolled, at) AS (VALUES {}) UPDATE keys SET \
         used_at = CASE WHEN NOT old AND rolled_at IS rolled THEN MAX(COALESCE(used_at, 0), at) ELSE used_at END, \
         old_used_at = CASE WHEN old AND rolled_at = rolled OR NOT old AND rolled_at > COALESCE(rolled, -1) \
         THEN MAX(COALESCE(old_used_at, 0), at) ELSE old_used_at END FROM new WHERE keys.id = new.id",
        places(4)
    )
});

fn bind_stamp(query: Sql, stamp: &Stamp) -> Sql {
    query.bind(stamp.key.as_str().to_owned()).bind(stamp.old).bind(stamp.rolled_at.map(millis)).bind(millis(stamp.at))
}

/// How many of these stamps, from the first on, are of keys that differ.
fn of_different_keys(stamps: &[Stamp]) -> usize {
    let mut keys = HashSet::new();
    stamps.iter().take(AT_ONCE).take_while(|stamp| keys.insert(stamp.key)).count()
}

/// Keys whose old secret has ended. Without the sign the order of the ids would be read from the table, all of it, and each
/// gateway asks this once a second.
pub(super) const TO_FINISH: &str = "SELECT id FROM keys WHERE old_hash IS NOT NULL AND old_ends_at <= $1 ORDER BY +id";

/// How many keys of an account hold a seat, as [`Key::holds_seat`] has it.
fn held(account: &AccountName, now: Timestamp) -> Sql {
    sql("SELECT COUNT(*) AS held FROM keys WHERE account = $1 AND state <> 'revoked' \
         AND (expires_at IS NULL OR expires_at > $2)")
    .bind(account.as_str().to_owned())
    .bind(millis(now))
}

fn held_of(row: Option<&SqliteRow>) -> Result<u64> {
    row.map_or(Ok(0), |row| Columns::of(row, "keys", "held").count("held"))
}

impl Write {
    /// The seats of an account, as they are inside this transaction.
    async fn seating(&mut self, name: &AccountName, now: Timestamp) -> Result<Seating> {
        Ok(Seating { licences: self.licences_of(name).await?, held: self.held(name, now).await? })
    }

    async fn held(&mut self, name: &AccountName, now: Timestamp) -> Result<u64> {
        held_of(self.row(held(name, now)).await?.as_ref())
    }
}

#[async_trait]
impl KeyStore for SqliteStore {
    async fn insert_key(&self, key: &Key) -> Result<bool> {
        self.change_one(insert(key), &key.change()).await
    }

    async fn insert_key_if(&self, key: &Key, now: Timestamp, fits: &Fits<'_>) -> Result<Inserted> {
        let mut write = self.write().await?;
        let seating = write.seating(&key.account, now).await?;
        if !fits(&seating) {
            write.abandon().await?;
            return Ok(Inserted::Refused);
        }
        write.insert(insert(key), &key.change()).await
    }

    async fn insert_keys(&self, keys: &[Key], now: Timestamp, seats: &Seats<'_>) -> Result<Added> {
        let mut write = self.write().await?;
        let (mut new, mut seated) = (0, BTreeSet::new());
        for some in keys.chunks(AT_ONCE) {
            let insert = bind_all(sqlx::query(AssertSqlSafe(INSERT.as_str())), some, COLUMN_COUNT, bind_key);
            let rows = write.rows(insert).await?;
            let inserted: Result<HashSet<KeyId>> =
                rows.iter().map(|row| Columns::of(row, "keys", "id").parsed("id")).collect();
            let inserted = inserted?;
            new += inserted.len();
            let held = some.iter().filter(|key| inserted.contains(&key.id) && key.holds_seat(now));
            seated.extend(held.map(|key| &key.account));
        }
        for account in seated {
            let licences = write.licences_of(account).await?;
            // Counting looks at each key of the account, and most accounts have no limit.
            let Some(most) = seats(&licences) else { continue };
            let held = write.held(account, now).await?;
            if most < held {
                write.abandon().await?;
                return Ok(Added::NoSeats(account.clone(), Seating { licences, held }));
            }
        }
        write.commit().await?;
        Ok(Added::Keys(new))
    }

    async fn seating(&self, account: &AccountName, now: Timestamp) -> Result<Seating> {
        let held = held_of(self.row(held(account, now)).await?.as_ref())?;
        Ok(Seating { licences: self.licences(Some(account)).await?, held })
    }

    async fn key(&self, id: &KeyId) -> Result<Option<Key>> {
        self.find(id.as_str()).await
    }

    async fn keys(&self, of: Option<&AccountName>) -> Result<Vec<Key>> {
        let query = match of {
            Some(name) => sql("SELECT * FROM keys WHERE account = $1 ORDER BY account, id").bind(name.as_str()),
            None => sql("SELECT * FROM keys ORDER BY account, id"),
        };
        self.list(query).await
    }

    async fn update_key(
        &self,
        id: &KeyId,
        change: &(dyn Fn(Key) -> Update<Key> + Send + Sync),
    ) -> Result<Updated<Key>> {
        self.update(id.as_str(), change).await
    }

    async fn update_key_seated(&self, id: &KeyId, now: Timestamp, change: &SeatedChange<'_>) -> Result<Updated<Key>> {
        let mut write = self.write().await?;
        let Some(row) = write.row(sql(Key::FIND).bind(id.as_str().to_owned())).await? else {
            write.abandon().await?;
            return Ok(Updated::Missing);
        };
        let before = Key::read(&row)?;
        let seating = write.seating(&before.account, now).await?;
        let decided = change(before.clone(), &seating);
        write.update(before, decided).await
    }

    async fn keys_to_finish(&self, now: Timestamp) -> Result<Vec<KeyId>> {
        let rows = self.rows(sql(TO_FINISH).bind(millis(now))).await?;
        rows.iter().map(|row| Columns::of(row, "keys", "id").parsed("id")).collect()
    }

    async fn stamp_keys(&self, stamps: &[Stamp]) -> Result<()> {
        // In the order of the table: neighbours in it are on the same pages. The two secrets of a key are apart.
        let mut stamps = stamps.to_vec();
        stamps.sort_by_key(|stamp| (stamp.old, stamp.key));
        for some in stamps.chunks(STAMPED_AT_ONCE) {
            let (mut write, mut rest) = (self.write().await?, some);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(of_different_keys(rest));
                let update = bind_all(sqlx::query(AssertSqlSafe(STAMP.as_str())), now, 4, bind_stamp);
                write.execute(update).await?;
                rest = later;
            }
            write.commit().await?;
        }
        Ok(())
    }
}
