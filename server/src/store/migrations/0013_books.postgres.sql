-- A member's holds by status, newest first.
CREATE INDEX idx_points_hold_status ON mkt_points_hold (tenant_id, member_id, status, id);

-- A read model: whose points those of a merged member are now. It may be deleted with the others.
CREATE TABLE board_owner (
    tenant_id UUID NOT NULL,
    member_id TEXT NOT NULL,
    owner_id TEXT NOT NULL,
    PRIMARY KEY (tenant_id, member_id)
);
