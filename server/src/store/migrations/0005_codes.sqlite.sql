-- Limits of templates, coupon codes, and the order of uses.

ALTER TABLE mkt_coupon_template ADD COLUMN budget INTEGER;
ALTER TABLE mkt_coupon_template ADD COLUMN committed_amount INTEGER NOT NULL DEFAULT 0
    CONSTRAINT ck_template_budget CHECK (committed_amount >= 0 AND (budget IS NULL OR committed_amount <= budget));
ALTER TABLE mkt_coupon_template ADD COLUMN day_starts_at INTEGER;
ALTER TABLE mkt_coupon_template ADD COLUMN day_ends_at INTEGER;
ALTER TABLE mkt_coupon_template ADD COLUMN day_claimed INTEGER;
-- The latest day under a daily cap, or none.
ALTER TABLE mkt_coupon_template ADD COLUMN day_ceiling INTEGER
    CONSTRAINT ck_template_day CHECK ((day_starts_at IS NULL AND day_ends_at IS NULL AND day_claimed IS NULL AND day_ceiling IS NULL)
        OR (day_starts_at < day_ends_at AND day_claimed BETWEEN 0 AND day_ceiling));
ALTER TABLE mkt_coupon_template ADD COLUMN code_batch_count INTEGER NOT NULL DEFAULT 0
    CONSTRAINT ck_template_code_batches CHECK (code_batch_count >= 0);
ALTER TABLE mkt_coupon_template ADD COLUMN archived_at INTEGER
    CONSTRAINT ck_template_archived CHECK (archived_at IS NULL OR NOT enabled);

-- Which keys the digests of codes were made with: a server that has another key under the number, or none, must not make more.
CREATE TABLE code_key (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id >= 1),
    check_value BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE mkt_coupon_code_batch (
    tenant_id BLOB NOT NULL,
    id BLOB NOT NULL,
    template_id BLOB NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('SHARED', 'UNIQUE', 'IMPORTED')),
    name TEXT NOT NULL,
    max_uses INTEGER CHECK (max_uses >= 1),
    pattern TEXT NOT NULL,
    alphabet TEXT NOT NULL,
    check_character INTEGER NOT NULL CHECK (check_character IN (0, 1)),
    key_id INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('ACTIVE', 'DISABLED', 'REVOKED')),
    code_count INTEGER NOT NULL,
    added_count INTEGER NOT NULL,
    next_number INTEGER NOT NULL,
    claimed_count INTEGER NOT NULL CHECK (claimed_count >= 0),
    -- With the key: what the codes can be made from once more, until they have been exported.
    nonce BLOB,
    completed_at INTEGER,
    exported_at INTEGER,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_code_batch_counts CHECK (added_count BETWEEN 0 AND next_number
        AND (completed_at IS NULL OR added_count = code_count)),
    CONSTRAINT ck_code_batch_sealed CHECK (nonce IS NULL OR (exported_at IS NULL AND status <> 'REVOKED'))
) STRICT;
CREATE INDEX idx_code_batch_template ON mkt_coupon_code_batch (tenant_id, template_id, id);
CREATE INDEX idx_code_batch_open ON mkt_coupon_code_batch (tenant_id, id) WHERE completed_at IS NULL AND kind = 'UNIQUE';

CREATE TABLE mkt_coupon_code (
    tenant_id BLOB NOT NULL,
    digest BLOB NOT NULL,
    batch_id BLOB NOT NULL,
    number INTEGER NOT NULL CHECK (number >= 0),
    max_uses INTEGER,
    status TEXT NOT NULL CHECK (status IN ('ACTIVE', 'DISABLED', 'REVOKED')),
    use_count INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, digest),
    -- A code is never claimed with more often than it may be.
    CONSTRAINT ck_code_uses CHECK (use_count >= 0 AND (max_uses IS NULL OR use_count <= max_uses))
) STRICT;
CREATE UNIQUE INDEX uq_code_number ON mkt_coupon_code (tenant_id, batch_id, number);

-- Which coupon was claimed with which code.
CREATE TABLE mkt_coupon_code_use (
    tenant_id BLOB NOT NULL,
    coupon_id BLOB NOT NULL,
    batch_id BLOB NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (tenant_id, coupon_id)
) STRICT;
CREATE INDEX idx_code_use_batch ON mkt_coupon_code_use (tenant_id, batch_id, coupon_id);

-- Uses, newest first: of a tenant, and of a template.
CREATE INDEX idx_user_coupon_used ON mkt_user_coupon (tenant_id, used_at, id) WHERE status = 'USED';
CREATE INDEX idx_user_coupon_used_template ON mkt_user_coupon (tenant_id, template_id, used_at, id) WHERE status = 'USED';
