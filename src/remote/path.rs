//! Keys and words inside URLs.

use std::fmt::Write;

/// Any bytes as one segment of a path, percent-encoded where they are not letters, digits or `-._~`. A key goes through
/// here whole: its slashes become `%2F`, which a node reads as a slash.
pub fn segment(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(text, "%{byte:02X}")),
        }
    }
    text
}

/// `path?a=b&c=d`, percent-encoded; without parameters the path alone.
pub fn query<'a>(path: &str, parameters: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut text = path.to_owned();
    for (index, (name, value)) in parameters.into_iter().enumerate() {
        text.push(if index == 0 { '?' } else { '&' });
        text.push_str(&segment(name.as_bytes()));
        text.push('=');
        text.push_str(&segment(value));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_no_plain_letter_is_encoded() {
        assert_eq!(segment(b"a/b c%\x00\xff.~"), "a%2Fb%20c%25%00%FF.~");
        assert_eq!(query("/kv", [("prefix", &b"a&b=c"[..]), ("limit", b"5")]), "/kv?prefix=a%26b%3Dc&limit=5");
        assert_eq!(query("/kv", []), "/kv");
    }
}
