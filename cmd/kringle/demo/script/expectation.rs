//! What a mode owes a client when some of a key's owners are dead, and it is known that they are.

use kringle::placement::Mode;

/// What a write and a read answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Expectation {
    /// The status of a write over an older value.
    pub(super) write: u16,
    /// The status of a read of a value that is there.
    pub(super) read: u16,
}

/// By the mode, and by which of the owners live, in the order of preference. At least one does.
pub(super) fn expected(mode: Mode, lives: &[bool]) -> Expectation {
    let living = lives.iter().filter(|lives| **lives).count();
    let is_majority = living * 2 > lives.len();
    let is_whole = living == lives.len();
    let or_refused = |holds: bool, status: u16| if holds { status } else { 503 };
    let (write, read) = match mode {
        // As many as can be had, and the rest is told.
        Mode::Sloppy => (if is_majority { 204 } else { 202 }, 200),
        Mode::Async => (204, 200),
        Mode::Quorum => (or_refused(is_majority, 204), or_refused(is_majority, 200)),
        Mode::Sync => (or_refused(is_whole, 204), or_refused(is_majority && lives.first() == Some(&true), 200)),
        Mode::Chain => (or_refused(is_whole, 204), or_refused(is_majority && lives.last() == Some(&true), 200)),
    };
    Expectation { write, read }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the README, which is measured on real nodes.
    #[test]
    fn what_is_expected_is_what_the_readme_says_was_measured() {
        const README: &str = include_str!("../../../../README.md");
        let table = README.split("<!-- modes:").nth(1).and_then(|rest| rest.split("<!-- end of modes").next()).unwrap();
        let columns = [[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]];
        let mut rows = 0;
        for row in table.lines().filter(|line| line.starts_with("| `")) {
            let mut cells = row.trim_matches('|').split('|').map(str::trim);
            let mode: Mode = cells.next().unwrap().trim_matches('`').parse().unwrap();
            for (cell, lives) in cells.zip(columns) {
                let Expectation { write, read } = expected(mode, &lives.map(|lives| lives == 1));
                assert_eq!(format!("{write}, {read}"), cell, "{mode} {lives:?}");
            }
            rows += 1;
        }
        assert_eq!(rows, Mode::ALL.len());
    }
}
