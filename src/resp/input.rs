//! Bytes become commands, within limits.
//!
//! ```text
//!  *3 \r\n  $3 \r\n SET \r\n  $1 \r\n k \r\n  $5 \r\n value \r\n
//!  words    length  word      a word that is too long, and whatever else belongs to its
//!                             command, is passed over as it comes: the next command is found
//! ```
//!
//! What is announced costs nothing: only bytes that have come are kept. A limit that a command exceeds is answered, and the
//! connection goes on; bytes that are no command leave nothing to go on from.

use super::{frame, inline};
use bytes::{Buf, Bytes, BytesMut};

/// Most words of a command that is looked at.
pub(super) const WORDS_MAX: usize = 65_536;
/// Most words, and longest word in bytes, that a command may announce at all: what Redis would take.
const WORDS_ANNOUNCED_MAX: usize = 1 << 20;
const WORD_ANNOUNCED_MAX: usize = 512 << 20;
/// Longest line of words typed by hand, in bytes.
const LINE_MAX: usize = 64 << 10;
/// Longest line that announces a number, in bytes.
const NUMBER_LINE_MAX: usize = 32;

/// What the bytes up to here were.
#[derive(PartialEq, Debug)]
pub(super) enum Taken {
    /// A command: its words, at least one.
    Command(Vec<Bytes>),
    /// A command that is not looked at, and why.
    Refused(String),
    /// No command, and nothing can be told of what follows. Why.
    Broken(String),
}

/// What one command may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Longest word, in bytes.
    pub(super) word_max: usize,
    /// Most bytes in all.
    pub(super) command_max: usize,
}

/// The bytes of a connection that are no command yet.
pub(super) struct Input {
    bytes: BytesMut,
    limits: Limits,
    /// The command that has begun.
    begun: Option<Begun>,
}

struct Begun {
    /// Words still to come.
    left: usize,
    /// Where the next one begins.
    at: usize,
    /// Why it is passed over, if it is.
    refused: Option<String>,
    /// Bytes still to be passed over before the next word.
    skip: usize,
}

impl Input {
    pub(super) fn new(limits: Limits) -> Input {
        Input { bytes: BytesMut::new(), limits, begun: None }
    }

    /// Takes in what has come.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// How many bytes wait for more.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether a command has begun that is not there whole.
    pub(super) fn is_within(&self) -> bool {
        self.begun.is_some() || !self.bytes.is_empty()
    }

    /// Gives back the room that nothing lies in.
    pub(super) fn shrink(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
    }

    /// Passes over the command that has begun, for a reason.
    pub(super) fn refuse(&mut self, why: &str) {
        match &mut self.begun {
            Some(begun) if begun.refused.is_none() => {
                self.bytes.advance(begun.at);
                (begun.at, begun.refused) = (0, Some(why.to_owned()));
            }
            _ => {}
        }
    }

    /// The next command; nothing where it is not there whole.
    pub(super) fn next(&mut self) -> Option<Taken> {
        loop {
            let taken = match (&self.begun, self.bytes.first()) {
                (Some(_), _) => self.go_on()?,
                (None, None) => return None,
                (None, Some(b'*')) => self.begin()?,
                (None, Some(_)) => self.line()?,
            };
            match taken {
                Some(Taken::Command(words)) if words.is_empty() => {}
                Some(taken) => return Some(taken),
                None => {}
            }
        }
    }

    /// A line that announces a number, and where the next one begins.
    fn number(&self, at: usize) -> Option<Result<(i64, usize), ()>> {
        let rest = &self.bytes[at..];
        match rest.iter().take(NUMBER_LINE_MAX).position(|byte| *byte == b'\n') {
            None if rest.len() >= NUMBER_LINE_MAX => Some(Err(())),
            None => None,
            Some(end) => {
                let text = rest[1..end.max(1)].strip_suffix(b"\r").and_then(|text| std::str::from_utf8(text).ok());
                let number = text.filter(|text| !text.starts_with('+')).and_then(|text| text.parse().ok());
                Some(number.map(|number| (number, at + end + 1)).ok_or(()))
            }
        }
    }

    /// A command of several words begins.
    fn begin(&mut self) -> Option<Option<Taken>> {
        let Ok((count, behind)) = self.number(0)? else { return broken("invalid multibulk length") };
        if count > WORDS_ANNOUNCED_MAX as i64 {
            return broken("invalid multibulk length");
        }
        if count <= 0 {
            self.bytes.advance(behind);
            return Some(None);
        }
        let count = count as usize;
        let refused = (count > WORDS_MAX).then(|| format!("ERR a command has at most {WORDS_MAX} words"));
        if refused.is_some() {
            self.bytes.advance(behind);
        }
        self.begun = Some(Begun { left: count, at: if refused.is_some() { 0 } else { behind }, refused, skip: 0 });
        Some(None)
    }

    fn go_on(&mut self) -> Option<Option<Taken>> {
        loop {
            let Some(begun) = &mut self.begun else { return Some(None) };
            if begun.skip > 0 {
                let passed = begun.skip.min(self.bytes.len());
                self.bytes.advance(passed);
                begun.skip -= passed;
                if begun.skip > 0 {
                    return None;
                }
                begun.left -= 1;
            }
            if begun.left == 0 {
                return Some(Some(self.end()));
            }
            let (at, is_refused) = (begun.at, begun.refused.is_some());
            match self.bytes.get(at) {
                None => return None,
                Some(b'$') => {}
                Some(other) => return broken(&format!("expected '$', got '{}'", other.escape_ascii())),
            }
            let length = match self.number(at)? {
                Ok((length, behind)) if (0..=WORD_ANNOUNCED_MAX as i64).contains(&length) => (length as usize, behind),
                _ => return broken("invalid bulk length"),
            };
            let (length, behind) = length;
            let end = behind + length + 2;
            let Some(begun) = &mut self.begun else { return Some(None) };
            let Limits { word_max, command_max } = self.limits;
            if !is_refused {
                let why = match () {
                    () if length > word_max => Some(format!("ERR a word has at most {word_max} bytes here")),
                    () if end > command_max => Some(format!("ERR a command has at most {command_max} bytes here")),
                    () => None,
                };
                if why.is_none() {
                    if self.bytes.len() < end {
                        return None;
                    }
                    if self.bytes[end - 2..end] != *b"\r\n" {
                        return broken("a bulk string ends with CRLF");
                    }
                    (begun.at, begun.left) = (end, begun.left - 1);
                    continue;
                }
                begun.refused = why;
            }
            self.bytes.advance(behind);
            (begun.at, begun.skip) = (0, length + 2);
        }
    }

    /// The command that has begun is there whole.
    fn end(&mut self) -> Taken {
        let Some(begun) = self.begun.take() else { return Taken::Command(Vec::new()) };
        if let Some(why) = begun.refused {
            return Taken::Refused(why);
        }
        let command = self.bytes.split_to(begun.at).freeze();
        match frame::words(&command) {
            Some(words) => Taken::Command(words),
            None => Taken::Broken(protocol_error("a command is an array of bulk strings")),
        }
    }

    /// A line of words.
    fn line(&mut self) -> Option<Option<Taken>> {
        let Some(end) = self.bytes.iter().take(LINE_MAX).position(|byte| *byte == b'\n') else {
            return if self.bytes.len() >= LINE_MAX { broken("too big inline request") } else { None };
        };
        let line = self.bytes.split_to(end + 1).freeze();
        let Some(words) = inline::words(&line) else {
            return Some(Some(Taken::Refused("ERR unbalanced quotes in request".to_owned())));
        };
        // A browser, or a program that was made one's tool, must not get a command through.
        let is_http = |word: &Bytes| word.eq_ignore_ascii_case(b"POST") || word.eq_ignore_ascii_case(b"Host:");
        if words.first().is_some_and(is_http) {
            return Some(Some(Taken::Broken(
                "ERR this port speaks the Redis protocol, and no HTTP: that is at --port".to_owned(),
            )));
        }
        let Limits { word_max, .. } = self.limits;
        if words.iter().any(|word| word.len() > word_max) {
            return Some(Some(Taken::Refused(format!("ERR a word has at most {word_max} bytes here"))));
        }
        Some(Some(Taken::Command(words)))
    }
}

fn protocol_error(why: &str) -> String {
    format!("ERR Protocol error: {why}")
}

fn broken(why: &str) -> Option<Option<Taken>> {
    Some(Some(Taken::Broken(protocol_error(why))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { word_max: 10, command_max: 60 };

    /// What is taken of these pieces, as they come.
    fn taken<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Taken> {
        let (mut input, mut taken) = (Input::new(LIMITS), Vec::new());
        for piece in pieces {
            input.extend(piece);
            while let Some(next) = input.next() {
                let is_broken = matches!(next, Taken::Broken(_));
                taken.push(next);
                if is_broken {
                    return taken;
                }
            }
        }
        taken
    }

    fn command(words: &[&[u8]]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    }

    #[test]
    fn a_command_over_a_limit_is_passed_over_and_the_next_one_is_found() {
        let long = [b'v'; 40];
        let bytes = [command(&[b"SET", b"k", &long, b"NX"]), command(&[b"PING"])].concat();
        for size in [1, 7, bytes.len()] {
            let taken = taken(bytes.chunks(size));
            assert!(matches!(&taken[0], Taken::Refused(why) if why.contains("10 bytes")), "{taken:?}");
            assert_eq!(taken[1], Taken::Command(vec!["PING".into()]));
        }
        let many: Vec<&[u8]> = vec![b"123456789"; 9];
        let taken = taken([&[command(&many), b"PING\r\n".to_vec()].concat()[..]]);
        assert!(matches!(&taken[0], Taken::Refused(why) if why.contains("60 bytes")), "{taken:?}");
        assert_eq!(taken.len(), 2);
    }

    #[test]
    fn what_is_announced_is_not_made_room_for() {
        let mut input = Input::new(Limits { word_max: 600 << 20, command_max: 600 << 20 });
        input.extend(b"*1048576\r\n$536870912\r\nabc");
        assert_eq!(input.next(), None);
        assert!(input.bytes.capacity() < 4096, "{}", input.bytes.capacity());
    }

    #[test]
    fn bytes_that_are_no_command_end_the_connection() {
        for (bytes, why) in [
            ("*a\r\n", "multibulk length"),
            ("*1048577\r\n", "multibulk length"),
            ("*11111111111111111111111111111111111", "multibulk length"),
            ("*1\r\nGET\r\n", "expected '$', got 'G'"),
            ("*1\r\n$-1\r\n", "bulk length"),
            ("*1\r\n$536870913\r\n", "bulk length"),
            ("*1\r\n$1\r\nabc", "ends with CRLF"),
            ("POST / HTTP/1.1\r\n", "no HTTP"),
            ("host: localhost\r\n", "no HTTP"),
        ] {
            let taken = taken([bytes.as_bytes()]);
            assert!(matches!(&taken[..], [Taken::Broken(error)] if error.contains(why)), "{bytes:?}: {taken:?}");
        }
        let endless = vec![b'x'; LINE_MAX];
        assert!(matches!(&taken([&endless[..]])[..], [Taken::Broken(_)]));
    }

    #[test]
    fn empty_commands_are_passed_over() {
        assert_eq!(taken([&b"*0\r\n*-1\r\n\r\n  \r\nPING\r\n"[..]]), [Taken::Command(vec!["PING".into()])]);
    }

    proptest! {
        #[test]
        fn commands_come_back_however_they_are_cut(
            commands in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..10), 1..4), 1..5),
            size in 1usize..30,
        ) {
            let words = |command: &Vec<Vec<u8>>| command.iter().map(|word| Bytes::from(word.clone())).collect();
            let expected: Vec<Taken> = commands.iter().map(|command| Taken::Command(words(command))).collect();
            let bytes: Vec<u8> = commands
                .iter()
                .flat_map(|words| command(&words.iter().map(Vec::as_slice).collect::<Vec<_>>()))
                .collect();
            prop_assert_eq!(taken(bytes.chunks(size)), expected);
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec("[*$0-9\r\n a]{1,6}", 0..40), size in 1usize..9) {
            taken(bytes.concat().as_bytes().chunks(size));
        }
    }
}
