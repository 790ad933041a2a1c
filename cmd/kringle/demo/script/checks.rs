//! What a script has checked: a line for each check, and a verdict that is only good if every one held.

use std::fmt::Debug;
use std::io::Write;

/// Counts, and prints as it goes. Where nobody reads, it counts all the same.
#[derive(Debug)]
pub(super) struct Checks<W> {
    out: W,
    passed: u32,
    failed: u32,
}

impl<W: Write> Checks<W> {
    /// None so far.
    pub(super) fn new(out: W) -> Checks<W> {
        Checks { out, passed: 0, failed: 0 }
    }

    /// What comes next, for whoever looks on.
    pub(super) fn step(&mut self, title: &str) {
        self.line(&format!("\n{title}"));
    }

    /// A check; the error says what there was instead.
    pub(super) fn check(&mut self, what: &str, found: Result<(), String>) {
        match found {
            Ok(()) => {
                self.passed += 1;
                self.line(&format!("  ok    {what}"));
            }
            Err(why) => {
                self.failed += 1;
                self.line(&format!("  FAIL  {what}: {why}"));
            }
        }
    }

    /// A check that two things are equal.
    pub(super) fn equal<T: PartialEq + Debug>(&mut self, what: &str, found: T, expected: T) {
        let same = found == expected;
        self.check(what, if same { Ok(()) } else { Err(format!("found {found:?} and expected {expected:?}")) });
    }

    /// The last line. Whether all is well: nothing failed, and something was checked.
    pub(super) fn verdict(&mut self) -> bool {
        self.line(&format!("\n{} passed, {} failed", self.passed, self.failed));
        self.failed == 0 && self.passed > 0
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
        let _ = self.out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(checks: Checks<Vec<u8>>) -> String {
        String::from_utf8(checks.out).unwrap()
    }

    #[test]
    fn a_script_in_which_every_check_holds_passes() {
        let mut checks = Checks::new(Vec::new());
        checks.check("it is there", Ok(()));
        checks.equal("owners", vec![1, 2, 3], vec![1, 2, 3]);
        assert!(checks.verdict());
        assert!(said(checks).ends_with("\n2 passed, 0 failed\n"));
    }

    #[test]
    fn one_lie_among_truths_makes_it_fail_and_is_told() {
        let mut checks = Checks::new(Vec::new());
        checks.equal("status of the write", 204, 204);
        checks.equal("status of the read", 503, 200);
        checks.check("it is there", Ok(()));
        assert!(!checks.verdict());
        let said = said(checks);
        assert!(said.contains("FAIL  status of the read: found 503 and expected 200"), "{said}");
        assert!(said.ends_with("\n2 passed, 1 failed\n"), "{said}");
    }

    #[test]
    fn a_script_that_checked_nothing_has_shown_nothing() {
        assert!(!Checks::new(Vec::new()).verdict());
    }
}
