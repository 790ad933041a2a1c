//! What a node answers to bytes that are no HTTP, or too many, or too slow: an error like all others where it can still
//! tell one, and always a closed connection and a node that goes on serving.

use crate::support;

use std::io::Write as _;
use std::net::Shutdown;
use std::time::{Duration, Instant};
use support::http::{Answer, Client, Request, answers_to, connect, read_to_close};
use support::node::{Node, Plan};

const MIB: usize = 1024 * 1024;

/// How a server that knows no better refuses: what a value must be able to end with.
const BARE: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\
                    date: Sat, 21 Nov 2026 23:20:00 GMT\r\n\r\n";

/// Sends bytes on a connection of their own. The answers to requests of these methods, and to what follows them, until
/// the node closes the connection; it must.
#[track_caller]
fn answers(node: &Node, bytes: impl AsRef<[u8]>, methods: &[&str]) -> Vec<Answer> {
    let mut stream = connect(&node.address(), Duration::from_secs(5)).expect("a connection");
    // The node may close before everything is sent: that is an answer too.
    let _ = stream.write_all(bytes.as_ref());
    let (said, closed) = read_to_close(&mut stream, Duration::from_secs(8));
    assert!(closed, "left open after {:?}", String::from_utf8_lossy(&said));
    answers_to(methods, &said)
}

/// The one answer to bytes that are no request, or to the last of these requests.
#[track_caller]
fn assert_refused(answer: Option<Answer>, status: u16) {
    let refused = answer.expect("an answer").refusal(status);
    assert_eq!(refused.must("Connection"), "close");
    assert_eq!(refused.must("Content-Type"), "application/json");
    assert!(refused.header("Date").is_some(), "{refused}");
}

#[test]
fn what_cannot_be_read_as_http_is_an_error_like_others() {
    let node = Node::in_memory();
    let mut noise = vec![0; 5000];
    rand::RngCore::fill_bytes(&mut support::seeded("noise on the socket"), &mut noise);
    noise[0] |= 0x80;
    let junk: [&[u8]; 17] = [
        b"\0\0\0\0\0\0\0\0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"G\xc3\x84T /ping HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /kv/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /kv/a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /kv/a HTTP/1.1\r\n\r\n",
        b"GET /kv/a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /kv/a HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /kv/a HTTP/1.1\r\n: empty\r\n\r\n",
        b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
        b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        &noise,
    ];
    for bytes in junk {
        let mut told = answers(&node, bytes, &[]);
        assert_eq!(told.len(), 1, "{told:?} to {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(60)]));
        assert_refused(told.pop(), 400);
        node.assert_alive();
    }
    node.get("/kv/a").expect(404);
    assert!(!node.log().contains("ERROR"), "the node is not at fault: {}", node.log());
}

#[test]
fn who_sends_junk_and_says_that_nothing_follows_is_answered() {
    let node = Node::in_memory();
    let mut stream = connect(&node.address(), Duration::from_secs(5)).expect("a connection");
    stream.write_all(b"hello\r\n").expect("junk");
    stream.shutdown(Shutdown::Write).expect("half a close");
    let begun = Instant::now();
    let (said, closed) = read_to_close(&mut stream, Duration::from_secs(5));
    assert!(closed && begun.elapsed() < Duration::from_millis(900), "{:?}: nothing to wait for", begun.elapsed());
    assert_refused(answers_to(&[], &said).pop(), 400);
}

#[test]
fn a_head_that_is_too_large_is_refused_before_its_end() {
    let node = Node::in_memory();
    let many =
        |count| (0..count).fold(Request::new("GET", "/ping"), |request, n| request.header(&format!("X-{n}"), "x"));
    let oversized = [
        Request::new("GET", "/ping").header("X-Large", "x".repeat(MIB)),
        Request::new("GET", format!("/kv/{}", "k".repeat(300_000))),
        Request::new("PUT", "/kv/a").header("X-Large", "x".repeat(200_000)).body("v"),
        many(97),
        many(5000),
    ];
    for request in oversized {
        assert_refused(Some(node.client().send(&request)), 431);
        node.assert_alive();
    }
    // Who sends everything before reading is not cut off meanwhile.
    let mut stream = connect(&node.address(), Duration::from_secs(5)).expect("a connection");
    let head = format!("GET /ping HTTP/1.1\r\nHost: x\r\nX-Large: {}", "x".repeat(4 * MIB));
    stream.write_all(head.as_bytes()).expect("somebody listens to the end");
    assert_refused(answers_to(&[], &read_to_close(&mut stream, Duration::from_secs(5)).0).pop(), 431);
    // The host is the 96th.
    node.client().send(&many(95)).expect(200);
    node.client().send(&Request::new("GET", "/ping").header("X-Large", "x".repeat(120_000))).expect(200);
}

#[test]
fn a_broken_body_is_refused_and_stores_nothing() {
    let node = Node::in_memory();
    let chunked = |body: &str| format!("PUT /kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    for body in ["zz\r\n", "fffffffffffffffff\r\nx", "-1\r\nx\r\n", "3\r\nabcdef\r\n0\r\n\r\n", "\r\n\r\n"] {
        let told = answers(&node, chunked(body), &["PUT"]);
        assert_eq!(told.len(), 1, "{told:?} to {body:?}");
        told[0].clone().refusal(400);
        node.get("/kv/a").expect(404);
    }
    node.assert_alive();
}

#[test]
fn junk_behind_requests_is_answered_behind_their_answers() {
    // With a disk, a write is still being served while the junk behind it is found.
    for node in [Node::in_memory(), Node::on_disk()] {
        node.put("/kv/a", "value").expect(201);
        let get = "GET /kv/a HTTP/1.1\r\nHost: x\r\n\r\n";
        let head = "HEAD /kv/a HTTP/1.1\r\nHost: x\r\n\r\n";
        let put = "PUT /kv/b HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nv";
        let delete = "DELETE /kv/b HTTP/1.1\r\nHost: x\r\n\r\n";
        let old = "GET /kv/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
        let before: [&[(&str, u16)]; 8] = [
            &[(get, 200)],
            &[(head, 200)],
            &[(put, 201)],
            &[(delete, 204)],
            &[(old, 200)],
            &[("GET /nope HTTP/1.1\r\nHost: x\r\n\r\n", 404)],
            &[(get, 200), (put, 201), (get, 200), (delete, 204), (get, 200)],
            &[(put, 201), (put, 204), (delete, 204), (delete, 204)],
        ];
        for requests in before {
            let texts: Vec<&str> = requests.iter().map(|(text, _)| *text).collect();
            let methods: Vec<&str> = texts.iter().map(|text| text.split(' ').next().unwrap_or_default()).collect();
            let mut told = answers(&node, texts.concat() + "what?\r\n\r\n", &methods);
            assert_refused(told.pop(), 400);
            let statuses: Vec<u16> = told.iter().map(|answer| answer.status).collect();
            assert_eq!(statuses, requests.iter().map(|(_, status)| *status).collect::<Vec<_>>(), "{texts:?}");
            node.client().delete("/kv/b").expect(204);
        }
    }
}

#[test]
fn junk_on_a_kept_connection_is_answered_like_any() {
    let node = Node::in_memory();
    node.put("/kv/a", "value").expect(201);
    for method in ["GET", "HEAD"] {
        let mut client = node.client();
        client.send(&Request::new(method, "/kv/a")).expect(200);
        assert_refused(client.try_raw(b"what?\r\n\r\n").ok(), 400);
    }
}

#[test]
fn junk_inside_a_body_is_a_part_of_it_and_behind_it_is_junk() {
    let node = Node::in_memory();
    let request = format!("PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{BARE}what?\r\n\r\n", BARE.len());
    let mut told = answers(&node, request, &["PUT"]);
    assert_refused(told.pop(), 400);
    assert_eq!(told.len(), 1);
    assert_eq!(node.get("/kv/a").expect(200).text(), BARE);
}

#[test]
fn a_value_that_looks_like_a_refusal_comes_back_as_it_went() {
    let node = Node::in_memory();
    let get = |key: &str| format!("GET /kv/{key} HTTP/1.1\r\nHost: x\r\n\r\n");
    let plain = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab";
    let empty = "HTTP/1.1 204 No Content\r\n\r\n";
    let values = [
        BARE.to_string(),
        BARE.repeat(3),
        format!("text{BARE}"),
        format!("{plain}{empty}{BARE}"),
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{BARE}", BARE.len()),
        format!("{}{BARE}", "x".repeat(40_000)),
        format!("{}{BARE}", "x".repeat(3 * MIB)),
    ];
    for value in &values {
        node.put("/kv/a", value.as_str());
        node.put("/kv/short", "ab");
        assert_eq!(node.get("/kv/a").expect(200).text(), *value);
        assert_eq!(node.get("/get?key=a").expect(200).text(), format!("{value}\n"));
        let pipelines = [get("a"), get("a") + &get("a"), get("short") + &get("a"), get("a") + &get("short")];
        for requests in pipelines {
            let count = requests.matches("GET").count();
            let last = "GET /kv/short HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            // Where the value could be either, the refusal of the junk may be bare.
            for (last, status) in [(last, 200), ("what?\r\n\r\n", 400)] {
                let told = answers(&node, format!("{requests}{last}"), &[]);
                assert_eq!(told.len(), count + 1, "{requests:?} {last:?}");
                assert_eq!(told[count].status, status);
                for answer in &told[..count] {
                    let own = if answer.must("Content-Length") == "2" { "ab" } else { value };
                    assert!(answer.text() == *own, "{requests:?} {last:?}");
                }
            }
        }
    }
}

#[test]
fn junk_behind_answers_that_are_not_being_read_spoils_none_of_them() {
    let node = Node::in_memory();
    let value = format!("{}{BARE}", "x".repeat(2 * MIB));
    node.put("/kv/a", value.as_str()).expect(201);
    let mut stream = connect(&node.address(), Duration::from_secs(20)).expect("a connection");
    let requests = "GET /kv/a HTTP/1.1\r\nHost: x\r\n\r\n".repeat(12) + "what?\r\n\r\n";
    stream.write_all(requests.as_bytes()).expect("requests");
    // Answers enough to fill every buffer wait while others are served.
    for _ in 0..20 {
        node.assert_alive();
    }
    let (said, closed) = read_to_close(&mut stream, Duration::from_secs(20));
    assert!(closed, "{} bytes", said.len());
    let mut told = answers_to(&["GET"; 12], &said);
    assert_eq!(told.pop().map(|refused| refused.status), Some(400));
    assert_eq!(told.len(), 12);
    assert!(told.iter().all(|answer| answer.text() == value), "a value was spoilt");
}

#[test]
fn junk_without_end_is_not_listened_to_for_ever() {
    let node = Node::in_memory();
    for first in ["\0\0\0\0", "GET /ping HTTP/1.1\r\nHost: x\r\nX-Large: "] {
        let mut stream = connect(&node.address(), Duration::from_secs(10)).expect("a connection");
        stream.write_all(first.as_bytes()).expect("a beginning");
        let begun = Instant::now();
        while stream.write_all(&[b'x'; 65_536]).is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(8), "still listening to junk");
        }
        node.assert_alive();
    }
}

#[test]
fn clients_that_send_slowly_hold_up_nobody_and_are_not_waited_for_for_ever() {
    let node = Plan::new(&["--memory", "--timeout", "1"]).start();
    let half_head = b"PUT /kv/slow HTTP/1.1\r\nHost: x\r\nX-Slow: ".as_slice();
    let half_body = b"PUT /kv/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf".as_slice();
    let half_chunk =
        b"PUT /kv/slow HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx".as_slice();
    let mut slow = vec![];
    for _ in 0..80 {
        for bytes in [half_head, half_body, half_chunk, b"", b"\r\n\r\n\r\n"] {
            let mut stream = connect(&node.address(), Duration::from_secs(5)).expect("a connection");
            stream.write_all(bytes).expect("a part of a request");
            slow.push(stream);
        }
    }
    let mut client = node.client();
    let mut times: Vec<Duration> = (0..100).map(|_| client.put("/kv/quick", "v").took).collect();
    let p99 = support::quantile(&mut times, 0.99);
    assert!(p99 < Duration::from_millis(500), "p99 {p99:?} beside 400 slow clients");
    node.get("/kv/slow").expect(404);

    let limit = Instant::now() + Duration::from_secs(15);
    for (index, stream) in slow.iter_mut().enumerate() {
        let (said, closed) = read_to_close(stream, limit.saturating_duration_since(Instant::now()));
        assert!(closed, "slow client {index} is still waited for");
        let mut told = answers_to(&[], &said);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_refused(told.pop(), 408);
    }
    node.get("/kv/slow").expect(404);
}

#[test]
fn a_body_without_end_is_not_listened_to_for_ever() {
    let node = Plan::new(&["--memory", "--value-max", "1KiB"]).start();
    let mut stream = connect(&node.address(), Duration::from_secs(10)).expect("a connection");
    stream.write_all(b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").expect("a head");
    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 65_536], b"\r\n"].concat();
    let begun = Instant::now();
    // What was sent before the answer was read is let through, for a moment.
    while stream.write_all(&chunk).is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(8), "still listening to a body that may have 1 KiB");
    }
    node.assert_alive();
}

#[test]
fn a_node_told_to_stop_does_not_wait_for_those_it_refused() {
    let mut node = Node::in_memory();
    let mut streams: Vec<_> =
        (0..20).map(|_| connect(&node.address(), Duration::from_secs(5)).expect("open")).collect();
    for stream in &mut streams {
        stream.write_all(b"what?\r\n\r\n").expect("junk");
    }
    let status = node.stop(Duration::from_secs(10));
    assert!(status.success(), "{status}");
    assert!(Client::new(&node.address()).try_send(&Request::new("GET", "/ping")).is_err());
}
