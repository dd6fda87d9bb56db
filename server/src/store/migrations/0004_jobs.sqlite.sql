-- Work for later, claimed by one runner at a time. Jobs of the server itself stand under the tenant of all zeros.
CREATE TABLE job (
    tenant_id BLOB NOT NULL,
    id BLOB NOT NULL,
    kind TEXT NOT NULL,
    -- Which slots of a node it takes; follows from the kind.
    pool TEXT NOT NULL CHECK (pool IN ('SHORT', 'LONG', 'RECURRING')),
    payload TEXT NOT NULL,
    priority INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 2),
    max_attempts INTEGER NOT NULL CHECK (max_attempts >= 1),
    every INTEGER CHECK (every > 0),
    created_at INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('QUEUED', 'RUNNING', 'DONE', 'DEAD', 'CANCELLED')),
    run_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL CHECK (attempts >= 0),
    fence INTEGER NOT NULL,
    lease_holder BLOB,
    lease_until INTEGER,
    progress TEXT NOT NULL,
    last_error TEXT,
    updated_at INTEGER NOT NULL,
    finished_at INTEGER,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_job_fence CHECK (fence >= attempts),
    CONSTRAINT ck_job_lease CHECK ((state = 'RUNNING') = (lease_holder IS NOT NULL)
        AND (lease_holder IS NULL) = (lease_until IS NULL)),
    CONSTRAINT ck_job_finished CHECK ((state IN ('QUEUED', 'RUNNING')) = (finished_at IS NULL))
) STRICT;
CREATE INDEX idx_job_due ON job (pool, priority, run_at) WHERE state = 'QUEUED';
CREATE INDEX idx_job_lease ON job (lease_until) WHERE state = 'RUNNING';
CREATE INDEX idx_job_state ON job (tenant_id, state, id);
CREATE INDEX idx_job_finished ON job (state, finished_at) WHERE finished_at IS NOT NULL;

-- What only one node may do at a time. The token grows with every holder: what a former one writes late can be told.
CREATE TABLE lease (
    name TEXT NOT NULL PRIMARY KEY,
    holder BLOB NOT NULL,
    token INTEGER NOT NULL CHECK (token >= 1),
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
