-- Seats, trials, signed licence documents, notices ahead of an end, and the latest time seen.

-- How many keys may hold a seat; NULL: any number.
ALTER TABLE licences ADD COLUMN seats INTEGER;
ALTER TABLE licences ADD COLUMN trial INTEGER NOT NULL DEFAULT 0;
-- The signed document (compact JWS) that the licence was installed from; NULL: it was granted here.
ALTER TABLE licences ADD COLUMN document TEXT;

CREATE INDEX licences_by_end ON licences (ends_at);

-- One row for each notice that a gateway has taken upon itself.
CREATE TABLE notices (
    licence  TEXT    NOT NULL,
    ends_at  INTEGER NOT NULL, -- a moved end makes new notices
    ahead    INTEGER NOT NULL, -- milliseconds before the end; 0: the end itself
    message  TEXT    NOT NULL, -- the webhook's id, the same in every attempt
    state    TEXT    NOT NULL, -- open, sent, given_up
    attempts INTEGER NOT NULL,
    next_at  INTEGER NOT NULL, -- from then on the next attempt is anyone's
    PRIMARY KEY (licence, ends_at, ahead)
) STRICT, WITHOUT ROWID;

CREATE INDEX notices_by_end ON notices (ends_at);

-- The latest time that any gateway has seen: a clock that shows much less was set back.
CREATE TABLE latest_time (
    one     INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    seen_at INTEGER NOT NULL
) STRICT;

INSERT INTO latest_time (one, seen_at) VALUES (1, 0);

PRAGMA user_version = 3;
