//! Bytes: frames, lines, limits, order, and what is none of them.

use super::support::node::{Node, Plan};
use super::support::resp::{Client, Value, bulk, command, node, ok, port_of};
use super::support::{eventually, seeded};
use rand::Rng;
use std::time::Duration;

#[test]
fn a_line_of_words_is_a_command() {
    let node = node();
    let mut client = Client::of(&node);
    client.send_raw(b"PING\r\nset greeting \"hello \\x77orld\"\nGET greeting\n\r\nGET 'un\nGET greeting\r\n").unwrap();
    let answers: Vec<Value> = (0..5).map(|_| client.read().unwrap()).collect();
    assert_eq!(answers[..3], [Value::Simple("PONG".into()), ok(), bulk("hello world")]);
    assert!(answers[3].error().contains("unbalanced quotes"));
    assert_eq!(answers[4], bulk("hello world"), "the connection lives");
}

#[test]
fn answers_come_in_the_order_of_commands_and_commands_on_one_key_keep_theirs() {
    let node = node();
    for mode in ["sloppy", "quorum"] {
        let mut client = Client::of(&node).in_mode(mode);
        let (mut lines, mut expected) = (Vec::new(), Vec::new());
        for round in 0..300 {
            lines.extend([
                format!("SET {mode}:same {round}"),
                format!("SET {mode}:other{round} {round}"),
                format!("GET {mode}:same"),
                format!("INCR {mode}:count"),
                format!("GET {mode}:other{round}"),
                "ECHO here".into(),
            ]);
            let value = bulk(&round.to_string());
            expected.extend([ok(), ok(), value.clone(), Value::Int(round + 1), value, bulk("here")]);
        }
        lines.push("DBSIZE".into());
        let mut answers = client.pipeline(&lines);
        assert!(answers.pop().unwrap().int() >= 302, "what was sent before is counted");
        let wrong = answers.iter().zip(&expected).position(|(answer, expected)| answer != expected);
        assert_eq!(wrong.map(|at| (&lines[at], &answers[at], &expected[at])), None);
    }
}

#[test]
fn what_looks_at_all_keys_sees_what_was_sent_before_and_nothing_that_was_sent_later() {
    let node = node();
    let mut client = Client::of(&node);
    let round = |number: usize| [format!("SET key{number} v"), "DBSIZE".to_owned(), "KEYS *".to_owned()];
    let lines: Vec<String> = (0..50).flat_map(round).collect();
    for (number, answers) in client.pipeline(&lines).chunks(3).enumerate() {
        assert_eq!(answers[1], Value::Int(number as i64 + 1));
        assert_eq!(answers[2].items().len(), number + 1);
    }
}

#[test]
fn a_version_of_the_protocol_begins_behind_what_was_sent_before() {
    let node = node();
    let mut client = Client::of(&node);
    let nothing = command(&["GET", "nothing"]);
    client
        .send_raw(&[&command(&["SET", "a", "b"]), &nothing[..], &command(&["HELLO", "3"]), &nothing].concat())
        .unwrap();
    assert_eq!(client.read().unwrap(), ok());
    assert_eq!(client.read().unwrap(), Value::Null);
    assert!(matches!(client.read().unwrap(), Value::Map(_)));
    let mut last = [0; 3];
    client.read_exact(&mut last);
    assert_eq!(&last, b"_\r\n");
}

#[test]
fn a_limit_is_answered_and_the_connection_lives() {
    let node = Plan::new(&["--memory", "--resp-port", "0", "--value-max", "100KiB", "--key-max", "100"]).start();
    let mut client = Client::of(&node);
    let (most, more) = ("v".repeat(100 << 10), "v".repeat((100 << 10) + 1));
    assert_eq!(client.call(&["SET", "k", &most]), ok());
    assert_eq!(client.call(&["GET", "k"]), bulk(&most));
    assert!(client.call(&["SET", "k", &more]).error().contains("102400 bytes"));
    let endless = "v".repeat(20 << 20);
    assert!(client.call(&["SET", "k", &endless]).error().contains("102400 bytes"));
    assert!(client.call(&["SET", &"k".repeat(101), "v"]).error().contains("100 bytes"));
    assert!(client.call(&["GET", ""]).error().contains("the key is empty"));
    let many = vec!["k"; 65_537];
    assert!(client.call(&many).error().contains("65536 words"));
    let long: Vec<&str> = [&["MSET"][..], &vec![&most[..]; 20]].concat();
    assert!(client.call(&long).error().starts_with("ERR a command has at most"));
    assert_eq!(client.say("STRLEN k"), Value::Int(100 << 10));
    client.call(&["KRINGLE.MODE", "quorum"]);
    assert!(client.call(&["APPEND", "k", "v"]).error().contains("102400 bytes"));
}

#[test]
fn what_is_no_command_is_told_so_and_closes_the_connection() {
    let node = node();
    for (bytes, told) in [
        (&b"*x\r\n"[..], "ERR Protocol error: invalid multibulk length"),
        (b"*1\r\n:1\r\n", "ERR Protocol error: expected '$', got ':'"),
        (b"*1\r\n$-5\r\n", "ERR Protocol error: invalid bulk length"),
        (b"*2000000\r\n", "ERR Protocol error: invalid multibulk length"),
        (b"*1\r\n$99999999999\r\n", "ERR Protocol error: invalid bulk length"),
        (b"*1\r\n*1\r\n*1\r\n", "ERR Protocol error: expected '$', got '*'"),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET k v\r\n", "ERR this port speaks the Redis protocol"),
        (&[b'x'; 70_000], "ERR Protocol error: too big inline request"),
    ] {
        let mut client = Client::of(&node);
        client.send_raw(bytes).unwrap();
        let answer = client.read().unwrap();
        assert!(answer.error().starts_with(told), "{answer:?} to {:?}", bytes.escape_ascii().to_string().get(..40));
        assert!(client.is_closed(), "{told}");
    }
    let mut client = Client::of(&node);
    client.send_raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nSET k v\r\n\r\n").unwrap();
    assert!(client.read().unwrap().error().contains("wrong number of arguments"));
    assert!(client.read().unwrap().error().contains("no HTTP"));
    assert!(client.is_closed());
    assert_eq!(Client::of(&node).say("GET k"), Value::Null, "nothing of it was done");
}

#[test]
fn clients_leave_a_quarter_of_the_places_to_others() {
    let node = Plan::new(&["--memory", "--resp-port", "0", "--max-connections", "40"]).start();
    let mut clients: Vec<Client> = (0..30).map(|_| Client::of(&node)).collect();
    for client in &mut clients {
        assert_eq!(client.say("PING"), Value::Simple("PONG".into()));
    }
    assert_eq!(clients[0].say("CONFIG GET maxclients").items()[1], bulk("30"));
    let mut more = Client::of(&node);
    assert_eq!(more.read().unwrap().error(), "ERR max number of clients reached");
    assert!(more.is_closed());
    node.get("/healthz").expect(200);
    drop(clients);
    eventually("there are places again", Duration::from_secs(5), || match Client::of(&node).try_call(&["PING"]) {
        Ok(Value::Simple(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn a_client_that_sends_without_end_does_not_keep_others_from_being_served() {
    let node = Plan::new(&["--memory", "--resp-port", "0", "--workers", "1"]).start();
    let port = port_of(&node);
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_ended = ended.clone();
    let mut endless = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut answers = endless.try_clone().unwrap();
    let sends = std::thread::spawn(move || {
        let lines = "PING\n".repeat(20_000);
        while !is_ended.load(std::sync::atomic::Ordering::Relaxed) {
            std::io::Write::write_all(&mut endless, lines.as_bytes()).unwrap();
        }
        endless.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let reads = std::thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()).unwrap());
    let mut client = Client::at(port);
    for number in 0..50 {
        assert_eq!(client.say(&format!("SET k {number}")), ok());
    }
    ended.store(true, std::sync::atomic::Ordering::Relaxed);
    sends.join().unwrap();
    assert!(reads.join().unwrap() > 0);
}

/// Files that the node holds open.
fn open_files(node: &Node) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", node.pid())).map_or(0, Iterator::count)
}

#[test]
fn a_node_outlives_thousands_of_mangled_commands_and_keeps_none_of_their_connections() {
    let node = node();
    let port = port_of(&node);
    let mut rng = seeded("mangled commands");
    let seeds: Vec<Vec<u8>> = vec![
        command(&["SET", "k", "v", "EX", "10"]),
        command(&["MSET", "a", "1", "b", "2"]),
        command(&["HELLO", "3", "SETNAME", "x"]),
        command(&["SCAN", "0", "MATCH", "*[a-", "COUNT", "5"]),
        command(&["GETRANGE", "k", "-1", "9223372036854775807"]),
        command(&["EXPIRE", "k", "100", "NX"]),
        b"SET k \"a\\x00b\"\r\n".to_vec(),
    ];
    assert_eq!(Client::at(port).say("PING"), Value::Simple("PONG".into()));
    let before = open_files(&node);
    for _ in 0..3_000 {
        let mut bytes: Vec<u8> =
            (0..rng.random_range(1..4)).flat_map(|_| seeds[rng.random_range(0..seeds.len())].clone()).collect();
        for _ in 0..rng.random_range(1..6) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..4) {
                0 => bytes[at] = rng.random(),
                1 => bytes.insert(at, *b"*$-+\r\n09".get(rng.random_range(0..8)).unwrap()),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at + 1),
            }
            if bytes.is_empty() {
                bytes.push(b'*');
            }
        }
        let mut client = Client::at(port);
        // The node may have closed already.
        let _ = client.send_raw(&bytes);
    }
    assert_eq!(Client::at(port).say("PING"), Value::Simple("PONG".into()));
    node.assert_alive();
    eventually("their connections are gone", Duration::from_secs(15), || {
        let open = open_files(&node);
        if open <= before + 8 { Ok(()) } else { Err(format!("{open} files, {before} before")) }
    });
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

#[test]
fn a_client_that_announces_much_and_sends_little_costs_little() {
    let node = node();
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = resident();
    let greedy: Vec<Client> = (0..200)
        .map(|_| {
            let mut client = Client::of(&node);
            client.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$8000000\r\nabc").unwrap();
            client
        })
        .collect();
    assert_eq!(Client::of(&node).say("PING"), Value::Simple("PONG".into()));
    let grown = resident().saturating_sub(before);
    assert!(grown < 20_000, "{grown} KiB for {} clients", greedy.len());
}
