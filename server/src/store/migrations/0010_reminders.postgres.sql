-- How far a tenant's members were reminded of points that expire in so many days: up to this lot, in the order of expiry.
CREATE TABLE points_reminder (
    tenant_id UUID NOT NULL,
    days_before BIGINT NOT NULL CHECK (days_before BETWEEN 1 AND 365),
    expires_at BIGINT NOT NULL,
    lot_id UUID NOT NULL,
    PRIMARY KEY (tenant_id, days_before)
);
