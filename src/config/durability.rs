//! When an acknowledged write is on disk.

use super::Nonsense;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Longest interval between two syncs, in milliseconds. A minute of acknowledged writes is already a lot to lose;
/// who wants more wants `none` and should have to say so.
const INTERVAL_MS_MAX: u64 = 60_000;

/// What an acknowledgement says about the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Acknowledged means synced, many writes sharing one sync.
    Sync,
    /// Synced so often (1 ms to 60 s); a crash of the machine loses at most the last interval.
    Interval(Duration),
    /// Whenever the operating system likes; a crash of the machine loses what it had not written.
    None,
}

impl FromStr for Durability {
    type Err = Nonsense;

    fn from_str(text: &str) -> Result<Durability, Nonsense> {
        match text {
            "sync" => Ok(Durability::Sync),
            "none" => Ok(Durability::None),
            _ => {
                let ms = text.strip_prefix("interval:").and_then(|rest| {
                    let digits = rest.strip_suffix("ms").unwrap_or(rest);
                    digits.parse::<u64>().ok().filter(|ms| (1..=INTERVAL_MS_MAX).contains(ms))
                });
                ms.map(|ms| Durability::Interval(Duration::from_millis(ms))).ok_or_else(|| {
                    Nonsense::new(text, "is not a durability: sync, interval:<1 to 60000 milliseconds> or none")
                })
            }
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::Sync => f.write_str("sync"),
            Durability::Interval(period) => write!(f, "interval:{}", period.as_millis()),
            Durability::None => f.write_str("none"),
        }
    }
}
