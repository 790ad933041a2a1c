//! Values that end.

use super::support::eventually;
use super::support::resp::{Client, Value, bulk, node, ok};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

#[test]
fn a_value_ends_when_it_was_told_to() {
    let node = node();
    let mut client = Client::of(&node);
    for line in ["SET k v PX 50", "SET k v EX 1", "PSETEX k 50 v", "SETEX k 1 v"] {
        assert_eq!(client.say(line), ok(), "{line}");
        assert_eq!(client.say("GET k"), bulk("v"), "{line}");
        eventually("it has ended", Duration::from_secs(5), || match client.say("GET k") {
            Value::Null => Ok(()),
            other => Err(format!("{other:?}")),
        });
        assert_eq!(client.say("EXISTS k").int() + client.say("STRLEN k").int(), 0);
        assert_eq!(client.say("TTL k"), Value::Int(-2));
    }
    client.say("SET k v PXAT 1");
    assert_eq!(client.say("GET k"), Value::Null, "it ended long ago");
}

#[test]
fn when_a_value_ends_is_told_and_changed_in_the_modes_that_can() {
    let node = node();
    for mode in ["sloppy", "async", "quorum"] {
        let mut client = Client::of(&node).in_mode(mode);
        let mut say = |line: &str| client.say(&line.replace("KEY", &format!("{mode}:key")));
        say("SET KEY v");
        assert_eq!((say("TTL KEY"), say("PTTL KEY"), say("EXPIRETIME KEY")), {
            (Value::Int(-1), Value::Int(-1), Value::Int(-1))
        });
        assert_eq!(say("PERSIST KEY"), Value::Int(0));
        assert_eq!(say("EXPIRE KEY 100"), Value::Int(1));
        assert!((99..=100).contains(&say("TTL KEY").int()));
        assert!((98_000..=100_000).contains(&say("PTTL KEY").int()));
        assert!((99..=102).contains(&(say("EXPIRETIME KEY").int() - now_s())));
        for (line, is_done) in [
            ("EXPIRE KEY 200 NX", 0),
            ("EXPIRE KEY 200 XX", 1),
            ("EXPIRE KEY 100 GT", 0),
            ("PEXPIRE KEY 300000 GT", 1),
            ("EXPIRE KEY 400 LT", 0),
            ("EXPIRE KEY 100 LT", 1),
        ] {
            match mode {
                "quorum" => assert_eq!(say(line), Value::Int(is_done), "{line}"),
                _ => assert!(say(line).error().starts_with(&format!("ERR mode {mode} ")), "{line} in {mode}"),
            }
        }
        assert_eq!(say("EXPIRE nothing 100"), Value::Int(0));
        assert!(say("EXPIRE KEY 100 NX GT").error().starts_with("ERR"));
        assert!(say("EXPIRE KEY 9223372036854775807").error().contains("invalid expire time in 'expire'"));
        assert_eq!(say("SET KEY w KEEPTTL"), ok());
        assert!(say("TTL KEY").int() > 90, "in {mode}");
        assert_eq!(say("GETEX KEY PERSIST"), bulk("w"));
        assert_eq!(say("TTL KEY"), Value::Int(-1));
        assert_eq!(say("GETEX KEY EX 50"), bulk("w"));
        assert_eq!(say("PERSIST KEY"), Value::Int(1));
        assert_eq!(say("EXPIREAT KEY 1"), Value::Int(1));
        assert_eq!(say("GET KEY"), Value::Null, "what ends before now is deleted");
        assert_eq!(say("SET KEY w KEEPTTL KEEPTTL"), ok());
        assert_eq!(say("SET KEY x"), ok());
        assert_eq!(say("TTL KEY"), Value::Int(-1));
        for nonsense in ["SET KEY v EX 0", "SET KEY v PX -1", "SETEX KEY 0 v", "GETEX KEY EX 0"] {
            assert!(say(nonsense).error().contains("invalid expire time in '"), "{nonsense}");
        }
        for nonsense in
            ["SET KEY v EX", "SET KEY v EX 1 PX 1", "SET KEY v NX XX", "SET KEY v EX 1 KEEPTTL", "GETEX KEY EX"]
        {
            assert_eq!(say(nonsense).error(), "ERR syntax error", "{nonsense}");
        }
        assert_eq!(say("GET KEY"), bulk("x"));
    }
    for mode in ["sync", "chain"] {
        let mut client = Client::of(&node).in_mode(mode);
        client.say("SET k v");
        assert!(client.say("EXPIRE k 10").error().contains(&format!("mode {mode}")));
        assert_eq!(client.say("SET k v EX 10"), ok());
        assert!(client.say("TTL k").int() > 8);
    }
}

#[test]
fn a_counter_keeps_its_end_in_mode_quorum_and_gets_none_in_the_modes_that_could_lose_count() {
    let node = node();
    let mut client = Client::of(&node).in_mode("quorum");
    assert_eq!((client.say("INCR hits"), client.say("EXPIRE hits 100")), (Value::Int(1), Value::Int(1)));
    assert_eq!(client.say("INCR hits"), Value::Int(2));
    assert!(client.say("TTL hits").int() > 90, "counting goes on until the value ends");
    let mut client = Client::of(&node).in_mode("sloppy");
    client.say("INCR others");
    assert!(client.say("EXPIRE others 100").error().contains("mode sloppy"));
    assert_eq!(client.say("TTL others"), Value::Int(-1));
}
