//! Plain values read from text: switches, counts, seconds, sizes, log filters, names.
//!
//! All of them refuse what they do not understand with a sentence that says what would be understood.

use super::Nonsense;
use crate::placement::ZONE_BYTES_MAX;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Longest period or deadline, in seconds. An hour: beyond it a slip of the keyboard is likelier than an intention.
const SECONDS_MAX: f64 = 3600.0;

/// Longest period of what need not happen every day, in seconds: a year.
const RARE_SECONDS_MAX: f64 = 31_536_000.0;

/// Shortest, in seconds. Below a millisecond a timer is a busy loop and a deadline has passed before it is set.
const SECONDS_MIN: f64 = 0.001;

/// Longest name of a cluster, in characters; it travels with every peer call.
const CLUSTER_CHARS_MAX: usize = 64;

pub(super) fn switch(text: &str) -> Result<bool, Nonsense> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Nonsense::new(text, "is not true or false")),
    }
}

/// A count of `what` within `range`.
pub(super) fn count(text: &str, what: &str, range: RangeInclusive<usize>) -> Result<usize, Nonsense> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|count| digits && range.contains(count)).ok_or_else(|| {
        Nonsense::new(text, format!("is not a number of {what} from {} to {}", range.start(), range.end()))
    })
}

/// A count of `what` within `range`, or off.
pub(super) fn count_or_off(text: &str, what: &str, range: RangeInclusive<usize>) -> Result<Option<u64>, Nonsense> {
    match text.trim() {
        text if text.eq_ignore_ascii_case("off") => Ok(None),
        text => count(text, what, range).map(|count| Some(count as u64)),
    }
}

pub(super) fn port(text: &str) -> Result<u16, Nonsense> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| Nonsense::new(text, "is not a port from 0 to 65535"))
}

/// A port as for [`port`], or off.
pub(super) fn port_or_off(text: &str) -> Result<Option<u16>, Nonsense> {
    match text.trim() {
        text if text.eq_ignore_ascii_case("off") => Ok(None),
        text => port(text).map(Some),
    }
}

pub(super) fn seconds(text: &str) -> Result<Duration, Nonsense> {
    seconds_up_to(text, SECONDS_MAX)
}

/// Slowest pace, in bytes a second: what a session has on its way at a time arrives within the default `--timeout`.
const RATE_MIN: usize = 1 << 20;

/// The period of something that may be rare, up to a year, or `off`.
pub(super) fn rare_seconds(text: &str) -> Result<Option<Duration>, Nonsense> {
    match text.trim() {
        text if text.eq_ignore_ascii_case("off") => Ok(None),
        text => seconds_up_to(text, RARE_SECONDS_MAX).map(Some),
    }
}

fn seconds_up_to(text: &str, max: f64) -> Result<Duration, Nonsense> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds > max => {
            Err(Nonsense::new(text, format!("is more than {max} seconds")))
        }
        Ok(seconds) if seconds.is_finite() && seconds >= SECONDS_MIN => Ok(Duration::from_secs_f64(seconds)),
        Ok(seconds) if seconds > 0.0 && seconds < SECONDS_MIN => {
            Err(Nonsense::new(text, format!("is less than {SECONDS_MIN} seconds")))
        }
        _ => Err(Nonsense::new(text, "is not a number of seconds greater than 0")),
    }
}

/// A size of 1 to `max` bytes: `8MiB`, `512KiB`, `1048576`. Only the units that have one meaning are understood;
/// `8MB` is 5 % less than `8MiB` to some and the same to others.
pub(super) fn bytes(text: &str, max: usize) -> Result<usize, Nonsense> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    let scale = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "kib" => Some(1 << 10),
        "mib" => Some(1 << 20),
        "gib" => Some(1 << 30),
        _ => None,
    };
    let not_a_size = || Nonsense::new(text, "is not a size such as 8MiB, 512KiB or 1048576 (bytes)");
    let scale: usize = scale.ok_or_else(not_a_size)?;
    if digits.is_empty() {
        return Err(not_a_size());
    }
    match digits.parse::<usize>().ok().and_then(|count| count.checked_mul(scale)) {
        Some(0) => Err(Nonsense::new(text, "is no room for even one byte")),
        Some(bytes) if bytes <= max => Ok(bytes),
        _ => Err(Nonsense::new(text, format!("is more than the limit of {}", shown_bytes(max)))),
    }
}

/// The same, where 0 has a meaning too.
pub(super) fn bytes_or_none(text: &str, max: usize) -> Result<usize, Nonsense> {
    if text == "0" { Ok(0) } else { bytes(text, max) }
}

/// Bytes a second, from 1 MiB on, or `auto` for none.
pub(super) fn rate(text: &str, max: usize) -> Result<Option<u64>, Nonsense> {
    if text.trim().eq_ignore_ascii_case("auto") {
        return Ok(None);
    }
    match bytes(text, max)? {
        bytes if bytes < RATE_MIN => Err(Nonsense::new(text, "is less than 1MiB a second")),
        bytes => Ok(Some(bytes as u64)),
    }
}

fn shown_bytes(bytes: usize) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 30) => format!("{}GiB", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

/// A filter of env_logger: levels, for all or for single modules. A bare word that is no level would silence
/// everything but a module of that name; that is hardly ever meant, so it is refused.
pub(super) fn log_filter(text: &str) -> Result<String, Nonsense> {
    let because = "is not a log filter: off, error, warn, info, debug or trace, or a list such as warn,kringle=debug";
    let level = |word: &str| {
        ["off", "error", "warn", "info", "debug", "trace"].contains(&word.trim().to_ascii_lowercase().as_str())
    };
    let target = |word: &str| {
        let word = word.trim();
        !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "_-:.".contains(c))
    };
    // What follows the first slash is searched for in the messages, and may be anything.
    let directives = text.split('/').next().unwrap_or_default();
    let fine = directives.split(',').all(|directive| match directive.split_once('=') {
        Some((module, wanted)) => target(module) && level(wanted),
        None => level(directive),
    });
    if fine { Ok(text.to_owned()) } else { Err(Nonsense::new(text, because)) }
}

/// Seconds as for [`rare_seconds`], or never.
pub(super) fn seconds_or_never(text: &str) -> Result<Option<Duration>, Nonsense> {
    match text.trim() {
        text if text.eq_ignore_ascii_case("never") => Ok(None),
        text => seconds_up_to(text, RARE_SECONDS_MAX).map(Some),
    }
}

/// The name of a zone: visible ASCII, as that of a cluster.
pub fn zone(text: &str) -> Result<String, Nonsense> {
    let fine = (1..=ZONE_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fine {
        Ok(text.to_owned())
    } else {
        Err(Nonsense::new(text, "is not a name of 1 to 64 visible ASCII characters"))
    }
}

/// Origins as browsers name them: scheme, host, and the port where it is not the scheme's. Or `*`, alone.
pub(super) fn origins(text: &str) -> Result<Vec<String>, Nonsense> {
    if text.trim() == "*" {
        return Ok(vec!["*".into()]);
    }
    let origin = |text: &str| {
        let origin = text.trim().to_ascii_lowercase();
        let host = origin.strip_prefix("http://").or(origin.strip_prefix("https://")).unwrap_or_default();
        let fine = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@*".contains(&byte));
        let because = "is not an origin: give scheme and host, such as http://localhost:3000, or * alone";
        if fine { Ok(origin) } else { Err(Nonsense::new(text, because)) }
    };
    text.split(',').map(origin).collect()
}

/// Whether a node joins by itself.
pub(super) fn join(text: &str) -> Result<bool, Nonsense> {
    match text {
        "auto" => Ok(true),
        "manual" => Ok(false),
        _ => Err(Nonsense::new(text, "is not a way to join: auto or manual")),
    }
}

/// The name of a cluster: visible ASCII, so that two names which look alike are alike.
pub(super) fn cluster(text: &str) -> Result<String, Nonsense> {
    let fine = (1..=CLUSTER_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fine {
        Ok(text.to_owned())
    } else {
        Err(Nonsense::new(text, "is not a name of 1 to 64 visible ASCII characters"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_size_has_one_meaning() {
        let max = 64 << 20;
        for (text, wanted) in [("1", 1), ("512KiB", 512 << 10), ("8MiB", 8 << 20), ("8 mib", 8 << 20), ("9B", 9)] {
            assert_eq!(bytes(text, max), Ok(wanted), "{text}");
        }
        for text in ["", "MiB", "8MB", "8M", "8k", "1.5MiB", "-1", "+1", "0x10", "8 Mi B", "٣"] {
            let error = bytes(text, max).unwrap_err().to_string();
            assert!(error.ends_with("is not a size such as 8MiB, 512KiB or 1048576 (bytes)"), "{error}");
        }
        for text in ["65MiB", "67108865", "99999999999999999999999", "18446744073709551615MiB"] {
            let error = bytes(text, max).unwrap_err().to_string();
            assert!(error.ends_with("is more than the limit of 64MiB"), "{error}");
        }
        assert!(bytes("0KiB", max).is_err());
        assert_eq!((bytes("2GiB", 1 << 40), bytes_or_none("0", 1)), (Ok(2 << 30), Ok(0)));
    }

    #[test]
    fn seconds_are_finite_and_more_than_none() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(seconds("3600"), Ok(Duration::from_secs(3600)));
        for text in ["abc", "", "0", "-0", "-1", "NaN", "-nan", "inf", "-inf", "infinity", "1s", "1 ", "1e999"] {
            let error = seconds(text).unwrap_err().to_string();
            assert!(error.ends_with("is not a number of seconds greater than 0"), "{text}: {error}");
        }
        assert_eq!(seconds("3600.1").unwrap_err().to_string(), "\"3600.1\" is more than 3600 seconds");
        assert_eq!(seconds("1e-300").unwrap_err().to_string(), "\"1e-300\" is less than 0.001 seconds");
    }

    #[test]
    fn a_log_filter_with_a_stray_word_is_refused() {
        for text in ["info", "WARN", "off", "warn,kringle=debug", "kringle::node=trace", "debug/a needle, or = two"] {
            assert_eq!(log_filter(text).as_deref(), Ok(text));
        }
        for text in ["", "verbose", "kringle", "kringle=", "=info", "info,", "kringle=loud", "a b=info"] {
            assert!(log_filter(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}", number in "[-+]?[0-9.eE]{0,30}([kKmM]i?[bB]|ms|s)?") {
            for text in [&text, &number] {
                let _ = (switch(text), count(text, "things", 1..=9), port(text), log_filter(text), cluster(text));
                if let Ok(size) = bytes(text, 1000) {
                    prop_assert!((1..=1000).contains(&size));
                }
                if let Ok(period) = seconds(text) {
                    prop_assert!(period >= Duration::from_millis(1) && period <= Duration::from_secs(3600));
                }
            }
        }
    }
}
