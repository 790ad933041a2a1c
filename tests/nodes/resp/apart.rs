//! Several nodes, and some of them gone.

use super::MODES;
use super::support::cluster::Cluster;
use super::support::resp::{Client, Value, bulk, ok};

#[test]
fn any_node_answers_for_all_in_every_mode() {
    let cluster = Cluster::start(3, &["--memory", "--resp-port", "0"]);
    for mode in MODES.into_iter().filter(|mode| *mode != "async") {
        let mut clients: Vec<Client> = cluster.nodes.iter().map(|node| Client::of(node).in_mode(mode)).collect();
        for number in 0..30 {
            let key = format!("{mode}:{number}");
            assert_eq!(clients[number % 3].say(&format!("SET {key} {number}")), ok());
            assert_eq!(clients[(number + 1) % 3].say(&format!("GET {key}")), bulk(&number.to_string()));
            let counted = clients[(number + 2) % 3].say(&format!("INCR {key}")).int();
            let deleted = clients[(number + 1) % 3].say(&format!("DEL {key}")).int();
            // Where nobody agrees, whoever makes the write tells what it has itself, which may be all but the last write.
            assert!(mode == "sloppy" || (counted, deleted) == (number as i64 + 1, 1), "{counted} {deleted} in {mode}");
            assert_eq!(clients[number % 3].say(&format!("EXISTS {key}")), Value::Int(0));
        }
    }
    let mut client = Client::of(&cluster.nodes[0]).in_mode("async");
    assert_eq!(client.say("SET async v"), ok());
    let place = client.say("KRINGLE.LOCATE async");
    assert_eq!(place.items()[5].items().len(), 3);
}

#[test]
fn a_write_is_ok_only_when_the_mode_has_what_it_wants() {
    let mut cluster = Cluster::start(3, &["--memory", "--resp-port", "0", "--timeout", "2"]);
    let mut client = Client::of(&cluster.nodes[0]);
    let mut quorum = Client::of(&cluster.nodes[0]).in_mode("quorum");
    let mut doomed = Client::of(&cluster.nodes[1]);
    assert_eq!(client.say("SET k 1"), ok());
    assert_eq!(doomed.say("GET k"), bulk("1"));
    cluster.nodes[1].kill();
    assert!(doomed.try_call(&["GET", "k"]).is_err(), "its client is cut off and may turn to another");
    for number in 0..20 {
        assert_eq!(client.say(&format!("SET k{number} 2")), ok());
        assert_eq!(client.say(&format!("GET k{number}")), bulk("2"));
        assert_eq!(quorum.say(&format!("SET q{number} 2 NX")), ok());
    }
    cluster.nodes[2].kill();
    let short = client.say("SET k 3");
    assert!(short.error().starts_with("UNCERTAIN the write is stored, but on 1 of 3 owners"), "{short:?}");
    assert_eq!(client.say("GET k"), bulk("3"), "it is there all the same");
    let short = client.say("MSET k 4 l 4");
    assert!(short.error().starts_with("UNCERTAIN "), "{short:?}");
    let refused = quorum.say("SET q 3");
    assert!(refused.error().starts_with("UNAVAILABLE ") || refused.error().starts_with("UNCERTAIN "), "{refused:?}");
    assert!(quorum.say("GET q0").error().starts_with("UNAVAILABLE "));
    assert_eq!(client.in_mode("async").say("SET k 5"), ok());
}
