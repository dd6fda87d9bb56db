-- What members do beside orders: points that come later or change hands, check-ins, tasks.

-- Closed: everything of the account belongs to this member.
ALTER TABLE mkt_points_account ADD COLUMN merged_into TEXT;
CREATE INDEX idx_points_account_merged ON mkt_points_account (tenant_id, member_id) WHERE merged_into IS NOT NULL;

-- A pending hold keeps a grant until its points become available.
ALTER TABLE mkt_points_hold ADD COLUMN pending INTEGER NOT NULL DEFAULT 0 CHECK (pending IN (0, 1));
CREATE INDEX idx_points_hold_pending ON mkt_points_hold (tenant_id, member_id) WHERE status = 'OPEN' AND pending;

-- Of a transfer: the line on the other account.
ALTER TABLE mkt_points_transaction ADD COLUMN counterpart_id BLOB;

-- Many lots expire at one instant, the end of a day: the id makes a page of them a range.
DROP INDEX idx_points_lot_expire;
CREATE INDEX idx_points_lot_expire ON mkt_points_lot (tenant_id, expires_at, id) WHERE open;

-- The most points one administrative adjustment by this key may move; null is unlimited.
ALTER TABLE api_key ADD COLUMN adjustment_limit INTEGER CHECK (adjustment_limit >= 0);

-- Days count from 1970-01-01, where the tenant is.
CREATE TABLE mkt_points_check_in (
    tenant_id BLOB NOT NULL,
    member_id TEXT NOT NULL,
    day INTEGER NOT NULL,
    streak INTEGER NOT NULL,
    points INTEGER NOT NULL,
    bonus INTEGER NOT NULL,
    transaction_id BLOB NOT NULL,
    checked_in_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, member_id, day),
    CONSTRAINT ck_check_in_points CHECK (streak >= 1 AND bonus >= 0 AND points > bonus)
) STRICT, WITHOUT ROWID;

CREATE TABLE mkt_points_task (
    tenant_id BLOB NOT NULL,
    task_key TEXT NOT NULL,
    id BLOB NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 1),
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    event_type TEXT,
    definition TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER,
    PRIMARY KEY (tenant_id, task_key),
    CONSTRAINT ck_task_deleted CHECK (deleted_at IS NULL OR NOT enabled)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX uq_points_task_id ON mkt_points_task (tenant_id, id);

-- How far a member is with a task in the period that begins with this day.
CREATE TABLE mkt_user_task_progress (
    tenant_id BLOB NOT NULL,
    member_id TEXT NOT NULL,
    task_key TEXT NOT NULL,
    period_start INTEGER NOT NULL,
    steps INTEGER NOT NULL,
    completions INTEGER NOT NULL,
    total_completions INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, member_id, task_key),
    CONSTRAINT ck_task_progress CHECK (steps >= 0 AND completions >= 0 AND total_completions >= completions)
) STRICT, WITHOUT ROWID;

-- Each report of a task, once; those that completed it have their grant.
CREATE TABLE mkt_user_task_completion (
    tenant_id BLOB NOT NULL,
    member_id TEXT NOT NULL,
    task_key TEXT NOT NULL,
    completion_id TEXT NOT NULL,
    period_start INTEGER NOT NULL,
    step INTEGER NOT NULL,
    target INTEGER NOT NULL,
    points INTEGER NOT NULL,
    transaction_id BLOB,
    reported_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, member_id, task_key, completion_id),
    CONSTRAINT ck_task_completion CHECK (step >= 1
        AND ((transaction_id IS NULL AND points = 0) OR (transaction_id IS NOT NULL AND points > 0 AND step >= target)))
) STRICT, WITHOUT ROWID;

-- How far the event log has been looked at for tasks.
CREATE TABLE task_cursor (
    tenant_id BLOB NOT NULL PRIMARY KEY,
    tx INTEGER NOT NULL,
    ordinal INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
