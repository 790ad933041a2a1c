//! What one connection has agreed on with the node.

use super::clients::{Client, Clients};
use super::frame::Protocol;
use crate::client::{ReadTerms, WriteTerms};
use crate::node::Worker;
use crate::placement::Mode;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

/// What one connection has agreed on.
pub(super) struct Session {
    pub(super) worker: Rc<Worker>,
    pub(super) clients: Arc<Clients>,
    pub(super) client: Arc<Client>,
    mode: Cell<Option<Mode>>,
    protocol: Cell<Protocol>,
    closing: Cell<bool>,
    multi: Cell<bool>,
}

impl Session {
    pub(super) fn new(worker: Rc<Worker>, clients: Arc<Clients>, client: Arc<Client>) -> Session {
        let (mode, protocol) = (Cell::default(), Cell::default());
        Session { worker, clients, client, mode, protocol, closing: Cell::new(false), multi: Cell::new(false) }
    }

    /// The mode that its commands go by: the one it named, or the cluster's.
    pub(super) fn mode(&self) -> Mode {
        self.mode.get().unwrap_or_else(|| self.worker.node.ring().layout().mode())
    }

    pub(super) fn named_mode(&self) -> Option<Mode> {
        self.mode.get()
    }

    pub(super) fn set_mode(&self, mode: Option<Mode>) {
        self.mode.set(mode);
    }

    pub(super) fn write_terms(&self) -> WriteTerms {
        WriteTerms { mode: self.mode.get(), w: None }
    }

    pub(super) fn read_terms(&self) -> ReadTerms {
        ReadTerms { mode: self.mode.get(), ..ReadTerms::default() }
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol.get()
    }

    pub(super) fn speak(&self, protocol: Protocol) {
        self.protocol.set(protocol);
        self.client.speaks(protocol.number());
    }

    /// Ends the connection once everything before is answered.
    pub(super) fn close(&self) {
        self.closing.set(true);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Begins or ends what its client takes for a transaction. Whether it was in one.
    pub(super) fn set_multi(&self, is: bool) -> bool {
        self.multi.replace(is)
    }

    /// Whether its client takes what it sends for a transaction.
    pub(super) fn is_in_multi(&self) -> bool {
        self.multi.get()
    }

    /// This node's time, in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> u64 {
        self.worker.node.now_stamp().ms()
    }
}
