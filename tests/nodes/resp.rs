//! The port for clients that speak the Redis protocol, with real nodes and a client that takes answers apart.

use crate::support;

mod apart;
mod ends;
mod scanning;
mod steps;
mod wire;

use support::node::{Plan, reserve_port};
use support::resp::{Client, Value, bulk, node, ok, port_of};

/// Every mode, as KRINGLE.MODE takes it.
const MODES: [&str; 5] = ["sloppy", "async", "quorum", "sync", "chain"];

#[test]
fn values_are_set_and_read_in_every_mode_and_both_versions_of_the_protocol() {
    let node = node();
    for mode in MODES {
        for version in ["2", "3"] {
            let mut client = Client::of(&node).in_mode(mode);
            client.say(&format!("HELLO {version}"));
            let key = |name: &str| format!("{mode}{version}:{name}");
            let [a, b, none] = ["a", "b", "none"].map(key);
            let bytes: Vec<u8> = (0..=255).chain(*b"\r\n$-1\r\n").collect();
            assert_eq!(client.say(&format!("GET {a}")), Value::Null);
            assert_eq!(client.call(&[b"SET", a.as_bytes(), &bytes]), ok());
            assert_eq!(client.say(&format!("GET {a}")), Value::Bulk(bytes.clone()));
            assert_eq!(client.say(&format!("STRLEN {a}")), Value::Int(263));
            assert_eq!(client.say(&format!("GETRANGE {a} -2 -1")), bulk("\r\n"));
            assert_eq!(client.say(&format!("MSET {a} 1 {b} 2 {a} 3")), ok());
            let three = Value::Array(vec![bulk("3"), Value::Null, bulk("2")]);
            assert_eq!(client.say(&format!("MGET {a} {none} {b}")), three);
            assert_eq!(client.say(&format!("EXISTS {a} {b} {none} {a}")), Value::Int(3));
            let kind = |word: &str| Value::Simple(word.into());
            assert_eq!(client.say(&format!("TYPE {a}")), kind("string"));
            assert_eq!(client.say(&format!("TYPE {none}")), kind("none"));
            assert_eq!(client.say(&format!("DEL {a} {none} {a}")), Value::Int(1));
            assert_eq!(client.say(&format!("UNLINK {b}")), Value::Int(1));
            assert_eq!(client.say(&format!("EXISTS {a} {b}")), Value::Int(0));
            assert_eq!(client.call(&["SET", &a, ""]), ok());
            assert_eq!(client.say(&format!("GET {a}")), bulk(""));
        }
    }
}

#[test]
fn integers_are_counted_in_every_mode_and_what_is_none_is_refused() {
    const NONE: &str = "ERR value is not an integer or out of range";
    let node = node();
    for mode in MODES {
        let mut client = Client::of(&node).in_mode(mode);
        let mut count = |line: &str| client.say(&line.replace('k', mode));
        for (line, number) in [("INCR k", 1), ("INCRBY k 41", 42), ("DECR k", 41), ("DECRBY k -9", 50)] {
            assert_eq!(count(line), Value::Int(number), "{line} in {mode}");
        }
        assert_eq!(count("GET k"), bulk("50"));
        for nonsense in ["INCRBY k 1.5", "INCRBY k +1", "INCRBY k 9223372036854775808", "DECRBY k x"] {
            assert_eq!(count(nonsense).error(), NONE);
        }
        assert!(count("INCRBY k 9223372036854775807").error().contains("overflow"));
        assert!(count("DECRBY k -9223372036854775808").error().contains("overflow"));
        count("SET k text");
        assert_eq!(count("INCR k").error(), NONE);
        assert_eq!(count("GET k"), bulk("text"));
    }
}

#[test]
fn what_clients_send_when_they_connect_is_answered() {
    let node = node();
    let mut client = Client::of(&node);
    assert_eq!(client.say("PING"), Value::Simple("PONG".into()));
    assert_eq!(client.say("PING hello"), bulk("hello"));
    assert_eq!(client.say("ECHO hello"), bulk("hello"));
    assert_eq!(client.say("SELECT 0"), ok());
    assert!(client.say("SELECT 1").error().contains("out of range"));
    assert!(client.say("AUTH secret").error().starts_with("ERR AUTH <password> called without any password"));
    assert_eq!(client.say("AUTH default secret"), ok());
    assert!(client.say("AUTH alice secret").error().starts_with("WRONGPASS"));
    for line in ["CLIENT SETNAME me", "CLIENT SETINFO LIB-NAME x", "CLIENT SETINFO lib-ver 1.0", "CLIENT NO-EVICT ON"] {
        assert_eq!(client.say(line), ok(), "{line}");
    }
    assert_eq!(client.say("CLIENT GETNAME"), bulk("me"));
    let id = client.say("CLIENT ID").int();
    assert!(client.say("CLIENT INFO").text().starts_with(&format!("id={id} addr=127.0.0.1:")));
    let mut other = Client::of(&node);
    other.say("PING");
    assert_eq!(client.say("CLIENT LIST").text().lines().count(), 2);
    drop(other);
    assert_eq!(client.say("CLIENT NONSENSE").error(), "ERR unknown subcommand 'NONSENSE'. Try COMMAND DOCS client.");

    let field = |map: &Value, name: &str| match map {
        Value::Map(pairs) => pairs.iter().find(|(field, _)| *field == bulk(name)).map(|(_, value)| value.clone()),
        Value::Array(items) => items.chunks_exact(2).find(|pair| pair[0] == bulk(name)).map(|pair| pair[1].clone()),
        other => panic!("no map: {other:?}"),
    };
    assert_eq!(field(&client.say("HELLO"), "proto"), Some(Value::Int(2)));
    let hello = client.say("HELLO 3 AUTH default x SETNAME you");
    assert!(matches!(hello, Value::Map(_)), "{hello:?}");
    assert_eq!(field(&hello, "proto"), Some(Value::Int(3)));
    assert_eq!(client.say("CLIENT GETNAME"), bulk("you"));
    assert!(client.say("HELLO 4").error().starts_with("NOPROTO"));
    assert_eq!(field(&client.say("CONFIG GET append* save"), "appendonly"), Some(bulk("no")));
    assert!(client.say("CONFIG SET save 1").error().starts_with("ERR"));
    assert_eq!(client.say("RESET"), Value::Simple("RESET".into()));
    assert_eq!(client.say("CLIENT GETNAME"), Value::Null);

    let count = client.say("COMMAND COUNT").int();
    assert_eq!(client.say("COMMAND").items().len() as i64, count);
    assert_eq!(client.say("COMMAND LIST").items().len() as i64, count);
    assert_eq!(client.say("COMMAND DOCS").items().len() as i64, 2 * count);
    assert_eq!(client.say("COMMAND INFO get nonsense").items()[1], Value::Null);
    assert_eq!(client.say("COMMAND GETKEYS MSET a 1 b 2"), Value::Array(vec![bulk("a"), bulk("b")]));

    client.say("SET a b");
    let info = client.say("INFO").text();
    for line in ["role:master", "loading:0", "connected_clients:1", "cluster_enabled:0", "db0:keys=1,"] {
        assert!(info.contains(&format!("\r\n{line}")), "no {line} in {info}");
    }
    assert!(client.say("INFO memory").text().starts_with("# Memory\r\nused_memory_rss:"));
    assert_eq!(
        client.say("NONSENSE a b").error(),
        "ERR unknown command 'NONSENSE', with args beginning with: 'a' 'b' "
    );
    assert_eq!(client.say("GET").error(), "ERR wrong number of arguments for 'get' command");
    assert_eq!(client.say("QUIT"), ok());
    assert!(client.is_closed());
}

#[test]
fn the_mode_of_a_connection_is_the_clusters_until_it_names_one() {
    let node = Plan::new(&["--memory", "--resp-port", "0", "--mode", "chain"]).start();
    let mut client = Client::of(&node);
    assert_eq!(client.say("KRINGLE.MODE"), bulk("chain"));
    assert_eq!(client.say("KRINGLE.MODE Async"), ok());
    assert_eq!(client.say("KRINGLE.MODE"), bulk("async"));
    assert!(client.say("KRINGLE.MODE eventual").error().contains("sloppy, async, quorum, sync, chain"));
    assert_eq!(client.say("KRINGLE.MODE default"), ok());
    assert_eq!(client.say("KRINGLE.MODE"), bulk("chain"));
    assert_eq!(Client::of(&node).say("KRINGLE.MODE"), bulk("chain"));
}

#[test]
fn what_is_written_here_is_read_over_http_and_the_other_way_about() {
    let node = node();
    let mut client = Client::of(&node);
    assert_eq!(client.say("SET here a PX 600000"), ok());
    let read = node.get("/kv/here").expect(200);
    assert_eq!(read.text(), "a");
    assert!(read.header("Kringle-Expires").is_some());
    node.put("/kv/there", "b");
    assert_eq!(client.say("GET there"), bulk("b"));
    let context = client.say("KRINGLE.CONTEXT there").text();
    assert_eq!(node.get("/kv/there").must("Kringle-Context"), context);
    assert_eq!(client.say("KRINGLE.CONTEXT nowhere"), Value::Null);
    let place = client.say("KRINGLE.LOCATE there");
    let ring = node.get("/ring?key=there").json();
    assert_eq!(place.items()[1].text(), ring["position"].as_str().unwrap());
    assert_eq!(place.items()[5].items()[0].text(), ring["owners"][0]["url"].as_str().unwrap());
}

#[test]
fn there_is_no_such_port_unless_it_is_asked_for_and_one_that_cannot_be_had_ends_the_start() {
    let plain = Plan::new(&["--memory"]).start();
    assert!(!plain.log().contains("redis clients"), "{}", plain.log());

    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().port();
    let start = |flags: &[&str]| Plan::new(flags).spawn();
    let mut node = start(&["--memory", "--resp-port", &taken.to_string()]);
    assert_eq!(node.ready_or_gone().and_then(|status| status.code()), Some(1));
    assert!(node.log().contains(&format!("kringle: cannot listen on 127.0.0.1:{taken}")), "{}", node.log());

    let same = reserve_port();
    let mut node = Plan::new(&["--memory", "--resp-port", &same.to_string()]).port(same).spawn();
    assert_eq!(node.ready_or_gone().and_then(|status| status.code()), Some(2));

    let chosen = reserve_port();
    let node = Plan::new(&["--memory", "--resp-port", &chosen.to_string()]).start();
    assert_eq!(port_of(&node), chosen);
    assert_eq!(Client::at(chosen).say("PING"), Value::Simple("PONG".into()));
}

#[test]
fn a_node_that_stops_answers_what_it_has_begun_and_closes() {
    let mut node = node();
    let mut client = Client::of(&node);
    assert_eq!(client.say("SET a b"), ok());
    assert!(node.stop(std::time::Duration::from_secs(10)).success());
    assert!(client.is_closed());
}
