-- Read models folded from the event log. They may be deleted at any time: the fold makes them anew.

-- How far the fold has come.
CREATE TABLE projection (
    tenant_id UUID NOT NULL PRIMARY KEY,
    tx BIGINT NOT NULL,
    ordinal BIGINT NOT NULL,
    -- When the last folded event was recorded.
    as_of BIGINT NOT NULL
);

-- What happened in a local day, by subject: 'points', or a template's id.
CREATE TABLE stat_day (
    tenant_id UUID NOT NULL,
    subject TEXT NOT NULL,
    day TEXT NOT NULL,
    name TEXT NOT NULL,
    events BIGINT NOT NULL,
    amount BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, subject, day, name)
);

CREATE TABLE board_score (
    tenant_id UUID NOT NULL,
    board TEXT NOT NULL,
    member_id TEXT NOT NULL,
    score BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, board, member_id)
) WITH (fillfactor = 70);
CREATE INDEX idx_board_score_rank ON board_score (tenant_id, board, score DESC, member_id);

-- How many members of a board have a score in each bucket: a rank is a sum over few of these.
CREATE TABLE board_bucket (
    tenant_id UUID NOT NULL,
    board TEXT NOT NULL,
    bucket BIGINT NOT NULL,
    members BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, board, bucket)
) WITH (fillfactor = 70);
