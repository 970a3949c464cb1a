//! The SQL of revocations and of the feed of changes.
//!
//! The feed's version is a counter that every write transaction raises while it holds the write lock, so versions appear
//! in commit order: a reader that has seen one has seen all before it.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

use super::row::{Columns, millis, number};
use super::{SqliteStore, Write, sql};
use crate::clock::Timestamp;
use crate::persist::{Cut, Error, Result};
use crate::revocations::{Change, Changes, Cutoff, Revocation, RevocationStore, Target};
use crate::store::rules::{self, FEED_KEPT};

/// The two columns that a target is stored in.
fn target_columns(target: &Target) -> (&'static str, String) {
    match target {
        Target::Token(id) => ("token", id.to_string()),
        Target::Key(id) => ("key", id.to_string()),
        Target::Account(name) => ("account", name.to_string()),
        Target::All => ("all", String::new()),
    }
}

/// A revocation from a row of either table; they name its columns alike.
fn read(columns: &Columns<'_>) -> Result<Revocation> {
    let target = match columns.get::<&str>("target")? {
        "token" => Target::Token(columns.parsed("name")?),
        "key" => Target::Key(columns.parsed("name")?),
        "account" => Target::Account(columns.parsed("name")?),
        "all" => Target::All,
        _ => return Err(columns.corrupt("target", "an unknown word")),
    };
    Ok(Revocation {
        target,
        cutoff: Cutoff(columns.count("cutoff")?),
        made_at: columns.time("made_at")?,
        forget_at: columns.time("forget_at")?,
    })
}

fn read_revocation(row: &SqliteRow) -> Result<Revocation> {
    read(&Columns::of(row, "revocations", "name"))
}

fn read_change(row: &SqliteRow) -> Result<Change> {
    let columns = Columns::of(row, "feed", "name");
    Ok(match columns.get::<&str>("kind")? {
        "account" => Change::Account(columns.parsed("name")?),
        "key" => Change::Key(columns.parsed("name")?),
        "licence" => Change::Licence(columns.parsed("name")?),
        "group" => Change::Group(columns.parsed("name")?),
        "signing_keys" => Change::SigningKeys,
        "revoked" => Change::Revoked(read(&columns)?),
        _ => return Err(columns.corrupt("kind", "an unknown word")),
    })
}

impl SqliteStore {
    /// Reads all that this file writes, for its faults alone.
    pub(super) async fn read_all_revocations(&self) -> Result<()> {
        self.revocations_kept_after(i64::MIN).await?;
        let forgotten = self.row(sql("SELECT forgotten FROM feed_state")).await?;
        self.changes_since(state(forgotten.as_ref(), "forgotten")?).await?;
        Ok(())
    }

    async fn revocations_kept_after(&self, instant: i64) -> Result<Vec<Revocation>> {
        let query = sql("SELECT target, name, cutoff, made_at, forget_at FROM revocations WHERE forget_at > $1 \
                         ORDER BY made_at, target, name")
        .bind(instant);
        self.rows(query).await?.iter().map(read_revocation).collect()
    }
}

impl Write {
    /// Appends to the feed.
    pub(super) async fn tell(&mut self, change: &Change) -> Result<()> {
        let (kind, name, revocation) = match change {
            Change::Account(name) => ("account", name.to_string(), None),
            Change::Key(id) => ("key", id.to_string(), None),
            Change::Licence(account) => ("licence", account.to_string(), None),
            Change::Group(id) => ("group", id.to_string(), None),
            Change::SigningKeys => ("signing_keys", String::new(), None),
            Change::Revoked(revocation) => ("revoked", target_columns(&revocation.target).1, Some(revocation)),
        };
        let raised = self.row(sql("UPDATE feed_state SET version = version + 1 RETURNING version")).await?;
        let version = state(raised.as_ref(), "version")?;
        let insert = sql("INSERT INTO feed (version, kind, name, target, cutoff, made_at, forget_at) \
                          VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(number(version))
        .bind(kind)
        .bind(name)
        .bind(revocation.map(|revocation| target_columns(&revocation.target).0))
        .bind(revocation.map(|revocation| number(revocation.cutoff.0)))
        .bind(revocation.map(|revocation| millis(revocation.made_at)))
        .bind(revocation.map(|revocation| millis(revocation.forget_at)));
        self.execute(insert).await?;
        Ok(())
    }

    /// Revokes `target`, beyond what was revoked of it before, and tells of it.
    pub(super) async fn revoke(&mut self, target: &Target, now: Timestamp, forever: bool) -> Result<Revocation> {
        let latest = self.latest(target).await?;
        let related = self.related_cutoff(target).await?;
        self.put(rules::revocation(target, latest.as_ref(), related, now, forever)).await
    }

    async fn revoke_before(&mut self, target: &Target, before: Timestamp, now: Timestamp) -> Result<Revocation> {
        let latest = self.latest(target).await?;
        self.put(rules::revocation_before(target, latest.as_ref(), before, now)).await
    }

    /// Does what a change of a record decided about its tokens.
    pub(super) async fn cut(&mut self, target: &Target, cut: Cut) -> Result<()> {
        match cut {
            Cut::No => return Ok(()),
            Cut::Now(now) => self.revoke(target, now, false).await?,
            Cut::Forever(now) => self.revoke(target, now, true).await?,
            Cut::Before { before, now } => self.revoke_before(target, before, now).await?,
        };
        Ok(())
    }

    /// The highest cut-off of the targets that share tokens with this one.
    async fn related_cutoff(&mut self, target: &Target) -> Result<Option<Cutoff>> {
        // Those of tokens are all for good, and may be many: no condition here reads them.
        let find = match target {
            Target::Token(_) => return Ok(None),
            Target::Key(id) => {
                sql("SELECT MAX(cutoff) AS cutoff FROM revocations WHERE cutoff < $1 AND (target = 'all' OR \
                                    target = 'account' AND name = (SELECT account FROM keys WHERE id = $2))")
                .bind(number(Cutoff::FOREVER.0))
                .bind(id.to_string())
            }
            Target::Account(name) => sql("SELECT MAX(cutoff) AS cutoff FROM revocations WHERE cutoff < $1 AND \
                                          (target = 'all' OR target = 'key' AND \
                                          name IN (SELECT id FROM keys WHERE account = $2))")
            .bind(number(Cutoff::FOREVER.0))
            .bind(name.to_string()),
            Target::All => sql("SELECT MAX(cutoff) AS cutoff FROM revocations WHERE cutoff < $1 AND \
                                target IN ('account', 'key')")
            .bind(number(Cutoff::FOREVER.0)),
        };
        let row = self.row(find).await?;
        let highest: Option<i64> = match &row {
            Some(row) => Columns::of(row, "revocations", "cutoff").get("cutoff")?,
            None => None,
        };
        Ok(highest.and_then(|cutoff| u64::try_from(cutoff).ok()).map(Cutoff))
    }

    async fn latest(&mut self, target: &Target) -> Result<Option<Revocation>> {
        let (kind, name) = target_columns(target);
        let find = sql("SELECT target, name, cutoff, made_at, forget_at FROM revocations \
                        WHERE target = $1 AND name = $2")
        .bind(kind)
        .bind(name);
        self.row(find).await?.as_ref().map(read_revocation).transpose()
    }

    async fn put(&mut self, revocation: Revocation) -> Result<Revocation> {
        let (kind, name) = target_columns(&revocation.target);
        let put =
            sql("INSERT INTO revocations (target, name, cutoff, made_at, forget_at) VALUES ($1, $2, $3, $4, $5) \
                       ON CONFLICT (target, name) DO UPDATE SET cutoff = excluded.cutoff, \
                       made_at = excluded.made_at, forget_at = excluded.forget_at")
            .bind(kind)
            .bind(name)
            .bind(number(revocation.cutoff.0))
            .bind(millis(revocation.made_at))
            .bind(millis(revocation.forget_at));
        self.execute(put).await?;
        self.tell(&Change::Revoked(revocation.clone())).await?;
        Ok(revocation)
    }
}

/// A number from the one row of `feed_state`.
fn state(row: Option<&SqliteRow>, column: &str) -> Result<u64> {
    match row {
        Some(row) => Columns::of(row, "feed_state", "one").count(column),
        None => Err(Error::Corrupt { detail: "table feed_state has no row".to_owned() }),
    }
}

#[async_trait]
impl RevocationStore for SqliteStore {
    async fn revoke(&self, target: &Target, now: Timestamp, forever: bool) -> Result<Revocation> {
        let mut write = self.write().await?;
        let revocation = write.revoke(target, now, forever).await?;
        write.commit().await?;
        Ok(revocation)
    }

    async fn revoke_all_before(&self, before: Timestamp, now: Timestamp) -> Result<Revocation> {
        let mut write = self.write().await?;
        let revocation = write.revoke_before(&Target::All, before, now).await?;
        write.commit().await?;
        Ok(revocation)
    }

    async fn revocations(&self, now: Timestamp) -> Result<Vec<Revocation>> {
        self.revocations_kept_after(millis(now)).await
    }

    async fn forget(&self, now: Timestamp) -> Result<u64> {
        let mut write = self.write().await?;
        let mut gone = write.execute(sql("DELETE FROM revocations WHERE forget_at <= $1").bind(millis(now))).await?;
        // An update is not told the time, so the age of an entry is known from here: it is no younger than the first call
        // that found it.
        let mark = sql("INSERT INTO feed_marks (version, marked_at) SELECT version, $1 FROM feed_state \
                        WHERE version > forgotten ON CONFLICT (version) DO NOTHING")
        .bind(millis(now));
        write.execute(mark).await?;
        let oldest_kept = now.millis().checked_sub(u64::try_from(FEED_KEPT.as_millis()).unwrap_or(u64::MAX));
        if let Some(oldest_kept) = oldest_kept {
            let old = sql("UPDATE feed_state SET forgotten = \
                           (SELECT MAX(version) FROM feed_marks WHERE marked_at <= $1) \
                           WHERE EXISTS (SELECT 1 FROM feed_marks WHERE marked_at <= $1) RETURNING forgotten")
            .bind(number(oldest_kept));
            if let Some(row) = write.row(old).await? {
                let old = number(state(Some(&row), "forgotten")?);
                gone += write.execute(sql("DELETE FROM feed WHERE version <= $1").bind(old)).await?;
                write.execute(sql("DELETE FROM feed_marks WHERE version <= $1").bind(old)).await?;
            }
        }
        write.commit().await?;
        Ok(gone)
    }

    async fn version(&self) -> Result<u64> {
        state(self.row(sql("SELECT version FROM feed_state")).await?.as_ref(), "version")
    }

    async fn changes_since(&self, version: u64) -> Result<Changes> {
        // One statement sees one moment: the version it reaches and the entries up to it belong together.
        let query = sql("SELECT feed_state.version AS reached, feed_state.forgotten AS forgotten, \
                         feed.version AS version, kind, name, target, cutoff, made_at, forget_at \
                         FROM feed_state LEFT JOIN feed ON feed.version > $1 ORDER BY feed.version")
        .bind(number(version));
        let rows = self.rows(query).await?;
        let reached = state(rows.first(), "reached")?;
        if version < state(rows.first(), "forgotten")? || version > reached {
            return Ok(Changes::Lost);
        }
        // Nothing new is one row with no entry in it.
        let entries = if version == reached { &[][..] } else { &rows[..] };
        Ok(Changes::List(entries.iter().map(read_change).collect::<Result<_>>()?, reached))
    }
}
