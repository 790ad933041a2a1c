//! The modes in which the owners of a key agree: what is answered, and when nothing is. That histories are linearizable is
//! shown in `tests/linearizable.rs`.

mod conditions;
mod owners;
use crate::support;

use kringle::placement::NodeId;
use kringle::protocol::{Answer, Reach, Refusal, Reply, Request as PeerRequest};
use kringle::record::{Actor, Ballot, Content, Dot, Key, Record, Seen, Stamp};
use std::time::{Duration, Instant, SystemTime};
use support::cluster::Cluster;
use support::http::Request;
use support::{eventually, peer};

/// Peers are found dead within seconds, and compared with often.
const QUICK: [&str; 6] = ["--timeout", "1", "--pingfreq", "0.2", "--syncfreq", "0.5"];
/// Long enough for whatever a busy machine makes of it.
const SOON: Duration = Duration::from_secs(60);

const MODES: [&str; 3] = ["quorum", "sync", "chain"];

#[test]
fn what_was_agreed_on_through_one_node_is_read_through_any_other_in_every_mode() {
    let cluster = Cluster::start(5, &["--timeout", "3"]);
    for (number, write) in MODES.into_iter().enumerate() {
        let path = format!("/kv/written-{write}");
        let created = cluster.client(number).put(&format!("{path}?mode={write}"), "first").expect(201);
        for reader in 0..5 {
            for read in MODES {
                let answer = cluster.client(reader).get(&format!("{path}?mode={read}")).expect(200);
                assert_eq!((answer.text(), answer.must("etag")), ("first".into(), created.must("etag")));
            }
        }
        // The modes mix on one key.
        for (number, mode) in MODES.into_iter().enumerate() {
            let value = format!("{mode} over {write}");
            cluster.client(number).put(&format!("{path}?mode={mode}"), value.as_str()).expect(204);
            assert_eq!(cluster.client(4 - number).get(&format!("{path}?mode=quorum")).expect(200).text(), value);
        }
        cluster.client(4).delete(&format!("{path}?mode={write}")).expect(204);
        cluster.client(3).get(&format!("{path}?mode=chain")).expect(404);
        cluster.client(2).delete(&format!("{path}?mode={write}")).expect(204);
    }
}

#[test]
fn an_update_keeps_its_content_type_and_goes_when_its_time_is_over() {
    let cluster = Cluster::start(3, &QUICK);
    let put = Request::new("PUT", "/kv/brief?mode=quorum&ttl=1.5").header("content-type", "text/x-brief").body("v");
    cluster.client(0).send(&put).expect(201);
    let held = cluster.client(1).get("/kv/brief?mode=quorum").expect(200);
    assert_eq!((held.text(), held.must("content-type")), ("v".into(), "text/x-brief"));
    assert!(held.header("kringle-expires").is_some(), "{held}");
    eventually("it is gone everywhere", SOON, || {
        let statuses: Vec<u16> =
            (0..3).map(|index| cluster.client(index).get("/kv/brief?mode=quorum").status).collect();
        (statuses == [404; 3]).then_some(()).ok_or(format!("{statuses:?}"))
    });
    let create = Request::new("PUT", "/kv/brief?mode=quorum").header("if-none-match", "*").body("again");
    cluster.client(2).send(&create).expect(201);
}

#[test]
fn a_cluster_whose_own_mode_agrees_needs_no_word_of_it() {
    let cluster = Cluster::start(3, &["--mode", "quorum"]);
    assert_eq!(cluster.client(1).get("/put?key=k&value=v").expect(200).text(), "OK (Mode: quorum)\n");
    let create = Request::new("PUT", "/kv/k").header("if-none-match", "*").body("other");
    cluster.client(2).send(&create).refusal(412);
    assert_eq!(cluster.client(0).get("/get?key=k").expect(200).text(), "v\n");
    let stored = cluster.client(0).post("/store", &serde_json::json!({ "key": "k", "value": "w" })).expect(200).json();
    assert_eq!(stored["replicas"]["wanted"], 3, "{stored}");
    let read = cluster.client(1).get("/store/key?key=k").expect(200).json();
    assert_eq!((&read["value"], &read["sibling_count"]), (&"w".into(), &1.into()), "{read}");
    // A request may still ask for less.
    cluster.client(2).put("/kv/loose?mode=async", "v").expect(201);
}

#[test]
fn what_is_written_without_agreement_stands_beside_until_a_write_that_agrees_has_seen_it() {
    let cluster = Cluster::start(3, &QUICK);
    cluster.client(0).put("/kv/k?mode=quorum", "agreed").expect(201);
    // Blind, it supersedes whatever the node that takes it has seen.
    cluster.client(1).put("/kv/k?w=3", "loose").expect(204);
    assert_eq!(cluster.client(2).get("/kv/k?mode=quorum").expect(200).text(), "loose");
    cluster.client(2).put("/kv/k?mode=quorum", "agreed again").expect(204);
    for index in 0..3 {
        let held = cluster.client(index).get("/kv/k?mode=quorum&siblings=1").expect(200).json();
        assert_eq!(held["siblings"].as_array().map(Vec::len), Some(1), "{held}");
        assert_eq!(held["siblings"][0]["value"], "agreed again", "{held}");
    }
    // Written with the context of an older read, it supersedes just that.
    let context = cluster.client(0).get("/kv/other?mode=quorum").expect(404);
    assert!(context.header("kringle-context").is_none(), "{context}");
    let first = cluster.client(0).put("/kv/other?mode=quorum", "first").expect(201);
    cluster.client(1).put("/kv/other?mode=quorum", "second").expect(204);
    let stale = Request::new("PUT", "/kv/other?w=3").header("kringle-context", first.must("kringle-context"));
    cluster.client(2).send(&stale.body("beside"));
    let held = cluster.client(0).get("/kv/other?r=3&siblings=1").expect(200).json();
    let mut values: Vec<&str> =
        held["siblings"].as_array().expect("a list").iter().filter_map(|value| value["value"].as_str()).collect();
    values.sort_unstable();
    assert_eq!(values, ["beside", "second"], "{held}");
}

#[test]
fn a_client_that_passes_back_its_contexts_goes_from_mode_to_mode_and_never_back() {
    let cluster = Cluster::start(3, &QUICK);
    let mut context: Option<String> = None;
    for (step, mode) in ["quorum", "async", "chain", "sloppy", "sync", "quorum"].into_iter().enumerate() {
        let with = |request: Request| match &context {
            Some(context) => request.header("kringle-context", context.as_str()),
            None => request,
        };
        let put = with(Request::new("PUT", format!("/kv/k?mode={mode}"))).body(step.to_string());
        let written = cluster.client(step % 3).send(&put);
        assert!(matches!(written.status, 200..=204), "{mode}: {written}");
        context = Some(written.must("kringle-context").to_owned());
        for reader in 0..3 {
            for mode in ["async", "sloppy", "quorum", "sync", "chain"] {
                let get = Request::new("GET", format!("/kv/k?mode={mode}"))
                    .header("kringle-context", context.clone().expect("just set"));
                let read = cluster.client(reader).send(&get);
                assert_eq!((read.status, read.text()), (200, step.to_string()), "step {step}, read in {mode}: {read}");
            }
        }
    }
}

#[test]
fn what_was_deleted_by_agreement_is_forgotten_in_time_and_may_be_created_again() {
    let cluster = Cluster::start(3, &QUICK);
    let keys: Vec<String> = (0..20).map(|number| format!("k{number}")).collect();
    for (number, key) in keys.iter().enumerate() {
        let mode = MODES[number % 3];
        cluster.client(number % 3).put(&format!("/kv/{key}?mode={mode}"), "old").expect(201);
        cluster.client((number + 1) % 3).delete(&format!("/kv/{key}?mode={mode}")).expect(204);
    }
    eventually("no tombstone is left on any node", SOON, || {
        let left: Vec<String> = (0..3)
            .map(|index| cluster.client(index).get("/status").expect(200).json()["store"]["tombstones"].to_string())
            .collect();
        (left == ["0"; 3]).then_some(()).ok_or(format!("{left:?}"))
    });
    for (number, key) in keys.iter().enumerate() {
        cluster.client(number % 3).get(&format!("/kv/{key}?mode=quorum")).expect(404);
        let create = Request::new("PUT", format!("/kv/{key}?mode=quorum")).header("if-none-match", "*").body("new");
        cluster.client(number % 3).send(&create).expect(201);
        assert_eq!(cluster.client((number + 2) % 3).get(&format!("/kv/{key}?mode=quorum")).expect(200).text(), "new");
    }
    eventually("the copies are equal", SOON, || cluster.first_difference().map_or(Ok(()), Err));
}

#[test]
fn increments_that_agree_are_repeated_without_being_counted_twice_on_whatever_side_of_a_split() {
    let cluster = Cluster::behind_proxies(3, &QUICK);
    let add = |index: usize, id: &str| {
        let request = Request::new("POST", "/counters/n?mode=quorum").header("idempotency-key", id);
        cluster.client(index).send(&request)
    };
    assert_eq!(add(0, "one").expect(200).json()["value"], 1);
    cluster.split(&[&[0, 1], &[2]]);
    cluster.await_gone(&[&[0, 1], &[2]]);
    assert_eq!(add(1, "one").expect(200).json()["value"], 1, "counted before");
    let cut_off = add(2, "two");
    assert_eq!(cut_off.status, 503, "{cut_off}");
    assert_eq!(add(0, "two").expect(200).json()["value"], 2);
    cluster.unite();
    eventually("the one that was cut off hears of it", SOON, || match add(2, "two") {
        answer if answer.status == 200 => {
            assert_eq!(answer.json()["value"], 2, "{answer}");
            Ok(())
        }
        answer => Err(answer.to_string()),
    });
    assert_eq!(cluster.client(2).get("/counters/n?mode=quorum").expect(200).json()["value"], 2);
    let text = cluster.client(0).put("/kv/n?mode=quorum", "text");
    assert_eq!(text.status, 204, "{text}");
    add(1, "three").refusal(409);
}

#[test]
fn a_minority_answers_503_within_the_timeout_and_keeps_no_hints() {
    let mut cluster = Cluster::start(3, &QUICK);
    cluster.client(0).put("/kv/k?mode=quorum", "before").expect(201);
    [1, 2].into_iter().for_each(|index| cluster.nodes[index].kill());
    let mut may_surface = false;
    for (method, body) in [("PUT", "lost"), ("DELETE", ""), ("GET", ""), ("GET", "")] {
        let began = Instant::now();
        let request = Request::new(method, "/kv/k?mode=quorum").body(body);
        let answer = cluster.client(0).send(&request).refusal(503);
        assert!(answer.header("retry-after").is_some(), "{answer}");
        assert!(began.elapsed() < Duration::from_secs(2), "{method}: {:?}", began.elapsed());
        let hint = answer.json()["hint"].as_str().expect("a hint").to_owned();
        let advises = hint.contains("?mode=sloppy") && !hint.contains("?r=");
        // A write under a ballot that was kept was accepted by the one that lives before the others were missed.
        let says_so = method != "GET" && hint.contains("may still surface");
        assert!(advises || says_so, "{method}: {hint}");
        may_surface |= says_so;
    }
    // What the hint advises helps.
    assert!([200, 404].contains(&cluster.client(0).get("/kv/k?mode=sloppy").status));
    let hints = cluster.client(0).get("/status").expect(200).json()["hints"]["count"].clone();
    assert_eq!(hints, 0);
    [1, 2].into_iter().for_each(|index| cluster.nodes[index].restart());
    let held = eventually("a majority is back", SOON, || match cluster.client(2).get("/kv/k?mode=quorum") {
        answer if [200, 404].contains(&answer.status) => Ok((answer.status == 200).then(|| answer.text())),
        answer => Err(answer.to_string()),
    });
    let may_be = if may_surface { [Some("before"), Some("lost"), None].as_slice() } else { &[Some("before")] };
    assert!(may_be.contains(&held.as_deref()), "{held:?}");
}

#[test]
fn what_a_peer_says_of_ballots_is_checked() {
    let cluster = Cluster::start(3, &QUICK);
    cluster.client(0).put("/kv/k?mode=quorum", "v").expect(201);
    let key = Key::new("k").expect("a key");
    let dot = Dot { stamp: Stamp(1), actor: Actor(1) };
    let plain = Record::default().write(&Seen::Everything, dot, Some(Content::plain("junk"))).expect("a record");
    let ahead =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970") + Duration::from_secs(3_600);
    let ahead = Ballot { stamp: Stamp::from_ms(ahead.as_millis() as u64), actor: Actor(9) };
    let poison = Record::default().reballot(ahead);
    let requests = vec![
        PeerRequest::Accept { key: key.clone(), record: plain, next: None },
        PeerRequest::Accept { key: key.clone(), record: poison.clone(), next: None },
        PeerRequest::Prepare { key: key.clone(), ballot: ahead },
        PeerRequest::Merge { key: key.clone(), record: poison },
        PeerRequest::Prepare { key: key.clone(), ballot: Ballot::default() },
        PeerRequest::Propose { key, proposal: None, reach: Reach::Majority, within_ms: 0 },
    ];
    let mut client = cluster.client(0);
    let batch = peer::post_as_member(&mut client, "/replicate", NodeId(77), Stamp(0), requests);
    let reply = Reply::decode(&client.send(&batch).expect(200).body).expect("a reply").0;
    let answers = reply.answers.expect("answers");
    let kinds = answers.iter().map(|answer| match answer {
        Answer::Refused(Refusal::Damaged) => "malformed",
        Answer::Refused(Refusal::StampAhead(_)) => "ahead",
        Answer::Refused(Refusal::Promised { .. }) => "late",
        Answer::Refused(Refusal::TooLate) => "too late",
        other => panic!("{other:?}"),
    });
    assert_eq!(kinds.collect::<Vec<_>>(), ["malformed", "ahead", "ahead", "ahead", "late", "too late"]);
    cluster.nodes[0].assert_alive();
    assert_eq!(cluster.client(0).get("/kv/k?mode=quorum").expect(200).text(), "v");
    cluster.client(1).put("/kv/k?mode=quorum", "w").expect(204);
}
