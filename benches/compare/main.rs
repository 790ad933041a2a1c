//! Kringle beside what a user would pick instead: both sides of every ratio measured in one run, by turns.
//!
//! `cargo bench --bench compare -- <scenario> …`, or `-- help`. Real processes on loopback, data on the disk that
//! holds `target/`. A scenario whose other program is not installed says so and leaves that row out.
//!
//! Two programs that each want a whole core and are put on one by the scheduler run at half their rate, so where
//! that can happen the load generator gets the last core for itself (see [`machine::Pin`]); `--free` pins nothing.
//! Each row also shows the processor time a request cost the servers, which noise disturbs least, and how much of the
//! machine somebody else was using: figures taken beside more than a few percent of that are not worth keeping.

#![allow(clippy::print_stdout, reason = "a program whose result is what it prints")]

mod agree;
mod copies;
mod felt;
mod fill;
mod forgetting;
mod growth;
mod healing;
mod joining;
mod machine;
mod many_keys;
mod map_server;
mod paced;
mod process;
mod report;
mod resp;
mod scenarios;
mod servers;
mod wrk;

use std::process::ExitCode;
use std::time::Duration;

/// As in the node: the map it is measured against is served out of this program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What went wrong, for people.
type Outcome<T> = Result<T, String>;

/// How to measure.
#[derive(Clone)]
struct Options {
    /// Of each measurement. Shorter ones miss what happens every few seconds, such as checkpoints.
    seconds: u64,
    /// How often each side has its turn.
    rounds: usize,
    /// Connections, where a scenario does not say.
    connections: u32,
    /// Kringle's nodes keep nothing: what the rest costs without the disk.
    memory: bool,
    /// Scenarios that can, also run at 1,000,000 keys.
    large: bool,
    /// Nothing is pinned to a core.
    free: bool,
    /// HTTP workers of a node, and of the server it is compared with.
    workers: Option<usize>,
    /// Requests a second of the client of `sync-latency` and of `forgetting`, instead of its own.
    rate: Option<u64>,
    /// Deleted keys that are forgotten.
    tombstones: u64,
}

const HELP: &str = "\
cargo bench --bench compare -- <scenario> … [options]

  get        one node, GET /kv, against the same HTTP server answering from a map
  put        one node, durable PUT /kv, against Redis with AOF always, and against that map
  cluster    three nodes, majority PUT and R=2 GET, against a three-node etcd; also with one connection
  agree      three nodes, linearizable PUT and GET, against a three-node etcd; and many clients that swap one value
  resp       one node, redis-benchmark's SET and GET, -P 1 and 16, against Redis; and what an idle connection takes
  growth     one node, a PUT at 1,000 and at 1,000,000 keys, beside what the map and Redis lose
  memory     resident memory of a node with 100,000 keys of 100 B
  restart    clean and after kill -9, until ready, and until the digests are built (--large: 1,000,000 keys)
  listing    1,000,000 keys listed in key order, by one node and by three: as a stream, and page by page
  batch      100 writes as one batch, one after the other, and at once; one node and three
  placement  the fullest member against the mean, and what a join moves
  sync             two nodes of 1,000,000 keys: in sync, one key differing, 10,000 differing, 10,000 missing; and of 31,000
  sync-latency     three nodes: what a client feels of a repair and of hints being handed over
  forgetting       three nodes: what a client feels while 100,000 deleted keys are forgotten, and how quickly they are
  join, join-million  three nodes of 100,000 keys, or a million: what a client feels while a fourth joins and leaves
  restart-million  one node of 1,000,000 keys after kill -9: until it serves, and until its digests are built
  hash             GET /store/hash at 1,000,000 keys while writes run
  upkeep           what a write's digests cost of the write
  all        all of them

  --seconds N      of one measurement (15)          --rounds N   turns of each side (3)
  --connections N  of the load generator (50)       --memory     nodes keep nothing on disk
  --workers N      HTTP threads of a node           --large      1,000,000 keys too
  --free           pin nothing to a core   --rate N     requests a second of the client in sync-latency, forgetting, join
  --tombstones N   deleted keys in forgetting (100000)
";

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if words.first().is_some_and(|word| word == map_server::HIDDEN_ARGUMENT) {
        return map_server::main(words.get(1).and_then(|count| count.parse().ok()).unwrap_or(1));
    }
    let options = match options(&mut words) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    if words.is_empty() || words[0] == "help" {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let chosen = match scenarios::choose(&words) {
        Ok(chosen) => chosen,
        Err(error) => {
            eprintln!("{error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    println!("{}", machine::describe());
    let mut failed = false;
    for (name, scenario) in chosen {
        println!("\n## {name}");
        if let Err(error) = scenario(&options) {
            println!("{name} failed: {error}");
            failed = true;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn options(words: &mut Vec<String>) -> Outcome<Options> {
    let mut options = Options {
        seconds: 15,
        rounds: 3,
        connections: 50,
        memory: false,
        large: false,
        free: false,
        workers: None,
        rate: None,
        tombstones: 100_000,
    };
    let mut rest = std::mem::take(words).into_iter();
    while let Some(word) = rest.next() {
        let mut number = || {
            let given = rest.next().and_then(|given| given.parse::<u32>().ok()).filter(|given| *given > 0);
            given.ok_or(format!("{word} wants a number above 0"))
        };
        match word.as_str() {
            "--seconds" => options.seconds = number()?.into(),
            "--rounds" => options.rounds = number()? as usize,
            "--connections" => options.connections = number()?,
            "--workers" => options.workers = Some(number()? as usize),
            "--rate" => options.rate = Some(number()?.into()),
            "--tombstones" => options.tombstones = number()?.into(),
            "--memory" => options.memory = true,
            "--large" => options.large = true,
            "--free" => options.free = true,
            unknown if unknown.starts_with('-') && unknown != "--help" => return Err(format!("unknown: {unknown}")),
            "--help" => words.push("help".into()),
            _ => words.push(word),
        }
    }
    Ok(options)
}

impl Options {
    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}
