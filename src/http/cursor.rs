//! Where a list goes on, as clients carry it: an opaque word that they hand back with the same list's next page.
//!
//! ```text
//!  base64url( version 1 | checksum 8 | place )
//!  checksum:  first 8 bytes of BLAKE3 over prefix and delimiter, each behind its length, and place
//! ```
//!
//! The checksum tells a mangled word, and one of another list, from a good one. It is no proof against forgery, and needs
//! none: a forged place is one that `?start=` could name.

use super::refuse::ApiError;
use crate::protocol::{Filter, Place};
use crate::record::{CHECKSUM_BYTES, KEY_BYTES_MAX, checksum};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const VERSION: u8 = 1;

/// The word for a place in the list of this filter.
pub(super) fn of(filter: &Filter, place: &Place) -> String {
    let bytes = [&[VERSION][..], &sum(filter, &place.0), &place.0].concat();
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The place that a word names in the list of this filter.
pub(super) fn read(filter: &Filter, word: &[u8]) -> Result<Place, ApiError> {
    let refused = || {
        ApiError::bad(
            "the cursor is not one that this list gave out",
            "send back the cursor of an earlier page as it came, with the same prefix and delimiter",
        )
    };
    let bytes = URL_SAFE_NO_PAD.decode(word).map_err(|_| refused())?;
    let rest = bytes.strip_prefix(&[VERSION]).ok_or_else(refused)?;
    let (told, place) = rest.split_first_chunk::<CHECKSUM_BYTES>().ok_or_else(refused)?;
    match *told == sum(filter, place) && place.len() <= KEY_BYTES_MAX + 1 {
        true => Ok(Place(place.to_vec().into())),
        false => Err(refused()),
    }
}

fn sum(filter: &Filter, place: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let length = |bytes: &[u8]| (bytes.len() as u64).to_le_bytes();
    let Filter { prefix, delimiter } = filter;
    checksum(&[&length(prefix)[..], prefix, &length(delimiter), delimiter, place].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(prefix: &[u8], delimiter: &[u8]) -> Filter {
        Filter { prefix: prefix.to_vec().into(), delimiter: delimiter.to_vec().into() }
    }

    proptest! {
        #[test]
        fn a_place_comes_back_from_its_word_in_the_same_list_and_in_no_other(
            place in prop::collection::vec(any::<u8>(), 0..40),
            at in any::<prop::sample::Index>(),
        ) {
            let (own, place) = (filter(b"a/", b"/"), Place(place.into()));
            let word = of(&own, &place);
            prop_assert_eq!(read(&own, word.as_bytes()).ok(), Some(place));
            for other in [filter(b"a", b"/"), filter(b"a/", b""), filter(b"", b"a//"), filter(b"/", b"a/")] {
                prop_assert!(read(&other, word.as_bytes()).is_err());
            }
            let mut mangled = word.into_bytes();
            let at = at.index(mangled.len() - 1);
            mangled[at] ^= 1;
            prop_assert!(read(&own, &mangled).is_err());
        }

        #[test]
        fn foreign_words_are_refused_without_a_panic(word in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(read(&filter(b"", b""), &word).is_err());
        }
    }
}
