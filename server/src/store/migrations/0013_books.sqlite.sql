-- A member's holds by status, newest first.
CREATE INDEX idx_points_hold_status ON mkt_points_hold (tenant_id, member_id, status, id);

-- A read model: whose points those of a merged member are now. It may be deleted with the others.
CREATE TABLE board_owner (
    tenant_id BLOB NOT NULL,
    member_id TEXT NOT NULL,
    owner_id TEXT NOT NULL,
    PRIMARY KEY (tenant_id, member_id)
) STRICT, WITHOUT ROWID;

-- A coupon paid for with points, and the debit that paid for it.
CREATE TABLE mkt_coupon_exchange (
    tenant_id BLOB NOT NULL,
    coupon_id BLOB NOT NULL,
    member_id TEXT NOT NULL,
    transaction_id BLOB NOT NULL,
    points INTEGER NOT NULL CHECK (points > 0),
    PRIMARY KEY (tenant_id, coupon_id)
) STRICT;
CREATE UNIQUE INDEX uq_exchange_transaction ON mkt_coupon_exchange (tenant_id, transaction_id);

-- An adjustment above what one key may do alone.
CREATE TABLE mkt_points_adjustment (
    tenant_id BLOB NOT NULL,
    id BLOB NOT NULL,
    member_id TEXT NOT NULL,
    points INTEGER NOT NULL CHECK (points <> 0),
    reason TEXT NOT NULL,
    reference TEXT,
    expires_at INTEGER,
    requested_by BLOB,
    requested_at INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('PENDING', 'APPROVED', 'REJECTED')),
    decided_by BLOB,
    decided_at INTEGER,
    remark TEXT,
    transaction_id BLOB,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_adjustment_decided CHECK ((status = 'PENDING') = (decided_at IS NULL)),
    CONSTRAINT ck_adjustment_transaction CHECK ((status = 'APPROVED') = (transaction_id IS NOT NULL)),
    CONSTRAINT ck_adjustment_rejected CHECK ((status = 'REJECTED') = (remark IS NOT NULL)),
    CONSTRAINT ck_adjustment_second CHECK (status <> 'APPROVED' OR decided_by IS DISTINCT FROM requested_by)
) STRICT;
CREATE INDEX idx_adjustment_status ON mkt_points_adjustment (tenant_id, status, id);
CREATE UNIQUE INDEX uq_adjustment_transaction ON mkt_points_adjustment (tenant_id, transaction_id)
    WHERE transaction_id IS NOT NULL;
