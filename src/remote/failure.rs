//! What can become of a request that brought no success, told by who should act.

use super::Answer;
use actix_web::http::StatusCode;
use thiserror::Error;

/// Why there is no answer, or none of success.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Failure {
    /// No endpoint could be asked, or none answered what may be asked of all of them. Nothing was changed.
    #[error("no endpoint answers: {}", listed(.tried))]
    Unreachable {
        /// URL and reason.
        tried: Vec<(String, String)>,
    },
    /// It was sent, and no answer came: it may have been carried out, now or later.
    #[error("{from}: {why}; whether it was carried out is not known")]
    Unknown {
        /// The URL asked.
        from: String,
        /// The reason.
        why: String,
    },
    /// A node said no.
    #[error("{error}")]
    Refused {
        /// The URL of that node.
        from: String,
        /// The status.
        status: StatusCode,
        /// What happened.
        error: String,
        /// What to do about it; empty where it says nothing.
        hint: String,
    },
    /// The answer ended before its end.
    #[error("{from}: the answer broke off: {why}")]
    Broken {
        /// The URL asked.
        from: String,
        /// The reason.
        why: String,
    },
    /// The answer is not what a node of Kringle says.
    #[error("{from} answers what kringle does not say: {why}")]
    Garbled {
        /// The URL asked.
        from: String,
        /// The reason.
        why: String,
    },
}

fn listed(tried: &[(String, String)]) -> String {
    tried.iter().map(|(url, why)| format!("{url} ({why})")).collect::<Vec<_>>().join(", ")
}

impl Failure {
    /// What an answer other than of success says.
    pub(super) fn refused(answer: &Answer) -> Failure {
        let said = answer.json().unwrap_or_default();
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        let error = match text("error") {
            silent if silent.is_empty() => format!("{} answers {}", answer.from, answer.status),
            error => error,
        };
        Failure::Refused { from: answer.from.clone(), status: answer.status, error, hint: text("hint") }
    }

    /// What to do about it, if a node said so.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Failure::Refused { hint, .. } if !hint.is_empty() => Some(hint),
            _ => None,
        }
    }
}
