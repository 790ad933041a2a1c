//! Watching keys, and what happens to nodes: told once, in order, and never silently too little.

mod stream;
use crate::support;

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::time::Duration;
use stream::{SOON, Stream, Told};
use support::cluster::Cluster;
use support::eventually;
use support::http::{Client, Request, encode};
use support::node::{Node, Plan, reserve_port};
use support::proxy::{Fault, Way};

const MODES: [&str; 5] = ["sloppy", "async", "quorum", "sync", "chain"];
/// Peers are found dead within seconds.
const QUICK: [&str; 7] = ["--memory", "--timeout", "2", "--pingfreq", "0.3", "--syncfreq", "1"];

/// The changes among them.
fn changes(told: &[Told]) -> Vec<&Told> {
    told.iter().filter(|told| told.is_change()).collect()
}

/// None of these is told twice: of one key no version comes again.
#[track_caller]
fn assert_once<'a>(told: impl IntoIterator<Item = &'a Told>) {
    let mut seen = BTreeSet::new();
    for told in told {
        let version = (told.text("key"), told.event.clone(), told.text("etag"), told.data["at_ms"].to_string());
        assert!(told.event == "delete" || seen.insert(version), "{told:?} is told twice");
    }
}

/// Writes what is told of as the last thing.
fn write_last(client: &mut Client, key: &str) {
    client.put(&format!("/kv/{key}"), "last");
}

#[test]
fn one_node_tells_each_change_once_in_every_mode() {
    let node = Node::in_memory();
    let mut all = Stream::open(&node.address(), "/watch");
    let mut some = Stream::open(&node.address(), "/watch?prefix=b%00%ff&values=1");
    let mut client = node.client();
    for mode in MODES {
        client.put(&format!("/kv/a?mode={mode}"), mode);
        let put = client.put(&format!("/kv/b%00%ff{mode}?mode={mode}&ttl=60"), mode);
        client.delete(&format!("/kv/a?mode={mode}"));
        client.post(&format!("/counters/c-{mode}?mode={mode}"), &json!({ "by": 5 })).expect(200);
        let told = all.take(4);
        let events: Vec<&str> = told.iter().map(|told| told.event.as_str()).collect();
        assert_eq!(events, ["put", "put", "delete", "count"], "{mode}");
        assert_eq!((told[0].text("key").as_str(), &told[0].data["siblings"]), ("a", &json!(1)));
        assert_eq!((told[2].text("key").as_str(), &told[2].data["siblings"]), ("a", &json!(0)));
        assert_eq!(told[1].text("etag"), put.must("ETag"));
        assert!(told[1].data["expires"].is_u64() && told[1].data["value"].is_null(), "{:?}", told[1]);
        assert_once(&told);
        let told = some.next().expect("a change");
        assert_eq!(told.text("key_base64"), support::base64(&[b"b\x00\xff", mode.as_bytes()].concat()));
        assert_eq!(told.text("value"), mode);
    }
    // An increment that is repeated counts once, and is told once.
    for _ in 0..2 {
        let repeated = Request::new("POST", "/counters/once").header("Idempotency-Key", "x");
        client.send(&repeated).expect(200);
    }
    client.put("/kv/large", vec![b'v'; 20_000]);
    client.put("/kv/b%00%fflarge", vec![b'v'; 20_000]);
    assert_eq!(all.take(2).iter().map(Told::short).collect::<Vec<_>>(), ["count once", "put large"]);
    assert!(some.next().expect("a change").text("left_out").contains("16384"));
}

#[test]
fn five_nodes_tell_what_any_of_them_took_on_any_of_them() {
    let cluster = Cluster::start(5, &QUICK);
    let mut streams: Vec<Stream> =
        [0, 3].map(|at| Stream::open(&cluster.nodes[at].address(), "/watch?prefix=k")).into();
    let mut clients: Vec<Client> = cluster.nodes.iter().map(|node| node.client().within(SOON)).collect();
    let mut written = BTreeMap::<String, Vec<String>>::new();
    for round in 0..30 {
        for (at, client) in clients.iter_mut().enumerate() {
            let (mode, key) = (MODES[at], format!("k-{}-{}", MODES[at], round % 3));
            // Another node each time: what follows another's write is told behind it.
            let answer = client.put(&format!("/kv/{key}?mode={mode}"), format!("{round}"));
            assert!(matches!(answer.status, 201 | 204), "{answer}");
            written.entry(key).or_default().push(answer.must("ETag").to_owned());
        }
        clients.rotate_left(1);
    }
    write_last(&mut clients[0], "k-last");
    for stream in &mut streams {
        let told = stream.until(|told| told.text("key") == "k-last");
        // The last one follows none of the others, so some of those may still come.
        let mut all = told;
        let wanted = written.values().map(Vec::len).sum::<usize>() + 1;
        all.extend(stream.take(wanted - all.len()));
        assert_once(&all);
        for (key, etags) in &written {
            let told: Vec<String> =
                changes(&all).iter().filter(|told| told.text("key") == *key).map(|told| told.text("etag")).collect();
            match key.contains("async") || key.contains("sloppy") {
                // One that had not arrived at the next owner stood beside its successor there.
                true => assert_eq!(told.len(), etags.len(), "{key}"),
                false => assert_eq!(&told, etags, "{key}"),
            }
        }
    }
}

#[test]
fn a_watcher_goes_on_at_another_node_where_it_was() {
    let mut cluster = Cluster::start(3, &QUICK);
    let mut first = Stream::open(&cluster.nodes[0].address(), "/watch");
    let mut clients: Vec<Client> = cluster.nodes.iter().map(Node::client).collect();
    for number in 0..60 {
        clients[number % 3].put(&format!("/kv/a{number}"), "1");
    }
    let told = first.until_keys(60);
    let (known, id) = (&told[..20], told[19].id.clone());
    let known_keys = known.iter().map(Told::short).collect::<BTreeSet<_>>();
    drop(first);
    for number in 60..90 {
        clients[number % 3].put(&format!("/kv/a{number}"), "1");
    }
    let mut second = Stream::from(&cluster.nodes[1].address(), "/watch", Some(&id));
    let rest = second.until_keys(90 - known_keys.len());
    assert_once(known.iter().chain(&rest));
    let keys: BTreeSet<String> = known.iter().chain(&rest).map(Told::short).collect();
    assert_eq!(keys.len(), 90, "none is missing");
    // The same by address, and by long polls on each of them in turn.
    let mut polled = known_keys;
    let mut since = id;
    for turn in 0.. {
        let answer = clients[turn % 3].get(&format!("/watch?since={since}&wait=5s")).expect(200).json();
        let events = answer["events"].as_array().expect("events").clone();
        polled.extend(events.iter().map(|event| format!("put {}", event["key"].as_str().unwrap_or("?"))));
        since = answer["since"].as_str().expect("an id").to_owned();
        if polled.len() >= 90 {
            break;
        }
    }
    assert_eq!(polled, keys);
    // A member is restarted: what it had not told is gone with it.
    cluster.nodes[2].kill();
    cluster.nodes[2].restart();
    let mut third = Stream::from(&cluster.nodes[1].address(), "/watch", Some(&since));
    let gap = third.until(|told| told.event == "gap").pop().expect("a gap");
    assert!(gap.text("node").ends_with(&cluster.nodes[2].port().to_string()), "{gap:?}");
    assert!(gap.text("hint").contains("GET /kv?prefix="), "{gap:?}");
}

#[test]
fn a_long_poll_answers_with_the_first_change_or_nothing_in_time() {
    let node = Node::in_memory();
    let mut client = node.client();
    let nothing = client.get("/watch?prefix=p&wait=0.3").expect(200);
    assert!(nothing.took >= Duration::from_millis(290), "{:?}", nothing.took);
    let nothing = nothing.json();
    assert_eq!(nothing["events"], json!([]));
    node.put("/kv/other", "1");
    node.put("/kv/p1", "1");
    let since = nothing["since"].as_str().expect("an id").to_owned();
    let one = client.get(&format!("/watch?prefix=p&since={since}&wait=10s&values=1")).expect(200);
    assert!(one.took < Duration::from_secs(5), "{:?}", one.took);
    let one = one.json();
    assert_eq!((&one["events"][0]["event"], &one["events"][0]["key"]), (&json!("put"), &json!("p1")), "{one}");
    let since = one["since"].as_str().expect("an id").to_owned();
    let address = node.address();
    let waiting =
        std::thread::spawn(move || Client::new(&address).get(&format!("/watch?since={since}&wait=20s")).json());
    eventually("the poll waits", SOON, || {
        node.put("/kv/late", "1");
        if waiting.is_finished() { Ok(()) } else { Err("no answer yet".into()) }
    });
    assert_eq!(waiting.join().expect("an answer")["events"][0]["key"], "late");
}

#[test]
fn a_node_that_is_killed_is_a_gap_by_name_and_the_others_go_on() {
    let mut cluster = Cluster::start(5, &QUICK);
    let mut stream = Stream::open(&cluster.nodes[0].address(), "/watch");
    let mut events = Stream::open(&cluster.nodes[1].address(), "/watch/events");
    let mut client = cluster.nodes[1].client();
    (0..50).for_each(|number| drop(client.put(&format!("/kv/before{number}"), "1").expect(201)));
    assert_once(&stream.until_keys(50));
    let lost = cluster.nodes[4].port().to_string();
    cluster.nodes[4].kill();
    let told = stream.until(|told| told.event == "gap");
    let gap = told.last().expect("a gap");
    assert!(gap.text("node").ends_with(&lost) && gap.text("reason").contains("does not answer"), "{gap:?}");
    for number in 0..50 {
        let answer = client.put(&format!("/kv/after{number}"), "1");
        assert!(matches!(answer.status, 201 | 202), "{answer}");
    }
    let after = stream.until_keys(50);
    assert_eq!(after.iter().map(Told::short).collect::<BTreeSet<_>>().len(), 50);
    let told = events.until(|told| told.text("kind") == "peer" && told.text("text").contains(&lost));
    assert_eq!(told.last().expect("an event").event, "event");
    // Who comes while it is away is told so at once.
    let mut late = Stream::open(&cluster.nodes[2].address(), "/watch");
    assert!(late.next().expect("a gap").text("node").ends_with(&lost));
    cluster.nodes[4].restart();
    let back = stream.until(|told| told.event == "gap").pop().expect("a gap");
    assert!(back.text("reason").contains("again") && back.text("node").ends_with(&lost), "{back:?}");
    cluster.client(4).put("/kv/back", "1");
    stream.until(|told| told.text("key") == "back");
}

/// The owners accept it, and what they answer is lost; nobody proposes for its key again.
#[test]
fn an_agreed_write_of_which_its_proposer_heard_nothing_is_told_once_it_is_known() {
    let cluster = Cluster::behind_proxies(3, &QUICK);
    let owners = cluster.owners("k");
    let mut stream = Stream::open(&cluster.nodes[owners[0]].address(), "/watch?prefix=k&values=1");
    let mut client = cluster.client(owners[0]).within(SOON);
    let written = Request::new("PUT", "/kv/k?mode=quorum");
    client.send(&written.clone().body("first")).expect(201);
    assert_eq!(changes(&stream.until(Told::is_change))[0].text("value"), "first");
    owners[1..].iter().for_each(|owner| cluster.fault(*owner, Fault::BlackHole(Way::FromNode)));
    client.send(&written.body("second")).refusal(503);
    owners[1..].iter().for_each(|owner| cluster.fault(*owner, Fault::Pass));
    let told = stream.until(Told::is_change);
    assert_eq!(changes(&told)[0].text("value"), "second");
    // Once, and nothing else of the key before what comes next.
    client.put("/kv/kz", "last");
    let rest = stream.until(|told| told.text("key") == "kz");
    assert_eq!(changes(&rest).len(), 1, "{rest:?}");
}

#[test]
fn a_node_that_joins_is_followed_from_its_first_write() {
    let cluster = Cluster::start(2, &QUICK);
    let mut stream = Stream::open(&cluster.nodes[0].address(), "/watch");
    let flags: Vec<&str> = QUICK.to_vec();
    let newcomer = Plan::new(&flags).port(reserve_port()).flag("--peers", cluster.nodes[0].address()).start();
    eventually("it is a member like any other", SOON, || {
        let layout = newcomer.get("/cluster").json();
        let is_member = layout["member"] == json!(true) && layout["changing"] == json!(false);
        if is_member { Ok(()) } else { Err(layout.to_string()) }
    });
    let mut client = newcomer.client();
    (0..100).for_each(|number| drop(client.put(&format!("/kv/n{number}"), "1").expect(201)));
    let told = stream.until_keys(100);
    assert_eq!(told.iter().map(Told::short).collect::<BTreeSet<_>>().len(), 100);
    let makers: BTreeSet<String> = told.iter().map(|told| told.text("node")).collect();
    assert!(makers.iter().any(|maker| maker.ends_with(&newcomer.port().to_string())), "{makers:?}");
}

#[test]
fn who_does_not_read_is_cut_off_and_told_where_to_go_on() {
    let node = Node::in_memory();
    let mut socket = Stream::ask(&node.address(), "/watch?values=1", None);
    // It is there once its first bytes have come.
    socket.read_exact(&mut [0; 1]).expect("an answer");
    let mut quick = Stream::open(&node.address(), "/watch");
    let mut client = node.client();
    let value = vec![b'v'; 16_000];
    (0..1_500).for_each(|number| drop(client.put(&format!("/kv/{number}"), value.clone())));
    assert_eq!(changes(&quick.take(1_500)).len(), 1_500, "who reads is told all");
    let mut slow = Vec::new();
    socket.set_read_timeout(Some(SOON)).expect("a socket");
    // The server ends the body behind its last event.
    let mut buffer = [0; 65_536];
    while !slow.ends_with(b"\r\n0\r\n\r\n") {
        let read = socket.read(&mut buffer).expect("the rest of the stream");
        assert!(read > 0, "closed before the end was told");
        slow.extend_from_slice(&buffer[..read]);
    }
    let text = String::from_utf8_lossy(&slow);
    let end = text.split("\n\n").filter(|block| block.contains("event: end")).last().expect("an end");
    assert!(end.contains("read faster"), "{end}");
    let id = end.lines().find_map(|line| line.split_once("id: ")).expect("an id").1.to_owned();
    let told = text.matches("event: put").count();
    assert!(told < 1_500, "{told}");
    let mut rest = Stream::from(&node.address(), "/watch", Some(&id));
    assert_eq!(changes(&rest.take(1_500 - told)).len(), 1_500 - told);
}

#[test]
fn a_node_that_stops_ends_its_watches_with_a_reason() {
    let mut node = Node::on_disk();
    let mut stream = Stream::open(&node.address(), "/watch");
    node.put("/kv/a", "1");
    let id = stream.next().expect("a change").id;
    node.stop(Duration::from_secs(6));
    let end = stream.next().expect("an end");
    assert_eq!((end.event.as_str(), end.id.as_str()), ("end", id.as_str()));
    assert!(end.text("reason").contains("stops") && stream.next().is_none(), "{end:?}");
    node.restart();
    let mut again = Stream::from(&node.address(), "/watch", Some(&id));
    let gap = again.next().expect("a gap");
    assert!(gap.event == "gap" && gap.text("reason").contains("restarted"), "{gap:?}");
}

#[test]
fn nonsense_is_refused_and_there_are_no_more_watchers_than_may_be() {
    let node = Plan::new(&["--memory", "--max-watchers", "2"]).start();
    let long = encode(vec![b'p'; 5_000]);
    for target in
        ["/watch?since=abc", "/watch?wait=x", "/watch?values=maybe", "/watch?prefx=a", "/watch/events?prefix=a"]
    {
        node.get(target).refusal(400);
    }
    node.get(&format!("/watch?prefix={long}")).refusal(413);
    node.client().send(&Request::new("POST", "/watch")).refusal(405);
    let id = node.get("/watch/events?wait=0.1").expect(200).json()["since"].as_str().map(str::to_owned);
    node.get(&format!("/watch?since={}", id.expect("an id"))).refusal(400);
    let two = [(); 2].map(|()| Stream::open(&node.address(), "/watch"));
    let refused = node.get("/watch").refusal(503);
    assert_eq!(refused.must("Retry-After"), "1");
    drop(two);
    eventually("those that have gone count no more", Duration::from_secs(40), || {
        node.put("/kv/a", "1");
        let answer = node.get("/watch?wait=0");
        if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
    });
}

#[test]
fn of_many_changes_none_is_missed_and_none_is_told_twice() {
    let (count, writers) = (if support::thorough() { 100_000 } else { 6_000 }, 4);
    let cluster = Cluster::start(3, &QUICK);
    let addresses: Vec<String> = cluster.nodes.iter().map(Node::address).collect();
    let mut streams: Vec<Stream> = addresses.iter().map(|address| Stream::open(address, "/watch?prefix=m")).collect();
    let writing: Vec<_> = (0..writers)
        .map(|writer| {
            let mut client = Client::new(&addresses[writer % 3]);
            std::thread::spawn(move || {
                let mut versions = BTreeMap::<String, Vec<String>>::new();
                for number in 0..count / writers {
                    // Each key is written again and again by one writer, so its versions have an order.
                    let key = format!("m{writer}-{}", number % 500);
                    let answer = client.put(&format!("/kv/{key}"), number.to_string());
                    assert!(matches!(answer.status, 201 | 204), "{answer}");
                    versions.entry(key).or_default().push(answer.must("ETag").to_owned());
                }
                versions
            })
        })
        .collect();
    let mut written = BTreeMap::new();
    writing.into_iter().for_each(|writer| written.extend(writer.join().expect("it writes")));
    for stream in &mut streams {
        let told = stream.take(count);
        let mut versions = BTreeMap::<String, Vec<String>>::new();
        for told in &told {
            assert_eq!(told.event, "put", "{told:?}");
            versions.entry(told.text("key")).or_default().push(told.text("etag"));
        }
        assert!(versions == written, "another than what was written: {:?}", first_difference(&versions, &written));
    }
}

fn first_difference(told: &BTreeMap<String, Vec<String>>, written: &BTreeMap<String, Vec<String>>) -> Option<Value> {
    let keys: BTreeSet<&String> = told.keys().chain(written.keys()).collect();
    let differs = keys.into_iter().find(|key| told.get(*key) != written.get(*key))?;
    Some(json!({ "key": differs, "told": told.get(differs), "written": written.get(differs) }))
}

/// Not a promise: what a watcher that is told nothing costs. Prints it.
#[test]
fn a_thousand_quiet_watchers_cost_some_kilobytes_each() {
    let count = if support::thorough() { 1_000 } else { 200 };
    let node = Node::in_memory();
    drop(Stream::open(&node.address(), "/watch"));
    let before = node.resident_bytes();
    let mut sockets: Vec<_> = (0..count).map(|_| Stream::ask(&node.address(), "/watch", None)).collect();
    sockets.iter_mut().for_each(|socket| socket.read_exact(&mut [0; 1]).expect("an answer"));
    let each = node.resident_bytes().saturating_sub(before) / count as u64;
    eprintln!("{count} watchers: {each} bytes each, their connections included");
    assert!(each < 64 << 10, "{each} bytes");
}
