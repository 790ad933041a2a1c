//! Requests of one key: what is sent, and how the answer is checked.

use super::client::{Client, Silence};
use super::counters::{self, Added};
use super::keys;
use super::ledger::{Fate, Shown, Turn, Write};
use super::outcome::{self, Failed, Outcome, Verified, Wrong};
use super::values::{self, Damage, Stamp};
use kringle::remote::{Answer, Ask, segment};

impl Client<'_> {
    /// `GET /kv/{key}`.
    pub(super) async fn get(&mut self) -> Outcome {
        let number = self.draw();
        let key = keys::key(&self.ground.plan.prefix, number);
        let acked = self.ground.ledger.acked(number);
        let ask = Ask::get(self.path(&format!("/kv/{}", segment(key.as_bytes()))));
        let answer = match self.ask(&ask).await {
            Ok(answer) => answer,
            Err(silence) => return silence.into(),
        };
        let short = answer.header("kringle-replicas").is_some();
        let siblings = answer.header("kringle-siblings").and_then(|count| count.parse().ok()).unwrap_or(1);
        let value = match answer.status.as_u16() {
            200 => Some(&answer.body[..]),
            404 => match says_no_such_key(&answer) {
                true => None,
                false => return garbled(&answer, "a 404 that is none of a key"),
            },
            _ => return unsuccessful(&answer),
        };
        match self.judge(&key, number, acked, value, short, siblings) {
            Ok(verified) => Outcome::Verified(verified),
            Err((wrong, what)) => Outcome::Wrong(wrong, format!("{what}, from {}", answer.from)),
        }
    }

    /// What a read of this key comes to, which began when `acked` was acknowledged.
    pub(super) fn judge(
        &self,
        key: &str,
        number: u32,
        acked: u32,
        value: Option<&[u8]>,
        short: bool,
        siblings: u64,
    ) -> Result<Verified, (Wrong, String)> {
        let shown = match value.map(|value| (values::read(key, number, value), value.len())) {
            None => Shown::Nothing,
            Some((Ok(stamp), _)) => Shown::Value(stamp),
            Some((Err(Damage::Foreign), bytes)) => {
                return Err((Wrong::Foreign, format!("{key}: {bytes} bytes that nobody wrote there")));
            }
            Some((Err(Damage::Torn), bytes)) => {
                return Err((Wrong::Torn, format!("{key}: {bytes} bytes that are not what was written")));
            }
        };
        let judged = self.ground.ledger.judge(number, acked, shown);
        let fresh = self.ground.promise.is_fresh(short, siblings);
        let old = outcome::of_read(judged, fresh).map_err(|wrong| {
            let shown = match shown {
                Shown::Nothing => "nothing".to_owned(),
                Shown::Value(stamp) if stamp.run != self.ground.values.run() => "an earlier run's value".to_owned(),
                Shown::Value(stamp) => format!("write {}", stamp.sequence),
            };
            (wrong, format!("{key}: {shown}, when write {acked} had been acknowledged"))
        })?;
        let misses = u64::from(value.is_none());
        Ok(Verified { items: 1, misses, old, bytes_read: value.map_or(0, <[u8]>::len) as u64, bytes_written: 0 })
    }

    /// `PUT /kv/{key}`.
    pub(super) async fn put(&mut self) -> Outcome {
        let (turn, value) = match self.next_value() {
            Some(next) => next,
            None => return all_busy(),
        };
        let bytes = value.len() as u64;
        let key = keys::key(&self.ground.plan.prefix, turn.key);
        let ask = Ask::put(self.path(&format!("/kv/{}", segment(key.as_bytes())))).body(value);
        let answer = self.ask(&ask).await;
        let checked = written(&answer, &[201, 204], true);
        self.ground.ledger.settle(turn, Write::Put, fate(&answer));
        match (answer, checked) {
            (Err(silence), _) => silence.into(),
            (Ok(_), Ok(())) => Outcome::Verified(Verified { items: 1, bytes_written: bytes, ..Verified::default() }),
            (Ok(_), Err(outcome)) => outcome,
        }
    }

    /// A key to write, and its next value.
    pub(super) fn next_value(&mut self) -> Option<(Turn, Vec<u8>)> {
        let wished = self.draw();
        let turn = self.ground.ledger.begin(wished, Write::Put)?;
        let key = keys::key(&self.ground.plan.prefix, turn.key);
        let run = self.ground.values.run();
        let stamp = Stamp { run, key: turn.key, client: self.number, sequence: turn.sequence };
        let size = self.ground.plan.sizes.pick(&mut self.chance);
        Some((turn, self.ground.values.value(&key, stamp, size)))
    }

    /// `DELETE /kv/{key}`.
    pub(super) async fn del(&mut self) -> Outcome {
        let wished = self.draw();
        let Some(turn) = self.ground.ledger.begin(wished, Write::Del) else { return all_busy() };
        let key = keys::key(&self.ground.plan.prefix, turn.key);
        let answer = self.ask(&Ask::delete(self.path(&format!("/kv/{}", segment(key.as_bytes()))))).await;
        let checked = written(&answer, &[204], false);
        self.ground.ledger.settle(turn, Write::Del, fate(&answer));
        match (answer, checked) {
            (Err(silence), _) => silence.into(),
            (Ok(_), Ok(())) => Outcome::Verified(Verified { items: 1, ..Verified::default() }),
            (Ok(_), Err(outcome)) => outcome,
        }
    }

    /// `POST /counters/{key}`.
    pub(super) async fn incr(&mut self) -> Outcome {
        let counters = &self.ground.counters;
        let number = (self.draw() % u32::from(counters.count())) as u16;
        let key = counters::key(&self.ground.plan.prefix, number);
        let ask = Ask::post(self.path(&format!("/counters/{}", segment(key.as_bytes()))));
        let floor = self.ground.counters.begin(number);
        let answer = self.ask(&ask).await;
        let counters = &self.ground.counters;
        let answer = match answer {
            Ok(answer) => answer,
            Err(silence) => {
                counters.settle(number, if silence.unsent { Added::NotDone } else { Added::Unknown });
                return silence.into();
            }
        };
        match answer.status.as_u16() {
            200 => counters.settle(number, Added::Acked),
            202 => counters.settle(number, Added::Short),
            400..=428 | 430..=499 => counters.settle(number, Added::NotDone),
            _ => counters.settle(number, Added::Unknown),
        }
        if !matches!(answer.status.as_u16(), 200 | 202) {
            return unsuccessful(&answer);
        }
        let Some(value) = counter_value(&answer) else { return garbled(&answer, "no number") };
        let agreed = self.ground.promise == super::promise::Promise::Agreed;
        match counters.can_be(number, value, floor, agreed) {
            true => Outcome::Verified(Verified { items: 1, ..Verified::default() }),
            false => {
                let what = format!("{key}: {value} is the answer to an increment of {floor}, from {}", answer.from);
                Outcome::Wrong(if value <= floor { Wrong::Stale } else { Wrong::Foreign }, what)
            }
        }
    }
}

/// The value in an answer of `/counters`.
pub(super) fn counter_value(answer: &Answer) -> Option<i64> {
    answer.json().ok()?["value"].as_i64()
}

/// What became of a write with this answer.
fn fate(answer: &Result<Answer, Silence>) -> Fate {
    match answer {
        Ok(answer) => fate_of_status(answer.status.as_u16()),
        Err(silence) if silence.unsent => Fate::NotDone,
        Err(_) => Fate::Unknown,
    }
}

/// What became of a write with an answer of this status.
pub(super) fn fate_of_status(status: u16) -> Fate {
    match status {
        202 => Fate::Short,
        200..=299 => Fate::Acked,
        429 => Fate::Unknown,
        400..=499 => Fate::NotDone,
        _ => Fate::Unknown,
    }
}

/// Whether the answer to a write is one of success as a node gives it; without an answer there is nothing to check.
fn written(answer: &Result<Answer, Silence>, statuses: &[u16], leaves_value: bool) -> Result<(), Outcome> {
    let Ok(answer) = answer else { return Ok(()) };
    let status = answer.status.as_u16();
    if status != 202 && !statuses.contains(&status) {
        return Err(unsuccessful(answer));
    }
    let acked = answer.header("kringle-replicas").and_then(|line| {
        let (_, behind) = line.split_once("acked=")?;
        behind.split(',').next()?.trim().parse::<u32>().ok()
    });
    match acked {
        None => Err(garbled(answer, "it does not say how many owners have the write")),
        Some(0) if status != 202 => Err(garbled(answer, "a success that no owner has")),
        _ if leaves_value && answer.header("etag").is_none() => Err(garbled(answer, "no ETag")),
        _ => Ok(()),
    }
}

/// What an answer comes to that is none of success.
pub(super) fn unsuccessful(answer: &Answer) -> Outcome {
    let status = answer.status.as_u16();
    let failed = match status {
        429 | 500..=599 => Failed::Refused,
        400..=499 => Failed::Rejected,
        _ => return garbled(answer, "it is no answer to this request"),
    };
    let said = answer.json().ok().and_then(|said| said["error"].as_str().map(str::to_owned));
    Outcome::Failed(failed, format!("{} answers {status}: {}", answer.from, said.unwrap_or_default()))
}

pub(super) fn garbled(answer: &Answer, what: &str) -> Outcome {
    Outcome::Wrong(Wrong::Garbled, format!("{} answers {}: {what}", answer.from, answer.status))
}

/// Another client's turn on every key there is.
pub(super) fn all_busy() -> Outcome {
    Outcome::Failed(Failed::Rejected, "every key is being written: more --keys".into())
}

fn says_no_such_key(answer: &Answer) -> bool {
    answer.json().is_ok_and(|said| said["error"].is_string())
}
