//! One span of load: clients on threads, until it is over or somebody presses Ctrl-C.

use super::client::Client;
use super::ground::Ground;
use super::mix::Operation;
use super::pacing::Pace;
use super::plan::Span;
use super::progress::{Progress, Second};
use super::tally::Tally;
use crate::exit::{Exit, Failed};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

/// How long requests under way may take to be answered once the bench is told to stop.
const GRACE: Duration = Duration::from_secs(1);

/// Times that somebody pressed Ctrl-C.
#[derive(Clone)]
pub struct Interrupts(watch::Receiver<u32>);

impl Interrupts {
    /// Counts from now on, as long as anybody looks; Ctrl-C ends the process no more.
    pub fn count() -> Interrupts {
        let (sender, receiver) = watch::channel(0);
        tokio::task::spawn_local(async move {
            loop {
                tokio::select! {
                    () = sender.closed() => return,
                    pressed = tokio::signal::ctrl_c() => match pressed {
                        Ok(()) => sender.send_modify(|count| *count += 1),
                        // Where signals cannot be had, Ctrl-C ends the process as ever.
                        Err(_) => return sender.closed().await,
                    },
                }
            }
        });
        Interrupts(receiver)
    }

    /// Whether it was pressed.
    pub fn any(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Returns once it was pressed.
    pub async fn pressed(&self) {
        self.clone().reach(1).await
    }

    /// Returns once it was pressed so often.
    async fn reach(&mut self, wanted: u32) {
        if self.0.wait_for(|count| *count >= wanted).await.is_err() {
            std::future::pending().await
        }
    }
}

/// Stops the load when it is dropped: the threads do not end by themselves where nobody waits for them any more.
struct Stop(Arc<Pace>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What one span of load came to.
pub struct Measured {
    /// What was counted.
    pub tally: Tally,
    /// How long was measured: until the last right answer.
    pub elapsed: Duration,
    /// Second by second, warm-up included.
    pub seconds: Vec<Second>,
    /// It was stopped before its end.
    pub interrupted: bool,
}

/// Puts the ground's nodes under this load.
pub async fn run(ground: &Arc<Ground>, span: Span, interrupts: &Interrupts) -> Result<Measured, Failed> {
    let span = Arc::new(span);
    let (plan, mut once, mut twice) = (&ground.plan, interrupts.clone(), interrupts.clone());
    let (cut, cut_seen) = watch::channel(false);
    let (sender, mut tallies) = mpsc::unbounded_channel();
    let mut progress = Progress::begin(&span, &ground.live, plan.quiet);
    let pace = Arc::new(Pace::begin(span.form, span.warm_up, span.end));
    let _stop = Stop(Arc::clone(&pace));
    let mut threads = Vec::new();
    for thread in 0..plan.threads {
        let (ground, span, pace) = (Arc::clone(ground), Arc::clone(&span), Arc::clone(&pace));
        let (sender, cut_seen) = (sender.clone(), cut_seen.clone());
        threads.push(start("bench-clients", move || {
            // Nobody listens only where the bench itself has ended.
            drop(sender.send(kringle::remote::block_on(crowd(&ground, &span, &pace, thread, &cut_seen))));
        })?);
    }
    drop(sender);
    let (keeper, clients) = (Arc::clone(&pace), usize::from(plan.clients));
    threads.push(start("bench-pace", move || keeper.keep(clients))?);

    let mut tally = Tally::default();
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    // What was due and waits for a free client may be sent this much later.
    let drained = pace.last().map(|last| last + plan.timeout);
    let mut cut_at = None;
    loop {
        tokio::select! {
            more = tallies.recv() => match more {
                Some(more) => tally.add(more),
                None => break,
            },
            _ = ticks.tick() => progress.look(&ground.live),
            () = once.reach(1), if !pace.is_stopped() => {
                pace.stop();
                cut_at = Some(Instant::now() + GRACE);
            }
            () = twice.reach(2), if cut_at.is_some() => drop((cut.send_replace(true), cut_at.take())),
            () = until(cut_at), if cut_at.is_some() => drop((cut.send_replace(true), cut_at.take())),
            () = until(drained), if !pace.is_stopped() => pace.stop(),
        }
    }
    let seconds = progress.end(&ground.live);
    pace.stop();
    for thread in threads {
        if thread.join().is_err() {
            return Err(Failed::new(Exit::Unexpected, "a thread of the bench ended before its time"));
        }
    }
    let unsent = pace.unsent();
    let interrupted = interrupts.any();
    if !interrupted {
        // Of which operation they would have been chance had not said yet.
        let first = Operation::ALL.into_iter().find(|operation| span.mix.has(*operation));
        first.into_iter().for_each(|operation| tally.count_unsent(operation, unsent));
    }
    let elapsed = tally.until.unwrap_or_else(Instant::now).saturating_duration_since(pace.warm_until());
    Ok(Measured { tally, elapsed, seconds, interrupted })
}

/// The clients of one thread.
async fn crowd(
    ground: &Arc<Ground>,
    span: &Arc<Span>,
    pace: &Arc<Pace>,
    thread: usize,
    cut: &watch::Receiver<bool>,
) -> Tally {
    let numbers = (0..ground.plan.clients).skip(thread).step_by(ground.plan.threads);
    let clients: Vec<_> = numbers
        .map(|number| {
            let (ground, span, pace, cut) = (Arc::clone(ground), Arc::clone(span), Arc::clone(pace), cut.clone());
            tokio::task::spawn_local(async move { Client::new(&ground, &span, number).run(&pace, cut).await })
        })
        .collect();
    let mut tally = Tally::default();
    for client in clients {
        match client.await {
            Ok(more) => tally.add(more),
            // Told by whoever joins this thread.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    tally
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>, Failed> {
    Ok(std::thread::Builder::new().name(name.into()).spawn(work)?)
}

/// Returns at this moment; never without one.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
