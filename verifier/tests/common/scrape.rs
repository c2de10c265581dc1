//! Who watches a server: asks in plain HTTP, and reads Prometheus' text format 0.0.4 more strictly than Prometheus does.

use std::collections::{BTreeMap, BTreeSet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Status, header in lower case, and body of `GET path`.
pub async fn plain(url: &str, path: &str) -> (u16, String, String) {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

/// Samples by `name{label="value",..}`, as they are written.
pub struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// Of a server with `--metrics-listen`.
    pub async fn of(url: &str) -> Self {
        let (status, head, body) = plain(url, "/metrics").await;
        assert_eq!(status, 200, "{body}");
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        Self::parse(&body)
    }

    /// The sample with this name and these labels; 0 if there is none.
    pub fn value(&self, sample: &str) -> f64 {
        self.0.get(sample).copied().unwrap_or(0.0)
    }

    /// All names with labels.
    pub fn samples(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "a last line that does not end");
        let (mut helped, mut types) = (BTreeSet::new(), BTreeMap::new());
        let mut samples = BTreeMap::new();
        let mut family = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, said) = help.split_once(' ').unwrap();
                assert!(is_name(name) && !said.is_empty() && helped.insert(name), "{line}");
                family = name.to_owned();
            } else if let Some(of) = line.strip_prefix("# TYPE ") {
                let (name, kind) = of.split_once(' ').unwrap();
                assert!(name == family && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(types.insert(name, kind).is_none(), "{line}");
            } else {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                let name = sample.split('{').next().unwrap();
                labels(&sample[name.len()..]);
                let suffix =
                    name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} in {family}"));
                match types[family.as_str()] {
                    "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
                    "counter" => assert!(suffix.is_empty() && name.ends_with("_total"), "{line}"),
                    _ => assert!(suffix.is_empty() && !name.ends_with("_total"), "{line}"),
                }
                let value: f64 = value.parse().unwrap();
                assert!(samples.insert(sample.to_owned(), value).is_none(), "twice: {line}");
            }
        }
        let histograms = types.iter().filter(|(_, kind)| **kind == "histogram").map(|(name, _)| *name);
        for name in histograms {
            require_cumulative(name, text, &samples);
        }
        Self(samples)
    }
}

/// Buckets grow, and the last is the count.
fn require_cumulative(name: &str, text: &str, samples: &BTreeMap<String, f64>) {
    let mut before: BTreeMap<String, f64> = BTreeMap::new();
    let prefix = format!("{name}_bucket{{");
    for line in text.lines().filter(|line| line.starts_with(&prefix)) {
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let (of, bound) = sample[prefix.len()..].trim_end_matches('}').rsplit_once("le=").unwrap();
        let value: f64 = value.parse().unwrap();
        let last = before.insert(of.to_owned(), value).unwrap_or(0.0);
        assert!(value >= last, "{line}");
        if bound == "\"+Inf\"" {
            let of = of.trim_end_matches(',');
            let count = if of.is_empty() { format!("{name}_count") } else { format!("{name}_count{{{of}}}") };
            assert_eq!(samples.get(&count), Some(&value), "{count}");
        }
    }
}

fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// `{name="value",..}` or nothing. No value here needs an escape.
fn labels(text: &str) {
    if text.is_empty() {
        return;
    }
    let inside = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap();
    let mut names = BTreeSet::new();
    for label in inside.split("\",") {
        let (name, value) = label.split_once("=\"").unwrap_or_else(|| panic!("{text}"));
        let value = value.trim_end_matches('"');
        assert!(is_name(name) && names.insert(name) && !value.contains(['"', '\\', '\n']), "{text}");
    }
}
