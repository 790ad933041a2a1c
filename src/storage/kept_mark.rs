//! How far the base had got, kept beside the log: a base that says less than this has lost what it took.
//!
//! ```text
//!  mark:  two places of  | sequence 8 | last stamp 8 | checksum 16 |   written in turn, so that one is always whole
//!  checksum: first 16 bytes of BLAKE3 over what stands before it; numbers little-endian
//! ```

use super::Sequence;
use super::base::Mark;
use super::files::Files;
use crate::record::Stamp;
use std::io;

const NAME: &str = "mark";
const PLACE_BYTES: usize = 32;

/// The file, and which of its places comes next.
#[derive(Debug, Default)]
pub(super) struct KeptMark {
    mark: Mark,
    place: u64,
}

impl KeptMark {
    /// As it was kept last; what cannot be read counts as never written.
    pub(super) fn read(files: &dyn Files) -> io::Result<KeptMark> {
        if !files.list()?.iter().any(|(name, _)| name == NAME) {
            return Ok(KeptMark::default());
        }
        let bytes = files.read(NAME)?;
        let kept = (0..).zip(bytes.chunks_exact(PLACE_BYTES).take(2)).filter_map(|(place, bytes)| {
            let number = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes).ok();
            let mark = Mark { sequence: Sequence(number(0)?), last_stamp: Stamp(number(8)?) };
            (checksum(&bytes[..16]) == bytes[16..]).then_some(KeptMark { mark, place: 1 - place })
        });
        Ok(kept.max_by_key(|kept| kept.mark.sequence).unwrap_or_default())
    }

    /// The mark.
    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    /// Keeps a later one. The base must have got so far, and the log must not have let go of what lies before.
    pub(super) fn write(&mut self, files: &dyn Files, mark: Mark) -> io::Result<()> {
        let mut bytes = [mark.sequence.0.to_le_bytes(), mark.last_stamp.0.to_le_bytes()].concat();
        bytes.extend_from_slice(&checksum(&bytes));
        files.write(NAME, self.place * PLACE_BYTES as u64, &bytes)?;
        files.sync(NAME)?;
        *self = KeptMark { mark, place: 1 - self.place };
        Ok(())
    }
}

fn checksum(bytes: &[u8]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sim_files::SimFiles;

    #[test]
    fn the_last_mark_is_read_and_a_damaged_one_gives_way_to_the_one_before() {
        let files = SimFiles::new(1);
        let mut kept = KeptMark::read(&files).unwrap();
        assert_eq!(kept.mark(), Mark::default());
        let mark = |at: u64| Mark { sequence: Sequence(at), last_stamp: Stamp(at * 10) };
        for at in 1..6 {
            kept.write(&files, mark(at)).unwrap();
            kept = KeptMark::read(&files).unwrap();
            assert_eq!(kept.mark(), mark(at));
        }
        files.damage(NAME, 3, 1);
        assert_eq!(KeptMark::read(&files).unwrap().mark(), mark(4));
        files.damage(NAME, 40, 1);
        assert_eq!(KeptMark::read(&files).unwrap().mark(), Mark::default());
    }
}
