-- The first schema. Times are microseconds since 1970 (BIGINT in both stores); never is 9223372036854775807.
-- Every key leads with tenant_id, so that each table can be distributed by tenant.
-- Hot tables carry CHECK and UNIQUE constraints but no foreign keys: a trigger per row would cost more than the row.
-- `scrip verify` finds orphans instead.

CREATE TABLE tenant (
    tenant_id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    currency TEXT NOT NULL,
    time_zone TEXT NOT NULL,
    refund_grace_days BIGINT NOT NULL CHECK (refund_grace_days BETWEEN 0 AND 3650),
    created_at BIGINT NOT NULL
);

CREATE TABLE api_key (
    tenant_id UUID NOT NULL REFERENCES tenant (tenant_id),
    id UUID NOT NULL,
    name TEXT NOT NULL,
    scope TEXT NOT NULL CHECK (scope IN ('OPERATOR', 'SERVICE', 'MEMBER')),
    member_id TEXT,
    secret_digest BYTEA NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CHECK ((scope = 'MEMBER') = (member_id IS NOT NULL))
);
CREATE UNIQUE INDEX uq_api_key_secret ON api_key (secret_digest);

-- One row: the digest of the key that manages tenants.
CREATE TABLE platform_key (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    secret_digest BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE mkt_coupon_template (
    tenant_id UUID NOT NULL REFERENCES tenant (tenant_id),
    id UUID NOT NULL,
    version BIGINT NOT NULL CHECK (version >= 1),
    enabled BOOLEAN NOT NULL,
    type TEXT NOT NULL,
    distribution_starts_at BIGINT,
    distribution_ends_at BIGINT,
    total_stock BIGINT,
    remaining_stock BIGINT CHECK (remaining_stock >= 0),
    claimed_count BIGINT NOT NULL CHECK (claimed_count >= 0),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_template_stock CHECK ((total_stock IS NULL AND remaining_stock IS NULL)
        OR (total_stock IS NOT NULL AND remaining_stock IS NOT NULL AND total_stock = remaining_stock + claimed_count))
) WITH (fillfactor = 60);
CREATE INDEX idx_template_tenant_status ON mkt_coupon_template (tenant_id, enabled, id);
CREATE INDEX idx_template_tenant_type ON mkt_coupon_template (tenant_id, type, id);
CREATE INDEX idx_template_distribution_time
    ON mkt_coupon_template (tenant_id, distribution_starts_at, distribution_ends_at);

-- What operators author, one row for each version, never changed: a coupon's snapshot is its template and version.
CREATE TABLE mkt_coupon_template_version (
    tenant_id UUID NOT NULL,
    template_id UUID NOT NULL,
    version BIGINT NOT NULL,
    definition TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, template_id, version),
    FOREIGN KEY (tenant_id, template_id) REFERENCES mkt_coupon_template (tenant_id, id) ON DELETE CASCADE
);

-- Uses are counted apart from the template row, in stripes, so that using a coupon never waits for a claim.
CREATE TABLE mkt_coupon_template_use (
    tenant_id UUID NOT NULL,
    template_id UUID NOT NULL,
    stripe BIGINT NOT NULL,
    used_count BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, template_id, stripe)
) WITH (fillfactor = 60);

CREATE TABLE mkt_user_coupon (
    tenant_id UUID NOT NULL,
    id UUID NOT NULL,
    template_id UUID NOT NULL,
    template_version BIGINT NOT NULL,
    member_id TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('AVAILABLE', 'LOCKED', 'USED', 'EXPIRED', 'REVOKED')),
    sequence BIGINT NOT NULL CHECK (sequence >= 1),
    source TEXT NOT NULL,
    valid_from BIGINT NOT NULL,
    valid_until BIGINT NOT NULL,
    order_id TEXT,
    locked_until BIGINT,
    discount_amount BIGINT CHECK (discount_amount >= 0),
    claimed_at BIGINT NOT NULL,
    used_at BIGINT,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_user_coupon_order CHECK ((status IN ('LOCKED', 'USED')) = (order_id IS NOT NULL)),
    CONSTRAINT ck_user_coupon_used CHECK ((status = 'USED') = (used_at IS NOT NULL))
) WITH (fillfactor = 85);
-- The member limit's second wall: the n-th claim of a member exists once.
CREATE UNIQUE INDEX uq_user_coupon_sequence ON mkt_user_coupon (tenant_id, template_id, member_id, sequence);
CREATE INDEX idx_user_coupon_member ON mkt_user_coupon (tenant_id, member_id, status, id);
CREATE INDEX idx_user_coupon_template ON mkt_user_coupon (tenant_id, template_id, status);
CREATE INDEX idx_user_coupon_expire ON mkt_user_coupon (tenant_id, valid_until) WHERE status = 'AVAILABLE';
CREATE INDEX idx_user_coupon_lock ON mkt_user_coupon (tenant_id, locked_until)
    WHERE status = 'LOCKED' AND locked_until IS NOT NULL;

CREATE TABLE mkt_points_account (
    tenant_id UUID NOT NULL,
    member_id TEXT NOT NULL,
    total_points BIGINT NOT NULL,
    available BIGINT NOT NULL CHECK (available >= 0),
    frozen BIGINT NOT NULL CHECK (frozen >= 0),
    used BIGINT NOT NULL CHECK (used >= 0),
    expired BIGINT NOT NULL CHECK (expired >= 0),
    revoked BIGINT NOT NULL CHECK (revoked >= 0),
    debt BIGINT NOT NULL CHECK (debt >= 0),
    sequence BIGINT NOT NULL CHECK (sequence >= 0),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT idx_points_account_member PRIMARY KEY (tenant_id, member_id),
    CONSTRAINT ck_account_total CHECK (total_points = available + frozen + used + expired + revoked)
) WITH (fillfactor = 60);
CREATE INDEX idx_points_account_total ON mkt_points_account (tenant_id, total_points DESC);

CREATE TABLE mkt_points_lot (
    tenant_id UUID NOT NULL,
    id UUID NOT NULL,
    member_id TEXT NOT NULL,
    points BIGINT NOT NULL CHECK (points > 0),
    remaining BIGINT NOT NULL CHECK (remaining >= 0),
    held BIGINT NOT NULL CHECK (held >= 0),
    used BIGINT NOT NULL CHECK (used >= 0),
    expired BIGINT NOT NULL CHECK (expired >= 0),
    revoked BIGINT NOT NULL CHECK (revoked >= 0),
    moved BIGINT NOT NULL CHECK (moved >= 0),
    available_from BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    transaction_id UUID NOT NULL,
    created_at BIGINT NOT NULL,
    -- Whether anything is left or held. A column of its own, so that taking a part leaves every index alone.
    open BOOLEAN NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_lot_points CHECK (points = remaining + held + used + expired + revoked + moved),
    CONSTRAINT ck_lot_open CHECK (open = (remaining > 0 OR held > 0))
) WITH (fillfactor = 60);
CREATE INDEX idx_points_lot_open ON mkt_points_lot (tenant_id, member_id, expires_at, created_at, id) WHERE open;
CREATE INDEX idx_points_lot_expire ON mkt_points_lot (tenant_id, expires_at) WHERE open;

CREATE TABLE mkt_points_transaction (
    tenant_id UUID NOT NULL,
    id UUID NOT NULL,
    member_id TEXT NOT NULL,
    sequence BIGINT NOT NULL CHECK (sequence >= 1),
    type TEXT NOT NULL,
    points BIGINT NOT NULL,
    balance_before BIGINT NOT NULL CHECK (balance_before >= 0),
    balance_after BIGINT NOT NULL CHECK (balance_after >= 0),
    frozen_after BIGINT NOT NULL CHECK (frozen_after >= 0),
    debt_after BIGINT NOT NULL CHECK (debt_after >= 0),
    reference TEXT,
    remark TEXT,
    hold_id UUID,
    reverses_id UUID,
    lot_id UUID,
    -- JSON: [{"l": lot, "p": points}]
    allocations TEXT NOT NULL,
    expires_at BIGINT,
    occurred_at BIGINT NOT NULL,
    recorded_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_transaction_balance CHECK (balance_after - balance_before = points
        OR (hold_id IS NOT NULL AND balance_after = balance_before))
);
-- A member's ledger in its own order; the sequence also orders lines of the same instant, which a time could not.
CREATE UNIQUE INDEX idx_points_transaction_member ON mkt_points_transaction (tenant_id, member_id, sequence DESC);
CREATE INDEX idx_points_transaction_type ON mkt_points_transaction (tenant_id, type, occurred_at);
CREATE INDEX idx_points_transaction_expire ON mkt_points_transaction (tenant_id, expires_at)
    WHERE points > 0 AND expires_at IS NOT NULL;

CREATE TABLE mkt_points_hold (
    tenant_id UUID NOT NULL,
    id UUID NOT NULL,
    member_id TEXT NOT NULL,
    points BIGINT NOT NULL CHECK (points > 0),
    captured BIGINT NOT NULL CHECK (captured >= 0),
    released BIGINT NOT NULL CHECK (released >= 0),
    status TEXT NOT NULL CHECK (status IN ('OPEN', 'CAPTURED', 'RELEASED', 'EXPIRED')),
    reference TEXT,
    remark TEXT,
    expires_at BIGINT NOT NULL,
    allocations TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    closed_at BIGINT,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_hold_points CHECK ((status = 'OPEN' AND captured = 0 AND released = 0)
        OR (status <> 'OPEN' AND captured + released = points)),
    CONSTRAINT ck_hold_closed CHECK ((status = 'OPEN') = (closed_at IS NULL))
);
CREATE INDEX idx_points_hold_member ON mkt_points_hold (tenant_id, member_id, expires_at) WHERE status = 'OPEN';
CREATE INDEX idx_points_hold_expire ON mkt_points_hold (tenant_id, expires_at) WHERE status = 'OPEN';

-- How much of a transaction has been undone, in all.
CREATE TABLE mkt_points_reversal (
    tenant_id UUID NOT NULL,
    transaction_id UUID NOT NULL,
    points BIGINT NOT NULL,
    reversed BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, transaction_id),
    CONSTRAINT ck_reversal_bound CHECK (reversed > 0 AND reversed <= points)
);

-- The outbox. (tx, ordinal) is the reading order; `Place` in postgres.rs says why it is causal and how readers follow it.
CREATE TABLE event (
    tenant_id UUID NOT NULL,
    tx BIGINT NOT NULL,
    ordinal BIGINT NOT NULL,
    id UUID NOT NULL,
    type TEXT NOT NULL,
    subject_id UUID NOT NULL,
    member_id TEXT,
    data TEXT NOT NULL,
    actor_id UUID,
    occurred_at BIGINT NOT NULL,
    recorded_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, tx, ordinal)
);
-- Orders batches that share a tx. Gaps do no harm; numbers kept back by a session would.
CREATE SEQUENCE event_batch CACHE 1;

CREATE TABLE idempotency (
    tenant_id UUID NOT NULL,
    key BYTEA NOT NULL,
    fingerprint BYTEA NOT NULL,
    outcome TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, key)
);
-- For the purge of old records.
CREATE INDEX idx_idempotency_created ON idempotency (tenant_id, created_at);
