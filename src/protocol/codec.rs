//! Messages as bytes.
//!
//! ```text
//!  +---------+---------------------------------+----------+
//!  | version | postcard of a Batch or a Reply  | checksum |
//!  | 1 byte  |                                 | 8        |
//!  +---------+---------------------------------+----------+
//!  checksum:  first 8 bytes of BLAKE3 over everything before it
//! ```
//!
//! A node speaks its own version and the previous one, and answers in the version it was asked in. What was damaged on the
//! way is refused whole, not stored: the sum of TCP alone misses a flipped pair of bits.

use super::copies::Copies;
use super::feed::{Follow, PREFIXES_MAX};
use super::list::LISTS_PER_BATCH_MAX;
use super::message::{Answer, Batch, FORGET_KEYS_MAX, PACKETS_MAX, REQUESTS_PER_BATCH_MAX, Reply, Request};
use super::version::{PREVIOUS_VERSION, PROTOCOL_VERSION, ProtocolVersion};
use crate::record::{CHECKSUM_BYTES, CONTENT_TYPE_BYTES_MAX, Content, Edit, KEY_BYTES_MAX, checksum};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that are no message of this protocol. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MalformedMessage {
    /// There is not even a version.
    #[error("the message is empty")]
    Empty,
    /// A version this node does not speak.
    #[error("the message is in protocol version {0}, this node speaks {PROTOCOL_VERSION} and {PREVIOUS_VERSION}")]
    OtherVersion(u8),
    /// The checksum does not fit the bytes: they were changed on the way, or are no message.
    #[error("the message was damaged on the way")]
    Damaged,
    /// The bytes do not parse.
    #[error("the message cannot be read: {0}")]
    Unreadable(String),
    /// The bytes parse and break a limit.
    #[error("the message breaks a limit: {0}")]
    Limit(&'static str),
}

impl Batch {
    /// The batch as bytes, in this version.
    pub fn encode(&self, version: ProtocolVersion) -> Vec<u8> {
        encode(self, version, 64 + self.requests.iter().map(Request::size_hint).sum::<usize>())
    }

    /// Reads a batch and checks every limit; reachable by anyone, so nothing in it can panic. The version is the one to
    /// answer in.
    pub fn decode(bytes: &[u8]) -> Result<(Batch, ProtocolVersion), MalformedMessage> {
        let (batch, version): (Batch, _) = decode(bytes)?;
        if batch.requests.len() > REQUESTS_PER_BATCH_MAX {
            return Err(MalformedMessage::Limit("too many requests in one batch"));
        }
        let mut lists = 0;
        for request in &batch.requests {
            let edit = match request {
                Request::Write { edit, .. } | Request::HintWrite { edit, .. } => Some(edit),
                Request::Propose { proposal, .. } => proposal.as_ref().map(|proposal| &proposal.edit),
                _ => None,
            };
            if let Some(content) = edit.and_then(Edit::content) {
                check_content(content)?;
            }
            if let Request::MayForget { keys } | Request::Forget { keys } = request
                && keys.len() > FORGET_KEYS_MAX
            {
                return Err(MalformedMessage::Limit("too many keys to forget in one request"));
            }
            if let Request::Sync(request) = request {
                request.check()?;
            }
            if let Request::Layout(request) = request {
                request.check()?;
            }
            if let Request::List(request) = request {
                request.check()?;
                lists += 1;
                if lists > LISTS_PER_BATCH_MAX {
                    return Err(MalformedMessage::Limit("too many lists in one batch"));
                }
            }
            if let Request::Follow(follow) = request {
                check_follow(follow)?;
            }
            if matches!(request, Request::Yield { .. }) {
                return Err(MalformedMessage::Limit("only a node itself lets go of what it accepted"));
            }
            if matches!(request, Request::Gossip { packets } if packets.len() > PACKETS_MAX) {
                return Err(MalformedMessage::Limit("too much gossip in one request"));
            }
        }
        Ok((batch, version))
    }
}

impl Reply {
    /// The reply as bytes, in this version; what the previous one has no word for, in the nearest that it has.
    pub fn encode(&self, version: ProtocolVersion) -> Vec<u8> {
        match self.in_previous_version().filter(|_| version == PREVIOUS_VERSION) {
            Some(reply) => encode(&reply, version, 256),
            None => encode(self, version, 256),
        }
    }

    /// The same in the words of the previous version, where it has none for some of it.
    fn in_previous_version(&self) -> Option<Reply> {
        let answers = self.answers.as_ref().ok()?;
        if answers.iter().all(|answer| answer.in_previous_version().is_none()) {
            return None;
        }
        let said = |answer: &Answer| answer.in_previous_version().unwrap_or_else(|| answer.clone());
        Some(Reply { answers: Ok(answers.iter().map(said).collect()), ..self.clone() })
    }

    /// Reads a reply, and tells in which version it is.
    pub fn decode(bytes: &[u8]) -> Result<(Reply, ProtocolVersion), MalformedMessage> {
        decode(bytes)
    }
}

impl Copies {
    /// The piece as bytes, in the present version: nodes of this one and of the next read it.
    pub fn encode(&self) -> Vec<u8> {
        encode(self, PROTOCOL_VERSION, 256)
    }

    /// Reads a piece and checks every limit; reachable by anyone, so nothing in it can panic.
    pub fn decode(bytes: &[u8]) -> Result<Copies, MalformedMessage> {
        let (copies, _): (Copies, _) = decode(bytes)?;
        copies.check()?;
        Ok(copies)
    }
}

/// How many bytes a request or an answer takes inside a message. Costs about what writing it does.
pub fn wire_bytes<T: Serialize>(part: &T) -> u64 {
    // Only a part that cannot be written has no size, and all of them can.
    postcard::experimental::serialized_size(part).expect("a message in memory always has a form in bytes") as u64
}

fn check_follow(follow: &Follow) -> Result<(), MalformedMessage> {
    if follow.prefixes.len() > PREFIXES_MAX || follow.prefixes.iter().any(|prefix| prefix.len() > KEY_BYTES_MAX) {
        return Err(MalformedMessage::Limit("too many prefixes to follow, or too long ones"));
    }
    Ok(())
}

fn check_content(content: &Content) -> Result<(), MalformedMessage> {
    match content.content_type.as_ref().map_or(0, |text| text.len()) {
        0..=CONTENT_TYPE_BYTES_MAX => Ok(()),
        _ => Err(MalformedMessage::Limit("a content type is too long")),
    }
}

fn encode<T: Serialize>(message: &T, version: ProtocolVersion, capacity: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(capacity + CHECKSUM_BYTES);
    bytes.push(version.number());
    // Our own types, and a vector that grows: nothing here depends on bytes that came from outside.
    let mut bytes = postcard::to_extend(message, bytes).expect("a message in memory always has a form in bytes");
    bytes.extend(checksum(&bytes));
    bytes
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, ProtocolVersion), MalformedMessage> {
    let version = ProtocolVersion::of(*bytes.first().ok_or(MalformedMessage::Empty)?)?;
    let (message, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(MalformedMessage::Damaged)?;
    let (_, body) = message.split_first().filter(|_| checksum(message) == *sum).ok_or(MalformedMessage::Damaged)?;
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok((message, version)),
        Ok(_) => Err(MalformedMessage::Unreadable("bytes after the end".into())),
        Err(error) => Err(MalformedMessage::Unreadable(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::diff::{Digest, Salt, Short, Subtrees};
    use crate::placement::Partition;
    use crate::placement::{ClusterId, NodeId};
    use crate::protocol::{
        Answer, Bed, CopiesFrom, Decision, Difference, Envelope, Filter, KeyEntry, Lacking, Leaves, ListAnswer,
        ListEntry, ListRequest, MemberTag, Place, Portion, Refusal, SyncAnswer, SyncRequest,
    };
    use crate::record::{Actor, Context, Dot, Key, Record, Seen, Stamp};
    use bytes::Bytes;
    use proptest::prelude::*;

    fn envelope() -> Envelope {
        Envelope {
            cluster: ClusterId(7),
            sender: NodeId(1),
            receiver: Some(NodeId(2)),
            epoch: 0,
            deadline_ms: 5_000,
            stamp: Stamp(9),
            background: false,
        }
    }

    fn record(value: &[u8]) -> Record {
        let dot = Dot { stamp: Stamp(5), actor: Actor(3) };
        Record::default().write(&Seen::Everything, dot, Some(Content::plain(value.to_vec()))).unwrap()
    }

    fn batch(value: &[u8]) -> Batch {
        let key = Key::new("k").unwrap();
        let targets: Vec<Box<str>> = vec!["http://localhost:8002".into()];
        let seen = Seen::Only(Context::from_sorted(vec![(Actor(1), Stamp(2))]).unwrap());
        let edit = Edit::write(seen, Some(Content::plain(value.to_vec())));
        let dot = Dot { stamp: Stamp(5), actor: Actor(3) };
        let bed = Bed { partition: Partition::of(key.position()), leaves: Leaves::Some(vec![3, 900]) };
        let entry = KeyEntry { position: Short([1; 4]), version: Short([2; 4]) };
        let salt = Salt::of(Stamp(9));
        Batch {
            envelope: envelope(),
            requests: vec![
                Request::Write { key: key.clone(), edit: edit.clone(), until: Stamp(9) },
                Request::Merge { key: key.clone(), record: record(value) },
                Request::Cover { key: key.clone(), other: record(value), dot },
                Request::Hint { key: key.clone(), record: record(value), targets: targets.clone() },
                Request::HintWrite { key: key.clone(), edit, targets },
                Request::Read { key: key.clone() },
                Request::ReadSince { key: key.clone(), since: record(value).context().clone() },
                Request::MayForget { keys: vec![(key.clone(), record(value).context().clone())] },
                Request::Forget { keys: vec![(key.clone(), Context::new())] },
                Request::ReadHint { key },
                Request::Sync(SyncRequest::Root { from: MemberTag::of("n1"), root: Some([7; 32]) }),
                Request::Sync(SyncRequest::Compare { settled: Stamp(9), salt, beds: vec![(bed, vec![entry])] }),
                Request::Gossip { packets: vec![value.to_vec(), Vec::new()] },
                Request::List(list()),
            ],
        }
    }

    fn list() -> ListRequest {
        let at = |index| Partition::try_from_index(index).unwrap();
        let filter = Filter { prefix: Bytes::from_static(b"p/"), delimiter: Bytes::from_static(b"/") };
        let from = Place(Bytes::from_static(b"p/a"));
        ListRequest { partitions: vec![at(1), at(300)], filter, from, keys_max: 10, bytes_max: 1_000, listing: Some(7) }
    }

    fn listed() -> ListAnswer {
        let entry = ListEntry { key: Key::new("k").unwrap(), record: record(b"v"), stands_for_all: true };
        let next = Some(Place(Bytes::from_static(b"a")));
        ListAnswer { entries: vec![entry], next, lacking: vec![Partition::try_from_index(5).unwrap()] }
    }

    proptest! {
        #[test]
        fn batches_survive_the_round_trip(value in prop::collection::vec(any::<u8>(), 0..2000)) {
            for version in [PROTOCOL_VERSION, PREVIOUS_VERSION] {
                prop_assert_eq!(Batch::decode(&batch(&value).encode(version)), Ok((batch(&value), version)));
            }
        }

        #[test]
        fn foreign_and_damaged_bytes_are_refused_without_a_panic(
            noise in prop::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            bit in 0..8,
        ) {
            let _ = Batch::decode(&noise);
            let _ = Reply::decode(&noise);
            let mut bytes = batch(b"value").encode(PROTOCOL_VERSION);
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            let _ = Batch::decode(&bytes);
            prop_assert!(Batch::decode(&bytes[..at]).is_err());
        }
    }

    #[test]
    fn replies_survive_the_round_trip() {
        let answers = vec![
            Answer::Written { created: true, record: record(b"v") },
            Answer::Merged { applied: false, more: Some(record(b"w")) },
            Answer::Found { record: None },
            Answer::Refused(Refusal::StaleEpoch { epoch: 4 }),
            Answer::Sync(SyncAnswer::Groups(Some(vec![Some(Digest([3; 8])), None]))),
            Answer::Gossip { packets: vec![b"alive".to_vec()] },
            Answer::Sync(SyncAnswer::Differences(vec![vec![
                Difference::Unlisted { key: Key::new("k").unwrap(), record: Lacking::Bytes(9) },
                Difference::Unlisted { key: Key::new("l").unwrap(), record: Lacking::Enclosed(record(b"small")) },
                Difference::Other { at: 4, outline: record(b"v").outline(), bytes: 70 },
                Difference::Missing { at: 5 },
            ]])),
            Answer::Listed(listed()),
        ];
        let reply = Reply { sender: NodeId(2), epoch: 4, stamp: Stamp(1), answers: Ok(answers) };
        for version in [PROTOCOL_VERSION, PREVIOUS_VERSION] {
            assert_eq!(Reply::decode(&reply.encode(version)), Ok((reply.clone(), version)));
        }
    }

    #[test]
    fn what_the_previous_version_has_no_word_for_is_said_to_it_in_another() {
        let said = |why: Refusal| {
            let cause = Some(why.clone());
            let decided = Answer::Decided(Decision::Unavailable { answered: 2, cause });
            let answers = vec![Answer::Found { record: None }, Answer::Refused(why), decided];
            Reply { sender: NodeId(2), epoch: 4, stamp: Stamp(1), answers: Ok(answers) }
        };
        let full = Refusal::NodeFull { max: 5 };
        let other = Refusal::ReadOnly { why: "node full: max keys 5 reached".into() };
        let reply = said(full);
        assert_eq!(Reply::decode(&reply.encode(PROTOCOL_VERSION)), Ok((reply.clone(), PROTOCOL_VERSION)));
        assert_eq!(Reply::decode(&reply.encode(PREVIOUS_VERSION)), Ok((said(other), PREVIOUS_VERSION)));
    }

    #[test]
    fn what_was_damaged_on_the_way_is_refused_wherever_it_was() {
        let sound = batch(b"precious").encode(PROTOCOL_VERSION);
        // The first byte is the version: another one may be refused as such.
        for at in 1..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 1;
            assert_eq!(Batch::decode(&damaged), Err(MalformedMessage::Damaged), "byte {at}");
        }
        assert_eq!(Batch::decode(&sound[..1]), Err(MalformedMessage::Damaged));
    }

    #[test]
    fn a_comparison_of_more_than_there_is_is_refused() {
        let partition = Partition::of(Key::new("k").unwrap().position());
        let check = |request| {
            let batch = Batch { envelope: envelope(), requests: vec![Request::Sync(request)] };
            Batch::decode(&batch.encode(PROTOCOL_VERSION))
        };
        let (from, salt) = (MemberTag::of("n1"), Salt::of(Stamp(1)));
        let refused = [
            SyncRequest::Groups { from, groups: vec![0; 33] },
            SyncRequest::Trees { partitions: vec![partition], salt },
            SyncRequest::Subtrees { trees: vec![Subtrees { partition, nodes: vec![Short([0; 4]); 65] }], salt },
            SyncRequest::List { beds: vec![Bed { partition, leaves: Leaves::All }], salt },
            SyncRequest::Compare {
                settled: Stamp(1),
                salt,
                beds: vec![(Bed { partition, leaves: Leaves::Some(vec![2, 1]) }, vec![])],
            },
        ];
        for request in refused {
            assert!(matches!(check(request.clone()), Err(MalformedMessage::Limit(_))), "{request:?}");
        }
        assert!(check(SyncRequest::Groups { from, groups: vec![0; 32] }).is_ok());
    }

    #[test]
    fn a_piece_of_a_backup_comes_back_from_its_bytes_and_one_out_of_order_is_refused() {
        let key = |name: &'static str| Key::new(name).unwrap();
        let portion = |names: &[&'static str]| Portion {
            partition: Partition::of(key(names[0]).position()),
            seen: record(b"v").context().clone(),
            is_whole: true,
            records: names.iter().map(|name| (key(name), record(name.as_bytes()))).collect(),
        };
        let mut portions = vec![portion(&["a"]), portion(&["b"])];
        portions.sort_by_key(|portion| portion.partition);
        let next = Some(CopiesFrom { partition: portions[1].partition, after: Some(key("b")) });
        let copies = Copies { cluster: ClusterId(7), node: NodeId(1), portions, damaged: 0, next };
        assert_eq!(Copies::decode(&copies.encode()), Ok(copies.clone()));
        let mut turned = copies.clone();
        turned.portions.reverse();
        let elsewhere = Copies { portions: vec![portion(&["a", "b"])], ..copies.clone() };
        for refused in [turned, elsewhere] {
            assert!(matches!(Copies::decode(&refused.encode()), Err(MalformedMessage::Limit(_))), "{refused:?}");
        }
        let mut bytes = copies.encode();
        bytes[20] ^= 4;
        assert_eq!(Copies::decode(&bytes), Err(MalformedMessage::Damaged));
    }

    #[test]
    fn more_gossip_than_a_ping_carries_is_refused() {
        let batch = |count| Batch {
            envelope: envelope(),
            requests: vec![Request::Gossip { packets: vec![b"p".to_vec(); count] }],
        };
        assert!(Batch::decode(&batch(PACKETS_MAX).encode(PROTOCOL_VERSION)).is_ok());
        assert!(matches!(
            Batch::decode(&batch(PACKETS_MAX + 1).encode(PROTOCOL_VERSION)),
            Err(MalformedMessage::Limit(_))
        ));
    }

    #[test]
    fn asking_whether_all_is_equal_takes_few_bytes() {
        let question = Request::Sync(SyncRequest::Root { from: MemberTag::of("n1"), root: Some([7; 32]) });
        let answer = Answer::Sync(SyncAnswer::Groups(None));
        assert_eq!((wire_bytes(&question), wire_bytes(&answer)), (43, 3));
    }

    #[test]
    fn the_bytes_of_a_message_never_change() {
        let read = Batch { envelope: envelope(), requests: vec![Request::Read { key: Key::new("k").unwrap() }] };
        let hex = |version| read.encode(version).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(PREVIOUS_VERSION), "010701010200882709000105016b39c89b3dc4691cea");
        assert_eq!(hex(PROTOCOL_VERSION), "020701010200882709000105016b3edba6846c798ed5");
        let record: String = wire_hex(&record(b"v"));
        assert_eq!(record, "1601030000000000000005000000000000000104000176");
        assert_eq!(wire_hex(&list()), "0201ac0202702f012f03702f610ae8070107");
        assert_eq!(wire_hex(&listed()), format!("01016b{record}010101610105"));
    }

    fn wire_hex<T: Serialize>(part: &T) -> String {
        postcard::to_allocvec(part).unwrap().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn another_version_is_named() {
        for other in [0, 3, 9] {
            assert_eq!(Batch::decode(&[other, 1, 2]), Err(MalformedMessage::OtherVersion(other)));
        }
        // Nodes of a later version know by these words that this one is to be spoken to in an earlier one.
        let said = "the message is in protocol version 3, this node speaks 2 and 1";
        assert_eq!(MalformedMessage::OtherVersion(3).to_string(), said);
        assert_eq!(Batch::decode(&[]), Err(MalformedMessage::Empty));
    }
}
