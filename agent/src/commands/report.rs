//! What `unlock --dry-run` and `--json` print. Durations and names, no secret.

use crate::boot::unlock::{Report, Unlock};
use crate::console;
use crate::error::{Error, Result};

#[derive(miniserde::Serialize)]
struct Json {
    ok: bool,
    server: Option<String>,
    evidence_id: Option<u64>,
    volumes: Vec<Volume>,
    error: Option<Failure>,
    total_ms: f64,
    steps: Vec<Step>,
}

#[derive(miniserde::Serialize)]
struct Volume {
    device: String,
    uuid: String,
    keyslot: u32,
}

#[derive(miniserde::Serialize)]
struct Failure {
    message: String,
    code: Option<String>,
    hint: Option<String>,
    exit_code: u8,
}

#[derive(miniserde::Serialize)]
struct Step {
    area: &'static str,
    what: String,
    ms: f64,
}

/// The report as one JSON object and a line feed.
pub fn print_json(unlock: &Unlock, result: &Result<Report>) {
    let report = result.as_ref().ok();
    let failure = |error: &Error| Failure {
        message: error.message.clone(),
        code: error.code.clone(),
        hint: error.hint.clone(),
        exit_code: error.kind.exit_code(),
    };
    let volume = |(device, uuid, keyslot): &(String, String, u32)| Volume {
        device: device.clone(),
        uuid: uuid.clone(),
        keyslot: *keyslot,
    };
    let json = Json {
        ok: result.is_ok(),
        server: report.map(|report| report.server.clone()),
        evidence_id: report.and_then(|report| report.evidence_id),
        volumes: report.map(|report| report.volumes.iter().map(volume).collect()).unwrap_or_default(),
        error: result.as_ref().err().map(failure),
        total_ms: ms(unlock.elapsed()),
        steps: steps(unlock),
    };
    console::print(&format!("{}\n", miniserde::json::to_string(&json)));
}

/// The report for people: a line for each step, then what a real run would have opened.
pub fn print(unlock: &Unlock, result: &Result<Report>) {
    let mut out = String::new();
    for step in steps(unlock) {
        out.push_str(&format!("{:<8} {:<32} {:>9.1} ms\n", step.area, step.what, step.ms));
    }
    out.push_str(&format!("{:<8} {:<32} {:>9.1} ms\n", "total", "", ms(unlock.elapsed())));
    if let Ok(report) = result {
        let evidence = report.evidence_id.map(|id| format!(", evidence {id}")).unwrap_or_default();
        out.push_str(&format!("released by {}{evidence}\n", report.server));
        for (device, uuid, keyslot) in &report.volumes {
            out.push_str(&format!("{device} (UUID {uuid}): keyslot {keyslot} would open\n"));
        }
    }
    console::print(&out);
}

fn steps(unlock: &Unlock) -> Vec<Step> {
    let tpm = unlock.tpm_timings().iter();
    let tpm = tpm.map(|timing| Step { area: "tpm", what: timing.name.into(), ms: ms(timing.duration) });
    let others = unlock.timeline.steps().into_iter();
    tpm.chain(others.map(|step| Step { area: step.area, what: step.what, ms: ms(step.took) })).collect()
}

fn ms(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
