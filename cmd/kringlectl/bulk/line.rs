//! What stands on a line of an export.
//!
//! ```text
//! {"kringle_export":1,"prefix":"fruit/"}                                      the head
//! {"key":"fruit/apple","value":"1","content_type":null,"expires":null}        a key, many times
//! {"key":"fruit/fig","value":"3",…,"siblings":[{"value":"3",…},{"value":"2",…}]}
//! {"end":true,"keys":2,"blake3":"…"}                                          the seal
//! ```
//!
//! Bytes that are no text stand under the same name with `_base64` behind it. The values of a key written concurrently are all
//! among its `siblings`, the one that is shown first; `expires` is in milliseconds since 1970. The seal's sum is that of all
//! lines before it, line feeds included and nothing compressed: a file that was cut off has none, one that was changed
//! another.

use crate::exit::Failed;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kringle::record::KEY_BYTES_MAX;
use serde::{Deserialize, Serialize};

/// The number in the head.
pub const VERSION: u64 = 1;

/// The first line.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Head {
    kringle_export: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix_base64: Option<String>,
}

/// The last line.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    end: bool,
    /// How many keys the file has.
    pub keys: u64,
    /// The sum of all lines before.
    pub blake3: String,
}

/// A value, and what is kept with it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Shown {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    /// Its media type.
    #[serde(default)]
    pub content_type: Option<String>,
    /// When it ends, in milliseconds since 1970.
    #[serde(default)]
    pub expires: Option<u64>,
}

/// A key.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    expires: Option<u64>,
    /// All its values, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    siblings: Vec<Shown>,
}

/// A line of a list of keys with values, as a node writes it.
#[derive(Deserialize)]
pub struct Listed {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    content_type: Option<String>,
    expires: Option<u64>,
    /// How many values it has.
    pub siblings: u64,
}

/// One of the three.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    Head(Head),
    Entry(Entry),
    Seal(Seal),
}

impl Head {
    /// Of an export of the keys that start so.
    pub fn new(prefix: &[u8]) -> Head {
        let (prefix, prefix_base64) = split(prefix);
        Head { kringle_export: VERSION, prefix, prefix_base64 }
    }

    /// What the keys start with.
    pub fn prefix(&self) -> Result<Vec<u8>, Failed> {
        joined("prefix", self.prefix.as_deref(), self.prefix_base64.as_deref())
    }
}

impl Seal {
    /// Behind so many keys.
    pub fn new(keys: u64, sum: &blake3::Hash) -> Seal {
        Seal { end: true, keys, blake3: sum.to_hex().to_string() }
    }
}

impl Shown {
    /// The value.
    pub fn bytes(&self) -> Result<Vec<u8>, Failed> {
        joined("value", self.value.as_deref(), self.value_base64.as_deref())
    }

    /// Under its name in JSON: as text, or as base64.
    pub fn named(&self) -> Option<(&'static str, &str)> {
        match (&self.value, &self.value_base64) {
            (Some(text), _) => Some(("value", text)),
            (None, Some(digits)) => Some(("value_base64", digits)),
            (None, None) => None,
        }
    }
}

impl Entry {
    /// The key.
    pub fn key(&self) -> Result<Vec<u8>, Failed> {
        joined("key", self.key.as_deref(), self.key_base64.as_deref())
    }

    /// The same under its name in JSON.
    pub fn named(&self) -> (&'static str, &str) {
        match (&self.key, &self.key_base64) {
            (Some(text), _) => ("key", text),
            (None, digits) => ("key_base64", digits.as_deref().unwrap_or_default()),
        }
    }

    /// Its values, the one that is shown first.
    pub fn values(&self) -> Vec<Shown> {
        if !self.siblings.is_empty() {
            return self.siblings.clone();
        }
        let Entry { value, value_base64, content_type, expires, .. } = self.clone();
        vec![Shown { value, value_base64, content_type, expires }]
    }

    /// As one with all these values.
    pub fn with_siblings(self, siblings: Vec<Shown>) -> Entry {
        Entry { siblings, ..self }
    }

    fn check(self) -> Result<Entry, Failed> {
        match self.key()?.len() {
            0 => return Err(Failed::usage("the key is empty")),
            1..=KEY_BYTES_MAX => {}
            _ => return Err(Failed::usage(format!("the key is longer than {KEY_BYTES_MAX} bytes"))),
        }
        self.values().iter().try_for_each(|value| value.bytes().map(drop))?;
        Ok(self)
    }
}

impl From<Listed> for Entry {
    fn from(listed: Listed) -> Entry {
        let Listed { key, key_base64, value, value_base64, content_type, expires, .. } = listed;
        Entry { key, key_base64, value, value_base64, content_type, expires, siblings: Vec::new() }
    }
}

impl Line {
    /// Reads a line, and holds it to what one may say.
    pub fn parse(bytes: &[u8]) -> Result<Line, Failed> {
        let starts = |word: &str| bytes.trim_ascii_start().starts_with(word.as_bytes());
        let broken = |error: serde_json::Error| Failed::usage(format!("not a line of an export: {error}"));
        if starts("{\"kringle_export\"") {
            let head: Head = serde_json::from_slice(bytes).map_err(broken)?;
            if head.kringle_export != VERSION {
                let error = format!("an export of version {}, and this is of {VERSION}", head.kringle_export);
                return Err(Failed::usage(error).hint("use the kringlectl that wrote it, or a later one"));
            }
            return Ok(Line::Head(head));
        }
        if starts("{\"end\"") {
            return Ok(Line::Seal(serde_json::from_slice(bytes).map_err(broken)?));
        }
        serde_json::from_slice::<Entry>(bytes).map_err(broken)?.check().map(Line::Entry)
    }
}

/// Any of them as text, without a line feed.
pub fn text(line: &impl Serialize) -> Result<String, Failed> {
    serde_json::to_string(line).map_err(|error| Failed::new(crate::exit::Exit::Unexpected, error))
}

/// Bytes as text, or, where they are none, as base64.
fn split(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

fn joined(name: &str, text: Option<&str>, base64: Option<&str>) -> Result<Vec<u8>, Failed> {
    match (text, base64) {
        (Some(text), None) => Ok(text.as_bytes().to_vec()),
        (None, Some(digits)) => {
            STANDARD.decode(digits).map_err(|_| Failed::usage(format!("{name}_base64 is no base64")))
        }
        (None, None) => Err(Failed::usage(format!("there is no {name}"))),
        (Some(_), Some(_)) => Err(Failed::usage(format!("{name} and {name}_base64 contradict each other"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_comes_back_from_base64() {
        let head = Head::new(b"\xff/");
        let Line::Head(read) = Line::parse(text(&head).unwrap().as_bytes()).unwrap() else { panic!("no head") };
        assert_eq!(read.prefix().unwrap(), b"\xff/");
        let line = br#"{"key_base64":"/w==","value_base64":"/wA=","content_type":null,"expires":5}"#;
        let Line::Entry(entry) = Line::parse(line).unwrap() else { panic!("no entry") };
        assert_eq!((entry.key().unwrap(), entry.values()[0].bytes().unwrap()), (vec![0xff], vec![0xff, 0]));
    }

    #[test]
    fn a_line_that_says_too_little_or_too_much_is_refused() {
        let refused = [
            r#"{"value":"1"}"#,
            r#"{"key":"a"}"#,
            r#"{"key":"","value":"1"}"#,
            r#"{"key":"a","key_base64":"/w==","value":"1"}"#,
            r#"{"key":"a","value_base64":"?"}"#,
            r#"{"key":"a","value":"1","colour":"red"}"#,
            r#"{"kringle_export":2,"prefix":""}"#,
            r#"{"end":true}"#,
            "a,1",
        ];
        for line in refused {
            assert!(Line::parse(line.as_bytes()).is_err(), "{line}");
        }
        let of_length = |length| format!(r#"{{"key":"{}","value":"1"}}"#, "k".repeat(length));
        assert!(Line::parse(of_length(KEY_BYTES_MAX).as_bytes()).is_ok());
        assert!(Line::parse(of_length(KEY_BYTES_MAX + 1).as_bytes()).is_err());
    }

    #[test]
    fn all_values_of_a_key_are_told_the_shown_one_first() {
        let line = r#"{"key":"a","value":"1","siblings":[{"value":"1","expires":7},{"value":"2"}]}"#;
        let Line::Entry(entry) = Line::parse(line.as_bytes()).unwrap() else { panic!("no entry") };
        let values: Vec<Vec<u8>> = entry.values().iter().map(|value| value.bytes().unwrap()).collect();
        assert_eq!(values, [b"1", b"2"]);
    }
}
