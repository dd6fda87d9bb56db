-- A member's holds by status, newest first.
CREATE INDEX idx_points_hold_status ON mkt_points_hold (tenant_id, member_id, status, id);
