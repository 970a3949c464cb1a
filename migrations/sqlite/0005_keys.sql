-- What a key needs to be rolled with grace, to be bound to networks and a plan, and to show when it was last used.

-- The networks it is good from, separated by a space; NULL: from everywhere.
ALTER TABLE keys ADD COLUMN networks TEXT;

-- When a token was last got with its present secret.
ALTER TABLE keys ADD COLUMN used_at INTEGER;

-- When its present secret took the place of another; NULL: it has its first one.
ALTER TABLE keys ADD COLUMN rolled_at INTEGER;

-- Of the old secret. The hash is NULL once it has come to its end. It goes on for `old_grace` milliseconds after the new one
-- is first used, and from then on it is known when it ends: one of the two is set.
ALTER TABLE keys ADD COLUMN old_hash TEXT;
ALTER TABLE keys ADD COLUMN old_grace INTEGER;
ALTER TABLE keys ADD COLUMN old_ends_at INTEGER;
ALTER TABLE keys ADD COLUMN old_used_at INTEGER;

CREATE INDEX keys_by_old_end ON keys (old_ends_at) WHERE old_hash IS NOT NULL;

-- The plan that bounds its use; NULL: none of its own.
ALTER TABLE keys ADD COLUMN plan TEXT;

PRAGMA user_version = 5;
