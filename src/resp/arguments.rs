//! Keys, values, numbers and options, held to their limits.

use super::refuse::{self, NOT_AN_INTEGER};
use super::reply::Reply;
use super::session::Session;
use crate::record::{KEY_BYTES_MAX, Key};
use bytes::Bytes;

/// The key that a word names. Its bytes are copied: what they came with is many times as long.
pub(super) fn key(session: &Session, word: &[u8]) -> Result<Key, Reply> {
    Key::within(Bytes::copy_from_slice(word), session.worker.node.settings.key_bytes_max).map_err(refuse::key)
}

/// All of these as keys.
pub(super) fn keys(session: &Session, words: &[Bytes]) -> Result<Vec<Key>, Reply> {
    words.iter().map(|word| key(session, word)).collect()
}

/// A value, if it is not too long.
pub(super) fn value(session: &Session, word: &Bytes) -> Result<Bytes, Reply> {
    within(session, word.len()).map(|()| word.clone())
}

/// Whether a value may have so many bytes.
pub(super) fn within(session: &Session, bytes: usize) -> Result<(), Reply> {
    let max = session.worker.node.settings.value_bytes_max;
    if bytes <= max {
        return Ok(());
    }
    Err(Reply::Error(format!("ERR the value is longer than {max} bytes, which --value-max allows")))
}

/// Longest pattern of keys, in bytes: what it is held against costs up to so many steps a byte. No longer than a key, so that
/// what its keys begin with may be asked of peers.
const PATTERN_BYTES_MAX: usize = 1 << 10;
const _: () = assert!(PATTERN_BYTES_MAX <= KEY_BYTES_MAX);

/// A pattern, if it is not too long.
pub(super) fn pattern(word: &Bytes) -> Result<Bytes, Reply> {
    if word.len() <= PATTERN_BYTES_MAX {
        return Ok(Bytes::copy_from_slice(word));
    }
    Err(Reply::Error(format!("ERR a pattern has at most {PATTERN_BYTES_MAX} bytes")))
}

/// An integer in the one way it is written: no sign but a minus, no blanks, no leading zeros.
pub(super) fn integer(word: &[u8]) -> Result<i64, Reply> {
    let text = std::str::from_utf8(word).ok();
    let number = text.and_then(|text| text.parse::<i64>().ok().filter(|number| number.to_string() == text));
    number.ok_or_else(|| Reply::error(NOT_AN_INTEGER))
}

/// Whether a word is this option, in capitals or not.
pub(super) fn is(word: &[u8], option: &str) -> bool {
    word.eq_ignore_ascii_case(option.as_bytes())
}

/// A word as text to be shown.
pub(super) fn shown(word: &[u8]) -> String {
    String::from_utf8_lossy(word).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_longer_than_its_limit_is_refused() {
        assert!(pattern(&vec![b'*'; PATTERN_BYTES_MAX].into()).is_ok());
        let refused = pattern(&vec![b'*'; PATTERN_BYTES_MAX + 1].into());
        assert_eq!(refused, Err(Reply::error("ERR a pattern has at most 1024 bytes")));
    }

    #[test]
    fn an_integer_is_written_in_one_way() {
        for (word, number) in [("0", 0), ("-1", -1), ("9223372036854775807", i64::MAX)] {
            assert_eq!(integer(word.as_bytes()), Ok(number));
        }
        for word in ["", "+1", " 1", "1 ", "01", "-0", "1.0", "9223372036854775808", "0x1"] {
            assert!(integer(word.as_bytes()).is_err(), "{word}");
        }
    }
}
