-- Rules of points and orders.

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
