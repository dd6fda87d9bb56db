-- When the rows of a bulk and their results went, after their time; what it has counted stays.
ALTER TABLE bulk ADD COLUMN results_dropped_at INTEGER
    CONSTRAINT ck_bulk_results CHECK (results_dropped_at IS NULL OR finished_at IS NOT NULL);
