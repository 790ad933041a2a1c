//! What is to be done: everything about a run that is known before it begins.

use super::keys::{self, Order};
use super::mix::{Mix, Operation};
use super::pacing::{End, Loop};
use super::values::{CLIENTS_MAX, Sizes};
use crate::exit::Failed;
use kringle::config::PeerUrl;
use kringle::placement::Mode;
use std::time::Duration;

/// Most threads that clients run on.
pub const THREADS_MAX: usize = 64;

/// Who asks, whom, and about what: the same for all spans of load of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The nodes.
    pub endpoints: Vec<PeerUrl>,
    /// All clients begin with the first of them; otherwise they are dealt to all in turn.
    pub one_first: bool,
    /// The limit of one request.
    pub timeout: Duration,
    /// The mode that requests name; where none is given they name none.
    pub mode: Option<Mode>,
    /// What every key begins with.
    pub prefix: String,
    /// How many keys there are.
    pub keys: u32,
    /// How many counters there are.
    pub counters: u16,
    /// How long values are.
    pub sizes: Sizes,
    /// Lines of a batch.
    pub batch: usize,
    /// Keys on the page of a list.
    pub page: usize,
    /// Clients, each with one request under way at most.
    pub clients: u16,
    /// The threads that they run on.
    pub threads: usize,
    /// Where chance begins.
    pub seed: u64,
    /// A read that shows something old is not held against anybody.
    pub allows_stale: bool,
    /// Nothing is told while it runs.
    pub quiet: bool,
}

/// One span of load.
#[derive(Debug)]
pub struct Span {
    /// What the progress bar calls it.
    pub name: &'static str,
    /// What is asked.
    pub mix: Mix,
    /// Which keys.
    pub order: Order,
    /// When.
    pub form: Loop,
    /// How long nothing is measured.
    pub warm_up: Duration,
    /// Until when.
    pub end: End,
}

impl Span {
    /// Every key once, one after the other.
    pub fn each_key(name: &'static str, operation: Operation, keys: u32) -> Span {
        Span {
            name,
            mix: Mix::only(operation),
            order: Order::Sequential(Default::default()),
            form: Loop::Closed,
            warm_up: Duration::ZERO,
            end: End::Requests(u64::from(keys)),
        }
    }
}

impl Plan {
    /// A plan of nothing out of the ordinary.
    pub fn new(endpoints: Vec<PeerUrl>, timeout: Duration) -> Plan {
        Plan {
            endpoints,
            one_first: false,
            timeout,
            mode: None,
            prefix: "bench/".into(),
            keys: 10_000,
            counters: 10,
            sizes: Sizes { min: 100, max: 100 },
            batch: 10,
            page: 100,
            clients: 10,
            threads: 1,
            seed: kringle::node::random(),
            allows_stale: false,
            quiet: false,
        }
    }

    /// What cannot be done, as far as it can be known: `mix` is the one that writes most.
    pub fn check(&self, mix: &Mix) -> Result<(), Failed> {
        let clients = usize::from(self.clients);
        if self.prefix.is_empty() {
            return Err(Failed::usage("--prefix is empty").hint("keys of the bench need a beginning of their own"));
        }
        if clients == 0 || self.clients > CLIENTS_MAX {
            return Err(Failed::usage(format!("--clients is {clients}, and can be 1 to {CLIENTS_MAX}")));
        }
        if self.threads == 0 || self.threads > THREADS_MAX.min(clients) {
            let hint = format!("1 to {THREADS_MAX}, and a client for each at least");
            return Err(Failed::usage(format!("--threads is {} with --clients {clients}", self.threads)).hint(hint));
        }
        if self.keys == 0 || self.keys > keys::KEYS_MAX {
            return Err(Failed::usage(format!("--keys is {}, and can be 1 to {}", self.keys, keys::KEYS_MAX)));
        }
        let written = match (mix.has(Operation::Batch), mix.has(Operation::Put) || mix.has(Operation::Del)) {
            (true, _) => clients * self.batch.div_ceil(2),
            (false, true) => clients,
            (false, false) => 0,
        };
        if (self.keys as usize) < written {
            let error = format!("{} keys are too few for {clients} clients that write up to {written}", self.keys);
            return Err(Failed::usage(error).hint("a key is written by one client at a time: more --keys"));
        }
        Ok(())
    }
}
