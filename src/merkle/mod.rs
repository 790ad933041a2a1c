//! Nouns: digests by which two nodes find where their copies differ, without sending what is alike.
//!
//! ```text
//! root         rs_merkle over the partitions two nodes share          tree.rs, built when asked for
//! partition    one sum: 128 bits                                      plot.rs, O(1) a write
//! leaf         1,024 sums a partition, by the next bits of position   plot.rs, O(1) a write
//! key          a digest of key and version, no value bytes            made by the record room
//! ```
//!
//! The trees are Dynamo's (section 4.7). That the leaves are sums is what makes a write cheap, in whatever order
//! writes and the scan at start come.

pub mod diff;
mod forest;
mod plot;
mod sum;
mod tree;

pub use forest::Forest;
pub use plot::{Entry, Leaves};
pub use sum::{LeafSum, VersionDigest};
pub use tree::{PartitionTree, TREE_DEPTH, TreeHash, root};
