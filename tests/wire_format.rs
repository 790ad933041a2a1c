//! The bytes of the previous version of the protocol, as they were recorded when nodes spoke nothing else: nodes that still
//! do must be understood, and must understand. When a version becomes the previous one, it is recorded anew, by the code as
//! it is before its successor is begun.

#[path = "wire_format/said.rs"]
mod said;

use kringle::placement::{ClusterId, NodeId, Partition};
use kringle::protocol::{
    Batch, Copies, CopiesFrom, MalformedMessage, PREVIOUS_VERSION, PROTOCOL_VERSION, Portion, ProtocolVersion, Reply,
};
use kringle::record::{Actor, Content, Dot, Key, Record, Seen, Stamp};
use std::collections::BTreeMap;
use std::fmt::Debug;

const BATCHES: &str = include_str!("previous/batches.hex");
const REPLIES: &str = include_str!("previous/replies.hex");
/// What a node of the previous version answers to a message in this one.
const REFUSAL: &str = include_str!("previous/refusal.json");

/// What bytes say, and in which version.
type Read<T> = Result<(T, ProtocolVersion), MalformedMessage>;

/// How one kind of message is read and written.
struct Form<T> {
    decode: fn(&[u8]) -> Read<T>,
    encode: fn(&T, ProtocolVersion) -> Vec<u8>,
}

/// One line a message: its name and its bytes.
fn recorded(lines: &str) -> BTreeMap<&str, Vec<u8>> {
    let digits = |text: &str| u8::from_str_radix(text, 16).expect("two hex digits");
    let bytes = |hex: &str| (0..hex.len()).step_by(2).map(|at| digits(&hex[at..at + 2])).collect();
    let line = |line| str::split_once(line, ' ').map(|(name, hex)| (name, bytes(hex))).expect("a name and bytes");
    lines.lines().map(line).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn assert_says<T: PartialEq + Debug>(lines: &str, said: Vec<(String, T)>, form: &Form<T>) {
    let mut recorded = recorded(lines);
    assert_eq!(recorded.len(), said.len(), "as many lines as messages");
    for (name, message) in said {
        let bytes = recorded.remove(name.as_str()).unwrap_or_else(|| panic!("no {name} was recorded"));
        match (form.decode)(&bytes) {
            Ok((read, version)) => {
                assert_eq!((&read, version), (&message, PREVIOUS_VERSION), "{name} is read otherwise")
            }
            Err(error) => panic!("{name} is not understood any more: {error}"),
        }
        let written = (form.encode)(&message, PREVIOUS_VERSION);
        assert_eq!(hex(&written), hex(&bytes), "{name} is written otherwise");
    }
}

/// What is said in both versions differs in the version alone, and in the checksum, which is over it as well.
#[track_caller]
fn assert_alike_in_both<T: PartialEq + Debug>(said: Vec<(String, T)>, form: &Form<T>) {
    const CHECKSUM_BYTES: usize = 8;
    for (name, message) in said {
        let [own, previous] = [PROTOCOL_VERSION, PREVIOUS_VERSION].map(|version| (form.encode)(&message, version));
        let body = |bytes: &[u8]| hex(&bytes[1..bytes.len() - CHECKSUM_BYTES]);
        assert_eq!(body(&own), body(&previous), "{name}");
        assert_eq!((own[0], previous[0]), (PROTOCOL_VERSION.number(), PREVIOUS_VERSION.number()));
        assert_eq!((form.decode)(&own), Ok((message, PROTOCOL_VERSION)), "{name}");
    }
}

const BATCH: Form<Batch> = Form { decode: Batch::decode, encode: Batch::encode };
const REPLY: Form<Reply> = Form { decode: Reply::decode, encode: Reply::encode };

#[test]
fn every_recorded_batch_is_read_and_written_as_it_was() {
    assert_says(BATCHES, said::batches(), &BATCH);
}

#[test]
fn every_recorded_reply_is_read_and_written_as_it_was() {
    assert_says(REPLIES, said::replies(), &REPLY);
}

#[test]
fn both_versions_say_the_same_in_the_same_bytes() {
    assert_alike_in_both(said::batches(), &BATCH);
    assert_alike_in_both(said::replies(), &REPLY);
}

#[test]
fn the_recorded_refusal_of_a_later_version_is_known_as_such() {
    assert!(ProtocolVersion::is_refused_for_previous(400, REFUSAL.trim_end().as_bytes()), "{REFUSAL}");
}

#[test]
fn a_piece_of_a_backup_is_read_and_written_as_those_that_lie_on_disks() {
    let key = Key::new("k").expect("a key");
    let dot = Dot { stamp: Stamp(5), actor: Actor(3) };
    let record = Record::default().write(&Seen::Everything, dot, Some(Content::plain("v"))).expect("a record");
    let partition = Partition::of(key.position());
    let seen = record.context().clone();
    let portion = Portion { partition, seen, is_whole: true, records: vec![(key.clone(), record)] };
    let next = Some(CopiesFrom { partition, after: Some(key) });
    let copies = Copies { cluster: ClusterId(7), node: NodeId(1), portions: vec![portion], damaged: 2, next };
    let bytes =
        "02070101f202010305000101016b16010300000000000000050000000000000001040001760201f20201016b7906587f0fd3df49";
    assert_eq!(hex(&copies.encode()), bytes);
    assert_eq!(Copies::decode(&copies.encode()), Ok(copies));
}
