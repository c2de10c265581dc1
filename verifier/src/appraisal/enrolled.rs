//! Which enrollment evidence is checked by.

use super::grant::require_enrollments;
use crate::domain::{Enrollment, Node};
use halfkey_evidence::Rejection;
use halfkey_evidence::appraise::Enrolled;
use halfkey_protocol::Reason;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::wire::Purpose;

/// The enrollment that serves this purpose.
///
/// # Errors
/// `RolledBack` (the rows are not what the sequence says), `NotEnrolled`, `EnrollmentOpen`, `EnrollmentUsed`.
pub fn enrollment(purpose: Purpose, node: &Node) -> Result<&Enrollment, Rejection> {
    // One that is still there is right. That another is not keeps nobody from enrolling the node again.
    if purpose != Purpose::Enroll || node.open.is_none() {
        require_enrollments(node)?;
    }
    let found = match purpose {
        Purpose::Enroll => match (&node.open, &node.current) {
            (Some(open), _) => Ok(open),
            (None, Some(_)) => Err(Reason::EnrollmentUsed),
            (None, None) => Err(Reason::NotEnrolled),
        },
        Purpose::Boot | Purpose::Runtime | Purpose::Propose => match (&node.current, &node.open) {
            (Some(current), _) => Ok(current),
            (None, Some(_)) => Err(Reason::EnrollmentOpen),
            (None, None) => Err(Reason::NotEnrolled),
        },
    };
    found.map_err(|reason| Rejection::new(reason, format!("node {}", node.id)))
}

/// The bank that is quoted for this purpose. A proposal shows the fence, and what that became is known for the
/// SHA-256 bank.
pub fn bank(purpose: Purpose, enrollment: &Enrollment) -> PcrBank {
    match purpose {
        Purpose::Propose => PcrBank::Sha256,
        Purpose::Boot | Purpose::Enroll | Purpose::Runtime => enrollment.bank,
    }
}

/// Whose quote evidence for this purpose must have.
///
/// # Errors
/// `AkTemplate`, `SrkTemplate`.
pub fn keys(purpose: Purpose, enrollment: &Enrollment) -> Result<Enrolled, Rejection> {
    let registration = &enrollment.registration;
    Enrolled::parse(&registration.ak_public, &registration.srk_public, bank(purpose, enrollment))
}
