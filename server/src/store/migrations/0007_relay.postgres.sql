-- Events out: webhooks, how far each has come, what waits behind a refused event, and what was sent; the broker's place.

CREATE TABLE webhook (
    tenant_id UUID NOT NULL REFERENCES tenant (tenant_id),
    id UUID NOT NULL,
    url TEXT NOT NULL,
    -- JSON: names of kinds of events; an empty list means all.
    types TEXT NOT NULL,
    description TEXT NOT NULL,
    -- NULL while it is enabled.
    disabled_reason TEXT CHECK (disabled_reason IN ('OPERATOR', 'EXHAUSTED', 'GONE')),
    secret TEXT NOT NULL,
    previous_secret TEXT,
    previous_until BIGINT,
    starts_tx BIGINT NOT NULL,
    starts_ordinal BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_webhook_previous CHECK ((previous_secret IS NULL) = (previous_until IS NULL))
);

-- Everything up to (tx, ordinal) was delivered, or is parked. Missing until the first page.
CREATE TABLE webhook_progress (
    tenant_id UUID NOT NULL,
    webhook_id UUID NOT NULL,
    tx BIGINT NOT NULL,
    ordinal BIGINT NOT NULL,
    -- Grows with every change by an operator, so that a page under way does not undo it.
    generation BIGINT NOT NULL,
    -- Whether the receiver answered nothing but refusals lately.
    down BOOLEAN NOT NULL,
    PRIMARY KEY (tenant_id, webhook_id),
    FOREIGN KEY (tenant_id, webhook_id) REFERENCES webhook (tenant_id, id) ON DELETE CASCADE
) WITH (fillfactor = 60);

-- Events that were refused, and those of the same subject behind them: their places in the log only.
CREATE TABLE webhook_parked (
    tenant_id UUID NOT NULL,
    webhook_id UUID NOT NULL,
    tx BIGINT NOT NULL,
    ordinal BIGINT NOT NULL,
    subject TEXT NOT NULL,
    -- How often it was refused.
    attempts BIGINT NOT NULL CHECK (attempts >= 0),
    -- When the next attempt is due; never for those behind another one of their subject.
    due_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, webhook_id, tx, ordinal),
    FOREIGN KEY (tenant_id, webhook_id) REFERENCES webhook (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX idx_webhook_parked_due ON webhook_parked (tenant_id, webhook_id, due_at);

-- What was sent and what came back, for some days.
CREATE TABLE webhook_delivery (
    tenant_id UUID NOT NULL,
    webhook_id UUID NOT NULL,
    id UUID NOT NULL,
    -- EVENT, RESEND or TEST.
    kind TEXT NOT NULL,
    event_id UUID NOT NULL,
    event_type TEXT NOT NULL,
    -- Where the event stands in the log; NULL for a test.
    tx BIGINT,
    ordinal BIGINT,
    attempt BIGINT NOT NULL CHECK (attempt >= 1),
    succeeded BOOLEAN NOT NULL,
    -- The answer's status; NULL when there was no answer.
    status BIGINT,
    -- What went wrong, in words.
    error TEXT,
    -- The beginning of the answer's body.
    response TEXT NOT NULL,
    latency_us BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, webhook_id, id),
    FOREIGN KEY (tenant_id, webhook_id) REFERENCES webhook (tenant_id, id) ON DELETE CASCADE
);

-- How far a tenant's events have been published to the broker.
CREATE TABLE broker_progress (
    tenant_id UUID NOT NULL PRIMARY KEY,
    tx BIGINT NOT NULL,
    ordinal BIGINT NOT NULL,
    -- Grows with every rewind.
    generation BIGINT NOT NULL
) WITH (fillfactor = 60);
