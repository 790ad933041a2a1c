//! Conditional requests: `If-Match` and `If-None-Match` (RFC 9110 §13.1), with the entity tags that answers carry.

use super::refuse::ApiError;
use crate::record::{Condition, Tag};
use actix_web::HttpRequest;
use actix_web::http::header::{HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};

/// Hexadecimal digits of a tag.
const DIGITS: usize = 32;

/// The tag as it stands in `ETag`.
pub(super) fn header(tag: Tag) -> HeaderValue {
    let mut text = [b'"'; DIGITS + 2];
    for (at, digit) in text[1..=DIGITS].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(tag.0 >> (4 * (DIGITS - 1 - at))) as usize & 15];
    }
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("\"\""))
}

fn parse(text: &str) -> Option<Tag> {
    let digits = text.trim().strip_prefix('"')?.strip_suffix('"')?;
    let is_ours = digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_ours.then(|| u128::from_str_radix(digits, 16).ok().map(Tag)).flatten()
}

fn text<'a>(request: &'a HttpRequest, name: &HeaderName) -> Result<Option<&'a str>, ApiError> {
    let Some(value) = request.headers().get(name) else { return Ok(None) };
    let text =
        value.to_str().map_err(|_| ApiError::bad(format!("{name} is not text"), "send an ETag of this store"))?;
    Ok(Some(text.trim()))
}

/// What a write wants to be true: `If-None-Match: *`, `If-Match: *`, or `If-Match: "<etag>"`.
pub(super) fn of_write(request: &HttpRequest) -> Result<Option<Condition>, ApiError> {
    of_texts(text(request, &IF_MATCH)?, text(request, &IF_NONE_MATCH)?)
}

/// The same, where the texts of the two come by another road.
pub(super) fn of_texts(if_match: Option<&str>, if_none_match: Option<&str>) -> Result<Option<Condition>, ApiError> {
    match (if_match, if_none_match) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Err(ApiError::bad("If-Match and If-None-Match contradict each other", "send one of them"))
        }
        (None, Some("*")) => Ok(Some(Condition::Absent)),
        (None, Some(_)) => Err(ApiError::bad(
            "a write takes no other If-None-Match than *",
            "send If-None-Match: * to create only, or If-Match with the ETag of a read",
        )),
        (Some("*"), None) => Ok(Some(Condition::Present)),
        (Some(text), None) => match parse(text) {
            Some(tag) => Ok(Some(Condition::Tagged(tag))),
            None => Err(ApiError::bad(
                "If-Match is not one ETag of this store",
                "send back the ETag of a read as it came, quotes included",
            )),
        },
    }
}

/// Whether a reader already has this version: it named it in `If-None-Match`, alone or in a list, or `*`.
pub(super) fn is_known(request: &HttpRequest, etag: &HeaderValue) -> bool {
    let Ok(Some(text)) = text(request, &IF_NONE_MATCH) else { return false };
    let is_it = |known: &str| known.trim().trim_start_matches("W/").as_bytes() == etag.as_bytes();
    text == "*" || text.split(',').any(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn request(name: HeaderName, value: &str) -> HttpRequest {
        TestRequest::default().insert_header((name, value)).to_http_request()
    }

    #[test]
    fn a_tag_comes_back_from_its_header() {
        let tag = Tag(0x0123_4567_89ab_cdef_0000_0000_0000_0042);
        let header = header(tag);
        assert_eq!(header, "\"0123456789abcdef0000000000000042\"");
        let sent = request(IF_MATCH, header.to_str().unwrap());
        assert_eq!(of_write(&sent).unwrap(), Some(Condition::Tagged(tag)));
        assert_eq!(of_write(&request(IF_NONE_MATCH, " * ")).unwrap(), Some(Condition::Absent));
        assert_eq!(of_write(&request(IF_MATCH, "*")).unwrap(), Some(Condition::Present));
    }

    #[test]
    fn what_is_no_tag_of_this_store_is_refused() {
        for text in ["", "abc", "\"abc\"", "\"0123456789abcdef00000000000000zz\"", "\"é\""] {
            assert!(of_write(&request(IF_MATCH, text)).is_err(), "{text}");
        }
        assert!(of_write(&request(IF_NONE_MATCH, "\"0123456789abcdef0000000000000042\"")).is_err());
    }

    #[test]
    fn a_reader_may_name_one_version_or_several() {
        let etag = header(Tag(5));
        let one = etag.to_str().unwrap();
        for (text, known) in [(one, true), ("*", true), ("\"x\"", false)] {
            assert_eq!(is_known(&request(IF_NONE_MATCH, text), &etag), known, "{text}");
        }
        assert!(is_known(&request(IF_NONE_MATCH, &format!("\"x\", W/{one}")), &etag));
    }
}
