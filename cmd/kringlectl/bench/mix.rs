//! What is asked, and how often: `get=50,put=50`.

use super::chance::Chance;
use std::fmt;
use std::str::FromStr;

/// One kind of request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Operation {
    /// `GET /kv/{key}`.
    Get,
    /// `PUT /kv/{key}`.
    Put,
    /// `DELETE /kv/{key}`.
    Del,
    /// `POST /counters/{key}`, by one.
    Incr,
    /// `GET /kv?prefix=…&start=…`: one page.
    List,
    /// `POST /batch`: as many `get`s as `put`s.
    Batch,
}

impl Operation {
    /// All of them, in the order of their numbers.
    pub const ALL: [Operation; 6] =
        [Operation::Get, Operation::Put, Operation::Del, Operation::Incr, Operation::List, Operation::Batch];

    /// Its word in a mix and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::Put => "put",
            Operation::Del => "del",
            Operation::Incr => "incr",
            Operation::List => "list",
            Operation::Batch => "batch",
        }
    }
}

/// Operations with their weights: at least one above 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mix {
    /// By the number of the operation.
    weights: [u32; Operation::ALL.len()],
}

impl Mix {
    /// Nothing but this.
    pub fn only(operation: Operation) -> Mix {
        let mut weights = [0; Operation::ALL.len()];
        weights[operation as usize] = 1;
        Mix { weights }
    }

    /// Whether it is ever asked.
    pub fn has(&self, operation: Operation) -> bool {
        self.weights[operation as usize] > 0
    }

    /// One of them, as likely as its weight says.
    pub fn pick(&self, chance: &mut Chance) -> Operation {
        let total = self.weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut left = chance.below(total);
        for (operation, weight) in Operation::ALL.into_iter().zip(self.weights) {
            match left.checked_sub(u64::from(weight)) {
                None => return operation,
                Some(rest) => left = rest,
            }
        }
        unreachable!("{left} is left of {total}, which is the sum of {:?}", self.weights)
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Mix, String> {
        let mut weights = [0; Operation::ALL.len()];
        let mut named = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.trim().split_once('=').unwrap_or((part.trim(), "1"));
            let Some(operation) = Operation::ALL.into_iter().find(|operation| operation.name() == name) else {
                let known = Operation::ALL.map(Operation::name).join(", ");
                return Err(format!("{name:?} is nothing to ask for; there are {known}"));
            };
            if named.contains(&operation) {
                return Err(format!("{name} is there twice"));
            }
            named.push(operation);
            weights[operation as usize] =
                weight.parse().map_err(|_| format!("{weight:?} is no weight: a whole number from 0 on"))?;
        }
        if weights.iter().all(|weight| *weight == 0) {
            return Err("nothing has a weight above 0".into());
        }
        Ok(Mix { weights })
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = Operation::ALL.into_iter().zip(self.weights).filter(|(_, weight)| *weight > 0);
        let parts: Vec<String> = parts.map(|(operation, weight)| format!("{}={weight}", operation.name())).collect();
        f.write_str(&parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_mix_is_read_back_from_what_it_says(weights: [u32; Operation::ALL.len()]) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let mix = Mix { weights };
            prop_assert_eq!(mix.to_string().parse(), Ok(mix));
        }

        #[test]
        fn what_has_no_weight_is_never_picked(seed: u64, weights in prop::array::uniform6(0u32..3)) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let (mix, mut chance) = (Mix { weights }, Chance::seeded(seed));
            for _ in 0..50 {
                prop_assert!(mix.has(mix.pick(&mut chance)));
            }
        }

        #[test]
        fn no_text_is_more_than_an_error(text: String) {
            let _ = text.parse::<Mix>();
        }
    }

    #[test]
    fn weights_are_kept() {
        let mix: Mix = "get=75, put=25".parse().unwrap();
        let mut chance = Chance::seeded(1);
        let gets = (0..10_000).filter(|_| mix.pick(&mut chance) == Operation::Get).count();
        assert!((7_300..7_700).contains(&gets), "{gets}");
    }

    #[test]
    fn a_mix_that_makes_no_sense_says_why() {
        for (text, why) in [
            ("get=1,fly=2", "\"fly\" is nothing to ask for"),
            ("get=1,get=2", "get is there twice"),
            ("get=x", "\"x\" is no weight"),
            ("get=-1", "\"-1\" is no weight"),
            ("get=0,put=0", "nothing has a weight above 0"),
            ("", "\"\" is nothing to ask for"),
        ] {
            let error = text.parse::<Mix>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_word_without_a_weight_counts_once() {
        assert_eq!("get,put".parse::<Mix>(), "get=1,put=1".parse());
    }
}
