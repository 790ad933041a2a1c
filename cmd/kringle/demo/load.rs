//! `load` and `bench`: many clients at the same time, each with keys of its own, so that each knows what it has to read.

use super::cluster::Cluster;
use super::home::once;
use super::keys;
use super::register::Register;
use super::trouble::Trouble;
use kringle::remote::{Ask, Failure, Remote};
use std::cell::Cell;
use std::fmt::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Clients at work.
const CLIENTS: u32 = 10;

/// Keys of each client of `bench`.
const BENCH_KEYS: u32 = 20;

/// Length of a value, in bytes.
const VALUE_BYTES: usize = 100;

/// What clients did.
#[derive(Default)]
struct Tally {
    writes: Vec<Duration>,
    reads: Vec<Duration>,
    /// Refused, or without an answer.
    failed: u64,
    /// Reads of something else than was written.
    wrong: u64,
    first_failure: Option<String>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.writes.extend(other.writes);
        self.reads.extend(other.reads);
        (self.failed, self.wrong) = (self.failed + other.failed, self.wrong + other.wrong);
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }

    fn fail(&mut self, why: String) {
        self.failed += 1;
        self.first_failure.get_or_insert(why);
    }

    fn lie(&mut self, why: String) {
        self.wrong += 1;
        self.first_failure.get_or_insert(why);
    }

    /// Writes, and takes notice of what came of it.
    async fn write(&mut self, remote: &Remote, key: &str, value: &str, register: &mut Register) {
        let begun = Instant::now();
        let written = remote.ask(&Ask::put(keys::value(key)).body(value.to_owned())).await;
        match written.and_then(kringle::remote::Answer::successful) {
            Ok(_) => {
                self.writes.push(begun.elapsed());
                register.acknowledge(value);
            }
            Err(failure) => {
                if may_surface(&failure) {
                    register.doubt(value);
                }
                self.fail(format!("writing {key}: {failure}"));
            }
        }
    }

    /// Reads, and compares.
    async fn read(&mut self, remote: &Remote, key: &str, register: &mut Register) {
        let begun = Instant::now();
        match read(remote, key).await {
            Ok(found) => {
                self.reads.push(begun.elapsed());
                if let Err(why) = register.read(found.as_deref(), false) {
                    self.lie(format!("reading {key}: {why}"));
                }
            }
            Err(failure) => self.fail(format!("reading {key}: {failure}")),
        }
    }
}

/// What is there under a key; bytes that are no text are shown as best they can.
pub(super) async fn read(remote: &Remote, key: &str) -> Result<Option<String>, Failure> {
    let answer = remote.ask(&Ask::get(keys::value(key))).await?;
    if answer.status.as_u16() == 404 {
        return Ok(None);
    }
    let answer = answer.successful()?;
    Ok(Some(String::from_utf8_lossy(&answer.body).into_owned()))
}

/// Whether a write that failed so may be found later.
pub(super) fn may_surface(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable { .. } => false,
        // Refused before anything was done, or said in so many words.
        Failure::Refused { status, error, hint, .. } => {
            let said = format!("{error} {hint}");
            let is_nowhere = said.contains("nothing was stored") && !said.contains("nothing was stored here");
            status.is_server_error() && !is_nowhere
        }
        Failure::Unknown { .. } | Failure::Broken { .. } | Failure::Garbled { .. } => true,
    }
}

/// A value that says whose it is, and of which run: what an earlier one has left must not pass for it, of [`VALUE_BYTES`] bytes at least.
fn value(key: &str, run: &str, turn: u32) -> String {
    format!("{:.<VALUE_BYTES$}", format!("{key} {run} {turn} "))
}

/// `load`: writes so many keys, and reads each of them back.
pub(super) async fn load(cluster: &Cluster, count: u32) -> Result<String, Trouble> {
    let begun = Instant::now();
    let next = Rc::new(Cell::new(0));
    let run = once();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS.min(count) {
        let (remote, next, run) = (cluster.remote()?, next.clone(), run.clone());
        clients.spawn_local(async move {
            let mut tally = Tally::default();
            let mut written = Vec::new();
            while next.get() < count {
                next.set(next.get() + 1);
                let key = format!("load/{}", next.get());
                let mut register = Register::default();
                tally.write(&remote, &key, &value(&key, &run, 0), &mut register).await;
                if register.is_known() {
                    written.push((key, register));
                }
            }
            for (key, register) in &mut written {
                tally.read(&remote, key, register).await;
            }
            tally
        });
    }
    let tally = all(clients).await;
    let took = begun.elapsed();
    let mut said = format!(
        "Loaded {} of {count} keys and read {} back in {:.1} s: {} failed, {} wrong",
        tally.writes.len(),
        tally.reads.len(),
        took.as_secs_f64(),
        tally.failed,
        tally.wrong
    );
    add_first_failure(&mut said, &tally);
    Ok(said)
}

/// `bench`: each client writes one of its keys and reads another, by turns, for so many seconds.
pub(super) async fn bench(cluster: &Cluster, seconds: u32) -> Result<String, Trouble> {
    let begun = Instant::now();
    let limit = Duration::from_secs(seconds.into());
    let run = once();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (remote, run) = (cluster.remote()?, run.clone());
        clients.spawn_local(async move {
            let mut tally = Tally::default();
            let mut keys: Vec<(String, Register)> =
                (0..BENCH_KEYS).map(|number| (format!("bench/{client}/{number}"), Register::default())).collect();
            let mut turn = 0;
            while begun.elapsed() < limit {
                let (key, register) = &mut keys[(turn % BENCH_KEYS) as usize];
                tally.write(&remote, key, &value(key, &run, turn), register).await;
                // One that was written half a round ago; before that, this one.
                let other = if turn >= BENCH_KEYS { turn + BENCH_KEYS / 2 } else { turn };
                let (key, register) = &mut keys[(other % BENCH_KEYS) as usize];
                if register.is_known() {
                    tally.read(&remote, key, register).await;
                }
                turn += 1;
            }
            tally
        });
    }
    let mut tally = all(clients).await;
    let took = begun.elapsed().as_secs_f64();
    let (writes, reads) = (tally.writes.len(), tally.reads.len());
    let mut said = format!(
        "{CLIENTS} clients, {took:.1} s: {:.0} requests a second, {} failed, {} wrong\nWrites: {writes}, {}\nReads: {reads}, {}",
        (writes + reads) as f64 / took,
        tally.failed,
        tally.wrong,
        latencies(&mut tally.writes),
        latencies(&mut tally.reads),
    );
    add_first_failure(&mut said, &tally);
    Ok(said)
}

async fn all(mut clients: JoinSet<Tally>) -> Tally {
    let mut sum = Tally::default();
    while let Some(done) = clients.join_next().await {
        match done {
            Ok(tally) => sum.add(tally),
            Err(error) => sum.lie(format!("a client broke: {error}")),
        }
    }
    sum
}

fn add_first_failure(said: &mut String, tally: &Tally) {
    if let Some(why) = &tally.first_failure {
        // Writing to a string cannot fail.
        let _ = write!(said, "\nThe first: {why}");
    }
}

/// Percentiles, in milliseconds.
fn latencies(samples: &mut [Duration]) -> String {
    samples.sort_unstable();
    let at = |share: f64| {
        let rank = (samples.len() as f64 * share).ceil() as usize;
        samples.get(rank.max(1) - 1).map_or(0.0, |sample| sample.as_secs_f64() * 1_000.0)
    };
    format!("p50 {:.2} ms, p99 {:.2} ms, longest {:.2} ms", at(0.5), at(0.99), at(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_samples_there_are() {
        let mut samples: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(latencies(&mut samples), "p50 50.00 ms, p99 99.00 ms, longest 100.00 ms");
        assert_eq!(latencies(&mut [Duration::from_millis(7)]), "p50 7.00 ms, p99 7.00 ms, longest 7.00 ms");
        assert_eq!(latencies(&mut []), "p50 0.00 ms, p99 0.00 ms, longest 0.00 ms");
    }

    #[test]
    fn values_say_whose_they_are_and_have_their_length() {
        let (one, other) = (once(), once());
        let long = value("load/1", &one, 3);
        assert!(long.starts_with(&format!("load/1 {one} 3 ")) && long.len() == VALUE_BYTES, "{long}");
        assert_ne!(value("load/1", &one, 0), value("load/1", &other, 0), "two runs write the same");
    }

    #[test]
    fn only_what_nobody_refused_outright_may_surface() {
        let refused = |status: u16, hint: &str| Failure::Refused {
            from: "x".into(),
            status: status.try_into().unwrap(),
            error: "no".into(),
            hint: hint.into(),
        };
        assert!(may_surface(&refused(503, "it may still surface")));
        assert!(!may_surface(&refused(503, "nothing was stored, and nothing will surface")));
        assert!(!may_surface(&refused(507, "nothing was stored; add nodes")));
        assert!(may_surface(&refused(503, "nothing was stored here; try again shortly")));
        assert!(may_surface(&refused(500, "this is a bug of the node; a write may still surface")));
        assert!(!may_surface(&refused(412, "read the key")));
        assert!(may_surface(&Failure::Unknown { from: "x".into(), why: "late".into() }));
        assert!(!may_surface(&Failure::Unreachable { tried: vec![] }));
    }
}
