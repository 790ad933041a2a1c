//! `kringlectl` as people and scripts use it: the real program, against real nodes that come and go.

#[path = "kringlectl/changing.rs"]
mod changing;
#[path = "kringlectl/foreign.rs"]
mod foreign;
#[path = "kringlectl/keys.rs"]
mod keys;
#[path = "kringlectl/kit.rs"]
mod kit;
#[path = "kringlectl/losing.rs"]
mod losing;
#[path = "kringlectl/papers.rs"]
mod papers;
#[path = "kringlectl/shell.rs"]
mod shell;
mod support;
#[path = "kringlectl/telling.rs"]
mod telling;
