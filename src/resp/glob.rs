//! Patterns of keys: `*` stands for any bytes, `?` for one, `[a-c]` for one of several, `[^a-c]` for any other, and a
//! backslash takes what is behind it as it is.
//!
//! It costs as many steps as the pattern times the text is long, at most: a star that turns out wrong is tried further on,
//! and an earlier one never again.

/// Whether the whole of `text` is what `pattern` says.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Behind the last star, and where its text ends for now.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, t));
            continue;
        }
        let step = match (pattern.get(p..).filter(|rest| !rest.is_empty()), text.get(t)) {
            (None, None) => return true,
            (Some(rest), Some(byte)) => one(rest, *byte),
            _ => None,
        };
        match (step, &mut star) {
            (Some(length), _) => (p, t) = (p + length, t + 1),
            (None, Some((behind, end))) if *end < text.len() => {
                *end += 1;
                (p, t) = (*behind, *end);
            }
            _ => return false,
        }
    }
}

/// How much of the pattern stands for `byte`, if its beginning does.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [b'[', class @ ..] => {
            let (is_in, length) = in_class(class, byte);
            is_in.then_some(1 + length)
        }
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

/// Whether a class has `byte`, and how long it is with its closing bracket. One that is not closed ends with the pattern.
fn in_class(class: &[u8], byte: u8) -> (bool, usize) {
    let is_negated = class.first() == Some(&b'^');
    let (mut at, mut is_in) = (usize::from(is_negated), false);
    loop {
        match &class[at..] {
            [] => return (is_in != is_negated, at),
            [b']', ..] => return (is_in != is_negated, at + 1),
            [b'\\', literal, ..] => {
                is_in |= *literal == byte;
                at += 2;
            }
            [from, b'-', to, ..] => {
                is_in |= (*from.min(to)..=*from.max(to)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                is_in |= *literal == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same, by trying everything.
    fn dumb(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], _) => text.is_empty(),
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|from| dumb(rest, &text[from..])),
            (_, []) => false,
            (_, [byte, behind @ ..]) => one(pattern, *byte).is_some_and(|length| dumb(&pattern[length..], behind)),
        }
    }

    #[test]
    fn patterns_say_what_they_do_in_redis() {
        for (pattern, text, is) in [
            ("*", "", true),
            ("h?llo", "hello", true),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            (r"h\*llo", "h*llo", true),
            (r"h\*llo", "hello", false),
            (r"[\]]", "]", true),
            ("[abc", "b", true),
            ("user:*:name", "user:1:2:name", true),
            ("user:*:name", "user:1:names", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), is, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        let (pattern, text) = ("*a".repeat(200) + "b", "a".repeat(20_000));
        assert!(!matches(pattern.as_bytes(), text.as_bytes()));
    }

    proptest! {
        #[test]
        fn it_finds_what_trying_everything_finds(pattern in "[ab*?\\[\\]^\\\\-]{0,8}", text in "[ab\\]-]{0,8}") {
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), dumb(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
