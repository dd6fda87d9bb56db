-- Rules of points and orders; orders, their refunds, and the cases these leave.

-- What operators set, one row for each version, never changed. Which one holds at a time follows from effective_from.
CREATE TABLE mkt_points_rule (
    tenant_id UUID NOT NULL REFERENCES tenant (tenant_id),
    version BIGINT NOT NULL CHECK (version >= 1),
    effective_from BIGINT NOT NULL,
    rules TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, version)
);
CREATE INDEX idx_points_rule_date ON mkt_points_rule (tenant_id, effective_from, version);

-- What an order of ours holds, only that order gives back.
ALTER TABLE mkt_user_coupon ADD COLUMN by_order BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE mkt_points_hold ADD COLUMN by_order BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE mkt_points_transaction ADD COLUMN by_order BOOLEAN NOT NULL DEFAULT FALSE;

CREATE TABLE mkt_order (
    tenant_id UUID NOT NULL,
    order_id TEXT NOT NULL,
    id UUID NOT NULL,
    member_id TEXT NOT NULL,
    -- JSON: what is bought, and the price with its parts.
    basket TEXT NOT NULL,
    quote TEXT NOT NULL,
    rules_version BIGINT NOT NULL,
    original_amount BIGINT NOT NULL CHECK (original_amount >= 0),
    coupon_discount BIGINT NOT NULL CHECK (coupon_discount >= 0),
    freight_discount BIGINT NOT NULL CHECK (freight_discount >= 0),
    points_discount BIGINT NOT NULL CHECK (points_discount >= 0),
    freight BIGINT NOT NULL CHECK (freight >= 0),
    pay_amount BIGINT NOT NULL CHECK (pay_amount >= 0),
    points_spent BIGINT NOT NULL CHECK (points_spent >= 0),
    points_to_earn BIGINT NOT NULL CHECK (points_to_earn >= 0),
    coupon_count BIGINT NOT NULL CHECK (coupon_count >= 0),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    status TEXT NOT NULL
        CHECK (status IN ('RESERVED', 'PAID', 'PARTIALLY_REFUNDED', 'REFUNDED', 'CANCELLED', 'EXPIRED')),
    hold_id UUID,
    spend_id UUID,
    earn_id UUID,
    earn_due_at BIGINT,
    points_granted BIGINT NOT NULL CHECK (points_granted >= 0),
    -- JSON: how many units of each line, in the order of the quote's lines.
    refunded_quantities TEXT NOT NULL,
    refunded_amount BIGINT NOT NULL,
    refunded_freight BIGINT NOT NULL,
    points_returned BIGINT NOT NULL,
    points_clawed_back BIGINT NOT NULL,
    coupons_returned BOOLEAN NOT NULL,
    paid_at BIGINT,
    closed_at BIGINT,
    PRIMARY KEY (tenant_id, order_id),
    CONSTRAINT ck_order_total CHECK (
        pay_amount = original_amount + freight - coupon_discount - freight_discount - points_discount),
    CONSTRAINT ck_order_paid CHECK ((status IN ('PAID', 'PARTIALLY_REFUNDED', 'REFUNDED')) = (paid_at IS NOT NULL)),
    CONSTRAINT ck_order_closed CHECK ((status IN ('CANCELLED', 'EXPIRED')) = (closed_at IS NOT NULL)),
    CONSTRAINT ck_order_earned CHECK (earn_id IS NULL OR earn_due_at IS NULL),
    CONSTRAINT ck_order_refunded CHECK (refunded_amount BETWEEN 0 AND pay_amount
        AND refunded_freight BETWEEN 0 AND freight - freight_discount AND points_returned BETWEEN 0 AND points_spent
        AND points_clawed_back BETWEEN 0 AND points_to_earn)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX uq_order_id ON mkt_order (tenant_id, id);
CREATE INDEX idx_order_member ON mkt_order (tenant_id, member_id, id);
CREATE INDEX idx_order_deadline ON mkt_order (tenant_id, expires_at) WHERE status = 'RESERVED';
CREATE INDEX idx_order_paid ON mkt_order (tenant_id, paid_at) WHERE paid_at IS NOT NULL;
CREATE INDEX idx_order_earn ON mkt_order (tenant_id, earn_due_at) WHERE earn_due_at IS NOT NULL;

CREATE TABLE mkt_order_refund (
    tenant_id UUID NOT NULL,
    order_id TEXT NOT NULL,
    refund_id TEXT NOT NULL,
    order_uid UUID NOT NULL,
    member_id TEXT NOT NULL,
    is_full BOOLEAN NOT NULL,
    -- JSON
    lines TEXT NOT NULL,
    freight BIGINT NOT NULL CHECK (freight >= 0),
    amount BIGINT NOT NULL CHECK (amount >= freight),
    points_returned BIGINT NOT NULL CHECK (points_returned >= 0),
    points_clawed_back BIGINT NOT NULL CHECK (points_clawed_back >= 0),
    points_owed BIGINT NOT NULL CHECK (points_owed BETWEEN 0 AND points_clawed_back),
    return_transaction_id UUID,
    clawback_transaction_id UUID,
    -- JSON
    coupons TEXT NOT NULL,
    remark TEXT,
    order_status TEXT NOT NULL CHECK (order_status IN ('PARTIALLY_REFUNDED', 'REFUNDED')),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, order_id, refund_id)
);

-- Coupons that expired before their refund and could not be extended: an operator compensates the member.
CREATE TABLE mkt_coupon_refund_compensation (
    tenant_id UUID NOT NULL,
    id UUID NOT NULL,
    coupon_id UUID NOT NULL,
    template_id UUID NOT NULL,
    member_id TEXT NOT NULL,
    order_id TEXT NOT NULL,
    reason TEXT NOT NULL CHECK (reason IN ('TEMPLATE_DISABLED', 'NO_EXTENSION')),
    created_at BIGINT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('PENDING', 'RESOLVED', 'DISMISSED')),
    remark TEXT,
    closed_by UUID,
    closed_at BIGINT,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_compensation_closed CHECK ((status = 'PENDING') = (closed_at IS NULL)
        AND (status = 'PENDING') = (remark IS NULL))
);
CREATE UNIQUE INDEX uq_compensation_coupon ON mkt_coupon_refund_compensation (tenant_id, coupon_id);
CREATE INDEX idx_compensation_status ON mkt_coupon_refund_compensation (tenant_id, status, id);
