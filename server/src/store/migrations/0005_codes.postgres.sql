-- Limits of templates, coupon codes, and the order of uses.

ALTER TABLE mkt_coupon_template ADD COLUMN budget BIGINT;
ALTER TABLE mkt_coupon_template ADD COLUMN committed_amount BIGINT NOT NULL DEFAULT 0
    CONSTRAINT ck_template_budget CHECK (committed_amount >= 0 AND (budget IS NULL OR committed_amount <= budget));
ALTER TABLE mkt_coupon_template ADD COLUMN day_starts_at BIGINT;
ALTER TABLE mkt_coupon_template ADD COLUMN day_ends_at BIGINT;
ALTER TABLE mkt_coupon_template ADD COLUMN day_claimed BIGINT;
-- The latest day under a daily cap, or none.
ALTER TABLE mkt_coupon_template ADD COLUMN day_ceiling BIGINT
    CONSTRAINT ck_template_day CHECK ((day_starts_at IS NULL AND day_ends_at IS NULL AND day_claimed IS NULL AND day_ceiling IS NULL)
        OR (day_starts_at < day_ends_at AND day_claimed BETWEEN 0 AND day_ceiling));
ALTER TABLE mkt_coupon_template ADD COLUMN code_batch_count BIGINT NOT NULL DEFAULT 0
    CONSTRAINT ck_template_code_batches CHECK (code_batch_count >= 0);
ALTER TABLE mkt_coupon_template ADD COLUMN archived_at BIGINT
    CONSTRAINT ck_template_archived CHECK (archived_at IS NULL OR NOT enabled);

-- Which keys the digests of codes were made with: a server that has another key under the number, or none, must not make more.
CREATE TABLE code_key (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id >= 1),
    check_value BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE mkt_coupon_code_batch (
    tenant_id UUID NOT NULL,
    id UUID NOT NULL,
    template_id UUID NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('SHARED', 'UNIQUE', 'IMPORTED')),
    name TEXT NOT NULL,
    max_uses BIGINT CHECK (max_uses >= 1),
    pattern TEXT NOT NULL,
    alphabet TEXT NOT NULL,
    check_character BOOLEAN NOT NULL,
    key_id BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('ACTIVE', 'DISABLED', 'REVOKED')),
    code_count BIGINT NOT NULL,
    added_count BIGINT NOT NULL,
    next_number BIGINT NOT NULL,
    claimed_count BIGINT NOT NULL CHECK (claimed_count >= 0),
    -- With the key: what the codes can be made from once more, until they have been exported.
    nonce BYTEA,
    completed_at BIGINT,
    exported_at BIGINT,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_code_batch_counts CHECK (added_count BETWEEN 0 AND next_number
        AND (completed_at IS NULL OR added_count = code_count)),
    CONSTRAINT ck_code_batch_sealed CHECK (nonce IS NULL OR (exported_at IS NULL AND status <> 'REVOKED'))
) WITH (fillfactor = 60);
CREATE INDEX idx_code_batch_template ON mkt_coupon_code_batch (tenant_id, template_id, id);
CREATE INDEX idx_code_batch_open ON mkt_coupon_code_batch (tenant_id, id) WHERE completed_at IS NULL AND kind = 'UNIQUE';

CREATE TABLE mkt_coupon_code (
    tenant_id UUID NOT NULL,
    digest BYTEA NOT NULL,
    batch_id UUID NOT NULL,
    number BIGINT NOT NULL CHECK (number >= 0),
    max_uses BIGINT,
    status TEXT NOT NULL CHECK (status IN ('ACTIVE', 'DISABLED', 'REVOKED')),
    use_count BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, digest),
    -- A code is never claimed with more often than it may be.
    CONSTRAINT ck_code_uses CHECK (use_count >= 0 AND (max_uses IS NULL OR use_count <= max_uses))
) WITH (fillfactor = 85);
CREATE UNIQUE INDEX uq_code_number ON mkt_coupon_code (tenant_id, batch_id, number);

-- Which coupon was claimed with which code.
CREATE TABLE mkt_coupon_code_use (
    tenant_id UUID NOT NULL,
    coupon_id UUID NOT NULL,
    batch_id UUID NOT NULL,
    digest BYTEA NOT NULL,
    PRIMARY KEY (tenant_id, coupon_id)
);
CREATE INDEX idx_code_use_batch ON mkt_coupon_code_use (tenant_id, batch_id, coupon_id);

-- Uses, newest first: of a tenant, and of a template.
CREATE INDEX idx_user_coupon_used ON mkt_user_coupon (tenant_id, used_at, id) WHERE status = 'USED';
CREATE INDEX idx_user_coupon_used_template ON mkt_user_coupon (tenant_id, template_id, used_at, id) WHERE status = 'USED';
