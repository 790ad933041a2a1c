//! Rows come back from their bytes, which never change; other bytes are refused.

use super::*;
use proptest::prelude::*;

fn content() -> impl Strategy<Value = Content> {
    let value = prop::collection::vec(any::<u8>(), 0..300);
    let plain = (value, prop::option::of("[ -~]{0,255}"), any::<Option<u64>>()).prop_map(
        |(value, content_type, expires_ms)| Content {
            value: value.into(),
            content_type: content_type.map(Into::into),
            expires_ms,
            kind: ContentKind::Plain,
        },
    );
    prop_oneof![4 => plain, 1 => any::<i128>().prop_map(counter::content)]
}

fn row() -> impl Strategy<Value = Row> {
    let dots = prop::collection::btree_map((any::<u64>(), 0..6u64), content(), 0..6);
    let requests = prop::collection::vec((any::<u128>(), any::<u64>()), 0..4);
    let accepted = prop::option::of((any::<(u64, u64)>(), prop::option::of(content())));
    let seen = prop::collection::vec((0..9u64, any::<u64>()), 0..4);
    (dots, seen, any::<Option<(u64, u64)>>(), accepted, requests).prop_map(
        |(writes, seen, promised, accepted, requests)| {
            let mut context = Context::new();
            let mut siblings: Vec<Sibling> = writes
                .into_iter()
                .map(|((stamp, actor), content)| {
                    let dot = Dot { stamp: Stamp(stamp), actor: Actor(actor) };
                    context.add(dot);
                    Sibling::new(dot, content)
                })
                .collect();
            for (actor, stamp) in seen {
                context.add(Dot { stamp: Stamp(stamp), actor: Actor(actor) });
            }
            let promised = promised.map(|(stamp, actor)| Ballot { stamp: Stamp(stamp), actor: Actor(actor) });
            if let Some((ballot, value)) = accepted {
                let ballot = Ballot { stamp: Stamp(ballot.0), actor: Actor(ballot.1) };
                context = context.with_ballot(Some(ballot));
                let agreed = Some(Dot { stamp: Stamp(3), actor: Actor(ballot.actor.0 / 2) });
                siblings.extend(value.map(|content| Sibling { dot: ballot.dot(), content, agreed }));
            }
            let requests = requests.into_iter();
            let counted = requests.map(|(id, until_ms)| Counted::of(RequestId(id), until_ms));
            let counted = counter::join(&counted.collect::<Vec<_>>(), &[], &context);
            Row { promised, record: Record { counted, ..Record::from_parts(context, siblings).unwrap() } }
        },
    )
}

proptest! {
    #[test]
    fn rows_survive_the_round_trip(row in row()) {
        prop_assert_eq!(Row::decode(&row.encode()), Ok(row.clone()));
        prop_assert_eq!(decode_record(&encode_record(&row.record)), Ok(row.record.clone()));
        prop_assert!(encode_record(&row.record).len() <= bytes_about(&row.record) + 8);
    }

    #[test]
    fn a_row_in_the_memory_of_another_is_the_same(row in row(), other in row(), behind in 0..12usize) {
        let mut before = other.encode_behind(b"front", BytesMut::new());
        let memory = before.split_off(behind);
        drop(before);
        let memory = memory.try_into_mut().unwrap();
        let bytes = row.encode_behind(b"front", memory);
        prop_assert_eq!(&bytes[..5], b"front");
        prop_assert_eq!(&bytes[5..], &row.encode()[..]);
        let held = bytes.try_into_mut().unwrap().capacity();
        prop_assert!(held <= 2 * (row.encode().len() + 16), "{held} bytes");
    }

    #[test]
    fn one_changed_bit_is_noticed(row in row(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut bytes = row.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        prop_assert_eq!(Row::decode(&bytes.into()), Err(RowError::Checksum));
    }

    #[test]
    fn bytes_we_did_not_write_are_refused_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Row::decode(&bytes.clone().into()).is_err());
        // With a fitting checksum, so that the parts behind it are reached too.
        bytes.insert(0, ROW_VERSION);
        let sum = checksum(&bytes);
        bytes.extend(sum);
        let _ = Row::decode(&bytes.clone().into());
        let _ = decode_record(&bytes.into());
    }
}

#[test]
fn the_bytes_of_a_row_never_change() {
    let context = Context::from_sorted(vec![(Actor(1), Stamp(0x10)), (Actor(2), Stamp(0x20))]).unwrap();
    let content = Content {
        value: "kringle".into(),
        content_type: Some("text/plain".into()),
        expires_ms: Some(1),
        kind: ContentKind::Plain,
    };
    let sibling = Sibling::new(Dot { stamp: Stamp(0x20), actor: Actor(2) }, content);
    let row = Row {
        promised: Some(Ballot { stamp: Stamp(3), actor: Actor(4) }),
        record: Record::from_parts(context, vec![sibling]).unwrap(),
    };
    let hex: String = row.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    let body = "0101030000000000000004000000000000000201000000000000001000000000000000020000000000000020000000\
                000000000107010a746578742f706c61696e0100000000000000076b72696e676c65";
    assert_eq!(hex[..hex.len() - 16], *body);
}

#[test]
fn nor_do_those_of_what_was_agreed_on() {
    let dot = |stamp, actor| Dot { stamp: Stamp(stamp), actor: Actor(actor) };
    let ballot = Ballot { stamp: Stamp(0x30), actor: Actor(3) };
    let sibling = Sibling { dot: ballot.dot(), content: Content::plain("kringle"), agreed: Some(dot(0x20, 2)) };
    let record = Record::from_parts(Context::new().with_ballot(Some(ballot)), vec![sibling]).unwrap();
    let hex: String = Row::of(record).encode().iter().map(|byte| format!("{byte:02x}")).collect();
    let body = "010000010820000000000000000200000000000000076b72696e676c65\
                00\
                30000000000000000300000000000000";
    assert_eq!(hex[..hex.len() - 16], *body);
}

#[test]
fn a_row_of_a_later_version_is_named_as_such() {
    let mut bytes = vec![9, 0, 0, 0];
    let sum = checksum(&bytes);
    bytes.extend(sum);
    assert_eq!(Row::decode(&bytes.into()), Err(RowError::LaterVersion(9)));
}
