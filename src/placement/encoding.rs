//! The layout as bytes, for disk and wire.
//!
//! ```text
//! [ version: 1 ][ digest: 16 ][ body: postcard of the layout, fields in their order ]
//!                 BLAKE3 of the body, first 16 bytes
//! ```
//!
//! The digest finds damage; the checks behind it find what an undamaged stranger got wrong.

use super::layout::{Layout, LayoutError, Unchecked};

/// Longest encoded layout that is looked at, in bytes: [`MEMBERS_MAX`](super::MEMBERS_MAX) members with the longest names.
pub const LAYOUT_BYTES_MAX: usize = 8 << 20;

const VERSION: u8 = 1;
const DIGEST_BYTES: usize = 16;

impl Layout {
    /// As bytes for disk and wire; the same layout always gives the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        let body = postcard::to_stdvec(self).expect("a layout has nothing that postcard refuses");
        [&[VERSION], digest(&body).as_slice(), &body].concat()
    }

    /// From bytes of whatever origin: corrupt or foreign ones are an error, never a panic, and cost at most the
    /// reading of [`LAYOUT_BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Layout, LayoutError> {
        let Some((&version, rest)) = bytes.split_first() else {
            return Err(LayoutError::Corrupt);
        };
        if version != VERSION {
            return Err(LayoutError::Version { version });
        }
        if bytes.len() > LAYOUT_BYTES_MAX {
            return Err(LayoutError::Corrupt);
        }
        let Some((expected, body)) = rest.split_at_checked(DIGEST_BYTES) else {
            return Err(LayoutError::Corrupt);
        };
        if digest(body) != expected {
            return Err(LayoutError::Corrupt);
        }
        match postcard::take_from_bytes::<Unchecked>(body) {
            Ok((layout, [])) => layout.try_into(),
            _ => Err(LayoutError::Corrupt),
        }
    }
}

fn digest(body: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut digest = [0; DIGEST_BYTES];
    digest.copy_from_slice(&blake3::hash(body).as_bytes()[..DIGEST_BYTES]);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::{ClusterId, Member, Mode, NodeId, Partition, Ring};
    use proptest::prelude::*;

    fn layout() -> Layout {
        let members = (0..5).map(|i| Member { id: Some(NodeId(i)), ..Member::new(format!("http://n{i}:8080")) });
        Layout::provisional(ClusterId::named("test"), 3, Mode::Sloppy, members.collect()).unwrap()
    }

    fn signed(body: &[u8]) -> Vec<u8> {
        [&[VERSION], digest(body).as_slice(), body].concat()
    }

    #[test]
    fn a_layout_survives_its_encodings() {
        let layout = layout();
        assert_eq!(Layout::decode(&layout.encode()), Ok(layout.clone()));
        let json = serde_json::to_string(&layout).unwrap();
        assert_eq!(serde_json::from_str::<Layout>(&json).unwrap(), layout);
        assert_eq!(Layout::decode(&[9, 9]), Err(LayoutError::Version { version: 9 }));
    }

    /// Stored layouts must stay readable: change these only with the version.
    #[test]
    fn the_bytes_of_a_layout_never_change() {
        assert_eq!(blake3::hash(&layout().encode()).to_hex()[..16], *"58cc2b0fe7d6a13b");
    }

    #[test]
    fn every_flipped_bit_and_every_lost_end_is_noticed() {
        let bytes = layout().encode();
        for i in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[i] ^= 1 << (i % 8);
            assert!(Layout::decode(&flipped).is_err(), "byte {i}");
        }
        for length in 0..bytes.len() {
            assert!(Layout::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn bytes_of_any_origin_are_decoded_or_refused(bytes: Vec<u8>) {
            prop_assert!(Layout::decode(&bytes).is_err());
            prop_assert!(Layout::decode(&signed(&bytes)).is_err());
        }

        /// Damage under a good digest: what still decodes keeps every invariant, so it can be used.
        #[test]
        fn a_forged_layout_is_valid_or_refused(at: prop::sample::Index, byte: u8) {
            let mut body = layout().encode().split_off(1 + DIGEST_BYTES);
            let at = at.index(body.len());
            body[at] = byte;
            if let Ok(layout) = Layout::decode(&signed(&body)) {
                prop_assert_eq!(layout.table().width(), layout.members().len().min(layout.replicas().into()));
                prop_assert_eq!(Layout::decode(&layout.encode()), Ok(layout.clone()));
                let ring = Ring::new(layout);
                for partition in Partition::all() {
                    let placed = ring.owners(partition).len() + ring.stand_ins(partition).len();
                    prop_assert_eq!(placed, ring.members().len());
                }
            }
        }
    }
}
