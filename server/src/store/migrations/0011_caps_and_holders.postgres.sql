-- The latest week and the latest month under a cap, or none.
ALTER TABLE mkt_coupon_template ADD COLUMN week_starts_at BIGINT;
ALTER TABLE mkt_coupon_template ADD COLUMN week_ends_at BIGINT;
ALTER TABLE mkt_coupon_template ADD COLUMN week_claimed BIGINT;
ALTER TABLE mkt_coupon_template ADD COLUMN week_ceiling BIGINT
    CONSTRAINT ck_template_week CHECK ((week_starts_at IS NULL AND week_ends_at IS NULL AND week_claimed IS NULL AND week_ceiling IS NULL)
        OR (week_starts_at < week_ends_at AND week_claimed BETWEEN 0 AND week_ceiling));
ALTER TABLE mkt_coupon_template ADD COLUMN month_starts_at BIGINT;
ALTER TABLE mkt_coupon_template ADD COLUMN month_ends_at BIGINT;
ALTER TABLE mkt_coupon_template ADD COLUMN month_claimed BIGINT;
ALTER TABLE mkt_coupon_template ADD COLUMN month_ceiling BIGINT
    CONSTRAINT ck_template_month CHECK ((month_starts_at IS NULL AND month_ends_at IS NULL AND month_claimed IS NULL AND month_ceiling IS NULL)
        OR (month_starts_at < month_ends_at AND month_claimed BETWEEN 0 AND month_ceiling));

-- Who alone may claim with a code; none is anybody.
ALTER TABLE mkt_coupon_code ADD COLUMN member_id TEXT;
