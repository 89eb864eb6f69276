//! Times of many creations: from `banger vm create` to ready and to the guest's SSH server, with
//! percentiles for each stage, in three arrival patterns.
//!
//! Unlike [`crate::bench`] it compares nothing: it answers how long users wait, and how that grows
//! when many VMs are created at once. To SSH means that the banner of RFC 4253 section 4.2 arrived
//! through a published port.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::bench::{Bench, rounded};

/// Runs of each pattern unless `--runs` says otherwise.
const RUNS: usize = 5;
/// Most VMs of a pattern: all of one run at the same time.
const MAX_RUNS: usize = 200;
/// Time between two creations of the pattern `staggered`.
const INTERVAL: Duration = Duration::from_millis(200);
/// Longest wait for the SSH server; under emulation a guest boots for a minute.
const SSH_TIMEOUT: Duration = Duration::from_secs(300);
/// Pause between attempts to reach the SSH server, and limit of one.
const SSH_RETRY: Duration = Duration::from_millis(20);
const SSH_ATTEMPT: Duration = Duration::from_secs(5);

/// When the next VM is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern {
    /// After the previous one was measured and deleted.
    Sequential,
    /// 200 ms after the previous one.
    Staggered,
    /// At the same time.
    Burst,
}

impl Pattern {
    const ALL: [Self; 3] = [Self::Sequential, Self::Staggered, Self::Burst];

    fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Staggered => "staggered",
            Self::Burst => "burst",
        }
    }
}

/// The options of the command.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    runs: usize,
    patterns: Vec<Pattern>,
    out: Option<PathBuf>,
}

fn options(words: &[&str]) -> anyhow::Result<Options> {
    let mut options = Options { runs: RUNS, patterns: Pattern::ALL.to_vec(), out: None };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("`{word}` needs a value"))?;
        match *word {
            "--runs" => {
                options.runs = value.parse().with_context(|| format!("`{value}` is no number"))?;
                let runs = options.runs;
                ensure!((1..=MAX_RUNS).contains(&runs), "--runs {runs}: give 1 to {MAX_RUNS}");
            }
            "--mode" => {
                let named = Pattern::ALL.into_iter().find(|pattern| pattern.name() == *value);
                let names = Pattern::ALL.map(Pattern::name).join(", ");
                let named =
                    named.with_context(|| format!("--mode {value}: give one of {names}"))?;
                options.patterns = vec![named];
            }
            "--out" => options.out = Some(value.into()),
            other => bail!("unknown option `{other}`: there are --runs, --mode and --out"),
        }
    }
    Ok(options)
}

/// The times of one VM in milliseconds.
struct Sample {
    ready: f64,
    ssh: f64,
    stages: Vec<(String, f64)>,
}

/// Measures all patterns; prints a table and writes JSON to `--out`, by default
/// `target/bench-create.json`.
///
/// # Errors
/// A VM cannot be created or does not reach SSH; no VM of the benchmark is left then either.
pub fn run(root: &Path, words: &[&str]) -> anyhow::Result<()> {
    let options = options(words)?;
    let bench = Bench::new(root)?;
    let mut result = BTreeMap::new();
    let measured = options.patterns.iter().try_for_each(|pattern| {
        let samples = measure(&bench, *pattern, options.runs)?;
        result.insert(pattern.name(), summary(&samples));
        print(*pattern, &samples);
        anyhow::Ok(())
    });
    let _ = bench.banger(&bench.home, &["daemon", "stop"]);
    measured?;
    let out = options.out.unwrap_or_else(|| root.join("target/bench-create.json"));
    let text = format!("{:#}\n", json!({"runs": options.runs, "modes": result}));
    fs::write(&out, text).with_context(|| format!("cannot write {}", out.display()))?;
    eprintln!("written to {}", out.display());
    Ok(())
}

fn measure(bench: &Bench, pattern: Pattern, runs: usize) -> anyhow::Result<Vec<Sample>> {
    fs::create_dir_all(&bench.home)?;
    // Fetches kernel and image, and fills the caches that every user has filled.
    bench.banger(&bench.home, &["run", "-q", "--rm", "--", "true"])?;
    let names: Vec<String> = (0..runs).map(|n| format!("bc-{}-{n}", pattern.name())).collect();
    for name in &names {
        // Left by an interrupted benchmark.
        let _ = bench.banger(&bench.home, &["vm", "delete", "-f", name]);
    }
    let samples = match pattern {
        Pattern::Sequential => names.iter().map(|name| one(bench, name)).collect(),
        Pattern::Staggered => together(bench, &names, INTERVAL),
        Pattern::Burst => together(bench, &names, Duration::ZERO),
    };
    for name in &names {
        // Those that failed; the others are gone.
        let _ = bench.banger(&bench.home, &["vm", "delete", "-f", name]);
    }
    samples
}

fn together(bench: &Bench, names: &[String], interval: Duration) -> anyhow::Result<Vec<Sample>> {
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let wait = interval * u32::try_from(number).unwrap_or(u32::MAX);
            running.push(scope.spawn(move || {
                std::thread::sleep(wait);
                one(bench, name)
            }));
        }
        let ended = running.into_iter().map(|thread| match thread.join() {
            Ok(sample) => sample,
            Err(_) => bail!("a measuring thread panicked"),
        });
        // All are awaited, also after a failure.
        ended.collect::<Vec<_>>().into_iter().collect()
    })
}

/// Creates, measures and deletes one VM.
fn one(bench: &Bench, name: &str) -> anyhow::Result<Sample> {
    let port = free_port()?;
    let publish = format!("{port}:22");
    let began = Instant::now();
    let created = ["vm", "create", "-q", "--name", name, "--vcpus", "1", "-p", &publish];
    bench.banger(&bench.home, &created)?;
    let ready = milliseconds(began);
    wait_for_ssh(port).with_context(|| format!("the SSH server of `{name}`"))?;
    let ssh = milliseconds(began);
    let show = bench.banger(&bench.home, &["vm", "show", name, "--json"])?;
    bench.banger(&bench.home, &["vm", "delete", "-f", name])?;
    Ok(Sample { ready, ssh, stages: stages(&show)? })
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

fn wait_for_ssh(port: u16) -> anyhow::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + SSH_TIMEOUT;
    while Instant::now() < deadline {
        if greets(address).unwrap_or(false) {
            return Ok(());
        }
        std::thread::sleep(SSH_RETRY);
    }
    bail!("no banner within {} s", SSH_TIMEOUT.as_secs())
}

fn greets(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, SSH_ATTEMPT)?;
    stream.set_read_timeout(Some(SSH_ATTEMPT))?;
    let mut banner = [0; 4];
    stream.read_exact(&mut banner)?;
    Ok(&banner == b"SSH-")
}

/// The stages of a VM's start, on the host and in the guest.
fn stages(show: &str) -> anyhow::Result<Vec<(String, f64)>> {
    let show: Value = serde_json::from_str(show).context("`vm show --json`")?;
    let mut stages = Vec::new();
    for (key, prefix) in [("stages", ""), ("guest", "guest ")] {
        for stage in show["start"][key].as_array().into_iter().flatten() {
            let name = stage["name"].as_str().context("a stage without a name")?;
            let ms = stage["ms"].as_f64().context("a stage without a duration")?;
            stages.push((format!("{prefix}{name}"), ms));
        }
    }
    ensure!(!stages.is_empty(), "`vm show --json` has no stages");
    Ok(stages)
}

/// Durations by name, in the order of the first sample.
fn by_name(samples: &[Sample]) -> Vec<(String, Vec<f64>)> {
    let mut rows: Vec<(String, Vec<f64>)> = Vec::new();
    let mut add = |name: &str, ms: f64| match rows.iter_mut().find(|(known, _)| known == name) {
        Some((_, values)) => values.push(ms),
        None => rows.push((name.to_owned(), vec![ms])),
    };
    for sample in samples {
        add("create-to-ready", sample.ready);
        add("create-to-ssh", sample.ssh);
        sample.stages.iter().for_each(|(name, ms)| add(name, *ms));
    }
    rows
}

/// The smallest value that at least this share of the values does not exceed (nearest rank).
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

fn summary(samples: &[Sample]) -> Value {
    let row = |(name, values): (String, Vec<f64>)| {
        json!({
            "stage": name,
            "n": values.len(),
            "p50_ms": rounded(percentile(&values, 0.5), 1),
            "p95_ms": rounded(percentile(&values, 0.95), 1),
        })
    };
    by_name(samples).into_iter().map(row).collect()
}

fn print(pattern: Pattern, samples: &[Sample]) {
    println!("{} ({} VMs){:>17} {:>9}", pattern.name(), samples.len(), "p50", "p95");
    for (name, values) in by_name(samples) {
        let (p50, p95) = (percentile(&values, 0.5), percentile(&values, 0.95));
        println!("  {name:<24}{p50:>9.0} {p95:>9.0}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let values: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert!((percentile(&values, 0.5) - 10.0).abs() < 1e-9);
        assert!((percentile(&values, 0.95) - 19.0).abs() < 1e-9);
        assert!((percentile(&[7.0], 0.95) - 7.0).abs() < 1e-9);
    }

    #[test]
    fn options_are_checked() {
        let read = options(&["--runs", "3", "--mode", "burst"]).unwrap();
        assert_eq!((read.runs, read.patterns), (3, vec![Pattern::Burst]));
        for (words, expected) in [
            (vec!["--runs"], "needs a value"),
            (vec!["--runs", "x"], "no number"),
            (vec!["--runs", "0"], "give 1 to"),
            (vec!["--mode", "all"], "sequential, staggered, burst"),
            (vec!["--speed", "1"], "unknown option"),
        ] {
            let error = options(&words).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn stages_of_host_and_guest_are_distinct() {
        let show = r#"{"start":{"stages":[{"name":"boot","ms":3}],
                       "guest":[{"name":"kernel","ms":900}]}}"#;
        let expected = [("boot".to_owned(), 3.0), ("guest kernel".to_owned(), 900.0)];
        assert_eq!(stages(show).unwrap(), expected);
        assert!(stages("{}").is_err());
    }
}
