-- What members do beside orders: points that come later or change hands, check-ins, tasks.

-- Closed: everything of the account belongs to this member.
ALTER TABLE mkt_points_account ADD COLUMN merged_into TEXT;
CREATE INDEX idx_points_account_merged ON mkt_points_account (tenant_id, member_id) WHERE merged_into IS NOT NULL;

-- A pending hold keeps a grant until its points become available.
ALTER TABLE mkt_points_hold ADD COLUMN pending BOOLEAN NOT NULL DEFAULT false;
CREATE INDEX idx_points_hold_pending ON mkt_points_hold (tenant_id, member_id) WHERE status = 'OPEN' AND pending;

-- Of a transfer: the line on the other account.
ALTER TABLE mkt_points_transaction ADD COLUMN counterpart_id UUID;

-- Many lots expire at one instant, the end of a day: the id makes a page of them a range.
DROP INDEX idx_points_lot_expire;
CREATE INDEX idx_points_lot_expire ON mkt_points_lot (tenant_id, expires_at, id) WHERE open;

-- The most points one administrative adjustment by this key may move; null is unlimited.
ALTER TABLE api_key ADD COLUMN adjustment_limit BIGINT CHECK (adjustment_limit >= 0);

-- Days count from 1970-01-01, where the tenant is.
CREATE TABLE mkt_points_check_in (
    tenant_id UUID NOT NULL,
    member_id TEXT NOT NULL,
    day BIGINT NOT NULL,
    streak BIGINT NOT NULL,
    points BIGINT NOT NULL,
    bonus BIGINT NOT NULL,
    transaction_id UUID NOT NULL,
    checked_in_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, member_id, day),
    CONSTRAINT ck_check_in_points CHECK (streak >= 1 AND bonus >= 0 AND points > bonus)
);

CREATE TABLE mkt_points_task (
    tenant_id UUID NOT NULL,
    task_key TEXT NOT NULL,
    id UUID NOT NULL,
    version BIGINT NOT NULL CHECK (version >= 1),
    enabled BOOLEAN NOT NULL,
    event_type TEXT,
    definition TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    PRIMARY KEY (tenant_id, task_key),
    CONSTRAINT ck_task_deleted CHECK (deleted_at IS NULL OR NOT enabled)
);
CREATE UNIQUE INDEX uq_points_task_id ON mkt_points_task (tenant_id, id);

-- How far a member is with a task in the period that begins with this day.
CREATE TABLE mkt_user_task_progress (
    tenant_id UUID NOT NULL,
    member_id TEXT NOT NULL,
    task_key TEXT NOT NULL,
    period_start BIGINT NOT NULL,
    steps BIGINT NOT NULL,
    completions BIGINT NOT NULL,
    total_completions BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, member_id, task_key),
    CONSTRAINT ck_task_progress CHECK (steps >= 0 AND completions >= 0 AND total_completions >= completions)
) WITH (fillfactor = 85);

-- Each report of a task, once; those that completed it have their grant.
CREATE TABLE mkt_user_task_completion (
    tenant_id UUID NOT NULL,
    member_id TEXT NOT NULL,
    task_key TEXT NOT NULL,
    completion_id TEXT NOT NULL,
    period_start BIGINT NOT NULL,
    step BIGINT NOT NULL,
    target BIGINT NOT NULL,
    points BIGINT NOT NULL,
    transaction_id UUID,
    reported_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, member_id, task_key, completion_id),
    CONSTRAINT ck_task_completion CHECK (step >= 1
        AND ((transaction_id IS NULL AND points = 0) OR (transaction_id IS NOT NULL AND points > 0 AND step >= target)))
);

-- How far the event log has been looked at for tasks.
CREATE TABLE task_cursor (
    tenant_id UUID NOT NULL PRIMARY KEY,
    tx BIGINT NOT NULL,
    ordinal BIGINT NOT NULL
);
