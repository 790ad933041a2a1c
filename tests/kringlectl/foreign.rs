//! Servers that are no nodes, and what becomes of commands that ask them.

use crate::kit::User;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// One that says the same to whatever it is asked, until the test program ends.
pub struct Foreign {
    port: u16,
}

impl Foreign {
    pub fn saying(status: u16, body: &str) -> Foreign {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (length, body) = (body.len(), body.to_owned());
        let answer = format!("HTTP/1.1 {status} So\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who hangs up early hears nothing.
                let _ = answer_one(stream, &answer);
            }
        });
        Foreign { port }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Reads a request to its end, so that closing the connection resets nothing, and answers it.
fn answer_one(mut stream: TcpStream, answer: &str) -> std::io::Result<()> {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    let head = loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => read.extend_from_slice(&buffer[..count]),
        }
    };
    let text = String::from_utf8_lossy(&read[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    while read.len() < head + length.unwrap_or(0) {
        match stream.read(&mut buffer)? {
            0 => break,
            count => read.extend_from_slice(&buffer[..count]),
        }
    }
    stream.write_all(answer.as_bytes())
}

#[test]
fn an_answer_that_is_no_object_is_told_as_foreign_and_not_stumbled_over() {
    let verbs: [&[&str]; 12] = [
        &["status"],
        &["members"],
        &["ring"],
        &["locate", "k"],
        &["sync", "status"],
        &["sync", "run"],
        &["sync", "diff", "a", "b"],
        &["mode"],
        &["mode", "quorum"],
        &["top", "--count", "1"],
        &["watch", "--wait", "1"],
        &["leave", "node1"],
    ];
    for body in ["[]", "\"ok\"", "null"] {
        let foreign = Foreign::saying(200, body);
        for words in verbs {
            let said = User::new().run(&[&["-e", &foreign.url()], words].concat()).expect(1);
            assert!(said.why().contains("no JSON object"), "{words:?}: {said}");
        }
    }
}

#[test]
fn members_that_are_no_objects_are_passed_over() {
    let foreign = Foreign::saying(200, r#"{"members":["a",1,null],"reports":["b",2]}"#);
    for words in [&["members"][..], &["ring"], &["status"], &["sync", "run"], &["sync", "run", "--all"]] {
        let said = User::new().run(&[&["-e", &foreign.url()], words].concat());
        assert!(said.code.is_some_and(|code| code != 101), "{words:?}: {said}");
    }
}
