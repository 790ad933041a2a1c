//! `Driven`: an operation that has begun, for whoever wants to know what it concludes.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// An operation that has begun, and what it concludes. It goes on whether or not anybody waits.
///
/// Small, whatever the operation: it lies in the futures of all who ask, and each of these is moved several times.
#[must_use = "whoever does not wait does not learn what became of it"]
pub enum Driven<T> {
    /// It has concluded.
    Known(Ready<Option<T>>),
    /// It will.
    Awaited(oneshot::Receiver<T>),
}

impl<T> Driven<T> {
    /// What it has concluded; `None` where the machine broke its word.
    pub(super) fn known(output: Option<T>) -> Driven<T> {
        Driven::Known(ready(output))
    }
}

impl<T> Future for Driven<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        match &mut *self {
            Driven::Known(known) => Pin::new(known).poll(context),
            Driven::Awaited(answer) => Pin::new(answer).poll(context).map(Result::ok),
        }
    }
}
