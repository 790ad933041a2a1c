//! What a key may be read as that has a single writer.

/// The values that a read may show: the last one acknowledged, and those written since whose fate is not known.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Register {
    acknowledged: Option<String>,
    doubtful: Vec<String>,
}

impl Register {
    /// The value was acknowledged: whatever came before is over.
    pub(super) fn acknowledge(&mut self, value: &str) {
        self.acknowledged = Some(value.to_owned());
        self.doubtful.clear();
    }

    /// The value may have been written, or may yet be.
    pub(super) fn doubt(&mut self, value: &str) {
        self.doubtful.push(value.to_owned());
    }

    /// Whether anything was acknowledged: until then a read may show what was there before.
    pub(super) fn is_known(&self) -> bool {
        self.acknowledged.is_some()
    }

    /// Takes notice of a read, `None` where it found nothing. The error says what it may have shown. In a mode that
    /// `agrees`, what a read has shown is what there is.
    pub(super) fn read(&mut self, value: Option<&str>, agrees: bool) -> Result<(), String> {
        let is_known = self.acknowledged.as_deref() == value;
        let is_doubtful = value.is_some_and(|value| self.doubtful.iter().any(|doubtful| doubtful == value));
        if !is_known && !is_doubtful {
            return Err(format!("read {value:?}, and acknowledged was {:?}{}", self.acknowledged, self.doubts()));
        }
        if agrees && is_doubtful {
            self.acknowledged = value.map(str::to_owned);
            self.doubtful.clear();
        }
        Ok(())
    }

    fn doubts(&self) -> String {
        if self.doubtful.is_empty() { String::new() } else { format!(", and perhaps {:?}", self.doubtful) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_acknowledged_or_is_in_doubt_may_be_read() {
        let mut register = Register::default();
        assert_eq!(register.read(None, true), Ok(()));
        assert!(register.read(Some("a"), true).is_err(), "a value that nobody wrote");
        register.acknowledge("a");
        assert!(register.read(None, true).is_err(), "an acknowledged value is missing");
        register.doubt("b");
        for value in ["a", "b", "a"] {
            assert_eq!(register.read(Some(value), false), Ok(()), "{value}");
        }
        register.acknowledge("c");
        assert!(register.read(Some("b"), false).is_err() && register.read(Some("a"), false).is_err(), "{register:?}");
    }

    #[test]
    fn where_owners_agree_a_value_that_was_read_does_not_go_away_again() {
        let mut register = Register::default();
        register.acknowledge("a");
        register.doubt("b");
        assert_eq!(register.read(Some("b"), true), Ok(()));
        assert!(register.read(Some("a"), true).is_err());
    }
}
