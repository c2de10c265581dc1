//! The schema, as steps. A step that was released is never changed; a new one is added.

use super::broken;
use crate::store::{Result, StoreError};
use rusqlite::{Connection, TransactionBehavior};

/// Step N brings a database of `user_version` N to N + 1.
const STEPS: &[&str] = &[STEP_0, STEP_1, STEP_2, STEP_3, STEP_4];

// Tables with rows of single nodes are not STRICT: a row that somebody damaged beside this program could not be changed any more, by a
// statement that sets another column of it, and so not be mended either. What is read is typed in any case.
const STEP_0: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;

-- Client certificates that are accepted, by SHA-256 over the DER. tag: by the cluster key, as in other tables.
CREATE TABLE clients (
    fingerprint TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    kind        TEXT NOT NULL,
    added_at    INTEGER NOT NULL,
    tag         BLOB,
    UNIQUE (kind, name)
) STRICT;

-- The registrar's part. challenge: what the node wants to see in its enrollment, the newest that its TPM activated; issued: when the
-- registrar's own was made that it answered.
CREATE TABLE registrations (
    node_id       TEXT PRIMARY KEY,
    ak_name       BLOB NOT NULL,
    srk_name      BLOB NOT NULL,
    label         TEXT NOT NULL,
    source        TEXT NOT NULL,
    challenge     BLOB NOT NULL,
    issued        INTEGER NOT NULL,
    registered_at INTEGER NOT NULL,
    last_seen     INTEGER NOT NULL,
    kept          INTEGER NOT NULL,
    register      TEXT NOT NULL
);
CREATE INDEX registrations_unenrolled ON registrations (source, last_seen) WHERE kept = 0;
CREATE INDEX registrations_by_label ON registrations (label);

-- What strangers did in an hour, by address or IPv6 /48: in place of an entry of the audit trail for each.
CREATE TABLE strangers (
    hour   INTEGER NOT NULL,
    action TEXT NOT NULL,
    source TEXT NOT NULL,
    count  INTEGER NOT NULL,
    PRIMARY KEY (hour, action, source)
) STRICT, WITHOUT ROWID;

-- The verifier's part. Everything that tenants signed, and what operators said that has a place beside it: one sequence, of which
-- other tables are views. signatures: key and signature of each signer.
CREATE TABLE documents (
    number       INTEGER PRIMARY KEY,
    scope        TEXT NOT NULL,
    sha256       BLOB NOT NULL,
    handed_in_at INTEGER NOT NULL,
    handed_in_by TEXT NOT NULL,
    signatures   BLOB NOT NULL,
    document     BLOB NOT NULL
) STRICT;

-- group_number: the document that says so, or that it is in none. held_by: an operator holds it, its boots are denied. tpm_firmware:
-- firmwareVersion of the last quote, as 0x and 16 digits; the one before; since when.
CREATE TABLE nodes (
    node_id             TEXT PRIMARY KEY,
    label               TEXT NOT NULL,
    revoked_because     TEXT,
    group_name          TEXT,
    group_number        INTEGER,
    held_by             TEXT,
    held_because        TEXT,
    tpm_firmware        TEXT,
    tpm_firmware_before TEXT,
    tpm_firmware_since  INTEGER,
    last_seen           INTEGER NOT NULL,
    last_outcome        TEXT,
    last_code           TEXT
);

-- c_u: C_U, encrypted by the cluster key; anew for the boot that has fetched it. released_*: the last boot that was released, what a proposal may come from;
-- released_proposal: the proposal that this boot of the policy comes from, released_base: the policy's boot that this one took shim and
-- loader from; released_twin: a release before it with the same
-- resetCount and restartCount, and another r; released_tag: by the cluster key, over all of them but the twin.
CREATE TABLE enrollments (
    enrollment_id     TEXT PRIMARY KEY,
    node_id           TEXT NOT NULL REFERENCES nodes,
    state             TEXT NOT NULL CHECK (state IN ('open', 'current', 'replaced')),
    number            INTEGER NOT NULL,
    tenant_key        BLOB NOT NULL,
    registration      TEXT NOT NULL,
    bank              TEXT NOT NULL,
    c_v_id            BLOB,
    c_v_secret        BLOB,
    c_u               BLOB,
    fetched_by        TEXT,
    reset_count       INTEGER,
    restart_count     INTEGER,
    clock             INTEGER,
    released_evidence INTEGER,
    released_reset    INTEGER,
    released_restart  INTEGER,
    released_fence    BLOB,
    released_boot     TEXT,
    released_proposal INTEGER,
    released_twin     INTEGER,
    released_tag      BLOB,
    released_base     TEXT,
    enrolled_at       INTEGER NOT NULL,
    enrolled_by       TEXT NOT NULL,
    proved_at         INTEGER
);
CREATE UNIQUE INDEX enrollments_one_open ON enrollments (node_id) WHERE state = 'open';
CREATE UNIQUE INDEX enrollments_one_current ON enrollments (node_id) WHERE state = 'current';

-- Tenant keys that an operator has enrolled with.
CREATE TABLE tenant_keys (
    operator   TEXT NOT NULL,
    tenant_key BLOB NOT NULL,
    first_used INTEGER NOT NULL,
    PRIMARY KEY (operator, tenant_key)
) STRICT, WITHOUT ROWID;

-- Boots that wait for an operator, and what the operator said. approval_tag: of an approval that was not used.
CREATE TABLE boots (
    node_id        TEXT NOT NULL REFERENCES nodes,
    ticket         TEXT NOT NULL,
    evidence_id    INTEGER NOT NULL,
    code           TEXT NOT NULL,
    message        TEXT NOT NULL,
    approvable     INTEGER NOT NULL,
    findings       TEXT NOT NULL,
    since          INTEGER NOT NULL,
    expires        INTEGER NOT NULL,
    decision       TEXT CHECK (decision IN ('approved', 'denied')),
    decided_by     TEXT,
    because        TEXT,
    approved_until INTEGER,
    used_at        INTEGER,
    approval_tag   BLOB,
    PRIMARY KEY (node_id, ticket)
) WITHOUT ROWID;

CREATE TABLE evidence (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id        TEXT NOT NULL REFERENCES nodes,
    at             INTEGER NOT NULL,
    purpose        TEXT NOT NULL,
    outcome        TEXT NOT NULL,
    code           TEXT,
    message        TEXT NOT NULL,
    authentic      INTEGER NOT NULL,
    reset_count    INTEGER,
    restart_count  INTEGER,
    clock          INTEGER,
    tpm_firmware   TEXT,
    expected_fence BLOB,
    twin           INTEGER,
    findings       TEXT NOT NULL,
    evidence       TEXT NOT NULL,
    event_log      BLOB,
    systemd_log    BLOB,
    ima_log        BLOB
);
CREATE INDEX evidence_by_node ON evidence (node_id, authentic, id);

-- Every version is kept; one without a name withdraws the policy. The version is the number of the document.
CREATE TABLE policies (
    scope      TEXT NOT NULL,
    version    INTEGER NOT NULL,
    name       TEXT NOT NULL,
    tenant_key BLOB NOT NULL,
    sha256     BLOB NOT NULL,
    applied_at INTEGER NOT NULL,
    applied_by TEXT NOT NULL,
    PRIMARY KEY (scope, version)
) STRICT;

-- by_trust: allowed by trust_root_with_next_boot alone, with a tag. trusted_scope: where that ever was so, and trusted_since in whose
-- tenant's time, and with which storage key of its TPM.
CREATE TABLE proposals (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id       TEXT NOT NULL REFERENCES nodes,
    sha256        BLOB NOT NULL,
    at            INTEGER NOT NULL,
    state         TEXT NOT NULL
                  CHECK (state IN ('waiting', 'accepted', 'trusted', 'booted', 'denied', 'superseded')),
    message       TEXT NOT NULL,
    from_evidence INTEGER NOT NULL,
    base_boot     TEXT,
    by_trust      INTEGER NOT NULL,
    trusted_scope TEXT,
    trusted_since INTEGER,
    tag           BLOB,
    proposal      TEXT NOT NULL,
    made          BLOB,
    UNIQUE (node_id, sha256)
);

-- How often trust_root_with_next_boot has accepted a proposal of a node under a scope, in whose tenant's time.
CREATE TABLE trust_given (
    node_id TEXT NOT NULL REFERENCES nodes,
    scope   TEXT NOT NULL,
    since   INTEGER NOT NULL,
    times   INTEGER NOT NULL,
    PRIMARY KEY (node_id, scope, since)
) STRICT;
CREATE INDEX proposals_by_node ON proposals (node_id, at);
CREATE INDEX proposals_waiting ON proposals (id) WHERE state = 'waiting';

-- hash: over the entry and the hash of the one before.
CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    node_id TEXT,
    detail  TEXT NOT NULL,
    hash    BLOB
) STRICT;
CREATE INDEX audit_by_node ON audit (node_id, seq) WHERE node_id IS NOT NULL;
";

// A server took it. Those of before have none, and are what the state file says.
const STEP_1: &str = "ALTER TABLE documents ADD COLUMN tag BLOB;";

// A list of nodes reads no row of a registration, which is as large as the node's keys, and of an enrollment only those that are
// cloned.
const STEP_2: &str = "
CREATE INDEX registrations_listed ON registrations (node_id, label, last_seen);
CREATE INDEX enrollments_cloned ON enrollments (node_id) WHERE state = 'current' AND released_twin IS NOT NULL;
";

// A machine sends the same log at each boot: it is kept once. Rows of before have theirs in columns of their own. What is trimmed at each
// boot is found in the index alone.
const STEP_3: &str = "
CREATE TABLE logs (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id TEXT NOT NULL REFERENCES nodes,
    sha256  BLOB NOT NULL,
    bytes   INTEGER NOT NULL,
    log     BLOB NOT NULL
);
CREATE UNIQUE INDEX logs_of_node ON logs (node_id, sha256, bytes);
ALTER TABLE evidence ADD COLUMN event_log_id INTEGER;
ALTER TABLE evidence ADD COLUMN systemd_log_id INTEGER;
ALTER TABLE evidence ADD COLUMN ima_log_id INTEGER;
DROP INDEX evidence_by_node;
CREATE INDEX evidence_by_kind ON evidence
    (node_id, authentic, outcome, id, event_log_id, systemd_log_id, ima_log_id);
";

// What webhooks are to tell, once for each endpoint. message: what a receiver knows it by. due: when it is tried, or tried by somebody
// else than who is at it.
const STEP_4: &str = "
CREATE TABLE notices (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    endpoint TEXT NOT NULL,
    message  TEXT NOT NULL,
    at       INTEGER NOT NULL,
    body     TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    due      INTEGER NOT NULL
) STRICT;
CREATE INDEX notices_by_endpoint ON notices (endpoint, id);
";

/// Brings a database to the schema of this build.
///
/// # Errors
/// When it was made by a newer build, or can't be written.
pub fn migrate(connection: &mut Connection) -> Result<()> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(broken)?;
    let version: u32 = tx.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(broken)?;
    let version = version as usize;
    if version > STEPS.len() {
        return Err(StoreError::Newer { found: version as u64, known: STEPS.len() });
    }
    for step in &STEPS[version..] {
        tx.execute_batch(step).map_err(broken)?;
    }
    tx.pragma_update(None, "user_version", STEPS.len() as u32).map_err(broken)?;
    tx.commit().map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_brought_along_once() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        connection
            .execute_batch(
                "INSERT INTO audit (at, actor, action, detail) VALUES (1, 'ada', 'enroll', 'web1')",
            )
            .unwrap();
        migrate(&mut connection).expect("once is enough");
        let kept: i64 = connection.query_row("SELECT count(*) FROM audit", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, 1);
    }
}
