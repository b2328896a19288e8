-- The first shape of descent.db. Never changed: what comes later is the next number.
-- Every checksum is the XXH3-64 of the row's other columns (storage/sqlite_row.c).

CREATE TABLE owner (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL,                 -- rises at every open: who has an older one has lost the storage
    probes INTEGER NOT NULL                 -- small writes that housekeeping made to see that the disk takes them
) STRICT;

INSERT INTO owner VALUES (1, 0, 0);

CREATE TABLE session (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    checksum INTEGER NOT NULL,
    record BLOB NOT NULL
) STRICT;

-- Appended at the end and dropped from the front, whatever the session: a group of small events touches few pages.
-- The body comes last, so that reading the other columns does not touch the pages it flows over into.
CREATE TABLE journal (
    lsn INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    step INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    chunk INTEGER NOT NULL,
    chunks INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    head BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE checkpoint (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    sealed INTEGER NOT NULL,                -- 0: being written; dropped at the next open
    lsn INTEGER NOT NULL,
    step INTEGER NOT NULL,
    chunks INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;

CREATE TABLE checkpoint_chunk (
    place INTEGER PRIMARY KEY,              -- checkpoint id << 20 | chunk
    checksum INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
