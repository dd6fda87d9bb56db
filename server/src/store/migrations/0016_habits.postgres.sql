-- A day that was missed and made up, and the debit of what that cost.
ALTER TABLE mkt_points_check_in ADD COLUMN made_up BOOLEAN NOT NULL DEFAULT false;
ALTER TABLE mkt_points_check_in ADD COLUMN price_transaction_id UUID;
ALTER TABLE mkt_points_check_in ADD CONSTRAINT ck_check_in_price CHECK (made_up OR price_transaction_id IS NULL);
