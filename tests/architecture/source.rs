//! Rust source as the rules look at it: code without its comments and literals, and without its tests.

use std::ops::Range;

/// One file. All texts are equally long, and line `n` of one is line `n` of the others.
pub struct Source {
    /// From the root of the repository, with slashes.
    pub path: String,
    pub text: String,
    /// `text` with comments and the insides of strings and characters blanked.
    pub code: String,
    /// `code` with everything under `#[cfg(test)]` blanked.
    pub production: String,
    /// Files that are tests as a whole: those of `#[cfg(test)] mod name;`.
    pub test_files: Vec<String>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let code = without_comments_and_literals(text);
        let folder = match path.strip_suffix("/mod.rs").or(path.strip_suffix("/lib.rs")) {
            Some(folder) => folder,
            None => path.trim_end_matches(".rs"),
        };
        let mut production = code.clone();
        let mut test_files = Vec::new();
        for range in test_items(&code) {
            let item = &code[range.clone()];
            if let Some((_, name)) = item.trim_end().strip_suffix(';').and_then(|item| item.rsplit_once("mod ")) {
                test_files.push(format!("{folder}/{name}.rs"));
            }
            production.replace_range(range, &blanked(item));
        }
        Source { path: path.into(), text: text.into(), code, production, test_files }
    }

    /// The room under `src/` that the file belongs to; nothing for the crate's root and what is not in `src/`.
    pub fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let room = inside.split('/').next()?.trim_end_matches(".rs");
        (room != "lib").then_some(room)
    }
}

/// The line of a byte, counted from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count()
}

/// The identifiers of blanked code and where they begin.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.split(move |c| !is_part(c)).filter(|word| !word.is_empty()).map(|word| (place_in(code, word), word))
}

/// The places of `needle` in `code`, as whole words where it begins or ends with a letter.
pub fn places<'a>(code: &'a str, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(needle).map(|(at, _)| at).filter(move |&at| {
        let inside = is_part(needle.chars().next()) && is_part(code[..at].chars().next_back());
        let goes_on = is_part(needle.chars().next_back()) && is_part(code[at + needle.len()..].chars().next());
        !inside && !goes_on
    })
}

fn place_in(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize
}

fn blanked(text: &str) -> String {
    // Byte for byte, so that places stay what they were.
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// What `#[cfg(test)]` and its like stand before: up to the item's closing brace or its semicolon.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (start, _) in code.match_indices("#[cfg(") {
        let Some(attribute) = code[start..].find(']').map(|end| &code[start..start + end]) else { continue };
        let is_test = words(attribute).any(|(_, word)| word == "test") && !attribute.contains("not(");
        if !is_test || ranges.last().is_some_and(|last| last.contains(&start)) {
            continue;
        }
        let item = start + attribute.len();
        let Some(first) = code[item..].find(['{', ';']).map(|at| item + at) else { continue };
        let end = if code.as_bytes()[first] == b';' { first + 1 } else { after_block(code, first) };
        ranges.push(start..end);
    }
    ranges
}

/// The place behind the brace that closes the one at `open`.
pub fn after_block(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

fn without_comments_and_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let after_word = code.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        // How much is kept, how much is blanked behind it, how much is kept behind that.
        let (open, inside, close) = if rest.starts_with("//") {
            (0, rest.find('\n').unwrap_or(rest.len()), 0)
        } else if rest.starts_with("/*") {
            (0, comment_length(rest), 0)
        } else if let Some((open, hashes)) = raw_string(rest).filter(|_| !after_word) {
            let closing = format!("\"{}", "#".repeat(hashes));
            let inside = rest[open..].find(&closing);
            inside.map_or((open, rest.len() - open, 0), |inside| (open, inside, closing.len()))
        } else if rest.starts_with('"') {
            let inside = string_length(rest);
            (1, inside, (rest.len() - inside - 1).min(1))
        } else if let Some(inside) = character_length(rest) {
            (1, inside, 1)
        } else {
            (rest.chars().next().map_or(1, char::len_utf8), 0, 0)
        };
        code.push_str(&rest[..open]);
        code.push_str(&blanked(&rest[open..open + inside]));
        code.push_str(&rest[open + inside..open + inside + close]);
        rest = &rest[open + inside + close..];
    }
    code
}

/// Length of a block comment, which may hold others.
fn comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Of `r#"` and its like: the length up to the quote and with it, and the number of hashes.
fn raw_string(text: &str) -> Option<(usize, usize)> {
    let prefix = ["r", "br", "cr"]
        .into_iter()
        .find(|prefix| text.strip_prefix(prefix).is_some_and(|rest| rest.trim_start_matches('#').starts_with('"')))?;
    let hashes = text[prefix.len()..].find('"')?;
    Some((prefix.len() + hashes + 1, hashes))
}

/// Bytes between the quotes of a string.
fn string_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at.min(text.len()) - 1
}

/// Bytes between the quotes of a character; nothing for a lifetime.
fn character_length(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    if let Some(escape) = inside.strip_prefix('\\') {
        let escaped = escape.chars().next()?.len_utf8();
        return Some(1 + escaped + escape[escaped..].find('\'')?);
    }
    let first = inside.chars().next()?.len_utf8();
    inside[first..].starts_with('\'').then_some(first)
}
