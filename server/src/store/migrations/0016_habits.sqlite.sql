-- A day that was missed and made up, and the debit of what that cost.
ALTER TABLE mkt_points_check_in ADD COLUMN made_up INTEGER NOT NULL DEFAULT 0 CHECK (made_up IN (0, 1));
ALTER TABLE mkt_points_check_in ADD COLUMN price_transaction_id BLOB
    CONSTRAINT ck_check_in_price CHECK (made_up OR price_transaction_id IS NULL);
