//! The black-box test kit: real node processes, the network between them, and clients that count.
//!
//! It knows the contract, and of the product's code only the form of what peers send: a node is a program with flags, a
//! folder and a port. Everything started here is ended by its own `Drop`, by process id. Waiting is polling up to a
//! deadline ([`eventually`]); nothing sleeps and hopes.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `KRINGLE_BIN` | run the tests against this program instead of the one just built (a release build, say) |
//! | `KRINGLE_SEED` | the seed of every random choice; printed by each test that makes one |
//! | `KRINGLE_THOROUGH` | set: wider ranges and longer runs than a quick `cargo test` should take |

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part of the kit")]

pub mod clock;
pub mod cluster;
pub mod http;
pub mod load;
pub mod node;
pub mod peer;
pub mod proxy;
pub mod resp;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often a condition is looked at while waiting for it.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Polls `look` until it says `Ok`, or panics with what it said last once `limit` has passed.
pub fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(value) => return value,
            Err(reason) if Instant::now() >= deadline => panic!("not within {limit:?}: {what}; last seen: {reason}"),
            Err(_) => std::thread::sleep(POLL_INTERVAL),
        }
    }
}

/// The generator of a test's random choices.
pub fn seeded(test: &str) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed(test))
}

/// The seed of a test's random choices: printed, so that a failure can be held.
pub fn seed(test: &str) -> u64 {
    let seed = match std::env::var("KRINGLE_SEED") {
        Ok(text) => text.parse().expect("KRINGLE_SEED is a number"),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos() as u64,
    };
    eprintln!("{test}: KRINGLE_SEED={seed}");
    seed
}

/// Whether the caller has time for the wide ranges.
pub fn thorough() -> bool {
    std::env::var_os("KRINGLE_THOROUGH").is_some()
}

/// The value below which the share `q` of `samples` lies.
pub fn quantile(samples: &mut [Duration], q: f64) -> Duration {
    assert!(!samples.is_empty(), "a quantile of nothing");
    samples.sort_unstable();
    samples[((samples.len() - 1) as f64 * q).round() as usize]
}

/// `Kringle-Replicas: wanted=3, acked=2, hinted=1` as numbers by name.
pub fn replicas(answer: &http::Answer) -> BTreeMap<String, u64> {
    let header = answer.header("Kringle-Replicas").unwrap_or_else(|| panic!("no Kringle-Replicas in {answer}"));
    header
        .split(',')
        .map(|part| {
            let (name, number) = part.trim().split_once('=').unwrap_or_else(|| panic!("not name=number: {header}"));
            (name.to_owned(), number.parse().unwrap_or_else(|_| panic!("not name=number: {header}")))
        })
        .collect()
}

/// Copies a folder with all that is in it.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder to copy") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("its kind").is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("a copy")),
        }
    }
}

/// Standard base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            match digit <= chunk.len() {
                true => text.push(char::from(DIGITS[(word >> (18 - 6 * digit)) as usize & 63])),
                false => text.push('='),
            }
        }
    }
    text
}
