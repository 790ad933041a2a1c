//! Nouns: who keeps what, as pure values computed from the layout alone.

mod identity;
mod mode;
mod partition;

pub use identity::{ClusterId, NodeId, NotAnId};
pub use mode::{Mode, NoSuchMode};
pub use partition::{LEAVES, NoSuchPartition, PARTITIONS, Partition, leaf};
