-- Every 32nd line of an account bears what the account's other columns are after it, as JSON; the others bear nothing.
ALTER TABLE mkt_points_transaction ADD COLUMN totals TEXT;

-- Lines that took effect before they were written: the only ones that may be out of their times' order. Most lines are not here.
CREATE INDEX idx_points_transaction_late ON mkt_points_transaction (tenant_id, member_id, sequence)
    WHERE occurred_at < recorded_at;
