//! What is one step: conditions, and writes that depend on what was there.

use super::support::resp::{Client, Value, bulk, node, ok};
use std::thread;

#[test]
fn what_must_be_one_step_is_refused_in_a_mode_that_cannot_and_nothing_is_written() {
    let node = node();
    for mode in ["sloppy", "async", "sync", "chain"] {
        let mut client = Client::of(&node).in_mode(mode);
        client.say("SET k v");
        for line in ["SET k w NX", "SET k w XX", "SET k w GET", "SETNX k w", "GETSET k w", "GETDEL k", "APPEND k w"] {
            let refused = client.say(line);
            assert!(refused.error().starts_with(&format!("ERR mode {mode} ")), "{line}: {refused:?}");
            assert_eq!(client.say("GET k"), bulk("v"), "{line}");
        }
    }
}

#[test]
fn in_mode_quorum_a_write_may_depend_on_what_was_there() {
    let node = node();
    let mut client = Client::of(&node).in_mode("quorum");
    assert_eq!(client.say("SET k 1 XX"), Value::Null);
    assert_eq!(client.say("SET k 1 NX NX"), ok());
    assert_eq!(client.say("SET k 2 NX"), Value::Null);
    assert_eq!(client.say("SET k 2 XX"), ok());
    assert_eq!(client.say("SETNX k 3"), Value::Int(0));
    assert_eq!(client.say("SET k 3 NX GET"), bulk("2"));
    assert_eq!(client.say("SET k 3 XX GET EX 100"), bulk("2"));
    assert!(client.say("TTL k").int() > 90);
    assert_eq!(client.say("GETSET k 4"), bulk("3"));
    assert_eq!(client.say("TTL k"), Value::Int(-1));
    assert_eq!(client.say("APPEND k 56"), Value::Int(3));
    assert_eq!(client.say("GETDEL k"), bulk("456"));
    assert_eq!((client.say("GETDEL k"), client.say("GET k")), (Value::Null, Value::Null));
    assert_eq!(client.say("SETNX k 7"), Value::Int(1));
    assert_eq!(client.say("APPEND new a"), Value::Int(1));
    assert_eq!(client.say("SET new b GET"), bulk("a"));
}

#[test]
fn nothing_behind_multi_is_done_until_the_client_ends_it() {
    let node = node();
    let mut client = Client::of(&node);
    let lines = ["SET before v", "MULTI", "SET k v", "INCR n", "NONSENSE", "EXEC", "GET k", "EXISTS n before"];
    let answers = client.pipeline(&lines.map(str::to_owned));
    assert_eq!(answers[0], ok());
    assert!(answers[1].error().starts_with("ERR there are no transactions"), "{answers:?}");
    for refused in &answers[2..5] {
        assert!(refused.error().starts_with("ERR it is not done"), "{answers:?}");
    }
    assert!(answers[5].error().starts_with("EXECABORT "), "{answers:?}");
    assert_eq!(answers[6..], [Value::Null, Value::Int(1)]);

    assert_eq!(client.say("EXEC").error(), "ERR EXEC without MULTI");
    assert_eq!(client.say("DISCARD").error(), "ERR DISCARD without MULTI");
    for (end, answer) in [("DISCARD", ok()), ("RESET", Value::Simple("RESET".into()))] {
        client.say("MULTI").error();
        client.say("GET k").error();
        assert_eq!(client.say(end), answer);
        assert_eq!(client.say("GET before"), bulk("v"), "after {end}");
    }
}

#[test]
fn of_appends_at_once_none_is_lost_and_of_locks_at_once_one_is_given() {
    const CLIENTS: usize = 6;
    const EACH: usize = 10;
    let node = node();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let mut client = Client::of(&node).in_mode("quorum");
            thread::spawn(move || {
                let mut locks = 0;
                for round in 0..EACH {
                    let length = loop {
                        match client.call(&["APPEND", "all", "x"]) {
                            Value::Int(length) => break length,
                            // Nothing was stored: it may be said again.
                            refused => assert!(refused.error().starts_with("TRYAGAIN "), "{refused:?}"),
                        }
                    };
                    assert!(length > round as i64);
                    locks += usize::from(client.say(&format!("SET lock{round} {number} NX")) == ok());
                }
                locks
            })
        })
        .collect();
    let locks: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert_eq!(locks, EACH, "each lock once");
    assert_eq!(Client::of(&node).say("STRLEN all"), Value::Int((CLIENTS * EACH) as i64));
}

#[test]
fn concurrent_values_are_shown_and_none_is_lost_by_what_keeps_the_value() {
    use super::support::http::Request;
    let node = node();
    let first = node.client().send(&Request::new("PUT", "/kv/k").body("base")).must("Kringle-Context").to_owned();
    for value in ["one", "two"] {
        node.client().send(&Request::new("PUT", "/kv/k").header("Kringle-Context", &first).body(value)).expect(204);
    }
    let mut client = Client::of(&node);
    let both = Value::Array(vec![bulk("two"), bulk("one")]);
    assert_eq!(client.say("KRINGLE.SIBLINGS k"), both);
    assert_eq!(client.say("GET k"), bulk("two"));
    for mode in ["sloppy", "quorum"] {
        assert_eq!(client.call(&["KRINGLE.MODE", mode]), ok());
        assert!(client.say("EXPIRE k 10").error().contains("2 concurrent values"), "in {mode}");
        assert_eq!(client.say("KRINGLE.SIBLINGS k"), both, "in {mode}");
    }
    assert_eq!(client.say("KRINGLE.MODE sloppy"), ok());
    assert_eq!(client.say("SET k three"), ok());
    assert_eq!(client.say("KRINGLE.SIBLINGS k"), Value::Array(vec![bulk("three")]));
    assert_eq!(client.say("EXPIRE k 10"), Value::Int(1));
}
