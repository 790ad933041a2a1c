//! What a command is answered.

use bytes::Bytes;

/// An answer, in the terms that both versions of the protocol share; `frame` knows how each writes it.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Reply {
    /// A word of the server's own, such as `OK`.
    Simple(&'static str),
    /// An error: a line of text, the first word of which programs may look at.
    Error(String),
    /// A number.
    Integer(i64),
    /// Any bytes.
    Bulk(Bytes),
    /// Nothing.
    Null,
    /// Several, in order.
    Array(Vec<Reply>),
    /// Named ones; RESP2 has them as an array of names and values.
    Map(Vec<(Reply, Reply)>),
}

impl Reply {
    pub(super) const OK: Reply = Reply::Simple("OK");

    pub(super) fn text(text: impl Into<String>) -> Reply {
        Reply::Bulk(Bytes::from(text.into()))
    }

    pub(super) fn error(line: impl Into<String>) -> Reply {
        Reply::Error(line.into())
    }

    /// 1 or 0.
    pub(super) fn flag(is: bool) -> Reply {
        Reply::Integer(i64::from(is))
    }

    /// How many there are, of whatever there are fewer than 2⁶³ of.
    pub(super) fn count(count: usize) -> Reply {
        Reply::Integer(count as i64)
    }

    pub(super) fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Reply {
        Reply::Array(texts.into_iter().map(|text| Reply::text(text)).collect())
    }

    /// Named answers.
    pub(super) fn map<const N: usize>(pairs: [(&str, Reply); N]) -> Reply {
        Reply::Map(pairs.into_iter().map(|(name, reply)| (Reply::text(name), reply)).collect())
    }

    /// About how many bytes it takes.
    pub(super) fn size_hint(&self) -> usize {
        match self {
            Reply::Simple(_) | Reply::Integer(_) | Reply::Null => 16,
            Reply::Error(line) => line.len() + 4,
            Reply::Bulk(bytes) => bytes.len() + 16,
            Reply::Array(items) => 16 + items.iter().map(Reply::size_hint).sum::<usize>(),
            Reply::Map(pairs) => 16 + pairs.iter().map(|(k, v)| k.size_hint() + v.size_hint()).sum::<usize>(),
        }
    }
}
