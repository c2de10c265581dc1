//! The kernel command line and /etc/crypttab: which volumes a boot waits for, and how long.
//!
//! | argument | meaning |
//! | --- | --- |
//! | `rd.halfkey=off` | don't unlock; close the fence. The way out when the fence can't be confirmed |
//! | `rd.halfkey=on` | this machine has an enrolled volume: wait for it even if nothing names it |
//! | `rd.halfkey.timeout=S` | the deadline in seconds, 1 to 3600 |
//! | `rd.luks.uuid=`, `luks.uuid=` | a volume that this boot needs |
//! | `rd.luks.name=UUID=NAME`, `luks.name=` | the same, and the name of its mapping |
//! | `rd.luks.options=[UUID=]a,b` | options of its mapping, as in crypttab(5) |

use crate::luks::names::is_uuid;
use std::time::Duration;

pub use crate::luks::names::is_mapping_name;

/// The deadline when nothing else is said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// A volume that something outside the volume names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// LUKS UUID.
    pub uuid: String,
    /// Name of its mapping.
    pub name: Option<String>,
    /// Options as in crypttab(5).
    pub options: Vec<String>,
}

/// What the boot was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `rd.halfkey=off`
    pub off: bool,
    /// `rd.halfkey=on`
    pub expected: bool,
    /// `rd.halfkey.timeout=`
    pub timeout: Option<Duration>,
    /// Each UUID once, in order.
    pub named: Vec<Named>,
    /// `rd.luks.options=` without a UUID.
    pub options: Vec<String>,
}

impl Settings {
    /// Reads this boot's command line and crypttab.
    pub fn of_this_boot() -> Self {
        let read = |path| crate::bounded::read(path, 64 << 10).unwrap_or_default();
        let (cmdline, crypttab) = (read("/proc/cmdline"), read("/etc/crypttab"));
        Self::parse(&String::from_utf8_lossy(&cmdline), &String::from_utf8_lossy(&crypttab))
    }

    /// Reads a command line and a crypttab. What makes no sense is ignored, as everybody does.
    pub fn parse(cmdline: &str, crypttab: &str) -> Self {
        let mut settings =
            Self { off: false, expected: false, timeout: None, named: Vec::new(), options: Vec::new() };
        for word in words(cmdline) {
            let (key, value) = word.split_once('=').unwrap_or((&word, ""));
            match key {
                "rd.halfkey" => {
                    settings.off = matches!(value, "off" | "0" | "no");
                    settings.expected = matches!(value, "on" | "1" | "yes");
                }
                "rd.halfkey.timeout" => {
                    let seconds = value.trim_end_matches('s').parse().ok().filter(|s| (1..=3600).contains(s));
                    settings.timeout = seconds.map(Duration::from_secs).or(settings.timeout);
                }
                "rd.luks.uuid" | "luks.uuid" => drop(settings.named(value)),
                "rd.luks.name" | "luks.name" => {
                    if let Some((uuid, name)) = value.split_once('=')
                        && let Some(named) = settings.named(uuid)
                        && is_mapping_name(name)
                    {
                        named.name = Some(name.to_owned());
                    }
                }
                "rd.luks.options" | "luks.options" => settings.add_options(value),
                _ => {}
            }
        }
        for line in crypttab.lines() {
            let mut fields = line.split_whitespace().take_while(|field| !field.starts_with('#'));
            let (Some(name), Some(device)) = (fields.next(), fields.next()) else { continue };
            let options = fields.nth(1).unwrap_or_default();
            let uuid = device.strip_prefix("UUID=").or_else(|| device.strip_prefix("/dev/disk/by-uuid/"));
            let Some(named) = uuid.and_then(|uuid| settings.named(uuid.trim_matches('"'))) else { continue };
            if named.name.is_none() && is_mapping_name(name) {
                named.name = Some(name.to_owned());
            }
            if named.options.is_empty() {
                named.options = split_options(options);
            }
        }
        settings
    }

    /// The name that command line or crypttab give to the mapping of this volume.
    pub fn name_of(&self, uuid: &str) -> Option<&str> {
        self.named.iter().find(|named| named.uuid == uuid)?.name.as_deref()
    }

    /// What cryptsetup is told for this volume: the options that only concern performance and discards.
    pub fn cryptsetup_options(&self, uuid: &str) -> Vec<&'static str> {
        let named = self.named.iter().find(|named| named.uuid == uuid);
        let own = named.map(|named| named.options.as_slice()).unwrap_or_default();
        let options = own.iter().chain(&self.options);
        let mut out: Vec<_> = options
            .filter_map(|option| match option.as_str() {
                "discard" | "allow-discards" => Some("--allow-discards"),
                "same-cpu-crypt" => Some("--perf-same_cpu_crypt"),
                "submit-from-crypt-cpus" => Some("--perf-submit_from_crypt_cpus"),
                "no-read-workqueue" => Some("--perf-no_read_workqueue"),
                "no-write-workqueue" => Some("--perf-no_write_workqueue"),
                "read-only" | "readonly" => Some("--readonly"),
                _ => None,
            })
            .collect();
        out.sort_unstable();
        out.dedup();
        out
    }

    /// The entry of a UUID; `None` if it is none.
    fn named(&mut self, uuid: &str) -> Option<&mut Named> {
        let lower = uuid.to_ascii_lowercase();
        let uuid = lower.strip_prefix("luks-").unwrap_or(&lower);
        if !is_uuid(uuid) {
            return None;
        }
        let at = self.named.iter().position(|named| named.uuid == uuid).unwrap_or_else(|| {
            self.named.push(Named { uuid: uuid.to_owned(), ..Named::default() });
            self.named.len() - 1
        });
        self.named.get_mut(at)
    }

    fn add_options(&mut self, value: &str) {
        match value.split_once('=') {
            Some((uuid, options)) if is_uuid(&uuid.to_ascii_lowercase()) => {
                if let Some(named) = self.named(uuid) {
                    named.options = split_options(options);
                }
            }
            _ => self.options = split_options(value),
        }
    }
}

fn split_options(text: &str) -> Vec<String> {
    text.split(',').filter(|option| !option.is_empty() && *option != "none").map(str::to_owned).collect()
}

/// Words of a kernel command line: split at white space; double quotes keep it and vanish.
fn words(cmdline: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in cmdline.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_ascii_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "0afd6329-fe84-4fc3-be1c-f947e595762f";
    const B: &str = "1afd6329-fe84-4fc3-be1c-f947e595762f";

    #[test]
    fn the_usual_arguments() {
        let cmdline = format!(
            "quiet rd.luks.name={A}=root rd.luks.uuid=luks-{B} rd.luks.options={A}=discard,tries=3 rd.halfkey.timeout=90 \"rd.x=a b\""
        );
        let settings = Settings::parse(&cmdline, "");
        assert_eq!(settings.timeout, Some(Duration::from_secs(90)));
        assert_eq!(settings.name_of(A), Some("root"));
        assert_eq!(settings.name_of(B), None);
        assert_eq!(settings.named.len(), 2);
        assert_eq!(settings.cryptsetup_options(A), ["--allow-discards"]);
        assert!(settings.cryptsetup_options(B).is_empty() && !settings.off);
    }

    #[test]
    fn crypttab_names_what_the_command_line_does_not() {
        let settings = Settings::parse(
            &format!("rd.luks.name={A}=root"),
            &format!(
                "# c\nother UUID={A} none discard\ndata /dev/disk/by-uuid/{B} none luks,discard # x\nswap /dev/sda3 /dev/urandom swap\n"
            ),
        );
        assert_eq!(settings.name_of(A), Some("root"));
        assert_eq!(settings.name_of(B), Some("data"));
        assert_eq!(settings.cryptsetup_options(B), ["--allow-discards"]);
        assert_eq!(settings.named.len(), 2);
    }

    #[test]
    fn nonsense_is_ignored() {
        let settings = Settings::parse(
            &format!(
                "rd.luks.uuid=../../etc rd.luks.name={A}=../x rd.halfkey.timeout=0 rd.halfkey.timeout=x rd.halfkey=off"
            ),
            "",
        );
        assert!(settings.off && settings.timeout.is_none());
        assert_eq!(settings.name_of(A), None);
    }

    proptest! {
        #[test]
        fn any_text_gives_harmless_names(cmdline in "(rd\\.luks\\.(uuid|name|options)=[0-9a-f=/.\" -]{0,60} ?){0,4}.{0,60}", crypttab in ".{0,100}") {
            let settings = Settings::parse(&cmdline, &crypttab);
            for named in &settings.named {
                prop_assert!(settings.name_of(&named.uuid).is_none_or(is_mapping_name));
            }
        }
    }
}
