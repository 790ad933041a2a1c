//! One history after another: a cluster, clients, faults, then everything well again, a last look at every key through
//! every node, and the checker.

use super::checker::{Verdict, check};
use super::clients::{Mix, Traffic};
use super::faults::{Kind, Nemesis};
use super::history::{Act, Operation, Outcome, listed};
use super::support::cluster::Cluster;
use super::support::http::Client;
use super::support::{eventually, seed, thorough};
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Peers are found dead, and healed, within seconds.
pub const QUICK: [&str; 6] = ["--timeout", "1", "--pingfreq", "0.2", "--syncfreq", "0.5"];

/// More than a request may take with that timeout.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(2);

/// Faults begin and end for so long.
const RAGE: Duration = Duration::from_millis(4_500);

/// Until the last look at every key has been answered.
const SOON: Duration = Duration::from_secs(60);

/// What histories are made of.
pub struct Plan {
    /// Each request is made in one of these.
    pub modes: &'static [&'static str],
    pub clients: u64,
    /// Nodes, drawn from these numbers.
    pub nodes: &'static [usize],
    /// Kinds of faults, each history drawing some of them.
    pub kinds: &'static [Kind],
    pub mixes: &'static [Mix],
    pub wants: Wants,
}

/// What is to come of histories.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wants {
    /// Each is linearizable.
    Linearizable,
    /// One is not: it is looked for.
    Violation,
    /// Afterwards every node answers, whatever.
    Answers,
}

/// What came of some histories.
#[derive(Default, Debug)]
pub struct Sum {
    pub histories: usize,
    pub operations: usize,
    pub unknown: usize,
    pub conditions_failed: usize,
    pub violations: Vec<String>,
}

/// As many histories as there is time for, `few` or, where thorough, `many`; panics at the first that is not as wanted.
#[track_caller]
pub fn play(test: &str, plan: &Plan, few: usize, many: usize) -> Sum {
    let first = seed(test);
    let mut sum = Sum::default();
    let began = Instant::now();
    for number in 0..if thorough() { many } else { few } {
        let seed = first.wrapping_add(number as u64);
        history(test, plan, seed, &mut sum);
        if plan.wants == Wants::Violation && !sum.violations.is_empty() {
            break;
        }
    }
    eprintln!(
        "{test}: {} histories in {:?}, {} operations, {} of unknown outcome, {} failed conditions, {} violations, {:.0?}",
        sum.histories,
        plan.modes,
        sum.operations,
        sum.unknown,
        sum.conditions_failed,
        sum.violations.len(),
        began.elapsed(),
    );
    sum
}

#[track_caller]
fn history(test: &str, plan: &Plan, seed: u64, sum: &mut Sum) {
    let again = format!("to see it again: KRINGLE_SEED={seed} cargo test --test linearizable {test} -- --nocapture");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let nodes = *plan.nodes.iter().choose(&mut rng).expect("a number of nodes");
    let some = rng.random_range(1..=4).min(plan.kinds.len());
    let mut kinds = plan.kinds.iter().copied().choose_multiple(&mut rng, some);
    kinds.sort();
    let keys = rng.random_range(3..=5);
    let keys: Vec<(String, Mix)> = (0..keys)
        .map(|number| (format!("h{seed}-{number}"), *plan.mixes.iter().choose(&mut rng).expect("a mix")))
        .collect();
    let pause = Duration::from_millis(rng.random_range(2..15));
    let (faults, mut seeds) = (ChaCha8Rng::seed_from_u64(rng.random()), rng);

    let mut cluster = match nodes {
        1 => Cluster::start(1, &QUICK),
        nodes => Cluster::behind_proxies(nodes, &QUICK),
    };
    let mut nemesis = Nemesis::new(&mut cluster, &kinds, faults);
    let addresses: Vec<String> = nemesis.addresses();
    let traffic = Traffic::new(plan.modes, addresses.clone(), keys, REQUEST_LIMIT);
    std::thread::scope(|scope| {
        for _ in 0..plan.clients {
            let seed = seeds.random();
            let traffic = &traffic;
            scope.spawn(move || traffic.client(seed, pause));
        }
        // Also when this panics, or the scope would never end.
        let over = Over(&traffic);
        nemesis.rage(RAGE);
        drop(over);
    });
    assert_allowed(&traffic, &again);
    last_look(&traffic, &addresses);
    assert_allowed(&traffic, &again);

    let (mut slowest, mut verdicts) = (Duration::ZERO, vec![]);
    let mut counts = [0; 3];
    for key in &traffic.keys {
        let operations = key.operations.lock().expect("the clients are done").clone();
        let count = |wanted: fn(&Operation) -> bool| operations.iter().filter(|one| wanted(one)).count();
        counts[0] += operations.len();
        counts[1] += count(|one| one.outcome == Outcome::Unknown && !one.act.only_looks());
        counts[2] += count(|one| matches!(one.outcome, Outcome::Failed(_)));
        let began = Instant::now();
        let verdict = check(&operations);
        slowest = slowest.max(began.elapsed());
        if verdict != Verdict::Linearizable {
            let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}.txt", key.key));
            let text = format!("{}\n{}", listed(&operations), nemesis.log.join("\n"));
            std::fs::write(&file, text).expect("a file for the history");
            let why = match verdict {
                Verdict::Violation(why) => why,
                _ => "too many orders to try\n".into(),
            };
            verdicts.push(format!("{} ({:?}): {why}the whole history: {}", key.key, key.mix, file.display()));
        }
    }
    eprintln!(
        "{test}: seed {seed}, {nodes} nodes, {kinds:?}: {} operations of {} keys, {} unknown, {} failed conditions, \
         {} refused, slowest check {slowest:.1?}, {}",
        counts[0],
        traffic.keys.len(),
        counts[1],
        counts[2],
        traffic.refused.load(Ordering::SeqCst),
        if verdicts.is_empty() { "linearizable" } else { "NOT linearizable" },
    );
    let is_fine = plan.wants != Wants::Linearizable || verdicts.is_empty();
    assert!(is_fine, "{}\n{}\n{again}", verdicts.join("\n"), nemesis.log.join("\n"));
    sum.histories += 1;
    sum.operations += counts[0];
    sum.unknown += counts[1];
    sum.conditions_failed += counts[2];
    sum.violations.extend(verdicts);
}

#[track_caller]
fn assert_allowed(traffic: &Traffic, again: &str) {
    let wrong = traffic.wrong.lock().expect("the clients are done");
    assert!(wrong.is_empty(), "{} answers that the contract does not know, like {}\n{again}", wrong.len(), wrong[0]);
}

/// Ends the clients' work, however the test's ends.
struct Over<'a>(&'a Traffic);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}

/// Reads every key once through every node, until it is told.
#[track_caller]
fn last_look(traffic: &Traffic, addresses: &[String]) {
    for key in &traffic.keys {
        for (node, address) in addresses.iter().enumerate() {
            let mut client = Client::new(address).within(REQUEST_LIMIT);
            eventually("every node reads every key once all is well", SOON, || {
                match traffic.ask(usize::MAX, node, &mut client, key, Act::Read) {
                    Some(read) if read.outcome != Outcome::Unknown => Ok(()),
                    _ => Err(format!("no answer from node {node} about {}", key.key)),
                }
            });
        }
    }
}
