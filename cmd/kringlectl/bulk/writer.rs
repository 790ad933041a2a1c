//! An export on its way to a file: lines in blocks, and how far one got that was cut off.
//!
//! Compressed, each block is a frame of zstd by itself, whole lines with a checksum. So a file that was cut off anywhere is
//! cut back to the last line, or frame, that is whole, and goes on from there.

use super::about;
use super::line::{Head, Line, Seal, text};
use super::reader::{Lines, is_compressed};
use crate::exit::Failed;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Bytes of lines from which on they are written: enough for zstd to find what repeats itself.
const BLOCK_BYTES: usize = 1 << 20;
/// The same without it.
const PLAIN_BLOCK_BYTES: usize = 64 << 10;
/// How hard zstd tries: its own default.
const LEVEL: i32 = 3;

/// Where the lines go.
enum Out {
    File(File),
    Stdout,
}

/// Takes lines.
pub struct Writer {
    out: Out,
    is_compressed: bool,
    block: Vec<u8>,
    sum: blake3::Hasher,
    keys: u64,
}

/// What is in a file already.
pub struct Begun {
    /// To go on with.
    pub writer: Writer,
    /// The last key in it.
    pub last: Option<Vec<u8>>,
    /// Whether nothing is left to do.
    pub is_sealed: bool,
}

impl Writer {
    /// To a file that is not there yet.
    pub fn create(path: &Path, is_compressed: bool, head: &Head) -> Result<Writer, Failed> {
        let file = File::options().write(true).create_new(true).open(path).map_err(|error| {
            let is_there = error.kind() == std::io::ErrorKind::AlreadyExists;
            let failed = about(path)(error);
            if !is_there {
                return failed;
            }
            Failed { exit: crate::exit::Exit::Usage, ..failed }
                .hint("go on with an export that was cut off by --resume, or name another file")
        })?;
        Writer::beginning(Out::File(file), is_compressed, head)
    }

    /// To standard output.
    pub fn stdout(is_compressed: bool, head: &Head) -> Result<Writer, Failed> {
        Writer::beginning(Out::Stdout, is_compressed, head)
    }

    fn beginning(out: Out, is_compressed: bool, head: &Head) -> Result<Writer, Failed> {
        let mut writer = Writer::of(out, is_compressed);
        writer.push(&text(head)?)?;
        Ok(writer)
    }

    fn of(out: Out, is_compressed: bool) -> Writer {
        Writer { out, is_compressed, block: Vec::new(), sum: blake3::Hasher::new(), keys: 0 }
    }

    /// Goes on with a file that was cut off, of the keys that `head` says; what is not whole at its end is cut back.
    pub fn resume(path: &Path, is_compressed: bool, head: &Head) -> Result<Begun, Failed> {
        let mut file = File::options().read(true).write(true).open(path).map_err(about(path))?;
        let mut whole = Whole { writer: Writer::of(Out::Stdout, is_compressed), last: None, seal: None, head: None };
        let length = file.metadata().map_err(about(path))?.len();
        let mut input = BufReader::with_capacity(1 << 16, &mut file);
        let is_frames = is_compressed_file(&mut input).map_err(about(path))?;
        // Less than zstd's own four bytes tells nothing.
        if length >= 4 && is_frames != is_compressed {
            let is = if is_frames { "is" } else { "is not" };
            return Err(Failed::usage(format!("{} {is} compressed", path.display()))
                .hint("go on with it as it was begun: with or without --zstd"));
        }
        let end = if is_compressed { whole.take_frames(input) } else { whole.take_lines(input, head) };
        let end = end.map_err(|failed| {
            let error = format!("{}: {}", path.display(), failed.error);
            Failed { error, ..failed }.hint("it is no export that was cut off: move it away, or name another file")
        })?;
        match &whole.head {
            Some(held) if held != head => {
                let prefix = String::from_utf8_lossy(&held.prefix()?).into_owned();
                let error = format!("{} is an export of other keys, those that start with {prefix:?}", path.display());
                return Err(Failed::usage(error).hint("go on with the same --prefix, or name another file"));
            }
            _ => {}
        }
        let Whole { mut writer, last, seal, head: held } = whole;
        if let Some(seal) = &seal {
            let sum = writer.sum.finalize().to_hex().to_string();
            if (seal.keys, &seal.blake3) != (writer.keys, &sum) {
                return Err(Failed::usage(format!("{}: its seal does not fit what is in it", path.display()))
                    .hint("it was changed since it was written: move it away, and export again"));
            }
        }
        file.set_len(end).and_then(|()| file.seek(SeekFrom::End(0))).map_err(about(path))?;
        writer.out = Out::File(file);
        if held.is_none() {
            writer.push(&text(head)?)?;
        }
        Ok(Begun { writer, last, is_sealed: seal.is_some() })
    }

    /// How many keys it has.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Adds a key.
    pub fn entry(&mut self, line: &str) -> Result<(), Failed> {
        self.keys += 1;
        self.push(line)
    }

    fn push(&mut self, line: &str) -> Result<(), Failed> {
        let begun = self.block.len();
        self.block.extend_from_slice(line.as_bytes());
        self.block.push(b'\n');
        self.sum.update(&self.block[begun..]);
        let enough = if self.is_compressed { BLOCK_BYTES } else { PLAIN_BLOCK_BYTES };
        if self.block.len() < enough { Ok(()) } else { self.flush() }
    }

    /// Writes what waits.
    pub fn flush(&mut self) -> Result<(), Failed> {
        if self.block.is_empty() {
            return Ok(());
        }
        let frame = match self.is_compressed {
            false => None,
            true => {
                let mut encoder = zstd::stream::Encoder::new(Vec::new(), LEVEL)?;
                encoder.include_checksum(true)?;
                encoder.write_all(&self.block)?;
                Some(encoder.finish()?)
            }
        };
        let bytes = frame.as_deref().unwrap_or(&self.block);
        let written = match &mut self.out {
            Out::File(file) => {
                let begun = file.stream_position()?;
                // Half a block goes again, so that it may be tried once more, or gone on with.
                file.write_all(bytes).inspect_err(|_| {
                    let _ = file.set_len(begun).and_then(|()| file.seek(SeekFrom::Start(begun)));
                })
            }
            Out::Stdout => {
                let mut out = std::io::stdout().lock();
                let written = out.write_all(bytes).and_then(|()| out.flush());
                // Nobody knows how much of it went: it is not sent twice.
                written.inspect_err(|_| self.block.clear())
            }
        };
        written?;
        self.block.clear();
        Ok(())
    }

    /// Adds the seal, and has all of it on the disk. Returns the sum.
    pub fn seal(mut self) -> Result<Seal, Failed> {
        let seal = Seal::new(self.keys, &self.sum.finalize());
        self.push(&text(&seal)?)?;
        self.flush()?;
        if let Out::File(file) = &self.out {
            file.sync_all()?;
        }
        Ok(seal)
    }
}

fn is_compressed_file(input: &mut impl BufRead) -> std::io::Result<bool> {
    Ok(is_compressed(input.fill_buf()?))
}

/// What was found whole.
struct Whole {
    writer: Writer,
    last: Option<Vec<u8>>,
    seal: Option<Seal>,
    head: Option<Head>,
}

impl Whole {
    /// Takes in lines up to the last whole one; where that ends.
    fn take_lines(&mut self, input: impl BufRead, head: &Head) -> Result<u64, Failed> {
        let mut lines = Lines::new(input);
        let mut end = 0;
        while let Some(line) = lines.next()? {
            if !line.ends_with(b"\n") {
                let is_ours = self.head.is_some() || text(head)?.as_bytes().starts_with(&line);
                return if is_ours { Ok(end) } else { Err(Failed::usage("it does not begin as one")) };
            }
            self.take(&line)?;
            end += line.len() as u64;
        }
        Ok(end)
    }

    /// The same of frames.
    fn take_frames(&mut self, input: impl BufRead) -> Result<u64, Failed> {
        let mut input = Counting { input, read: 0 };
        let mut end = 0;
        while !input.fill_buf()?.is_empty() {
            let mut frame = Vec::new();
            let mut decoder = zstd::stream::Decoder::with_buffer(input)?.single_frame();
            match decoder.read_to_end(&mut frame) {
                Ok(_) => input = decoder.finish(),
                // Torn where the file ends; anywhere else it is damaged.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(Failed::usage(format!("it is damaged behind byte {end}: {error}"))),
            }
            let mut lines = Lines::new(&frame[..]);
            while let Some(line) = lines.next()? {
                self.take(&line)?;
            }
            end = input.read;
        }
        Ok(end)
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Failed> {
        if self.seal.is_some() {
            return Err(Failed::usage("there is something behind the seal"));
        }
        match Line::parse(line)? {
            Line::Head(head) => match self.head.replace(head) {
                None => {}
                Some(_) => return Err(Failed::usage("it begins twice")),
            },
            Line::Entry(_) if self.head.is_none() => return Err(Failed::usage("it does not begin as one")),
            Line::Entry(entry) => {
                self.last = Some(entry.key()?);
                self.writer.keys += 1;
            }
            Line::Seal(seal) => {
                self.seal = Some(seal);
                return Ok(());
            }
        }
        self.writer.sum.update(line);
        Ok(())
    }
}

/// Tells how much was read.
struct Counting<R> {
    input: R,
    read: u64,
}

impl<R: BufRead> Read for Counting<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(into)?;
        self.read += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counting<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.read += amount as u64;
        self.input.consume(amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(path: &Path, is_compressed: bool, keys: u64) -> Vec<u8> {
        let mut writer = Writer::create(path, is_compressed, &Head::new(b"")).unwrap();
        for key in 0..keys {
            writer.entry(&format!(r#"{{"key":"k{key}","value":"{key}"}}"#)).unwrap();
            // Blocks of three keys.
            if key % 3 == 2 {
                writer.flush().unwrap();
            }
        }
        writer.seal().unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_file_that_was_cut_off_anywhere_goes_on_to_the_same_lines() {
        let folder = tempfile::tempdir().unwrap();
        for is_compressed in [false, true] {
            let path = folder.path().join(format!("whole-{is_compressed}"));
            let whole = written(&path, is_compressed, 10);
            let lines = |bytes: &[u8]| if is_compressed { zstd::decode_all(bytes).unwrap() } else { bytes.to_vec() };
            for cut in 0..=whole.len() {
                let path = folder.path().join("cut");
                std::fs::write(&path, &whole[..cut]).unwrap();
                let Begun { mut writer, last, is_sealed } =
                    Writer::resume(&path, is_compressed, &Head::new(b"")).unwrap();
                assert_eq!(is_sealed, cut == whole.len(), "cut at {cut}");
                let held = writer.keys();
                assert_eq!(last, held.checked_sub(1).map(|last| format!("k{last}").into_bytes()));
                for key in held..10 {
                    writer.entry(&format!(r#"{{"key":"k{key}","value":"{key}"}}"#)).unwrap();
                }
                if !is_sealed {
                    writer.seal().unwrap();
                }
                assert_eq!(lines(&std::fs::read(&path).unwrap()), lines(&whole), "cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_export_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        for text in ["my notes\nof today\n", "{\"key\":\"a\",\"value\":\"1\"}\nmore\n"] {
            std::fs::write(&path, text).unwrap();
            assert!(Writer::resume(&path, false, &Head::new(b"")).is_err());
            assert!(Writer::create(&path, false, &Head::new(b"")).is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        let path = folder.path().join("others");
        written(&path, false, 3);
        assert!(Writer::resume(&path, false, &Head::new(b"k")).is_err());
        assert!(Writer::resume(&path, true, &Head::new(b"")).is_err());
    }
}
