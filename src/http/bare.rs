//! Requests that no handler hears of: how the HTTP server's own answers to them are known, and what is said instead.
//!
//! What its parser cannot read, or not in time, the server answers by itself. It has no hook for that; it sends this,
//! the last thing on the connection, and closes:
//!
//! ```text
//! HTTP/1.1 400 Bad Request\r\n
//! content-length: 0\r\n
//! connection: close\r\n           (or keep-alive, or no such line)
//! date: Sat, 21 Nov 2026 23:20:00 GMT\r\n
//! \r\n
//! ```
//!
//! No handler answers so: an error of ours has a body. But a value may end in just these bytes. So a bare answer is
//! found only where the answers before it can be told apart up to its first byte; in doubt it goes out as it is.

use super::refuse::ApiError;
use actix_web::body::MessageBody;
use bytes::Bytes;

/// The end of a head.
const HEAD_END: &[u8] = b"\r\n\r\n";
/// Bytes of `date: ` and a date.
const DATE_BYTES: usize = 35;

/// A bare answer behind others.
pub(super) struct Bare<'a> {
    /// Where it begins; it ends the bytes it was found in.
    pub(super) at: usize,
    /// What it means.
    pub(super) error: ApiError,
    /// Its header with the date, which nobody else here knows.
    date: &'a [u8],
}

/// The bare answer that `bytes` end with. They begin with an answer, and hold whole ones. Any other end costs one or two
/// comparisons of a few bytes.
pub(super) fn find(bytes: &[u8]) -> Option<Bare<'_>> {
    let rest = bytes.strip_suffix(HEAD_END)?;
    let (rest, date) = rest.split_at_checked(rest.len().checked_sub(DATE_BYTES)?)?;
    date.strip_prefix(b"date: ")?;
    let kept = [&b"connection: close\r\n"[..], b"connection: keep-alive\r\n"];
    let rest = kept.iter().find_map(|line| rest.strip_suffix(*line)).unwrap_or(rest);
    let rest = rest.strip_suffix(b"\r\ncontent-length: 0\r\n")?;
    let (rest, error) = if let Some(rest) = rest.strip_suffix(b" 400 Bad Request") {
        (rest, ApiError::NotHttp)
    } else if let Some(rest) = rest.strip_suffix(b" 408 Request Timeout") {
        (rest, ApiError::SlowHead)
    } else {
        (rest.strip_suffix(b" 431 Request Header Fields Too Large")?, ApiError::LargeHead)
    };
    let before = rest.strip_suffix(b"HTTP/1.1").or(rest.strip_suffix(b"HTTP/1.0"))?;
    let at = before.len();
    are_whole_answers(before, bytes.len() - at).then_some(Bare { at, error, date })
}

/// Whether `bytes`, behind which there are `behind` more, are whole answers for certain. An answer to HEAD tells a
/// length and has no body; where the bytes allow both, nothing is certain. Each has its length as its first header, as
/// the server writes it, or no body.
fn are_whole_answers(mut bytes: &[u8], behind: usize) -> bool {
    let goes_on = |bytes: &[u8]| bytes.is_empty() || bytes.starts_with(b"HTTP/1.");
    while !bytes.is_empty() {
        let head = bytes.windows(HEAD_END.len()).position(|four| four == HEAD_END);
        let Some((head, rest)) = head.map(|end| bytes.split_at(end + HEAD_END.len())) else { return false };
        let length = length_told(head);
        let behind_body = rest.get(length..);
        let with_body = behind_body.is_some_and(goes_on) || length == rest.len() + behind;
        bytes = match (with_body, goes_on(rest), behind_body) {
            (true, true, _) if length > 0 => return false,
            (_, true, _) => rest,
            (true, false, Some(behind_body)) => behind_body,
            _ => return false,
        };
    }
    true
}

/// The length that a head tells, or 0.
fn length_told(head: &[u8]) -> usize {
    let line = head.split(|byte| *byte == b'\n').nth(1).and_then(|line| line.strip_suffix(b"\r"));
    let length = line.and_then(|line| line.strip_prefix(b"content-length: "));
    length.and_then(|length| std::str::from_utf8(length).ok()?.parse().ok()).unwrap_or(0)
}

impl Bare<'_> {
    /// The answer to send in its place, as it goes over the wire: the last one of its connection.
    pub(super) fn dressed(self) -> Bytes {
        let response = self.error.into_response();
        let mut bytes = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
        for (name, value) in response.headers() {
            bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        let body = response.into_body().try_into_bytes().unwrap_or_default();
        bytes.extend(format!("content-length: {}\r\nconnection: close\r\n", body.len()).into_bytes());
        bytes.extend([self.date, HEAD_END, &body].concat());
        bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::StatusCode;
    use proptest::prelude::*;

    const DATE: &str = "date: Sat, 21 Nov 2026 23:20:00 GMT\r\n";
    const BARE: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ndate: Sat, 21 Nov 2026 23:20:00 GMT\r\n\r\n";

    /// An answer of ours as the server writes it.
    fn answer(status: u16, body: &str, to_head: bool) -> String {
        let length = if status == 204 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let body = if to_head { "" } else { body };
        format!("HTTP/1.1 {}\r\n{length}etag: \"1\"\r\n{DATE}\r\n{body}", StatusCode::from_u16(status).unwrap())
    }

    fn found(bytes: &str) -> Option<usize> {
        find(bytes.as_bytes()).map(|bare| bare.at)
    }

    #[test]
    fn a_bare_answer_is_known_in_every_form_and_keeps_its_status_and_date() {
        for version in ["HTTP/1.0", "HTTP/1.1"] {
            for status in ["400 Bad Request", "408 Request Timeout", "431 Request Header Fields Too Large"] {
                for kept in ["", "connection: close\r\n", "connection: keep-alive\r\n"] {
                    let bytes = format!("{version} {status}\r\ncontent-length: 0\r\n{kept}{DATE}\r\n");
                    let bare = find(bytes.as_bytes()).unwrap();
                    assert_eq!(bare.at, 0);
                    let dressed = String::from_utf8(bare.dressed().to_vec()).unwrap();
                    let (head, body) = dressed.split_once("\r\n\r\n").unwrap();
                    assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
                    assert!(
                        head.contains(&format!("content-length: {}\r\nconnection: close\r\n", body.len())),
                        "{head}"
                    );
                    assert!(format!("{head}\r\n").contains(DATE) && body.starts_with("{\"error\":"), "{dressed}");
                }
            }
        }
    }

    #[test]
    fn answers_of_ours_are_not_bare() {
        for (status, body) in [(200, "value"), (200, ""), (201, ""), (204, ""), (400, "{}"), (408, "{}"), (400, "")] {
            assert_eq!(found(&answer(status, body, false)), None, "{status} {body}");
        }
        assert_eq!(found(""), None);
        assert_eq!(found("\r\n\r\n"), None);
        assert_eq!(found(&BARE[1..]), None, "half of one");
    }

    #[test]
    fn a_bare_answer_is_found_behind_answers_that_can_be_told_apart() {
        let before = [
            answer(200, "value", false),
            answer(200, "value", true),
            answer(201, "", false) + &answer(204, "", false),
            answer(200, "\r\n\r\n", false) + &answer(200, "value", true) + &answer(200, &format!("v{BARE}"), false),
            "HTTP/1.1 100 Continue\r\n\r\n".to_owned() + &answer(201, "", false),
        ];
        for before in before {
            assert_eq!(found(&(before.clone() + BARE)), Some(before.len()), "{before}");
        }
    }

    #[test]
    fn a_value_that_ends_like_one_is_left_alone() {
        let endings = [BARE.to_owned(), BARE.repeat(2), format!("v{BARE}"), answer(200, "ab", false) + BARE];
        for value in endings {
            for before in ["".into(), answer(200, "ab", false), answer(200, &value, true), answer(200, "ab", true)] {
                assert_eq!(found(&(before + &answer(200, &value, false))), None, "{value}");
            }
        }
    }

    /// Values made of what answers are made of.
    fn value() -> impl Strategy<Value = String> {
        let parts = vec![
            BARE.to_owned(),
            answer(200, BARE, true),
            answer(200, "ab", true),
            answer(204, "", false),
            "ab".into(),
            "\r\n\r\n".into(),
            "HTTP/1.1 ".into(),
        ];
        prop::collection::vec(prop::sample::select(parts), 0..5).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn what_is_found_is_never_a_part_of_a_value(
            answers in prop::collection::vec((value(), any::<bool>()), 0..5), refused in any::<bool>(),
        ) {
            let before: String = answers.iter().map(|(value, to_head)| answer(200, value, *to_head)).collect();
            match refused {
                true => prop_assert!(found(&(before.clone() + BARE)).is_none_or(|at| at == before.len())),
                false => prop_assert_eq!(found(&before), None),
            }
        }
    }
}
