//! Standard input, line by line, read on a thread of its own: nothing else waits for it.

use std::io::{self, BufRead, Read};
use tokio::sync::mpsc;

/// Longest line, in bytes: more than the longest value there may be by default.
const LINE_BYTES_MAX: u64 = 9 << 20;

/// Lines that were read and not yet asked for.
const AHEAD: usize = 16;

/// A line, or why there is none in its place.
pub(super) type Line = Result<String, &'static str>;

/// Lines to come; the end of the input closes it.
pub(super) fn of_stdin() -> mpsc::Receiver<Line> {
    let (lines, receiver) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        while let Some(line) = next(&mut stdin) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The next line without its end; `None` where there are no more. An input that breaks has ended.
fn next(input: &mut impl BufRead) -> Option<Line> {
    let mut bytes = Vec::new();
    let length = input.take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut bytes).ok()?;
    match length {
        0 => return None,
        _ if bytes.ends_with(b"\n") => {}
        length if length as u64 > LINE_BYTES_MAX => {
            // The rest of it is no command either.
            input.skip_until(b'\n').ok()?;
            return Some(Err("The line is too long: 9 MiB at most"));
        }
        // The last line may have no end.
        _ => {}
    }
    Some(String::from_utf8(bytes).map_err(|_| "The line is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_the_next_one_is_whole() {
        let mut input = vec![b'x'; LINE_BYTES_MAX as usize + 5];
        input.extend(b"\nget a\n\xff\nlast");
        let mut input = input.as_slice();
        let lines: Vec<Line> = std::iter::from_fn(|| next(&mut input)).collect();
        assert!(matches!(&lines[..], [Err(_), Ok(get), Err(_), Ok(last)] if get == "get a\n" && last == "last"));
    }
}
