//! One key: `get`.

use crate::exit::{Exit, Failed};
use crate::session::Session;
use kringle::remote::{Ask, segment};

/// The value of a key, as it is.
#[derive(clap::Args, Debug)]
pub struct Get {
    /// The key
    key: String,
}

impl Get {
    /// Asks and shows.
    pub async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        let ask = Ask::get(format!("/kv/{}", segment(self.key.as_bytes())));
        let answer = session.remote.ask(&ask).await?.successful()?;
        session.show.bytes(&answer.body)?;
        Ok(Exit::Ok)
    }
}
