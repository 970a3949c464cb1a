-- What plans count: how much of a limit was used by whom in a window or period, by all gateways together.

-- Names without a foreign key: configurations know plans, and a subject may be an address.
CREATE TABLE plan_counts (
    plan      TEXT    NOT NULL,
    subject   TEXT    NOT NULL, -- licence:…, key:…, route:<route>:<account> or address:…
    word      TEXT    NOT NULL, -- the limit's: minute, day-bytes …
    starts_at INTEGER NOT NULL, -- the first instant of the window or period, in milliseconds since the epoch
    ends_at   INTEGER NOT NULL, -- when it counts no more
    used      INTEGER NOT NULL,
    PRIMARY KEY (plan, subject, word, starts_at)
) STRICT, WITHOUT ROWID;

CREATE INDEX plan_counts_by_end ON plan_counts (ends_at);

-- The last batch of each gateway process, so that none is added twice.
CREATE TABLE plan_batches (
    gateway TEXT    NOT NULL PRIMARY KEY,
    number  INTEGER NOT NULL,
    made_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 6;
