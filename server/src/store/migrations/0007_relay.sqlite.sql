-- Events out: webhooks, how far each has come, what waits behind a refused event, and what was sent; the broker's place.

CREATE TABLE webhook (
    tenant_id BLOB NOT NULL REFERENCES tenant (tenant_id),
    id BLOB NOT NULL,
    url TEXT NOT NULL,
    -- JSON: names of kinds of events; an empty list means all.
    types TEXT NOT NULL,
    description TEXT NOT NULL,
    -- NULL while it is enabled.
    disabled_reason TEXT CHECK (disabled_reason IN ('OPERATOR', 'EXHAUSTED', 'GONE')),
    secret TEXT NOT NULL,
    previous_secret TEXT,
    previous_until INTEGER,
    starts_tx INTEGER NOT NULL,
    starts_ordinal INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_webhook_previous CHECK ((previous_secret IS NULL) = (previous_until IS NULL))
) STRICT, WITHOUT ROWID;

-- Everything up to (tx, ordinal) was delivered, or is parked. Missing until the first page.
CREATE TABLE webhook_progress (
    tenant_id BLOB NOT NULL,
    webhook_id BLOB NOT NULL,
    tx INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    -- Grows with every change by an operator, so that a page under way does not undo it.
    generation INTEGER NOT NULL,
    -- Whether the receiver answered nothing but refusals lately.
    down INTEGER NOT NULL CHECK (down IN (0, 1)),
    PRIMARY KEY (tenant_id, webhook_id),
    FOREIGN KEY (tenant_id, webhook_id) REFERENCES webhook (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- Events that were refused, and those of the same subject behind them: their places in the log only.
CREATE TABLE webhook_parked (
    tenant_id BLOB NOT NULL,
    webhook_id BLOB NOT NULL,
    tx INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    subject TEXT NOT NULL,
    -- How often it was refused.
    attempts INTEGER NOT NULL CHECK (attempts >= 0),
    -- When the next attempt is due; never for those behind another one of their subject.
    due_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, webhook_id, tx, ordinal),
    FOREIGN KEY (tenant_id, webhook_id) REFERENCES webhook (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX idx_webhook_parked_due ON webhook_parked (tenant_id, webhook_id, due_at);

-- What was sent and what came back, for some days.
CREATE TABLE webhook_delivery (
    tenant_id BLOB NOT NULL,
    webhook_id BLOB NOT NULL,
    id BLOB NOT NULL,
    -- EVENT, RESEND or TEST.
    kind TEXT NOT NULL,
    event_id BLOB NOT NULL,
    event_type TEXT NOT NULL,
    -- Where the event stands in the log; NULL for a test.
    tx INTEGER,
    ordinal INTEGER,
    attempt INTEGER NOT NULL CHECK (attempt >= 1),
    succeeded INTEGER NOT NULL CHECK (succeeded IN (0, 1)),
    -- The answer's status; NULL when there was no answer.
    status INTEGER,
    -- What went wrong, in words.
    error TEXT,
    -- The beginning of the answer's body.
    response TEXT NOT NULL,
    latency_us INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, webhook_id, id),
    FOREIGN KEY (tenant_id, webhook_id) REFERENCES webhook (tenant_id, id) ON DELETE CASCADE
) STRICT;

-- How far a tenant's events have been published to the broker.
CREATE TABLE broker_progress (
    tenant_id BLOB NOT NULL PRIMARY KEY,
    tx INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    -- Grows with every rewind.
    generation INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
