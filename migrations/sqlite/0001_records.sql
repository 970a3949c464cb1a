-- The records, the revocations and the feed of changes.
--
-- Times are milliseconds since the epoch; enumerations are words; groups are the words of a scope, separated by a space.
-- A later migration goes into a file of its own: what has once been released is never edited.

CREATE TABLE accounts (
    name       TEXT    NOT NULL PRIMARY KEY,
    title      TEXT    NOT NULL,
    password   TEXT,             -- argon2id PHC string
    suspended  INTEGER NOT NULL,
    expires_at INTEGER,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE groups (
    id             TEXT    NOT NULL PRIMARY KEY,
    title          TEXT    NOT NULL,
    token_lifetime INTEGER,      -- milliseconds
    created_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    id         TEXT    NOT NULL PRIMARY KEY,
    account    TEXT    NOT NULL REFERENCES accounts (name),
    label      TEXT    NOT NULL,
    hash       TEXT    NOT NULL, -- argon2id PHC string of the whole key
    groups     TEXT,             -- NULL: all that the account may reach; '': none
    state      TEXT    NOT NULL, -- active, suspended, revoked
    expires_at INTEGER,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX keys_by_account ON keys (account, id);

CREATE TABLE licences (
    id         TEXT    NOT NULL PRIMARY KEY,
    account    TEXT    NOT NULL REFERENCES accounts (name),
    groups     TEXT    NOT NULL, -- names without a foreign key: a licence outlives a group and grants nothing by it
    plan       TEXT    NOT NULL,
    starts_at  INTEGER NOT NULL,
    ends_at    INTEGER,
    suspended  INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX licences_by_account ON licences (account, id);

CREATE TABLE signing_keys (
    kid          TEXT    NOT NULL PRIMARY KEY,
    algorithm    TEXT    NOT NULL,
    private      BLOB    NOT NULL, -- PKCS#8, DER
    state        TEXT    NOT NULL, -- next, active, retiring
    created_at   INTEGER NOT NULL,
    activates_at INTEGER NOT NULL,
    gone_at      INTEGER
) STRICT, WITHOUT ROWID;

-- One row per target, with its latest cut-off.
CREATE TABLE revocations (
    target    TEXT    NOT NULL, -- token, key, account, all
    name      TEXT    NOT NULL, -- '' for all
    cutoff    INTEGER NOT NULL, -- seconds, as iat
    made_at   INTEGER NOT NULL,
    forget_at INTEGER NOT NULL,
    PRIMARY KEY (target, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX revocations_by_forget_at ON revocations (forget_at);

-- The feed. Its version is a counter in a row and no rowid or sequence: it must grow in commit order, and never start
-- anew when the entries are gone.
CREATE TABLE feed_state (
    one       INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    version   INTEGER NOT NULL, -- of the latest change
    forgotten INTEGER NOT NULL  -- changes up to this one are no longer in the feed
) STRICT;

INSERT INTO feed_state (one, version, forgotten) VALUES (1, 0, 0);

CREATE TABLE feed (
    version   INTEGER NOT NULL PRIMARY KEY,
    kind      TEXT    NOT NULL, -- account, key, licence, group, signing_keys, revoked
    name      TEXT    NOT NULL, -- of the record or of the revocation's target
    target    TEXT,             -- from here on only of a revocation; as in the table above
    cutoff    INTEGER,
    made_at   INTEGER,
    forget_at INTEGER
) STRICT;

-- Which version had been reached at an instant: what is not above a mark of an hour ago is older than an hour.
CREATE TABLE feed_marks (
    version   INTEGER NOT NULL PRIMARY KEY,
    marked_at INTEGER NOT NULL
) STRICT;

PRAGMA application_id = 0x4B455942; -- "KEYB"
PRAGMA user_version = 1;
