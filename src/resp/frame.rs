//! How commands and answers are written: the only place for `redis-protocol`.
//!
//! A command is an array of byte strings in both versions of the protocol. It is decoded once it is there whole, after
//! `input` has held it to its limits, so that nothing is ever made room for because a length was announced.

use super::reply::Reply;
use bytes::{Bytes, BytesMut};
use redis_protocol::resp2;
use redis_protocol::resp3::encode::complete as resp3;
use redis_protocol::resp3::types::BytesFrame as Frame3;
use resp2::types::BytesFrame as Frame2;

/// The version of the protocol that a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Protocol {
    /// RESP2, which every connection begins with.
    #[default]
    Two,
    /// RESP3, which a client asks for with `HELLO 3`.
    Three,
}

impl Protocol {
    pub(super) fn number(self) -> i64 {
        match self {
            Protocol::Two => 2,
            Protocol::Three => 3,
        }
    }
}

/// The words of a command that is there whole: an array of byte strings and nothing else. No bytes are copied.
pub(super) fn words(command: &Bytes) -> Option<Vec<Bytes>> {
    match resp2::decode::decode_bytes(command) {
        Ok(Some((Frame2::Array(items), used))) if used == command.len() => {
            let word = |item| if let Frame2::BulkString(word) = item { Some(word) } else { None };
            items.into_iter().map(word).collect()
        }
        _ => None,
    }
}

/// Writes an answer behind what is in `out`.
pub(super) fn put(out: &mut BytesMut, reply: Reply, protocol: Protocol) {
    let written = match protocol {
        Protocol::Two => resp2::encode::extend_encode(out, &frame2(reply), false).is_ok(),
        Protocol::Three => resp3::extend_encode(out, &frame3(reply), false).is_ok(),
    };
    if !written {
        // The encoder has room for all it writes, and refuses nothing that is made here.
        out.extend_from_slice(b"-ERR the answer could not be written\r\n");
    }
}

/// An error is one line.
fn line(text: String) -> String {
    if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], " ") } else { text }
}

fn frame2(reply: Reply) -> Frame2 {
    match reply {
        Reply::Simple(word) => Frame2::SimpleString(Bytes::from_static(word.as_bytes())),
        Reply::Error(text) => Frame2::Error(line(text).into()),
        Reply::Integer(number) => Frame2::Integer(number),
        Reply::Bulk(bytes) => Frame2::BulkString(bytes),
        Reply::Null => Frame2::Null,
        Reply::Array(items) => Frame2::Array(items.into_iter().map(frame2).collect()),
        Reply::Map(pairs) => {
            Frame2::Array(pairs.into_iter().flat_map(|(name, value)| [frame2(name), frame2(value)]).collect())
        }
    }
}

fn frame3(reply: Reply) -> Frame3 {
    let attributes = None;
    match reply {
        Reply::Simple(word) => Frame3::SimpleString { data: Bytes::from_static(word.as_bytes()), attributes },
        Reply::Error(text) => Frame3::SimpleError { data: line(text).into(), attributes },
        Reply::Integer(data) => Frame3::Number { data, attributes },
        Reply::Bulk(data) => Frame3::BlobString { data, attributes },
        Reply::Null => Frame3::Null,
        Reply::Array(items) => Frame3::Array { data: items.into_iter().map(frame3).collect(), attributes },
        Reply::Map(pairs) => {
            let data = pairs.into_iter().map(|(name, value)| (frame3(name), frame3(value))).collect();
            Frame3::Map { data, attributes }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(reply: Reply, protocol: Protocol) -> String {
        let mut out = BytesMut::from(&b"+before\r\n"[..]);
        put(&mut out, reply, protocol);
        String::from_utf8_lossy(out.strip_prefix(b"+before\r\n").unwrap()).into_owned()
    }

    #[test]
    fn answers_are_written_as_each_version_has_them() {
        let list = Reply::Array(vec![Reply::Integer(-7), Reply::Null, Reply::text("é\r\n"), Reply::OK]);
        assert_eq!(written(list.clone(), Protocol::Two), "*4\r\n:-7\r\n$-1\r\n$4\r\né\r\n\r\n+OK\r\n");
        assert_eq!(written(list, Protocol::Three), "*4\r\n:-7\r\n_\r\n$4\r\né\r\n\r\n+OK\r\n");
        let map = Reply::map([("proto", Reply::Integer(3))]);
        assert_eq!(written(map.clone(), Protocol::Two), "*2\r\n$5\r\nproto\r\n:3\r\n");
        assert_eq!(written(map, Protocol::Three), "%1\r\n$5\r\nproto\r\n:3\r\n");
        for protocol in [Protocol::Two, Protocol::Three] {
            assert_eq!(written(Reply::error("ERR a\r\nb"), protocol), "-ERR a  b\r\n");
            assert_eq!(written(Reply::Array(vec![]), protocol), "*0\r\n");
            assert_eq!(written(Reply::Bulk(Bytes::new()), protocol), "$0\r\n\r\n");
        }
    }

    #[test]
    fn a_command_is_an_array_of_byte_strings_and_nothing_else() {
        let command = Bytes::from_static(b"*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\n");
        assert_eq!(words(&command).unwrap(), ["GET", "\r\n"]);
        for other in
            ["*1\r\n:1\r\n", "$1\r\na\r\n", "*1\r\n$1\r\na\r\nx", "*1\r\n*1\r\n$1\r\na\r\n", "", "*1\r\n$-1\r\n"]
        {
            assert_eq!(words(&Bytes::from(other)), None, "{other:?}");
        }
    }
}
