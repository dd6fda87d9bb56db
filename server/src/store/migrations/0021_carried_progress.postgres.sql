-- What of a member's progress came with accounts that were merged into theirs. Those merged before had left theirs behind.
ALTER TABLE mkt_user_task_progress ADD COLUMN carried_steps BIGINT NOT NULL DEFAULT 0
    CONSTRAINT ck_progress_carried_steps CHECK (carried_steps >= 0);
ALTER TABLE mkt_user_task_progress ADD COLUMN carried_completions BIGINT NOT NULL DEFAULT 0
    CONSTRAINT ck_progress_carried CHECK (carried_completions BETWEEN 0 AND completions);
ALTER TABLE mkt_user_task_progress ADD COLUMN carried_total BIGINT NOT NULL DEFAULT 0
    CONSTRAINT ck_progress_carried_total CHECK (carried_total BETWEEN carried_completions AND total_completions);
