//! A line taken apart into words, as a shell does: blanks part them, quotes and backslashes keep them together.

/// A word, and where it begins in the line, its quote included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word {
    pub at: usize,
    pub text: String,
}

/// The line ends inside a quote that was opened with this sign, or behind a backslash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Open(pub char);

/// The words of a line; with a `#` where a word would begin, the rest is a remark. The last word may be open, which the
/// second value says.
pub fn split(line: &str) -> (Vec<Word>, Option<Open>) {
    let mut words: Vec<Word> = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        let current = |word: &mut Option<Word>, c: Option<char>| {
            word.get_or_insert(Word { at, text: String::new() }).text.extend(c);
        };
        match (quote, c) {
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '\'' | '"') => {
                current(&mut word, None);
                quote = Some(c);
            }
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => match chars.next() {
                Some((_, next)) => current(&mut word, Some(next)),
                None => {
                    current(&mut word, None);
                    quote = Some('\\');
                }
            },
            (_, c) => current(&mut word, Some(c)),
        }
    }
    words.extend(word);
    (words, quote.map(Open))
}

/// The word as it has to be typed.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-._~/:@%+=,*".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false if word.contains('\'') => format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"")),
        false => format!("'{word}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        split(line).0.into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn blanks_part_and_quotes_keep_together() {
        assert_eq!(texts("put  a 'b c'\t\"d 'e' \\\"f\\\"\""), ["put", "a", "b c", "d 'e' \"f\""]);
        assert_eq!(texts("put a '' # nothing"), ["put", "a", ""]);
        assert_eq!(texts(r"get a\ b'c'd#e"), ["get", "a bcd#e"]);
        assert_eq!(texts("   "), Vec::<String>::new());
    }

    #[test]
    fn an_open_quote_is_told_with_the_place_of_its_word() {
        let (words, open) = split("get 'a b");
        assert_eq!(open, Some(Open('\'')));
        assert_eq!(words[1], Word { at: 4, text: "a b".into() });
        assert_eq!(split("get a\\").1, Some(Open('\\')));
        assert_eq!(split("get a").1, None);
    }

    #[test]
    fn what_is_quoted_is_read_again_as_it_was() {
        for word in ["plain/key:1", "a b", "it's", "say \"hi\"", "", "a\\b", "both ' and \" \\"] {
            assert_eq!(texts(&quoted(word)), [word], "{}", quoted(word));
        }
    }
}
