//! Keys of a whole cluster, told by any of its nodes.

use super::support::cluster::Cluster;
use super::support::eventually;
use super::support::resp::{Client, Value, bulk, node};
use std::collections::BTreeMap;
use std::time::Duration;

/// One call: where to go on, and the keys.
#[track_caller]
fn call(client: &mut Client, cursor: &str, options: &str) -> (String, Vec<String>) {
    let answer = client.say(format!("SCAN {cursor} {options}").trim_end());
    let [next, keys] = answer.items() else { panic!("{answer:?}") };
    (next.text(), keys.items().iter().map(Value::text).collect())
}

/// How often each key is told, each call made by the next of these clients; and how many calls there were.
#[track_caller]
fn scan(clients: &mut [Client], options: &str) -> (BTreeMap<String, usize>, usize) {
    let (mut told, mut cursor, mut calls) = (BTreeMap::new(), "0".to_owned(), 0);
    loop {
        let at = calls % clients.len();
        let (next, keys) = call(&mut clients[at], &cursor, options);
        keys.into_iter().for_each(|key| *told.entry(key).or_default() += 1);
        (cursor, calls) = (next, calls + 1);
        if cursor == "0" {
            return (told, calls);
        }
        assert!(calls < 2_000, "it goes on for ever");
    }
}

#[test]
fn every_key_of_five_nodes_is_told_once_whoever_is_asked() {
    const KEYS: usize = 2_000;
    let mut cluster = Cluster::start(5, &["--memory", "--resp-port", "0"]);
    let mut clients: Vec<Client> = cluster.nodes.iter().map(Client::of).collect();
    let lines: Vec<String> = (0..KEYS).map(|number| format!("SET key:{number} v")).collect();
    for (client, lines) in clients.iter_mut().zip(lines.chunks(KEYS / 5)) {
        client.pipeline(lines).iter().for_each(|answer| assert_eq!(answer.text(), "OK"));
    }
    clients[0].say("SET gone v");
    assert_eq!(clients[1].say("DEL gone"), Value::Int(1));
    clients[2].say("SET brief v PX 1");

    let (told, calls) = scan(&mut clients, "COUNT 100");
    assert_eq!(told.len(), KEYS);
    assert!(told.values().all(|times| *times == 1));
    assert!((5..200).contains(&calls), "{calls} calls for {KEYS} keys, 100 at a time");
    let (told, _) = scan(&mut clients, "COUNT 1000 MATCH key:1[0-4]?");
    assert_eq!(told.len(), 50);
    assert_eq!(scan(&mut clients, "COUNT 1000 TYPE list").0.len(), 0);

    assert_eq!(clients[3].say("KEYS key:199?").items().len(), 10);
    assert_eq!(clients[3].say("KEYS *").items().len(), KEYS);
    assert_eq!(clients[3].say("KEYS nothing*").items().len(), 0);
    let random = clients[4].say("RANDOMKEY").text();
    assert!(random.starts_with("key:"), "{random}");

    assert_eq!(clients[0].say("NODES").items().len(), 5);
    assert!(clients[0].say("NODES").items()[1].text().ends_with(" alive"));
    // Some of the tombstones and of the copies are on their way.
    eventually("each node's keys are counted", Duration::from_secs(20), || {
        let files = clients[0].say("FILES");
        let counts: i64 = files.items().chunks_exact(2).map(|pair| pair[1].int()).sum();
        let (all, owned) = (clients[0].say("DBSIZE").int(), 3 * KEYS as i64);
        // The one that has expired may still be there.
        let is_right = (owned..=owned + 3).contains(&counts) && (KEYS as i64..=KEYS as i64 + 1).contains(&all);
        if is_right { Ok(()) } else { Err(format!("{all} keys, {files:?}")) }
    });

    // Any other node goes on where one that is gone has told up to.
    let (cursor, first) = call(&mut clients[0], "0", "COUNT 500");
    cluster.nodes[0].kill();
    let mut told: BTreeMap<String, usize> = first.into_iter().map(|key| (key, 1)).collect();
    let mut cursor = cursor;
    while cursor != "0" {
        let (next, keys) = call(&mut clients[1], &cursor, "COUNT 500");
        keys.into_iter().for_each(|key| *told.entry(key).or_default() += 1);
        cursor = next;
    }
    assert_eq!((told.len(), told.values().max()), (KEYS, Some(&1)));
}

#[test]
fn one_key_among_all_partitions_and_among_many_others_is_found() {
    let node = node();
    let mut client = Client::of(&node);
    client.say("SET only v");
    assert_eq!(client.say("RANDOMKEY"), bulk("only"));
    assert_eq!(call(&mut client, "0", ""), ("0".to_owned(), vec!["only".to_owned()]));
    // Few partitions at a time, and so many times.
    let lines: Vec<String> = (0..3_000).map(|number| format!("SET many:{number} v")).collect();
    client.pipeline(&lines);
    let (told, _) = scan(&mut [client], "COUNT 10 MATCH only");
    assert_eq!(told.into_iter().collect::<Vec<_>>(), [("only".to_owned(), 1)]);
}

#[test]
fn what_a_scan_is_told_wrongly_is_refused() {
    let node = node();
    let mut client = Client::of(&node);
    for cursor in ["x", "-1", "1024", "99999999999999999999"] {
        assert_eq!(client.say(&format!("SCAN {cursor}")).error(), "ERR invalid cursor");
    }
    for options in ["COUNT", "COUNT 0", "COUNT -1", "NONSENSE 1", "MATCH"] {
        assert_eq!(client.say(&format!("SCAN 0 {options}")).error(), "ERR syntax error", "{options}");
    }
    let long = "*".repeat(1_025);
    for line in [format!("SCAN 0 MATCH {long}"), format!("KEYS {long}"), format!("CONFIG GET {long}")] {
        assert_eq!(client.say(&line).error(), "ERR a pattern has at most 1024 bytes");
    }
    assert_eq!(client.say(&format!("KEYS {}", "k".repeat(1_024))), Value::Array(vec![]));
    assert!(client.say("SCAN 0 COUNT x").error().contains("not an integer"));
    assert_eq!(client.say("SCAN 0"), Value::Array(vec![bulk("0"), Value::Array(vec![])]));
    assert_eq!((client.say("RANDOMKEY"), client.say("DBSIZE")), (Value::Null, Value::Int(0)));
}
