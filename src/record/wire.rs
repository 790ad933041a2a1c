//! Keys, records and contexts inside peer messages: keys as their bytes, records as those of a row, so that their
//! format is described in one place only.

use super::codec::{decode_record, encode_record};
use super::{Ballot, Context, Key, Record};
use bytes::Bytes;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Any bytes, copied once out of the message.
pub(crate) struct Blob(pub(crate) Bytes);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Blob, D::Error> {
        struct Bytewise;
        impl Visitor<'_> for Bytewise {
            type Value = Blob;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(Bytes::copy_from_slice(bytes)))
            }
        }
        input.deserialize_bytes(Bytewise)
    }
}

/// For `#[serde(with = …)]` on fields of [`Bytes`].
pub(crate) mod blob {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(bytes: &Bytes, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Bytes, D::Error> {
        Blob::deserialize(input).map(|blob| blob.0)
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_bytes(self.as_bytes())
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Key, D::Error> {
        Key::new(Blob::deserialize(input)?.0).map_err(Error::custom)
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_bytes(&encode_record(self))
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Record, D::Error> {
        decode_record(&Blob::deserialize(input)?.0).map_err(Error::custom)
    }
}

impl Serialize for Context {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        let entries: Vec<(u64, u64)> = self.entries().iter().map(|(actor, stamp)| (actor.0, stamp.0)).collect();
        (entries, self.ballot()).serialize(output)
    }
}

impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Context, D::Error> {
        let (entries, ballot) = <(Vec<(u64, u64)>, Option<Ballot>)>::deserialize(input)?;
        let entries = entries.into_iter().map(|(actor, stamp)| (super::Actor(actor), super::Stamp(stamp))).collect();
        let context = Context::from_sorted(entries).ok_or_else(|| Error::custom("a context out of order"))?;
        Ok(context.with_ballot(ballot))
    }
}
