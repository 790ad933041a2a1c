//! What one seed plays: each draws a subset of the faults and rates of its own. All faults always would hide bugs.

use kringle::storage::HINT_BYTES_MAX;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// The size of a run, its traffic, and what goes wrong in it. Times in the unit they are named by; `*_every_ms` is the
/// mean time between two faults of that kind, 0 for none.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Those that are members from the beginning.
    pub(crate) nodes: usize,
    /// Further ones, which may become members.
    pub(crate) spares: usize,
    /// How often an operator wants another layout; 0 where layouts never change.
    pub(crate) changes: usize,
    pub(crate) replicas: u8,
    pub(crate) clients: usize,
    pub(crate) keys: usize,
    pub(crate) operations_each: usize,
    pub(crate) think_ms: u64,
    pub(crate) reads_percent: u32,
    pub(crate) deletes_percent: u32,
    pub(crate) contexts_percent: u32,
    /// Values that expire, of those written.
    pub(crate) ttl_percent: u32,
    /// Whether the last key is one that is counted under.
    pub(crate) counter: bool,
    /// Further keys, of which clients have their owners agree on everything.
    pub(crate) agreed: usize,
    /// Whether the last of them is one that is counted under.
    pub(crate) agreed_counter: bool,
    pub(crate) agreed_clients: usize,
    pub(crate) agreed_each: usize,
    /// Workers of a node, each of which proposes by itself.
    pub(crate) proposers: usize,
    pub(crate) async_percent: u32,
    pub(crate) hard_percent: u32,
    pub(crate) timeout_ms: u64,
    pub(crate) delay_min_us: u64,
    pub(crate) delay_mean_us: u64,
    pub(crate) jam_permille: u32,
    pub(crate) jam_ms: u64,
    pub(crate) loss_permille: u32,
    pub(crate) repeat_permille: u32,
    pub(crate) cut_every_ms: u64,
    pub(crate) crash_every_ms: u64,
    pub(crate) pause_every_ms: u64,
    pub(crate) full_disk_every_ms: u64,
    pub(crate) sync_failure_every_ms: u64,
    pub(crate) clock_step_every_ms: u64,
    pub(crate) clock_hour_every_ms: u64,
    pub(crate) clock_stop_every_ms: u64,
    /// Messages that carry a stamp from the future, and clients that do.
    pub(crate) poison_permille: u32,
    pub(crate) lost_disk_every_ms: u64,
    pub(crate) old_disk_every_ms: u64,
    pub(crate) rot_every_ms: u64,
    /// Between the beginnings of two scrubs of a node.
    pub(crate) scrub_every_ms: u64,
    pub(crate) sync_mean_us: u64,
    /// Between the digests of two partitions, after a start.
    pub(crate) build_mean_us: u64,
    /// Between two pings of a node.
    pub(crate) ping_period_us: u64,
    /// Between two rounds of sessions.
    pub(crate) session_period_us: u64,
    pub(crate) slow_sync_permille: u32,
    pub(crate) skew_ms: i64,
    pub(crate) drift_ppm: i64,
    /// Bytes of rows that a node keeps in memory beside the recent ones.
    pub(crate) cache_bytes: u64,
    /// Most bytes of hints that a node keeps for one other.
    pub(crate) hint_bytes_max: u64,
}

impl Options {
    /// Whether layouts may change: they are kept, told and voted on then.
    pub(crate) fn has_changes(&self) -> bool {
        self.changes > 0
    }

    /// Whether all nodes' clocks show the same.
    pub(crate) fn clocks_agree(&self) -> bool {
        let steps = [self.clock_step_every_ms, self.clock_hour_every_ms, self.clock_stop_every_ms];
        self.skew_ms == 0 && self.drift_ppm == 0 && steps == [0; 3]
    }

    /// A world of so many nodes in which nothing goes wrong by itself.
    pub(crate) fn quiet(nodes: usize, keys: usize) -> Options {
        Options {
            nodes,
            spares: 0,
            changes: 0,
            replicas: 3,
            clients: 1,
            keys,
            operations_each: 100,
            think_ms: 1,
            reads_percent: 0,
            ttl_percent: 0,
            counter: false,
            agreed: 0,
            agreed_counter: false,
            agreed_clients: 0,
            agreed_each: 0,
            proposers: 1,
            deletes_percent: 0,
            contexts_percent: 0,
            async_percent: 0,
            hard_percent: 0,
            timeout_ms: 1_000,
            delay_min_us: 100,
            delay_mean_us: 2_000,
            jam_permille: 0,
            jam_ms: 1,
            loss_permille: 0,
            repeat_permille: 0,
            cut_every_ms: 0,
            crash_every_ms: 0,
            pause_every_ms: 0,
            full_disk_every_ms: 0,
            sync_failure_every_ms: 0,
            clock_step_every_ms: 0,
            clock_hour_every_ms: 0,
            clock_stop_every_ms: 0,
            lost_disk_every_ms: 0,
            old_disk_every_ms: 0,
            rot_every_ms: 0,
            scrub_every_ms: 0,
            poison_permille: 0,
            sync_mean_us: 500,
            build_mean_us: 1_000,
            ping_period_us: 1_000_000,
            session_period_us: 10_000_000,
            slow_sync_permille: 0,
            skew_ms: 0,
            drift_ppm: 0,
            cache_bytes: 16 << 10,
            hint_bytes_max: HINT_BYTES_MAX,
        }
    }

    pub(crate) fn draw(rng: &mut ChaCha8Rng) -> Options {
        let nodes = *pick(rng, &[1, 2, 3, 3, 3, 4, 5, 5, 6]);
        let mut sometimes = |one_in: u32, low: u64, high: u64| {
            let value = rng.random_range(low..=high);
            if rng.random_ratio(1, one_in) { value } else { 0 }
        };
        let (cut_every_ms, crash_every_ms) = (sometimes(2, 500, 8_000), sometimes(2, 2_000, 15_000));
        let (pause_every_ms, full_disk_every_ms) = (sometimes(3, 2_000, 12_000), sometimes(6, 2_000, 12_000));
        let (sync_failure_every_ms, clock_step_every_ms) = (sometimes(6, 5_000, 15_000), sometimes(4, 1_000, 12_000));
        let (jam, loss, repeat) = (sometimes(3, 1, 100), sometimes(3, 1, 150), sometimes(3, 1, 100));
        let (slow_sync, skew, drift) = (sometimes(4, 1, 60), sometimes(3, 1, 20_000), sometimes(3, 1, 100_000));
        let (clock_hour_every_ms, clock_stop_every_ms) = (sometimes(6, 2_000, 15_000), sometimes(6, 2_000, 15_000));
        let poison = sometimes(5, 1, 100);
        let (asynchronous, hard) = (sometimes(3, 1, 50), sometimes(3, 1, 50));
        let (lost_disk_every_ms, old_disk_every_ms) = (sometimes(4, 2_000, 15_000), sometimes(6, 2_000, 8_000));
        let (rot_every_ms, scrub_every_ms) = (sometimes(4, 1_000, 8_000), sometimes(2, 3_000, 12_000));
        let uncached = sometimes(2, 1, 1) > 0;
        let blind = rng.random_ratio(1, 12);
        let options = Options {
            nodes,
            spares: 0,
            changes: 0,
            replicas: *pick(rng, &[1, 2, 3, 3, 3, 3, 3, 3]),
            clients: rng.random_range(1..=4),
            keys: rng.random_range(1..=3),
            operations_each: rng.random_range(8..=30),
            think_ms: *pick(rng, &[1, 20, 100, 300]),
            reads_percent: rng.random_range(10..=60),
            deletes_percent: *pick(rng, &[0, 10, 30]),
            contexts_percent: *pick(rng, &[0, 0, 30, 80]),
            ttl_percent: *pick(rng, &[0, 0, 30]),
            counter: rng.random_ratio(1, 3),
            agreed: 0,
            agreed_counter: false,
            agreed_clients: 0,
            agreed_each: 0,
            proposers: 1,
            async_percent: asynchronous as u32,
            hard_percent: hard as u32,
            timeout_ms: *pick(rng, &[500, 1_000, 2_000]),
            delay_min_us: rng.random_range(20..=500),
            delay_mean_us: *pick(rng, &[300, 1_000, 5_000, 30_000]),
            jam_permille: jam as u32,
            jam_ms: rng.random_range(50..=1_500),
            loss_permille: loss as u32,
            repeat_permille: repeat as u32,
            cut_every_ms,
            crash_every_ms,
            pause_every_ms,
            full_disk_every_ms,
            sync_failure_every_ms,
            clock_step_every_ms,
            clock_hour_every_ms,
            clock_stop_every_ms,
            poison_permille: poison as u32,
            lost_disk_every_ms,
            old_disk_every_ms,
            rot_every_ms,
            scrub_every_ms: if rot_every_ms > 0 { scrub_every_ms } else { 0 },
            sync_mean_us: *pick(rng, &[100, 500, 2_000, 10_000]),
            build_mean_us: *pick(rng, &[1_000, 10_000, 1_000_000]),
            ping_period_us: *pick(rng, &[1_000_000, 3_000_000, 3_000_000]),
            session_period_us: *pick(rng, &[2_000_000, 10_000_000, 10_000_000, 10_000_000]),
            slow_sync_permille: slow_sync as u32,
            skew_ms: skew as i64,
            drift_ppm: drift as i64,
            // Where there is none, rot is met without a restart.
            cache_bytes: if rot_every_ms > 0 && uncached { 0 } else { 16 << 10 },
            hint_bytes_max: HINT_BYTES_MAX,
        };
        let options = options.with_agreed_keys(rng).with_changes(rng);
        if blind {
            // Clients that never look: their values pile up until they are refused.
            return Options {
                clients: 4,
                keys: 1,
                operations_each: 40,
                think_ms: 1,
                reads_percent: 0,
                deletes_percent: 0,
                contexts_percent: 100,
                ttl_percent: 0,
                counter: false,
                ..options
            };
        }
        options
    }

    /// Drawn from a stream of its own as well.
    fn with_changes(self, rng: &ChaCha8Rng) -> Options {
        let mut rng = rng.clone();
        rng.set_stream(2);
        let (changes, spares) = (rng.random_range(0..=3), rng.random_range(0..=2));
        let loses = self.lost_disk_every_ms + self.old_disk_every_ms + self.rot_every_ms > 0;
        if changes == 0 || loses {
            return self;
        }
        Options { changes, spares, ..self }
    }

    /// Drawn from a stream of its own: a run without such keys goes as it did before there were any.
    fn with_agreed_keys(self, rng: &ChaCha8Rng) -> Options {
        let mut rng = rng.clone();
        rng.set_stream(1);
        let agreed = rng.random_range(0..=2);
        // A key of one owner is gone with its disk, whatever was promised. Of two owners, one that an old disk was put back to
        // is not filled while it holds what the other's promise forbids: neither can settle that alone.
        let loses = self.lost_disk_every_ms + self.old_disk_every_ms + self.rot_every_ms > 0;
        if loses && self.nodes.min(usize::from(self.replicas)) < 3 || agreed == 0 {
            return self;
        }
        Options {
            agreed,
            agreed_counter: rng.random_ratio(1, 3),
            agreed_clients: rng.random_range(2..=5),
            agreed_each: rng.random_range(10..=30),
            proposers: rng.random_range(1..=2),
            ..self
        }
    }
}

pub(crate) fn pick<'a, T>(rng: &mut ChaCha8Rng, among: &'a [T]) -> &'a T {
    &among[rng.random_range(0..among.len())]
}

/// A draw from an exponential distribution, in whole units, at most ten times the mean.
pub(crate) fn about(rng: &mut ChaCha8Rng, mean: u64) -> u64 {
    // Sixteen coin throws of falling weight make an exponential draw without a float.
    let uniform = rng.random_range(1..=1u64 << 20);
    let halvings = u64::from(20 - (63 - uniform.leading_zeros()));
    (mean * (halvings * 7 + rng.random_range(0..7)) / 13).min(10 * mean)
}
