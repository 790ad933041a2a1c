//! Commands typed as a line of words, as with `nc`: a word, or a quoted one in which blanks count.
//!
//! In double quotes `\n`, `\r`, `\t`, `\b`, `\a` and `\xHH` stand for one byte, and a backslash before anything else for
//! that; in single quotes only `\'` does. A closing quote ends its word.

use bytes::Bytes;

/// The words of a line; nothing where a quote is not closed, or goes on behind its end.
pub(super) fn words(line: &[u8]) -> Option<Vec<Bytes>> {
    let (mut words, mut rest) = (Vec::new(), line);
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(words);
        }
        let (word, behind) = word(rest)?;
        words.push(word.into());
        rest = behind;
    }
}

fn word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    while let Some((&byte, behind)) = rest.split_first() {
        match byte {
            b'"' | b'\'' => {
                let after = quoted(&mut word, byte, behind)?;
                let ends = after.first().is_none_or(u8::is_ascii_whitespace);
                return ends.then_some((word, after));
            }
            byte if byte.is_ascii_whitespace() => break,
            byte => word.push(byte),
        }
        rest = behind;
    }
    Some((word, rest))
}

/// Takes in what stands up to the closing quote; what is behind it.
fn quoted<'a>(word: &mut Vec<u8>, quote: u8, mut rest: &'a [u8]) -> Option<&'a [u8]> {
    loop {
        let (&byte, behind) = rest.split_first()?;
        rest = behind;
        match byte {
            byte if byte == quote => return Some(rest),
            b'\\' if quote == b'"' => {
                let (escaped, behind) = escape(rest)?;
                word.push(escaped);
                rest = behind;
            }
            b'\\' if rest.first() == Some(&b'\'') => {
                word.push(b'\'');
                rest = &rest[1..];
            }
            byte => word.push(byte),
        }
    }
}

/// What stands behind a backslash means this byte.
fn escape(rest: &[u8]) -> Option<(u8, &[u8])> {
    let digit = |at: usize| rest.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    if let (Some(b'x'), Some(high), Some(low)) = (rest.first(), digit(1), digit(2)) {
        return Some(((high * 16 + low) as u8, &rest[3..]));
    }
    let (&byte, behind) = rest.split_first()?;
    let byte = match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    };
    Some((byte, behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_stand_between_blanks_and_quotes_keep_theirs() {
        let taken = |line: &str| words(line.as_bytes());
        assert_eq!(taken("  SET\tkey  value ").unwrap(), ["SET", "key", "value"]);
        assert_eq!(taken(r#"SET k "a b\x41\n\"\q" '' "#).unwrap(), ["SET", "k", "a bA\n\"q", ""]);
        assert_eq!(taken(r"SET k 'it\'s \n'").unwrap(), ["SET", "k", r"it's \n"]);
        assert_eq!(taken(r#"a"b c""#).unwrap(), ["ab c"]);
        assert_eq!(taken("").unwrap().len(), 0);
        for open in [r#"SET k "a"#, "SET k 'a", r#"SET k "a"b"#, r#"SET k "a\"#] {
            assert_eq!(taken(open), None, "{open}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_from_their_escapes(value: Vec<u8>) {
            let escaped: String = value.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            prop_assert_eq!(words(format!("SET k \"{escaped}\"").as_bytes()).unwrap()[2].to_vec(), value);
        }

        #[test]
        fn no_line_is_too_strange(line: Vec<u8>) {
            let _ = words(&line);
        }
    }
}
