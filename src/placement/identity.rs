//! Identities: the random id of a node, and the id that keeps two clusters apart.
//!
//! People read both as hex digits of full width (also in JSON); binary formats carry the number.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// The random id of a node's data directory: 16 hex digits to people.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u64);

/// Which cluster a node belongs to: 32 hex digits to people. Calls from another cluster are refused by it, so
/// two established clusters never merge by accident.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterId(pub u128);

impl ClusterId {
    /// The id of the cluster with this name: the first 16 bytes, big-endian, of BLAKE3(domain ‖ name). Every node
    /// told the same name agrees on it without contact.
    pub fn named(name: &str) -> ClusterId {
        let hash = blake3::hash(&[b"kringle cluster v1", name.as_bytes()].concat());
        let mut first = [0; 16];
        first.copy_from_slice(&hash.as_bytes()[..16]);
        ClusterId(u128::from_be_bytes(first))
    }
}

/// Text that is no id of its kind. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an id of this kind is {digits} hex digits")]
pub struct NotAnId {
    /// How many digits it should have.
    pub digits: usize,
}

macro_rules! hex_outside_number_inside {
    ($id:ident, $number:ty, $digits:literal) => {
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:0width$x}", self.0, width = $digits)
            }
        }

        impl FromStr for $id {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<$id, NotAnId> {
                let error = NotAnId { digits: $digits };
                // `from_str_radix` would take a sign as well.
                if text.len() != $digits || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(error);
                }
                <$number>::from_str_radix(text, 16).map($id).map_err(|_| error)
            }
        }

        impl Serialize for $id {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
            }
        }

        impl<'de> Deserialize<'de> for $id {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$id, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
                } else {
                    <$number>::deserialize(deserializer).map($id)
                }
            }
        }
    };
}

hex_outside_number_inside!(NodeId, u64, 16);
hex_outside_number_inside!(ClusterId, u128, 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_hex_to_people_and_a_number_to_machines() {
        let id = NodeId(0xab);
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"00000000000000ab\"");
        assert_eq!(serde_json::from_str::<NodeId>("\"00000000000000AB\"").unwrap(), id);
        assert_eq!(postcard::from_bytes::<NodeId>(&postcard::to_stdvec(&id).unwrap()).unwrap(), id);
        let cluster = ClusterId(u128::MAX);
        assert_eq!(cluster.to_string().parse(), Ok(cluster));
        assert_eq!(postcard::from_bytes::<ClusterId>(&postcard::to_stdvec(&cluster).unwrap()).unwrap(), cluster);
    }

    #[test]
    fn text_of_another_shape_is_refused() {
        for wrong in ["", "ab", "+0000000000000ab", "00000000000000abc", "00000000000000é"] {
            assert_eq!(wrong.parse::<NodeId>(), Err(NotAnId { digits: 16 }), "{wrong}");
        }
    }

    #[test]
    fn a_clusters_name_gives_the_same_id_in_every_build() {
        assert_eq!(ClusterId::named("kringle").to_string(), "b724eea083fe7f18e22f2fa8987b4823");
        assert_ne!(ClusterId::named("a"), ClusterId::named("b"));
    }
}
