//! The layout as bytes, for disk and wire.
//!
//! ```text
//! [ version: 1 ][ digest: 16 ][ body: postcard of the layout, fields in their order ]
//!                 BLAKE3 of the body, first 16 bytes
//! ```
//!
//! Version 1 is a settled layout; in version 2 the change under way follows. A settled layout is always written in
//! version 1, so the same layout always gives the same bytes, and builds that know no changes read it.
//!
//! The digest finds damage; the checks behind it find what an undamaged stranger got wrong.

use super::change::Change;
use super::identity::ClusterId;
use super::layout::{Layout, LayoutError, Unchecked};
use super::member::Member;
use super::mode::Mode;
use super::table::Table;

/// Longest encoded layout that is looked at, in bytes: [`MEMBERS_MAX`](super::MEMBERS_MAX) members with the longest names.
pub const LAYOUT_BYTES_MAX: usize = 8 << 20;

const SETTLED: u8 = 1;
const CHANGING: u8 = 2;
const DIGEST_BYTES: usize = 16;

/// The fields of a settled layout.
type Body = (ClusterId, u64, u8, Mode, Vec<Member>, Table);

impl Layout {
    /// As bytes for disk and wire; the same layout always gives the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        const ACCEPTED: &str = "a layout has nothing that postcard refuses";
        let Layout { cluster, epoch, replicas, mode, members, table, change } = self;
        let mut body = postcard::to_stdvec(&(cluster, epoch, replicas, mode, members, table)).expect(ACCEPTED);
        let version = match change {
            None => SETTLED,
            Some(change) => {
                body.extend(postcard::to_stdvec(change).expect(ACCEPTED));
                CHANGING
            }
        };
        [&[version], digest(&body).as_slice(), &body].concat()
    }

    /// From bytes of whatever origin: corrupt or foreign ones are an error, never a panic, and cost at most the
    /// reading of [`LAYOUT_BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Layout, LayoutError> {
        let Some((&version, rest)) = bytes.split_first() else {
            return Err(LayoutError::Corrupt);
        };
        if ![SETTLED, CHANGING].contains(&version) {
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
        let corrupt = |_| LayoutError::Corrupt;
        let (settled, rest) = postcard::take_from_bytes::<Body>(body).map_err(corrupt)?;
        let (change, rest) = match version {
            SETTLED => (None, rest),
            _ => postcard::take_from_bytes::<Change>(rest).map(|(change, end)| (Some(change), end)).map_err(corrupt)?,
        };
        if !rest.is_empty() {
            return Err(LayoutError::Corrupt);
        }
        let (cluster, epoch, replicas, mode, members, table) = settled;
        Unchecked { cluster, epoch, replicas, mode, members, table, change }.try_into()
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
    use crate::placement::{ClusterId, Member, MemberIndex, Mode, NodeId, Partition, Ring};
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::sync::LazyLock;

    fn layout() -> Layout {
        let members = (0..5).map(|i| Member { id: Some(NodeId(i)), ..Member::new(format!("http://n{i}:8080")) });
        Layout::provisional(ClusterId::named("test"), 3, Mode::Sloppy, members.collect()).unwrap()
    }

    /// Half-way through a drain of a cluster of three, after it, where it was given up, and half-way back.
    fn draining() -> [Layout; 4] {
        let members = (0..3).map(|i| Member { id: Some(NodeId(i)), ..Member::new(format!("http://n{i}:8080")) });
        let three = Layout::found(ClusterId::named("test"), 3, Mode::Sloppy, members.collect()).unwrap();
        let filling = three.refit("http://n1:8080", "", 0).unwrap();
        let drained = filling.switch().unwrap().settle().unwrap();
        let back = drained.refit("http://n1:8080", "", 1).unwrap();
        [filling.clone(), drained, filling.abandon().unwrap(), back]
    }

    /// One that joins a member, and one that is past the switch of a leave.
    fn changing() -> [Layout; 2] {
        let joining = layout().join(vec![Member { id: Some(NodeId(7)), ..Member::new("http://n2:1") }]).unwrap();
        [joining, layout().leave("http://n1:8080").unwrap().switch().unwrap()]
    }

    fn signed(version: u8, body: &[u8]) -> Vec<u8> {
        [&[version], digest(body).as_slice(), body].concat()
    }

    #[test]
    fn a_layout_survives_its_encodings() {
        let [joining, leaving] = changing();
        for (layout, version) in [(layout(), 1), (joining, 2), (leaving, 2)] {
            let bytes = layout.encode();
            assert_eq!(bytes[0], version);
            assert_eq!(Layout::decode(&bytes), Ok(layout.clone()));
            let json = serde_json::to_string(&layout).unwrap();
            assert_eq!(serde_json::from_str::<Layout>(&json).unwrap(), layout);
        }
        assert_eq!(Layout::decode(&[9, 9]), Err(LayoutError::Version { version: 9 }));
    }

    #[test]
    fn a_layout_with_a_drained_member_survives_its_encoding_at_every_stage() {
        for (layout, widths) in draining().into_iter().zip([(3, Some(2)), (2, None), (3, None), (2, Some(3))]) {
            let beside = layout.change().map(|change| change.table().width());
            assert_eq!((layout.table().width(), beside), widths);
            assert_eq!(Layout::decode(&layout.encode()).as_ref(), Ok(&layout));
            check(&layout);
            let nobody = Layout { members: layout.members.iter().map(weightless).collect(), ..layout };
            assert_eq!(Layout::decode(&nobody.encode()), Err(LayoutError::Weights { weights: 0 }));
        }
        // Rows are short only where all who own own everything.
        let short = Layout { replicas: 4, ..layout() };
        assert!(matches!(Layout::decode(&short.encode()), Err(LayoutError::Table(_))));
    }

    #[test]
    fn a_change_after_which_nobody_would_have_weight_is_no_layout() {
        let [_, leaving] = changing();
        let weigh = |member: &Member| if member.name == "http://n1:8080" { member.clone() } else { weightless(member) };
        let alone = Layout { members: leaving.members.iter().map(weigh).collect(), ..leaving };
        assert_eq!(Layout::decode(&alone.encode()), Err(LayoutError::Weights { weights: 0 }));
    }

    fn weightless(member: &Member) -> Member {
        Member { weight: 0, ..member.clone() }
    }

    /// Stored layouts must stay readable: change these only with the version.
    #[test]
    fn the_bytes_of_a_layout_never_change() {
        let [joining, leaving] = changing();
        let hash = |layout: Layout| blake3::hash(&layout.encode()).to_hex()[..16].to_owned();
        assert_eq!(
            [layout(), joining, leaving].map(hash),
            ["58cc2b0fe7d6a13b", "660cd7f0bc028490", "5a28361272a0e91f"]
        );
    }

    #[test]
    fn json_of_a_layout_that_knew_no_changes_is_read() {
        let mut json = serde_json::to_value(layout()).unwrap();
        assert_eq!(json.as_object_mut().unwrap().remove("change"), Some(serde_json::Value::Null));
        assert_eq!(serde_json::from_value::<Layout>(json).unwrap(), layout());
    }

    #[test]
    fn a_body_under_the_other_version_is_refused() {
        let body = |layout: &Layout| layout.encode().split_off(1 + DIGEST_BYTES);
        assert_eq!(Layout::decode(&signed(2, &body(&layout()))), Err(LayoutError::Corrupt));
        assert!(changing().iter().all(|it| Layout::decode(&signed(1, &body(it))) == Err(LayoutError::Corrupt)));
    }

    #[test]
    fn every_flipped_bit_and_every_lost_end_is_noticed() {
        let [joining, _] = changing();
        for bytes in [layout().encode(), joining.encode()] {
            for i in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[i] ^= 1 << (i % 8);
                assert!(Layout::decode(&flipped).is_err(), "byte {i}");
            }
            for length in 0..bytes.len() {
                assert!(Layout::decode(&bytes[..length]).is_err(), "{length} bytes");
            }
        }
    }

    proptest! {
        #[test]
        fn bytes_of_any_origin_are_decoded_or_refused(bytes: Vec<u8>) {
            prop_assert!(Layout::decode(&bytes).is_err());
            prop_assert!(Layout::decode(&signed(1, &bytes)).is_err());
            prop_assert!(Layout::decode(&signed(2, &bytes)).is_err());
        }

        /// Damage under a good digest: what still decodes keeps every invariant, so it can be used.
        #[test]
        fn a_forged_layout_is_valid_or_refused(at: prop::sample::Index, byte: u8, which in 0usize..7) {
            let layout = &HONEST[which];
            forge(layout, at.index(layout.encode().len() - 1 - DIGEST_BYTES), byte);
        }

        /// Most bytes are the tables'; here the members are hit, of which some have no weight.
        #[test]
        fn forged_members_are_valid_or_refused(at in 0usize..160, byte in 0u8..4, which in 0usize..7) {
            forge(&HONEST[which], at, byte);
        }

        /// Most bytes are the tables'; here the other fields of the change are hit, which stand around its own.
        #[test]
        fn a_forged_change_is_valid_or_refused(aim in 0usize..8, byte in 0u8..8, which in 1usize..3) {
            let layout = &HONEST[which];
            let change = postcard::to_stdvec(&layout.change()).unwrap().len() - 1;
            let end = layout.encode().len() - 1 - DIGEST_BYTES;
            forge(layout, if aim < 4 { end - change + aim } else { end + 3 - aim }, byte);
        }
    }

    /// A settled layout and two under change; and those of a drain.
    static HONEST: LazyLock<Vec<Layout>> = LazyLock::new(|| {
        let [joining, leaving] = changing();
        [layout(), joining, leaving].into_iter().chain(draining()).collect()
    });

    /// Replaces a byte of the body, and looks at what still decodes.
    fn forge(layout: &Layout, at: usize, byte: u8) {
        let bytes = layout.encode();
        let mut body = bytes[1 + DIGEST_BYTES..].to_vec();
        body[at] = byte;
        if let Ok(layout) = Layout::decode(&signed(bytes[0], &body)) {
            check(&layout);
        }
    }

    /// As wide as there are replicas, or owners; and those are voters.
    fn width(layout: &Layout) -> usize {
        let rows = Partition::all().map(|at| layout.table().owners(at).to_vec());
        let owners: BTreeSet<_> = rows.flatten().collect();
        assert!(owners.is_subset(&layout.voters().into_iter().collect()));
        owners.len().min(layout.replicas().into())
    }

    fn check(layout: &Layout) {
        assert_eq!(layout.table().width(), width(layout));
        assert_eq!(Layout::decode(&layout.encode()).as_ref(), Ok(layout));
        let ring = Ring::new(layout.clone());
        for partition in Partition::all() {
            let placed = ring.holders(partition).len() + ring.stand_ins(partition).len();
            let drained =
                |member: &MemberIndex| ring.member(*member).weight == 0 && !ring.is_holder(*member, partition);
            assert_eq!(placed + ring.members().filter(drained).count(), ring.members().len());
        }
        assert!(ring.members().all(|member| ring.share_fair(member) <= 1.0));
        for ended in [layout.switch(), layout.settle(), layout.abandon()].into_iter().flatten() {
            assert_eq!(Layout::decode(&ended.encode()), Ok(ended));
        }
        let end = layout.switch().unwrap_or_else(|_| layout.clone());
        let end = end.settle().unwrap_or(end);
        assert_eq!((end.change(), end.table().width()), (None, width(&end)));
        // Whatever it is, others can be planned after it.
        let (first, last) = (end.members()[0].name.clone(), end.members().len() - 1);
        let of_weight = |weight| end.refit(&end.members()[last].name, "", weight);
        let next =
            [end.join(vec![Member::new("z")]), end.leave(&first), end.with_replicas(2), of_weight(0), of_weight(1)];
        for next in next.into_iter().flatten() {
            assert_eq!(Layout::decode(&next.encode()), Ok(next));
        }
    }
}
