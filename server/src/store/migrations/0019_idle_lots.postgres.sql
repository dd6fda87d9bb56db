-- Lots that expire by inactivity: after how many days of it.
ALTER TABLE mkt_points_lot ADD COLUMN idle_days BIGINT
    CONSTRAINT ck_lot_idle CHECK (idle_days IS NULL OR (idle_days > 0 AND expires_at < 9223372036854775807));

-- Until when the ends of an account's idle lots are where its activity has moved them to. None: it has no such lots.
ALTER TABLE mkt_points_account ADD COLUMN idle_moved_until BIGINT;
