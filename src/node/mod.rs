//! The shell: one running node. Assembly, the driver of operations, links, background loops, the end.
//!
//! ```text
//!  HTTP worker threads          committer thread         housekeeping thread        main thread
//!  operations, links      ──►   one batch at a time ──►  checkpoints, timed syncs   pings, hints, sessions, signals
//!        ▲                            │
//!        └──────── one message per worker and drain
//! ```

mod agreed;
mod aside;
mod background;
mod backing_up;
mod belonging;
mod counting;
mod dialects;
mod driven;
mod events;
mod faults;
mod filling;
mod following;
mod foreground;
mod forgetting;
mod gathering;
mod greeting;
mod handing_over;
mod latency;
mod layout_facts;
mod layouts;
mod link;
mod listing;
mod load;
mod mend;
mod opening;
mod outside;
mod own_address;
mod pinging;
mod proposing;
mod queue;
mod rendezvous;
mod replay;
mod reply_room;
mod restoring;
mod rot;
mod seen;
mod serving;
mod shared;
mod steward;
mod sync;
mod under_way;
mod voting;
mod watchers;
mod worker;

pub use belonging::meet;
pub use driven::Driven;
pub use events::{Event, Events};
pub use faults::{Faults, Uncut, cut_off};
pub use filling::Completeness;
pub use foreground::{Class, Foreground};
pub use forgetting::{Waiting, Waits};
pub use layout_facts::keep_left;
pub use listing::ReadAhead;
pub use load::{Load, Rates};
pub use opening::StartError;
pub use outside::{now, random, wall_ms};
pub use own_address::own_address;
pub use proposing::Contested;
pub use restoring::Restored;
pub use rot::{Rot, RotStatus, Run};
pub use seen::SeenWrites;
pub use shared::{BODIES_BYTES_MAX, Shared};
pub use steward::{ask_progress, named, outlook, request_change};
pub use sync::{Account, Reason, Syncs, Totals, on_request as sync_with};
pub use watchers::{Next, Told, Watch, Watches, What};
pub use worker::Worker;

use crate::config::Settings;
use crate::protocol::FeedOf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

/// A node whose store is open and whose threads run. It serves nobody yet: that is `http`'s.
pub struct Node {
    /// What all its threads share.
    pub shared: Arc<Shared>,
    committer: JoinHandle<()>,
    housekeeping: Option<JoinHandle<()>>,
}

impl Node {
    /// Opens the store, works out the layout, starts the threads. `port` is the one that is bound.
    pub fn start(settings: Settings, port: u16) -> Result<Node, StartError> {
        let opening::Opened { shared, committer, keep } = opening::open(settings, port)?;
        let shared = Arc::new(shared);
        let (queue, noted) = (shared.queue.clone(), shared.clone());
        let committer = spawn("committer", move || queue.run(committer, &noted.rot, &noted.contested))?;
        let housekeeping = match keep {
            None => None,
            Some(keep) => {
                let shared = shared.clone();
                Some(spawn("housekeeping", move || keep.run(&shared))?)
            }
        };
        Ok(Node { shared, committer, housekeeping })
    }

    /// Starts the loops that talk to peers, on the calling thread, which must be in an actix runtime.
    pub fn start_loops(&self) -> Rc<Worker> {
        let worker = Worker::start(self.shared.clone());
        pinging::ping_peers(&worker);
        replay::hand_over_hints(&worker);
        filling::keep_filled(&worker);
        sync::on_timer(&worker);
        background::watch_health(&worker);
        rot::repair(&worker);
        proposing::settle_contested(&worker);
        forgetting::on_timer(&worker);
        belonging::belong_somewhere(&worker);
        rendezvous::look_around(&worker);
        steward::keep_watch(&worker);
        handing_over::let_go(&worker);
        following::keep(&worker, FeedOf::Changes);
        following::keep(&worker, FeedOf::Events);
        worker
    }

    /// Commits what waits, carries it into the base, ends the threads. Nothing may be submitted any more.
    pub fn stop(self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.queue.close();
        for thread in [Some(self.committer), self.housekeeping].into_iter().flatten() {
            // A thread that panicked has ended the process.
            let _ = thread.join();
        }
        self.shared.events.info("stop", "stopped");
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    let guarded = move || {
        let fuse = Fuse;
        body();
        std::mem::forget(fuse);
    };
    std::thread::Builder::new().name(name.into()).spawn(guarded).map_err(StartError::Thread)
}

/// Ends the process when dropped, which only a panic does: a node that lost its committer would take requests and
/// answer none. What was acknowledged is on disk, and the next start finds it.
struct Fuse;

impl Drop for Fuse {
    fn drop(&mut self) {
        log::error!(target: "kringle::stop", "a thread of this node panicked: ending at once");
        std::process::abort();
    }
}
