-- Work for later, claimed by one runner at a time. Jobs of the server itself stand under the tenant of all zeros.
CREATE TABLE job (
    tenant_id UUID NOT NULL,
    id UUID NOT NULL,
    kind TEXT NOT NULL,
    -- Which slots of a node it takes; follows from the kind.
    pool TEXT NOT NULL CHECK (pool IN ('SHORT', 'LONG', 'RECURRING')),
    payload TEXT NOT NULL,
    priority BIGINT NOT NULL CHECK (priority BETWEEN 0 AND 2),
    max_attempts BIGINT NOT NULL CHECK (max_attempts >= 1),
    every BIGINT CHECK (every > 0),
    created_at BIGINT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('QUEUED', 'RUNNING', 'DONE', 'DEAD', 'CANCELLED')),
    run_at BIGINT NOT NULL,
    attempts BIGINT NOT NULL CHECK (attempts >= 0),
    fence BIGINT NOT NULL,
    lease_holder UUID,
    lease_until BIGINT,
    progress TEXT NOT NULL,
    last_error TEXT,
    updated_at BIGINT NOT NULL,
    finished_at BIGINT,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_job_fence CHECK (fence >= attempts),
    CONSTRAINT ck_job_lease CHECK ((state = 'RUNNING') = (lease_holder IS NOT NULL)
        AND (lease_holder IS NULL) = (lease_until IS NULL)),
    CONSTRAINT ck_job_finished CHECK ((state IN ('QUEUED', 'RUNNING')) = (finished_at IS NULL))
) WITH (fillfactor = 70);
CREATE INDEX idx_job_due ON job (pool, priority, run_at) WHERE state = 'QUEUED';
CREATE INDEX idx_job_lease ON job (lease_until) WHERE state = 'RUNNING';
CREATE INDEX idx_job_state ON job (tenant_id, state, id);
CREATE INDEX idx_job_finished ON job (state, finished_at) WHERE finished_at IS NOT NULL;

-- What only one node may do at a time. The token grows with every holder: what a former one writes late can be told.
CREATE TABLE lease (
    name TEXT NOT NULL PRIMARY KEY,
    holder UUID NOT NULL,
    token BIGINT NOT NULL CHECK (token >= 1),
    until BIGINT NOT NULL
);

-- Many rows worked off by a job: coupons of a template for many members, or grants of points.
-- row_count = accepted + refused + skipped + the rows of the chunks from next_chunk on.
CREATE TABLE bulk (
    tenant_id UUID NOT NULL,
    id UUID NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('DISTRIBUTION', 'POINTS_GRANTS')),
    template_id UUID,
    row_count BIGINT NOT NULL CHECK (row_count BETWEEN 1 AND 1000000),
    chunks BIGINT NOT NULL CHECK (chunks >= 1),
    skipped BIGINT NOT NULL CHECK (skipped >= 0),
    actor_id UUID,
    created_at BIGINT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('RUNNING', 'DONE', 'CANCELLED')),
    next_chunk BIGINT NOT NULL CHECK (next_chunk >= 0),
    accepted BIGINT NOT NULL CHECK (accepted >= 0),
    refused BIGINT NOT NULL CHECK (refused >= 0),
    updated_at BIGINT NOT NULL,
    finished_at BIGINT,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_bulk_template CHECK ((kind = 'DISTRIBUTION') = (template_id IS NOT NULL)),
    CONSTRAINT ck_bulk_rows CHECK (accepted + refused + skipped <= row_count AND next_chunk <= chunks),
    CONSTRAINT ck_bulk_finished CHECK ((status = 'RUNNING') = (finished_at IS NULL)),
    CONSTRAINT ck_bulk_done CHECK ((status = 'DONE') = (next_chunk = chunks))
) WITH (fillfactor = 50);
CREATE INDEX idx_bulk_kind ON bulk (tenant_id, kind, id);

-- Rows of a bulk as JSON, never changed, and what came of them; the unit in which a bulk is worked off.
CREATE TABLE bulk_chunk (
    tenant_id UUID NOT NULL,
    bulk_id UUID NOT NULL,
    number BIGINT NOT NULL CHECK (number >= 0),
    first_row BIGINT NOT NULL CHECK (first_row >= 1),
    rows TEXT NOT NULL,
    skipped BIGINT NOT NULL CHECK (skipped >= 0),
    outcomes TEXT,
    accepted BIGINT NOT NULL CHECK (accepted >= 0),
    refused BIGINT NOT NULL CHECK (refused >= 0),
    PRIMARY KEY (tenant_id, bulk_id, number)
);
-- One entry for each bulk: finds those that were staged and never begun.
CREATE INDEX idx_bulk_chunk_first ON bulk_chunk (bulk_id) WHERE number = 0;

-- Up to when the beginnings and ends of a tenant's issue windows have been told as events.
CREATE TABLE template_window (
    tenant_id UUID NOT NULL PRIMARY KEY,
    announced_until BIGINT NOT NULL
);
-- Finds windows by their end; idx_template_distribution_time finds them by their beginning.
CREATE INDEX idx_template_distribution_end ON mkt_coupon_template (tenant_id, distribution_ends_at)
    WHERE distribution_ends_at IS NOT NULL;
