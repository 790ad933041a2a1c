//! Verbs: what a node does with a client's request. Machines that ask owners and judge their answers; the node
//! they run on is asked like any other.

mod confirm;
mod course;
mod deliver;
mod entrust;
mod get;
mod list;
mod order;
mod outcome;
mod propose;
mod put;
mod quorum;
mod relayout;
mod replay;
mod restore;
mod turns;

pub use confirm::{Confirm, ConfirmOptions, ConfirmOutcome, Source, is_since};
pub use course::{all_have_taken_in, all_know, heirs};
pub use deliver::{Deliver, Delivered};
pub use entrust::Entrust;
pub use get::{Get, GetOptions, GetOutcome};
pub use list::{List, ListItem, ListOptions, ListOutcome, ListPage, ListWish};
pub use outcome::{PutOutcome, Replicas};
pub use propose::{Agreed, Propose, ProposeOptions, Proposed};
pub use put::{Put, PutOptions, Write};
pub use quorum::{Count, Electorate, Quorum};
pub use relayout::{Relaid, Relayout, RelayoutOptions};
pub use replay::{Fate, HINTS_AT_A_TIME, REFUSED_AGAIN_MS, Replay};
pub use restore::{Restore, Restored};
pub use turns::{Kept, TOGETHER_MAX, Turn, Turns};
