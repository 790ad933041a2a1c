//! An export, read back: line by line, compressed or not, and whether it is whole.

use super::line::{Entry, Head, Line, Seal};
use crate::exit::Failed;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// The longest line: the largest value, each byte of it escaped to six, and the same once more beside it.
const LINE_BYTES_MAX: usize = 1 << 30;
/// What a frame of zstd begins with. RFC 8878 §3.1.1.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Whether bytes begin as a compressed file does.
pub fn is_compressed(bytes: &[u8]) -> bool {
    bytes.starts_with(&ZSTD)
}

/// Lines of anything.
pub struct Lines<R> {
    input: R,
    /// Whether it ended within something: what there was before is as it was written.
    is_torn: bool,
}

impl<R: BufRead> Lines<R> {
    pub fn new(input: R) -> Lines<R> {
        Lines { input, is_torn: false }
    }

    /// The next one with its line feed, which the last may lack.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, Failed> {
        let mut line = Vec::new();
        let read = (&mut self.input).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line);
        let read = read.map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                self.is_torn = true;
                Failed::usage("it was cut off").hint("go on with it by export --resume")
            }
            _ => error.into(),
        })?;
        if read >= LINE_BYTES_MAX {
            return Err(Failed::usage("a line is longer than any value: this is no export"));
        }
        Ok((read > 0).then_some(line))
    }
}

/// An export that is read from its beginning.
pub struct Reader {
    lines: Lines<Box<dyn BufRead>>,
    number: u64,
    sum: blake3::Hasher,
    keys: u64,
    seal: Option<Seal>,
    /// The first line, where there is one.
    pub head: Option<Head>,
}

/// A key's line: its number, and what it says, or why it says nothing.
type Numbered = (u64, Result<Entry, Failed>);

/// A file that is whole.
pub struct Whole {
    pub keys: u64,
    pub seal: Option<Seal>,
}

impl Reader {
    /// Of a file; compressed or not is told by how it begins.
    pub fn open(path: &Path) -> Result<Reader, Failed> {
        let file = File::open(path).map_err(super::about(path))?;
        Reader::of(BufReader::with_capacity(1 << 17, file))
    }

    /// Of standard input.
    pub fn stdin() -> Result<Reader, Failed> {
        Reader::of(BufReader::with_capacity(1 << 17, std::io::stdin()))
    }

    fn of(mut input: impl BufRead + 'static) -> Result<Reader, Failed> {
        let input: Box<dyn BufRead> = match is_compressed(input.fill_buf()?) {
            false => Box::new(input),
            true => Box::new(BufReader::with_capacity(1 << 17, zstd::stream::Decoder::with_buffer(input)?)),
        };
        let (lines, sum) = (Lines::new(input), blake3::Hasher::new());
        Ok(Reader { lines, number: 0, sum, keys: 0, seal: None, head: None })
    }

    /// The next key's line, its number, from 1 on, and what it says; nothing at the end of the file.
    pub fn next(&mut self) -> Result<Option<Numbered>, Failed> {
        loop {
            let line = self.lines.next().map_err(|failed| self.at(failed))?;
            let Some(line) = line else { return Ok(None) };
            self.number += 1;
            if line.trim_ascii().is_empty() {
                self.sum.update(&line);
                continue;
            }
            if self.seal.is_some() {
                return Err(self.at(Failed::usage("there is something behind the seal")));
            }
            match Line::parse(&line) {
                Ok(Line::Head(head)) if self.number == 1 => self.head = Some(head),
                Ok(Line::Head(_)) => return Err(self.at(Failed::usage("it begins twice"))),
                Ok(Line::Seal(seal)) => {
                    self.seal = Some(seal);
                    continue;
                }
                Ok(Line::Entry(entry)) => {
                    self.sum.update(&line);
                    self.keys += 1;
                    return Ok(Some((self.number, Ok(entry))));
                }
                Err(failed) => {
                    self.sum.update(&line);
                    self.keys += 1;
                    return Ok(Some((self.number, Err(failed))));
                }
            }
            self.sum.update(&line);
        }
    }

    /// Whether the last error was that it ends within something, as a file does that was cut off.
    pub fn is_torn(&self) -> bool {
        self.lines.is_torn
    }

    /// What it was, once it has been read to its end; an error where that is not what was written.
    pub fn finish(self) -> Result<Whole, Failed> {
        let Some(seal) = self.seal else { return Ok(Whole { keys: self.keys, seal: None }) };
        let sum = self.sum.finalize().to_hex().to_string();
        if seal.keys != self.keys {
            let error = format!("it should have {} keys, and has {}", seal.keys, self.keys);
            return Err(Failed::usage(error).hint("it was changed since it was written"));
        }
        if seal.blake3 != sum {
            return Err(Failed::usage("its sum is another than it should be")
                .hint("it was changed since it was written: get another copy, or export again"));
        }
        Ok(Whole { keys: self.keys, seal: Some(seal) })
    }

    fn at(&self, failed: Failed) -> Failed {
        Failed { error: format!("line {}: {}", self.number, failed.error), exit: crate::exit::Exit::Usage, ..failed }
    }
}

/// Reads a whole file; what it is, or why it is not what was written. `read` is told of every key.
pub fn check(path: &Path, mut read: impl FnMut(u64)) -> Result<Whole, Failed> {
    let named = |failed: Failed| Failed { error: format!("{}: {}", path.display(), failed.error), ..failed };
    let mut reader = Reader::open(path)?;
    while let Some((number, entry)) = reader.next().map_err(named)? {
        entry.map_err(|failed| reader.at(failed)).map_err(named)?;
        read(number);
    }
    reader.finish().map_err(named)
}

/// One that has no seal.
pub fn unsealed(path: &Path) -> Failed {
    Failed::usage(format!("{}: it has no seal: it was cut off", path.display()))
}

/// How much of a file there is.
pub fn length(path: &Path) -> Result<u64, Failed> {
    Ok(std::fs::metadata(path).map_err(super::about(path))?.len())
}

#[cfg(test)]
mod tests {
    use super::super::line::Head;
    use super::super::writer::Writer;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_file_with_any_bit_flipped_is_not_taken_for_the_one_that_was_written(
            at in any::<prop::sample::Index>(), bit in 0..8, is_compressed: bool,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            let mut writer = Writer::create(&path, is_compressed, &Head::new(b"k")).unwrap();
            for key in 0..20 {
                writer.entry(&format!(r#"{{"key":"k{key}","value":"some value {key}"}}"#)).unwrap();
            }
            writer.seal().unwrap();
            let whole = check(&path, |_| ()).ok().map(|whole| (whole.keys, whole.seal.is_some()));
            prop_assert_eq!(whole, Some((20, true)));
            let mut bytes = std::fs::read(&path).unwrap();
            let lines = if is_compressed { zstd::decode_all(&bytes[..]).unwrap() } else { bytes.clone() };
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            std::fs::write(&path, &bytes).unwrap();
            let is_taken = check(&path, |_| ()).is_ok_and(|whole| whole.seal.is_some());
            // There is a bit in a frame of zstd that means nothing.
            let means_nothing = is_compressed && zstd::decode_all(&bytes[..]).ok().as_deref() == Some(&lines[..]);
            prop_assert!(!is_taken || means_nothing, "bit {bit} of byte {at}");
        }
    }
}
