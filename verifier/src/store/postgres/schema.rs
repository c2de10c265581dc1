//! The schema, as steps. A step that was released is never changed; a new one is added. What columns mean is written at those of
//! [`crate::store::sqlite`], which are the same; an order of texts is that of their bytes.

use super::session::{Held, Session, failure};
use crate::store::{Result, StoreError};

/// Step N brings a database of version N to N + 1.
const STEPS: &[&str] = &[STEP_0, STEP_1, STEP_2, STEP_3];

const STEP_0: &str = r#"
CREATE TABLE meta (key TEXT PRIMARY KEY, value BIGINT NOT NULL);

CREATE TABLE clients (
    fingerprint TEXT PRIMARY KEY,
    name        TEXT COLLATE "C" NOT NULL,
    kind        TEXT COLLATE "C" NOT NULL,
    added_at    BIGINT NOT NULL,
    tag         BYTEA,
    UNIQUE (kind, name)
);

-- id: what a row is named by while its source is made room in.
CREATE TABLE registrations (
    node_id       TEXT COLLATE "C" PRIMARY KEY,
    ak_name       BYTEA NOT NULL,
    srk_name      BYTEA NOT NULL,
    label         TEXT NOT NULL,
    source        TEXT COLLATE "C" NOT NULL,
    challenge     BYTEA NOT NULL,
    issued        BIGINT NOT NULL,
    registered_at BIGINT NOT NULL,
    last_seen     BIGINT NOT NULL,
    kept          BOOLEAN NOT NULL,
    register      TEXT NOT NULL,
    id            BIGINT GENERATED ALWAYS AS IDENTITY UNIQUE
);
CREATE INDEX registrations_unenrolled ON registrations (source, last_seen) WHERE NOT kept;
CREATE INDEX registrations_by_label ON registrations (label);

CREATE TABLE strangers (
    hour   BIGINT NOT NULL,
    action TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    count  BIGINT NOT NULL,
    PRIMARY KEY (hour, action, source)
);

CREATE TABLE documents (
    number       BIGINT PRIMARY KEY,
    scope        TEXT NOT NULL,
    sha256       BYTEA NOT NULL,
    handed_in_at BIGINT NOT NULL,
    handed_in_by TEXT NOT NULL,
    signatures   BYTEA NOT NULL,
    document     BYTEA NOT NULL,
    tag          BYTEA
);

CREATE TABLE nodes (
    node_id             TEXT COLLATE "C" PRIMARY KEY,
    label               TEXT NOT NULL,
    revoked_because     TEXT,
    group_name          TEXT,
    group_number        BIGINT,
    held_by             TEXT,
    held_because        TEXT,
    tpm_firmware        TEXT,
    tpm_firmware_before TEXT,
    tpm_firmware_since  BIGINT,
    last_seen           BIGINT NOT NULL,
    last_outcome        TEXT,
    last_code           TEXT
);

CREATE TABLE enrollments (
    enrollment_id     TEXT PRIMARY KEY,
    node_id           TEXT COLLATE "C" NOT NULL REFERENCES nodes,
    state             TEXT NOT NULL CHECK (state IN ('open', 'current', 'replaced')),
    number            BIGINT NOT NULL,
    tenant_key        BYTEA NOT NULL,
    registration      TEXT NOT NULL,
    bank              TEXT NOT NULL,
    c_v_id            BYTEA,
    c_v_secret        BYTEA,
    c_u               BYTEA,
    fetched_by        TEXT,
    reset_count       BIGINT,
    restart_count     BIGINT,
    clock             BIGINT,
    released_evidence BIGINT,
    released_reset    BIGINT,
    released_restart  BIGINT,
    released_fence    BYTEA,
    released_boot     TEXT,
    released_proposal BIGINT,
    released_twin     BIGINT,
    released_tag      BYTEA,
    released_base     TEXT,
    enrolled_at       BIGINT NOT NULL,
    enrolled_by       TEXT NOT NULL,
    proved_at         BIGINT
);
CREATE UNIQUE INDEX enrollments_one_open ON enrollments (node_id) WHERE state = 'open';
CREATE UNIQUE INDEX enrollments_one_current ON enrollments (node_id) WHERE state = 'current';
CREATE INDEX enrollments_by_node ON enrollments (node_id, state);

CREATE TABLE tenant_keys (
    operator   TEXT NOT NULL,
    tenant_key BYTEA NOT NULL,
    first_used BIGINT NOT NULL,
    PRIMARY KEY (operator, tenant_key)
);

CREATE TABLE boots (
    node_id        TEXT COLLATE "C" NOT NULL REFERENCES nodes,
    ticket         TEXT NOT NULL,
    evidence_id    BIGINT NOT NULL,
    code           TEXT NOT NULL,
    message        TEXT NOT NULL,
    approvable     BOOLEAN NOT NULL,
    findings       TEXT NOT NULL,
    since          BIGINT NOT NULL,
    expires        BIGINT NOT NULL,
    decision       TEXT CHECK (decision IN ('approved', 'denied')),
    decided_by     TEXT,
    because        TEXT,
    approved_until BIGINT,
    used_at        BIGINT,
    approval_tag   BYTEA,
    PRIMARY KEY (node_id, ticket)
);

CREATE TABLE evidence (
    id             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node_id        TEXT COLLATE "C" NOT NULL REFERENCES nodes,
    at             BIGINT NOT NULL,
    purpose        TEXT NOT NULL,
    outcome        TEXT NOT NULL,
    code           TEXT,
    message        TEXT NOT NULL,
    authentic      BOOLEAN NOT NULL,
    reset_count    BIGINT,
    restart_count  BIGINT,
    clock          BIGINT,
    tpm_firmware   TEXT,
    expected_fence BYTEA,
    twin           BIGINT,
    findings       TEXT NOT NULL,
    evidence       TEXT NOT NULL,
    event_log      BYTEA,
    systemd_log    BYTEA,
    ima_log        BYTEA
);
CREATE INDEX evidence_by_node ON evidence (node_id, authentic, id);

CREATE TABLE policies (
    scope      TEXT NOT NULL,
    version    BIGINT NOT NULL,
    name       TEXT NOT NULL,
    tenant_key BYTEA NOT NULL,
    sha256     BYTEA NOT NULL,
    applied_at BIGINT NOT NULL,
    applied_by TEXT NOT NULL,
    PRIMARY KEY (scope, version)
);

CREATE TABLE proposals (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node_id       TEXT COLLATE "C" NOT NULL REFERENCES nodes,
    sha256        BYTEA NOT NULL,
    at            BIGINT NOT NULL,
    state         TEXT NOT NULL
                  CHECK (state IN ('waiting', 'accepted', 'trusted', 'booted', 'denied', 'superseded')),
    message       TEXT NOT NULL,
    from_evidence BIGINT NOT NULL,
    base_boot     TEXT,
    by_trust      BOOLEAN NOT NULL,
    trusted_scope TEXT,
    trusted_since BIGINT,
    tag           BYTEA,
    proposal      TEXT NOT NULL,
    made          BYTEA,
    UNIQUE (node_id, sha256)
);
CREATE INDEX proposals_by_node ON proposals (node_id, at);
CREATE INDEX proposals_waiting ON proposals (id) WHERE state = 'waiting';

CREATE TABLE trust_given (
    node_id TEXT COLLATE "C" NOT NULL REFERENCES nodes,
    scope   TEXT NOT NULL,
    since   BIGINT NOT NULL,
    times   BIGINT NOT NULL,
    PRIMARY KEY (node_id, scope, since)
);

CREATE TABLE audit (
    seq     BIGINT PRIMARY KEY,
    at      BIGINT NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    node_id TEXT COLLATE "C",
    detail  TEXT NOT NULL,
    hash    BYTEA
);
CREATE INDEX audit_by_node ON audit (node_id, seq) WHERE node_id IS NOT NULL;
"#;

const STEP_1: &str = "
CREATE INDEX registrations_listed ON registrations (node_id) INCLUDE (label, last_seen);
CREATE INDEX enrollments_cloned ON enrollments (node_id) WHERE state = 'current' AND released_twin IS NOT NULL;
";

const STEP_2: &str = "
CREATE TABLE logs (
    id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node_id TEXT COLLATE \"C\" NOT NULL REFERENCES nodes,
    sha256  BYTEA NOT NULL,
    bytes   BIGINT NOT NULL,
    log     BYTEA NOT NULL,
    UNIQUE (node_id, sha256) INCLUDE (id, bytes)
);
ALTER TABLE evidence ADD COLUMN event_log_id BIGINT, ADD COLUMN systemd_log_id BIGINT, ADD COLUMN ima_log_id BIGINT;
DROP INDEX evidence_by_node;
CREATE INDEX evidence_by_kind ON evidence (node_id, authentic, outcome, id)
    INCLUDE (event_log_id, systemd_log_id, ima_log_id);
";

const STEP_3: &str = r#"
CREATE TABLE notices (
    id       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint TEXT COLLATE "C" NOT NULL,
    message  TEXT NOT NULL,
    at       BIGINT NOT NULL,
    body     TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    due      BIGINT NOT NULL
);
CREATE INDEX notices_by_endpoint ON notices (endpoint, id);
"#;

/// Brings a database to the schema of this build. Servers that start at the same time wait for each other.
///
/// # Errors
/// When it was made by a newer build, can't hold what is kept, or can't be written.
pub async fn migrate(session: &Session) -> Result<()> {
    let done = steps(session).await;
    if done.is_err() {
        // The connection is given back.
        let _ = session.batch_execute("ROLLBACK").await;
    }
    done
}

async fn steps(session: &Session) -> Result<()> {
    let failed = |e: tokio_postgres::Error| failure(&e).error;
    let begin = format!(
        "BEGIN; SELECT {}; CREATE TABLE IF NOT EXISTS halfkey_schema (version BIGINT NOT NULL)",
        Held::Schema.exclusive()
    );
    session.batch_execute(&begin).await.map_err(failed)?;
    let rows = session.query("SELECT version FROM halfkey_schema", &[]).await.map_err(failed)?;
    let found: i64 = match rows.as_slice() {
        [] => 0,
        [row] => row.try_get(0).map_err(failed)?,
        _ => {
            return Err(StoreError::Damaged("table halfkey_schema: expected one row, found more".to_owned()));
        }
    };
    let version = usize::try_from(found).unwrap_or(usize::MAX);
    if version > STEPS.len() {
        return Err(StoreError::Newer { found: version as u64, known: STEPS.len() });
    }
    for step in &STEPS[version..] {
        session.batch_execute(step).await.map_err(failed)?;
    }
    let end =
        format!("DELETE FROM halfkey_schema; INSERT INTO halfkey_schema VALUES ({}); COMMIT", STEPS.len());
    // Most starts find it as it is.
    session.batch_execute(if version == STEPS.len() { "COMMIT" } else { &end }).await.map_err(failed)
}
