//! What every verb has: a cluster to ask, and a way to show what it says.

use crate::arguments::Options;
use crate::exit::Failed;
use crate::show::Show;
use kringle::config::PeerUrl;
use kringle::remote::Remote;
use std::time::Duration;

/// The endpoint when nobody names one.
const ENDPOINT_DEFAULT: &str = "http://localhost:8001";

/// One command's surroundings.
pub struct Session {
    /// The cluster.
    pub remote: Remote,
    /// Standard output.
    pub show: Show,
    /// The limit of one request.
    pub timeout: Duration,
}

impl Session {
    /// Finds the cluster: endpoints given, else the context's, else the node of this machine.
    pub fn new(options: &Options) -> Result<Session, Failed> {
        let endpoints: Vec<PeerUrl> = match options.endpoints.is_empty() {
            false => options.endpoints.clone(),
            true => vec![ENDPOINT_DEFAULT.parse().map_err(Failed::usage)?],
        };
        Ok(Session {
            remote: Remote::new(endpoints, options.timeout),
            show: Show::new(options.output),
            timeout: options.timeout,
        })
    }
}
