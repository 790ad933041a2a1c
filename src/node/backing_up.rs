//! Backups: what this node holds, read off the threads that serve clients.

use super::worker::Worker;
use crate::placement::Partition;
use crate::protocol::{Copies, CopiesFrom};
use crate::record::Context;
use crate::replica::{self, Copied};
use crate::storage::{StoreError, contexts};
use std::rc::Rc;

impl Worker {
    /// A piece of what this node holds, from `from` on. It gives way to clients, for half of `--timeout` at most.
    pub async fn copies(self: &Rc<Self>, from: CopiesFrom) -> Result<Copies, StoreError> {
        let node = self.node.clone();
        let shared = node.clone();
        let read = move || {
            let mut give_way = shared.foreground.giving_way(shared.settings.timeout / 2);
            let seen = |partition: Partition| match shared.rot.status().waiting {
                0 => {
                    contexts::spread(&shared.seen(&[partition])).map(|(_, context)| context).next().unwrap_or_default()
                }
                // It was seen, and is not there.
                _ => Context::new(),
            };
            let losses = shared.completeness.losses();
            let mut copied = replica::copies(&*shared.store, from, seen, &mut give_way)?;
            copied.keep_seen(seen);
            if shared.completeness.losses() != losses {
                copied.portions.iter_mut().for_each(|portion| portion.seen = Context::new());
            }
            Ok::<_, StoreError>(copied)
        };
        let broken = || StoreError::Unreadable("the reading was cut short".into());
        let Copied { portions, damaged, next } = node.aside.run(read).await.ok_or_else(broken)??;
        let count = damaged.len() as u32;
        damaged.into_iter().for_each(|key| node.rot.note(key));
        let cluster = node.ring().layout().cluster();
        Ok(Copies { cluster, node: node.id, portions, damaged: count, next })
    }
}
