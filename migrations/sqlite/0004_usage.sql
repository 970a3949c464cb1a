-- Usage: what was counted of each line in each hour.

-- What is counted together. Texts are kept here once, and not in each hour again. They are names without a foreign key: usage
-- outlives a group and a route.
CREATE TABLE usage_lines (
    id      INTEGER NOT NULL PRIMARY KEY,
    account TEXT    NOT NULL, -- '': what there was no room to tell apart
    key     TEXT    NOT NULL, -- '': by password, or of no account
    grp     TEXT    NOT NULL, -- the group that let it through; '': none
    route   TEXT    NOT NULL, -- '': none
    class   INTEGER NOT NULL, -- hundreds of the status: 1 to 5
    UNIQUE (account, key, grp, route, class)
) STRICT;

-- By hour first: what is written now lies together, and what is old goes together.
CREATE TABLE usage (
    hour       INTEGER NOT NULL, -- hours since the epoch
    line       INTEGER NOT NULL REFERENCES usage_lines (id),
    requests   INTEGER NOT NULL,
    bytes_in   INTEGER NOT NULL,
    bytes_out  INTEGER NOT NULL,
    -- Requests that took so many milliseconds at the most, and more than those before.
    le_1ms     INTEGER NOT NULL,
    le_2ms     INTEGER NOT NULL,
    le_4ms     INTEGER NOT NULL,
    le_8ms     INTEGER NOT NULL,
    le_16ms    INTEGER NOT NULL,
    le_32ms    INTEGER NOT NULL,
    le_64ms    INTEGER NOT NULL,
    le_128ms   INTEGER NOT NULL,
    le_256ms   INTEGER NOT NULL,
    le_512ms   INTEGER NOT NULL,
    le_1024ms  INTEGER NOT NULL,
    le_2048ms  INTEGER NOT NULL,
    le_4096ms  INTEGER NOT NULL,
    le_8192ms  INTEGER NOT NULL,
    le_16384ms INTEGER NOT NULL,
    le_32768ms INTEGER NOT NULL,
    longer     INTEGER NOT NULL,
    PRIMARY KEY (hour, line)
) STRICT, WITHOUT ROWID;

-- For the usage of one account or key, and for lines that are in no hour any more.
CREATE INDEX usage_by_line ON usage (line, hour);

-- The last batch of each gateway process, so that none is added twice.
CREATE TABLE usage_batches (
    gateway TEXT    NOT NULL PRIMARY KEY,
    number  INTEGER NOT NULL,
    made_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 4;
