//! `halfkey-agent`: see [`halfkey_agent`].

fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
