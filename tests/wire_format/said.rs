//! What the recorded messages say: one batch of each request that version 1 has, one reply of each answer. Only what a node
//! asks nobody but itself is not among them, as no other may send it.
//!
//! Each value differs from its neighbours, so that two fields that changed places are found.

use kringle::membership::{Life, Round, Word};
use kringle::merkle::diff::{Below, Built, Digest, PartitionDigest, Salt, Short, SubtreeLeaves, Subtrees};
use kringle::placement::{ClusterId, Member, Mode, NodeId, Partition};
use kringle::protocol::{
    Answer, Batch, Bed, Decision, Difference, Envelope, Evidence, Greeting, KeyEntry, Lacking, LayoutAnswer,
    LayoutRequest, LayoutWish, Leaves, Listed, MemberTag, Part, Progress, Reach, Refusal, Reply, Request, SeenGroups,
    SyncAnswer, SyncRequest,
};
use kringle::record::{
    Actor, Ballot, Condition, Content, Context, Dot, Edit, Key, Proposal, Record, RequestId, Seen, Stamp, StampAhead,
    Tag, Unfit,
};

/// The batches, by the names of their lines.
pub(crate) fn batches() -> Vec<(String, Batch)> {
    let envelope = Envelope {
        cluster: ClusterId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        sender: NodeId(0x1112),
        receiver: Some(NodeId(0x1314)),
        epoch: 21,
        deadline_ms: 5_000,
        stamp: Stamp::from_ms(22),
        background: false,
    };
    let first = Envelope { receiver: None, epoch: 0, background: true, ..envelope.clone() };
    let empty = Batch { envelope: first, requests: vec![] };
    let of = |request| Batch { envelope: envelope.clone(), requests: vec![request] };
    let named = |(name, request): (&str, Request)| (name.to_owned(), of(request));
    let all = [writes(), reads(), agreement(), sessions(), belonging()].concat();
    std::iter::once(("none".to_owned(), empty)).chain(all.into_iter().map(named)).collect()
}

/// The replies, by the names of their lines.
pub(crate) fn replies() -> Vec<(String, Reply)> {
    let of = |answers| Reply { sender: NodeId(0x1314), epoch: 21, stamp: Stamp::from_ms(23), answers };
    let named = |(name, answer): (&str, Answer)| (name.to_owned(), of(Ok(vec![answer])));
    let refused = |(name, refusal): (&str, Refusal)| {
        let answers = vec![Answer::Refused(refusal.clone()), Answer::Refused(refusal)];
        (format!("refused-{name}"), of(Ok(answers)))
    };
    let whole = [("none".to_owned(), of(Ok(vec![]))), ("refused-whole".to_owned(), of(Err(Refusal::OtherCluster)))];
    let answers = [answers(), decisions(), session_answers(), layout_answers()].concat();
    whole.into_iter().chain(answers.into_iter().map(named)).chain(refusals().into_iter().map(refused)).collect()
}

fn key() -> Key {
    Key::new("key").expect("a key")
}

fn dot(actor: u64, ms: u64) -> Dot {
    Dot { stamp: Stamp::from_ms(ms), actor: Actor(actor) }
}

fn ballot() -> Ballot {
    Ballot { stamp: Stamp::from_ms(31), actor: Actor(32) }
}

fn content() -> Content {
    let content_type = Some("text/plain".into());
    Content { content_type, expires_ms: Some(1_700_000_000_000), ..Content::plain("value") }
}

fn context() -> Context {
    let entries = vec![(Actor(3), Stamp::from_ms(4)), (Actor(5), Stamp::from_ms(6))];
    Context::from_sorted(entries).expect("sorted").with_ballot(Some(ballot()))
}

/// One plain value.
fn record() -> Record {
    Record::default().write(&Seen::Everything, dot(3, 7), Some(content())).expect("a write")
}

/// All that a record can hold: what was agreed on, a value beside it, a counter, a request that was counted.
fn full_record() -> Record {
    let proposal = Proposal::from(Edit::write(Seen::Everything, Some(Content::plain("agreed"))));
    let agreed = Record::default().reballot(ballot()).propose(&proposal, dot(8, 9), 10).expect("a proposal");
    let beside = agreed.write(&Seen::Only(Context::new()), dot(3, 40), Some(content())).expect("a write");
    let add = Edit::Add { by: -5, request: Some(RequestId(0x0a0b)) };
    beside.merge(&Record::default().edit(&add, dot(5, 41)).expect("an increment"))
}

fn targets() -> Vec<Box<str>> {
    vec!["http://a:8001".into(), "http://b:8002".into()]
}

fn writes() -> Vec<(&'static str, Request)> {
    let write = |edit| Request::Write { key: key(), edit, until: Stamp::from_ms(50) };
    let forgotten = || vec![(key(), context()), (Key::new("other").expect("a key"), Context::new())];
    vec![
        ("write", write(Edit::write(Seen::Everything, Some(content())))),
        ("write-seen", write(Edit::write(Seen::Only(context()), Some(Content::plain("bare"))))),
        ("write-seen-and-own", write(Edit::write(Seen::OnlyAnd(context(), dot(7, 8)), None))),
        ("write-add", write(Edit::Add { by: -3, request: Some(RequestId(0x0c0d)) })),
        ("merge", Request::Merge { key: key(), record: record() }),
        ("merge-full", Request::Merge { key: key(), record: full_record() }),
        ("cover", Request::Cover { key: key(), other: record(), dot: dot(5, 51) }),
        ("hint", Request::Hint { key: key(), record: record(), targets: targets() }),
        ("hint-write", Request::HintWrite { key: key(), edit: Edit::Add { by: 3, request: None }, targets: targets() }),
        ("may-forget", Request::MayForget { keys: forgotten() }),
        ("forget", Request::Forget { keys: forgotten() }),
    ]
}

fn reads() -> Vec<(&'static str, Request)> {
    vec![
        ("read", Request::Read { key: key() }),
        ("read-since", Request::ReadSince { key: key(), since: context() }),
        ("read-hint", Request::ReadHint { key: key() }),
        ("confirm", Request::Confirm { key: key(), since: context() }),
    ]
}

fn agreement() -> Vec<(&'static str, Request)> {
    let next = Ballot { stamp: Stamp::from_ms(33), actor: Actor(34) };
    let propose = |condition, reach| {
        let edit = Edit::write(Seen::Everything, Some(content()));
        let proposal = Some(Box::new(Proposal { edit, condition }));
        Request::Propose { key: key(), proposal, reach, within_ms: 4_000 }
    };
    let identity = Request::Propose { key: key(), proposal: None, reach: Reach::Majority, within_ms: 4_001 };
    vec![
        ("prepare", Request::Prepare { key: key(), ballot: ballot() }),
        ("accept", Request::Accept { key: key(), record: full_record(), next: Some(next) }),
        ("propose-identity", identity),
        ("propose", propose(None, Reach::Majority)),
        ("propose-absent", propose(Some(Condition::Absent), Reach::Majority)),
        ("propose-present", propose(Some(Condition::Present), Reach::All)),
        ("propose-tagged", propose(Some(Condition::Tagged(Tag(0x0e0f))), Reach::InOrder)),
    ]
}

fn partition(index: usize) -> Partition {
    Partition::try_from_index(index).expect("a partition")
}

/// The third.
fn salt() -> Salt {
    Salt::of(Stamp::from_ms(3))
}

fn short(byte: u8) -> Short {
    Short([byte, byte + 1, byte + 2, byte + 3])
}

fn entry() -> KeyEntry {
    KeyEntry { position: short(0x21), version: short(0x31) }
}

fn seen() -> SeenGroups {
    vec![(context(), vec![(partition(4), partition(9)), (partition(700), partition(700))])]
}

fn sessions() -> Vec<(&'static str, Request)> {
    let from = MemberTag::of("http://a:8001");
    let bed = |leaves| Bed { partition: partition(300), leaves };
    let subtrees = Subtrees { partition: partition(301), nodes: vec![short(0x41); 64] };
    let beds = vec![(bed(Leaves::All), vec![]), (bed(Leaves::Some(vec![3, 900])), vec![entry()])];
    let named = |(name, request)| (name, Request::Sync(request));
    let handed_over = SyncRequest::HandedOver { seen: seen(), unbroken: 61 };
    let sessions = vec![
        ("sync-root", SyncRequest::Root { from, root: Some([7; 32]) }),
        ("sync-root-unknown", SyncRequest::Root { from, root: None }),
        ("sync-groups", SyncRequest::Groups { from, groups: vec![1, 31] }),
        ("sync-subtrees", SyncRequest::Subtrees { salt: salt(), trees: vec![subtrees] }),
        ("sync-compare", SyncRequest::Compare { settled: Stamp::from_ms(60), salt: salt(), beds }),
        ("sync-done", SyncRequest::Done { from }),
        ("sync-offer", SyncRequest::Offer { partitions: vec![partition(1), partition(1_023)] }),
        ("sync-handed-over", handed_over),
    ];
    sessions.into_iter().map(named).collect()
}

fn greeting() -> Greeting {
    Greeting {
        from: MemberTag::of("http://a:8001"),
        id: NodeId(0x1516),
        word: Word { filled: true, holds: false, born: true, current: false },
        durable: Stamp::from_ms(62),
        wall_ms: 1_700_000_000_001,
        remembered: Some(Life { id: NodeId(0x1718), stamp: Stamp::from_ms(63) }),
        unbroken: 64,
        evidence: Some(65),
    }
}

fn member() -> Member {
    Member {
        name: "http://a:8001".into(),
        id: Some(NodeId(0x1516)),
        url: "http://a:9001".into(),
        zone: "rack".into(),
        weight: 2,
    }
}

fn round() -> Round {
    Round { number: 70, by: NodeId(0x191a) }
}

fn belonging() -> Vec<(&'static str, Request)> {
    let between = [MemberTag::of("http://a:8001"), MemberTag::of("http://b:8002")];
    let lone = Greeting { remembered: None, evidence: None, ..greeting() };
    let hello = LayoutRequest::Hello { name: ClusterId::named("kringle"), member: member(), layout: vec![1, 2, 3] };
    let gossip = Request::Gossip { packets: vec![b"alive".to_vec(), vec![]] };
    let layout = |(name, request)| (name, Request::Layout(request));
    let wish = |(name, wish)| (name, Request::Layout(LayoutRequest::Change { wish }));
    let replace = LayoutWish::Replace { dead: "http://c:8003".into(), with: Member::new("http://d:8004") };
    let refit = LayoutWish::Refit { name: "http://c:8003".into(), zone: "hall".into(), weight: 64 };
    let layouts = vec![
        ("layout-hello", hello),
        ("layout-progress", LayoutRequest::Progress),
        ("layout-prepare", LayoutRequest::Prepare { epoch: 22, round: round() }),
        ("layout-accept", LayoutRequest::Accept { round: round(), layout: vec![4, 5] }),
    ];
    let mut wishes = vec![
        ("layout-join", LayoutWish::Join(member())),
        ("layout-leave", LayoutWish::Leave("http://c:8003".into())),
        ("layout-replicas", LayoutWish::Replicas(5)),
        ("layout-abandon", LayoutWish::Abandon),
        ("layout-remove", LayoutWish::Remove("http://c:8003".into())),
        ("layout-replace", replace),
        ("layout-refit", refit),
    ];
    let modes = ["layout-sloppy", "layout-async", "layout-quorum", "layout-sync", "layout-chain"];
    let one_each = [Mode::Sloppy, Mode::Async, Mode::Quorum, Mode::Sync, Mode::Chain];
    wishes.extend(modes.into_iter().zip(one_each.map(LayoutWish::Mode)));
    let said = vec![
        ("greet", Request::Greet(greeting())),
        ("greet-first", Request::Greet(lone)),
        ("under-way", Request::UnderWay { between }),
        ("gossip", gossip),
    ];
    said.into_iter().chain(layouts.into_iter().map(layout)).chain(wishes.into_iter().map(wish)).collect()
}

fn answers() -> Vec<(&'static str, Answer)> {
    let evidence = Evidence { seen: seen(), delivered: vec![(Context::new(), vec![(partition(5), partition(6))])] };
    vec![
        ("written", Answer::Written { created: true, record: record() }),
        ("merged", Answer::Merged { applied: true, more: Some(full_record()) }),
        ("merged-nothing", Answer::Merged { applied: false, more: None }),
        ("found", Answer::Found { record: Some(full_record()) }),
        ("found-nothing", Answer::Found { record: None }),
        ("may-forget", Answer::MayForget(vec![true, false, true])),
        ("forgotten", Answer::Forgotten(80)),
        ("under-way", Answer::UnderWay { since: Some(Stamp::from_ms(81)), hints: true }),
        ("greeted", Answer::Greeted { greeting: greeting(), evidence: Some(evidence) }),
        ("partial-found", Answer::Partial(Part::Found { record: Some(record()) })),
        ("partial-merged", Answer::Partial(Part::Merged { applied: true, more: Some(record()) })),
        ("gossip", Answer::Gossip { packets: vec![b"alive too".to_vec()] }),
        ("promised", Answer::Promised { record: record() }),
        ("accepted", Answer::Accepted { more: Some(record()) }),
    ]
}

fn decisions() -> Vec<(&'static str, Answer)> {
    let cause = Some(Refusal::Promised { ballot: ballot() });
    let named = |(name, decision)| (name, Answer::Decided(decision));
    let decisions = vec![
        ("decided-made", Decision::Made { created: false, record: full_record(), acked: 2 }),
        ("decided-unmet", Decision::Unmet { record: record() }),
        ("decided-unfit", Decision::Unfit(Unfit::NotACounter)),
        ("decided-unavailable", Decision::Unavailable { answered: 1, cause: cause.clone() }),
        ("decided-unknown", Decision::Unknown { acked: 1, cause }),
    ];
    decisions.into_iter().map(named).collect()
}

fn session_answers() -> Vec<(&'static str, Answer)> {
    let digest = Digest([0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58]);
    let built = Some(Built { digest, keys: 90 });
    let partitions = [(2, built), (3, None)].map(|(at, built)| PartitionDigest { partition: partition(at), built });
    let below = Below { node: 5, held: 0b11, leaves: vec![short(0x61), short(0x71)] };
    let listed = Listed { key: key(), entry: entry(), outline: record().outline(), bytes: 91 };
    let differences = vec![
        Difference::Unlisted { key: key(), record: Lacking::Enclosed(record()) },
        Difference::Unlisted { key: key(), record: Lacking::Bytes(92) },
        Difference::Other { at: 1, outline: full_record().outline(), bytes: 93 },
        Difference::Missing { at: 2 },
    ];
    let named = |(name, answer)| (name, Answer::Sync(answer));
    let answers = vec![
        ("sync-equal", SyncAnswer::Groups(None)),
        ("sync-groups", SyncAnswer::Groups(Some(vec![Some(digest), None]))),
        ("sync-partitions", SyncAnswer::Partitions(partitions.to_vec())),
        ("sync-subtrees", SyncAnswer::Subtrees(vec![Subtrees { partition: partition(301), nodes: vec![short(0x41)] }])),
        ("sync-leaves", SyncAnswer::Leaves(vec![SubtreeLeaves { partition: partition(302), below: vec![below] }])),
        ("sync-differing", SyncAnswer::Differing(vec![(partition(303), vec![1, 900])])),
        ("sync-listed", SyncAnswer::Listed(vec![vec![listed], vec![]])),
        ("sync-differences", SyncAnswer::Differences(vec![differences])),
        ("sync-done", SyncAnswer::Done),
    ];
    answers.into_iter().map(named).collect()
}

fn layout_answers() -> Vec<(&'static str, Answer)> {
    let (name, by) = (ClusterId::named("kringle"), NodeId(0x1b1c));
    let progress = Progress {
        epoch: 21,
        lacking: vec![(partition(6), 94)],
        foreign: vec![(partition(7), 95)],
        keys: 96,
        is_filled: true,
        unbroken: 97,
    };
    let named = |(name, answer)| (name, Answer::Layout(answer));
    let answers = vec![
        ("layout-standing", LayoutAnswer::Standing { name, member: member(), layout: vec![6, 7] }),
        ("layout-progress", LayoutAnswer::Progress(progress)),
        ("layout-promised", LayoutAnswer::Promised { by, accepted: Some((round(), vec![8])) }),
        ("layout-accepted", LayoutAnswer::Accepted { by }),
        ("layout-outvoted", LayoutAnswer::Outvoted { round: round() }),
        ("layout-planned", LayoutAnswer::Planned { epoch: 22 }),
        ("layout-declined", LayoutAnswer::Declined { why: "no such member".into() }),
        ("layout-unavailable", LayoutAnswer::Unavailable { why: "too few".into() }),
    ];
    answers.into_iter().map(named).collect()
}

fn refusals() -> Vec<(&'static str, Refusal)> {
    vec![
        ("too-many-siblings", Refusal::Unfit(Unfit::TooManySiblings)),
        ("not-a-counter", Refusal::Unfit(Unfit::NotACounter)),
        ("overflow", Refusal::Unfit(Unfit::Overflow)),
        ("too-many-requests", Refusal::Unfit(Unfit::TooManyRequests)),
        ("overtaken", Refusal::Overtaken { latest: Stamp::from_ms(98) }),
        ("promised", Refusal::Promised { ballot: ballot() }),
        ("stamp-ahead", Refusal::StampAhead(StampAhead { ahead_ms: 99 })),
        ("hints-full", Refusal::HintsFull),
        ("damaged", Refusal::Damaged),
        ("no-targets", Refusal::NoTargets),
        ("unreadable", Refusal::Unreadable),
        ("read-only", Refusal::ReadOnly { why: "no space".into() }),
        ("fenced", Refusal::Fenced),
        ("overloaded", Refusal::Overloaded),
        ("other-cluster", Refusal::OtherCluster),
        ("other-node", Refusal::OtherNode),
        ("stale-epoch", Refusal::StaleEpoch { epoch: 100 }),
        ("not-filled", Refusal::NotFilled),
        ("clock-ahead", Refusal::ClockAhead { ahead_ms: 101 }),
        ("too-late", Refusal::TooLate),
        ("not-a-member", Refusal::NotAMember),
    ]
}
