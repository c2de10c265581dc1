//! Sizes and times next to Clevis, measured in one run on this machine. Nothing is typed in by hand.

mod curve;
mod discrete;
mod evidence;
mod hostile;
mod ima;
mod initramfs;
mod keylime;
mod limit;
mod run;
mod service;
mod unlock;

use halfkey_qemu_tests::paths::Paths;
use run::Result;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            eprintln!("hint: `make bench` installs what is measured and builds dist/ first");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    // Needs nothing but this program.
    if std::env::args().nth(1).is_some_and(|part| part == "ima") {
        let figures = ima::measure()?;
        ima::print(&figures);
        println!("{:#}", serde_json::Value::Object(ima::json(&figures)));
        return Ok(());
    }
    let work = tempfile::tempdir()?;
    // So does this one, and the network.
    if std::env::args().nth(1).is_some_and(|part| part == "keylime") {
        let figures = keylime::measure(work.path());
        keylime::print(&figures, None);
        println!("{:#}", serde_json::Value::Object(keylime::json(&figures)));
        return Ok(());
    }
    let paths = Paths::find()?;
    paths.programs.check()?;
    let dist = paths.tree.join("dist");
    // For who changes what is on the way to the key, and waits for the figures.
    if std::env::args().nth(1).is_some_and(|part| part == "unlock") {
        print_unlock(&time_unlock(work.path(), paths)?);
        return Ok(());
    }
    if std::env::args().nth(1).is_some_and(|part| part == "initramfs") {
        initramfs::print(&initramfs::measure(work.path(), &paths)?);
        return Ok(());
    }

    if std::env::args().nth(1).is_some_and(|part| part == "service") {
        let largest = std::env::args().nth(2).map_or(Ok(service::LARGEST), |text| text.parse())?;
        let (figures, parts) = (service::measure(largest)?, limit::measure(&evidence::measure()?)?);
        print_service(&figures, &parts);
        println!("{:#}", serde_json::Value::Object(service::json(&figures, parts.per_second())));
        return Ok(());
    }

    let agent_bytes = std::fs::metadata(&paths.programs.agent)?.len();
    eprintln!("checking evidence ...");
    let rates = evidence::measure()?;
    let (hostile, hostile_time) = hostile::measure()?;
    let lists = ima::measure()?;
    let images = initramfs::measure(work.path(), &paths)?;
    let parts = limit::measure(&rates)?;
    let figures = service::measure(service::LARGEST)?;
    let peer = keylime::measure(work.path());
    let costs = time_unlock(work.path(), paths)?;

    println!("halfkey-agent: {agent_bytes} bytes, {} KiB resident at its highest", costs.agent_rss);
    println!("halfkey-verifier: {} KiB resident after the run", costs.verifier_rss);
    println!();
    initramfs::print(&images);
    println!();
    print_unlock(&costs);

    println!();
    println!(
        "evidence, one core (event log of {} bytes, {} events)   per second",
        rates.log_bytes, rates.log_events
    );
    let ratio = rates.checks / rates.p256;
    for (name, rate) in [
        ("quote, replay and policy", rates.checks),
        ("the same, first boot of a policy", rates.first_checks),
        ("bare P-256 verification (the limit)", rates.p256),
    ] {
        println!("  {name:<40} {rate:>23.0}");
    }
    println!("  {:<40} {ratio:>23.2}", "ratio of the first to the last");
    let hostile_ms = (hostile_time.as_secs_f64() * 1000.0).round();
    println!("worst hostile event log of 16 MiB ({hostile}): {hostile_ms} ms");
    println!();
    ima::print(&lists);
    println!();
    print_service(&figures, &parts);
    println!();
    keylime::print(&peer, Some(figures.sqlite_per_cpu_s()));

    let ms = |cost: run::Cost| discrete::ms(cost.median);
    let mut json = serde_json::json!({
        "evidence_checks_per_s_core": rates.checks.round(),
        "evidence_first_checks_per_s_core": rates.first_checks.round(),
        "evidence_log_bytes": rates.log_bytes,
        "p256_limit_per_s_core": rates.p256.round(),
        "hostile_log_ms": hostile_ms,
        "agent_bytes": agent_bytes,
        "agent_rss_kib": costs.agent_rss,
        "verifier_rss_kib": costs.verifier_rss,
        "initramfs_delta": initramfs::json(&images),
        "unlock_ms": ms(costs.halfkey),
        "unlock_processes": costs.halfkey.processes,
        "unlock_dtpm_ms": discrete::ms(costs.discrete.halfkey.waits),
        "unlock_dtpm_commands": costs.discrete.halfkey.commands.len(),
        "unlock_dtpm_at_once_ms": discrete::ms(costs.discrete.at_once.waits),
        "clevis_tpm2_dtpm_ms": discrete::ms(costs.discrete.clevis.waits),
        "clevis_tpm2_dtpm_commands": costs.discrete.clevis.commands.len(),
        "clevis_tpm2_ms": ms(costs.clevis_tpm2),
        "clevis_tpm2_processes": costs.clevis_tpm2.processes,
        "clevis_tang_ms": ms(costs.clevis_tang),
        "clevis_tang_processes": costs.clevis_tang.processes,
    });
    if let Some(rows) = json.as_object_mut() {
        rows.extend(service::json(&figures, parts.per_second()));
        rows.extend(ima::json(&lists));
        rows.extend(keylime::json(&peer));
    }
    std::fs::write(dist.join("bench.json"), format!("{json:#}\n"))?;
    println!("\nwritten to dist/bench.json");
    Ok(())
}

fn print_service(figures: &service::Figures, parts: &limit::Parts) {
    service::print(figures, parts.per_second());
    println!("what an attestation can't do without");
    parts.print();
}

fn time_unlock(work: &Path, paths: Paths) -> Result<unlock::Costs> {
    eprintln!("timing {} rounds of each unlocking ...", run::ROUNDS);
    unlock::measure(work, paths)
}

fn print_unlock(costs: &unlock::Costs) {
    println!("to the key (median of {})   milliseconds   processes", run::ROUNDS);
    let rows = [
        ("halfkey unlock --dry-run", costs.halfkey),
        ("clevis decrypt, tpm2", costs.clevis_tpm2),
        ("clevis decrypt, tang", costs.clevis_tang),
    ];
    for (name, cost) in rows {
        println!("  {name:<25} {:>12.1} {:>11}", discrete::ms(cost.median), cost.processes);
    }

    println!();
    discrete::print(&costs.discrete);
}
