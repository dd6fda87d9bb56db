-- The version of the rules that was asked: of a claw-back of a grant what becomes of points that are not there any more, of points
-- that an operator moved whether they need an approval. None for accounts that were imported. And how many points were written off.
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
UPDATE mkt_points_transaction SET rules_version = coalesce((SELECT r.version FROM mkt_points_rule r
        WHERE r.tenant_id = mkt_points_transaction.tenant_id AND r.effective_from <= mkt_points_transaction.recorded_at
        ORDER BY r.effective_from DESC, r.version DESC LIMIT 1), 0)
    WHERE type IN ('EARN_ADMIN', 'DEDUCT_ADMIN')
    AND recorded_at <> (SELECT b.recorded_at FROM mkt_points_transaction b
        WHERE b.tenant_id = mkt_points_transaction.tenant_id AND b.member_id = mkt_points_transaction.member_id
        AND b.sequence = 1);
