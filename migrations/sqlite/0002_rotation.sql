-- What the rotation of signing keys, and their sealing under a master key, have to know of each.

-- Milliseconds that a token signed with it may be accepted. For keys from before, the most that could be configured.
ALTER TABLE signing_keys ADD COLUMN longest_token INTEGER NOT NULL DEFAULT 2592300000;

-- The id of the master key under which `private` is sealed; NULL: it is PKCS#8 in the clear.
ALTER TABLE signing_keys ADD COLUMN sealed_by TEXT;

PRAGMA user_version = 2;
