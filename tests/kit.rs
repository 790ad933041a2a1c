//! The test kit itself: a client that misreads, a proxy that lets through, or a checker that nods would make
//! every other test worth nothing.

mod support;

use kringle::placement::NodeId;
use kringle::record::Stamp;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::eventually;
use support::http::{Client, Request};
use support::load::{Outcome, Write as Written, judge};
use support::node::{is_free, reserve_port};
use support::peer;
use support::proxy::{Fault, Proxy, Way};

/// A server that reads one request after another per connection and gives each the same bytes for an answer.
fn scripted(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).is_ok_and(|n| n > 0) {
                    stream.write_all(answer).unwrap_or(());
                }
            });
        }
    });
    address
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A:  b \r\n\r\nhello";

#[test]
fn an_answer_by_length_is_read_and_the_connection_is_kept() {
    let mut client = Client::new(&scripted(OK));
    for _ in 0..3 {
        let answer = client.get("/").expect(200);
        assert_eq!((answer.text().as_str(), answer.header("x-a")), ("hello", Some("b")));
    }
}

#[test]
fn chunks_are_put_together_and_a_continue_is_passed_over() {
    let address = scripted(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n\
          3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
    );
    let answer = Client::new(&address).get("/");
    assert_eq!((answer.status, answer.text().as_str()), (201, "hello"));
}

#[test]
fn a_head_request_has_no_body_whatever_its_headers_say() {
    let answer =
        Client::new(&scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")).send(&Request::new("HEAD", "/"));
    assert_eq!((answer.body.len(), answer.must("content-length")), (0, "5"));
}

#[test]
fn an_answer_cut_short_is_an_error() {
    let proxy = Proxy::before(&scripted(OK));
    proxy.set(Fault::Cut(Way::FromNode, OK.len() as u64 - 1));
    let error = Client::new(&proxy.address()).try_send(&Request::new("GET", "/")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
    proxy.set(Fault::Pass);
    Client::new(&proxy.address()).get("/").expect(200);
}

#[test]
fn a_hanging_proxy_answers_nothing_until_it_is_healed() {
    let proxy = Proxy::before(&scripted(OK));
    let mut kept = Client::new(&proxy.address()).within(Duration::from_millis(300));
    kept.get("/").expect(200);
    proxy.set(Fault::Hang);
    for client in [&mut kept, &mut Client::new(&proxy.address()).within(Duration::from_millis(300))] {
        let error = client.try_send(&Request::new("GET", "/")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
    }
    proxy.set(Fault::Pass);
    Client::new(&proxy.address()).get("/").expect(200);
}

#[test]
fn a_proxy_admits_the_senders_it_is_told_and_nobody_else() {
    let proxy = Proxy::before(&scripted(OK));
    let ping = |sender: u64| {
        let request = peer::post("/ping", NodeId(sender), Stamp(0), vec![]);
        move |client: &mut Client| client.try_send(&request).map(|answer| answer.status)
    };
    let mut before = Client::new(&proxy.address());
    assert_eq!(ping(2)(&mut before).unwrap(), 200);
    proxy.admit_only(Some([NodeId(1)].into()));
    let served = proxy.bytes(Way::FromNode);
    assert!(ping(2)(&mut before).is_err(), "what was open is cut, and what is opened anew not served");
    assert!(Client::new(&proxy.address()).try_send(&Request::new("GET", "/ping")).is_err(), "nobody in particular");
    assert_eq!(proxy.bytes(Way::FromNode), served);
    let mut admitted = Client::new(&proxy.address());
    for _ in 0..2 {
        assert_eq!(ping(1)(&mut admitted).unwrap(), 200);
    }
    proxy.admit_only(None);
    assert_eq!(ping(2)(&mut Client::new(&proxy.address())).unwrap(), 200);
}

#[test]
fn a_refusing_proxy_cannot_be_connected_to() {
    let proxy = Proxy::before(&scripted(OK));
    let mut kept = Client::new(&proxy.address());
    for _ in 0..3 {
        kept.get("/").expect(200);
        proxy.set(Fault::Refuse);
        support::eventually("connecting fails", Duration::from_secs(5), || {
            match std::net::TcpStream::connect(proxy.address()) {
                Ok(_) => Err("still accepted".into()),
                Err(_) => Ok(()),
            }
        });
        kept.try_send(&Request::new("GET", "/")).unwrap_err();
        proxy.set(Fault::Pass);
        support::eventually("connecting works", Duration::from_secs(5), || {
            kept.try_send(&Request::new("GET", "/")).map_err(|error| error.to_string())
        });
    }
}

#[test]
fn a_black_hole_swallows_one_way_only_and_is_counted() {
    let proxy = Proxy::before(&scripted(OK));
    let mut client = Client::new(&proxy.address()).within(Duration::from_millis(300));
    proxy.set(Fault::BlackHole(Way::FromNode));
    client.try_send(&Request::new("GET", "/")).unwrap_err();
    assert!(proxy.bytes(Way::ToNode) > 0, "the request arrives");
    assert_eq!(proxy.bytes(Way::FromNode), 0, "the answer does not");
    proxy.set(Fault::Delay(Duration::from_millis(50)));
    let started = Instant::now();
    client.get("/").expect(200);
    assert!(started.elapsed() >= Duration::from_millis(100), "held back each way");
    // The proxy counts what it has passed on, a moment after the client has it.
    support::eventually("the answer is counted", Duration::from_secs(5), || {
        let counted = proxy.bytes(Way::FromNode);
        (counted == OK.len() as u64).then_some(()).ok_or(counted.to_string())
    });
}

#[test]
fn a_request_with_an_early_answer_is_not_sent_to_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.read_exact(&mut [0; 100]).unwrap();
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n").unwrap();
        // Reading on until the client notices: a server that closes with unread bytes resets the connection.
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap_or(0)
    });
    let body = vec![b'x'; 64 << 20];
    Client::new(&address).put("/", body).expect(413);
    assert!(server.join().unwrap() < 64 << 20);
}

#[test]
fn reserved_ports_differ() {
    let ports: std::collections::BTreeSet<u16> = (0..50).map(|_| reserve_port()).collect();
    assert_eq!(ports.len(), 50);
}

#[test]
fn a_port_is_free_while_nobody_listens_on_it() {
    let port = reserve_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    assert!(!is_free(port));
    drop(listener);
    // A program that was being started just then held it an instant longer.
    eventually("the port is free again", Duration::from_secs(10), || is_free(port).then_some(()).ok_or(String::new()));
}

#[test]
fn a_reserved_port_can_be_listened_to_while_programs_are_being_started() {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                std::process::Command::new("true").status().unwrap();
            }
        });
        let listened: Result<Vec<TcpListener>, _> =
            (0..500).map(|_| TcpListener::bind(("127.0.0.1", reserve_port()))).collect();
        done.store(true, Ordering::Relaxed);
        listened.unwrap();
    });
}

#[test]
fn base64_is_the_standard_one() {
    for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
        assert_eq!(support::base64(bytes.as_bytes()), text);
    }
    assert_eq!(support::base64(&[0xff, 0xfe, 0x00]), "//4A");
}

#[test]
fn the_checker_accepts_what_the_contract_allows_and_nothing_else() {
    let history = |outcomes: &str| -> Vec<Written> {
        let outcome = |letter| match letter {
            'a' => Outcome::Acknowledged,
            't' => Outcome::Thin,
            'r' => Outcome::Refused,
            _ => Outcome::Unknown,
        };
        let write = |(index, letter): (usize, char)| Written {
            value: index.to_string(),
            outcome: outcome(letter),
            said: letter.to_string(),
            took: Duration::ZERO,
        };
        outcomes.chars().enumerate().map(write).collect()
    };
    let allowed = [
        ("a", Some("0")),
        ("aa", Some("1")),
        ("au", Some("0")),
        ("au", Some("1")),
        ("u", None),
        ("u", Some("0")),
        ("ar", Some("0")),
        ("", None),
    ];
    for (outcomes, read) in allowed {
        assert_eq!(judge(&history(outcomes), read, &[Outcome::Acknowledged]), Ok(()), "{outcomes} {read:?}");
    }
    let forbidden = [
        ("a", None),
        ("aa", Some("0")),
        ("ua", Some("0")),
        ("ar", Some("1")),
        ("a", Some("9")),
        ("au", None),
        ("u", Some("9")),
    ];
    for (outcomes, read) in forbidden {
        assert!(judge(&history(outcomes), read, &[Outcome::Acknowledged]).is_err(), "{outcomes} {read:?}");
    }
    let all = [Outcome::Acknowledged, Outcome::Thin];
    assert!(judge(&history("at"), Some("0"), &all).is_err(), "a read of every owner finds a thin write");
    assert_eq!(judge(&history("at"), Some("0"), &all[..1]), Ok(()), "a read of some need not");
}
