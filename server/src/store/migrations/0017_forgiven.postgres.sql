-- Of a claw-back of a grant: the version of the rules that was asked what becomes of points that are not there any more, and
-- how many were written off. No rules were asked of accounts that were imported.
ALTER TABLE mkt_points_transaction ADD COLUMN rules_version BIGINT;
ALTER TABLE mkt_points_transaction ADD COLUMN points_forgiven BIGINT NOT NULL DEFAULT 0
    CONSTRAINT ck_transaction_forgiven CHECK (points_forgiven = 0
        OR (points_forgiven > 0 AND type = 'CLAWBACK' AND reverses_id IS NOT NULL AND rules_version IS NOT NULL));

ALTER TABLE mkt_order_refund ADD COLUMN points_forgiven BIGINT NOT NULL DEFAULT 0
    CONSTRAINT ck_refund_forgiven CHECK (points_forgiven >= 0 AND points_owed + points_forgiven <= points_clawed_back);

-- What is there already: the version that held then. All lines of an import bear the time of its first.
UPDATE mkt_points_transaction SET rules_version = coalesce((SELECT r.version FROM mkt_points_rule r
        WHERE r.tenant_id = mkt_points_transaction.tenant_id AND r.effective_from <= mkt_points_transaction.occurred_at
        ORDER BY r.effective_from DESC, r.version DESC LIMIT 1), 0)
    WHERE type = 'CLAWBACK' AND reverses_id IS NOT NULL
    AND recorded_at <> (SELECT b.recorded_at FROM mkt_points_transaction b
        WHERE b.tenant_id = mkt_points_transaction.tenant_id AND b.member_id = mkt_points_transaction.member_id
        AND b.sequence = 1);
