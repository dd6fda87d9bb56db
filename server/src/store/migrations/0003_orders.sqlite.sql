-- Rules of points and orders.

-- What operators set, one row for each version, never changed. Which one holds at a time follows from effective_from.
CREATE TABLE mkt_points_rule (
    tenant_id BLOB NOT NULL REFERENCES tenant (tenant_id),
    version INTEGER NOT NULL CHECK (version >= 1),
    effective_from INTEGER NOT NULL,
    rules TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, version)
) STRICT;
CREATE INDEX idx_points_rule_date ON mkt_points_rule (tenant_id, effective_from, version);
