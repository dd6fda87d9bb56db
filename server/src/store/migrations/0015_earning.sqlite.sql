-- What orders have granted a member in a day, a week and a month of the tenant's calendar: the latest with such a grant.
-- Days since 1970-01-01; 0 before the first.
ALTER TABLE mkt_points_account ADD COLUMN earned_day INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mkt_points_account ADD COLUMN earned_in_day INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mkt_points_account ADD COLUMN earned_in_week INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mkt_points_account ADD COLUMN earned_in_month INTEGER NOT NULL DEFAULT 0
    CONSTRAINT ck_account_earned CHECK (earned_in_day >= 0 AND earned_in_week >= earned_in_day
        AND earned_in_month >= earned_in_day);

-- What limits for these periods kept back of an order's earnings, and, as JSON, whose limit it was and what each line got.
ALTER TABLE mkt_order ADD COLUMN points_cut INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mkt_order ADD COLUMN earn_cut TEXT
    CONSTRAINT ck_order_cut CHECK ((earn_cut IS NULL) = (points_cut = 0) AND points_cut >= 0
        AND points_granted + points_cut <= points_to_earn AND points_clawed_back + points_cut <= points_to_earn);
