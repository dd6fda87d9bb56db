-- Read models folded from the event log. They may be deleted at any time: the fold makes them anew.

-- How far the fold has come.
CREATE TABLE projection (
    tenant_id BLOB NOT NULL PRIMARY KEY,
    tx INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    -- When the last folded event was recorded.
    as_of INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What happened in a local day, by subject: 'points', or a template's id.
CREATE TABLE stat_day (
    tenant_id BLOB NOT NULL,
    subject TEXT NOT NULL,
    day TEXT NOT NULL,
    name TEXT NOT NULL,
    events INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, subject, day, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE board_score (
    tenant_id BLOB NOT NULL,
    board TEXT NOT NULL,
    member_id TEXT NOT NULL,
    score INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, board, member_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX idx_board_score_rank ON board_score (tenant_id, board, score DESC, member_id);

-- How many members of a board have a score in each bucket: a rank is a sum over few of these.
CREATE TABLE board_bucket (
    tenant_id BLOB NOT NULL,
    board TEXT NOT NULL,
    bucket INTEGER NOT NULL,
    members INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, board, bucket)
) STRICT, WITHOUT ROWID;
