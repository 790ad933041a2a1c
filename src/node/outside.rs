//! The only file that reads clocks and entropy.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 by the wall clock; 0 before it.
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A moment that only moves forward.
pub fn now() -> Instant {
    Instant::now()
}

/// 64 random bits from the operating system.
pub fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|error| panic!("the operating system gives no random numbers: {error}"))
}

/// `base` made up to a fifth shorter or longer, so that nodes started together do not stay in step.
pub fn jittered(base: Duration) -> Duration {
    base.mul_f64(0.8 + 0.4 * (random() >> 11) as f64 / (1u64 << 53) as f64)
}
