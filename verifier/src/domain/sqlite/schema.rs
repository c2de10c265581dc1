//! The schema, as steps. A step that was released is never changed; a new one is added.

use super::broken;
use crate::domain::{Result, StoreError};
use rusqlite::{Connection, TransactionBehavior};

/// Step N brings a database of `user_version` N to N + 1.
const STEPS: &[&str] = &[STEP_0, STEP_1, STEP_2, STEP_3];

const STEP_0: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;

-- Client certificates that are accepted, by SHA-256 over the DER.
CREATE TABLE clients (
    fingerprint TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    kind        TEXT NOT NULL,
    added_at    INTEGER NOT NULL,
    UNIQUE (kind, name)
) STRICT;

-- The registrar's part.
CREATE TABLE registrations (
    node_id       TEXT PRIMARY KEY,
    ak_name       BLOB NOT NULL,
    srk_name      BLOB NOT NULL,
    label         TEXT NOT NULL,
    source        TEXT NOT NULL,
    registered_at INTEGER NOT NULL,
    last_seen     INTEGER NOT NULL,
    kept          INTEGER NOT NULL DEFAULT 0,
    register      TEXT NOT NULL
) STRICT;
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

-- The verifier's part.
CREATE TABLE nodes (
    node_id         TEXT PRIMARY KEY,
    label           TEXT NOT NULL,
    revoked_because TEXT,
    reference       TEXT,
    last_seen       INTEGER NOT NULL,
    last_outcome    TEXT,
    last_code       TEXT
) STRICT;

CREATE TABLE enrollments (
    enrollment_id TEXT PRIMARY KEY,
    node_id       TEXT NOT NULL REFERENCES nodes,
    state         TEXT NOT NULL CHECK (state IN ('open', 'current', 'replaced')),
    document      BLOB NOT NULL,
    tenant_key    BLOB NOT NULL,
    signature     BLOB NOT NULL,
    registration  TEXT NOT NULL,
    bank          TEXT NOT NULL,
    c_v_id        BLOB,
    c_v_secret    BLOB,
    c_u_id        BLOB,
    c_u_secret    BLOB,
    proof_sha256  BLOB NOT NULL,
    fetched_by    TEXT,
    reset_count   INTEGER,
    restart_count INTEGER,
    clock         INTEGER,
    enrolled_at   INTEGER NOT NULL,
    enrolled_by   TEXT NOT NULL,
    proved_at     INTEGER
) STRICT;
CREATE UNIQUE INDEX enrollments_one_open ON enrollments (node_id) WHERE state = 'open';
CREATE UNIQUE INDEX enrollments_one_current ON enrollments (node_id) WHERE state = 'current';

-- Tenant keys that an operator has enrolled with.
CREATE TABLE tenant_keys (
    operator   TEXT NOT NULL,
    tenant_key BLOB NOT NULL,
    first_used INTEGER NOT NULL,
    PRIMARY KEY (operator, tenant_key)
) STRICT, WITHOUT ROWID;

-- Boots that wait for an operator, and what the operator said.
CREATE TABLE boots (
    node_id          TEXT NOT NULL REFERENCES nodes,
    ticket           TEXT NOT NULL,
    evidence_id      INTEGER NOT NULL,
    code             TEXT NOT NULL,
    message          TEXT NOT NULL,
    approvable       INTEGER NOT NULL,
    differing        TEXT NOT NULL,
    since            INTEGER NOT NULL,
    expires          INTEGER NOT NULL,
    decision         TEXT CHECK (decision IN ('approved', 'denied')),
    decided_by       TEXT,
    because          TEXT,
    approved_until   INTEGER,
    used_at          INTEGER,
    PRIMARY KEY (node_id, ticket)
) STRICT, WITHOUT ROWID;

CREATE TABLE evidence (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id        TEXT NOT NULL REFERENCES nodes,
    at             INTEGER NOT NULL,
    purpose        TEXT NOT NULL,
    outcome        TEXT NOT NULL,
    code           TEXT,
    message        TEXT NOT NULL,
    authentic      INTEGER NOT NULL,
    evidence       TEXT NOT NULL,
    event_log      BLOB,
    systemd_log  BLOB,
    ima_log        BLOB,
    reset_count    INTEGER,
    restart_count  INTEGER,
    clock          INTEGER,
    expected_fence BLOB,
    differing      TEXT NOT NULL
) STRICT;
CREATE INDEX evidence_by_node ON evidence (node_id, authentic, id);

CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    node_id TEXT,
    detail  TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_node ON audit (node_id, seq) WHERE node_id IS NOT NULL;
";

/// Policies over what was booted in place of PCR values: nodes need one before they boot unattended again.
const STEP_1: &str = "
ALTER TABLE nodes DROP COLUMN reference;
ALTER TABLE nodes ADD COLUMN group_name TEXT;
-- An operator holds the node: its boots are denied.
ALTER TABLE nodes ADD COLUMN held_by TEXT;
ALTER TABLE nodes ADD COLUMN held_because TEXT;
-- firmwareVersion of the last quote, as 0x and 16 digits; the one before; since when.
ALTER TABLE nodes ADD COLUMN tpm_firmware TEXT;
ALTER TABLE nodes ADD COLUMN tpm_firmware_before TEXT;
ALTER TABLE nodes ADD COLUMN tpm_firmware_since INTEGER;
CREATE INDEX nodes_by_group ON nodes (group_name, node_id) WHERE group_name IS NOT NULL;

ALTER TABLE boots RENAME COLUMN differing TO findings;
UPDATE boots SET findings = '[]', code = iif(code = 'no_reference', 'no_policy', code);
ALTER TABLE evidence RENAME COLUMN differing TO findings;
UPDATE evidence SET findings = '[]';

-- The last boot that was released: what a proposal may come from.
ALTER TABLE enrollments ADD COLUMN released_evidence INTEGER;
ALTER TABLE enrollments ADD COLUMN released_reset INTEGER;
ALTER TABLE enrollments ADD COLUMN released_restart INTEGER;
ALTER TABLE enrollments ADD COLUMN released_fence BLOB;
ALTER TABLE enrollments ADD COLUMN released_boot TEXT;
-- The proposal that this boot of the policy comes from, if it was trusted.
ALTER TABLE enrollments ADD COLUMN released_proposal INTEGER;
-- A release before it with the same resetCount and another r.
ALTER TABLE enrollments ADD COLUMN released_twin INTEGER;
ALTER TABLE evidence ADD COLUMN twin INTEGER;
ALTER TABLE evidence ADD COLUMN tpm_firmware TEXT;

-- Every version is kept; one without a name withdraws the policy. The document comes last: most questions don't need it.
CREATE TABLE policies (
    scope      TEXT NOT NULL,
    version    INTEGER NOT NULL,
    name       TEXT NOT NULL,
    tenant_key BLOB NOT NULL,
    sha256     BLOB NOT NULL,
    applied_at INTEGER NOT NULL,
    applied_by TEXT NOT NULL,
    signature  BLOB NOT NULL,
    document   BLOB NOT NULL,
    PRIMARY KEY (scope, version)
) STRICT;

-- by_trust: allowed by trust_root_with_next_boot alone. trusted_scope: where that ever was so; it counts there.
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
    proposal      TEXT NOT NULL,
    UNIQUE (node_id, sha256)
) STRICT;
CREATE INDEX proposals_by_state ON proposals (node_id, state, at);
CREATE INDEX proposals_waiting ON proposals (id) WHERE state = 'waiting';
CREATE INDEX proposals_by_trust ON proposals (node_id, at) WHERE by_trust = 1;
CREATE INDEX proposals_counted ON proposals (node_id, trusted_scope) WHERE trusted_scope IS NOT NULL;
";

/// One sequence of documents, of which the other tables are views. What was signed before has no place in it: nodes are enrolled again.
const STEP_2: &str = "
DELETE FROM evidence;
DELETE FROM boots;
DELETE FROM proposals;
DELETE FROM enrollments;
DELETE FROM nodes;
DELETE FROM registrations;

-- Everything that tenants signed, and what operators said that has a place beside it. signatures: key and signature of each signer.
CREATE TABLE documents (
    number       INTEGER PRIMARY KEY,
    scope        TEXT NOT NULL,
    sha256       BLOB NOT NULL,
    handed_in_at INTEGER NOT NULL,
    handed_in_by TEXT NOT NULL,
    signatures   BLOB NOT NULL,
    document     BLOB NOT NULL
) STRICT;

-- The version of a policy is the number of its document.
DROP TABLE policies;
CREATE TABLE policies (
    scope      TEXT NOT NULL,
    version    INTEGER NOT NULL REFERENCES documents,
    name       TEXT NOT NULL,
    tenant_key BLOB NOT NULL,
    sha256     BLOB NOT NULL,
    applied_at INTEGER NOT NULL,
    applied_by TEXT NOT NULL,
    PRIMARY KEY (scope, version)
) STRICT;

ALTER TABLE enrollments DROP COLUMN document;
ALTER TABLE enrollments DROP COLUMN signature;
ALTER TABLE enrollments DROP COLUMN proof_sha256;
ALTER TABLE enrollments ADD COLUMN number INTEGER NOT NULL REFERENCES documents DEFAULT 0;

-- What the node wants to see in its enrollment: the newest that its TPM activated.
ALTER TABLE registrations ADD COLUMN challenge BLOB NOT NULL DEFAULT x'';

-- The document that says so; of none if no tenant ever did.
ALTER TABLE nodes ADD COLUMN group_number INTEGER REFERENCES documents;
";

/// Rows that allow something by themselves have a tag by the cluster key. Who was listed before is listed again.
const STEP_3: &str = "
DELETE FROM clients;
ALTER TABLE clients ADD COLUMN tag BLOB;
-- Of an approval that was not used.
ALTER TABLE boots ADD COLUMN approval_tag BLOB;
-- While by_trust.
ALTER TABLE proposals ADD COLUMN tag BLOB;
-- Of whose tenant's time trusted_scope is: that of the proof by which the node became its tenant's.
ALTER TABLE proposals ADD COLUMN trusted_since INTEGER;

-- C_U, encrypted by the cluster key. What is open is enrolled again.
DELETE FROM enrollments WHERE state = 'open';
ALTER TABLE enrollments DROP COLUMN c_u_id;
ALTER TABLE enrollments DROP COLUMN c_u_secret;
ALTER TABLE enrollments ADD COLUMN c_u BLOB;

-- Over the entry and the hash of the one before.
ALTER TABLE audit ADD COLUMN hash BLOB;
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
        return Err(StoreError::Unavailable(format!(
            "expected schema version {} or older, found {version}: the database was made by a newer halfkey-verifier",
            STEPS.len()
        )));
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
    fn an_older_database_comes_along() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(STEP_0).unwrap();
        connection
            .execute_batch(
                "INSERT INTO nodes (node_id, label, reference, last_seen) VALUES ('n', 'web1', '{}', 1);
                 INSERT INTO audit (at, actor, action, detail) VALUES (1, 'ada', 'enroll', 'web1');
                 PRAGMA user_version = 1;",
            )
            .unwrap();
        migrate(&mut connection).unwrap();
        let count = |table: &str| -> i64 {
            connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
        };
        assert_eq!((count("nodes"), count("audit"), count("documents")), (0, 1, 0));
        migrate(&mut connection).expect("once is enough");
    }
}
