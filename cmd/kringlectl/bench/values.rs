//! Values that can be checked: each says which run, key, client and write it is of, under a checksum.
//!
//! ```text
//!  0    3         14        22        29      32        40
//!  ├────┼─────────┼─────────┼─────────┼───────┼─────────┼───── … ┐
//!  │kb1 │ check   │ run     │ key     │client │ sequence│ filler │   all hexadecimal digits but the filler
//!  └────┴─────────┴─────────┴─────────┴───────┴─────────┴───── … ┘
//! ```
//!
//! `check` is the beginning of the BLAKE3 of the key and of all that follows. The filler is letters and digits that begin
//! elsewhere for each write: the head of one value before the filler of another is no value.

use super::chance::Chance;
use std::str::FromStr;

const MARK: &[u8] = b"kb1";
const CHECK_DIGITS: usize = 11;
const RUN_DIGITS: usize = 8;
const KEY_DIGITS: usize = 7;
const CLIENT_DIGITS: usize = 3;
const SEQUENCE_DIGITS: usize = 8;

const CHECKED_FROM: usize = MARK.len() + CHECK_DIGITS;

/// The shortest value, in bytes.
pub const VALUE_BYTES_MIN: usize = CHECKED_FROM + RUN_DIGITS + KEY_DIGITS + CLIENT_DIGITS + SEQUENCE_DIGITS;

/// The longest one: a node takes none that is longer.
pub const VALUE_BYTES_MAX: usize = kringle::config::VALUE_BYTES_MAX;

/// Clients that a value can tell apart.
pub const CLIENTS_MAX: u16 = 4095;

/// How many places the filler may begin at.
const FILLERS: usize = 4096;

/// Which write made a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The run of the bench.
    pub run: u32,
    /// The key's number.
    pub key: u32,
    /// Who wrote it, 0 to [`CLIENTS_MAX`].
    pub client: u16,
    /// The how-manieth write of that key in that run, from 1.
    pub sequence: u32,
}

/// Why a value is none that was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// No bench wrote it, or it is another key's.
    Foreign,
    /// It was one, and is not whole.
    Torn,
}

/// How long values are, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// The shortest.
    pub min: usize,
    /// The longest.
    pub max: usize,
}

impl Sizes {
    /// One between the shortest and the longest, each as likely.
    pub fn pick(&self, chance: &mut Chance) -> usize {
        self.min + chance.below((self.max - self.min) as u64 + 1) as usize
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Sizes, String> {
        let (min, max) = text.split_once('-').unwrap_or((text, text));
        let (min, max) = (bytes(min)?, bytes(max)?);
        if min > max {
            return Err(format!("{min} is more than {max}: say the shortest first"));
        }
        if min < VALUE_BYTES_MIN {
            return Err(format!("a value says who wrote it, and has {VALUE_BYTES_MIN} bytes at least"));
        }
        if max > VALUE_BYTES_MAX {
            return Err(format!("a node takes {} MiB at most", VALUE_BYTES_MAX >> 20));
        }
        Ok(Sizes { min, max })
    }
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.min == self.max {
            true => write!(f, "{}", self.min),
            false => write!(f, "{}-{}", self.min, self.max),
        }
    }
}

/// `100`, `4KiB`, `1MiB`.
fn bytes(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim() {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        _ => None,
    };
    let number = digits.parse::<usize>().ok();
    let bytes = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    bytes.ok_or_else(|| format!("{text:?} is no size: a number of bytes, or one with KiB or MiB"))
}

/// All values of one run.
pub struct Values {
    run: u32,
    filler: Vec<u8>,
}

impl Values {
    /// Those of this run, `max` bytes at most.
    pub fn new(run: u32, max: usize) -> Values {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut chance = Chance::seeded(u64::from(run));
        let mut filler = Vec::with_capacity(max + FILLERS);
        while filler.len() < max + FILLERS {
            let bits = chance.bits();
            filler.extend((0..10).map(|digit| LETTERS[(bits >> (6 * digit)) as usize & 63]));
        }
        Values { run, filler }
    }

    /// The run.
    pub fn run(&self) -> u32 {
        self.run
    }

    /// The value of a write, `size` bytes long; what is no text of this run's would not be read back.
    pub fn value(&self, key: &str, stamp: Stamp, size: usize) -> Vec<u8> {
        assert!(size >= VALUE_BYTES_MIN, "a value of {size} bytes says nothing");
        let Stamp { run, key: number, client, sequence } = stamp;
        let head =
            format!("{run:0RUN_DIGITS$x}{number:0KEY_DIGITS$x}{client:0CLIENT_DIGITS$x}{sequence:0SEQUENCE_DIGITS$x}");
        let mut value = Vec::with_capacity(size);
        value.extend_from_slice(MARK);
        value.extend_from_slice(&[b'0'; CHECK_DIGITS]);
        value.extend_from_slice(head.as_bytes());
        let from = (sequence.wrapping_mul(0x9e37_79b1) ^ number) as usize % FILLERS;
        value.extend_from_slice(&self.filler[from..from + size - VALUE_BYTES_MIN]);
        let check = check(key, &value[CHECKED_FROM..]);
        value[MARK.len()..CHECKED_FROM].copy_from_slice(check.as_bytes());
        value
    }
}

/// Which write made the value read under this key, the one of that number.
pub fn read(key: &str, number: u32, value: &[u8]) -> Result<Stamp, Damage> {
    if !value.starts_with(&MARK[..MARK.len().min(value.len())]) || value.is_empty() {
        return Err(Damage::Foreign);
    }
    let stamp = head(value).ok_or(Damage::Torn)?;
    if stamp.key != number {
        return Err(Damage::Foreign);
    }
    match check(key, &value[CHECKED_FROM..]).as_bytes() == &value[MARK.len()..CHECKED_FROM] {
        true => Ok(stamp),
        false => Err(Damage::Torn),
    }
}

fn head(value: &[u8]) -> Option<Stamp> {
    let mut text = std::str::from_utf8(value.get(CHECKED_FROM..VALUE_BYTES_MIN)?).ok()?;
    let mut field = |digits: usize| {
        let (field, rest) = text.split_at_checked(digits)?;
        text = rest;
        u32::from_str_radix(field, 16).ok()
    };
    Some(Stamp {
        run: field(RUN_DIGITS)?,
        key: field(KEY_DIGITS)?,
        client: field(CLIENT_DIGITS)? as u16,
        sequence: field(SEQUENCE_DIGITS)?,
    })
}

fn check(key: &str, rest: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.as_bytes());
    // A key has no such byte, so that none can end in what another value begins with.
    hasher.update(&[0]);
    hasher.update(rest);
    hasher.finalize().to_hex()[..CHECK_DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp(run: u32, key: u32, client: u16, sequence: u32) -> Stamp {
        Stamp { run, key, client, sequence }
    }

    proptest! {
        #[test]
        fn a_value_says_which_write_made_it(
            run: u32, key in 0..=super::super::keys::KEYS_MAX, client in 0..=CLIENTS_MAX, sequence: u32,
            size in VALUE_BYTES_MIN..2_000,
        ) {
            let stamp = stamp(run, key, client, sequence);
            let value = Values::new(run, 2_000).value("k", stamp, size);
            prop_assert_eq!(value.len(), size);
            prop_assert_eq!(read("k", key, &value), Ok(stamp));
        }

        #[test]
        fn a_value_with_another_byte_anywhere_is_none(size in VALUE_BYTES_MIN..300, at: prop::sample::Index, other: u8) {
            let mut value = Values::new(5, 300).value("k", stamp(5, 6, 7, 8), size);
            let at = at.index(size);
            prop_assume!(value[at] != other);
            value[at] = other;
            prop_assert!(read("k", 6, &value).is_err());
        }

        #[test]
        fn whatever_is_read_is_told_from_a_value(bytes: Vec<u8>) {
            prop_assert!(read("k", 6, &bytes).is_err());
        }
    }

    #[test]
    fn a_value_cut_anywhere_is_torn() {
        let value = Values::new(5, 300).value("k", stamp(5, 6, 7, 8), 300);
        for length in 1..300 {
            assert_eq!(read("k", 6, &value[..length]), Err(Damage::Torn), "{length}");
        }
        assert_eq!(read("k", 6, b""), Err(Damage::Foreign));
    }

    #[test]
    fn the_head_of_one_value_before_the_filler_of_another_is_torn() {
        let values = Values::new(5, 300);
        let (one, other) = (values.value("k", stamp(5, 6, 7, 8), 300), values.value("k", stamp(5, 6, 7, 9), 300));
        let mixed = [&one[..VALUE_BYTES_MIN], &other[VALUE_BYTES_MIN..]].concat();
        assert_eq!(read("k", 6, &mixed), Err(Damage::Torn));
    }

    #[test]
    fn the_value_of_another_key_is_foreign() {
        let values = Values::new(5, 300);
        let value = values.value("k6", stamp(5, 6, 7, 8), 100);
        assert_eq!(read("k9", 9, &value), Err(Damage::Foreign));
        assert_eq!(read("other/6", 6, &value), Err(Damage::Torn), "the same number behind another prefix");
        assert_eq!(read("k6", 6, b"world"), Err(Damage::Foreign));
    }

    #[test]
    fn sizes_are_read_with_their_units_and_bounds() {
        assert_eq!("100".parse(), Ok(Sizes { min: 100, max: 100 }));
        assert_eq!("40-4KiB".parse(), Ok(Sizes { min: 40, max: 4096 }));
        assert_eq!("1MiB".parse(), Ok(Sizes { min: 1 << 20, max: 1 << 20 }));
        for (text, why) in [
            ("39", "40 bytes at least"),
            ("200-100", "say the shortest first"),
            ("65MiB", "64 MiB at most"),
            ("1GB", "is no size"),
            ("", "is no size"),
            ("99999999999999999999MiB", "is no size"),
            ("-5", "is no size"),
        ] {
            let error = text.parse::<Sizes>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
