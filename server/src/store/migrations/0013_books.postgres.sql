-- A member's holds by status, newest first.
CREATE INDEX idx_points_hold_status ON mkt_points_hold (tenant_id, member_id, status, id);

-- A read model: whose points those of a merged member are now. It may be deleted with the others.
CREATE TABLE board_owner (
    tenant_id UUID NOT NULL,
    member_id TEXT NOT NULL,
    owner_id TEXT NOT NULL,
    PRIMARY KEY (tenant_id, member_id)
);

-- A coupon paid for with points, and the debit that paid for it.
CREATE TABLE mkt_coupon_exchange (
    tenant_id UUID NOT NULL,
    coupon_id UUID NOT NULL,
    member_id TEXT NOT NULL,
    transaction_id UUID NOT NULL,
    points BIGINT NOT NULL CHECK (points > 0),
    PRIMARY KEY (tenant_id, coupon_id)
);
CREATE UNIQUE INDEX uq_exchange_transaction ON mkt_coupon_exchange (tenant_id, transaction_id);

-- An adjustment above what one key may do alone.
CREATE TABLE mkt_points_adjustment (
    tenant_id UUID NOT NULL,
    id UUID NOT NULL,
    member_id TEXT NOT NULL,
    points BIGINT NOT NULL CHECK (points <> 0),
    reason TEXT NOT NULL,
    reference TEXT,
    expires_at BIGINT,
    requested_by UUID,
    requested_at BIGINT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('PENDING', 'APPROVED', 'REJECTED')),
    decided_by UUID,
    decided_at BIGINT,
    remark TEXT,
    transaction_id UUID,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_adjustment_decided CHECK ((status = 'PENDING') = (decided_at IS NULL)),
    CONSTRAINT ck_adjustment_transaction CHECK ((status = 'APPROVED') = (transaction_id IS NOT NULL)),
    CONSTRAINT ck_adjustment_rejected CHECK ((status = 'REJECTED') = (remark IS NOT NULL)),
    CONSTRAINT ck_adjustment_second CHECK (status <> 'APPROVED' OR decided_by IS DISTINCT FROM requested_by)
);
CREATE INDEX idx_adjustment_status ON mkt_points_adjustment (tenant_id, status, id);
CREATE UNIQUE INDEX uq_adjustment_transaction ON mkt_points_adjustment (tenant_id, transaction_id)
    WHERE transaction_id IS NOT NULL;
