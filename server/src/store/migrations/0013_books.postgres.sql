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
