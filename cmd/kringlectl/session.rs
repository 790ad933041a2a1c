//! What every verb has: a cluster to ask, and a way to show what it says.

use crate::arguments::Options;
use crate::context::Contexts;
use crate::exit::Failed;
use crate::show::Show;
use crate::survey;
use kringle::config::PeerUrl;
use kringle::remote::{Ask, Remote};
use std::time::{Duration, Instant};

/// The endpoint when nobody names one.
const ENDPOINT_DEFAULT: &str = "http://localhost:8001";
/// The longest that the race of the endpoints may take.
const RACE_MAX: Duration = Duration::from_secs(3);
/// Pings that each endpoint is measured by; the quickest counts, as the first makes the connection.
const RACE_PINGS: usize = 3;

/// One command's surroundings.
pub struct Session {
    /// The cluster.
    pub remote: Remote,
    /// Standard output.
    pub show: Show,
    /// The limit of one request.
    pub timeout: Duration,
    /// Whether the endpoints stand in the order of how quickly they answered, for the first to be asked alone.
    pub fastest: bool,
}

impl Session {
    /// Finds the cluster: endpoints given, else the context's, else the node of this machine.
    pub fn new(options: &Options) -> Result<Session, Failed> {
        let endpoints = match options.endpoints.is_empty() {
            false => options.endpoints.clone(),
            true => match options.context.as_ref().filter(|name| !name.is_empty()) {
                Some(name) => Contexts::load()?.cluster(name)?.clone(),
                None => {
                    let contexts = Contexts::load()?;
                    match &contexts.current {
                        Some(name) => contexts.cluster(name)?.clone(),
                        None => vec![ENDPOINT_DEFAULT.parse().map_err(Failed::usage)?],
                    }
                }
            },
        };
        Ok(Session {
            remote: Remote::new(endpoints, options.timeout),
            show: Show::new(options.output),
            timeout: options.timeout,
            fastest: options.fastest,
        })
    }

    /// The same, and where `--fastest` was typed the endpoint that answers quickest is asked first.
    pub async fn open(options: &Options) -> Result<Session, Failed> {
        let mut session = Session::new(options)?;
        if options.fastest {
            session.race().await;
        }
        Ok(session)
    }

    /// Puts the endpoints in the order of how quickly they answer; those that do not answer stay, at the end.
    async fn race(&mut self) {
        let limit = self.timeout.min(RACE_MAX);
        let runners = self.remote.endpoints().iter().map(|endpoint| {
            let runner = Remote::new(vec![endpoint.clone()], limit);
            tokio::task::spawn_local(async move {
                let mut best: Option<Duration> = None;
                for _ in 0..RACE_PINGS {
                    let begun = Instant::now();
                    match runner.ask(&Ask::get("/ping")).await {
                        Ok(answer) if answer.status.is_success() => {
                            best = Some(best.unwrap_or(Duration::MAX).min(begun.elapsed()));
                        }
                        _ => break,
                    }
                }
                (best, runner.endpoints()[0].clone())
            })
        });
        let mut ranked: Vec<(Option<Duration>, PeerUrl)> = survey::all(runners.collect()).await;
        ranked.sort_by_key(|(best, _)| best.unwrap_or(Duration::MAX));
        if let Some((Some(best), endpoint)) = ranked.first() {
            talk!("asking {endpoint}, which answers in {:.1} ms", best.as_secs_f64() * 1_000.0);
        }
        self.remote = Remote::new(ranked.into_iter().map(|(_, endpoint)| endpoint).collect(), self.timeout);
    }

    /// Learns of the cluster's other nodes, so that one that was not named can be gone on with. Whoever does not answer
    /// that is as good as before.
    pub async fn acquaint(&mut self) {
        if let Ok(answer) = self.remote.ask(&Ask::get("/cluster")).await
            && let Ok(cluster) = answer.json()
        {
            self.remote = self.remote.and(survey::members_of(&cluster));
        }
    }
}
